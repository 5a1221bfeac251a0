//! Raw files → `flights`, partitioned by year and month, and `distances`.
//!
//! Reads the files as text into a staging table, types the rows by `sql/10_flights.sql`, keeps the
//! refused ones under `rejects/`, and replaces the months that were read, or adds to them, when all
//! is written and nothing speaks against it; other months are not touched.

pub mod columns;
pub(crate) mod files;
pub(crate) mod json;
pub(crate) mod lines;
pub mod months;
pub mod options;
mod parquet;
pub(crate) mod raw;
pub mod rejects;
pub(crate) mod rows;
mod table;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::{Int32Type, Int64Type};
use datafusion::functions_aggregate::expr_fn::{count, sum};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::prelude::{DataFrame, SessionContext, col, lit};
use tokio::sync::mpsc;

use crate::distances;
use crate::ingest::columns::Names;
pub use crate::ingest::files::PassedOver;
use crate::ingest::files::{Found, RawFile};
use crate::ingest::months::Month;
use crate::ingest::options::{IngestOptions, Job, Months};
use crate::ingest::raw::Reading;
use crate::ingest::rejects::{RejectKind, reject_kinds, rejects_of};
use crate::ingest::rows::Unfit;
use crate::lake::Lake;
use crate::lease::{self, Swap};
use crate::progress::{OnProgress, Progress};
use crate::sql;
use crate::write::{Place, parquet, write};

/// Rows of a staged file: enough for several files, so that all cores read them.
const STAGED_ROWS: usize = 128 * 1024;
/// Bytes of a staged file before it is written.
const STAGED_BYTES: usize = 64 * 1024 * 1024;
/// Batches that may wait between reading and writing.
const QUEUED_BATCHES: usize = 8;
/// Files that are named at most when none of them holds flights.
const REASONS_SHOWN: usize = 10;
/// Kinds of bad rows that are told.
const KINDS_SHOWN: usize = 3;

/// What flights can lack as a whole, and what it is called: they are kept, but it is said.
const MAY_LACK: [(&str, &str); 6] = [
    ("flight_number", "number"),
    ("crs_dep_minutes", "scheduled departure"),
    ("crs_arr_minutes", "scheduled arrival"),
    ("dep_delay_minutes", "departure delay"),
    ("arr_delay_minutes", "arrival delay"),
    ("distance_miles", "distance"),
];

/// What was ingested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingested {
    /// Files read.
    pub n_files: usize,
    /// Files that were found and not read, or read and no flights.
    pub passed_over: Vec<PassedOver>,
    /// Flights written.
    pub n_flights: u64,
    /// Rows refused.
    pub n_rejects: u64,
    /// Clock times past midnight, such as 2410, that were left out.
    pub n_odd_times: u64,
    /// Tail numbers that are none, and were left out.
    pub n_odd_tails: u64,
    /// Flights that are there more than once, or were until one of each was kept.
    pub n_repeats: u64,
    /// What not one of the flights has.
    pub lacking: Vec<&'static str>,
    /// The months that were written, as (year, month).
    pub months: Vec<Month>,
    /// Where the refused rows are, when there are any.
    pub rejects: Option<String>,
    /// Their commonest kinds.
    pub reject_kinds: Vec<RejectKind>,
}

/// Ingests files, directories, patterns and objects. `run` names the run's own directories.
///
/// Errors when nothing fits, when too many rows are bad or repeated, and when a month would shrink;
/// then no month was touched.
pub async fn ingest(
    ctx: &SessionContext,
    lake: &Lake,
    inputs: &[PathBuf],
    run: &str,
    options: &IngestOptions,
    on_progress: OnProgress<'_>,
) -> Result<Ingested> {
    lake.register(ctx);
    let found = files::find(inputs, lake, &options.store_options).await?;
    lease::change(lake, run, on_progress, async |_, epoch| {
        let job = Job { ctx, lake, run, epoch, options, on_progress };
        job.run(found).await
    })
    .await
}

