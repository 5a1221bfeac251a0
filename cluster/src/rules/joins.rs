//! Rules for joins.
//!
//! [`ShuffleUnsafeJoins`], for clusters: a join that collects its left side gives wrong rows on a
//! cluster when it also emits left rows that found no partner, as each task would emit them.
//! Ballista notices when it makes stages and then shuffles both sides, but by then the operators
//! above rely on the partitions there were, and count each of them on its own. Decided before
//! DataFusion fits operators to partitions, all is right.
//!
//! [`LateShuffles`], for clusters: what Ballista shuffles all the same keeps its partitions.
//!
//! [`MergeLargeJoins`], for clusters: a hash join keeps one side in memory and cannot spill; a join
//! of sorted sides can.
//!
//! [`YieldInJoins`], for all: a join may make millions of rows from one batch without waiting for
//! anything, and a task that never waits is never cancelled: it would keep its core for hours after
//! its query has ended. DataFusion sees to it that sources give way; this rule sees to joins.

use std::sync::Arc;

use ballista_core::config::BallistaConfig;
use datafusion::arrow::compute::SortOptions;
use datafusion::common::JoinType;
use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::expressions::Column;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode, SortMergeJoinExec};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_plan::{
    ExecutionPlan, ExecutionPlanProperties, Partitioning, PhysicalExpr,
};

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
    Ok(is_safe && bytes_of(join.left())?.is_some_and(|n_bytes| n_bytes <= bytes_max))
}

/// Bytes of a relation, when its statistics say so.
fn bytes_of(relation: &Arc<dyn ExecutionPlan>) -> Result<Option<usize>> {
    let statistics = StatisticsContext::new().compute(relation.as_ref(), &StatisticsArgs::new())?;
    // none is what it says of what it does not know
    let known = |n: &&usize| **n > 0;
    Ok(statistics.total_byte_size.get_value().filter(known).copied().or_else(|| {
        let n_rows = statistics.num_rows.get_value().filter(known)?;
        Some(n_rows.saturating_mul(relation.schema().fields().len() * VALUE_BYTES))
    }))
}

/// Makes right what Ballista would shuffle too late: a join whose left side it does not send to all
/// tasks after all, as its size is not known any more.
#[derive(Debug)]
pub struct LateShuffles;

impl PhysicalOptimizerRule for LateShuffles {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let ballista = config.extensions.get::<BallistaConfig>().cloned().unwrap_or_default();
        let bytes_max = ballista.broadcast_join_threshold_bytes() / 2;
        let kept = plan.transform_up(|node| {
            let Some(join) = node.downcast_ref::<HashJoinExec>() else {
                return Ok(Transformed::no(node));
            };
            let is_collected = *join.partition_mode() == PartitionMode::CollectLeft;
            if !is_collected || join.null_aware || may_be_sent(join, bytes_max)? {
                return Ok(Transformed::no(node));
            }
            if join.right().output_partitioning().partition_count() == 1 {
                // a shuffle of one partition is none, and needs no other
                let alone = join.builder().with_partition_mode(PartitionMode::Partitioned);
                return Ok(Transformed::yes(alone.build_exec()?));
            }
            // by the keys of the join; those above want the rows by what they had asked for
            let (partitioning, order) =
                (node.output_partitioning().clone(), node.output_ordering().cloned());
            let mut kept = Arc::clone(&node);
            if matches!(partitioning, Partitioning::Hash(..)) {
                kept = Arc::new(RepartitionExec::try_new(kept, partitioning)?);
            }
            if let Some(order) = order {
                kept = Arc::new(SortExec::new(order, kept).with_preserve_partitioning(true));
            }
            Ok(Transformed::yes(kept))
        });
        Ok(kept?.data)
    }

    fn name(&self) -> &str {
        "late_shuffles"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Sorts both sides of a join and merges them where the side that a task would keep in memory is
/// known not to fit.
#[derive(Debug)]
pub struct MergeLargeJoins {
    /// Bytes of memory of a task.
    pub task_bytes: usize,
}

impl PhysicalOptimizerRule for MergeLargeJoins {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let n_tasks = config.execution.target_partitions.max(1);
        // its hashes take about as much as its rows, and what the task reads takes something too
        let bytes_max = self.task_bytes / 4;
        let merged = plan.transform_up(|node| {
            let Some(join) = node.downcast_ref::<HashJoinExec>() else {
                return Ok(Transformed::no(node));
            };
            let is_shuffled = *join.partition_mode() == PartitionMode::Partitioned;
            if !is_shuffled || join.null_aware {
                return Ok(Transformed::no(node));
            }
            if bytes_of(join.left())?.is_none_or(|bytes| bytes / n_tasks <= bytes_max) {
                return Ok(Transformed::no(node));
            }
            Ok(Transformed::yes(merge_join(join)?))
        });
        Ok(merged?.data)
    }

    fn name(&self) -> &str {
        "merge_large_joins"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The same rows by merging sorted sides.
fn merge_join(join: &HashJoinExec) -> Result<Arc<dyn ExecutionPlan>> {
    let merge: Arc<dyn ExecutionPlan> = Arc::new(SortMergeJoinExec::try_new(
        Arc::clone(join.left()),
        Arc::clone(join.right()),
        join.on().to_vec(),
        join.filter().cloned(),
        *join.join_type(),
        vec![SortOptions::default(); join.on().len()],
        join.null_equality(),
    )?);
    let Some(projection) = join.projection.as_deref() else { return Ok(merge) };
    let schema = merge.schema();
    let column = |&at: &usize| {
        let name = schema.field(at).name();
        (Arc::new(Column::new(name, at)) as Arc<dyn PhysicalExpr>, name.clone())
    };
    let columns: Vec<_> = projection.iter().map(column).collect();
    Ok(Arc::new(ProjectionExec::try_new(columns, merge)?))
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
