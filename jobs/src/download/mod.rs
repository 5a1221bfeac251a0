//! Public sources → raw files under `raw/`, each whole and checked, with a record of where it came
//! from under `downloads/`.
//!
//! ```text
//! raw/bts/…_2015_1.zip             a month of flights, as BTS publishes it
//! downloads/bts/…_2015_1.zip.json  its [`Download`]
//! ```

mod check;
mod fetch;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail, ensure};
use chrono::{DateTime, Datelike, Utc};
use datafusion::prelude::SessionContext;
use futures::{StreamExt, TryStreamExt, stream};
use reqwest::Client;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use url::Url;

pub use crate::download::fetch::Patience;
use crate::download::fetch::{Told, discard, fetch, without_password};
use crate::ingest::counted::Month;
use crate::ingest::files::RawFile;
use crate::ingest::months::name as shown;
use crate::lake::Lake;
use crate::progress::{OnProgress, Progress};
use crate::references::Reference;

/// Where the Bureau of Transportation Statistics keeps the files of its table "Reporting Carrier
/// On-Time Performance (1987-present)".
pub const BTS: &str = "https://transtats.bts.gov/PREZIP/";
/// Beginning of their names; the month follows.
const BTS_NAME: &str = "On_Time_Reporting_Carrier_On_Time_Performance_1987_present_";
/// The first month of the table.
pub const FIRST_MONTH: Month = (1987, 10);
/// Months that BTS may need to publish one: that it has none so young is no error.
const UNPUBLISHED_MONTHS: i32 = 6;

/// Largest [`Download`] that is read, in bytes.
const RECORD_BYTES_MAX: usize = 64 * 1024;
/// Files that are fetched at the same time at most.
pub const PARALLEL_MAX: usize = 16;

/// What is downloaded, and how.
#[derive(Debug, Clone)]
pub struct DownloadOptions {
    /// Where the files are; [`BTS`].
    pub address: Url,
    /// The first and the last month.
    pub months: (Month, Month),
    /// Files that are fetched at the same time.
    pub n_parallel: usize,
    /// How each of them is fetched.
    pub fetching: Fetching,
}

/// How a file is fetched.
#[derive(Debug, Clone)]
pub struct Fetching {
    /// Whether what is there is fetched again.
    pub again: bool,
    /// The local directory that keeps what is not whole yet.
    pub work: PathBuf,
    /// How long servers are waited for.
    pub patience: Patience,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Downloaded {
    /// Files that came.
    pub n_new: u64,
    /// Files that were there.
    pub n_there: u64,
    /// Months that are not published yet.
    pub n_unpublished: u64,
    /// Bytes of the files that came.
    pub n_bytes: u64,
}

/// Where a raw file came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Download {
    /// Its address.
    pub address: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its bytes.
    pub sha256: String,
    /// Rows in it.
    pub rows: u64,
    /// When it was whole.
    pub time: DateTime<Utc>,
    /// The job that ingested it; none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingested_by: Option<String>,
}

impl Download {
    async fn get(lake: &Lake, name: &str) -> Result<Option<Self>> {
        let path = record_path(name);
        let Some(bytes) = lake.get(&path, RECORD_BYTES_MAX).await? else { return Ok(None) };
        let record = serde_json::from_slice(&bytes);
        let what = || {
            let path = lake.url(&path);
            let which = if name.starts_with("references/") { "--references " } else { "" };
            format!(
                "{path} is no record of a download; `submit-job download {which}--again` makes it \
                 anew"
            )
        };
        record.map(Some).with_context(what)
    }

    async fn put(&self, lake: &Lake, name: &str) -> Result<()> {
        lake.put(&record_path(name), serde_json::to_vec_pretty(self)?).await
    }
}

fn record_path(name: &str) -> String {
    format!("downloads/{name}.json")
}

/// References are no flights: an ingestion of all that is raw does not look at them.
fn raw_path(name: &str) -> String {
    match name.strip_prefix("references/") {
        Some(file) => format!("references/sources/{file}"),
        None => format!("raw/{name}"),
    }
}