/// What typing the rows says.
#[derive(Default)]
pub(crate) struct Counted {
    months: BTreeMap<Month, u64>,
    pub(crate) n_flights: u64,
    pub(crate) n_rejects: u64,
    n_odd_times: u64,
    n_odd_tails: u64,
    /// Flights that have each of [`MAY_LACK`].
    n_known: [u64; MAY_LACK.len()],
}

impl Counted {
    fn lacking(&self) -> Vec<&'static str> {
        let lacking = MAY_LACK.iter().zip(self.n_known).filter(|(_, n)| *n == 0);
        lacking.map(|((_, title), _)| *title).collect()
    }
}

impl Job<'_> {
    /// Makes everything; nothing of it is in place yet.
    async fn run(&self, found: Found) -> Result<(Ingested, Swap)> {
        ensure!(
            self.options.months != Months::Append || !months::has_put(self.lake, self.run).await?,
            "job {} has added its flights already, it only did not come to say so; nothing is left \
             to do",
            self.run
        );
        let (n_files, passed_over) = self.stage(found).await?;
        (self.on_progress)(Progress::Stage("typing rows by sql/10_flights.sql"));
        let typed = sql::plan(self.ctx, sql::FLIGHTS, &[]).await?;
        let (counted, reject_kinds) = self.judge(&typed, &passed_over).await?;
        self.check_rejects(&counted, &reject_kinds)?;
        let Counted { n_rejects, n_odd_times, n_odd_tails, .. } = counted;

        let lacking = counted.lacking();
        if !lacking.is_empty() {
            let text = format!("not one of the flights has: {}", lacking.join(", "));
            (self.on_progress)(Progress::Notice(text));
        }
        let months = &self.options.months;
        let there = months::there(self.ctx, self.lake, &counted.months).await?;
        months::check(*months, &there, &counted.months)?;
        (self.on_progress)(Progress::Stage("writing flights"));
        let flights = typed.filter(col("reject_reason").is_null())?;
        let not_kept =
            ["file", "line", "uuid", "asked_at", "odd_times", "odd_tails", "reject_reason"];
        let flights = flights.drop_columns(&not_kept)?;
        let staged = self.staging("flights/");
        let place = Place { directory: &staged, partitions: &["year", "month"] };
        write(self.ctx, self.lake, &[flights], place, &parquet()).await?;
        let n_repeats = months::repeats(self, &staged, &counted.months).await?;
        let (mut made, written) = months::swap(self, &staged, &counted.months, &there).await?;

        (self.on_progress)(Progress::Stage("making distances by sql/20_distances.sql"));
        months::register_coming(self, &staged, &counted.months).await?;
        distances::register_imported(self.ctx, self.lake).await?;
        let staging = (&*self.staging(""), self.epoch);
        distances::make(self.ctx, self.lake, self.run, staging, &mut made).await?;
        let ingested = Ingested {
            n_files,
            passed_over,
            n_flights: written,
            n_rejects,
            n_odd_times,
            n_odd_tails,
            n_repeats,
            lacking,
            months: counted.months.keys().copied().collect(),
            rejects: (n_rejects > 0).then(|| self.lake.url(&rejects_of(self.run))),
            reject_kinds,
        };
        Ok((ingested, made))
    }

    /// Makes files the relation `raw_flights`; returns how many held rows, and what was passed
    /// over.
    pub(crate) async fn stage(&self, found: Found) -> Result<(usize, Vec<PassedOver>)> {
        let (n_files, unfit) = self.write_raw(found.files).await?;
        let raw = self.staging("raw/");
        self.lake.register_table(self.ctx, "raw_flights", &raw, &[]).await?;
        Ok((n_files, [found.passed_over, unfit].concat()))
    }

    /// Counts typed rows and keeps the bad ones, of which it returns the commonest kinds.
    ///
    /// Errors when nothing was read, or a column that a person has named is nowhere.
    pub(crate) async fn judge(
        &self,
        typed: &DataFrame,
        passed_over: &[PassedOver],
    ) -> Result<(Counted, Vec<RejectKind>)> {
        let counted = count_rows(typed).await?;
        ensure!(counted.n_flights + counted.n_rejects > 0, nothing_read(passed_over));
        let not_found = self.options.names.not_found();
        ensure!(not_found.is_empty(), "no file has a column {}", not_found.join(" or "));
        let reject_kinds = self.keep_rejects(typed, counted.n_rejects).await?;
        Ok((counted, reject_kinds))
    }

    /// Reads files into Parquet files of text.
    async fn write_raw(&self, files: Vec<RawFile>) -> Result<(usize, Vec<PassedOver>)> {
        let staging = self.staging("raw/");
        let total = files.iter().map(|file| file.n_bytes).sum();
        (self.on_progress)(Progress::Bytes { done: 0, total });
        let (batches, mut received) = mpsc::channel::<(RecordBatch, u64)>(QUEUED_BATCHES);
        let reading = read_all(files, self.options.names.clone(), batches);
        // it takes the receiver with it when it fails, so that reading ends too
        let writing = async move {
            let (mut staged, mut n_rows, mut n_bytes, mut n_files) = (Vec::new(), 0, 0, 0);
            while let Some((batch, done)) = received.recv().await {
                (self.on_progress)(Progress::Bytes { done, total });
                n_rows += batch.num_rows();
                n_bytes += batch.get_array_memory_size();
                staged.push(batch);
                if n_rows >= STAGED_ROWS || n_bytes >= STAGED_BYTES {
                    put_staged(self.lake, &staging, n_files, std::mem::take(&mut staged)).await?;
                    (n_rows, n_bytes, n_files) = (0, 0, n_files + 1);
                }
            }
            // written even when empty: the table must have a schema
            put_staged(self.lake, &staging, n_files, staged).await
        };
        let (read, written) = tokio::join!(reading, writing);
        written?;
        (self.on_progress)(Progress::Bytes { done: total, total });
        read
    }

    /// Keeps bad rows where a person finds them; returns their commonest kinds.
    async fn keep_rejects(&self, typed: &DataFrame, n_rejects: u64) -> Result<Vec<RejectKind>> {
        if n_rejects == 0 {
            return Ok(Vec::new());
        }
        let directory = rejects_of(self.run);
        let rows = typed.clone().filter(col("reject_reason").is_not_null())?;
        let rows = rows.select_columns(&["file", "line", "reject_reason"])?;
        let place = Place { directory: &directory, partitions: &[] };
        write(self.ctx, self.lake, &[rows], place, &parquet()).await?;
        reject_kinds(self.ctx, self.lake, self.run, KINDS_SHOWN).await
    }

    /// Errors when no row is good, or too many are bad.
    pub(crate) fn check_rejects(&self, counted: &Counted, kinds: &[RejectKind]) -> Result<()> {
        let Counted { n_flights, n_rejects, .. } = counted;
        let kinds: Vec<_> = kinds.iter().map(ToString::to_string).collect();
        ensure!(*n_flights > 0, "not one of {n_rejects} rows is a flight: {}", kinds.join("; "));
        let share = *n_rejects as f64 / (n_flights + n_rejects).max(1) as f64;
        if share <= self.options.rejects_max {
            return Ok(());
        }
        bail!(
            "{n_rejects} of {} rows are bad ({:.2} %), more than the {:.2} % allowed; \
             nothing was replaced: {}; all of them are in {}",
            n_flights + n_rejects,
            share * 100.0,
            self.options.rejects_max * 100.0,
            kinds.join("; "),
            self.lake.url(&rejects_of(self.run))
        )
    }
}

