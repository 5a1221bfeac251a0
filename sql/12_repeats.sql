-- reads: arriving (flights of one month that were just read), present (those that stay beside them)
-- makes: repeats
-- grain: one row: how many flights arrive that arrived before or are there already, and one of them
--
-- Flights without a number and a scheduled time are not told apart by their ids, so they do not count.
WITH ids AS (
  SELECT flight_id, COUNT(*) AS n_rows, MAX(arrives) AS arrives
  FROM (
    SELECT flight_id, 1 AS arrives FROM arriving
    WHERE flight_number IS NOT NULL OR crs_dep_minutes IS NOT NULL
    UNION ALL
    SELECT flight_id, 0 AS arrives FROM present
  )
  GROUP BY flight_id
)
SELECT
  COALESCE(SUM(n_rows - 1), 0) AS n_repeats,
  MIN(flight_id) AS flight_id
FROM ids
WHERE n_rows > 1 AND arrives = 1
