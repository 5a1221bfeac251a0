//! Raw files → `flights`, partitioned by year and month, and `distances`.
//!
//! Reads the files as text into a staging table, types the rows by `sql/10_flights.sql`, keeps the
//! refused ones under `rejects/`, and replaces the months that were read, or adds to them, when all
//! is written and nothing speaks against it; other months are not touched. Rows of tables that are
//! clean beyond doubt take a shorter way to the same flights (`typed`).

pub mod columns;
pub mod counted;
pub(crate) mod files;
mod flights;
pub(crate) mod json;
pub(crate) mod lines;
pub mod months;
pub mod options;
mod parquet;
pub(crate) mod raw;
pub mod rejects;
pub(crate) mod rows;
mod table;
mod typed;

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail, ensure};
use datafusion::arrow::array::RecordBatch;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::prelude::{DataFrame, SessionContext, col};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::distances;
use crate::ingest::counted::Month;
use crate::ingest::counted::{Counted, count_rows};
pub use crate::ingest::files::PassedOver;
use crate::ingest::files::{Found, RawFile};
use crate::ingest::flights::{Encoded, Flights};
use crate::ingest::options::{IngestOptions, Job, Months, Rest};
use crate::ingest::raw::Reading;
use crate::ingest::rejects::{RejectKind, reject_kinds, rejects_of};
use crate::ingest::rows::Unfit;
use crate::lake::Lake;
use crate::lease::{self, Swap};
use crate::progress::{OnProgress, Progress, stage};
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

