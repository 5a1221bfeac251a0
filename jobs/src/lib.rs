//! The jobs: async functions of a session context.
//!
//! What a job does never knows where it runs: the context is given, in process or a cluster's. A
//! folder is a stage, in the order of the data: [`ingest`] → [`train`] → [`predict`], or
//! [`stream`]; [`publish`] makes what pages show. Stages share the ground floor ([`lake`], where
//! data at rest lives, [`sql`], the steps, [`write`](mod@write), [`history`], [`progress`]) and
//! [`models`], and do not know each other; only `predict` uses what `train` and `stream` make of
//! rows.

pub mod gc;
pub mod history;
pub mod ingest;
pub mod lake;
pub mod models;
pub mod predict;
pub mod progress;
pub mod publish;
pub mod sql;
pub mod stream;
pub mod train;
pub mod write;

const _: () = assert!(udf::N_CLASSES == events::N_CLASSES, "one list of classes");
