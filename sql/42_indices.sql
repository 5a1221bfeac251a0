-- reads: training
-- makes: codes, materialised once a run: what the passes over the rows read
-- grain: one row per flight that is trained on
SELECT
  row_key,
  label,
  feature_codes(
    dep_delay_minutes, distance_miles, day_of_month, day_of_week, day_of_year,
    carrier, origin, dest, route, crs_dep_minutes, crs_arr_minutes
  ) AS codes
FROM training
WHERE NOT is_holdout
