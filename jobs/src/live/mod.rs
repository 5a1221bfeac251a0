//! How answers turned out: what was answered, beside what became of the flights.
//!
//! Answers are those of streams and of the night. What became of flights is known from ingestions,
//! and before these from a topic of [arrivals].

pub mod arrivals;
pub mod replay;
mod rows;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Date32Type, Int32Type, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::prelude::SessionContext;
use events::{
    ANSWERS, ARRIVALS, Arrival, LIVE_EVALUATIONS, LiveEvaluation, PREDICTION_RESULTS,
    STREAM_STATUS, StreamStatus,
};
use futures::TryStreamExt;
use serde::de::DeserializeOwned;
use serde_json::Value;
use store::{Query, Store};
use tracing::Instrument;

use crate::features::flights_schema;
use crate::lake::Lake;
use crate::live::arrivals::flight;
use crate::live::rows::{Rows, of_answers, of_arrivals};
use crate::models::evaluation::Tally;
use crate::progress::{self, OnProgress};
use crate::sql;
use crate::stream::micro_batch::field_of;

/// Documents that are read together.
const DOCUMENTS_AT_ONCE: u32 = 5_000;
/// How long the store may look for as many.
const SCAN_WAIT: Duration = Duration::from_secs(600);
/// Minutes by which a flight may leave later or earlier than an answer was asked for and still be
/// what it is about.
const SUPPOSED_MINUTES: f64 = 15.0;
/// Answers from which their drift says something: a handful always differ.
const DRIFT_ANSWERS_MIN: u64 = 500;
/// Age from which a status is of a stream that has ended: it is written every few seconds.
const STATUS_AGE_MAX: TimeDelta = TimeDelta::minutes(5);

/// Which answers are looked at: those about flights of these days of departure, both included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Days {
    /// The first.
    pub since: NaiveDate,
    /// The last.
    pub until: NaiveDate,
    /// Answers from this time on are counted apart as well, ISO 8601, UTC.
    pub recent_from: String,
}

/// How the answers of some days turned out.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Live {
    /// Each model on each day.
    pub days: Vec<LiveEvaluation>,
    /// Each model on all of them; the day is the last one.
    pub models: Vec<LiveEvaluation>,
    /// The same of recent answers only.
    pub recent: Vec<LiveEvaluation>,
    /// Arrivals that nobody asked about.
    pub n_unasked: u64,
    /// Documents that are no answers or arrivals, and were left out.
    pub n_unread: u64,
}

/// Evaluates the answers about flights of these days, and keeps the evaluations in the store.
pub async fn evaluate_live(
    ctx: &SessionContext,
    lake: &Lake,
    store: &Store,
    run: &str,
    days: &Days,
    on_progress: OnProgress<'_>,
) -> Result<Live> {
    lake.register(ctx);
    let staging = format!("staging/{run}/live/");
    let evaluated = evaluate(ctx, lake, store, &staging, days, on_progress).await;
    let deleted = lake.delete_below(&staging).await;
    let live = evaluated?;
    deleted?;
    let documents: Result<Vec<_>, _> = live.days.iter().map(serde_json::to_value).collect();
    store.upsert(LIVE_EVALUATIONS, &documents?).await?;
    Ok(live)
}

async fn evaluate(
    ctx: &SessionContext,
    lake: &Lake,
    store: &Store,
    staging: &str,
    days: &Days,
    on_progress: OnProgress<'_>,
) -> Result<Live> {
    let reading = stage(ctx, lake, store, staging, days);
    let n_unread = progress::stage(on_progress, "reading answers and arrivals", reading).await?;
    match lake.holds_table("flights/").await? {
        true => lake.register_table(ctx, "flights", "flights/", &["year", "month"]).await?,
        false => {
            let none = Rows::new(flights_schema())?;
            none.put(ctx, lake, "flights", &format!("{staging}flights/")).await?;
        }
    }
    let comparing = compare(ctx, days, n_unread);
    let name = "setting them side by side by sql/53_outcomes.sql";
    progress::stage(on_progress, name, comparing).await
}

