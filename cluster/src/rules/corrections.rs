//! Plans of DataFusion 55 that give wrong rows, mended.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinType, Result};
use datafusion::logical_expr::{Expr, Filter, Limit, LogicalPlan, lit};
use datafusion::optimizer::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
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

/// Keeps conditions above groups that have a row without any input.
///
/// A condition on no column, such as one that is null, is pushed below: then `SELECT COUNT(*) …`
/// still has its one row, which should have been dropped. Nothing is pushed below a limit; this one
/// limits nothing.
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
        let LogicalPlan::Filter(Filter { predicate, input, .. }) = plan else {
            return Ok(Transformed::no(plan));
        };
        let kept = LogicalPlan::clone(&input).transform_down(limit_groups)?;
        let is_kept = kept.transformed;
        let filter = LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(kept.data))?);
        Ok(Transformed::new_transformed(filter, is_kept))
    }
}

/// Puts a limit over groups when nothing but names and expressions stands above them.
fn limit_groups(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let stop = |plan, is_new| Ok(Transformed::new(plan, is_new, TreeNodeRecursion::Stop));
    match &plan {
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Filter(_) => {
            Ok(Transformed::no(plan))
        }
        LogicalPlan::Aggregate(groups) => {
            let has_sets = groups.group_expr.iter().any(|e| matches!(e, Expr::GroupingSet(_)));
            if !has_sets && !groups.group_expr.is_empty() {
                return stop(plan, false);
            }
            let fetch = if has_sets { i64::MAX } else { 1 };
            let fetch = Some(Box::new(lit(fetch)));
            stop(LogicalPlan::Limit(Limit { skip: None, fetch, input: Arc::new(plan) }), true)
        }
        _ => stop(plan, false),
    }
}

/// Hides what is said of an input and is no longer true above it.
///
/// - A column of one value in the side of an outer join that may be missing has two above the join,
///   that value and null. So has a column that is grouped by in some grouping sets only.
/// - A union of rows that are constant each is not.
/// - The order of a hash join's left side says nothing of the join: a row of the right side comes
///   with all its partners, and the next one, equal in order, with all again.
///
/// - On a cluster, what comes from another stage is not known to be constant: a window that is not
///   sorted by a constant is refused there.
///
/// DataFusion takes all that for true and leaves out what it sorts by. A union with nothing has
/// only properties that both sides have.
#[derive(Debug)]
pub struct ForgetUntrueProperties {
    /// Whether the plan is cut into stages.
    pub is_for_cluster: bool,
}

