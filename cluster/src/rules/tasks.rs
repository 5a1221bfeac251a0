//! Plans that are cut into the stages and tasks of a cluster.

use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use datafusion::arrow::datatypes::Schema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{JoinType, Result};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{CrossJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{
    ExecutionPlan, ExecutionPlanProperties, replace_children_if_necessary,
};

use super::{Node, Rewritten};

/// Gives a join without an equality a single task where it emits rows of its left side: which of
/// them have found a partner is known only when all rows of the right side have been seen.
pub fn one_task_for_nested_loops(node: Node, _: &ConfigOptions) -> Rewritten {
    use JoinType::{Full, Left, LeftAnti, LeftMark, LeftSemi};
    let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() else {
        return Ok(Transformed::no(node));
    };
    let emits_left = matches!(join.join_type(), Left | Full | LeftSemi | LeftAnti | LeftMark);
    if !emits_left || join.right().output_partitioning().partition_count() == 1 {
        return Ok(Transformed::no(node));
    }
    let merged = Arc::new(CoalescePartitionsExec::new(Arc::clone(join.right())));
    // nothing asks for one partition here, and what nothing asks for is taken out when the
    // scheduler plans again; a limit asks
    let merged = Arc::new(GlobalLimitExec::new(merged, 0, None));
    let children = vec![Arc::clone(join.left()), merged as Node];
    Ok(Transformed::yes(replace_children_if_necessary(node, children)?))
}

/// Keeps a limit over one partition a limit over one partition. A filter or a merge that also
/// limits does not ask for one, so when stages are cut what makes one below it is taken out: then
/// each partition has the limit, and rows that are not the first.
pub fn limits_of_one_partition(node: Node, _: &ConfigOptions) -> Rewritten {
    let is_meant = node.is::<FilterExec>() || node.is::<SortPreservingMergeExec>();
    let is_one = node.output_partitioning().partition_count() == 1;
    match node.fetch().filter(|_| is_meant && is_one) {
        Some(n_rows) => {
            let limit = GlobalLimitExec::new(node, 0, Some(n_rows));
            Ok(Transformed::yes(Arc::new(limit) as Node))
        }
        None => Ok(Transformed::no(node)),
    }
}

/// Gives a join in a branch of a union a stage of its own. Ballista swaps the sides of such a join
/// when it knows their sizes, after it has found that tasks of other branches need nothing of it;
/// by then they do.
pub fn joins_apart_from_unions(node: Node, _: &ConfigOptions) -> Rewritten {
    let is_joined =
        |branch: &Node| branch.output_partitioning().partition_count() == 1 && has_loop(branch);
    if !node.is::<UnionExec>() || !node.children().into_iter().any(is_joined) {
        return Ok(Transformed::no(node));
    }
    let branches = node.children().into_iter().map(|branch| match is_joined(branch) {
        true => Arc::new(CoalescePartitionsExec::new(Arc::clone(branch))),
        false => Arc::clone(branch),
    });
    let branches = branches.collect();
    Ok(Transformed::yes(replace_children_if_necessary(node, branches)?))
}

/// Whether a plan compares all pairs of rows somewhere.
fn has_loop(plan: &Node) -> bool {
    let is_loop = plan.is::<CrossJoinExec>() || plan.is::<NestedLoopJoinExec>();
    is_loop || plan.children().into_iter().any(has_loop)
}

/// Sorts again behind what sends rows from one stage to the next: a shuffle of sorted rows mixes
/// those of several tasks, and what it promises is nothing, whereas the operator that stands in its
/// place in one process keeps the order, and those above rely on it.
pub fn sort_behind_shuffles(node: Node, _: &ConfigOptions) -> Rewritten {
    let order = |child: &Node| {
        let is_shuffle = child.is::<RepartitionExec>() || child.is::<CoalescePartitionsExec>();
        child.output_ordering().filter(|_| is_shuffle).cloned()
    };
    if !node.children().into_iter().any(|child| order(child).is_some()) {
        return Ok(Transformed::no(node));
    }
    let children = node.children().into_iter().map(|child| match order(child) {
        Some(order) => {
            let sort = SortExec::new(order, Arc::clone(child));
            Arc::new(sort.with_preserve_partitioning(true))
        }
        None => Arc::clone(child),
    });
    let children = children.collect();
    Ok(Transformed::yes(replace_children_if_necessary(node, children)?))
}

/// Reads constant rows, and none, from memory. The operators that DataFusion has for them measure
/// nothing, what Ballista puts in their place in the tasks that do not read them does, and tasks of
/// one stage that measure different things are dropped with their rows.
pub fn rows_with_metrics(node: Node, _: &ConfigOptions) -> Rewritten {
    let n_rows = match (node.is::<PlaceholderRowExec>(), node.is::<EmptyExec>()) {
        (true, _) => 1,
        (_, true) => 0,
        _ => return Ok(Transformed::no(node)),
    };
    Ok(Transformed::yes(rows_of_nulls(node.as_ref(), n_rows)?))
}

/// `n_rows` rows of nulls with the columns of a node.
fn rows_of_nulls(node: &dyn ExecutionPlan, n_rows: usize) -> Result<Node> {
    let schema = node.schema();
    let nullable = |field: &Arc<_>| -> datafusion::arrow::datatypes::Field {
        datafusion::arrow::datatypes::Field::clone(field).with_nullable(true)
    };
    let schema = match n_rows {
        0 => schema,
        _ => Arc::new(Schema::new(schema.fields().iter().map(nullable).collect::<Vec<_>>())),
    };
    let columns = schema.fields().iter().map(|f| new_null_array(f.data_type(), n_rows)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(n_rows));
    let rows = RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options);
    // a column without nulls has no row of them, and needs none
    let rows = if n_rows == 0 { vec![] } else { vec![rows?] };
    Ok(MemorySourceConfig::try_new_exec(&[rows], schema, None)?)
}
