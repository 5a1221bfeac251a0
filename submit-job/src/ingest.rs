//! `submit-job ingest`: raw files to flights; `submit-job rejects`: what was wrong with them.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use datafusion::prelude::SessionContext;
use jobs::download::fresh;
use jobs::history;
use jobs::ingest::columns::Names;
use jobs::ingest::months;
use jobs::ingest::options::{IngestOptions, Months};
use jobs::ingest::rejects::{reject_kinds, rejects, rejects_of};
use jobs::ingest::{Ingested, PassedOver, ingest};
use jobs::lake::Lake;
use jobs::progress::Progress;
use serde_json::{Value, json};

use crate::context::JobContext;
use crate::progress::{print, say};

/// Files that are named when they were passed over; the others are counted.
const PASSED_OVER_SHOWN: usize = 10;

/// Arguments of `ingest`.
#[derive(Debug, Args)]
pub struct Ingest {
    /// Files, directories, patterns, and URLs of object stores: CSV and other tables of text,
    /// Parquet, JSON Lines and arrays, and .gz, .bz2, .zip of them
    #[arg(required_unless_present = "new", conflicts_with = "new")]
    pub files: Vec<PathBuf>,
    /// What was downloaded and not ingested yet
    #[arg(long)]
    pub new: bool,
    /// Share of bad rows above which nothing is replaced and the job fails
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, value_parser = share)]
    pub rejects_max: f64,
    /// Share of flights that are there more than once above which nothing is replaced
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, value_parser = share)]
    pub repeats_max: f64,
    /// Keep one of flights that are there more than once
    #[arg(long)]
    pub distinct: bool,
    /// Add to the months that are there instead of replacing them
    #[arg(long, conflicts_with = "replace")]
    pub append: bool,
    /// Replace months even by much fewer flights
    #[arg(long)]
    pub replace: bool,
    /// What the files call their columns, where they are not known: carrier=AIRLINE,dest=TO
    #[arg(long, value_name = "COLUMN=NAME,…", default_value = "", hide_default_value = true)]
    pub columns: String,
}

/// A share as the command line says it.
pub fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "not a share between 0 and 1".to_owned())
}

impl Ingest {
    /// Of these files, the rest as usual.
    pub fn of(files: Vec<PathBuf>) -> Self {
        let IngestOptions { rejects_max, repeats_max, .. } = IngestOptions::default();
        let (distinct, append, replace, new) = (false, false, false, false);
        let columns = String::new();
        Self { files, new, rejects_max, repeats_max, distinct, append, replace, columns }
    }

    fn options(&self, store_options: &[(String, String)]) -> Result<IngestOptions> {
        Ok(IngestOptions {
            rejects_max: self.rejects_max,
            repeats_max: self.repeats_max,
            distinct: self.distinct,
            months: match self.append {
                true => Months::Append,
                false => Months::Replace { shrinking: self.replace },
            },
            names: self.columns.parse::<Names>().context("--columns")?,
            store_options: store_options.to_vec(),
            ..IngestOptions::default()
        })
    }
}

