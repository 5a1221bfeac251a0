//! Batch prediction: all flights of the data root ([`score`]), and the requests that were stored
//! for the nightly batch ([`tasks`]).

pub mod score;
pub mod tasks;
