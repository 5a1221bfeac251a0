-- reads: flights
-- makes: flights_by_month
-- grain: one row per month
--
-- See airlines.sql for what is on time.
SELECT
  CONCAT(year, '-', LPAD(CAST(month AS TEXT), 2, '0')) AS "_id",
  year AS "Year",
  month AS "Month",
  COUNT(*) AS "Flights",
  COUNT(*) FILTER (WHERE cancelled) AS "Cancelled",
  COUNT(arr_delay_minutes) AS "Arrived",
  COUNT(*) FILTER (WHERE arr_delay_minutes < 15) AS "OnTime",
  COUNT(*) FILTER (WHERE arr_delay_minutes >= 30) AS "VeryLate",
  ROUND(AVG(dep_delay_minutes), 2) AS "MeanDepDelay",
  ROUND(AVG(arr_delay_minutes), 2) AS "MeanArrDelay"
FROM flights
GROUP BY year, month
ORDER BY year, month
