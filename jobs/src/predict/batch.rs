//! Batch prediction: requests in files → Parquet, a directory for each batch of a day, and from
//! there to the collection of results. Both are replaced when a batch is run again.
//!
//! ```text
//! requests/prediction_tasks/2013-12-20.jsonl                  what was left on the pages that day
//! batch_predictions/batch=prediction_tasks/day=2013-12-20/    its predictions
//! batch_predictions/batch=files/day=2013-12-20/               those of other files
//! ```

use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, NaiveDate, Utc};
use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::common::ScalarValue;
use datafusion::functions::expr_fn::get_field;
use datafusion::functions_aggregate::expr_fn::{count, count_distinct};
use datafusion::logical_expr::when;
use datafusion::prelude::{DataFrame, SessionContext, col, lit};
use events::{
    DELAY_MINUTES_MAX, DISTANCE_MILES_MAX, PREDICTION_RESULTS, PREDICTION_TASKS, PredictionRequest,
    TIMESTAMP_BYTES_MAX, task_ids,
};
use futures::TryStreamExt;
use serde_json::Value;
use store::{Query, Store};
use tempfile::NamedTempFile;
use udf::model::scorer::Scorer;

use crate::ingest::PassedOver;
use crate::ingest::counted::Counted;
use crate::ingest::files::{self, Found, RawFile};
use crate::ingest::options::{IngestOptions, Job, Rest};
use crate::ingest::rejects::RejectKind;
use crate::lake::Lake;
use crate::lease::{self, Swap};
use crate::models::registry;
use crate::progress::{OnProgress, stage};
use crate::publish::documents;
use crate::sql;
use crate::stream::micro_batch::{distances_of, field_of};
use crate::write::{Place, parquet, write};

/// The place of predictions, below the data root.
const PREDICTIONS: &str = "batch_predictions";
/// No text that is used here is larger.
const LAST: &str = "\u{10ffff}";
/// Tasks that are read together.
const TASKS_AT_ONCE: u32 = 5_000;
/// Tasks that are no requests and are told at most.
const BAD_MAX: usize = 3;
/// Longest name of a batch, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// A batch of a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    name: String,
    day: NaiveDate,
}

impl Batch {
    /// What was left on the pages on `day`.
    pub fn of_tasks(day: NaiveDate) -> Self {
        Self { name: PREDICTION_TASKS.to_owned(), day }
    }

    /// Other requests.
    ///
    /// Errors when `name` is that of [tasks](Self::of_tasks), or cannot name a directory.
    pub fn new(name: &str, day: NaiveDate) -> Result<Self> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        ensure!(
            (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_plain),
            "{name:?} names no batch: 1 to {NAME_BYTES_MAX} letters, digits, - and _ do"
        );
        ensure!(name != PREDICTION_TASKS, "{name} are what was left on the pages; no file is");
        Ok(Self { name: name.to_owned(), day })
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The day that it is of.
    pub fn day(&self) -> NaiveDate {
        self.day
    }

    fn directory(&self) -> String {
        format!("{PREDICTIONS}/batch={}/day={}/", self.name, self.day)
    }

    /// What the `_id` of each result begins with; that of a task's is the task's own.
    fn ids(&self) -> String {
        match self.is_of_tasks() {
            true => task_ids(self.day).0,
            false => format!("{}{}/", task_ids(self.day).0, self.name),
        }
    }

