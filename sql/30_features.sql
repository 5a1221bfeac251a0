-- reads: flights, distances
-- makes: features
-- grain: one row per flight
--
-- The only definition of every feature, for training, where flights is years of Parquet, and for
-- serving, where it is the current micro-batch of requests. The fields of the struct are the list
-- of features: their names are what people choose them by and what a model finds them by, texts are
-- categorical, numbers and truth values are numeric. Another line here is another feature, and a
-- line less is one less, but for dep_delay: sql/40_training.sql leaves out flights without it.
--
-- Beside them: what names a flight, and, passed through unread, what became of it (null for a
-- request).
SELECT
  flights.flight_id,
  flights.flight_date,
  flights.carrier,
  flights.flight_number,
  flights.origin,
  flights.dest,
  NAMED_STRUCT(
    'dep_delay', flights.dep_delay_minutes, -- minutes, negative when early
    'distance', COALESCE(flights.distance_miles, distances.distance_miles), -- miles
    'day_of_month', CAST(DATE_PART('day', flights.flight_date) AS INT), -- 1 to 31
    'day_of_week', CAST(DATE_PART('isodow', flights.flight_date) AS INT), -- 1 is Monday
    'day_of_year', CAST(DATE_PART('doy', flights.flight_date) AS INT), -- 1 to 366
    'carrier', flights.carrier,
    'origin', flights.origin,
    'dest', flights.dest,
    'route', flights.origin || '-' || flights.dest,
    'crs_dep', flights.crs_dep_minutes, -- scheduled departure, minutes of the local day
    'crs_arr', flights.crs_arr_minutes -- scheduled arrival, minutes of the local day
  ) AS features,
  flights.arr_delay_minutes,
  flights.cancelled OR flights.diverted AS never_arrived
FROM flights
LEFT JOIN distances
  ON flights.origin = distances.origin AND flights.dest = distances.dest
