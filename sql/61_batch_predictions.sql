-- reads: predictions of requests
-- makes: batch_predictions
-- grain: one row per request
--
-- With the place of the request in the files that it came in. Not in order: the rows are wide, and
-- sorting any number of them takes more memory than all the rest.
SELECT
  flight_id['file'] AS file,
  flight_id['line'] AS line,
  flight_id['uuid'] AS uuid,
  flight_id['asked_at'] AS asked_at,
  $answered_at AS answered_at,
  prediction,
  probabilities,
  model_version,
  unseen,
  flight_date,
  carrier,
  flight_number,
  origin,
  dest,
  flight_id['dep_delay'] AS dep_delay_minutes,
  flight_id['distance'] AS distance_miles,
  features
FROM predictions
