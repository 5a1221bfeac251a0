-- reads: features
-- makes: training
-- grain: one row per flight that departed and arrived
--
-- Labels: 0 early by more than 15 minutes, 1 early by 15 or less, 2 late by less than 30, 3 later;
-- intervals are closed on the left. Which flights are held out ($holdout: 'day:5' is every fifth
-- day) depends on the flight alone, so it stays on its side whatever else is in the data. A day is
-- a number of days since 1970-01-01.
SELECT
  flight_id AS row_key,
  CAST(flight_date AS INT) AS day,
  arrow_cast(
    CASE
      WHEN arr_delay_minutes < -15 THEN 0
      WHEN arr_delay_minutes < 0 THEN 1
      WHEN arr_delay_minutes < 30 THEN 2
      ELSE 3
    END,
    'UInt8'
  ) AS label,
  held_out($holdout, flight_id, CAST(flight_date AS INT)) AS is_holdout,
  features
FROM features
WHERE arr_delay_minutes IS NOT NULL AND features['dep_delay'] IS NOT NULL AND NOT never_arrived
