-- reads: training; the model is inside predict_delay
-- makes: comparison: a model on held-out flights, to be set against another one on the same
-- grain: one row per day
--
-- By day, because the flights of a day are right or wrong together: what two models differ by is
-- as certain as there are days. A query a model: what carries two is too large for a large cluster.
WITH scored AS (
  SELECT
    day,
    label,
    predict_delay($model, features) AS answer
  FROM training
  WHERE is_holdout
),
losses AS (
  SELECT
    day,
    log_loss_billionths(answer['probabilities'][CAST(label AS BIGINT) + 1]) AS log_loss_billionths
  FROM scored
)
SELECT
  day,
  COUNT(*) AS n_rows,
  SUM(log_loss_billionths) AS log_loss_billionths
FROM losses
GROUP BY day
ORDER BY day
