-- reads: training
-- makes: baseline_rows: a sample small enough for models that want their rows in memory
-- grain: one row per sampled flight
--
-- Sampled is a share of each side of the hold-out (in 65,536ths), by bits of the identity that the
-- hold-out does not use.
SELECT
  label,
  is_holdout,
  features
FROM training
WHERE ((row_key >> 16) & 65535)
  < CASE WHEN is_holdout THEN $holdout_share ELSE $training_share END
ORDER BY row_key
