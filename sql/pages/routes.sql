-- reads: flights
-- makes: routes
-- grain: one row per ordered pair of airports between which flights went
--
-- See airlines.sql for what is on time.
SELECT
  CONCAT(origin, '-', dest) AS "_id",
  origin AS "Origin",
  dest AS "Dest",
  AVG(distance_miles) AS "Distance",
  COUNT(DISTINCT carrier) AS "Carriers",
  COUNT(*) AS "Flights",
  COUNT(*) FILTER (WHERE cancelled) AS "Cancelled",
  COUNT(arr_delay_minutes) AS "Arrived",
  COUNT(*) FILTER (WHERE arr_delay_minutes < 15) AS "OnTime",
  COUNT(*) FILTER (WHERE arr_delay_minutes >= 30) AS "VeryLate",
  ROUND(AVG(dep_delay_minutes), 2) AS "MeanDepDelay",
  ROUND(AVG(arr_delay_minutes), 2) AS "MeanArrDelay"
FROM flights
GROUP BY origin, dest
ORDER BY origin, dest
