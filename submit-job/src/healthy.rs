//! `submit-job healthy`: whether a program says that it is well, for containers, in which there is
//! nothing else to ask it.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use reqwest::redirect::Policy;
use reqwest::{Client, Url};

/// Bytes of a reason that are shown.
const REASON_BYTES_MAX: usize = 1_024;

/// Arguments of `healthy`.
#[derive(Debug, Args)]
pub struct Healthy {
    /// Where it is said, such as http://127.0.0.1:5000/readyz
    pub url: Url,
    /// Seconds that the program may take to say so
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=300))]
    pub seconds: u64,
}

/// Errors with the reason when the program is not well, or does not answer.
pub async fn run_healthy(args: &Healthy) -> Result<()> {
    let Healthy { url, seconds } = args;
    ensure!(url.scheme() == "http", "{url} is no address as http://127.0.0.1:5000/readyz");
    // it is asked itself, whatever proxies there are
    let client = Client::builder().no_proxy().redirect(Policy::none());
    let client = client.timeout(Duration::from_secs(*seconds)).build().context("no HTTP client")?;
    let answered = client.get(url.clone()).send().await;
    let mut answered = answered.map_err(reqwest::Error::without_url).context(url.to_string())?;
    let status = answered.status();
    if status.is_success() {
        return Ok(());
    }
    let reason = answered.chunk().await.ok().flatten().unwrap_or_default();
    let reason = String::from_utf8_lossy(&reason[..reason.len().min(REASON_BYTES_MAX)]);
    bail!("{url}: {status}: {}", reason.trim())
}
