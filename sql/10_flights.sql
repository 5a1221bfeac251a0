-- reads: raw_flights (one text column for each value, missing values null; see jobs/src/ingest/rows.rs)
-- makes: flights, with what is wrong with a row in reject_reason
-- grain: one row per row of a raw file
--
-- Clock times become minutes of the day (2400 is 0), codes lose blanks and become capitals: both by
-- the functions that read requests. An instant shows day and time as it stands there; in the feature
-- files of the original system (has_utc_clock) its UTC clock shows the local time.
WITH dates AS (
  SELECT
    *,
    written_day(flight_date, has_utc_clock) AS written_date,
    written_time(flight_date) AS written_instant,
    -- where all three are there they decide
    CASE
      WHEN year IS NOT NULL AND month IS NOT NULL AND day IS NOT NULL THEN written_day(
        CONCAT(
          CAST(TRY_CAST(TRY_CAST(year AS DOUBLE) AS INT) AS TEXT), '-',
          CAST(TRY_CAST(TRY_CAST(month AS DOUBLE) AS INT) AS TEXT), '-',
          CAST(TRY_CAST(TRY_CAST(day AS DOUBLE) AS INT) AS TEXT)
        ),
        FALSE
      )
    END AS parts_date,
    year IS NOT NULL AND month IS NOT NULL AND day IS NOT NULL AS has_parts
  FROM raw_flights
),
numbers AS (
  -- NaN and infinity are words that a cast takes for numbers; the bound leaves them out
  SELECT
    *,
    CASE WHEN has_parts THEN parts_date ELSE written_date END AS date,
    -- midnight of one place is another day elsewhere, by up to 14 hours
    CASE
      WHEN NOT has_parts OR flight_date IS NULL OR written_date = parts_date THEN FALSE
      ELSE ABS(
        CAST(written_instant AS BIGINT) / 1000000 - CAST(CAST(parts_date AS INT) AS BIGINT) * 86400
      ) > 14 * 3600
    END AS dates_differ,
    written_hhmm(crs_dep_time, has_utc_clock) AS crs_dep_hhmm,
    written_hhmm(crs_arr_time, has_utc_clock) AS crs_arr_hhmm,
    written_hhmm(dep_time, has_utc_clock) AS dep_hhmm,
    written_hhmm(arr_time, has_utc_clock) AS arr_hhmm,
    CASE WHEN ABS(TRY_CAST(dep_delay AS DOUBLE)) < 1e9 THEN TRY_CAST(dep_delay AS DOUBLE) END AS dep_delay_minutes,
    CASE WHEN ABS(TRY_CAST(arr_delay AS DOUBLE)) < 1e9 THEN TRY_CAST(arr_delay AS DOUBLE) END AS arr_delay_minutes,
    CASE WHEN ABS(TRY_CAST(air_time AS DOUBLE)) < 1e9 THEN TRY_CAST(air_time AS DOUBLE) END AS air_time_minutes,
    CASE WHEN ABS(TRY_CAST(distance AS DOUBLE)) < 1e9 THEN TRY_CAST(distance AS DOUBLE) END AS distance_miles,
    CASE LOWER(cancelled) WHEN 'true' THEN 1 WHEN 't' THEN 1 WHEN 'false' THEN 0 WHEN 'f' THEN 0
      ELSE TRY_CAST(cancelled AS DOUBLE) END AS cancelled_flag,
    CASE LOWER(diverted) WHEN 'true' THEN 1 WHEN 't' THEN 1 WHEN 'false' THEN 0 WHEN 'f' THEN 0
      ELSE TRY_CAST(diverted AS DOUBLE) END AS diverted_flag,
    -- a number that went through a column of floats
    CASE
      WHEN flight_number LIKE '%.0%' AND RTRIM(SPLIT_PART(flight_number, '.', 2), '0') = ''
        AND TRY_CAST(flight_number AS DOUBLE) IS NOT NULL
        THEN SPLIT_PART(flight_number, '.', 1)
      ELSE flight_number
    END AS number,
    flight_code(carrier) AS carrier_code,
    -- but for what some write where they do not know it
    CASE
      WHEN flight_code(tail_number) NOT IN ('UNKNOW', 'UNKNOWN', 'UNK', 'NKNO', 'XXXXXX', '-')
        AND REPLACE(tail_number, '0', '') <> '' AND is_code(flight_code(tail_number))
        THEN flight_code(tail_number)
    END AS tail_code,
    flight_code(origin) AS origin_code,
    flight_code(dest) AS dest_code
  FROM dates
),
fates AS (
  -- files without the flag say it by the times that are missing, where they have times
  SELECT
    *,
    CASE
      WHEN has_cancelled THEN COALESCE(cancelled_flag, 0) <> 0
      WHEN has_dep_time THEN dep_time IS NULL
      ELSE FALSE
    END AS is_cancelled,
    CASE
      WHEN has_diverted THEN COALESCE(diverted_flag, 0) <> 0
      WHEN has_dep_time AND has_arr_delay
        THEN dep_time IS NOT NULL AND arr_delay IS NULL AND COALESCE(cancelled_flag, 0) = 0
      ELSE FALSE
    END AS is_diverted,
    -- hours past midnight, such as 2410: the time is lost, the flight is not
    COALESCE(crs_dep_hhmm BETWEEN 2401 AND 2959 AND crs_dep_hhmm % 100 < 60, FALSE) AS crs_dep_is_odd,
    COALESCE(crs_arr_hhmm BETWEEN 2401 AND 2959 AND crs_arr_hhmm % 100 < 60, FALSE) AS crs_arr_is_odd,
    COALESCE(dep_hhmm BETWEEN 2401 AND 2959 AND dep_hhmm % 100 < 60, FALSE) AS dep_is_odd,
    COALESCE(arr_hhmm BETWEEN 2401 AND 2959 AND arr_hhmm % 100 < 60, FALSE) AS arr_is_odd
  FROM numbers
)
SELECT
  flight_id(date, carrier_code, number, origin_code, dest_code, crs_dep_hhmm) AS flight_id,
  date AS flight_date,
  carrier_code AS carrier,
  number AS flight_number,
  tail_code AS tail_number,
  origin_code AS origin,
  dest_code AS dest,
  clock_minutes(crs_dep_hhmm) AS crs_dep_minutes,
  -- an instant, where the zone of the airport is known; 2400 is the end of the day
  utc_of(
    origin_code,
    date,
    CASE WHEN crs_dep_hhmm = 2400 THEN CAST(1440 AS INT) ELSE clock_minutes(crs_dep_hhmm) END
  ) AS crs_dep_utc,
  -- what did not happen has no time, whatever the file says
  CASE WHEN NOT is_cancelled THEN clock_minutes(dep_hhmm) END AS dep_minutes,
  CASE WHEN NOT is_cancelled THEN dep_delay_minutes END AS dep_delay_minutes,
  clock_minutes(crs_arr_hhmm) AS crs_arr_minutes,
  CASE WHEN NOT (is_cancelled OR is_diverted) THEN clock_minutes(arr_hhmm) END AS arr_minutes,
  CASE WHEN NOT (is_cancelled OR is_diverted) THEN arr_delay_minutes END AS arr_delay_minutes,
  CASE WHEN NOT (is_cancelled OR is_diverted) AND air_time_minutes >= 0 THEN air_time_minutes END AS air_time_minutes,
  distance_miles,
  is_cancelled AS cancelled,
  is_diverted AS diverted,
  CAST(DATE_PART('year', date) AS INT) AS year,
  CAST(DATE_PART('month', date) AS INT) AS month,
  file,
  line,
  -- what a request is called, and when it was made: flights have neither
  uuid,
  asked_at,
  CAST(NOT is_code(COALESCE(flight_code(tail_number), 'N')) AS INT) AS odd_tails,
  CAST(crs_dep_is_odd AS INT) + CAST(crs_arr_is_odd AS INT) + CAST(dep_is_odd AS INT) + CAST(arr_is_odd AS INT)
    AS odd_times,
  CASE
    WHEN malformed IS NOT NULL THEN malformed
    WHEN flight_date IS NOT NULL AND written_date IS NULL OR date IS NULL AND NOT has_parts
      THEN 'flight date is missing or not a date: ' || COALESCE(flight_date, 'null')
    WHEN date IS NULL
      THEN 'year, month and day are not a date: ' || year || '-' || month || '-' || day
    WHEN dates_differ
      THEN 'flight date differs from year, month and day: ' || flight_date || ' and ' || year || '-' || month || '-' || day
    WHEN carrier_code IS NULL THEN 'carrier is missing'
    WHEN NOT is_code(carrier_code) THEN 'carrier is not a code: ' || carrier
    WHEN origin_code IS NULL THEN 'origin is missing'
    WHEN NOT is_code(origin_code) THEN 'origin is not a code: ' || origin
    WHEN dest_code IS NULL THEN 'destination is missing'
    WHEN NOT is_code(dest_code) THEN 'destination is not a code: ' || dest
    WHEN NOT is_code(number) THEN 'flight number is not a code: ' || flight_number
    WHEN crs_dep_time IS NOT NULL AND clock_minutes(crs_dep_hhmm) IS NULL AND NOT crs_dep_is_odd
      THEN 'scheduled departure is not a time of day: ' || crs_dep_time
    WHEN crs_arr_time IS NOT NULL AND clock_minutes(crs_arr_hhmm) IS NULL AND NOT crs_arr_is_odd
      THEN 'scheduled arrival is not a time of day: ' || crs_arr_time
    WHEN dep_time IS NOT NULL AND clock_minutes(dep_hhmm) IS NULL AND NOT dep_is_odd
      THEN 'departure is not a time of day: ' || dep_time
    WHEN arr_time IS NOT NULL AND clock_minutes(arr_hhmm) IS NULL AND NOT arr_is_odd
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
FROM fates
