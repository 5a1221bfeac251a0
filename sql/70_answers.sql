-- reads: predictions; the model is inside delay_contributions
-- makes: answers
-- grain: one row per request
--
-- A prediction with its reasons. Apart from predictions because scoring years of flights needs none.
WITH explained AS (
  SELECT
    flight_id,
    prediction,
    probabilities,
    model_version,
    unseen,
    delay_contributions(
      $model,
      dep_delay_minutes, distance_miles, day_of_month, day_of_week, day_of_year,
      carrier, origin, dest, route, crs_dep_minutes, crs_arr_minutes
    ) AS reasons,
    dep_delay_minutes,
    distance_miles,
    day_of_month,
    day_of_week,
    day_of_year,
    carrier,
    origin,
    dest,
    route,
    crs_dep_minutes,
    crs_arr_minutes
  FROM predictions
)
SELECT
  flight_id,
  prediction,
  probabilities,
  model_version,
  unseen,
  reasons['base_rates'] AS base_rates,
  reasons['contributions'] AS contributions,
  dep_delay_minutes,
  distance_miles,
  day_of_month,
  day_of_week,
  day_of_year,
  carrier,
  origin,
  dest,
  route,
  crs_dep_minutes,
  crs_arr_minutes
FROM explained
ORDER BY flight_id
