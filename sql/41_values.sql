-- reads: training
-- makes: values: of each feature the distinct values, with the number of rows that have them
-- grain: one row
--
-- Bins and categories are made from these, so they are counted where the forest is trained only.
SELECT
  COUNT(*) AS n_rows,
  distinct_counts(features) AS features
FROM training
WHERE NOT is_holdout
