//! Drives one job: writes its record and heartbeats, shows how far it is, and ends it when
//! somebody asks.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use chrono::{DateTime, Utc};
use cluster::remote::Remote;
use cluster::settings::is_secret;
use jobs::history::{self, Record, State};
use jobs::lake::Lake;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::progress::{Shown, say};

/// How often the progress of tasks is asked for.
const TICK: Duration = Duration::from_millis(500);
/// Time between two heartbeats, and looks for a request to end.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// How long `--kill` waits for a driver to end its job.
const KILL_PATIENCE: Duration = Duration::from_secs(30);
/// What stands in the place of a secret.
pub const STRUCK_OUT: &str = "***";

/// Where a job runs, and where its progress is shown.
#[derive(Clone)]
pub struct Drive {
    /// The data root, which keeps the record.
    pub lake: Lake,
    /// The scheduler, when it runs on a cluster.
    pub remote: Option<Remote>,
    /// The terminal.
    pub shown: Arc<Shown>,
    /// The clock.
    pub now: fn() -> DateTime<Utc>,
    /// Whether the job leaves a record: one that only reads may run where nothing can be written.
    pub keeps_record: bool,
}

/// How a job ended.
#[derive(Debug)]
pub enum JobOutcome {
    /// With a result.
    Succeeded,
    /// With an error.
    Failed(anyhow::Error),
    /// By a person.
    Cancelled,
}

impl Drive {
    /// Runs `work` as the job of `record` until it ends, `shutdown` is done, or `--kill` asks.
    pub async fn run(
        &self,
        mut record: Record,
        work: impl Future<Output = Result<Value>>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<JobOutcome> {
        if self.keeps_record {
            record.put(&self.lake).await?;
            // it may have been asked to end in an earlier life
            history::take_request_to_end(&self.lake, &record.id).await?;
        }
        // tasks of their own: work that computes for seconds must not silence them
        let mut tasks = JoinSet::new();
        tasks.spawn(self.clone().keep_alive(record.clone()));
        tasks.spawn(self.clone().show_tasks());
        if let Some(remote) = self.remote.clone() {
            tasks.spawn(keep_lease(remote));
        }
        let ended = tokio::select! {
            worked = work => match worked {
                Ok(result) => {
                    record.result = result;
                    JobOutcome::Succeeded
                }
                // a query that --kill cancelled on the cluster fails before the signal is here
                Err(error) => match history::take_request_to_end(&self.lake, &record.id).await {
                    Ok(true) => JobOutcome::Cancelled,
                    _ => JobOutcome::Failed(error),
                },
            },
            () = shutdown => JobOutcome::Cancelled,
            _ = tasks.join_next() => JobOutcome::Cancelled,
        };
        // its last record must not come after ours
        tasks.shutdown().await;
        self.shown.clear();
        if let (Some(remote), false) = (&self.remote, matches!(ended, JobOutcome::Succeeded)) {
            // the work is dropped; what it left on the cluster is not
            if let Err(error) = remote.cancel().await {
                tracing::warn!(error = format!("{error:#}"), "queries may still run");
            }
        }
        record.alive = (self.now)();
        record.ended = Some(record.alive);
        (record.state, record.error) = match &ended {
            JobOutcome::Succeeded => (State::Succeeded, None),
            JobOutcome::Failed(error) => (State::Failed, Some(format!("{error:#}"))),
            JobOutcome::Cancelled => (State::Cancelled, None),
        };
        if self.keeps_record {
            record.put(&self.lake).await?;
        }
        Ok(ended)
    }

    /// Writes heartbeats; done when somebody asks to end it.
    async fn keep_alive(self, mut record: Record) {
        if !self.keeps_record {
            return std::future::pending().await;
        }
        let mut beats = tokio::time::interval(HEARTBEAT);
        loop {
            beats.tick().await;
            // a store that cannot be reached fails the work, with a message, or is back soon
            record.alive = (self.now)();
            let written = record.put(&self.lake).await;
            match written.and(history::take_request_to_end(&self.lake, &record.id).await) {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(error = format!("{error:#}"), "no heartbeat is written");
                }
            }
        }
    }

    /// Shows how far the queries on the cluster are. Never ends.
    async fn show_tasks(self) {
        let mut ticks = tokio::time::interval(TICK);
        // a scheduler that is slow to answer is not asked more often
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Some(remote) = &self.remote
                && let Ok(tasks) = remote.tasks().await
            {
                self.shown.tasks(tasks);
            }
        }
    }
}