/// Ingests files.
pub async fn run_ingest(
    opened: &JobContext,
    args: &Ingest,
    store_options: &[(String, String)],
) -> Result<Value> {
    let started = Instant::now();
    let JobContext { ctx, lake, id, shown, .. } = opened;
    let show = |progress: Progress| shown.show(progress);
    let fresh = if args.new { fresh(lake).await? } else { Vec::new() };
    if args.new && fresh.is_empty() {
        say("nothing new was downloaded");
        return Ok(json!({ "flights": 0 }));
    }
    let new_files = fresh.iter().map(|file| file.url(lake).into());
    let files: Vec<PathBuf> = args.files.iter().cloned().chain(new_files).collect();
    let ingested = ingest(ctx, lake, &files, id, &args.options(store_options)?, &show).await;
    shown.clear();
    let ingested = ingested?;
    for file in &fresh {
        file.set_ingested(lake, id).await?;
    }
    tell(&ingested, args.distinct);
    let months = match (ingested.months.first(), ingested.months.last()) {
        (Some(first), Some(last)) => {
            format!(
                "{} {} from {} to {}",
                ingested.months.len(),
                if ingested.months.len() == 1 { "month" } else { "months" },
                months::name(*first),
                months::name(*last)
            )
        }
        _ => "no month".to_owned(),
    };
    say(&format!(
        "ingested {} flights of {months} in {:.1} s; {} rows rejected{}",
        ingested.n_flights,
        started.elapsed().as_secs_f64(),
        ingested.n_rejects,
        match &ingested.rejects {
            Some(_) => format!(", see submit-job rejects {id}:"),
            None => String::new(),
        }
    ));
    ingested.reject_kinds.iter().for_each(|kind| say(&format!("  {kind}")));
    Ok(json!({
        "flights": ingested.n_flights,
        "rejects": ingested.n_rejects,
        "repeats": ingested.n_repeats,
        "odd_times": ingested.n_odd_times,
        "odd_tails": ingested.n_odd_tails,
        "passed_over": ingested.passed_over.len(),
        "months": ingested.months.len(),
    }))
}

/// Says what was not taken as it came.
fn tell(ingested: &Ingested, distinct: bool) {
    say_passed_over(&ingested.passed_over);
    if distinct && ingested.n_repeats > 0 {
        say(&format!("left out {} flights that were there already", ingested.n_repeats));
    }
    if ingested.n_odd_times > 0 {
        say(&format!("left out {} clock times past 24:00", ingested.n_odd_times));
    }
    if ingested.n_odd_tails > 0 {
        say(&format!("left out {} tail numbers that are none", ingested.n_odd_tails));
    }
}

/// Names the first files that were not read, and counts the others.
pub fn say_passed_over(passed_over: &[PassedOver]) {
    for file in passed_over.iter().take(PASSED_OVER_SHOWN) {
        say(&format!("passed over {file}"));
    }
    if let more @ 1.. = passed_over.len().saturating_sub(PASSED_OVER_SHOWN) {
        say(&format!("passed over {more} more files"));
    }
}

/// Arguments of `rejects`.
#[derive(Debug, Args)]
pub struct Rejects {
    /// The job that rejected rows, as --list shows it; the last one by default
    pub job: Option<String>,
    /// Rows that are printed at most
    #[arg(long, default_value_t = 100)]
    pub limit: usize,
}

/// Prints what was wrong with the rows that a job rejected: how many of each kind, then the rows.
pub async fn run_rejects(lake: &Lake, args: &Rejects) -> Result<()> {
    ensure!(lake.exists(), "there is no data root {}", lake.root());
    let runs = lake.list("rejects/").await?;
    let runs = runs.iter().filter_map(|name| name.strip_prefix("rejects/")?.split('/').next());
    let Some(job) = args.job.as_deref().or(runs.max()) else {
        say(&format!("no row was rejected under {}", lake.root()));
        return Ok(());
    };
    history::path(job, "json")?;
    if !lake.holds_table(&rejects_of(job)).await? {
        bail!("{job} rejected no row, or its rejects were deleted");
    }
    let ctx = SessionContext::new();
    let kinds = reject_kinds(&ctx, lake, job, usize::MAX).await?;
    say(&format!("{} rows were rejected by {job}:", kinds.iter().map(|k| k.n_rows).sum::<u64>()));
    kinds.iter().for_each(|kind| say(&format!("  {kind}")));
    for row in rejects(&ctx, lake, job, args.limit).await? {
        print(&row.to_string())?;
    }
    Ok(())
}

/// The file with the shipped flights, written into the data root.
pub fn shipped_flights(root: &Path) -> Result<PathBuf> {
    const FLIGHTS: &[u8] = include_bytes!("../../data/nycflights13/flights.parquet");
    let directory = root.join("raw");
    std::fs::create_dir_all(&directory)?;
    let path = directory.join("nycflights13.parquet");
    std::fs::write(&path, FLIGHTS).with_context(|| path.display().to_string())?;
    Ok(path)
}
