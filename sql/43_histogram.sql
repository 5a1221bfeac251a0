-- reads: indices; the forest so far is inside tree_histogram
-- makes: histogram: rows per open node, feature, index and class
-- grain: one row
SELECT tree_histogram(row_key, label, indices) AS counters
FROM indices
