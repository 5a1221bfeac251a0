//! How right the answers were, as `submit-job evaluate --live` has found, for those who watch a
//! stream.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use anyhow::Result;
use chrono::TimeDelta;
use events::{LIVE_EVALUATIONS, LiveEvaluation};
use store::{Order, Query, Store};
use tokio::time::{sleep, timeout};

/// How often the store is asked: evaluations come once a day.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How long it may take to answer.
const LOOK_WAIT: Duration = Duration::from_secs(5);
/// Days of flights, up to the last one that is known, that the metrics are of.
const DAYS: i64 = 7;
/// Evaluations that are read, one for each model and day.
const EVALUATIONS_MAX: u32 = 100;

/// Shows what is known of the latest days. Never ends; a store that is away is looked at again.
pub async fn watch(store: &Store, show: impl Fn(&Outcomes)) -> Infallible {
    loop {
        match timeout(LOOK_WAIT, latest(store)).await {
            Ok(Ok(latest)) => show(&latest),
            Ok(Err(error)) => tracing::debug!(error = format!("{error:#}"), "outcomes not read"),
            Err(_) => {}
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Flights whose end is known, and the mean log loss of the answers about them, by version of the
/// model.
pub type Outcomes = BTreeMap<String, (u64, f64)>;

async fn latest(store: &Store) -> Result<Outcomes> {
    let by_day = vec![("Day".to_owned(), Order::Descending)];
    let query = Query { sort: by_day, limit: EVALUATIONS_MAX, ..Query::default() };
    let documents = store.find(LIVE_EVALUATIONS, &query).await?.into_iter();
    // one of another version says nothing of the others
    let days: Vec<_> = documents.filter_map(|day| serde_json::from_value(day).ok()).collect();
    Ok(of_days(&days))
}

fn of_days(evaluations: &[LiveEvaluation]) -> Outcomes {
    let known = || evaluations.iter().filter(|of| of.known > 0);
    let Some(last) = known().map(|of| of.day).max() else { return Outcomes::new() };
    let mut sums = Outcomes::new();
    for of in known().filter(|of| last - of.day < TimeDelta::days(DAYS)) {
        let Some(log_loss) = of.log_loss else { continue };
        let (n, sum) = sums.entry(of.model.clone()).or_default();
        *n += of.known;
        *sum += log_loss * of.known as f64;
    }
    sums.values_mut().for_each(|(n, sum)| *sum /= *n as f64);
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_judged_by_its_last_days_each_by_its_flights() {
        let of = |day: &str, model: &str, known, log_loss| LiveEvaluation {
            id: format!("{day}/{model}"),
            day: day.parse().unwrap(),
            model: model.into(),
            answers: known,
            known,
            supposed: 0,
            never_arrived: 0,
            ambiguous: 0,
            unmatched: 0,
            accuracy: None,
            log_loss,
            calibration_error: None,
        };
        let found = of_days(&[
            of("2013-12-20", "a", 0, None),
            of("2013-12-10", "a", 300, Some(1.0)),
            of("2013-12-09", "a", 100, Some(2.0)),
            of("2013-12-04", "b", 10, Some(0.5)),
            // a week before
            of("2013-12-03", "a", 1_000, Some(9.0)),
        ]);
        assert_eq!(found, Outcomes::from([("a".into(), (400, 1.25)), ("b".into(), (10, 0.5))]));
        assert_eq!(of_days(&[]), Outcomes::new());
    }
}
