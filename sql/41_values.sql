-- reads: training
-- makes: values: of each feature the distinct values, with the number of rows that have them
-- grain: one row
--
-- Bins and categories are made from these, so they are counted where the forest is trained only.
-- The fingerprint is of all rows: it says whether a model was trained and evaluated on them.
SELECT
  COUNT(*) FILTER (WHERE NOT is_holdout) AS n_rows,
  MIN(day) FILTER (WHERE NOT is_holdout) AS first_day,
  MAX(day) FILTER (WHERE NOT is_holdout) AS last_day,
  COUNT(DISTINCT day) FILTER (WHERE NOT is_holdout) AS n_days,
  fingerprint(row_key, label, features) AS data,
  distinct_counts(features) FILTER (WHERE NOT is_holdout) AS features
FROM training