/// The months from `first` to `last`.
fn months(first: Month, last: Month) -> impl Iterator<Item = Month> {
    (number(first)..=number(last)).map(month)
}

fn number((year, month): Month) -> i32 {
    year * 12 + month - 1
}

fn month(number: i32) -> Month {
    (number.div_euclid(12), number.rem_euclid(12) + 1)
}

/// The month before that of `now`: the last one that is complete.
pub fn last_month(now: DateTime<Utc>) -> Month {
    month(number((now.year(), now.month().cast_signed())) - 1)
}

/// The first month that is missing after those that were downloaded; `None` when none was.
pub async fn next_month(lake: &Lake) -> Result<Option<Month>> {
    let records = lake.list("downloads/bts/").await?;
    let month_of = |name: &String| -> Option<Month> {
        let name = name.strip_prefix("downloads/bts/")?.strip_prefix(BTS_NAME)?;
        let (year, month) = name.strip_suffix(".zip.json")?.split_once('_')?;
        Some((year.parse().ok()?, month.parse().ok()?))
    };
    // files come side by side: one that failed may have later ones behind it
    let there: BTreeSet<Month> = records.iter().filter_map(month_of).collect();
    let (Some(&first), Some(&last)) = (there.first(), there.last()) else { return Ok(None) };
    let after = month(number(last) + 1);
    Ok(months(first, after).find(|month| !there.contains(month)))
}

/// Downloads months of flights that are not there yet.
///
/// Errors with the first file that cannot be had; those that came stay, and are not fetched again.
pub async fn download(
    lake: &Lake,
    options: &DownloadOptions,
    now: fn() -> DateTime<Utc>,
    on_progress: OnProgress<'_>,
) -> Result<Downloaded> {
    let (first, last) = options.months;
    ensure!(first >= FIRST_MONTH, "the flights begin in {}", shown(FIRST_MONTH));
    let complete = last_month(now());
    ensure!(first <= complete, "{} is not over", shown(first));
    ensure!(first <= last, "{} is after {}", shown(first), shown(last));
    let last = last.min(complete);
    let job = Job::new(lake, &options.fetching, &options.address, now, on_progress)?;
    let files = months(first, last).map(|month| job.month(month, &options.address));
    let files = stream::iter(files);
    let mut files = files.buffer_unordered(options.n_parallel.clamp(1, PARALLEL_MAX));
    let mut downloaded = Downloaded::default();
    while let Some(came) = files.try_next().await? {
        match came {
            Came::New(bytes) => {
                downloaded.n_new += 1;
                downloaded.n_bytes += bytes;
            }
            Came::There => downloaded.n_there += 1,
            Came::Unpublished => downloaded.n_unpublished += 1,
        }
    }
    Ok(downloaded)
}

/// Downloads what a public source says of airports, airlines or airplanes, and makes the relation
/// of it in `ctx`, a session of this process; returns the rows of the relation, `None` when the
/// source was downloaded before.
pub async fn download_reference(
    ctx: &SessionContext,
    lake: &Lake,
    (reference, address): (&Reference, &Url),
    fetching: &Fetching,
    now: fn() -> DateTime<Utc>,
    on_progress: OnProgress<'_>,
) -> Result<Option<u64>> {
    let job = Job::new(lake, fetching, address, now, on_progress)?;
    let (file, name) = (reference.file, format!("references/{}", reference.file));
    let read = *reference;
    if let Some(record) = job.there(&name).await? {
        if reference.is_of(lake, &record.sha256).await? {
            return Ok(None);
        }
        // made by another version of the step, or deleted
        let there = RawFile::of_lake(lake, &raw_path(&name)).await?.context("it is gone")?;
        let local = there.fetch().await?;
        let raw = tokio::task::spawn_blocking(move || read.read(local.path())).await??;
        return reference.make(ctx, lake, raw, &record.sha256).await.map(Some);
    }
    let fetched = job.fetch(address, file, move |part| read.read(part)).await?;
    let shown = without_password(address);
    let fetched = fetched.with_context(|| format!("{shown}: there is no such file"))?;
    let Whole { checked: raw, place } = fetched;
    let rows = raw.n_rows();
    let n_rows = reference.make(ctx, lake, raw, &place.sha256).await?;
    job.keep(&name, address, place, rows).await?;
    Ok(Some(n_rows))
}

