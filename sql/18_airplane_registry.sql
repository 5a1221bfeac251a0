-- reads: raw_aircraft, raw_aircraft_models (both the FAA's), shipped_airplane_registry
-- makes: airplane_registry
-- grain: one row per tail number
--
-- The FAA's registry holds what is registered today. A number is given again: flights of long ago
-- may have been flown by another airplane. What is not registered any more stays as it is shipped.
WITH registered AS (
  SELECT
    CONCAT('N', n_number) AS tailnum,
    MIN(year) AS year,
    MIN(type) AS type,
    MIN(engine) AS engine,
    MIN(model_code) AS model_code
  FROM raw_aircraft
  WHERE n_number IS NOT NULL AND is_code(CONCAT('N', n_number))
  GROUP BY n_number
),
models AS (
  SELECT
    code,
    MIN(manufacturer) AS manufacturer,
    MIN(model) AS model,
    MIN(engines) AS engines,
    MIN(seats) AS seats,
    MIN(speed) AS speed
  FROM raw_aircraft_models
  GROUP BY code
)
SELECT
  registered.tailnum,
  registered.year,
  CASE registered.type
    WHEN '1' THEN 'Glider'
    WHEN '2' THEN 'Balloon'
    WHEN '3' THEN 'Airship'
    WHEN '4' THEN 'Fixed wing single engine'
    WHEN '5' THEN 'Fixed wing multi engine'
    WHEN '6' THEN 'Rotorcraft'
    WHEN '7' THEN 'Weight-shift-control'
    WHEN '8' THEN 'Powered parachute'
    WHEN '9' THEN 'Gyroplane'
  END AS type,
  models.manufacturer,
  models.model,
  CAST(NULLIF(TRY_CAST(models.engines AS INT), 0) AS TEXT) AS engines,
  CAST(NULLIF(TRY_CAST(models.seats AS INT), 0) AS TEXT) AS seats,
  CAST(NULLIF(TRY_CAST(models.speed AS INT), 0) AS TEXT) AS speed,
  CASE registered.engine
    WHEN '1' THEN 'Reciprocating'
    WHEN '2' THEN 'Turbo-prop'
    WHEN '3' THEN 'Turbo-shaft'
    WHEN '4' THEN 'Turbo-jet'
    WHEN '5' THEN 'Turbo-fan'
    WHEN '6' THEN 'Ramjet'
    WHEN '7' THEN '2 Cycle'
    WHEN '8' THEN '4 Cycle'
    WHEN '10' THEN 'Electric'
    WHEN '11' THEN 'Rotary'
  END AS engine
FROM registered
LEFT JOIN models ON registered.model_code = models.code
UNION ALL
SELECT
  shipped.tailnum,
  shipped.year,
  shipped.type,
  shipped.manufacturer,
  shipped.model,
  shipped.engines,
  shipped.seats,
  shipped.speed,
  shipped.engine
FROM shipped_airplane_registry AS shipped
LEFT ANTI JOIN registered ON shipped.tailnum = registered.tailnum
