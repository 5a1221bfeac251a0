-- reads: typed_flights (what sql/10_flights.sql makes of files of requests)
-- makes: requests, with what is wrong with a row in reject_reason
-- grain: one row per row of a raw file
--
-- What a request through Kafka must have, a request in a file must have, too, but for a UUID: a row
-- without one is named after its place. A row stands for one request, also where two are of one
-- flight, so it is the row that flight_id names here.
WITH named AS (
  SELECT *, named_uuid(uuid, file, line) AS request_uuid FROM typed_flights
)
SELECT
  NAMED_STRUCT(
    'file', file,
    'line', line,
    'uuid', request_uuid,
    'asked_at', asked_at,
    'dep_delay', dep_delay_minutes, -- minutes
    'distance', distance_miles -- miles, as the row says
  ) AS flight_id,
  flight_date,
  carrier,
  flight_number,
  origin,
  dest,
  crs_dep_minutes,
  crs_arr_minutes,
  dep_delay_minutes,
  distance_miles,
  arr_delay_minutes,
  cancelled,
  diverted,
  uuid IS NOT NULL AS is_named,
  year,
  month,
  file,
  line,
  odd_tails,
  odd_times,
  CASE
    WHEN reject_reason IS NOT NULL OR cancelled THEN reject_reason
    WHEN dep_delay_minutes IS NULL THEN 'departure delay is missing'
    WHEN ABS(dep_delay_minutes) > $delay_max
      THEN 'departure delay is more than a week: ' || dep_delay_minutes
    WHEN distance_miles > $distance_max
      THEN 'distance is more than half the Earth''s circumference: ' || distance_miles
    WHEN OCTET_LENGTH(asked_at) > $timestamp_max
      THEN 'Timestamp has more than ' || $timestamp_max || ' bytes'
    WHEN request_uuid IS NULL THEN 'UUID is none: ' || uuid
  END AS reject_reason
FROM named
