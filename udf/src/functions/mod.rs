//! What SQL can call, and how functions travel to other processes with what they carry ([`wire`]).

pub mod contributions;
pub mod distinct_counts;
pub mod flight_id;
pub mod predict;
pub mod wire;
