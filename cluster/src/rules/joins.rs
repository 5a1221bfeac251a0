//! Rules for joins.
//!
//! [`shuffle_unsafe_joins`], for clusters: a join that collects its left side gives wrong rows on a
//! cluster when it also emits left rows that found no partner, as each task would emit them.
//! Ballista notices when it makes stages and then shuffles both sides, but by then the operators
//! above rely on the partitions there were, and count each of them on its own. Decided before
//! DataFusion fits operators to partitions, all is right.
//!
//! [`late_shuffles`], for clusters: what Ballista shuffles all the same keeps its partitions.
//!
//! [`merge_large_joins`], for clusters: a hash join keeps one side in memory and cannot spill; a
//! join of sorted sides can.
//!
//! [`yield_in_joins`], for all: a join may make millions of rows from one batch without waiting for
//! anything, and a task that never waits is never cancelled: it would keep its core for hours after
//! its query has ended. DataFusion sees to it that sources give way; this rule sees to joins.

use std::sync::Arc;

use ballista_core::config::BallistaConfig;
use datafusion::arrow::compute::SortOptions;
use datafusion::common::JoinType;
use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::expressions::Column;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode, SortMergeJoinExec};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_plan::{ExecutionPlanProperties, Partitioning, PhysicalExpr};

use super::{Node, Rewritten};

/// Bytes that a value counts when a relation knows only its rows; no less than Ballista takes.
const VALUE_BYTES: usize = 32;

/// Shuffles both sides of joins whose left side must not, or may not, be sent to every task.
pub fn shuffle_unsafe_joins(node: Node, config: &ConfigOptions) -> Rewritten {
    let Some(join) = not_to_be_sent(&node, config)? else { return Ok(Transformed::no(node)) };
    let shuffled = join.builder().with_partition_mode(PartitionMode::Partitioned);
    Ok(Transformed::yes(shuffled.build_exec()?))
}

/// The join, when its left side is to be sent to every task and must not be: it is not known to be
/// small, or some of its rows are emitted on their own.
fn not_to_be_sent<'a>(node: &'a Node, config: &ConfigOptions) -> Result<Option<&'a HashJoinExec>> {
    use JoinType::{Inner, Right, RightAnti, RightMark, RightSemi};
    let Some(join) = node.downcast_ref::<HashJoinExec>() else { return Ok(None) };
    if *join.partition_mode() != PartitionMode::CollectLeft || join.null_aware {
        return Ok(None);
    }
    let ballista = config.extensions.get::<BallistaConfig>().cloned().unwrap_or_default();
    // Ballista asks again later, when the statistics may be others
    let bytes_max = ballista.broadcast_join_threshold_bytes() / 2;
    let is_safe = matches!(join.join_type(), Inner | Right | RightSemi | RightAnti | RightMark);
    let is_small = bytes_of(join.left())?.is_some_and(|n_bytes| n_bytes <= bytes_max);
    Ok((!(is_safe && is_small)).then_some(join))
}

/// Bytes of a relation, when its statistics say so.
fn bytes_of(relation: &Node) -> Result<Option<usize>> {
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
pub fn late_shuffles(node: Node, config: &ConfigOptions) -> Rewritten {
    let Some(join) = not_to_be_sent(&node, config)? else { return Ok(Transformed::no(node)) };
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
}

/// Sorts both sides of a join and merges them where the side that a task would keep in memory is
/// known not to fit into the `task_bytes` of memory of a task.
pub fn merge_large_joins(node: Node, config: &ConfigOptions, task_bytes: usize) -> Rewritten {
    let n_tasks = config.execution.target_partitions.max(1);
    // its hashes take about as much as its rows, and what the task reads takes something too
    let bytes_max = task_bytes / 4;
    let Some(join) = node.downcast_ref::<HashJoinExec>() else {
        return Ok(Transformed::no(node));
    };
    let is_shuffled = *join.partition_mode() == PartitionMode::Partitioned;
    if !is_shuffled || join.null_aware || is_nulled(join) {
        return Ok(Transformed::no(node));
    }
    if bytes_of(join.left())?.is_none_or(|bytes| bytes / n_tasks <= bytes_max) {
        return Ok(Transformed::no(node));
    }
    Ok(Transformed::yes(merge_join(join)?))
}

/// Whether a merge would fail: that of an outer join with a further condition puts nulls into
/// columns that have none.
fn is_nulled(join: &HashJoinExec) -> bool {
    let has_no_nulls = |side: &Node| side.schema().fields().iter().any(|f| !f.is_nullable());
    let is_outer = matches!(join.join_type(), JoinType::Left | JoinType::Right | JoinType::Full);
    is_outer && join.filter().is_some() && (has_no_nulls(join.left()) || has_no_nulls(join.right()))
}

/// The same rows by merging sorted sides.
fn merge_join(join: &HashJoinExec) -> Result<Node> {
    let merge: Node = Arc::new(SortMergeJoinExec::try_new(
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
pub fn yield_in_joins(node: Node, _: &ConfigOptions) -> Rewritten {
    if !node.name().ends_with("JoinExec") {
        return Ok(Transformed::no(node));
    }
    Ok(Transformed::yes(Arc::new(CooperativeExec::new(node)) as Node))
}
