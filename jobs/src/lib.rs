//! The jobs: async functions of a session context.
//!
//! What is done never knows where it runs: the context is given, in process or a cluster's. In the
//! data's order: [`ingest`] ([`raw`] files by their [`layout`]) → [`train`] ([`report`]) →
//! [`score`], or [`source`] → [`window`] → [`sink`] by [`stream`]; [`lake`] is where data at rest
//! lives, [`sql`] holds the steps, [`history`] and [`checkpoint`] what is known of a run.

pub mod baseline;
pub mod checkpoint;
pub mod codes;
pub mod dead_letters;
mod documents;
pub mod gc;
mod group;
pub mod health;
pub mod history;
pub mod ingest;
pub mod kafka;
pub mod lake;
pub mod layout;
pub mod meters;
pub mod metrics;
pub mod model_cards;
pub mod models;
mod observe;
pub mod offsets;
mod piece;
pub mod plots;
mod poll;
pub mod progress;
pub mod publish;
pub mod raw;
pub mod report;
pub mod report_html;
pub mod request_log;
pub mod requests;
mod resume;
mod retry;
pub mod score;
pub mod sink;
pub mod source;
pub mod sql;
pub mod stream;
pub mod streamed;
pub mod tasks;
pub mod train;
pub mod trigger;
pub mod window;
pub mod write;

const _: () = assert!(udf::N_CLASSES == events::N_CLASSES, "one list of classes");
