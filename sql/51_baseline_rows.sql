-- reads: training
-- makes: baseline_rows: a sample small enough for a model that wants its rows in memory
-- grain: one row per sampled flight
--
-- Sampled is the same share of either side of the hold-out ($share in 65,536ths), by bits of the
-- identity that the hold-out does not use.
SELECT
  label,
  is_holdout,
  features
FROM training
WHERE ((row_key >> 16) & 65535) < $share
ORDER BY row_key
