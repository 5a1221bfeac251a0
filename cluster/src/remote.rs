//! What a client asks of a scheduler beside its queries: which of them run and how far they are,
//! to cancel them, and to know that the client still lives. By Ballista's REST interface.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ballista_api_types::dto::{JobResponse, QueryStagesResponse, TaskStatus};
use serde::Deserialize;

use crate::tls::Tls;

/// The version of Ballista that clients have, which the scheduler must have too.
pub const VERSION: &str = ballista_core::BALLISTA_VERSION;

/// How long a scheduler may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The scheduler, asked about the queries of one client.
#[derive(Debug, Clone)]
pub struct Remote {
    client: reqwest::Client,
    url: String,
    client_id: String,
}

/// Tasks of the queries that run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tasks {
    /// Done.
    pub done: u64,
    /// In all.
    pub total: u64,
}

/// What a cluster can do at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterSize {
    /// Tasks of all executors.
    pub n_cores: usize,
    /// Tasks of the executor that has the most.
    pub n_slots: usize,
}

#[derive(Deserialize)]
struct Executor {
    specification: Specification,
}

#[derive(Deserialize)]
struct Specification {
    vcores: usize,
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

impl Remote {
    /// The scheduler at `address` (`host:port`), for the queries whose names end with the word
    /// `client_id`.
    pub fn new(address: &str, tls: &Tls, client_id: &str) -> Result<Self> {
        let url = format!("{}://{address}", tls.scheme());
        Ok(Self { client: tls.http_client()?, url, client_id: client_id.to_owned() })
    }

    /// What all executors have.
    pub async fn size(&self) -> Result<ClusterSize> {
        let executors: Vec<Executor> = self.get("/api/executors").await?;
        ensure!(!executors.is_empty(), "scheduler {} has no executors", self.url);
        let cores = || executors.iter().map(|executor| executor.specification.vcores);
        Ok(ClusterSize { n_cores: cores().sum(), n_slots: cores().max().unwrap_or(1) })
    }

    /// The version of its Ballista.
    pub async fn version(&self) -> Result<String> {
        let said: Version = self.get("/api/version").await?;
        Ok(said.version)
    }

    /// Sends a heartbeat.
    pub async fn lease(&self) -> Result<()> {
        let request = self.client.post(format!("{}/api/lease/{}", self.url, self.client_id));
        request.timeout(PATIENCE).send().await?.error_for_status()?;
        Ok(())
    }

    /// How far the running queries are.
    pub async fn tasks(&self) -> Result<Tasks> {
        let mut tasks = Tasks::default();
        for query in self.running().await? {
            let stages: QueryStagesResponse = self.get(&format!("/api/job/{query}/stages")).await?;
            for task in stages.stages.iter().flat_map(|stage| &stage.tasks) {
                let is_done =
                    task.as_ref().is_some_and(|task| matches!(task.status, TaskStatus::Successful));
                tasks.done += u64::from(is_done);
                tasks.total += 1;
            }
        }
        Ok(tasks)
    }

    /// Cancels the running queries; returns their number.
    pub async fn cancel(&self) -> Result<usize> {
        let running = self.running().await?;
        for query in &running {
            let request = self.client.patch(format!("{}/api/job/{query}", self.url));
            // one that has ended meanwhile is a conflict, and no error
            request.timeout(PATIENCE).send().await?;
        }
        Ok(running.len())
    }

    async fn running(&self) -> Result<Vec<String>> {
        let queries: Vec<JobResponse> = self.get("/api/jobs").await?;
        let is_ours = |query: &JobResponse| {
            is_of(&query.job_name, &self.client_id)
                && matches!(query.status.as_str(), "Running" | "Queued")
        };
        Ok(queries.into_iter().filter(is_ours).map(|query| query.job_id).collect())
    }

    async fn get<T: for<'a> Deserialize<'a>>(&self, path: &str) -> Result<T> {
        let url = format!("{}{path}", self.url);
        let answer = async {
            let request = self.client.get(&url).timeout(PATIENCE);
            let text = request.send().await?.error_for_status()?.text().await?;
            Ok::<T, anyhow::Error>(serde_json::from_str(&text)?)
        };
        answer.await.with_context(|| format!("scheduler at {url}"))
    }
}

/// Whether a query of this name is a client's: its id is the last word.
pub fn is_of(query: &str, client_id: &str) -> bool {
    query.rsplit(' ').next() == Some(client_id)
}
