//! The forest: how it is grown, kept and asked, and every function that SQL can call.
//!
//! Pure: no I/O, clock, environment or async. In reading order: [`features`] says what a model may
//! look at, [`codes`] turns values into small integers, [`distinct_counts`] finds the values there
//! are, [`histogram`] counts classes per node and code, [`grow`] turns counts into splits,
//! [`forest`] is the model, [`scorer`] and [`predict`] ask it, [`contributions`] says why
//! it answers so, [`fit`] does all of it over a
//! `linfa` dataset, [`wire`] takes functions with what they carry to other processes.
//!
//! Everything counted is an integer and every random choice is a hash ([`chance`]) of the seed and
//! of what is chosen for, so a forest is the same bytes for any order and partitioning of its rows.

pub mod chance;
pub mod codes;
pub mod contributions;
pub mod distinct_counts;
pub mod drift;
pub mod features;
pub mod fit;
pub mod flight_id;
pub mod forest;
pub mod grow;
pub mod histogram;
pub mod predict;
pub mod scorer;
mod walk;
pub mod wire;

use datafusion::logical_expr::{AggregateUDF, ScalarUDF};

/// Number of classes of arrival delay.
pub const N_CLASSES: usize = 4;

/// The scalar functions that need no model, for registration in a session.
pub fn scalar_functions() -> Vec<ScalarUDF> {
    vec![flight_id::FlightId::default().into()]
}

/// The aggregate functions that need no forest, for registration in a session.
pub fn aggregate_functions() -> Vec<AggregateUDF> {
    vec![distinct_counts::DistinctCounts::default().into()]
}
