//! The durable history of jobs: `jobs/<id>.json` under the data root says what ran, for whom, when,
//! and what came of it, whatever scheduler or client is gone.

use std::fmt;

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::lake::Lake;

/// Largest record that is read, in bytes.
const RECORD_BYTES_MAX: usize = 1024 * 1024;
/// Jobs that are listed at most, the latest ones.
const LISTED_MAX: usize = 1000;
/// Time without a heartbeat after which a job's driver counts as gone: several are missing.
const LOST_AFTER: TimeDelta = TimeDelta::seconds(30);

/// One run of one job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Unique under the data root; sorts by time.
    pub id: String,
    /// What a person called it.
    pub name: String,
    /// `train`, `ingest`, …
    pub command: String,
    /// The command line, with secrets struck out.
    pub arguments: Vec<String>,
    /// Where it runs: `local[2]` or `df://host:port`.
    pub master: String,
    /// Who started it.
    pub user: String,
    /// When it was started, or resumed last.
    pub started: DateTime<Utc>,
    /// The driver's last heartbeat.
    pub alive: DateTime<Utc>,
    /// When it ended.
    pub ended: Option<DateTime<Utc>>,
    /// How far it is.
    pub state: State,
    /// What went wrong, when it failed.
    pub error: Option<String>,
    /// What came of it: counts, metrics, a model's version.
    pub result: serde_json::Value,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// At work.
    Running,
    /// At its end, with a result.
    Succeeded,
    /// At its end, with an error.
    Failed,
    /// Ended by a person.
    Cancelled,
    /// Its driver sends no heartbeat; it can be resumed. Never written, only shown.
    Lost,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
        })
    }
}

impl Record {
    /// Its state for somebody who looks at it at `now`.
    pub fn state_at(&self, now: DateTime<Utc>) -> State {
        match self.state {
            State::Running if now - self.alive > LOST_AFTER => State::Lost,
            state => state,
        }
    }

    /// Writes it.
    pub async fn put(&self, lake: &Lake) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        lake.put(&path(&self.id, "json")?, text.into_bytes()).await
    }
}

/// Reads a record; `None` when there is no such job.
pub async fn get(lake: &Lake, id: &str) -> Result<Option<Record>> {
    let path = path(id, "json")?;
    let Some(bytes) = bytes(lake, id).await? else { return Ok(None) };
    Ok(Some(serde_json::from_slice(&bytes).with_context(|| lake.url(&path))?))
}

/// The bytes of a record, which may not be one.
pub(crate) async fn bytes(lake: &Lake, id: &str) -> Result<Option<Vec<u8>>> {
    lake.get(&path(id, "json")?, RECORD_BYTES_MAX).await
}

/// The latest records, the last one first. A record that cannot be read is left out with a warning.
pub async fn list(lake: &Lake) -> Result<Vec<Record>> {
    let names = lake.list("jobs/").await?;
    let ids = names.iter().filter_map(|name| name.strip_prefix("jobs/")?.strip_suffix(".json"));
    let mut records = Vec::new();
    for id in ids.rev().take(LISTED_MAX) {
        match get(lake, id).await {
            Ok(record) => records.extend(record),
            Err(error) => tracing::warn!(id, error = format!("{error:#}"), "record is left out"),
        }
    }
    Ok(records)
}

/// Asks the driver of a job to end it.
pub async fn ask_to_end(lake: &Lake, id: &str) -> Result<()> {
    lake.put(&path(id, "kill")?, b"\n".to_vec()).await
}

/// Whether the driver of a job was asked to end it; forgets that it was.
pub async fn take_request_to_end(lake: &Lake, id: &str) -> Result<bool> {
    let path = path(id, "kill")?;
    let asked = lake.get(&path, RECORD_BYTES_MAX).await?.is_some();
    if asked {
        lake.delete(&path).await?;
    }
    Ok(asked)
}

/// The path of something of a job. An id is part of a path, so it is checked.
pub fn path(id: &str, ending: &str) -> Result<String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    ensure!(
        !id.is_empty() && id.len() <= 100 && id.bytes().all(is_plain),
        "{id:?} is not the id of a job"
    );
    Ok(format!("jobs/{id}.{ending}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_never_leaves_the_directory() {
        assert_eq!(
            path("20260102T030405006Z-7", "json").unwrap(),
            "jobs/20260102T030405006Z-7.json"
        );
        for id in ["", "../models/champion", "a/b", "a.b", &"a".repeat(101)] {
            assert!(path(id, "json").is_err(), "{id}");
        }
    }
}
