-- reads: flights, airport_names
-- makes: airports
-- grain: one row per airport that is flown from or to
--
-- Flights are those from and to the airport. Delays at departure are those of departures from it;
-- see airlines.sql for what is on time.
WITH visits AS (
  SELECT
    origin AS airport,
    1 AS departures,
    0 AS arrivals,
    cancelled,
    dep_delay_minutes,
    arr_delay_minutes
  FROM flights
  UNION ALL
  SELECT
    dest AS airport,
    0 AS departures,
    1 AS arrivals,
    cancelled,
    CAST(NULL AS DOUBLE) AS dep_delay_minutes,
    arr_delay_minutes
  FROM flights
)
SELECT
  visits.airport AS "_id",
  COALESCE(MIN(airport_names.name), visits.airport) AS "Name",
  MIN(TRY_CAST(airport_names.lat AS DOUBLE)) AS "Latitude",
  MIN(TRY_CAST(airport_names.lon AS DOUBLE)) AS "Longitude",
  SUM(departures) AS "Departures",
  SUM(arrivals) AS "Arrivals",
  COUNT(*) AS "Flights",
  COUNT(*) FILTER (WHERE cancelled) AS "Cancelled",
  COUNT(arr_delay_minutes) AS "Arrived",
  COUNT(*) FILTER (WHERE arr_delay_minutes < 15) AS "OnTime",
  COUNT(*) FILTER (WHERE arr_delay_minutes >= 30) AS "VeryLate",
  ROUND(AVG(dep_delay_minutes), 2) AS "MeanDepDelay",
  ROUND(AVG(arr_delay_minutes), 2) AS "MeanArrDelay"
FROM visits
LEFT JOIN airport_names ON visits.airport = airport_names.faa
GROUP BY visits.airport
ORDER BY visits.airport
