//! Plans of DataFusion 55 that give wrong rows, mended.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinType, Result};
use datafusion::logical_expr::{Expr, Limit, LogicalPlan, lit};
use datafusion::optimizer::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use datafusion::physical_optimizer::output_requirements::OutputRequirementExec;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::expressions::lit as physical_lit;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec};
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec};
use datafusion::physical_plan::{
    ExecutionPlan, ExecutionPlanProperties, replace_children_if_necessary,
};

use super::{Node, Rewritten};

/// Keeps conditions above groups that have a row without any input.
///
/// A condition on no column, such as one that is null, is pushed below, and so is one on a column
/// that a branch of a union makes constant: then `SELECT COUNT(*) …` still has its one row, which
/// should have been dropped. Nothing is pushed below a limit; this one limits nothing.
#[derive(Debug)]
pub struct KeepFiltersAboveGroups;

impl OptimizerRule for KeepFiltersAboveGroups {
    fn name(&self) -> &str {
        "keep_filters_above_groups"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        // a join's conditions are pushed below it too
        if !matches!(plan, LogicalPlan::Filter(_) | LogicalPlan::Join(_)) {
            return Ok(Transformed::no(plan));
        }
        plan.map_children(|input| input.transform_down(limit_groups))
    }
}

/// Puts a limit over the groups of a plan, wherever no limit stands above them.
fn limit_groups(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Aggregate(groups) = &plan else {
        let is_limited = matches!(plan, LogicalPlan::Limit(_));
        let further =
            if is_limited { TreeNodeRecursion::Jump } else { TreeNodeRecursion::Continue };
        return Ok(Transformed::new(plan, false, further));
    };
    let has_sets = groups.group_expr.iter().any(|e| matches!(e, Expr::GroupingSet(_)));
    if !has_sets && !groups.group_expr.is_empty() {
        return Ok(Transformed::no(plan));
    }
    let fetch = Some(Box::new(lit(if has_sets { i64::MAX } else { 1 })));
    let limited = LogicalPlan::Limit(Limit { skip: None, fetch, input: Arc::new(plan) });
    Ok(Transformed::new(limited, true, TreeNodeRecursion::Jump))
}

/// Hides what is said of an input and is no longer true above it.
///
/// - A column of one value in the side of an outer join that may be missing has two above the join,
///   that value and null.
/// - A column that is in some grouping sets only is null in the others: it is not constant, not
///   sorted and not equal to another, whatever it was below.
/// - A union of rows that are constant each is not.
/// - The order of the side of a join whose rows are repeated says nothing of the join: a row of the
///   other side comes with all its partners, and the next one, equal in order, with all again.
/// - On a cluster, what comes from another stage is not known to be constant: a window that is not
///   sorted by a constant is refused there.
///
/// DataFusion takes all that for true and leaves out what it sorts by. A union with nothing has
/// only properties that both sides have.
pub fn forget_untrue_properties(node: Node, is_for_cluster: bool) -> Rewritten {
    let children: Vec<_> = node.children().into_iter().map(Arc::clone).collect();
    if node.is::<UnionExec>() && has_constants(&node) {
        return Ok(Transformed::yes(with_nothing(children)?));
    }
    let is_merge = node.is::<SortMergeJoinExec>();
    let is_untrue = untrue_inputs(node.as_ref(), is_for_cluster);
    if !is_untrue.contains(&true) && !is_merge {
        return Ok(Transformed::no(node));
    }
    let children = children
        .into_iter()
        .zip(is_untrue)
        .map(|(child, is_untrue)| if is_untrue { with_nothing(vec![child]) } else { Ok(child) });
    let children = children.collect::<Result<Vec<_>>>()?;
    let node = replace_children_if_necessary(node, children)?;
    // an order that is asked of a merge would be asked of the side that it repeats
    Ok(Transformed::yes(if is_merge { all_rows(node)? } else { node }))
}

/// All rows, past which no order is handed down: DataFusion hands none past a filter, and this one
/// filters nothing.
fn all_rows(input: Node) -> Result<Node> {
    let all = FilterExec::try_new(physical_lit(true), input)?;
    Ok(Arc::new(all.with_default_selectivity(100)?))
}

fn has_constants(input: &Node) -> bool {
    !input.equivalence_properties().constants().is_empty()
}

