-- reads: arrivals, answers
-- makes: unasked
-- grain: one row per arrival that nobody asked about
SELECT
  arrivals.*
FROM arrivals
LEFT ANTI JOIN answers
  ON arrivals.flight_date = answers.flight_date
  AND arrivals.carrier = answers.carrier
  AND arrivals.origin = answers.origin
  AND arrivals.dest = answers.dest
  AND (
    NULLIF(answers.flight_number, '') IS NULL
    OR UPPER(LTRIM(arrivals.flight_number, '0')) = UPPER(LTRIM(answers.flight_number, '0'))
  )
