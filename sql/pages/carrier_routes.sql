-- reads: flights
-- makes: carrier_routes
-- grain: one row per carrier and ordered pair of airports
--
-- What an airline flies and how punctually; see airlines.sql for what is on time.
SELECT
  CONCAT(carrier, '-', origin, '-', dest) AS "_id",
  carrier AS "Carrier",
  origin AS "Origin",
  dest AS "Dest",
  COUNT(*) AS "Flights",
  COUNT(*) FILTER (WHERE cancelled) AS "Cancelled",
  COUNT(arr_delay_minutes) AS "Arrived",
  COUNT(*) FILTER (WHERE arr_delay_minutes < 15) AS "OnTime",
  COUNT(*) FILTER (WHERE arr_delay_minutes >= 30) AS "VeryLate",
  ROUND(AVG(dep_delay_minutes), 2) AS "MeanDepDelay",
  ROUND(AVG(arr_delay_minutes), 2) AS "MeanArrDelay"
FROM flights
GROUP BY carrier, origin, dest
ORDER BY carrier, origin, dest