/// Sends heartbeats to the scheduler, which cancels the queries of a client that sends none. Never
/// ends.
pub async fn keep_lease(remote: Remote) {
    let mut beats = tokio::time::interval(HEARTBEAT);
    loop {
        beats.tick().await;
        if let Err(error) = remote.lease().await {
            tracing::debug!(error = format!("{error:#}"), "no heartbeat is sent");
        }
    }
}

/// Ends the job of a record: asks its driver, cancels its queries, and when the driver is gone
/// writes down the end itself.
pub async fn kill(
    lake: &Lake,
    mut record: Record,
    remote: Option<&Remote>,
    now: fn() -> DateTime<Utc>,
) -> Result<()> {
    match record.state_at(now()) {
        State::Running => history::ask_to_end(lake, &record.id).await?,
        State::Lost => {}
        ended => bail!("{} has {ended} already", record.id),
    }
    if let Some(remote) = remote {
        remote.cancel().await?;
    }
    let started = tokio::time::Instant::now();
    while record.state_at(now()) == State::Running {
        ensure!(
            started.elapsed() < KILL_PATIENCE,
            "{} was asked to end; its driver has not answered yet",
            record.id
        );
        tokio::time::sleep(TICK).await;
        record = history::get(lake, &record.id).await?.context("its record is gone")?;
    }
    if record.state == State::Running {
        record.state = State::Cancelled;
        record.ended = Some(now());
        record.put(lake).await?;
    }
    say(&format!("{} is ended", record.id));
    Ok(())
}

/// A command line without its secrets: URLs lose their user and password, what is given for
/// `--mongo` and statements that hold a secret are struck out.
pub fn without_secrets(arguments: &[OsString]) -> Vec<String> {
    let mut hides_next = false;
    let strike = |argument: &OsString| {
        let argument = argument.to_string_lossy();
        let hidden = std::mem::replace(&mut hides_next, argument == "--mongo");
        if hidden || argument.starts_with("--mongo=") || is_secret(&argument) {
            return STRUCK_OUT.to_owned();
        }
        match argument.contains("://") {
            true => without_user(&argument),
            false => argument.into_owned(),
        }
    };
    arguments.iter().map(strike).collect()
}

/// An address without its user and password, which may hold anything, also an `@`; a text without
/// either is left as it is.
pub fn without_user(address: &str) -> String {
    let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
    let separator = if scheme.is_empty() { "" } else { "://" };
    match rest.rsplit_once('@') {
        Some((_, rest)) => format!("{scheme}{separator}{STRUCK_OUT}@{rest}"),
        None => address.to_owned(),
    }
}

/// Why a command line of a record cannot be run again.
pub fn what_lacks(arguments: &[String]) -> Option<&'static str> {
    let has = |text: &str| arguments.iter().any(|argument| argument.contains(text));
    if has(STRUCK_OUT) {
        return Some("secrets, which its record does not hold");
    }
    let is_lossy = has(char::REPLACEMENT_CHARACTER.encode_utf8(&mut [0; 4]));
    is_lossy.then_some("a name that is not UTF-8, which its record does not hold")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_holds_no_secret() {
        let line = [
            "--data",
            "s3://key:word@bucket/root",
            "sql",
            "-c",
            "CREATE EXTERNAL TABLE t OPTIONS ('aws.secret_access_key' 'abc')",
            "--mongo",
            "mongodb://u:p@h",
            "--mongo=mongodb://u:p@h",
            "https://u:p@ss@h/x",
            "train",
        ];
        let line = line.map(OsString::from);
        let kept = without_secrets(&line);
        assert_eq!(
            kept,
            [
                "--data",
                "s3://***@bucket/root",
                "sql",
                "-c",
                "***",
                "--mongo",
                "***",
                "***",
                "https://***@h/x",
                "train"
            ]
        );
        assert!(what_lacks(&kept).unwrap().starts_with("secrets"));
    }

    #[test]
    fn a_record_with_a_name_that_is_not_utf_8_is_not_run_again() {
        use std::os::unix::ffi::OsStringExt;
        let line = [OsString::from("ingest"), OsString::from_vec(b"caf\xe9.csv".to_vec())];
        assert!(what_lacks(&without_secrets(&line)).unwrap().contains("UTF-8"));
        assert_eq!(what_lacks(&without_secrets(&line[..1])), None);
    }
}
