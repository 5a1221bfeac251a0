//! The progress that a job reports. Jobs print nothing; the caller shows this.

use anyhow::Result;
use telemetry::traces;
use tracing::{Instrument, info_span};

/// A step forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Something that a person must know.
    Notice(String),
    /// A stage began.
    Stage(&'static str),
    /// Bytes of the input that were read.
    Bytes {
        /// So far.
        done: u64,
        /// In all.
        total: u64,
    },
    /// A level of the forest is being grown.
    Level {
        /// Trees that grow.
        n_trees: usize,
        /// Levels that are grown.
        done: u32,
        /// In all.
        total: u32,
    },
    /// A collection was published.
    Published {
        /// Its name.
        collection: &'static str,
        /// Documents in it.
        n_documents: u64,
    },
}

/// Takes [`Progress`].
pub type OnProgress<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// Reports that a stage begins, and does its work, as a span of a trace.
pub(crate) async fn stage<T>(
    on_progress: OnProgress<'_>,
    name: &'static str,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    on_progress(Progress::Stage(name));
    let span = info_span!(target: telemetry::SPAN, "stage", otel.name = name);
    work.instrument(span.clone()).await.inspect_err(|_| traces::fail(&span, "failed"))
}
