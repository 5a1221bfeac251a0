-- reads: answers, flights, arrivals (what programs told of flights, the last of each flight)
-- makes: outcomes
-- grain: one row per answer
--
-- What became of the flight that an answer is about. Flights that were ingested come first, what
-- was told of others stands in for them. An answer that does not say which flight it is about knows
-- it where the carrier has one on the route that day, once the day was ingested: arrivals come one
-- by one. One about a delay that the flight did not have when it left, as far as that is known, is
-- no prediction of it.
--
-- Classes as in sql/40_training.sql.
WITH flown AS (
  SELECT
    flight_date,
    carrier,
    UPPER(LTRIM(flight_number, '0')) AS number, -- the same flight in all files
    origin,
    dest,
    dep_delay_minutes,
    arr_delay_minutes,
    cancelled OR diverted AS never_arrived,
    TRUE AS is_ingested
  FROM flights
  WHERE flight_date BETWEEN $since AND $until
  UNION ALL
  SELECT
    flight_date,
    carrier,
    UPPER(LTRIM(flight_number, '0')) AS number,
    origin,
    dest,
    dep_delay_minutes,
    arr_delay_minutes,
    never_arrived,
    FALSE AS is_ingested
  FROM arrivals
),
ranked AS (
  SELECT
    *,
    BOOL_OR(is_ingested) OVER (PARTITION BY flight_date, carrier, origin, dest, number) AS has_ingested
  FROM flown
),
by_number AS (
  SELECT
    flight_date,
    carrier,
    origin,
    dest,
    number,
    COUNT(*) AS n_flights,
    MIN(dep_delay_minutes) AS dep_delay_minutes,
    MIN(arr_delay_minutes) AS arr_delay_minutes,
    BOOL_OR(never_arrived) AS never_arrived,
    has_ingested
  FROM ranked
  WHERE is_ingested = has_ingested
  GROUP BY flight_date, carrier, origin, dest, number, has_ingested
),
by_route AS (
  SELECT
    flight_date,
    carrier,
    origin,
    dest,
    SUM(n_flights) AS n_flights,
    MIN(dep_delay_minutes) AS dep_delay_minutes,
    MIN(arr_delay_minutes) AS arr_delay_minutes,
    BOOL_OR(never_arrived) AS never_arrived
  FROM by_number
  WHERE has_ingested
  GROUP BY flight_date, carrier, origin, dest
),
numbered AS (
  SELECT *, UPPER(LTRIM(NULLIF(flight_number, ''), '0')) AS number FROM answers
),
matched AS (
  SELECT
    numbered.*,
    CASE WHEN numbered.number IS NULL THEN by_route.n_flights ELSE by_number.n_flights END AS n_flights,
    CASE WHEN numbered.number IS NULL THEN by_route.dep_delay_minutes ELSE by_number.dep_delay_minutes END
      AS true_dep_delay,
    CASE WHEN numbered.number IS NULL THEN by_route.arr_delay_minutes ELSE by_number.arr_delay_minutes END
      AS true_arr_delay,
    CASE WHEN numbered.number IS NULL THEN by_route.never_arrived ELSE by_number.never_arrived END
      AS never_arrived
  FROM numbered
  LEFT JOIN by_number
    ON numbered.flight_date = by_number.flight_date
    AND numbered.carrier = by_number.carrier
    AND numbered.origin = by_number.origin
    AND numbered.dest = by_number.dest
    AND numbered.number = by_number.number
  LEFT JOIN by_route
    ON numbered.flight_date = by_route.flight_date
    AND numbered.carrier = by_route.carrier
    AND numbered.origin = by_route.origin
    AND numbered.dest = by_route.dest
)
SELECT
  flight_date,
  model_version,
  prediction,
  probabilities,
  answered_at,
  CASE
    WHEN n_flights IS NULL THEN 'unmatched'
    WHEN n_flights > 1 THEN 'ambiguous'
    WHEN never_arrived THEN 'never_arrived'
    WHEN true_arr_delay IS NULL THEN 'unmatched'
    WHEN COALESCE(ABS(true_dep_delay - dep_delay_minutes) > $supposed_minutes, TRUE) THEN 'supposed'
    ELSE 'known'
  END AS outcome,
  CASE
    WHEN true_arr_delay < -15 THEN 0
    WHEN true_arr_delay < 0 THEN 1
    WHEN true_arr_delay < 30 THEN 2
    WHEN true_arr_delay >= 30 THEN 3
  END AS label
FROM matched
