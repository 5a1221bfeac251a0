//! `submit-job download`: months of flights, and what is known of airports, airlines and airplanes,
//! from their public sources.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use cluster::session;
use jobs::download::{
    BTS, DownloadOptions, Downloaded, Fetching, PARALLEL_MAX, Patience, download,
    download_reference, last_month, next_month,
};
use jobs::ingest::counted::Month;
use jobs::references::REFERENCES;
use reqwest::Url;
use serde_json::{Value, json};

use crate::config::now;
use crate::context::JobContext;
use crate::progress::say;

/// Memory for what is made of references.
const MEMORY: usize = 512 * 1024 * 1024;

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
    /// Instead of flights, what is known of airports, airlines and airplanes, from the addresses
    /// below; pages show it from the next publication on
    #[arg(long, conflicts_with_all = ["from", "to"])]
    pub references: bool,
    /// airports.csv of OurAirports, or the address of a copy, or a file
    #[arg(long, value_name = "URL", env = "TARMAC_AIRPORTS", value_parser = file)]
    #[arg(default_value = REFERENCES[0].address)]
    pub airports: Url,
    /// The lookup table of unique carriers of BTS, or the address of a copy, or a file
    #[arg(long, value_name = "URL", env = "TARMAC_CARRIERS", value_parser = file)]
    #[arg(default_value = REFERENCES[1].address)]
    pub carriers: Url,
    /// The aircraft registry of the FAA, or the address of a copy, or a file
    #[arg(long, value_name = "URL", env = "TARMAC_AIRCRAFT", value_parser = file)]
    #[arg(default_value = REFERENCES[2].address)]
    pub aircraft: Url,
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

/// The address of one file, which may be a local one.
fn file(text: &str) -> Result<Url, String> {
    if Path::new(text).is_file() {
        let path = std::path::absolute(text).map_err(|e| e.to_string())?;
        return Url::from_file_path(path).map_err(|()| "no absolute path".to_owned());
    }
    let url = Url::parse(text).map_err(|e| format!("no file, and no address: {e}"))?;
    if url.scheme() == "file" { Ok(url) } else { of_web(url) }
}

fn of_web(url: Url) -> Result<Url, String> {
    match url.scheme() {
        "http" | "https" => Ok(url),
        other => Err(format!("{other} is not http or https")),
    }
}

/// With a slash at its end, so that names can be put behind it.
fn address(text: &str) -> Result<Url, String> {
    if text.contains(['?', '#']) {
        return Err("an address with ? or # has no files below it".into());
    }
    let url = Url::parse(&format!("{}/", text.trim_end_matches('/'))).map_err(|e| e.to_string())?;
    of_web(url)
}

impl Download {
    fn fetching(&self) -> Fetching {
        Fetching {
            again: self.again,
            work: self.work.clone(),
            patience: Patience { attempts: self.attempts, ..Patience::default() },
        }
    }
}

/// Downloads what is known of airports, airlines and airplanes.
async fn run_references(opened: &JobContext, args: &Download) -> Result<Value> {
    let JobContext { lake, shown, .. } = opened;
    // what comes is in this process
    let ctx = session::in_process(1, MEMORY, &[], &[])?;
    let (mut rows, mut failed) = (serde_json::Map::new(), Ok(()));
    let flags = ["--airports", "--carriers", "--aircraft"];
    let addresses = flags.into_iter().zip([&args.airports, &args.carriers, &args.aircraft]);
    let fetching = args.fetching();
    for (reference, (flag, address)) in REFERENCES.iter().zip(addresses) {
        let (what, of) = (reference.file, (reference, address));
        let on_progress = |progress| shown.show(progress);
        let came = download_reference(&ctx, lake, of, &fetching, now, &on_progress).await;
        shown.clear();
        let n_rows = match came {
            Ok(n_rows) => n_rows,
            // one that cannot be had keeps no other from coming
            Err(error) => {
                say(&format!("{what}: {error:#}"));
                let hint = format!("{what}; what a browser saves is taken by {flag} FILE");
                failed = failed.and(Err(error.context(hint)));
                continue;
            }
        };
        match n_rows {
            Some(n_rows) => say(&format!("{what}: {n_rows} rows of {}", reference.name)),
            None => say(&format!("{what} was there; --again fetches it again")),
        }
        rows.insert(reference.name.to_owned(), n_rows.into());
    }
    failed?;
    say("`submit-job publish` shows them on the pages");
    Ok(rows.into())
}

/// Downloads what is not there.
pub async fn run_download(opened: &JobContext, args: &Download) -> Result<Value> {
    if args.references {
        return run_references(opened, args).await;
    }
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
            fetching: args.fetching(),
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
