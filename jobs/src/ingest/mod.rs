//! Raw files → `flights`, partitioned by year and month, and `distances`.
//!
//! Reads the files as text into a staging table, types the rows by `sql/10_flights.sql`, keeps the
//! refused ones under `rejects/`, and replaces the months that were read when all of them are
//! written; other months are not touched.

pub mod layouts;
pub mod raw;

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::{Int32Type, Int64Type};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::prelude::{DataFrame, SessionContext, col, lit};
use tokio::sync::mpsc;

use crate::lake::Lake;
use crate::progress::{OnProgress, Progress};
use crate::sql;
use crate::write::{Place, parquet, write};

/// Rows of a staged file: enough for several files, so that all cores read them.
const STAGED_ROWS: usize = 128 * 1024;
/// Batches that may wait between reading and writing.
const QUEUED_BATCHES: usize = 8;
/// Files that one run reads at most.
const FILES_MAX: usize = 100_000;

/// What was ingested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingested {
    /// Files read.
    pub n_files: usize,
    /// Flights written.
    pub n_flights: u64,
    /// Rows refused.
    pub n_rejects: u64,
    /// The months that were replaced, as (year, month).
    pub months: BTreeSet<(i32, i32)>,
    /// Where the refused rows are, when there are any.
    pub rejects: Option<String>,
}

/// Ingests files, and all readable files of directories. `run` names the run's own directories;
/// `rejects_max` is the share of bad rows above which nothing is replaced and the job fails.
pub async fn ingest(
    ctx: &SessionContext,
    lake: &Lake,
    inputs: &[PathBuf],
    run: &str,
    rejects_max: f64,
    on_progress: OnProgress<'_>,
) -> Result<Ingested> {
    lake.register(ctx);
    let files = files_of(inputs)?;
    let staging = format!("staging/{run}/");
    let ingested = ingest_files(ctx, lake, &files, run, rejects_max, on_progress).await;
    lake.delete_below(&staging).await?;
    ingested
}

async fn ingest_files(
    ctx: &SessionContext,
    lake: &Lake,
    files: &[PathBuf],
    run: &str,
    rejects_max: f64,
    on_progress: OnProgress<'_>,
) -> Result<Ingested> {
    stage(lake, files, &format!("staging/{run}/raw/"), on_progress).await?;
    on_progress(Progress::Stage("typing rows by sql/10_flights.sql"));
    let raw = format!("staging/{run}/raw/");
    lake.register_table(ctx, "raw_flights", &raw, &[]).await?;
    let typed = sql::plan(ctx, sql::FLIGHTS, &[]).await?;
    let is_reject = col("reject_reason").is_not_null();

    let (months, n_flights, n_rejects) = count_rows(&typed).await?;
    let rejects = format!("rejects/{run}/");
    if n_rejects > 0 {
        let rows = sql::plan(ctx, sql::FLIGHTS, &[]).await?.filter(is_reject.clone())?;
        let rows = rows.select_columns(&["file", "line", "reject_reason"])?;
        let place = Place { directory: &rejects, partitions: &[] };
        write(ctx, lake, &[rows], place, &parquet()).await?;
    }
    let share = n_rejects as f64 / (n_flights + n_rejects).max(1) as f64;
    ensure!(
        share <= rejects_max,
        "{n_rejects} of {} rows are bad ({:.2} %), more than the {:.2} % allowed; \
         nothing was replaced; see {}",
        n_flights + n_rejects,
        share * 100.0,
        rejects_max * 100.0,
        lake.url(&rejects)
    );

    on_progress(Progress::Stage("writing flights"));
    let flights = typed.filter(is_reject.is_false())?;
    let flights = flights.drop_columns(&["file", "line", "reject_reason"])?;
    let staged = format!("staging/{run}/flights/");
    let place = Place { directory: &staged, partitions: &["year", "month"] };
    write(ctx, lake, &[flights], place, &parquet()).await?;
    replace_months(lake, &staged, run, &months).await?;

    on_progress(Progress::Stage("making distances by sql/20_distances.sql"));
    lake.register_table(ctx, "flights", "flights/", &["year", "month"]).await?;
    write_distances(ctx, lake, run).await?;
    let rejects = (n_rejects > 0).then(|| lake.url(&rejects));
    Ok(Ingested { n_files: files.len(), n_flights, n_rejects, months, rejects })
}

/// The files to read: those named, and of a directory those with a known ending.
fn files_of(inputs: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for input in inputs {
        if input.is_dir() {
            let entries = std::fs::read_dir(input).with_context(|| input.display().to_string())?;
            for entry in entries.take(FILES_MAX) {
                let path = entry?.path();
                if path.is_file() && raw::is_readable(&path) {
                    files.push(path);
                }
            }
        } else {
            ensure!(input.is_file(), "{}: there is no such file", input.display());
            files.push(input.clone());
        }
    }
    ensure!(!files.is_empty(), "there are no .csv, .parquet or .jsonl files to ingest");
    ensure!(files.len() <= FILES_MAX, "{} files exceed {FILES_MAX}", files.len());
    files.sort();
    Ok(files)
}