/// Sets answers and arrivals side by side.
async fn compare(ctx: &SessionContext, days: &Days, n_unread: u64) -> Result<Live> {
    let [since, until] =
        [days.since, days.until].map(|day| ScalarValue::Date32(Some(day.to_epoch_days())));
    let supposed = ScalarValue::from(SUPPOSED_MINUTES);
    let params = [("since", since), ("until", until), ("supposed_minutes", supposed)];
    sql::view(ctx, "outcomes", sql::OUTCOMES, &params).await?;
    let params = [("from", ScalarValue::from(days.recent_from.as_str()))];
    let rows = sql::plan(ctx, sql::LIVE_EVALUATION, &params).await?;
    let mut rows = rows.execute_stream().await.context(sql::LIVE_EVALUATION.file)?;
    let mut counted = Counted::default();
    let counting = async {
        while let Some(rows) = rows.try_next().await.context(sql::LIVE_EVALUATION.file)? {
            counted.add(&rows)?;
        }
        anyhow::Ok(())
    };
    counting.instrument(sql::LIVE_EVALUATION.span()).await?;
    let unasked = sql::plan(ctx, sql::UNASKED, &[]).await?;
    let counting = unasked.count().instrument(sql::UNASKED.span());
    let n_unasked = counting.await.context(sql::UNASKED.file)? as u64;
    Ok(Live { n_unasked, n_unread, ..counted.into_live() })
}

/// Copies answers and arrivals to the data root, where a cluster finds them, and registers them;
/// returns how many documents are neither.
async fn stage(
    ctx: &SessionContext,
    lake: &Lake,
    store: &Store,
    staging: &str,
    days: &Days,
) -> Result<u64> {
    let Days { since, until, .. } = days;
    let mut n_unread = 0;
    let mut rows = Rows::new(of_answers(&[])?.schema())?;
    let bounds = ("FlightDate".to_owned(), since.to_string().into(), until.to_string().into());
    // few of very many may be of these days, and nothing but their _id is in an index
    let patience = Some(SCAN_WAIT);
    let query =
        Query { between: vec![bounds], limit: DOCUMENTS_AT_ONCE, patience, ..Query::default() };
    for collection in [ANSWERS, PREDICTION_RESULTS] {
        let take =
            async |documents: Vec<Value>| rows.write(&of_answers(&read(documents, &mut n_unread))?);
        store.scan(collection, &query, take).await?;
    }
    rows.put(ctx, lake, "answers", &format!("{staging}answers/")).await?;

    let mut rows = Rows::new(of_arrivals(&[])?.schema())?;
    let (first, last) = (format!("{since}/"), format!("{until}/\u{10ffff}"));
    let bounds = ("_id".to_owned(), first.into(), last.into());
    let query = Query { between: vec![bounds], limit: DOCUMENTS_AT_ONCE, ..Query::default() };
    // of a flight the last that was told, which may be at the beginning of the next documents
    let mut told: Option<Arrival> = None;
    let take = async |documents: Vec<Value>| {
        let mut last_told = Vec::new();
        for arrival in read(documents, &mut n_unread) {
            let before = told.replace(arrival);
            last_told.extend(before.filter(|of| told.as_ref().map(flight) != Some(flight(of))));
        }
        rows.write(&of_arrivals(&last_told)?)
    };
    store.scan(ARRIVALS, &query, take).await?;
    rows.write(&of_arrivals(told.as_slice())?)?;
    rows.put(ctx, lake, "arrivals", &format!("{staging}arrivals/")).await?;
    Ok(n_unread)
}

/// The documents that are what they should be; counts the others.
fn read<T: DeserializeOwned>(documents: Vec<Value>, n_unread: &mut u64) -> Vec<T> {
    let n_documents = documents.len();
    let read = documents.into_iter().filter_map(|document| serde_json::from_value(document).ok());
    let read: Vec<T> = read.collect();
    *n_unread += (n_documents - read.len()) as u64;
    read
}

/// What is counted of one model on one day, or on all.
#[derive(Debug, Clone, Default)]
struct Outcomes {
    n_answers: u64,
    n_by_outcome: BTreeMap<String, u64>,
    tally: Tally,
}

impl Outcomes {
    fn evaluation(&self, day: NaiveDate, model: &str) -> LiveEvaluation {
        let n = |outcome: &str| self.n_by_outcome.get(outcome).copied().unwrap_or_default();
        let (metrics, is_known) = (self.tally.evaluation().metrics, n("known") > 0);
        LiveEvaluation {
            id: format!("{day}/{model}"),
            day,
            model: model.to_owned(),
            answers: self.n_answers,
            known: n("known"),
            supposed: n("supposed"),
            never_arrived: n("never_arrived"),
            ambiguous: n("ambiguous"),
            unmatched: n("unmatched"),
            accuracy: is_known.then_some(metrics.accuracy),
            log_loss: is_known.then_some(metrics.log_loss),
            calibration_error: metrics.calibration_error,
        }
    }
}

#[derive(Default)]
struct Counted {
    by_day: BTreeMap<(NaiveDate, String), Outcomes>,
    by_model: BTreeMap<String, Outcomes>,
    recent: BTreeMap<String, Outcomes>,
}

