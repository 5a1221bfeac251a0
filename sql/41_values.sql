-- reads: training
-- makes: values: the distinct values of each feature, with the number of rows that have them
-- grain: one row
--
-- Bins and categories are made from these, so they are counted where the forest is trained only.
SELECT
  COUNT(*) AS n_rows,
  distinct_counts(dep_delay_minutes) AS dep_delay_minutes,
  distinct_counts(distance_miles) AS distance_miles,
  distinct_counts(day_of_month) AS day_of_month,
  distinct_counts(day_of_week) AS day_of_week,
  distinct_counts(day_of_year) AS day_of_year,
  distinct_counts(carrier) AS carrier,
  distinct_counts(origin) AS origin,
  distinct_counts(dest) AS dest,
  distinct_counts(route) AS route,
  distinct_counts(crs_dep_minutes) AS crs_dep_minutes,
  distinct_counts(crs_arr_minutes) AS crs_arr_minutes
FROM training
WHERE NOT is_holdout
