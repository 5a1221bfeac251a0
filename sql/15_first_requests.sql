-- reads: requests
-- makes: first_requests
-- grain: one row per request, of those under one UUID the first
--
-- Only where a UUID comes more than once, because it sorts. As a stream, which answers the first one.
WITH numbered AS (
  SELECT
    *,
    ROW_NUMBER() OVER (PARTITION BY flight_id['uuid'] ORDER BY file, line) AS nth
  FROM requests
)
SELECT * FROM numbered WHERE nth = 1