    fn is_of_tasks(&self) -> bool {
        self.name == PREDICTION_TASKS
    }
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Predicted {
    /// Requests that have a prediction.
    pub n_predicted: u64,
    /// Rows that are no requests.
    pub n_rejects: u64,
    /// Flights that were cancelled, or have neither a departure time nor a delay: they have no
    /// prediction.
    pub n_cancelled: u64,
    /// Requests whose UUID came before.
    pub n_repeats: u64,
    /// Files that were found and not read.
    pub passed_over: Vec<PassedOver>,
    /// The commonest kinds of rejects.
    pub reject_kinds: Vec<RejectKind>,
    /// Where the predictions are.
    pub url: String,
}

/// Where the tasks of a day are kept to be read like any file.
fn file_of(day: NaiveDate) -> String {
    format!("requests/{PREDICTION_TASKS}/{day}.jsonl")
}

/// What was left on the pages on a day.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fetched {
    /// All of it.
    pub n_tasks: u64,
    /// What of it is no request.
    pub n_bad: u64,
    /// What is wrong with the first of these.
    pub bad: Vec<String>,
}

/// Copies what was left on the pages on `day` to the data root, a request a line. What is no
/// request is left out, and told.
pub async fn fetch(lake: &Lake, store: &Store, day: NaiveDate) -> Result<Fetched> {
    // on the disk: other programs may leave more than the pages do
    let file = NamedTempFile::new().context("no temporary file")?;
    let mut lines = BufWriter::new(file.as_file());
    let mut fetched = Fetched::default();
    let (first, last) = task_ids(day);
    let of_day = vec![("_id".to_owned(), first.into(), last.into())];
    let query = Query { between: of_day, limit: TASKS_AT_ONCE, ..Query::default() };
    store
        .scan(PREDICTION_TASKS, &query, async |tasks| {
            fetched.n_tasks += tasks.len() as u64;
            for task in &tasks {
                // as a stream reads it: what else is in a document must not change how others are
                // read
                match PredictionRequest::decode(task.to_string().as_bytes()) {
                    Ok(request) => lines.write_all(&[&request.encode()[..], b"\n"].concat())?,
                    Err(error) => {
                        fetched.n_bad += 1;
                        if fetched.bad.len() < BAD_MAX {
                            fetched.bad.push(format!("{}: {}", task["_id"], error.reason()));
                        }
                    }
                }
            }
            Ok(())
        })
        .await?;
    lines.flush().context("cannot write a temporary file")?;
    drop(lines);
    match fetched.n_tasks - fetched.n_bad {
        // what an earlier look has found is not there any more
        0 => lake.delete_if_there(&file_of(day)).await?,
        _ => lake.upload(file.path(), &file_of(day)).await?,
    }
    Ok(fetched)
}

/// Predicts what was [fetched](fetch) for `day`; `None` when nothing was.
pub async fn predict_tasks(
    ctx: &SessionContext,
    lake: &Lake,
    run: &str,
    day: NaiveDate,
    work: &Work<'_>,
) -> Result<Option<Predicted>> {
    let Some(file) = RawFile::of_lake(lake, &file_of(day)).await? else { return Ok(None) };
    // a row that SQL does not take keeps none of the others from its answer
    let options = IngestOptions { rejects_max: 1.0, ..work.options.clone() };
    let work = Work { model: Arc::clone(&work.model), options: &options, ..*work };
    change(ctx, lake, run, &Batch::of_tasks(day), Found::one(file), &work).await.map(Some)
}

/// What a batch is made with.
pub struct Work<'a> {
    /// The model.
    pub model: Arc<Scorer>,
    /// How files are read, and how many of their rows may be bad.
    pub options: &'a IngestOptions,
    /// The clock.
    pub now: fn() -> DateTime<Utc>,
    /// Takes the progress.
    pub on_progress: OnProgress<'a>,
}

/// Predicts requests in files, in all layouts that ingestion reads, into the place of the batch.
///
/// Errors when nothing in the files is a request, or too much is none; then nothing is replaced.
pub async fn predict(
    ctx: &SessionContext,
    lake: &Lake,
    run: &str,
    batch: &Batch,
    inputs: &[PathBuf],
    work: &Work<'_>,
) -> Result<Predicted> {
    let found = files::find(inputs, lake, &work.options.store_options).await?;
    change(ctx, lake, run, batch, found, work).await
}

