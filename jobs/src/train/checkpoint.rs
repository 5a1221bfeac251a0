//! How far a training run is, written down after every pass over the rows, so that another process
//! goes on where the last one died and makes the same bytes.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use udf::model::artefact::FeatureSpec;
use udf::model::drift::Group;
use udf::train::split::Growth;

use crate::lake::Lake;
use crate::sql;
use crate::train::options::TrainOptions;

/// Largest checkpoint that is read, in bytes: as large as a model may be.
const CHECKPOINT_BYTES_MAX: usize = udf::model::artefact::MODEL_BYTES_MAX;

/// A run between two passes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// SHA-256 of the SQL that the run began with.
    sql_sha256: String,
    /// Which files of flights it began with; see [`Lake::fingerprint`].
    flights: String,
    /// Positions of the features.
    features: BTreeSet<usize>,
    /// Rows that are trained on.
    pub n_training: u64,
    /// How values become codes.
    pub specs: Vec<FeatureSpec>,
    /// In which groups they lie, for each feature.
    pub groups: Vec<Vec<Group>>,
    /// Whether the codes are whole under `training/<run>/codes/`.
    pub codes_are_written: bool,
    /// The forest so far.
    pub growth: Growth,
}

/// Where a run keeps its codes.
pub fn codes_of(run: &str) -> String {
    format!("training/{run}/codes/")
}

fn path_of(run: &str) -> String {
    format!("training/{run}/checkpoint.json")
}

impl Checkpoint {
    /// Where a run begins: with roots.
    pub fn begin(
        options: &TrainOptions,
        flights: String,
        n_training: u64,
        specs: Vec<FeatureSpec>,
        groups: Vec<Vec<Group>>,
    ) -> Self {
        let codes: Vec<_> = specs.iter().map(|spec| &spec.codes).collect();
        Self {
            sql_sha256: sql::training_sha256(),
            flights,
            features: options.features.clone(),
            n_training,
            growth: Growth::new(options.params.get(), &codes),
            codes_are_written: false,
            specs,
            groups,
        }
    }

    /// What `run` wrote last; `None` when it has not begun.
    ///
    /// Fails when going on would mix two trainings: other options, SQL or flights.
    pub async fn load(
        lake: &Lake,
        run: &str,
        options: &TrainOptions,
        flights: &str,
    ) -> Result<Option<Self>> {
        let path = path_of(run);
        let Some(bytes) = lake.get(&path, CHECKPOINT_BYTES_MAX).await? else { return Ok(None) };
        let read: Self = serde_json::from_slice(&bytes).with_context(|| lake.url(&path))?;
        let same_options =
            read.features == options.features && read.growth.params() == options.params.get();
        for (is_same, what) in [
            (same_options, "its options are others"),
            (read.sql_sha256 == sql::training_sha256(), "the SQL has changed since it began"),
            (read.flights == flights, "the flights have changed since it began"),
        ] {
            ensure!(is_same, "{run} cannot be resumed: {what}; start it again");
        }
        Ok(Some(read))
    }

    /// Writes it down.
    pub async fn save(&self, lake: &Lake, run: &str) -> Result<()> {
        lake.put(&path_of(run), serde_json::to_vec(self)?).await
    }
}
