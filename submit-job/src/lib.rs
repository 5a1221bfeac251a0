//! What people type: the commands of the one program, their arguments, and the driver of batch
//! jobs, which starts them, shows how far they are, and keeps their records.
//!
//! ```
//! use clap::Parser;
//! use submit_job::cli::{Batch, Cli, Command};
//!
//! let typed = ["submit-job", "--data", "s3://flights/root", "train", "--trees", "50"];
//! match Cli::try_parse_from(typed)?.command {
//!     Some(Command::Batch(Batch::Train(train))) => assert_eq!(train.trees, Some(50)),
//!     other => panic!("{other:?}"),
//! }
//! # Ok::<_, clap::Error>(())
//! ```

pub mod archive;
pub mod batch;
pub mod cli;
pub mod config;
pub mod config_file;
pub mod config_show;
pub mod context;
pub mod demo;
pub mod distances;
pub mod dlq;
pub mod doctor;
pub mod download;
pub mod driver;
pub mod enrich;
pub mod generate;
pub mod healthy;
pub mod ingest;
pub mod live;
pub mod log;
pub mod models;
pub mod offsets;
pub mod predict;
pub mod progress;
pub mod publish;
pub mod replay;
pub mod retention;
pub mod score;
pub mod servers;
pub mod sql;
pub mod stream;
pub mod table;
pub mod train;
pub mod web;