async fn change(
    ctx: &SessionContext,
    lake: &Lake,
    run: &str,
    batch: &Batch,
    found: Found,
    work: &Work<'_>,
) -> Result<Predicted> {
    lake.register(ctx);
    let Work { options, on_progress, .. } = *work;
    lease::change(lake, run, on_progress, async |_, epoch| {
        let job = Job { ctx, lake, run, epoch, options, on_progress };
        make(&job, found, batch, work).await
    })
    .await
}

async fn make(
    job: &Job<'_>,
    found: Found,
    batch: &Batch,
    work: &Work<'_>,
) -> Result<(Predicted, Swap)> {
    let Job { ctx, lake, on_progress, .. } = *job;
    let passed_over = job.stage(found, Rest::Sql).await?.passed_over;
    let typing = async {
        register_requests(job).await?;
        let requests = ctx.table("requests").await?;
        let (counted, kinds) = job.judge(&requests, &passed_over, Counted::default()).await?;
        job.check_rejects(&counted, &kinds)?;
        let to_fly = requests.filter(col("reject_reason").is_null().and(!col("cancelled")))?;
        let repeats = count_repeats(&to_fly).await?;
        anyhow::Ok((to_fly, counted, kinds, repeats))
    };
    let name = "typing rows by sql/10_flights.sql and sql/14_requests.sql";
    let (to_fly, counted, reject_kinds, (n_requests, n_repeats)) =
        stage(on_progress, name, typing).await?;
    let n_flights = counted.n_flights;
    ensure!(n_requests > 0, "all {n_flights} flights were cancelled or have not left");

    sql::register(ctx, "requests", to_fly)?;
    let flights = match n_repeats {
        0 => ctx.table("requests").await?,
        _ => sql::plan(ctx, sql::FIRST_REQUESTS, &[]).await?,
    };
    sql::register(ctx, "flights", flights)?;
    lake.register_table(ctx, "distances", "distances/", &[]).await?;
    sql::view(ctx, "features", sql::FEATURES, &[]).await?;
    let model = registry::register_one(ctx, &work.model);
    // not before the lease was there: of two runs the later one has the later time
    let answered_at = ScalarValue::from(PredictionRequest::timestamp((work.now)()));
    sql::view(ctx, "predictions", sql::PREDICTIONS, &[model]).await?;
    let params = [("answered_at", answered_at)];
    let rows = sql::plan(ctx, sql::BATCH_PREDICTIONS, &params).await?;
    let staged = job.staging("predictions/");
    let place = Place { directory: &staged, partitions: &[] };
    let writing = async { write(ctx, lake, &[rows], place, &parquet()).await };
    let n_predicted = stage(on_progress, "predicting by sql/60_predictions.sql", writing).await?;
    let directory = batch.directory();
    let made = Swap {
        deletes: lake.list(&directory).await?,
        moves: lease::moves(lake, job.run, job.epoch, &staged, &directory).await?,
    };
    let predicted = Predicted {
        n_predicted,
        n_rejects: counted.n_rejects,
        n_cancelled: n_flights - n_requests,
        n_repeats,
        passed_over,
        reject_kinds,
        url: lake.url(&directory),
    };
    Ok((predicted, made))
}

/// Makes what is staged the relation `requests`.
async fn register_requests(job: &Job<'_>) -> Result<()> {
    let Job { ctx, lake, .. } = *job;
    // a request says how late a flight left, maybe not when: it is not cancelled for that
    let raw = ctx.table("raw_flights").await?;
    let by_time = col("has_dep_time").and(col("dep_delay").is_null());
    let raw = raw.with_column("has_dep_time", by_time)?;
    sql::register(ctx, "raw_flights", raw)?;
    sql::view(ctx, "typed_flights", sql::FLIGHTS, &[]).await?;
    let limits = [
        ("delay_max", ScalarValue::from(DELAY_MINUTES_MAX)),
        ("distance_max", ScalarValue::from(DISTANCE_MILES_MAX)),
        ("timestamp_max", ScalarValue::from(TIMESTAMP_BYTES_MAX as i64)),
    ];
    let typed = sql::plan(ctx, sql::REQUESTS, &limits).await?;
    let staged = job.staging("requests/");
    write(ctx, lake, &[typed], Place { directory: &staged, partitions: &[] }, &parquet()).await?;
    lake.register_table(ctx, "requests", &staged, &[]).await
}

