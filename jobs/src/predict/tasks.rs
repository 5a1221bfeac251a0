//! Nightly batch prediction: the stored tasks of a day are scored as the stream scores a
//! micro-batch.

use anyhow::Result;
use chrono::{DateTime, NaiveDate, Utc};
use datafusion::prelude::SessionContext;
use events::{Answer, PREDICTION_RESULTS, PREDICTION_TASKS, REQUEST_BYTES_MAX, task_id, task_ids};
use serde_json::Value;
use store::{Query, Store};

use crate::lake::Lake;
use crate::stream;
use crate::stream::chunks::document;
use crate::stream::micro_batch::{Message, Plan, Rules, score};

/// Tasks that are read, scored and written together.
const TASKS_AT_ONCE: u32 = 5_000;

/// What became of the tasks of a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Answered {
    /// Tasks of the day.
    pub n_tasks: u64,
    /// Those that have a prediction now, also from an earlier run.
    pub n_answered: u64,
    /// Those that cannot be read, which a later version may.
    pub n_rejected: u64,
}

/// Answers the tasks of `day` with the champion, into the collection of results. A task keeps the
/// first result that it was given, so a repetition changes nothing.
pub async fn answer_tasks(
    ctx: &SessionContext,
    lake: &Lake,
    store: &Store,
    day: NaiveDate,
    now: DateTime<Utc>,
) -> Result<Answered> {
    stream::prepare(ctx, lake).await?;
    let plan = Plan::new(ctx).await?;
    let rules = Rules { now, message_bytes_max: REQUEST_BYTES_MAX, expire_after: None };
    let mut answered = Answered::default();
    let (mut first, last) = task_ids(day);
    loop {
        let of_day = vec![("_id".to_owned(), first.into(), last.clone().into())];
        let query = Query { between: of_day, limit: TASKS_AT_ONCE, ..Query::default() };
        let tasks = store.find(PREDICTION_TASKS, &query).await?;
        let Some(task) = tasks.last() else { return Ok(answered) };
        // the smallest text after the last one
        first = format!("{}\0", task["_id"].as_str().unwrap_or_default());
        answered.n_tasks += tasks.len() as u64;
        let messages = tasks.into_iter().map(message).collect();
        let scored = score(&plan, messages, rules).await?;
        answered.n_answered += scored.answers.len() as u64;
        answered.n_rejected += scored.dead_letters.len() as u64;
        let results = scored.answers.iter().map(|answer| result(answer, day));
        let results = results.collect::<Result<Vec<_>>>()?;
        store.write_once(PREDICTION_RESULTS, &results).await?;
    }
}

/// A task as the stream reads requests.
fn message(task: Value) -> Message {
    Message { value: Some(task.to_string().into_bytes()), ..Message::default() }
}

fn result(answer: &Answer, day: NaiveDate) -> Result<Value> {
    let mut result = document(answer)?;
    result["_id"] = task_id(day, answer.uuid()).into();
    Ok(result)
}
