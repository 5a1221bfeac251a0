//! `submit-job enrich`: what Wikipedia says of the airlines in the store, for their pages.
//!
//! A page without it is complete, so a failure is counted and reported, and never more. What was
//! fetched is kept for a while: a run that was broken off goes on where it was.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;
use events::{AIRLINE_PROFILES, AIRLINES, AirlineProfile, PredictionRequest};
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use store::{Query, Store};

use crate::progress::say;
use crate::servers::StoreArgs;

/// Titles of the airlines' articles; an airline that is not among them has none fetched.
const TITLES: &str = include_str!("../../data/wikipedia/airlines.csv");
/// Pause between two requests: Wikipedia asks for no more than a few a second.
const PAUSE: Duration = Duration::from_millis(250);
/// How long an answer may take.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Largest answer that is read, in bytes; a summary has some kilobytes.
const ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Longest text that is kept, in characters.
const SUMMARY_MAX: usize = 2_000;
/// How long a profile is kept before it is fetched again, in days.
const KEPT_DAYS: i64 = 30;
/// Airlines that are asked about.
const AIRLINES_MAX: u32 = 1_000;
/// The licence of Wikipedia's texts.
const LICENSE: &str = "CC BY-SA 4.0";

/// Arguments of `enrich`.
#[derive(Debug, Args)]
pub struct Enrich {
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Root of Wikipedia's REST interface
    #[arg(long, default_value = "https://en.wikipedia.org/api/rest_v1")]
    pub wikipedia: String,
    /// Fetch also what is there and fresh
    #[arg(long)]
    pub again: bool,
}

/// What of a summary is read.
#[derive(Deserialize)]
struct Summary {
    title: String,
    extract: String,
    content_urls: ContentUrls,
    thumbnail: Option<Thumbnail>,
}

#[derive(Deserialize)]
struct ContentUrls {
    desktop: Desktop,
}

#[derive(Deserialize)]
struct Desktop {
    page: String,
}

#[derive(Deserialize)]
struct Thumbnail {
    source: String,
}

/// Fetches what is missing or old. Errors when the store fails, or Wikipedia asks to be left alone.
pub async fn run_enrich(store: &Store, args: &Enrich, now: DateTime<Utc>) -> Result<Value> {
    let client = Client::builder()
        .user_agent(concat!("tarmac/", env!("CARGO_PKG_VERSION"), " (flight pages)"))
        .timeout(ANSWER_WAIT)
        .redirect(Policy::limited(3))
        .build()?;
    let titles = titles();
    let all = Query { limit: AIRLINES_MAX, ..Query::default() };
    let (mut n_fetched, mut n_fresh, mut n_failed) = (0, 0, 0);
    for airline in store.find(AIRLINES, &all).await? {
        let carrier = airline["_id"].as_str().unwrap_or_default().to_owned();
        let Some(title) = titles.get(&*carrier) else { continue };
        if !args.again && is_fresh(store, &carrier, now).await? {
            n_fresh += 1;
            continue;
        }
        match fetch(&client, &args.wikipedia, &carrier, title, now).await {
            Ok(Some(profile)) => {
                store.upsert(AIRLINE_PROFILES, &[serde_json::to_value(profile)?]).await?;
                n_fetched += 1;
            }
            Ok(None) => {
                bail!("Wikipedia asks for a pause; {n_fetched} are fetched, run it again later")
            }
            Err(error) => {
                say(&format!("  {carrier}: {error:#}"));
                n_failed += 1;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    say(&format!("{n_fetched} airlines fetched, {n_fresh} still fresh, {n_failed} failed"));
    Ok(json!({ "fetched": n_fetched, "fresh": n_fresh, "failed": n_failed }))
}

/// Titles by carrier.
fn titles() -> BTreeMap<&'static str, &'static str> {
    TITLES.lines().skip(1).filter_map(|line| line.split_once(',')).collect()
}

async fn is_fresh(store: &Store, carrier: &str, now: DateTime<Utc>) -> Result<bool> {
    let Some(document) = store.get(AIRLINE_PROFILES, carrier).await? else { return Ok(false) };
    // one that cannot be read is fetched again
    let Ok(profile) = serde_json::from_value::<AirlineProfile>(document) else { return Ok(false) };
    let fetched = DateTime::parse_from_rfc3339(&profile.fetched_at);
    Ok(fetched.is_ok_and(|at| now.signed_duration_since(at) < TimeDelta::days(KEPT_DAYS)))
}

/// The profile of an airline; none when Wikipedia asks to be left alone for a while.
async fn fetch(
    client: &Client,
    root: &str,
    carrier: &str,
    title: &str,
    now: DateTime<Utc>,
) -> Result<Option<AirlineProfile>> {
    let url = format!("{}/page/summary/{title}", root.trim_end_matches('/'));
    let mut response = client.get(&url).send().await?;
    let status = response.status();
    if [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&status) {
        return Ok(None);
    }
    ensure!(status.is_success(), "{url} answers {status}");
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        bytes.extend_from_slice(&chunk);
        ensure!(
            bytes.len() <= ANSWER_BYTES_MAX,
            "{url} answers more than {ANSWER_BYTES_MAX} bytes"
        );
    }
    let summary: Summary = serde_json::from_slice(&bytes).with_context(|| url.clone())?;
    let page = summary.content_urls.desktop.page;
    ensure!(page.starts_with("https://"), "{url} names no page that can be shown: {page}");
    let logo = summary.thumbnail.map(|thumbnail| thumbnail.source);
    Ok(Some(AirlineProfile {
        carrier: carrier.to_owned(),
        title: summary.title,
        summary: summary.extract.chars().take(SUMMARY_MAX).collect(),
        page,
        // pictures of no other place are shown
        logo: logo.filter(|logo| logo.starts_with(events::LOGOS)),
        license: LICENSE.to_owned(),
        source: url,
        fetched_at: PredictionRequest::timestamp(now),
    }))
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_title_can_stand_in_an_address() {
        let titles = super::titles();
        assert!(titles.len() >= 16);
        for (carrier, title) in titles {
            let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
            assert!(carrier.len() == 2 && title.bytes().all(fits), "{carrier}: {title}");
        }
    }
}
