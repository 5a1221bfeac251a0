//! How far a training run is, written down between passes over the rows, so that another process
//! goes on near where the last one died and makes the same bytes.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use udf::model::artefact::{Days, FeatureSpec};
use udf::model::drift::Bucket;
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
    /// Rows that are trained on.
    pub n_training: u64,
    /// The days that they are of.
    pub days: Days,
    /// What all rows were, see [`Model::data`](udf::model::artefact::Model::data).
    pub data: String,
    /// How values become indices.
    pub specs: Vec<FeatureSpec>,
    /// The buckets of each feature, to notice drift.
    pub buckets: Vec<Vec<Bucket>>,
    /// Whether the indices are whole under `training/<run>/indices/`.
    pub indices_are_written: bool,
    /// The forest so far.
    pub growth: Growth,
}

/// What `sql/41_values.sql` says of the rows.
pub struct Counted {
    /// Rows that are trained on.
    pub n_training: u64,
    /// The days that they are of.
    pub days: Days,
    /// What all rows were.
    pub data: String,
    /// How values become indices.
    pub specs: Vec<FeatureSpec>,
    /// The buckets of each feature.
    pub buckets: Vec<Vec<Bucket>>,
}

/// Where a run keeps its indices.
pub fn indices_path(run: &str) -> String {
    format!("training/{run}/indices/")
}

fn path_of(run: &str) -> String {
    format!("training/{run}/checkpoint.json")
}

impl Checkpoint {
    /// Where a run begins: with roots.
    pub fn begin(options: &TrainOptions, flights: String, counted: Counted) -> Self {
        let Counted { n_training, days, data, specs, buckets } = counted;
        let encodings: Vec<_> = specs.iter().map(|spec| &spec.encoding).collect();
        let growth = Growth::new(options.params.get(), &encodings);
        Self {
            sql_sha256: sql::training_sha256(),
            flights,
            n_training,
            days,
            data,
            growth,
            indices_are_written: false,
            specs,
            buckets,
        }
    }

    /// Whether trees draw whole days.
    pub fn draws_days(&self) -> bool {
        self.growth.params().draws_days(self.days.n)
    }

    /// What `run` wrote last; `None` when it has not begun. `used` are the features it would use.
    ///
    /// Fails when going on would mix two trainings: other options, SQL or flights.
    pub async fn load(
        lake: &Lake,
        run: &str,
        options: &TrainOptions,
        used: &[String],
        flights: &str,
    ) -> Result<Option<Self>> {
        let path = path_of(run);
        let Some(bytes) = lake.get(&path, CHECKPOINT_BYTES_MAX).await? else { return Ok(None) };
        let read: Self = serde_json::from_slice(&bytes).with_context(|| {
            let url = lake.url(&path);
            format!("{run} cannot be resumed: {url}: damaged or of another version; start it again")
        })?;
        let same_options = read.specs.iter().map(|spec| &spec.name).eq(used)
            && read.growth.params() == options.params.get();
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
        let bytes = serde_json::to_vec(self)?;
        let (n_mib, max) = (bytes.len() >> 20, CHECKPOINT_BYTES_MAX >> 20);
        ensure!(
            n_mib < max,
            "the forest has {n_mib} MiB already, more than {max}: grow fewer trees, or flatter"
        );
        lake.put(&path_of(run), bytes).await
    }
}