/// What became of a file.
enum Came {
    New(u64),
    There,
    Unpublished,
}

/// A file that came, and what its check found.
struct Whole<T> {
    checked: T,
    place: Place,
}

/// Where a file is that came; nobody else writes it meanwhile.
struct Place {
    part: PathBuf,
    bytes: u64,
    sha256: String,
    _lock: File,
}

/// A download, and what its files need.
struct Job<'a> {
    lake: &'a Lake,
    fetching: &'a Fetching,
    client: Client,
    work: PathBuf,
    now: fn() -> DateTime<Utc>,
    /// Bytes of all files that are being fetched.
    done: AtomicU64,
    total: AtomicU64,
    on_progress: OnProgress<'a>,
}

impl<'a> Job<'a> {
    fn new(
        lake: &'a Lake,
        fetching: &'a Fetching,
        address: &Url,
        now: fn() -> DateTime<Utc>,
        on_progress: OnProgress<'a>,
    ) -> Result<Self> {
        let work = fetching.work.join("downloads");
        let made = std::fs::create_dir_all(&work);
        made.with_context(|| format!("cannot make {}", work.display()))?;
        let client = fetching.patience.client(address)?;
        let (done, total) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self { lake, fetching, client, work, now, done, total, on_progress })
    }

    async fn month(&self, month: Month, address: &Url) -> Result<Came> {
        let file = format!("{BTS_NAME}{}_{}.zip", month.0, month.1);
        let name = format!("bts/{file}");
        if self.there(&name).await?.is_some() {
            return Ok(Came::There);
        }
        let url = address.join(&file)?;
        let of_month = file.clone();
        let check = move |part: &Path| check::check_month(part, &of_month, month);
        let Some(Whole { checked: rows, place }) = self.fetch(&url, &file, check).await? else {
            let is_young = number(last_month((self.now)())) - number(month) < UNPUBLISHED_MONTHS;
            let address = without_password(&url);
            ensure!(is_young, "{address}: there is no such file; is the address right?");
            (self.on_progress)(Progress::Notice(format!("{}: not published yet", shown(month))));
            return Ok(Came::Unpublished);
        };
        let bytes = place.bytes;
        self.keep(&name, &url, place, rows).await?;
        let text = format!("{}: {rows} rows, {bytes} bytes", shown(month));
        (self.on_progress)(Progress::Notice(text));
        Ok(Came::New(bytes))
    }

    /// Fetches a file and has it checked; `None` when there is none at the address.
    async fn fetch<T: Send + 'static>(
        &self,
        url: &Url,
        file: &str,
        check: impl Fn(&Path) -> Result<T> + Clone + Send + 'static,
    ) -> Result<Option<Whole<T>>> {
        let part = self.work.join(format!("{file}.part"));
        let lock = lock(&part)?;
        let checked = || async {
            let (part, check) = (part.clone(), check.clone());
            let check = move || Ok((check(&part)?, digest_of(&part)?));
            tokio::task::spawn_blocking(check).await?
        };
        let counted = AtomicU64::new(0);
        let told = Told {
            bytes: &|there, total| self.show(&counted, there, total),
            again: &|text| (self.on_progress)(Progress::Notice(text)),
        };
        let fetched = match url.to_file_path() {
            Ok(path) if url.scheme() == "file" => {
                let copied = tokio::fs::copy(&path, &part).await;
                copied.with_context(|| format!("cannot read {}", path.display()))?;
                let checked = checked().await;
                Some(checked.with_context(|| path.display().to_string())?)
            }
            _ => {
                let patience = &self.fetching.patience;
                fetch(&self.client, url, &part, patience, &told, checked).await?
            }
        };
        let whole = fetched.map(|(checked, (bytes, sha256))| Whole {
            checked,
            place: Place { part: part.clone(), bytes, sha256, _lock: lock },
        });
        Ok(whole)
    }

    /// Moves a file that came to its place, with a record of where it came from.
    async fn keep(&self, name: &str, url: &Url, place: Place, rows: u64) -> Result<()> {
        let Place { part, bytes, sha256, _lock } = place;
        // in between there is a file without a record, which is fetched again
        self.lake.delete_if_there(&record_path(name)).await?;
        self.lake.upload(&part, &raw_path(name)).await?;
        let address = without_password(url).to_string();
        let record =
            Download { address, bytes, sha256, rows, time: (self.now)(), ingested_by: None };
        record.put(self.lake, name).await?;
        discard(&part)
    }

    /// The record of a file that is there as it came, unless it is to be fetched again.
    async fn there(&self, name: &str) -> Result<Option<Download>> {
        if self.fetching.again {
            return Ok(None);
        }
        let Some(record) = Download::get(self.lake, name).await? else { return Ok(None) };
        let there = self.lake.size(&raw_path(name)).await?;
        Ok(Some(record).filter(|record| there == Some(record.bytes)))
    }

    /// Shows how far all files are. `counted` is what of this one is counted already.
    fn show(&self, counted: &AtomicU64, there: u64, total: Option<u64>) {
        let before = counted.swap(there, Ordering::Relaxed);
        if before == 0 {
            self.total.fetch_add(total.unwrap_or_default(), Ordering::Relaxed);
        }
        // a file that begins again counts less than before
        let done = self.done.fetch_add(there.wrapping_sub(before), Ordering::Relaxed);
        let done = done.wrapping_add(there.wrapping_sub(before));
        let total = self.total.load(Ordering::Relaxed).max(done);
        (self.on_progress)(Progress::Bytes { done, total });
    }
}

