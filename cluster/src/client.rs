//! What a client of a cluster sends to the scheduler, and what it does itself.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, plan_err};
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion_proto::logical_plan::AsLogicalPlan;
use datafusion_proto::protobuf::LogicalPlanNode;

use crate::codec::{LogicalCodec, MESSAGE_BYTES_MAX};

/// Longest message of an error that is shown, in bytes.
const ERROR_BYTES_MAX: usize = 400;

/// Sends queries to the scheduler, and runs in this process those that cannot be sent: of tables in
/// its memory, such as what `CREATE TABLE … AS` makes, of functions that make rows, and
/// recursive ones.
pub struct ClientPlanner {
    /// Sends them.
    pub remote: Arc<dyn QueryPlanner + Send + Sync>,
    /// Tasks that an executor runs at a time; each is sent its plan, all in one message.
    pub n_slots: usize,
}

impl fmt::Debug for ClientPlanner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientPlanner with {} slots", self.n_slots)
    }
}

#[async_trait]
impl QueryPlanner for ClientPlanner {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(n_bytes) = bytes_to_send(plan)? else {
            return DefaultPhysicalPlanner::default().create_physical_plan(plan, session).await;
        };
        let (n_slots, mib) = (self.n_slots, |bytes| bytes / (1024 * 1024));
        if n_bytes.saturating_mul(n_slots) > MESSAGE_BYTES_MAX as usize {
            return plan_err!(
                "the plan has {} MiB, its model among them, and an executor is sent one for each \
                 of its {n_slots} tasks in a message of at most {} MiB; take executors with fewer \
                 --cores or a smaller model",
                mib(n_bytes),
                mib(MESSAGE_BYTES_MAX as usize)
            );
        }
        self.remote.create_physical_plan(plan, session).await
    }
}

/// The length of a plan on its way to the scheduler; none when it cannot be sent.
fn bytes_to_send(plan: &LogicalPlan) -> Result<Option<usize>> {
    let mut is_recursive = false;
    plan.apply_with_subqueries(|node| {
        is_recursive |= matches!(node, LogicalPlan::RecursiveQuery(_));
        Ok(if is_recursive { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    if is_recursive {
        return Ok(None);
    }
    // what is analyzed is measured where it runs
    let sent = match plan {
        LogicalPlan::Analyze(analyze) => &analyze.input,
        plan => plan,
    };
    let node = match LogicalPlanNode::try_from_logical_plan(sent, &LogicalCodec::default()) {
        Ok(node) => node,
        Err(error) => {
            tracing::warn!("a query that cannot be sent to the cluster runs in this process");
            tracing::debug!(%error, "it cannot be sent");
            return Ok(None);
        }
    };
    let mut bytes = Vec::new();
    node.try_encode(&mut bytes)?;
    Ok(Some(bytes.len()))
}

/// An error of the engine in one sentence, as a person can use it.
pub fn sentence(error: &DataFusionError) -> String {
    let text = error.to_string();
    if text.contains("SanityCheckPlan") {
        return "the engine makes no valid plan of this statement, by a fault of its own; the same \
                rows can be asked for in another way, such as with a part in a table of its own"
            .to_owned();
    }
    if text.contains("Resources exhausted") || text.contains("ResourcesExhausted") {
        return "there is not enough memory for this statement: --memory gives more in this \
                process, --executor-memory on a cluster, where --conf \
                datafusion.execution.target_partitions=N also makes more and smaller tasks of it"
            .to_owned();
    }
    let line = text.replace("\ncaused by\n", ": ").replace('\n', " ");
    let end = (0..=line.len().min(ERROR_BYTES_MAX)).rev().find(|at| line.is_char_boundary(*at));
    let shown = &line[..end.unwrap_or(0)];
    if shown.len() < line.len() { format!("{shown} …") } else { line }
}

#[cfg(test)]
mod tests {
    use datafusion::execution::context::SessionContext;
    use datafusion::prelude::SessionConfig;

    use super::*;

    #[derive(Debug)]
    struct Nobody;

    #[async_trait]
    impl QueryPlanner for Nobody {
        async fn create_physical_plan(
            &self,
            _: &LogicalPlan,
            _: &dyn Session,
        ) -> Result<Arc<dyn ExecutionPlan>> {
            plan_err!("it was sent")
        }
    }

    #[tokio::test]
    async fn a_plan_that_is_too_large_for_one_message_to_all_tasks_is_refused_with_the_reason() {
        let ctx = SessionContext::new_with_config(SessionConfig::new());
        let plan = ctx.sql("SELECT 'a text' AS a").await.unwrap().into_optimized_plan().unwrap();
        for (n_slots, words) in
            [(1, "it was sent"), (usize::MAX, "fewer --cores or a smaller model")]
        {
            let planner = ClientPlanner { remote: Arc::new(Nobody), n_slots };
            let error = planner.create_physical_plan(&plan, &ctx.state()).await.unwrap_err();
            assert!(sentence(&error).contains(words), "{error}");
        }
    }
}
