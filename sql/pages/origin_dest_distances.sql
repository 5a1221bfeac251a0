-- reads: distances
-- makes: origin_dest_distances
-- grain: one row per ordered pair of airports whose distance is known
--
-- The collection of the original system, field by field.
SELECT
  CONCAT(origin, '-', dest) AS "_id",
  origin AS "Origin",
  dest AS "Dest",
  distance_miles AS "Distance" -- miles
FROM distances
ORDER BY origin, dest
