-- reads: raw_airports (airports.csv of OurAirports), shipped_airport_names
-- makes: airport_names
-- grain: one row per airport, by the code that flights have
--
-- An IATA code; in the United States what the FAA calls an airport that has none. Codes are given
-- again: an airport with scheduled flights goes before one without, and one that is closed is last.
WITH coded AS (
  SELECT
    COALESCE(iata_code, CASE WHEN country = 'US' THEN local_code END) AS code,
    iata_code IS NULL AS has_local_code,
    COALESCE(scheduled_service, 'no') <> 'yes' AS has_no_service,
    COALESCE(type, '') = 'closed' AS is_closed,
    ident,
    name,
    latitude,
    longitude
  FROM raw_airports
),
numbered AS (
  SELECT
    *,
    ROW_NUMBER() OVER (
      PARTITION BY code ORDER BY is_closed, has_local_code, has_no_service, ident
    ) AS number
  FROM coded
  WHERE is_code(code)
)
SELECT code AS faa, name, latitude AS lat, longitude AS lon FROM numbered WHERE number = 1
UNION ALL
SELECT shipped.faa, shipped.name, shipped.lat, shipped.lon
FROM shipped_airport_names AS shipped
LEFT ANTI JOIN numbered ON shipped.faa = numbered.code