/// The number of requests, and of those whose UUID came before. A row that is named after its place
/// is there once.
async fn count_repeats(requests: &DataFrame) -> Result<(u64, u64)> {
    let uuid = || get_field(col("flight_id"), "uuid");
    let named = when(col("is_named"), uuid()).end()?;
    let sums = vec![count(lit(1)), count(named.clone()), count_distinct(named)];
    let counted = requests.clone().aggregate(vec![], sums)?.collect().await?;
    let row = counted.first().context("a count")?;
    let [n, n_named, n_names] =
        [0, 1, 2].map(|i| row.column(i).as_primitive::<Int64Type>().value(0).unsigned_abs());
    Ok((n, n_named - n_names))
}

/// Puts the predictions of a batch into the collection of results, in the place of those of an
/// earlier run; returns their number, `None` when it has none.
pub async fn load(
    ctx: &SessionContext,
    lake: &Lake,
    store: &Store,
    batch: &Batch,
) -> Result<Option<u64>> {
    let directory = batch.directory();
    if !lake.holds_table(&directory).await? {
        return Ok(None);
    }
    lake.register_table(ctx, "batch_predictions", &directory, &[]).await?;
    let ids = batch.ids();
    let params = [("ids", ScalarValue::from(ids.as_str()))];
    let rows = sql::plan(ctx, sql::PREDICTION_RESULTS, &params).await?;
    let mut rows = rows.execute_stream().await.context(sql::PREDICTION_RESULTS.file)?;
    let (mut n_results, mut answered_at) = (0, None);
    while let Some(rows) = rows.try_next().await.context(sql::PREDICTION_RESULTS.file)? {
        let results = results_of(rows)?;
        store.upsert(PREDICTION_RESULTS, &results).await?;
        n_results += results.len() as u64;
        answered_at = answered_at.or_else(|| Some(results.first()?["AnsweredAt"].clone()));
    }
    if batch.is_of_tasks() {
        // no task goes before its result does
        return Ok(Some(n_results));
    }
    // all of a batch have one time: the others are before or after it
    let Some(time) = answered_at.as_ref().and_then(Value::as_str) else { return Ok(Some(0)) };
    let before = (String::new(), time[..time.len() - 1].to_owned());
    let others = [before, (format!("{time} "), LAST.to_owned())];
    for (from, to) in others {
        let of_batch = ("_id".to_owned(), ids.as_str().into(), format!("{ids}{LAST}").into());
        let of_other_run = ("AnsweredAt".to_owned(), from.into(), to.into());
        let query = Query { between: vec![of_batch, of_other_run], ..Query::default() };
        store.delete(PREDICTION_RESULTS, &query).await?;
    }
    Ok(Some(n_results))
}

/// The rows of `sql/62_prediction_results.sql` as a stream would have written them.
fn results_of(mut rows: RecordBatch) -> Result<Vec<Value>> {
    let features = rows.remove_column(rows.schema().index_of("features")?);
    let miles = distances_of(features.as_struct())?;
    let mut results = documents(&rows)?;
    for (row, result) in results.iter_mut().enumerate() {
        // what was predicted with, where it is a feature: the route's when the request said none
        if let Some(miles) = miles.as_ref().filter(|miles| miles.is_valid(row)) {
            result["Distance"] = miles.value(row).into();
        }
        // the fields of a request that features come from
        for feature in result["Unseen"].as_array_mut().into_iter().flatten() {
            if let Some(name) = feature.as_str() {
                *feature = Value::from(field_of(name));
            }
        }
    }
    Ok(results)
}
