-- reads: arriving (flights of one month that were just read), present (those that stay beside them)
-- makes: distinct_flights
-- grain: one row per flight that arrives and is not there yet
--
-- Of rows of the same flight the one with the earliest known arrival is kept: which one must not
-- depend on the order of files. Flights without a number and a scheduled time are not told apart by
-- their ids: all of them are kept.
WITH numbered AS (
  SELECT
    *,
    ROW_NUMBER() OVER (
      PARTITION BY flight_id
      ORDER BY
        arr_delay_minutes, dep_delay_minutes, tail_number, dep_minutes, arr_minutes,
        crs_arr_minutes, air_time_minutes, distance_miles, cancelled, diverted
    ) AS number
  FROM arriving
)
SELECT
  flight_id,
  flight_date,
  carrier,
  flight_number,
  tail_number,
  origin,
  dest,
  crs_dep_minutes,
  crs_dep_utc,
  dep_minutes,
  dep_delay_minutes,
  crs_arr_minutes,
  arr_minutes,
  arr_delay_minutes,
  air_time_minutes,
  distance_miles,
  cancelled,
  diverted,
  year,
  month
FROM numbered
WHERE flight_number IS NULL AND crs_dep_minutes IS NULL OR number = 1 AND NOT EXISTS (
  SELECT 1 FROM present WHERE present.flight_id = numbered.flight_id
)
