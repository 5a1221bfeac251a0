-- reads: codes; the forest so far is inside tree_histogram
-- makes: histogram: rows per open node, feature, code and class
-- grain: one row
SELECT tree_histogram(row_key, label, codes) AS counters
FROM codes
