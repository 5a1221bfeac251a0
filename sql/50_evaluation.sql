-- reads: training; the model is inside predict_delay
-- makes: evaluation
-- grain: one row per label, predicted class, side of the last training day and confidence
--
-- Confidence is the predicted class's probability, in thousandths. Sums are of whole billionths, so
-- that they are the same for any order of rows.
WITH scored AS (
  SELECT
    label,
    day > $last_day AS is_future,
    predict_delay($model, features) AS answer
  FROM training
  WHERE is_holdout
),
evaluated AS (
  SELECT
    label,
    is_future,
    answer['prediction'] AS prediction,
    answer['probabilities'][CAST(answer['prediction'] AS BIGINT) + 1] AS confidence,
    log_loss_billionths(answer['probabilities'][CAST(label AS BIGINT) + 1]) AS log_loss_billionths
  FROM scored
)
SELECT
  CAST(label AS INT) AS label,
  prediction,
  is_future,
  CAST(LEAST(FLOOR(confidence * 1000), 999) AS INT) AS confidence_thousandths,
  COUNT(*) AS n_rows,
  SUM(CAST(ROUND(confidence * 1e9) AS BIGINT)) AS confidence_billionths,
  SUM(log_loss_billionths) AS log_loss_billionths
FROM evaluated
GROUP BY 1, 2, 3, 4
ORDER BY 1, 2, 3, 4
