-- reads: flights, imported_distances
-- makes: distances
-- grain: one row per ordered pair of airports that was imported or flown with a known distance
WITH flown AS (
  SELECT
    origin,
    dest,
    -- whole miles in all sources, so the sum is exact and the mean the same for any order
    SUM(distance_miles) / COUNT(distance_miles) AS distance_miles
  FROM flights
  WHERE distance_miles IS NOT NULL
  GROUP BY origin, dest
)
SELECT
  COALESCE(imported_distances.origin, flown.origin) AS origin,
  COALESCE(imported_distances.dest, flown.dest) AS dest,
  -- what a person has imported is meant
  COALESCE(imported_distances.distance_miles, flown.distance_miles) AS distance_miles
FROM flown
FULL JOIN imported_distances
  ON flown.origin = imported_distances.origin AND flown.dest = imported_distances.dest
ORDER BY origin, dest
