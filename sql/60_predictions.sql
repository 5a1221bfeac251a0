-- reads: features; the model is inside predict_delay
-- makes: predictions
-- grain: one row per flight
WITH scored AS (
  SELECT
    flight_id,
    predict_delay(
      $model,
      dep_delay_minutes, distance_miles, day_of_month, day_of_week, day_of_year,
      carrier, origin, dest, route, crs_dep_minutes, crs_arr_minutes
    ) AS answer,
    unseen_features(
      $model,
      dep_delay_minutes, distance_miles, day_of_month, day_of_week, day_of_year,
      carrier, origin, dest, route, crs_dep_minutes, crs_arr_minutes
    ) AS unseen,
    flight_date,
    flight_number,
    carrier,
    origin,
    dest,
    route,
    dep_delay_minutes,
    distance_miles,
    day_of_month,
    day_of_week,
    day_of_year,
    crs_dep_minutes,
    crs_arr_minutes
  FROM features
)
SELECT
  flight_id,
  answer['prediction'] AS prediction,
  answer['probabilities'] AS probabilities,
  answer['model_version'] AS model_version,
  unseen,
  flight_date,
  flight_number,
  carrier,
  origin,
  dest,
  route,
  dep_delay_minutes,
  distance_miles,
  day_of_month,
  day_of_week,
  day_of_year,
  crs_dep_minutes,
  crs_arr_minutes
FROM scored
ORDER BY flight_id
