-- What people ask of flights. Each statement gives few rows, in an order of their own; both engines
-- understand it as it is.

-- delays by airline
SELECT carrier, COUNT(*) AS flights, AVG(arr_delay_minutes) AS delay FROM flights
GROUP BY carrier ORDER BY carrier;

-- delays by hour of departure
SELECT FLOOR(crs_dep_minutes / 60.0) AS hour, COUNT(*) AS flights, AVG(dep_delay_minutes) AS delay
FROM flights GROUP BY 1 ORDER BY 1;

-- the busiest routes
SELECT origin, dest, COUNT(*) AS flights FROM flights
GROUP BY origin, dest ORDER BY flights DESC, origin, dest LIMIT 20;

-- one airplane's year
SELECT month, COUNT(*) AS flights, SUM(distance_miles) AS miles FROM flights
WHERE tail_number = 'N328AA' GROUP BY month ORDER BY month;

-- a day, a route
SELECT COUNT(*) AS flights, MIN(dep_delay_minutes) AS least, MAX(dep_delay_minutes) AS most
FROM flights WHERE flight_date = DATE '2013-07-04' AND origin = 'JFK' AND dest = 'LAX';

-- cancelled by month and airport
SELECT month, origin, SUM(CASE WHEN cancelled THEN 1 ELSE 0 END) AS cancelled, COUNT(*) AS flights
FROM flights GROUP BY month, origin ORDER BY month, origin;

-- share of late arrivals by weekday
SELECT date_part('dow', flight_date) AS weekday,
    AVG(CASE WHEN arr_delay_minutes >= 30 THEN 1.0 ELSE 0.0 END) AS late
FROM flights GROUP BY 1 ORDER BY 1;

-- airplanes, airports and numbers by airline
SELECT carrier, COUNT(DISTINCT tail_number) AS airplanes, COUNT(DISTINCT dest) AS airports,
    COUNT(DISTINCT flight_number) AS numbers
FROM flights GROUP BY carrier ORDER BY carrier;

-- the airplanes that flew most
SELECT tail_number, SUM(air_time_minutes) AS minutes FROM flights
WHERE tail_number IS NOT NULL GROUP BY tail_number ORDER BY minutes DESC NULLS LAST, tail_number LIMIT 10;

-- half of the flights are later
SELECT origin, MEDIAN(arr_delay_minutes) AS median FROM flights GROUP BY origin ORDER BY origin;

-- the distribution of delays
SELECT FLOOR(arr_delay_minutes / 10) AS bin, COUNT(*) AS flights FROM flights
WHERE arr_delay_minutes IS NOT NULL GROUP BY 1 ORDER BY 1 LIMIT 40;

-- the worst days
SELECT flight_date, AVG(dep_delay_minutes) AS delay, COUNT(*) AS flights FROM flights
GROUP BY flight_date HAVING COUNT(*) > 100 ORDER BY delay DESC NULLS LAST, flight_date LIMIT 10;

-- speed by distance
SELECT FLOOR(distance_miles / 250) AS bin, AVG(60 * distance_miles / air_time_minutes) AS speed
FROM flights WHERE air_time_minutes > 0 GROUP BY 1 ORDER BY 1;

-- routes that are later than their airline
WITH by_airline AS (
    SELECT carrier, AVG(arr_delay_minutes) AS delay FROM flights GROUP BY carrier
), by_route AS (
    SELECT carrier, origin, dest, AVG(arr_delay_minutes) AS delay, COUNT(*) AS flights FROM flights
    GROUP BY carrier, origin, dest
)
SELECT r.carrier, r.origin, r.dest, r.delay - a.delay AS later
FROM by_route r JOIN by_airline a ON r.carrier = a.carrier
WHERE r.flights > 500 ORDER BY later DESC NULLS LAST, r.carrier, r.origin, r.dest LIMIT 20;

-- the three latest routes of each airline
WITH by_route AS (
    SELECT carrier, origin, dest, AVG(arr_delay_minutes) AS delay FROM flights
    GROUP BY carrier, origin, dest HAVING COUNT(*) > 500
), ranked AS (
    SELECT *, ROW_NUMBER() OVER (PARTITION BY carrier ORDER BY delay DESC NULLS LAST, origin, dest) AS place
    FROM by_route
)
SELECT carrier, place, origin, dest, delay FROM ranked WHERE place <= 3 ORDER BY carrier, place;

-- delays from month to month
WITH by_month AS (
    SELECT carrier, month, AVG(arr_delay_minutes) AS delay FROM flights GROUP BY carrier, month
)
SELECT carrier, month, delay - LAG(delay) OVER (PARTITION BY carrier ORDER BY month) AS change
FROM by_month ORDER BY carrier, month;

-- airplanes of several airlines
SELECT COUNT(*) AS airplanes FROM (
    SELECT tail_number FROM flights WHERE tail_number IS NOT NULL
    GROUP BY tail_number HAVING COUNT(DISTINCT carrier) > 1
) AS shared;

-- flight numbers that begin with 15, and texts
SELECT upper(carrier) || ' ' || flight_number AS flight, COUNT(*) AS flights FROM flights
WHERE flight_number LIKE '15%' GROUP BY 1 ORDER BY flights DESC, flight LIMIT 20;

-- the latest flights of all
SELECT flight_date, carrier, flight_number, origin, dest, arr_delay_minutes FROM flights
WHERE arr_delay_minutes IS NOT NULL
ORDER BY arr_delay_minutes DESC NULLS LAST, flight_date, carrier, flight_number, origin, dest LIMIT 10;

-- how delay and distance go together
SELECT carrier, CORR(dep_delay_minutes, arr_delay_minutes) AS of_delays,
    STDDEV(arr_delay_minutes) AS spread
FROM flights GROUP BY carrier ORDER BY carrier;
