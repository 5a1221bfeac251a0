-- reads: flights, airline_names
-- makes: airlines
-- grain: one row per carrier that flies
SELECT flights.carrier, MIN(airline_names.name) AS name
FROM flights
LEFT JOIN airline_names ON flights.carrier = airline_names.carrier
GROUP BY flights.carrier
ORDER BY flights.carrier
