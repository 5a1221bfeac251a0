//! The session that jobs run in: configuration, limits and functions.

use std::sync::Arc;

use anyhow::Result;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};

/// Rows of a batch: enough to amortise the cost of a batch, few enough to stay in the cache.
const BATCH_ROWS: usize = 8192;

/// A session in this process, with `n_partitions` threads of work and memory for sorts, joins and
/// groups bounded by `memory_bytes`.
pub fn in_process(n_partitions: usize, memory_bytes: usize) -> Result<SessionContext> {
    let mut config = SessionConfig::new()
        .with_target_partitions(n_partitions)
        .with_batch_size(BATCH_ROWS)
        .with_information_schema(true);
    // partition columns are integers in our tables; without this they would be read as text
    config.options_mut().execution.listing_table_factory_infer_partitions = false;
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(FairSpillPool::new(memory_bytes)))
        .build_arc()?;
    let ctx = SessionContext::new_with_config_rt(config, runtime);
    for function in udf::scalar_functions() {
        ctx.register_udf(function);
    }
    for function in udf::aggregate_functions() {
        ctx.register_udaf(function);
    }
    Ok(ctx)
}
