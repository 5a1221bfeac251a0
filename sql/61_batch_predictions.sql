-- reads: features of requests; the model is inside the functions
-- makes: batch_predictions
-- grain: one row per request
--
-- As sql/60_predictions.sql, with the place of the request in the files that it came in. Not in order:
-- the rows are wide, and sorting any number of them takes more memory than all the rest.
WITH scored AS (
  SELECT
    flight_id AS request,
    predict_delay($model, features) AS answer,
    unseen_features($model, features) AS unseen,
    flight_date,
    carrier,
    flight_number,
    origin,
    dest,
    features
  FROM features
)
SELECT
  request['file'] AS file,
  request['line'] AS line,
  request['uuid'] AS uuid,
  request['asked_at'] AS asked_at,
  $answered_at AS answered_at,
  answer['prediction'] AS prediction,
  answer['probabilities'] AS probabilities,
  answer['model_version'] AS model_version,
  unseen,
  flight_date,
  carrier,
  flight_number,
  origin,
  dest,
  request['dep_delay'] AS dep_delay_minutes,
  request['distance'] AS distance_miles,
  features
FROM scored
