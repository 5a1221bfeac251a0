//! What our sessions plan otherwise than DataFusion would.
//!
//! Rules of [`joins`], [`tasks`] and [`travel`] are for clusters, where each task of a stage sees a
//! part of what an operator's partitions share in one process. Rules of [`corrections`] mend plans
//! that give wrong rows anywhere. `submit-job/tests/system/differential.rs` has statements that
//! need each of them, and makes others: a release of the engine that needs one no more shows there.

pub mod corrections;
pub mod joins;
pub mod tasks;
pub mod travel;

use std::fmt;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::optimizer::optimizer::{Optimizer, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::ExecutionPlan;

/// DataFusion's rules before which ours stand.
const BEFORE_LOGICAL: &str = "push_down_filter";
const BEFORE_PHYSICAL: &str = "EnsureRequirements";

/// A rule over logical plans.
type Logical = Arc<dyn OptimizerRule + Send + Sync>;
/// A rule over physical plans.
type Physical = Arc<dyn PhysicalOptimizerRule + Send + Sync>;
/// An operator of a physical plan.
type Node = Arc<dyn ExecutionPlan>;
/// What stands in an operator's place.
type Rewritten = Result<Transformed<Node>>;

/// The rules over logical plans, in their order.
pub fn logical() -> Vec<Logical> {
    let mut rules = Optimizer::new().rules;
    let at = rules.iter().position(|rule| rule.name() == BEFORE_LOGICAL).unwrap_or_default();
    rules.insert(at, Arc::new(corrections::KeepFiltersAboveGroups));
    rules
}

/// What makes logical plans fit to travel from a client to the scheduler, after all other rules.
pub fn to_travel() -> Logical {
    Arc::new(travel::EmptyWithColumns)
}

/// The rules over physical plans, in their order; for a cluster's sessions those of a cluster too,
/// whose tasks have `task_bytes` of memory each where that is known.
pub fn physical(is_for_cluster: bool, task_bytes: Option<usize>) -> Vec<Physical> {
    let mut early = Vec::new();
    let mut late = Vec::new();
    if is_for_cluster {
        early.push(each_node("shuffle_unsafe_joins", joins::shuffle_unsafe_joins));
        if let Some(bytes) = task_bytes {
            early.push(each_node("merge_large_joins", move |node, config| {
                joins::merge_large_joins(node, config, bytes)
            }));
        }
        late.push(each_node("limits_of_one_partition", tasks::limits_of_one_partition));
        late.push(each_node("late_shuffles", joins::late_shuffles));
        late.push(each_node("one_task_for_nested_loops", tasks::one_task_for_nested_loops));
        late.push(each_node("joins_apart_from_unions", tasks::joins_apart_from_unions));
        late.push(each_node("sort_behind_shuffles", tasks::sort_behind_shuffles));
        late.push(each_node(ROWS_WITH_METRICS, tasks::rows_with_metrics));
    }
    early.push(each_node("forget_untrue_properties", move |node, _| {
        corrections::forget_untrue_properties(node, is_for_cluster)
    }));
    early.push(each_node("limits_above", corrections::limits_above));
    early.push(each_node("limits_apart", corrections::limits_apart));
    late.push(each_node("yield_in_joins", joins::yield_in_joins));
    let mut rules = PhysicalOptimizer::new().rules;
    // this one decides by properties that must be true, and fits partitions to operators
    let at = rules.iter().position(|rule| rule.name() == BEFORE_PHYSICAL).unwrap_or_default();
    rules.splice(at..at, early);
    rules.extend(late);
    rules
}

/// The rule of this name makes fields nullable; the others keep the schema as it is.
const ROWS_WITH_METRICS: &str = "rows_with_metrics";

/// A rule that gives each operator, from the leaves up, to a function, which returns what stands in
/// its place.
struct EachNode<F> {
    name: &'static str,
    rewrite: F,
}

fn each_node<F>(name: &'static str, rewrite: F) -> Physical
where
    F: Fn(Node, &ConfigOptions) -> Rewritten + Send + Sync + 'static,
{
    Arc::new(EachNode { name, rewrite })
}

impl<F> fmt::Debug for EachNode<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl<F> PhysicalOptimizerRule for EachNode<F>
where
    F: Fn(Node, &ConfigOptions) -> Rewritten + Send + Sync + 'static,
{
    fn optimize(&self, plan: Node, config: &ConfigOptions) -> Result<Node> {
        Ok(plan.transform_up(|node| (self.rewrite)(node, config))?.data)
    }

    fn name(&self) -> &str {
        self.name
    }

    fn schema_check(&self) -> bool {
        self.name != ROWS_WITH_METRICS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_before_which_ours_stand_are_there() {
        assert!(Optimizer::new().rules.iter().any(|rule| rule.name() == BEFORE_LOGICAL));
        let rules = PhysicalOptimizer::new().rules;
        assert!(rules.iter().any(|rule| rule.name() == BEFORE_PHYSICAL));
    }
}