/// Reads files into Parquet files of text under `staging`.
async fn stage(
    lake: &Lake,
    files: &[PathBuf],
    staging: &str,
    on_progress: OnProgress<'_>,
) -> Result<()> {
    let n_bytes = files.iter().filter_map(|f| f.metadata().ok()).map(|m| m.len()).sum();
    on_progress(Progress::Bytes { done: 0, total: n_bytes });
    let (batches, mut received) = mpsc::channel::<(RecordBatch, u64)>(QUEUED_BATCHES);
    let files = files.to_vec();
    let reading = tokio::task::spawn_blocking(move || read_all(&files, &batches));
    let mut staged: Vec<RecordBatch> = Vec::new();
    let mut n_rows = 0;
    let mut n_files = 0;
    while let Some((batch, done)) = received.recv().await {
        on_progress(Progress::Bytes { done, total: n_bytes });
        n_rows += batch.num_rows();
        staged.push(batch);
        if n_rows >= STAGED_ROWS {
            put_staged(lake, staging, n_files, std::mem::take(&mut staged)).await?;
            n_files += 1;
            n_rows = 0;
        }
    }
    reading.await??;
    // written even when empty: the table must have a schema
    put_staged(lake, staging, n_files, staged).await?;
    on_progress(Progress::Bytes { done: n_bytes, total: n_bytes });
    Ok(())
}

fn read_all(files: &[PathBuf], batches: &mpsc::Sender<(RecordBatch, u64)>) -> Result<()> {
    let done = std::cell::Cell::new(0);
    for file in files {
        raw::read(file, &mut |n| done.set(done.get() + n), &mut |batch| {
            batches.blocking_send((batch, done.get())).context("ingestion was stopped")
        })?;
    }
    Ok(())
}

async fn put_staged(
    lake: &Lake,
    staging: &str,
    number: usize,
    batches: Vec<RecordBatch>,
) -> Result<()> {
    let encode = move || -> Result<Vec<u8>> {
        let mut writer = ArrowWriter::try_new(Vec::new(), raw::raw_schema(), None)?;
        for batch in &batches {
            writer.write(batch)?;
        }
        Ok(writer.into_inner()?)
    };
    let bytes = tokio::task::spawn_blocking(encode).await??;
    lake.put(&format!("{staging}{number:06}.parquet"), bytes).await
}

/// Months with flights, number of flights, number of rejects.
async fn count_rows(typed: &DataFrame) -> Result<(BTreeSet<(i32, i32)>, u64, u64)> {
    let keys = vec![col("year"), col("month"), col("reject_reason").is_not_null().alias("bad")];
    let counted = typed.clone().aggregate(keys, vec![count(lit(1)).alias("n_rows")])?;
    let (mut months, mut n_flights, mut n_rejects) = (BTreeSet::new(), 0, 0);
    for batch in counted.collect().await? {
        let years = batch.column(0).as_primitive::<Int32Type>();
        let numbers = batch.column(1).as_primitive::<Int32Type>();
        let bad = batch.column(2).as_boolean();
        let n_rows = batch.column(3).as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            let n_rows = n_rows.value(row).unsigned_abs();
            if bad.value(row) {
                n_rejects += n_rows;
            } else {
                n_flights += n_rows;
                months.insert((years.value(row), numbers.value(row)));
            }
        }
    }
    Ok((months, n_flights, n_rejects))
}

/// Puts the staged files of each month in the place of those that are there. A reader that lists
/// a month in between may see both; a run that dies in between is repaired by running it again.
async fn replace_months(
    lake: &Lake,
    staged: &str,
    run: &str,
    months: &BTreeSet<(i32, i32)>,
) -> Result<()> {
    for (year, month) in months {
        let directory = format!("year={year}/month={month}/");
        replace(lake, &format!("{staged}{directory}"), &format!("flights/{directory}"), run)
            .await?;
    }
    Ok(())
}

/// Moves all of `staged` to `directory`, then deletes what else is there.
async fn replace(lake: &Lake, staged: &str, directory: &str, run: &str) -> Result<()> {
    let mut old = lake.list(directory).await?;
    for (i, name) in lake.list(staged).await?.iter().enumerate() {
        let new = format!("{directory}{run}-{i}.parquet");
        lake.rename(name, &new).await?;
        // a run that is repeated under its name has just replaced this one
        old.retain(|name| *name != new);
    }
    for name in old {
        lake.delete(&name).await?;
    }
    Ok(())
}

async fn write_distances(ctx: &SessionContext, lake: &Lake, run: &str) -> Result<()> {
    let rows = sql::plan(ctx, sql::DISTANCES, &[]).await?;
    let staged = format!("staging/{run}/distances/");
    let place = Place { directory: &staged, partitions: &[] };
    write(ctx, lake, &[rows], place, &parquet()).await?;
    replace(lake, &staged, "distances/", run).await
}