/// What to say when there is no row at all.
fn nothing_read(passed_over: &[PassedOver]) -> String {
    let shown = passed_over.iter().take(REASONS_SHOWN);
    let shown: Vec<_> = shown.map(ToString::to_string).collect();
    let more = passed_over.len().saturating_sub(REASONS_SHOWN);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    match passed_over.len() {
        1 => shown.concat(),
        _ => format!("no file holds flights: {}{more}", shown.join("; ")),
    }
}

/// Reads files one after the other; returns how many held rows, and what was passed over.
async fn read_all(
    files: Vec<RawFile>,
    names: Names,
    batches: mpsc::Sender<(RecordBatch, u64)>,
) -> Result<(usize, Vec<PassedOver>)> {
    let (mut before, mut n_read, mut passed_over) = (0, 0, Vec::new());
    for file in files {
        let local = file.fetch().await.with_context(|| file.name.clone())?;
        let (names, batches, n_bytes) = (names.clone(), batches.clone(), file.n_bytes);
        let reading = move || -> Result<(bool, Vec<PassedOver>)> {
            let mut unfit = Vec::new();
            let done = std::cell::Cell::new(before);
            let mut reading = Reading {
                known: &names,
                constants: &file.constants(),
                pass_over: &mut |name, reason| unfit.push(PassedOver { name, reason }),
                sink: &mut |batch| {
                    batches.blocking_send((batch, done.get())).context("ingestion was stopped")
                },
            };
            let mut on_bytes = |n| done.set(done.get() + n);
            let read = raw::read(local.path(), &file.name, &mut on_bytes, &mut reading);
            let is_read = match read {
                Err(error) if error.is::<Unfit>() => {
                    unfit.push(PassedOver { name: file.name, reason: format!("{error:#}") });
                    false
                }
                read => read.with_context(|| file.name.clone())? > 0,
            };
            Ok((is_read, unfit))
        };
        let (is_read, unfit) = tokio::task::spawn_blocking(reading).await??;
        n_read += usize::from(is_read);
        passed_over.extend(unfit);
        before += n_bytes;
    }
    Ok((n_read, passed_over))
}

