//! Logical plans on their way from a client to the scheduler.

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{EmptyRelation, LogicalPlan, LogicalPlanBuilder, lit};
use datafusion::optimizer::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

/// Gives no rows of known columns in another way: a relation that is known to be empty travels
/// without its columns, and what names them is refused by the scheduler.
#[derive(Debug)]
pub struct EmptyWithColumns;

impl OptimizerRule for EmptyWithColumns {
    fn name(&self) -> &str {
        "empty_with_columns"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: false, schema }) = &plan
        else {
            return Ok(Transformed::no(plan));
        };
        if schema.fields().is_empty() {
            return Ok(Transformed::no(plan));
        }
        let columns = schema.iter().map(|(qualifier, field)| {
            let null = ScalarValue::try_new_null(field.data_type())?;
            Ok(lit(null).alias_qualified(qualifier.cloned(), field.name()))
        });
        let none = LogicalPlanBuilder::empty(true)
            .project(columns.collect::<Result<Vec<_>>>()?)?
            .limit(0, Some(0))?;
        Ok(Transformed::yes(none.build()?))
    }
}
