//! What every process shows of itself. To Prometheus, beside what it does: which build it is, and
//! what it takes of its machine. Its metrics are `tarmac_build_info` and those named `process_…`,
//! by the conventions of Prometheus' own clients. To a collector of traces: what it does, when.

mod process;
pub mod traces;

pub use process::{ProcessMetrics, cpu_seconds};
pub use traces::SPAN;

/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// What a text of metrics is, for `Content-Type`.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4";
