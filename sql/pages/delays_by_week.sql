-- reads: flights
-- makes: delays_by_week
-- grain: one row per week, named by its Monday
--
-- See airlines.sql for what is on time.
WITH weeks AS (
  SELECT
    CAST(DATE_TRUNC('week', flight_date) AS DATE) AS monday,
    cancelled,
    dep_delay_minutes,
    arr_delay_minutes
  FROM flights
)
SELECT
  CAST(monday AS TEXT) AS "_id",
  COUNT(*) AS "Flights",
  COUNT(*) FILTER (WHERE cancelled) AS "Cancelled",
  COUNT(arr_delay_minutes) AS "Arrived",
  COUNT(*) FILTER (WHERE arr_delay_minutes < 15) AS "OnTime",
  COUNT(*) FILTER (WHERE arr_delay_minutes >= 30) AS "VeryLate",
  ROUND(AVG(dep_delay_minutes), 2) AS "MeanDepDelay",
  ROUND(AVG(arr_delay_minutes), 2) AS "MeanArrDelay"
FROM weeks
GROUP BY monday
ORDER BY monday
