-- reads: batch_predictions
-- makes: prediction_results
-- grain: one row per request
--
-- Named field by field as the answers of a stream.
SELECT
  CONCAT($ids, uuid) AS "_id",
  uuid AS "UUID",
  'ok' AS status,
  origin AS "Origin",
  dest AS "Dest",
  CONCAT(origin, '-', dest) AS "Route",
  carrier AS "Carrier",
  flight_number AS "FlightNum",
  flight_date AS "FlightDate",
  CAST(DATE_PART('isodow', flight_date) AS INT) AS "DayOfWeek", -- 1 is Monday
  CAST(DATE_PART('doy', flight_date) AS INT) AS "DayOfYear", -- 1 to 366
  CAST(DATE_PART('day', flight_date) AS INT) AS "DayOfMonth",
  dep_delay_minutes AS "DepDelay", -- minutes
  distance_miles AS "Distance", -- miles, as the request says
  asked_at AS "Timestamp",
  answered_at AS "AnsweredAt",
  prediction AS "Prediction",
  probabilities AS "Probabilities",
  unseen AS "Unseen",
  model_version AS "ModelVersion",
  features -- not kept, but for the distance that was predicted with
FROM batch_predictions
