//! Where jobs run: the session they run in, in this process or on a cluster, and the scheduler and
//! the executors of a cluster. No business logic: what is done is in `jobs` and `sql`, and what
//! people type in `submit-job`.
//!
//! ```
//! # let runtime = tokio::runtime::Runtime::new()?;
//! # runtime.block_on(async {
//! let (n_threads, memory_bytes) = (2, 64 * 1024 * 1024);
//! let ctx = cluster::session::in_process(n_threads, memory_bytes, &[], &[])?;
//! // the functions of the steps are known, here as on a cluster
//! let minutes = "SELECT clock_minutes(CAST(1545 AS INT)) AS minutes";
//! let minutes = ctx.sql(minutes).await?.collect().await?;
//! let minutes = datafusion::arrow::util::pretty::pretty_format_batches(&minutes)?;
//! assert!(minutes.to_string().contains("945"));
//! # anyhow::Ok(())
//! # })?;
//! # anyhow::Ok(())
//! ```

pub mod client;
pub mod codec;
pub mod executor;
pub mod local_cluster;
pub mod memory;
pub mod remote;
pub mod rules;
pub mod scheduler;
pub mod session;
pub mod settings;
pub mod tls;
