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

use std::sync::Arc;

use datafusion::optimizer::optimizer::{Optimizer, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;

/// DataFusion's rules before which ours stand.
const BEFORE_LOGICAL: &str = "push_down_filter";
const BEFORE_PHYSICAL: &str = "EnsureRequirements";

/// A rule over logical plans.
type Logical = Arc<dyn OptimizerRule + Send + Sync>;
/// A rule over physical plans.
type Physical = Arc<dyn PhysicalOptimizerRule + Send + Sync>;

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
    let mut rules = PhysicalOptimizer::new().rules;
    let mut early: Vec<Physical> = Vec::new();
    let mut late: Vec<Physical> = Vec::new();
    if is_for_cluster {
        early.push(Arc::new(joins::ShuffleUnsafeJoins));
        if let Some(task_bytes) = task_bytes {
            early.push(Arc::new(joins::MergeLargeJoins { task_bytes }));
        }
        late.push(Arc::new(tasks::LimitsOfOnePartition));
        late.push(Arc::new(joins::LateShuffles));
        late.push(Arc::new(tasks::OneTaskForNestedLoops));
        late.push(Arc::new(tasks::JoinsApartFromUnions));
        late.push(Arc::new(tasks::SortBehindShuffles));
        late.push(Arc::new(tasks::RowsWithMetrics));
    }
    early.push(Arc::new(corrections::ForgetUntrueProperties { is_for_cluster }));
    early.push(Arc::new(corrections::LimitsAbove));
    early.push(Arc::new(corrections::LimitsApart));
    late.push(Arc::new(joins::YieldInJoins));
    // this one decides by properties that must be true, and fits partitions to operators
    let at = rules.iter().position(|rule| rule.name() == BEFORE_PHYSICAL).unwrap_or_default();
    rules.splice(at..at, early);
    rules.extend(late);
    rules
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
