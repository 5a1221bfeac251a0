-- reads: raw_carriers (the lookup table of unique carriers of BTS), shipped_airline_names
-- makes: airline_names
-- grain: one row per carrier
WITH named AS (
  SELECT flight_code(code) AS carrier, MIN(description) AS name
  FROM raw_carriers
  WHERE flight_code(code) IS NOT NULL AND description IS NOT NULL
  GROUP BY flight_code(code)
)
SELECT carrier, name FROM named
UNION ALL
SELECT shipped.carrier, shipped.name
FROM shipped_airline_names AS shipped
LEFT ANTI JOIN named ON shipped.carrier = named.carrier
