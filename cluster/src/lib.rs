//! Where the jobs run: the session they run in and the programs that start them. No business
//! logic: what is done is in `jobs` and `sql`.

pub mod batch;
pub mod cli;
pub mod codec;
pub mod config;
pub mod demo;
pub mod dlq;
pub mod driver;
pub mod enrich;
pub mod executor;
pub mod joins;
pub mod local_cluster;
pub mod models;
pub mod offsets;
pub mod progress;
pub mod remote;
pub mod retention;
pub mod run;
pub mod scheduler;
pub mod servers;
pub mod session;
pub mod settings;
pub mod shell;
pub mod streaming;
pub mod tls;
