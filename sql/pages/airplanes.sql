-- reads: flights, airplane_registry
-- makes: airplanes
-- grain: one row per airplane that flew, by its tail number
--
-- An airplane belongs to the carrier that flew it most. The registry says NA for what it does not
-- know.
WITH flown AS (
  SELECT
    tail_number,
    carrier,
    COUNT(*) AS n_flights,
    SUM(distance_miles) AS miles,
    MIN(flight_date) AS first_date,
    MAX(flight_date) AS last_date
  FROM flights
  WHERE tail_number IS NOT NULL
  GROUP BY tail_number, carrier
),
airplanes AS (
  SELECT
    tail_number,
    FIRST_VALUE(carrier ORDER BY n_flights DESC, carrier) AS carrier,
    SUM(n_flights) AS n_flights,
    SUM(miles) AS miles,
    MIN(first_date) AS first_date,
    MAX(last_date) AS last_date
  FROM flown
  GROUP BY tail_number
)
SELECT
  airplanes.tail_number AS "_id",
  airplanes.tail_number AS "TailNum",
  airplanes.carrier AS "Carrier",
  NULLIF(registry.manufacturer, 'NA') AS "Manufacturer",
  NULLIF(registry.model, 'NA') AS "Model",
  TRY_CAST(registry.year AS INT) AS "ManufacturerYear",
  NULLIF(registry.type, 'NA') AS "Type",
  NULLIF(registry.engine, 'NA') AS "Engine",
  TRY_CAST(registry.engines AS INT) AS "Engines",
  TRY_CAST(registry.seats AS INT) AS "Seats",
  airplanes.n_flights AS "Flights",
  airplanes.miles AS "Miles",
  airplanes.first_date AS "FirstFlight",
  airplanes.last_date AS "LastFlight"
FROM airplanes
LEFT JOIN airplane_registry AS registry ON airplanes.tail_number = registry.tailnum
ORDER BY airplanes.tail_number
