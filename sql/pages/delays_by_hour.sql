-- reads: flights
-- makes: delays_by_hour
-- grain: one row per hour of the day at which flights should depart
--
-- See airlines.sql for what is on time.
WITH hours AS (
  SELECT
    crs_dep_minutes / 60 AS hour,
    cancelled,
    dep_delay_minutes,
    arr_delay_minutes
  FROM flights
  WHERE crs_dep_minutes IS NOT NULL
)
SELECT
  LPAD(CAST(hour AS TEXT), 2, '0') AS "_id",
  hour AS "Hour",
  COUNT(*) AS "Flights",
  COUNT(*) FILTER (WHERE cancelled) AS "Cancelled",
  COUNT(arr_delay_minutes) AS "Arrived",
  COUNT(*) FILTER (WHERE arr_delay_minutes < 15) AS "OnTime",
  COUNT(*) FILTER (WHERE arr_delay_minutes >= 30) AS "VeryLate",
  ROUND(AVG(dep_delay_minutes), 2) AS "MeanDepDelay",
  ROUND(AVG(arr_delay_minutes), 2) AS "MeanArrDelay"
FROM hours
GROUP BY hour
ORDER BY hour
