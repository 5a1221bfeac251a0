-- reads: flights
-- makes: airplanes_per_carrier
-- grain: one row per carrier with known airplanes; an airplane is listed with each who flew it
WITH flown AS (
  SELECT DISTINCT carrier, tail_number
  FROM flights
  WHERE tail_number IS NOT NULL
)
SELECT
  carrier AS "_id",
  COUNT(*) AS "Airplanes",
  ARRAY_AGG(tail_number ORDER BY tail_number) AS "TailNums"
FROM flown
GROUP BY carrier
ORDER BY carrier
