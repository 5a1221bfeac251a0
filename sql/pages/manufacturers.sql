-- reads: airplanes
-- makes: manufacturers
-- grain: one row per manufacturer of airplanes that flew
--
-- Shares are of the airplanes whose manufacturer is known.
WITH made AS (
  SELECT "Manufacturer" AS manufacturer, COUNT(*) AS n_airplanes
  FROM airplanes
  WHERE "Manufacturer" IS NOT NULL
  GROUP BY "Manufacturer"
)
SELECT
  manufacturer AS "_id",
  n_airplanes AS "Airplanes",
  CAST(n_airplanes AS DOUBLE) / SUM(n_airplanes) OVER () AS "Share"
FROM made
ORDER BY n_airplanes DESC, manufacturer
