//! The jobs as a whole: rows in, rows, artefacts and answers out, on real flights.

#![expect(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod cases;
mod download;
mod features;
mod gate;
mod gc;
mod ingest;
mod kafka;
mod lease;
mod micro_batch;
mod plans;
mod publish;
mod resume;
mod setup;
mod slt;
mod train;
mod typed;
