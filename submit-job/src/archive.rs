//! `submit-job stream --archive`: when answers are archived.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use jobs::stream::archive::{Archive, Archived};
use jobs::stream::metrics::Metrics;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// How often it is looked whether partitions are ours, while none is.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Archives in a task of its own, as long as it is there: encoding files takes a while, and answers
/// do not wait for it.
pub struct Archiving {
    archive: Arc<Mutex<Archive>>,
    metrics: Arc<Metrics>,
    _task: JoinSet<()>,
}

impl Archiving {
    /// Begins to archive what is answered of the partitions that are ours, again and again.
    pub fn start(archive: Archive, every: Duration, metrics: &Arc<Metrics>) -> Self {
        let archive = Arc::new(Mutex::new(archive));
        let mut task = JoinSet::new();
        task.spawn(keep_archiving(Arc::clone(&archive), every, Arc::clone(metrics)));
        Self { archive, metrics: Arc::clone(metrics), _task: task }
    }

    /// Archives what is left, whoever has the partitions.
    pub async fn finish(&self) -> Result<()> {
        let (archived, done) = self.archive.lock().await.add_all().await;
        tell(archived, &self.metrics);
        done
    }
}

async fn keep_archiving(archive: Arc<Mutex<Archive>>, every: Duration, metrics: Arc<Metrics>) {
    loop {
        let partitions = metrics.health.partitions();
        let (archived, done) = archive.lock().await.add(&partitions).await;
        tell(archived, &metrics);
        if let Err(error) = done {
            metrics.archive_failures_total.inc();
            tracing::warn!("not all is archived: {error:#}; it is tried again");
        }
        tokio::time::sleep(if partitions.is_empty() { LOOK_EVERY } else { every }).await;
    }
}

fn tell(archived: Archived, metrics: &Metrics) {
    let Archived { n_files, n_answers, n_missing } = archived;
    metrics.archived_total.inc_by(n_answers);
    if n_files > 0 {
        tracing::info!(files = n_files, answers = n_answers, "archived");
    }
    if n_missing > 0 {
        tracing::warn!(
            requests = n_missing,
            "some requests are in no file of the archive: the store has no answer to them any more"
        );
    }
}
