//! What SQL can call, and how functions travel to other processes with what they carry ([`wire`]).

pub mod classes;
mod contributions;
pub mod distinct_counts;
pub mod fingerprint;
pub mod indices;
pub mod load;
pub mod model;
pub mod wire;
