//! The jobs: async functions of a session context.
//!
//! What a job does never knows where it runs: the context is given, in process or a cluster's. A
//! folder is a stage, in the order of the data: [`ingest`] → [`train`] → [`predict`], or
//! [`stream`]; [`live`] looks how answers turned out, [`publish`] makes what pages show. Stages
//! share the ground floor ([`lake`], where data at rest lives, [`sql`], the steps, [`functions`],
//! [`clock`] and [`features`], [`write`](mod@write), [`history`], [`progress`]) and [`models`], and
//! do not know each other; only `predict` uses what `train` and `stream` make of rows, and `live`
//! what `stream` knows of topics.
//!
//! ```
//! use datafusion::prelude::SessionContext;
//! use jobs::lake::Lake;
//! use jobs::train::{options::TrainOptions, train};
//!
//! # let directory = tempfile::tempdir()?;
//! # let root = directory.path().display().to_string();
//! # let runtime = tokio::runtime::Runtime::new()?;
//! # runtime.block_on(async {
//! // programs take one from `cluster::session`, which knows the functions of the steps
//! let ctx = SessionContext::new();
//! let lake = Lake::open(&root, &[])?;
//! let trained = train(&ctx, &lake, "first", &TrainOptions::default(), &|_| ()).await;
//! let error = trained.unwrap_err().to_string();
//! assert!(error.starts_with("there are no flights under file://"), "{error}");
//! # anyhow::Ok(())
//! # })?;
//! # anyhow::Ok(())
//! ```

pub mod clock;
mod deal;
pub mod distances;
pub mod download;
pub mod features;
pub mod functions;
pub mod gc;
pub mod history;
pub mod ingest;
pub mod lake;
pub mod lease;
pub mod live;
pub mod models;
pub mod predict;
pub mod progress;
pub mod publish;
pub mod references;
pub mod sql;
pub mod stream;
pub mod train;
pub mod visible;
pub mod write;
pub mod zones;

const _: () = assert!(udf::N_CLASSES == events::N_CLASSES, "one list of classes");
