-- reads: features; the model is inside the functions
-- makes: answers
-- grain: one row per request
--
-- A prediction with its reasons. Apart from predictions because scoring years of flights needs no
-- reasons. Indices go on to what watches the stream for drift, so that a row is encoded once; what
-- the functions tell stays whole, because taking it apart here would have the planner encode twice.
WITH encoded AS (
  SELECT
    flight_id,
    features,
    model_indices($model, features) AS indices
  FROM features
)
SELECT
  flight_id,
  predict_delay($model, indices) AS answer,
  delay_contributions($model, indices) AS reasons,
  unseen_features($model, indices) AS unseen,
  features,
  indices
FROM encoded
ORDER BY flight_id
