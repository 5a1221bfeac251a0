//! A file of a web server to a local one, however often the line is cut: what is there is kept, and
//! the rest is asked for by its range, as long as the server says that the file is still the same.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use reqwest::header::{
    CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, IF_RANGE, LAST_MODIFIED, RANGE,
    RETRY_AFTER,
};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode};
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;
use url::Url;

/// Largest file, in bytes.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// Attempts at most, also of a server that sends a little each time.
const ATTEMPTS_MAX: u32 = 1_000;
/// What an attempt, or the time of [`Patience::silence`], must bring to count: less comes from a
/// server that keeps us waiting.
const PROGRESS_BYTES: u64 = 64 * 1024;
/// Redirections that are followed.
const REDIRECTS_MAX: usize = 5;
/// Longest pause that a server can ask for.
const ASKED_PAUSE_MAX: Duration = Duration::from_secs(120);
/// Longest tag of a version that is kept.
const TAG_BYTES_MAX: usize = 1_024;

/// How long servers are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Attempts in a row that bring nothing, or whole files that are not what they should be,
    /// before it is given up.
    pub attempts: u32,
    /// For a connection.
    pub connect: Duration,
    /// For the next bytes.
    pub silence: Duration,
    /// Before the second attempt; doubled before each further one.
    pub first_pause: Duration,
    /// Longest pause that we choose ourselves.
    pub longest_pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 6,
            connect: Duration::from_secs(10),
            silence: Duration::from_secs(60),
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(30),
        }
    }
}

impl Patience {
    /// A client that waits no longer, for addresses such as this one.
    pub(crate) fn client(&self, address: &Url) -> Result<Client> {
        Client::builder()
            // what is asked for encrypted is not sent elsewhere in the clear
            .https_only(address.scheme() == "https")
            // some answer no others than browsers
            .user_agent(concat!("Mozilla/5.0 (compatible; tarmac/", env!("CARGO_PKG_VERSION"), ")"))
            .connect_timeout(self.connect)
            .read_timeout(self.silence)
            .redirect(Policy::limited(REDIRECTS_MAX))
            .build()
            .context("no HTTP client")
    }

    fn pause(&self, n_failed: u32) -> Duration {
        let doubled = self.first_pause.saturating_mul(1 << n_failed.saturating_sub(1).min(16));
        doubled.min(self.longest_pause)
    }
}

/// What came of an attempt that may be repeated.
enum Came {
    /// The file is whole.
    Whole,
    /// There is no such file.
    Nothing,
    /// Why it is not whole. The server may have said how long to wait.
    Less(anyhow::Error, Option<Duration>),
}

fn less(error: anyhow::Error) -> Came {
    Came::Less(error, None)
}

/// What is told on the way.
pub(crate) struct Told<'a> {
    /// Bytes that are there, and in all where that is known.
    pub(crate) bytes: &'a (dyn Fn(u64, Option<u64>) + Send + Sync),
    /// Why there is another attempt.
    pub(crate) again: &'a (dyn Fn(String) + Send + Sync),
}

/// An address as it is said and kept: without a password.
pub(crate) fn without_password(url: &Url) -> Url {
    let mut shown = url.clone();
    // both fail for addresses that can have neither
    _ = shown.set_username("");
    _ = shown.set_password(None);
    shown
}

/// Fetches `url` into `part`, goes on with what an earlier attempt left there, and asks `check` of
/// the whole file, which is thrown away and fetched again where that errors. `None` when there is
/// no such file.
///
/// Errors name the address.
pub(crate) async fn fetch<T>(
    client: &Client,
    url: &Url,
    part: &Path,
    patience: &Patience,
    told: &Told<'_>,
    check: impl AsyncFn() -> Result<T>,
) -> Result<Option<T>> {
    let place = || without_password(url).to_string();
    // attempts in a row that brought little, and whole files that were not what they should be
    let (mut n_idle, mut n_bad) = (0, 0);
    for _ in 0..ATTEMPTS_MAX {
        let before = size(part);
        let (error, asked) = match attempt(client, url, part, patience, told).await {
            Err(error) => return Err(error.context(place())),
            Ok(Came::Nothing) => return Ok(None),
            Ok(Came::Whole) => match check().await {
                Ok(checked) => return Ok(Some(checked)),
                Err(error) => {
                    discard(part)?;
                    n_bad += 1;
                    (error, None)
                }
            },
            Ok(Came::Less(error, asked)) => {
                n_idle = if size(part) >= before + PROGRESS_BYTES { 1 } else { n_idle + 1 };
                (error, asked)
            }
        };
        let n_failed = n_idle.max(n_bad);
        if n_failed >= patience.attempts {
            let given_up = format!("{}: given up after {n_failed} attempts", place());
            return Err(error.context(given_up));
        }
        let pause = asked.unwrap_or(patience.pause(n_failed)).min(ASKED_PAUSE_MAX);
        let seconds = pause.as_secs_f64();
        (told.again)(format!("{}: {error:#}; once more in {seconds:.1} s", place()));
        tokio::time::sleep(pause).await;
    }
    bail!("{}: given up after {ATTEMPTS_MAX} attempts", place())
}

