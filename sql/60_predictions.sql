-- reads: features; the model is inside the functions
-- makes: predictions
-- grain: one row per flight
WITH scored AS (
  SELECT
    flight_id,
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
  flight_id,
  answer['prediction'] AS prediction,
  answer['probabilities'] AS probabilities,
  answer['model_version'] AS model_version,
  unseen,
  flight_date,
  carrier,
  flight_number,
  origin,
  dest,
  features
FROM scored
ORDER BY flight_id
