-- reads: outcomes
-- makes: live_evaluation
-- grain: one row per day, model, outcome, label, predicted class, confidence, and whether the answer
--        was given from $from on
--
-- Confidence and sums as in sql/50_evaluation.sql. Only answers whose outcome is known have labels.
WITH judged AS (
  SELECT
    flight_date,
    model_version,
    outcome,
    answered_at >= $from AS is_recent,
    CASE WHEN outcome = 'known' THEN CAST(label AS INT) END AS label,
    CAST(prediction AS INT) AS prediction,
    probabilities[CAST(prediction AS BIGINT) + 1] AS confidence,
    CASE
      WHEN outcome = 'known' THEN log_loss_billionths(probabilities[CAST(label AS BIGINT) + 1])
    END AS log_loss_billionths
  FROM outcomes
)
SELECT
  flight_date,
  model_version,
  outcome,
  label,
  prediction,
  CAST(LEAST(FLOOR(confidence * 1000), 999) AS INT) AS confidence_thousandths,
  COUNT(*) AS n_rows,
  SUM(CAST(ROUND(confidence * 1e9) AS BIGINT)) AS confidence_billionths,
  SUM(log_loss_billionths) AS log_loss_billionths,
  is_recent
FROM judged
GROUP BY 1, 2, 3, 4, 5, 6, 10
ORDER BY 1, 2, 3, 4, 5, 6, 10
