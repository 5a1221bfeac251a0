-- reads: flights
-- makes: on_time_performance
-- grain: one row per flight, with local clock times as HH:MM
--
-- Flights that nothing tells apart, in layouts without a number and a time, share an id: the first
-- that comes is kept.
WITH clocks AS (
  SELECT
    flight_id,
    flight_date,
    carrier,
    flight_number,
    tail_number,
    origin,
    dest,
    -- a time of day as minutes after a midnight, so that one format serves all four
    TO_CHAR(TO_TIMESTAMP(crs_dep_minutes * 60), '%H:%M') AS crs_dep_clock,
    TO_CHAR(TO_TIMESTAMP(dep_minutes * 60), '%H:%M') AS dep_clock,
    TO_CHAR(TO_TIMESTAMP(crs_arr_minutes * 60), '%H:%M') AS crs_arr_clock,
    TO_CHAR(TO_TIMESTAMP(arr_minutes * 60), '%H:%M') AS arr_clock,
    dep_delay_minutes,
    arr_delay_minutes,
    distance_miles,
    air_time_minutes,
    cancelled,
    diverted
  FROM flights
)
SELECT
  CAST(flight_id AS TEXT) AS "_id",
  flight_date AS "FlightDate",
  carrier AS "Carrier",
  flight_number AS "FlightNum",
  tail_number AS "TailNum",
  origin AS "Origin",
  dest AS "Dest",
  crs_dep_clock AS "CRSDepTime",
  dep_clock AS "DepTime",
  crs_arr_clock AS "CRSArrTime",
  arr_clock AS "ArrTime",
  dep_delay_minutes AS "DepDelay",
  arr_delay_minutes AS "ArrDelay",
  distance_miles AS "Distance",
  air_time_minutes AS "AirTime",
  cancelled AS "Cancelled",
  diverted AS "Diverted"
FROM clocks
