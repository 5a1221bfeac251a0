-- reads: training; the model is inside predict_delay
-- makes: evaluation
-- grain: one row per label, predicted class, side of the last training day and confidence; one per
--        the same with the confidence before calibration; one per day
--
-- Three aggregates of one scan: a model is asked once about each held-out flight. Confidence is the
-- predicted class's probability, in thousandths. Sums are of whole billionths, so that they are the
-- same for any order of rows. By day, because the flights of a day are right or wrong together: what
-- two models differ by is as certain as there are days. A query a model: what carries two is too
-- large for a large cluster.
WITH scored AS (
  SELECT
    label,
    day,
    day > $last_day AS is_future,
    predict_delay($model, features) AS answer
  FROM training
  WHERE is_holdout
),
judged AS (
  SELECT
    label,
    day,
    is_future,
    answer['prediction'] AS prediction,
    answer['probabilities'] AS calibrated,
    -- calibration leaves the order of the classes
    uncalibrated(answer['probabilities'], $temperature) AS uncalibrated
  FROM scored
),
evaluated AS (
  SELECT
    CAST(label AS INT) AS label,
    day,
    is_future,
    prediction,
    probability_of(prediction, calibrated) AS confidence,
    probability_of(prediction, uncalibrated) AS uncalibrated_confidence,
    log_loss_billionths(probability_of(label, calibrated)) AS log_loss_billionths,
    log_loss_billionths(probability_of(label, uncalibrated)) AS uncalibrated_log_loss_billionths
  FROM judged
),
stepped AS (
  SELECT
    *,
    CAST(LEAST(FLOOR(confidence * 1000), 999) AS INT) AS confidence_thousandths,
    CAST(LEAST(FLOOR(uncalibrated_confidence * 1000), 999) AS INT) AS uncalibrated_thousandths
  FROM evaluated
)
SELECT
  label,
  prediction,
  is_future,
  confidence_thousandths,
  uncalibrated_thousandths,
  day,
  COUNT(*) AS n_rows,
  SUM(CAST(ROUND(confidence * 1e9) AS BIGINT)) AS confidence_billionths,
  SUM(log_loss_billionths) AS log_loss_billionths,
  SUM(CAST(ROUND(uncalibrated_confidence * 1e9) AS BIGINT)) AS uncalibrated_confidence_billionths,
  SUM(uncalibrated_log_loss_billionths) AS uncalibrated_log_loss_billionths
FROM stepped
GROUP BY GROUPING SETS (
  (label, prediction, is_future, confidence_thousandths),
  (label, prediction, is_future, uncalibrated_thousandths),
  (day)
)
ORDER BY 1, 2, 3, 4, 5, 6
