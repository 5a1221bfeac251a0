//! `submit-job predict`: batch prediction, the answers of the nightly batch.

use anyhow::Result;
use chrono::{DateTime, Days, NaiveDate, Utc};
use clap::Args;
use cluster::session;
use jobs::lake::Lake;
use jobs::predict::tasks::answer_tasks;
use serde_json::{Value, json};
use store::Store;

use crate::progress::say;
use crate::servers::StoreArgs;

/// Memory for joins and sorts of a micro-batch of tasks.
const PREDICT_MEMORY: usize = 512 * 1024 * 1024;

/// Arguments of `predict`.
#[derive(Debug, Args)]
pub struct Predict {
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Day on which the requests were left, YYYY-MM-DD, UTC [default: yesterday and today]
    #[arg(long)]
    pub day: Option<NaiveDate>,
}

/// Answers the requests that were left on `day`, else yesterday and today: who runs it at night
/// need not hit midnight. In this process: a micro-batch costs less than a cluster's round trip.
pub async fn run_predict(
    lake: &Lake,
    store: &Store,
    day: Option<NaiveDate>,
    now: DateTime<Utc>,
) -> Result<Value> {
    let ctx = session::in_process(1, PREDICT_MEMORY, &[], &[])?;
    let today = now.date_naive();
    let days = day.map_or_else(|| vec![today - Days::new(1), today], |day| vec![day]);
    let mut results = Vec::new();
    for day in days {
        let answered = answer_tasks(&ctx, lake, store, day, now).await?;
        say(&format!(
            "{} requests were left on {day}: {} are answered, {} cannot be read",
            answered.n_tasks, answered.n_answered, answered.n_rejected
        ));
        results.push(json!({
            "day": day,
            "tasks": answered.n_tasks,
            "answered": answered.n_answered,
            "rejected": answered.n_rejected,
        }));
    }
    Ok(json!({ "days": results }))
}