impl PhysicalOptimizerRule for ForgetUntrueProperties {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let forgotten = plan.transform_up(|node| {
            let children: Vec<_> = node.children().into_iter().map(Arc::clone).collect();
            if node.is::<UnionExec>() && has_constants(&node) {
                return Ok(Transformed::yes(with_nothing(children)?));
            }
            let is_untrue = untrue_inputs(node.as_ref(), self.is_for_cluster);
            if !is_untrue.contains(&true) {
                return Ok(Transformed::no(node));
            }
            let children = children.into_iter().zip(is_untrue).map(|(child, is_untrue)| {
                if is_untrue { with_nothing(vec![child]) } else { Ok(child) }
            });
            let children = children.collect::<Result<Vec<_>>>()?;
            Ok(Transformed::yes(replace_children_if_necessary(node, children)?))
        });
        Ok(forgotten?.data)
    }

    fn name(&self) -> &str {
        "forget_untrue_properties"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn has_constants(input: &Arc<dyn ExecutionPlan>) -> bool {
    !input.equivalence_properties().constants().is_empty()
}

/// For each input of an operator, whether something is said of it that is untrue above.
fn untrue_inputs(node: &dyn ExecutionPlan, is_for_cluster: bool) -> Vec<bool> {
    use JoinType::{Full, Left, Right};
    let children = node.children();
    let of_join = |kind: JoinType, is_hashed: bool| {
        let (left, right) = (children[0], children[1]);
        let is_order_untrue = is_hashed && is_sorted_below(left) && !is_with_nothing(left);
        vec![
            is_order_untrue || matches!(kind, Right | Full) && has_constants(left),
            matches!(kind, Left | Full) && has_constants(right),
        ]
    };
    if let Some(join) = node.downcast_ref::<HashJoinExec>() {
        of_join(*join.join_type(), true)
    } else if let Some(join) = node.downcast_ref::<NestedLoopJoinExec>() {
        of_join(*join.join_type(), false)
    } else if let Some(join) = node.downcast_ref::<SortMergeJoinExec>() {
        of_join(join.join_type(), false)
    } else if let Some(groups) = node.downcast_ref::<AggregateExec>() {
        vec![groups.group_expr().has_grouping_set() && has_constants(children[0])]
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
fn is_with_nothing(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.is::<UnionExec>() && plan.children().last().is_some_and(|last| last.is::<EmptyExec>())
}

/// The rows of the inputs, of which nothing is known.
fn with_nothing(mut inputs: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
    let schema = inputs[0].schema();
    inputs.push(Arc::new(EmptyExec::new(schema)));
    UnionExec::try_new(inputs)
}

/// Keeps the limit of a sort where it is when something below is sorted.
///
/// DataFusion then takes the upper sort away and hands its limit down to what is sorted, past
/// operators that drop rows: `SELECT DISTINCT … ORDER BY … LIMIT` has too few rows. A limit of its
/// own stays, and goes into a sort below it later, where that is right.
#[derive(Debug)]
pub struct LimitsAbove;

impl PhysicalOptimizerRule for LimitsAbove {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let kept = plan.transform_up(|node| {
            let Some(sort) = node.downcast_ref::<SortExec>() else {
                return Ok(Transformed::no(node));
            };
            let Some(n_rows) = sort.fetch().filter(|_| is_sorted_below(sort.input())) else {
                return Ok(Transformed::no(node));
            };
            let sort: Arc<dyn ExecutionPlan> = Arc::new(sort.with_fetch(None));
            Ok(Transformed::yes(
                Arc::new(GlobalLimitExec::new(sort, 0, Some(n_rows))) as Arc<dyn ExecutionPlan>
            ))
        });
        Ok(kept?.data)
    }

    fn name(&self) -> &str {
        "limits_above"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Whether something in a plan is sorted, or will be.
fn is_sorted_below(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.output_ordering().is_some()
        || plan.required_input_ordering().iter().any(Option::is_some)
        || plan.children().into_iter().any(is_sorted_below)
}

/// Keeps what is sorted above a limit there.
///
/// DataFusion hands an order down past a limit, which then keeps other rows; and where an order is
/// there already it takes the limit's rows for those that a sort below must give, although some
/// are skipped. It hands nothing down past a filter; this one filters nothing.
#[derive(Debug)]
pub struct LimitsApart;

impl PhysicalOptimizerRule for LimitsApart {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let apart = plan.transform_up(|node| {
            let is_end = node.is::<OutputRequirementExec>();
            let is_apart = |child: &Arc<dyn ExecutionPlan>| {
                child.is::<GlobalLimitExec>() || child.is::<SortExec>() && child.fetch().is_some()
            };
            if is_end || node.is::<FilterExec>() || !node.children().into_iter().any(is_apart) {
                return Ok(Transformed::no(node));
            }
            let children = node.children().into_iter().map(|child| {
                if !is_apart(child) {
                    return Ok(Arc::clone(child));
                }
                let all = FilterExec::try_new(physical_lit(true), Arc::clone(child))?;
                Ok(Arc::new(all.with_default_selectivity(100)?) as Arc<dyn ExecutionPlan>)
            });
            let children = children.collect::<Result<Vec<_>>>()?;
            Ok(Transformed::yes(replace_children_if_necessary(node, children)?))
        });
        Ok(apart?.data)
    }

    fn name(&self) -> &str {
        "limits_apart"
    }

    fn schema_check(&self) -> bool {
        true
    }
}
