-- reads: indices; the forest so far is inside tree_histogram
-- makes: histogram: rows per open node, feature, index and class
-- grain: one row
--
-- Rows with the same key are drawn for a tree together: all flights of a day where days are drawn
-- ($by_day).
SELECT
  tree_histogram(CASE WHEN $by_day THEN CAST(day AS BIGINT) ELSE row_key END, label, indices)
    AS counters
FROM indices
