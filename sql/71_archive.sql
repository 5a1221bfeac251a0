-- reads: answered (answers as the store has them, each beside the message that asked)
-- makes: archive
-- grain: one row per message that has an answer
--
-- Named as predictions of batches are. A request that was sent twice has one answer, and a row for
-- each message. What was rejected has none.
SELECT
  request_offset,
  requested_at, -- the time of the message: when Kafka got it, or what its sender says
  "UUID" AS uuid,
  status,
  "Reason" AS reason, -- why there is no prediction
  "Timestamp" AS asked_at,
  "AnsweredAt" AS answered_at,
  "Prediction" AS prediction,
  "Probabilities" AS probabilities,
  "LateContributions" AS late_contributions, -- of the model's features, in ten-thousandths
  "BaseRates" AS base_rates, -- these two: answers of before
  "Contributions" AS contributions,
  "ModelVersion" AS model_version,
  "Unseen" AS unseen,
  "FlightDate" AS flight_date,
  "Carrier" AS carrier,
  "FlightNum" AS flight_number,
  "Origin" AS origin,
  "Dest" AS dest,
  "DepDelay" AS dep_delay_minutes,
  "Distance" AS distance_miles
FROM answered
