//! `submit-job ingest`: raw files to flights.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use jobs::ingest::ingest;
use jobs::progress::Progress;
use serde_json::{Value, json};

use crate::context::JobContext;
use crate::progress::say;

/// Arguments of `ingest`.
#[derive(Debug, Args)]
pub struct Ingest {
    /// Files or directories: .csv, .parquet, .jsonl, and .gz, .bz2, .zip of them
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Share of bad rows above which nothing is replaced and the job fails
    #[arg(long, default_value_t = 0.01)]
    pub rejects_max: f64,
}

/// Ingests files.
pub async fn run_ingest(opened: &JobContext, args: &Ingest) -> Result<Value> {
    let started = Instant::now();
    let JobContext { ctx, lake, id, shown, .. } = opened;
    let show = |progress: Progress| shown.show(progress);
    let ingested = ingest(ctx, lake, &args.files, id, args.rejects_max, &show).await;
    shown.clear();
    let ingested = ingested?;
    let (first, last) = (ingested.months.first(), ingested.months.last());
    let months = match (first, last) {
        (Some(first), Some(last)) => {
            format!(
                "{} months from {}-{:02} to {}-{:02}",
                ingested.months.len(),
                first.0,
                first.1,
                last.0,
                last.1
            )
        }
        _ => "no month".to_owned(),
    };
    say(&format!(
        "ingested {} flights of {months} in {:.1} s; {} rows rejected{}",
        ingested.n_flights,
        started.elapsed().as_secs_f64(),
        ingested.n_rejects,
        ingested.rejects.as_ref().map_or(String::new(), |url| format!(", see {url}"))
    ));
    Ok(json!({
        "flights": ingested.n_flights,
        "rejects": ingested.n_rejects,
        "months": ingested.months.len(),
    }))
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
