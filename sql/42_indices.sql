-- reads: training; bins and categories are inside feature_indices
-- makes: indices, materialised once a run: what the passes over the rows read
-- grain: one row per flight that is trained on
SELECT
  row_key,
  day,
  label,
  feature_indices(features) AS indices
FROM training
WHERE NOT is_holdout
