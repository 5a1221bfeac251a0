//! What a person can choose of a training run.

use std::collections::BTreeSet;

use udf::train::fit::ValidForestParams;

/// How a model is trained.
#[derive(Debug, Clone)]
pub struct TrainOptions {
    /// How the forest is grown.
    pub params: ValidForestParams,
    /// Positions in [`FEATURES`](udf::encode::features::FEATURES) of what the model may look at.
    pub features: BTreeSet<usize>,
    /// Memory for the counters of one pass, in bytes, over all partitions.
    pub histogram_bytes: usize,
    /// Memory for the coded rows, in bytes; more are written under the data root.
    pub codes_bytes: u64,
}
