//! Batch prediction: all flights of the data root ([`score`]), and requests in files or left on the
//! pages ([`batch`]).

pub mod batch;
pub mod score;
