-- reads: rejects (file, line, reject_reason; one run's)
-- makes: reject_kinds
-- grain: one row per kind of bad rows, the commonest first
--
-- A reason is what is wrong and, behind a colon, what stands there; how many fields a line has is
-- no kind of its own. The example is the first one in its file.
WITH kinds AS (
  SELECT
    file,
    line,
    reject_reason,
    CASE
      WHEN reject_reason LIKE '%fields instead of%' THEN 'fields'
      ELSE SPLIT_PART(reject_reason, ':', 1)
    END AS kind
  FROM rejects
)
SELECT
  FIRST_VALUE(file ORDER BY file, line) AS file,
  FIRST_VALUE(line ORDER BY file, line) AS line,
  FIRST_VALUE(reject_reason ORDER BY file, line) AS reject_reason,
  COUNT(*) AS n_rows
FROM kinds
GROUP BY kind
ORDER BY n_rows DESC, kind
