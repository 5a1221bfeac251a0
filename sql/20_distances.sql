-- reads: flights
-- makes: distances
-- grain: one row per ordered pair of airports between which a flight with a known distance went
SELECT
  origin,
  dest,
  -- whole miles in all sources, so the sum is exact and the mean the same for any order
  SUM(distance_miles) / COUNT(distance_miles) AS distance_miles
FROM flights
WHERE distance_miles IS NOT NULL
GROUP BY origin, dest
ORDER BY origin, dest
