-- reads: training; the model is inside predict_delay
-- makes: evaluation
-- grain: one row per label, predicted class and calibration bin
--
-- A calibration bin is a tenth of the predicted class's probability.
--
-- Sums are of whole billionths, so that they are the same for any order of rows. A probability of
-- 0 counts as 1e-15 in the log loss, as is usual.
WITH scored AS (
  SELECT
    label,
    predict_delay($model, features) AS answer
  FROM training
  WHERE is_holdout
),
evaluated AS (
  SELECT
    label,
    answer['prediction'] AS prediction,
    answer['probabilities'][CAST(answer['prediction'] AS BIGINT) + 1] AS confidence,
    answer['probabilities'][CAST(label AS BIGINT) + 1] AS probability_of_label
  FROM scored
)
SELECT
  CAST(label AS INT) AS label,
  prediction,
  CAST(LEAST(FLOOR(confidence * 10), 9) AS INT) AS calibration_bin,
  COUNT(*) AS n_rows,
  SUM(CAST(ROUND(confidence * 1e9) AS BIGINT)) AS confidence_billionths,
  SUM(CAST(ROUND(-LN(GREATEST(probability_of_label, 1e-15)) * 1e9) AS BIGINT))
    AS log_loss_billionths
FROM evaluated
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3