async fn put_staged(
    lake: &Lake,
    staging: &str,
    number: usize,
    batches: Vec<RecordBatch>,
) -> Result<()> {
    let encode = move || -> Result<Vec<u8>> {
        let mut writer = ArrowWriter::try_new(Vec::new(), rows::raw_schema(), None)?;
        for batch in &batches {
            writer.write(batch)?;
        }
        Ok(writer.into_inner()?)
    };
    let bytes = tokio::task::spawn_blocking(encode).await??;
    lake.put(&format!("{staging}{number:06}.parquet"), bytes).await
}

async fn count_rows(typed: &DataFrame) -> Result<Counted> {
    let keys = vec![col("year"), col("month"), col("reject_reason").is_not_null().alias("bad")];
    let mut sums =
        vec![count(lit(1)).alias("n_rows"), sum(col("odd_times")), sum(col("odd_tails"))];
    sums.extend(MAY_LACK.iter().map(|(name, _)| count(col(*name))));
    let counted = typed.clone().aggregate(keys, sums)?;
    let mut all = Counted::default();
    for batch in counted.collect().await? {
        let years = batch.column(0).as_primitive::<Int32Type>();
        let numbers = batch.column(1).as_primitive::<Int32Type>();
        let bad = batch.column(2).as_boolean();
        let n_rows = batch.column(3).as_primitive::<Int64Type>();
        let n_odd = batch.column(4).as_primitive::<Int64Type>();
        let n_odd_tails = batch.column(5).as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            let n_rows = n_rows.value(row).unsigned_abs();
            if bad.value(row) {
                all.n_rejects += n_rows;
            } else {
                all.n_flights += n_rows;
                all.n_odd_times += n_odd.value(row).unsigned_abs();
                all.n_odd_tails += n_odd_tails.value(row).unsigned_abs();
                for (i, n) in all.n_known.iter_mut().enumerate() {
                    let known = batch.column(6 + i).as_primitive::<Int64Type>();
                    *n += known.value(row).unsigned_abs();
                }
                *all.months.entry((years.value(row), numbers.value(row))).or_default() += n_rows;
            }
        }
    }
    Ok(all)
}