impl Counted {
    /// Counts rows of `sql/54_live_evaluation.sql`.
    fn add(&mut self, rows: &RecordBatch) -> Result<()> {
        let recent = rows.column(9).as_boolean();
        let days = rows.column(0).as_primitive::<Date32Type>();
        let text = |i: usize| cast(rows.column(i), &DataType::Utf8);
        let (models, outcomes) = (text(1)?, text(2)?);
        let (models, outcomes) = (models.as_string::<i32>(), outcomes.as_string::<i32>());
        let small = |i: usize| rows.column(i).as_primitive::<Int32Type>();
        let large = |i: usize| rows.column(i).as_primitive::<Int64Type>();
        for row in 0..rows.num_rows() {
            let n_rows = large(6).value(row).unsigned_abs();
            let day = days.value_as_date(row).unwrap_or_default();
            let (model, outcome) = (models.value(row).to_owned(), outcomes.value(row));
            let index = |i: usize| small(i).value(row).unsigned_abs() as usize;
            let sum = |i: usize| large(i).value(row).unsigned_abs();
            let of_day = self.by_day.entry((day, model.clone())).or_default();
            let is_recent = recent.value(row);
            let of_recent = is_recent.then(|| self.recent.entry(model.clone()).or_default());
            let of_model = self.by_model.entry(model).or_default();
            for counted in [of_day, of_model].into_iter().chain(of_recent) {
                counted.n_answers += n_rows;
                *counted.n_by_outcome.entry(outcome.to_owned()).or_default() += n_rows;
                if small(3).is_valid(row) {
                    let of_classes = [index(3), index(4)];
                    counted.tally.count(of_classes, index(5), n_rows, [sum(7), sum(8)]);
                }
            }
        }
        Ok(())
    }

    fn into_live(self) -> Live {
        let last_day = |model: &String| {
            let days = self.by_day.keys().filter(|(_, of)| of == model);
            days.map(|(day, _)| *day).max().unwrap_or_default()
        };
        let of_model =
            |(model, counted): (&String, &Outcomes)| counted.evaluation(last_day(model), model);
        let of_day = |((day, model), counted): (&(NaiveDate, String), &Outcomes)| {
            counted.evaluation(*day, model)
        };
        Live {
            models: self.by_model.iter().map(of_model).collect(),
            recent: self.recent.iter().map(of_model).collect(),
            days: self.by_day.iter().map(of_day).collect(),
            ..Live::default()
        }
    }
}

/// From when on a champion is taken back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// Largest log loss on answers whose outcome is known.
    pub log_loss: Option<f64>,
    /// Largest population stability index of a feature that is not of the calendar.
    pub drift: Option<f64>,
    /// Known answers on which a log loss says something.
    pub answers_min: u64,
}

/// Why a champion is to be taken back, if it is: by what it answered recently.
pub async fn why_back(
    store: &Store,
    live: &Live,
    champion: &str,
    bounds: &Bounds,
    now: DateTime<Utc>,
) -> Result<Option<String>> {
    let of_champion = live.recent.iter().find(|of| of.model == champion);
    if let (Some(LiveEvaluation { known, log_loss: Some(log_loss), .. }), Some(max)) =
        (of_champion, bounds.log_loss)
        && *known >= bounds.answers_min
        && *log_loss > max
    {
        return Ok(Some(format!("live log loss {log_loss:.4} of {known} answers is above {max}")));
    }
    let Some(max) = bounds.drift else { return Ok(None) };
    let query = Query { limit: DOCUMENTS_AT_ONCE, ..Query::default() };
    for document in store.find(STREAM_STATUS, &query).await? {
        let Ok(status) = serde_json::from_value::<StreamStatus>(document) else { continue };
        let at = DateTime::parse_from_rfc3339(&status.at).map(|at| at.to_utc());
        let is_alive = at.is_ok_and(|at| now.signed_duration_since(at) < STATUS_AGE_MAX);
        if status.model != champion || !is_alive || status.drift_rows < DRIFT_ANSWERS_MIN {
            continue;
        }
        // a stream is asked about a few days, a model knows a year; and other flights get others
        // answers
        let is_bounded =
            |feature: &str| field_of(feature) != "FlightDate" && feature != "prediction";
        let of_features = status.drift.iter().filter(|(feature, _)| is_bounded(feature));
        let most = of_features.max_by(|(_, a), (_, b)| a.total_cmp(b));
        if let Some((feature, psi)) = most.filter(|(_, psi)| **psi > max) {
            let stream = status.id;
            return Ok(Some(format!("{feature} drifted by {psi:.4} in {stream}, above {max}")));
        }
    }
    Ok(None)
}
