//! `submit-job download`: months of flights from their public source.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use jobs::download::{
    BTS, DownloadOptions, Downloaded, PARALLEL_MAX, Patience, download, last_month, next_month,
};
use jobs::ingest::counted::Month;
use reqwest::Url;
use serde_json::{Value, json};

use crate::config::now;
use crate::context::JobContext;
use crate::progress::say;

/// Arguments of `download`.
#[derive(Debug, Args)]
pub struct Download {
    /// The first month, such as 2015-01; by default the first that is missing after
    /// those that were downloaded
    #[arg(long, value_parser = month)]
    pub from: Option<Month>,
    /// The last month; by default the last one that is over
    #[arg(long, value_parser = month)]
    pub to: Option<Month>,
    /// Where the Bureau of Transportation Statistics keeps its files, or a copy of them
    #[arg(long, value_name = "URL", env = "TARMAC_BTS", default_value = BTS)]
    #[arg(value_parser = address)]
    pub address: Url,
    /// Files that are fetched at the same time
    #[arg(long, value_name = "N", default_value_t = 4)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=PARALLEL_MAX as u64))]
    pub parallel: u64,
    /// Attempts in a row that bring nothing before a file is given up
    #[arg(long, value_name = "N", default_value_t = Patience::default().attempts)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100))]
    pub attempts: u32,
    /// Fetch also what is there
    #[arg(long)]
    pub again: bool,
    /// Local directory that keeps what is not whole yet
    #[arg(long, env = "TARMAC_WORK", default_value = "tarmac-work")]
    pub work: PathBuf,
}

fn month(text: &str) -> Result<Month, String> {
    let parsed = text.split_once('-').filter(|(year, _)| year.len() == 4);
    let parsed = parsed.and_then(|(year, month)| Some((year.parse().ok()?, month.parse().ok()?)));
    parsed.filter(|(_, month)| (1..=12).contains(month)).ok_or("not a month as 2015-01".to_owned())
}

/// With a slash at its end, so that names can be put behind it.
fn address(text: &str) -> Result<Url, String> {
    let url = Url::parse(&format!("{}/", text.trim_end_matches('/'))).map_err(|e| e.to_string())?;
    match url.scheme() {
        _ if text.contains(['?', '#']) => {
            Err("an address with ? or # has no files below it".into())
        }
        "http" | "https" => Ok(url),
        other => Err(format!("{other} is not http or https")),
    }
}

/// Downloads what is not there.
pub async fn run_download(opened: &JobContext, args: &Download) -> Result<Value> {
    let JobContext { lake, shown, .. } = opened;
    let from = match args.from {
        Some(from) => from,
        None => next_month(lake).await?.context(
            "nothing was downloaded yet: --from names the first month, such as --from 2015-01",
        )?,
    };
    let to = args.to.unwrap_or(last_month(now()));
    let mut downloaded = Downloaded::default();
    if from <= to || args.from.is_some() {
        let options = DownloadOptions {
            address: args.address.clone(),
            months: (from, to),
            n_parallel: args.parallel as usize,
            again: args.again,
            work: args.work.clone(),
            patience: Patience { attempts: args.attempts, ..Patience::default() },
        };
        let coming = download(lake, &options, now, &|progress| shown.show(progress)).await;
        shown.clear();
        downloaded = coming?;
    }
    let Downloaded { n_new, n_there, n_unpublished, n_bytes } = downloaded;
    let n = n_new + n_there + n_unpublished;
    say(&format!(
        "downloaded {n_new} of {n} months, {:.1} MB; {n_there} were there, {n_unpublished} are not \
         published yet",
        n_bytes as f64 / 1e6
    ));
    if n_new > 0 {
        say("`submit-job ingest --new` takes them");
    }
    Ok(json!({
        "downloaded": n_new,
        "there": n_there,
        "unpublished": n_unpublished,
        "bytes": n_bytes,
    }))
}
