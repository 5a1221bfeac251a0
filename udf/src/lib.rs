//! The forest: how it is trained, kept and scored, and every function that SQL can call.
//!
//! Pure: no I/O, clock, environment or async. In reading order: [`encode`] turns the values of
//! features into small integers, [`train`] grows a forest from counts of them, [`model`] is the
//! artefact, with what scores it and explains its scores, [`functions`] is what SQL calls.
//!
//! Everything counted is an integer and every random choice is a hash ([`train::sampling`]) of the
//! seed and of what is chosen for, so a forest is the same bytes for any order and partitioning of
//! its rows.
//!
//! ```
//! use linfa::Dataset;
//! use linfa::traits::{Fit, Predict};
//! use ndarray::{Array1, Array2};
//! use udf::model::artefact::ForestParams;
//! use udf::train::fit::{FitError, ForestFit};
//!
//! // a class for each quarter of the only column
//! let records = Array2::from_shape_fn((400, 1), |(row, _)| row as f64);
//! let classes = Array1::from_shape_fn(400, |row| row / 100);
//! let params = ForestParams { features_per_node: 1, ..ForestParams::default() };
//! let forest = ForestFit::new(params).fit(&Dataset::new(records.clone(), classes))?;
//! assert_eq!(forest.predict(&records)[250], 2);
//! # Ok::<(), FitError>(())
//! ```

pub mod encode;
pub mod functions;
pub mod model;
pub mod train;

use datafusion::logical_expr::AggregateUDF;

/// Number of classes of arrival delay.
pub const N_CLASSES: usize = 4;

/// The aggregate functions that need no forest, for registration in a session.
pub fn aggregate_functions() -> Vec<AggregateUDF> {
    vec![
        functions::distinct_counts::DistinctCounts::default().into(),
        functions::fingerprint::Fingerprint::default().into(),
    ]
}
