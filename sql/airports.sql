-- reads: flights, airport_names
-- makes: airports
-- grain: one row per airport that is flown from or to
WITH flown AS (
  SELECT origin AS airport FROM flights
  UNION
  SELECT dest AS airport FROM flights
)
SELECT flown.airport, MIN(airport_names.name) AS name
FROM flown
LEFT JOIN airport_names ON flown.airport = airport_names.faa
GROUP BY flown.airport
ORDER BY flown.airport
