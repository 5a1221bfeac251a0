-- reads: indices
-- makes: out_of_bag: a sample of what the forest was grown from, to see how sure it may be
-- grain: one row per sampled flight
--
-- Sampled is a share of the flights ($share in 65,536ths) by bits of the identity that neither the
-- hold-out nor the baselines use; the key is what 43_histogram draws by.
SELECT
  CASE WHEN $by_day THEN CAST(day AS BIGINT) ELSE row_key END AS sample_key,
  label,
  indices
FROM indices
WHERE ((row_key >> 32) & 65535) < $share
