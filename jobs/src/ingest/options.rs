//! How to ingest, and what a run of it works with.

use datafusion::prelude::SessionContext;

use crate::ingest::columns::Names;
use crate::lake::Lake;
use crate::progress::OnProgress;

/// What becomes of the months that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Months {
    /// What arrives takes their place.
    Replace {
        /// Even where it is much less.
        shrinking: bool,
    },
    /// What arrives is added.
    Append,
}

/// How to ingest.
#[derive(Debug, Clone)]
pub struct IngestOptions {
    /// Share of bad rows above which nothing is replaced and the job fails.
    pub rejects_max: f64,
    /// Share of flights that are there more than once above which nothing is replaced.
    pub repeats_max: f64,
    /// Whether of flights that are there more than once one is kept.
    pub distinct: bool,
    /// What becomes of the months that are there.
    pub months: Months,
    /// What the files call their columns.
    pub names: Names,
    /// Bytes of a table that a core types at a time; with 0 all rows are left to SQL.
    pub block_bytes: usize,
    /// Options of object stores that files are read from.
    pub store_options: Vec<(String, String)>,
}

/// Bytes of a table that a core types at a time.
const BLOCK_BYTES: usize = 4 * 1024 * 1024;

impl Default for IngestOptions {
    fn default() -> Self {
        Self {
            rejects_max: 0.01,
            repeats_max: 0.01,
            distinct: false,
            months: Months::Replace { shrinking: false },
            names: Names::default(),
            block_bytes: BLOCK_BYTES,
            store_options: Vec::new(),
        }
    }
}

/// What becomes of rows of tables that are clean beyond doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// They are left to SQL like all others.
    Sql,
    /// They become flights.
    Flights,
    /// Those of this flight are left to SQL; nothing becomes of the others.
    Of(i64),
}

/// One run.
pub(crate) struct Job<'a> {
    pub(crate) ctx: &'a SessionContext,
    pub(crate) lake: &'a Lake,
    pub(crate) run: &'a str,
    /// Of the lease.
    pub(crate) epoch: u64,
    pub(crate) options: &'a IngestOptions,
    pub(crate) on_progress: OnProgress<'a>,
}

impl Job<'_> {
    /// A directory of its own, also where another process runs under the same name.
    pub(crate) fn staging(&self, what: &str) -> String {
        format!("staging/{}/{}/{what}", self.run, self.epoch)
    }
}