/// Errors with what another attempt cannot mend.
async fn attempt(
    client: &Client,
    url: &Url,
    part: &Path,
    patience: &Patience,
    told: &Told<'_>,
) -> Result<Came> {
    let tag = tag_of(part);
    let there = if tag.is_some() { size(part) } else { 0 };
    let mut request = client.get(url.clone());
    if let (Some(tag), true) = (tag, there > 0) {
        request = request.header(RANGE, format!("bytes={there}-")).header(IF_RANGE, tag);
    }
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) if error.is_redirect() || error.is_builder() => return Err(without_url(error)),
        Err(error) => return Ok(less(without_url(error))),
    };
    let headers = response.headers();
    let range = headers.get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    let (first, all) = range.map_or((None, None), content_range);
    let (from, total) = match response.status() {
        StatusCode::OK => (0, length(headers)),
        StatusCode::PARTIAL_CONTENT if first == Some(there) => {
            (there, all.or(length(headers).map(|length| there + length)))
        }
        StatusCode::RANGE_NOT_SATISFIABLE if all == Some(there) => return Ok(Came::Whole),
        StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
            discard(part)?;
            return Ok(less(anyhow!("it does not go on where it was")));
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => return Ok(Came::Nothing),
        status => {
            let error = anyhow!("it answers {status}");
            let is_passing = status.is_server_error()
                || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status);
            return match is_passing {
                true => Ok(Came::Less(error, asked_pause(headers))),
                false => Err(error),
            };
        }
    };
    if total.is_some_and(|total| total > FILE_BYTES_MAX) {
        return Err(too_large());
    }
    receive(response, part, (from, total), patience, told).await
}

fn too_large() -> anyhow::Error {
    anyhow!("more than {FILE_BYTES_MAX} bytes are no such file")
}

/// Writes what comes behind the first `from` bytes of `part`.
async fn receive(
    mut response: Response,
    part: &Path,
    (from, total): (u64, Option<u64>),
    patience: &Patience,
    told: &Told<'_>,
) -> Result<Came> {
    let place = || format!("cannot write {}", part.display());
    let mut file = tokio::fs::OpenOptions::new();
    let file = match from {
        0 => {
            // not beside bytes of another version
            remove(&tag_path(part))?;
            file.write(true).create(true).truncate(true)
        }
        _ => file.append(true),
    };
    let mut file = file.open(part).await.with_context(place)?;
    if from == 0 {
        keep_tag(part, response.headers())?;
    }
    let mut there = from;
    let mut lately = (Instant::now(), there);
    let why = loop {
        let chunk = match response.chunk().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => break None,
            Err(error) => break Some(without_url(error)),
        };
        there += chunk.len() as u64;
        if there > FILE_BYTES_MAX {
            discard(part)?;
            return Err(too_large());
        }
        file.write_all(&chunk).await.with_context(place)?;
        (told.bytes)(there, total);
        if lately.0.elapsed() > patience.silence {
            if there < lately.1 + PROGRESS_BYTES {
                break Some(anyhow!("it comes too slowly"));
            }
            lately = (Instant::now(), there);
        }
    };
    // what was written last is reported as failed by this, not by the write
    file.flush().await.with_context(place)?;
    if why.is_none() && total.is_none_or(|total| there == total) {
        return Ok(Came::Whole);
    }
    let of = total.map_or_else(String::new, |total| format!(" of {total}"));
    let cut = format!("the line was cut after {there}{of} bytes");
    Ok(less(match why {
        Some(why) => why.context(cut),
        None => anyhow!(cut),
    }))
}

/// What went wrong, without the address, which is said already.
fn without_url(error: reqwest::Error) -> anyhow::Error {
    anyhow::Error::new(error.without_url())
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The first byte of a part and the bytes of the whole, by `bytes 100-199/200`, `bytes */200` or
/// `bytes 100-199/*`.
fn content_range(text: &str) -> (Option<u64>, Option<u64>) {
    let Some((part, whole)) = text.strip_prefix("bytes ").and_then(|text| text.split_once('/'))
    else {
        return (None, None);
    };
    let first = part.split_once('-').and_then(|(first, _)| first.trim().parse().ok());
    (first, whole.trim().parse().ok())
}

/// In seconds only: a date depends on two clocks.
fn asked_pause(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// Where the version of the file is kept that a part is of.
fn tag_path(part: &Path) -> std::path::PathBuf {
    part.with_added_extension("tag")
}

fn tag_of(part: &Path) -> Option<String> {
    let tag = std::fs::read_to_string(tag_path(part)).ok();
    // a machine that went down may have left anything there
    tag.filter(|tag| !tag.is_empty() && HeaderValue::from_str(tag).is_ok())
}

/// Keeps what tells versions of the file apart, if the server says it: a strong tag or a date.
fn keep_tag(part: &Path, headers: &HeaderMap) -> Result<()> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let tag = text(ETAG).filter(|tag| !tag.starts_with("W/")).or(text(LAST_MODIFIED));
    let Some(tag) = tag.filter(|tag| tag.len() <= TAG_BYTES_MAX) else { return Ok(()) };
    let path = tag_path(part);
    std::fs::write(&path, tag).with_context(|| format!("cannot write {}", path.display()))
}

/// Removes a part and what is known of it.
pub(crate) fn discard(part: &Path) -> Result<()> {
    remove(&tag_path(part))?;
    remove(part)
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn size(part: &Path) -> u64 {
    std::fs::metadata(part).map_or(0, |metadata| metadata.len())
}