/// Keeps other programs from writing the same part.
fn lock(part: &Path) -> Result<File> {
    let path = part.with_added_extension("lock");
    let place = || format!("cannot lock {}", path.display());
    let file = File::create(&path).with_context(place)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            bail!("{} is being downloaded by another job", part.display())
        }
        Err(std::fs::TryLockError::Error(error)) => Err(error).with_context(place),
    }
}

/// Size and SHA-256 of a file.
fn digest_of(path: &Path) -> Result<(u64, String)> {
    let mut digest = Sha256::new();
    let mut file = File::open(path).with_context(|| path.display().to_string())?;
    let n_bytes = std::io::copy(&mut file, &mut digest)?;
    Ok((n_bytes, format!("{:x}", digest.finalize())))
}

/// A raw file that was downloaded and not ingested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fresh {
    name: String,
    sha256: String,
}

/// What was downloaded and not yet ingested.
pub async fn fresh(lake: &Lake) -> Result<Vec<Fresh>> {
    let mut fresh = Vec::new();
    for path in lake.list("downloads/bts/").await? {
        let Some(name) = path.strip_prefix("downloads/").and_then(|p| p.strip_suffix(".json"))
        else {
            continue;
        };
        let Some(record) = Download::get(lake, name).await? else { continue };
        if record.ingested_by.is_none() {
            let size = lake.size(&raw_path(name)).await?;
            ensure!(
                size == Some(record.bytes),
                "{} is gone or changed; `submit-job download --again` fetches it",
                lake.url(&raw_path(name))
            );
            fresh.push(Fresh { name: name.to_owned(), sha256: record.sha256 });
        }
    }
    Ok(fresh)
}

impl Fresh {
    /// Where it is.
    pub fn url(&self, lake: &Lake) -> String {
        lake.url(&raw_path(&self.name))
    }

    /// Remembers that a job has ingested it, unless another version has come meanwhile.
    pub async fn set_ingested(&self, lake: &Lake, job: &str) -> Result<()> {
        let Some(mut record) = Download::get(lake, &self.name).await? else { return Ok(()) };
        if record.sha256 == self.sha256 {
            record.ingested_by = Some(job.to_owned());
            record.put(lake, &self.name).await?;
        }
        Ok(())
    }
}