/// For each input of an operator, whether something is said of it that is untrue above.
fn untrue_inputs(node: &dyn ExecutionPlan, is_for_cluster: bool) -> Vec<bool> {
    use JoinType::{Full, Left, Right, RightAnti, RightMark, RightSemi};
    let children = node.children();
    let is_sorted = |input: &Node| is_sorted_below(input) && !is_with_nothing(input);
    let of_join = |kind: JoinType, is_repeated: [bool; 2]| {
        let is_missing = [matches!(kind, Right | Full), matches!(kind, Left | Full)];
        let is_untrue = |side: usize| {
            let input = children[side];
            is_repeated[side] && is_sorted(input) || is_missing[side] && has_constants(input)
        };
        vec![is_untrue(0), is_untrue(1)]
    };
    if let Some(join) = node.downcast_ref::<HashJoinExec>() {
        of_join(*join.join_type(), [true, false])
    } else if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
        of_join(*join.join_type(), [false, false])
    } else if let Some(join) = node.downcast_ref::<SortMergeJoinExec>() {
        let is_right_read_once =
            matches!(join.join_type(), Right | RightSemi | RightAnti | RightMark);
        of_join(join.join_type(), [is_right_read_once, !is_right_read_once])
    } else if let Some(groups) = node.downcast_ref::<AggregateExec>() {
        let input = children[0];
        let has_equal = !input.equivalence_properties().eq_group().is_empty();
        vec![groups.group_expr().has_grouping_set() && (has_equal || is_sorted(input))]
    } else if is_window(node) {
        vec![is_for_cluster && has_constants(children[0])]
    } else {
        vec![]
    }
}

fn is_window(node: &dyn ExecutionPlan) -> bool {
    node.is::<BoundedWindowAggExec>() || node.is::<WindowAggExec>()
}

/// Whether a plan is of [`with_nothing`].
fn is_with_nothing(plan: &Node) -> bool {
    plan.is::<UnionExec>() && plan.children().last().is_some_and(|last| last.is::<EmptyExec>())
}

/// The rows of the inputs, of which nothing is known.
fn with_nothing(mut inputs: Vec<Node>) -> Result<Node> {
    let schema = inputs[0].schema();
    inputs.push(Arc::new(EmptyExec::new(schema)));
    UnionExec::try_new(inputs)
}

/// Keeps the limit of a sort where it is when something below is sorted.
///
/// DataFusion then takes the upper sort away and hands its limit down to what is sorted, past
/// operators that drop rows: `SELECT DISTINCT … ORDER BY … LIMIT` has too few rows. A limit of its
/// own stays, and goes into a sort below it later, where that is right.
pub fn limits_above(node: Node, _: &ConfigOptions) -> Rewritten {
    let Some(sort) = node.downcast_ref::<SortExec>() else {
        return Ok(Transformed::no(node));
    };
    let Some(n_rows) = sort.fetch().filter(|_| is_sorted_below(sort.input())) else {
        return Ok(Transformed::no(node));
    };
    let sort: Node = Arc::new(sort.with_fetch(None));
    Ok(Transformed::yes(Arc::new(GlobalLimitExec::new(sort, 0, Some(n_rows))) as Node))
}

/// Whether something in a plan is sorted, or will be.
fn is_sorted_below(plan: &Node) -> bool {
    plan.output_ordering().is_some()
        || plan.required_input_ordering().iter().any(Option::is_some)
        || plan.children().into_iter().any(is_sorted_below)
}

/// Keeps what is sorted above a limit there.
///
/// DataFusion hands an order down past a limit, which then keeps other rows; and where an order is
/// there already it takes the limit's rows for those that a sort below must give, although some
/// are skipped.
pub fn limits_apart(node: Node, _: &ConfigOptions) -> Rewritten {
    let is_end = node.is::<OutputRequirementExec>();
    let is_apart = |child: &Node| {
        child.is::<GlobalLimitExec>() || child.is::<SortExec>() && child.fetch().is_some()
    };
    if is_end || node.is::<FilterExec>() || !node.children().into_iter().any(is_apart) {
        return Ok(Transformed::no(node));
    }
    let children = node.children().into_iter().map(|child| {
        if is_apart(child) { all_rows(Arc::clone(child)) } else { Ok(Arc::clone(child)) }
    });
    let children = children.collect::<Result<Vec<_>>>()?;
    Ok(Transformed::yes(replace_children_if_necessary(node, children)?))
}
