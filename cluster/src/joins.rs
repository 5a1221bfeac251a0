//! Two rules for the plans of joins.
//!
//! [`ShuffleUnsafeJoins`], for clusters: a join that collects its left side gives wrong rows on a
//! cluster when it also emits left rows that found no partner, as each task would emit them.
//! Ballista notices when it makes stages and then shuffles both sides, but by then the operators
//! above rely on the partitions there were, and count each of them on its own. Decided before
//! DataFusion fits operators to partitions, all is right.
//!
//! [`YieldInJoins`], for all: a join may make millions of rows from one batch without waiting for
//! anything, and a task that never waits is never cancelled: it would keep its core for hours after
//! its query has ended. DataFusion sees to it that sources give way; this rule sees to joins.

use std::sync::Arc;

use ballista_core::config::BallistaConfig;
use datafusion::common::JoinType;
use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};

/// Bytes that a value counts when a relation knows only its rows; no less than Ballista takes.
const VALUE_BYTES: usize = 32;

/// Shuffles both sides of joins whose left side must not, or may not, be sent to every task.
#[derive(Debug)]
pub struct ShuffleUnsafeJoins;

impl PhysicalOptimizerRule for ShuffleUnsafeJoins {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let ballista = config.extensions.get::<BallistaConfig>().cloned().unwrap_or_default();
        // Ballista asks again later, when the statistics may be others
        let bytes_max = ballista.broadcast_join_threshold_bytes() / 2;
        let shuffled = plan.transform_up(|node| {
            let Some(join) = node.downcast_ref::<HashJoinExec>() else {
                return Ok(Transformed::no(node));
            };
            let is_collected = *join.partition_mode() == PartitionMode::CollectLeft;
            if !is_collected || join.null_aware || may_be_sent(join, bytes_max)? {
                return Ok(Transformed::no(node));
            }
            let shuffled = join.builder().with_partition_mode(PartitionMode::Partitioned);
            Ok(Transformed::yes(shuffled.build_exec()?))
        });
        Ok(shuffled?.data)
    }

    fn name(&self) -> &str {
        "shuffle_unsafe_joins"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Whether every task may have the whole left side: it is known to be small, and none of its rows
/// is emitted on its own.
fn may_be_sent(join: &HashJoinExec, bytes_max: usize) -> Result<bool> {
    use JoinType::{Inner, Right, RightAnti, RightMark, RightSemi};
    let is_safe = matches!(join.join_type(), Inner | Right | RightSemi | RightAnti | RightMark);
    let statistics =
        StatisticsContext::new().compute(join.left().as_ref(), &StatisticsArgs::new())?;
    let known = |n: &&usize| **n > 0;
    let n_bytes = statistics.total_byte_size.get_value().filter(known).copied().or_else(|| {
        let n_rows = statistics.num_rows.get_value().filter(known)?;
        Some(n_rows.saturating_mul(join.left().schema().fields().len() * VALUE_BYTES))
    });
    Ok(is_safe && n_bytes.is_some_and(|n_bytes| n_bytes <= bytes_max))
}

/// Puts an operator over each join that yields after some batches.
#[derive(Debug)]
pub struct YieldInJoins;

impl PhysicalOptimizerRule for YieldInJoins {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wrapped = plan.transform_up(|node| {
            if !node.name().ends_with("JoinExec") {
                return Ok(Transformed::no(node));
            }
            Ok(Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>))
        });
        Ok(wrapped?.data)
    }

    fn name(&self) -> &str {
        "yield_in_joins"
    }

    fn schema_check(&self) -> bool {
        true
    }
}
