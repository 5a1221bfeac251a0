-- reads: flights, airline_names
-- makes: airlines
-- grain: one row per carrier that flies
--
-- A flight is on time when it arrives less than 15 minutes late, as the US Department of
-- Transportation counts, and very late from 30 minutes, as the model's last class.
SELECT
  flights.carrier AS "_id",
  COALESCE(MIN(airline_names.name), flights.carrier) AS "Name",
  COUNT(DISTINCT tail_number) AS "Airplanes",
  COUNT(DISTINCT CONCAT(origin, '-', dest)) AS "Routes",
  COUNT(*) AS "Flights",
  COUNT(*) FILTER (WHERE cancelled) AS "Cancelled",
  COUNT(arr_delay_minutes) AS "Arrived",
  COUNT(*) FILTER (WHERE arr_delay_minutes < 15) AS "OnTime",
  COUNT(*) FILTER (WHERE arr_delay_minutes >= 30) AS "VeryLate",
  ROUND(AVG(dep_delay_minutes), 2) AS "MeanDepDelay",
  ROUND(AVG(arr_delay_minutes), 2) AS "MeanArrDelay"
FROM flights
LEFT JOIN airline_names ON flights.carrier = airline_names.carrier
GROUP BY flights.carrier
ORDER BY flights.carrier