impl Job<'_> {
    /// Makes everything; nothing of it is in place yet.
    async fn run(&self, found: Found) -> Result<(Ingested, Swap)> {
        ensure!(
            self.options.months != Months::Append || !months::has_put(self.lake, self.run).await?,
            "job {} has added its flights already, it only did not come to say so; nothing is left \
             to do",
            self.run
        );
        let files = found.files.clone();
        let Staged { n_files, passed_over, clean } = self.stage(found, Rest::Flights).await?;
        let has_clean = clean.n_flights > 0;
        let typing = async {
            let typed = sql::plan(self.ctx, sql::FLIGHTS, &[]).await?;
            let (counted, reject_kinds) = self.judge(&typed, &passed_over, clean).await?;
            self.check_rejects(&counted, &reject_kinds)?;
            anyhow::Ok((typed, counted, reject_kinds))
        };
        let name = "typing rows by sql/10_flights.sql";
        let (typed, counted, reject_kinds) = stage(self.on_progress, name, typing).await?;
        let Counted { n_rejects, n_odd_times, n_odd_tails, .. } = counted;

        let lacking = counted.lacking();
        if !lacking.is_empty() {
            let text = format!("not one of the flights has: {}", lacking.join(", "));
            (self.on_progress)(Progress::Notice(text));
        }
        let months = &self.options.months;
        let there = months::there(self.ctx, self.lake, &counted.months).await?;
        months::check(*months, &there, &counted.months)?;
        let staged = self.staging("flights/");
        let writing = async {
            self.write_flights(typed, &staged, has_clean).await?;
            let n_repeats = months::repeats(self, &staged, &counted.months, &files).await?;
            let (made, written) = months::swap(self, &staged, &counted.months, &there).await?;
            anyhow::Ok((n_repeats, made, written))
        };
        let (n_repeats, mut made, written) =
            stage(self.on_progress, "writing flights", writing).await?;

        let making = async {
            months::register_coming(self, &staged, &counted.months).await?;
            distances::register_imported(self.ctx, self.lake).await?;
            let staging = (&*self.staging(""), self.epoch);
            distances::make(self.ctx, self.lake, self.run, staging, &mut made).await
        };
        stage(self.on_progress, "making distances by sql/20_distances.sql", making).await?;
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

    /// Writes the good rows of `typed` to `staged`, beside the clean ones, if those are there.
    async fn write_flights(&self, typed: DataFrame, staged: &str, has_clean: bool) -> Result<()> {
        let flights = typed.filter(col("reject_reason").is_null())?;
        let not_kept =
            ["file", "line", "uuid", "asked_at", "odd_times", "odd_tails", "reject_reason"];
        let flights = flights.drop_columns(&not_kept)?;
        // writing empties a directory: not that of the clean rows
        let directory = if has_clean { self.staging("others/") } else { staged.to_owned() };
        let place = Place { directory: &directory, partitions: &["year", "month"] };
        write(self.ctx, self.lake, &[flights], place, &parquet()).await?;
        if has_clean {
            for name in self.lake.list(&directory).await? {
                let within = name.strip_prefix(&directory).unwrap_or(&name);
                self.lake.rename(&name, &format!("{staged}{within}")).await?;
            }
        }
        Ok(())
    }

    /// Makes files the relation `raw_flights`, without the rows that are not left to SQL.
    pub(crate) async fn stage(&self, found: Found, rest: Rest) -> Result<Staged> {
        let mut staged = self.write_raw(found.files, rest).await?;
        let raw = self.staging("raw/");
        self.lake.register_table(self.ctx, "raw_flights", &raw, &[]).await?;
        staged.passed_over = [found.passed_over, staged.passed_over].concat();
        Ok(staged)
    }

    /// Counts typed rows, beside the clean ones, and keeps the bad ones, of which it returns the
    /// commonest kinds.
    ///
    /// Errors when nothing was read, or a column that a person has named is nowhere.
    pub(crate) async fn judge(
        &self,
        typed: &DataFrame,
        passed_over: &[PassedOver],
        clean: Counted,
    ) -> Result<(Counted, Vec<RejectKind>)> {
        let counted = count_rows(typed).await?.and(clean);
        ensure!(counted.n_flights + counted.n_rejects > 0, nothing_read(passed_over));
        let not_found = self.options.names.not_found();
        ensure!(not_found.is_empty(), "no file has a column {}", not_found.join(" or "));
        let reject_kinds = self.keep_rejects(typed, counted.n_rejects).await?;
        Ok((counted, reject_kinds))
    }

    /// Reads files into Parquet files of text, and clean rows into those of flights.
    async fn write_raw(&self, files: Vec<RawFile>, rest: Rest) -> Result<Staged> {
        let (staging, flights) = (self.staging("raw/"), self.staging("flights/"));
        let total = files.iter().map(|file| file.n_bytes).sum();
        (self.on_progress)(Progress::Bytes { done: 0, total });
        let (read, mut received) = mpsc::channel::<Read>(QUEUED_BATCHES);
        let n_threads = self.ctx.state().config().target_partitions();
        let reading = read_all(files, self.options, read, (rest, n_threads));
        // it takes the receiver with it when it fails, so that reading ends too
        let writing = async move {
            let (mut staged, mut n_rows, mut n_bytes, mut n_files) = (Vec::new(), 0, 0, 0);
            let mut n_clean = 0;
            while let Some(read) = received.recv().await {
                let batch = match read {
                    Read::Rows(batch, done) => {
                        (self.on_progress)(Progress::Bytes { done, total });
                        batch
                    }
                    Read::Flights(Encoded { month, bytes }) => {
                        let of_month = months::directory(month);
                        let name = format!("{flights}{of_month}{n_clean:06}.parquet");
                        self.lake.put(&name, bytes).await?;
                        n_clean += 1;
                        continue;
                    }
                };
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

/// What was staged.
pub(crate) struct Staged {
    /// Files that held rows.
    pub(crate) n_files: usize,
    pub(crate) passed_over: Vec<PassedOver>,
    /// Rows that were not left to SQL.
    pub(crate) clean: Counted,
}

/// What was read.
enum Read {
    /// Rows of text, and how many bytes that was up to now.
    Rows(RecordBatch, u64),
    /// Flights.
    Flights(Encoded),
}

/// Reads files one after the other.
async fn read_all(
    files: Vec<RawFile>,
    options: &IngestOptions,
    read: mpsc::Sender<Read>,
    (rest, n_threads): (Rest, usize),
) -> Result<Staged> {
    let (mut before, mut n_files, mut passed_over) = (0, 0, Vec::new());
    let to_staging = read.clone();
    let on_file = move |file| {
        to_staging.blocking_send(Read::Flights(file)).map_err(|_| anyhow!("ingestion was stopped"))
    };
    let block_bytes = options.block_bytes;
    let threads = (Handle::current(), n_threads);
    let flights = |wanted| Flights::new(threads, Box::new(on_file), block_bytes, wanted);
    let mut flights = match rest {
        _ if block_bytes == 0 => None,
        Rest::Sql => None,
        Rest::Flights => Some(flights(None)),
        Rest::Of(id) => Some(flights(Some(id))),
    };
    for file in files {
        let local = file.fetch().await.with_context(|| file.name.clone())?;
        let (names, read, n_bytes) = (options.names.clone(), read.clone(), file.n_bytes);
        let reading = move || -> Result<(bool, Vec<PassedOver>, Option<Flights>)> {
            let mut unfit = Vec::new();
            let done = std::cell::Cell::new(before);
            let mut reading = Reading {
                known: &names,
                constants: &file.constants(),
                pass_over: &mut |name, reason| unfit.push(PassedOver { name, reason }),
                sink: &mut |batch| {
                    let rows = Read::Rows(batch, done.get());
                    read.blocking_send(rows).map_err(|_| anyhow!("ingestion was stopped"))
                },
                flights: flights.as_mut(),
            };
            let mut on_bytes = |n| done.set(done.get() + n);
            let found = raw::read(local.path(), &file.name, &mut on_bytes, &mut reading);
            let is_read = match found {
                Err(error) if error.is::<Unfit>() => {
                    unfit.push(PassedOver { name: file.name, reason: format!("{error:#}") });
                    false
                }
                found => found.with_context(|| file.name.clone())? > 0,
            };
            Ok((is_read, unfit, flights))
        };
        let (is_read, unfit, back) = tokio::task::spawn_blocking(reading).await??;
        flights = back;
        n_files += usize::from(is_read);
        passed_over.extend(unfit);
        before += n_bytes;
    }
    let finish = || flights.map(Flights::finish).transpose();
    let clean = tokio::task::spawn_blocking(finish).await??.unwrap_or_default();
    Ok(Staged { n_files, passed_over, clean })
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
