-- reads: flights, distances
-- makes: features
-- grain: one row per flight
--
-- The only definition of every feature, for training, where flights is years of Parquet, and for
-- serving, where it is the window of requests. The last two columns are passed through unread: what
-- became of the flight, null for a request.
SELECT
  flights.flight_id,
  flights.flight_date,
  flights.flight_number,
  flights.dep_delay_minutes,
  COALESCE(flights.distance_miles, distances.distance_miles) AS distance_miles,
  CAST(DATE_PART('day', flights.flight_date) AS INT) AS day_of_month,
  CAST(DATE_PART('isodow', flights.flight_date) AS INT) AS day_of_week,
  CAST(DATE_PART('doy', flights.flight_date) AS INT) AS day_of_year,
  flights.carrier,
  flights.origin,
  flights.dest,
  CONCAT(flights.origin, '-', flights.dest) AS route,
  flights.crs_dep_minutes,
  flights.crs_arr_minutes,
  flights.arr_delay_minutes,
  flights.cancelled OR flights.diverted AS never_arrived
FROM flights
LEFT JOIN distances
  ON flights.origin = distances.origin AND flights.dest = distances.dest
