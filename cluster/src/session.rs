//! The session that jobs run in: configuration, object stores, limits and functions. One
//! definition for a program on its own and for the three of a cluster, so that they cannot differ.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use ballista::extension::SessionContextExt;
use ballista_core::ConfigProducer;
use ballista_core::config::{BALLISTA_BROADCAST_JOIN_THRESHOLD_BYTES, BallistaConfig};
use ballista_core::extension::SessionConfigExt;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::object_store::{DefaultObjectStoreRegistry, ObjectStoreRegistry};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{FunctionRegistry, SessionState, SessionStateBuilder};
use datafusion::prelude::{SessionConfig, SessionContext};
use jobs::functions::scalar_functions;
use jobs::lake;
use object_store::ObjectStore;
use url::Url;

use crate::client::ClientPlanner;
use crate::codec::{LogicalCodec, MESSAGE_BYTES_MAX, PhysicalCodec};
use crate::remote::ClusterSize;
use crate::rules;
use crate::settings::{Setting, is_secret};
use crate::tls::Tls;

/// Rows of a batch: enough to amortise the cost of a batch, few enough to stay in the cache.
const BATCH_ROWS: usize = 8192;

/// The configuration that all sessions share.
pub fn config() -> SessionConfig {
    let mut config = SessionConfig::new().with_batch_size(BATCH_ROWS).with_information_schema(true);
    // partition columns are integers in our tables; without this they would be read as text
    config.options_mut().execution.listing_table_factory_infer_partitions = false;
    config
}

/// The configuration of a cluster's sessions, on its client, scheduler and executors.
pub fn cluster_config(tls: &Tls) -> SessionConfig {
    let config = config()
        .upgrade_for_ballista()
        .with_ballista_logical_extension_codec(Arc::new(LogicalCodec::default()))
        .with_ballista_physical_extension_codec(Arc::new(PhysicalCodec::default()))
        .with_ballista_grpc_client_max_message_size(MESSAGE_BYTES_MAX as usize)
        // plans of one shape and many short queries: planning again at run time only costs
        .with_ballista_adaptive_query_planner(false);
    // flights are joined with small relations, which are sent to every task; a sort-merge join, the
    // default here, would send all flights through the disks first
    let config = config.set_bool("datafusion.optimizer.prefer_hash_join", true);
    // one task a partition, so that the scheduler spreads them over the executors
    tls.configure(config).set_usize("ballista.scheduler.max_partitions_per_task", 1)
}

/// [`cluster_config`] as Ballista's programs want it.
pub fn config_producer(tls: &Tls) -> ConfigProducer {
    let tls = tls.clone();
    Arc::new(move || cluster_config(&tls))
}

/// Where queries find bytes: local files, and object stores opened as their URLs turn up, with the
/// options of this program's environment. Secrets stay in it: they never travel with a query.
pub fn stores(options: &[Setting]) -> Arc<dyn ObjectStoreRegistry> {
    let opened = DefaultObjectStoreRegistry::default();
    if let Ok(local) = Url::parse("file://") {
        opened.register_store(&local, lake::local_store());
    }
    Arc::new(Stores { options: options.to_vec(), opened })
}

/// What queries may use: the stores of [`stores`], and memory for sorts, joins and groups.
pub fn runtime(options: &[Setting], memory_bytes: Option<usize>) -> Result<Arc<RuntimeEnv>> {
    let mut builder = RuntimeEnvBuilder::new()
        .with_object_store_registry(stores(options))
        // other jobs put files in place while a shell, or a scheduler, lives
        .with_object_list_cache_limit(0);
    if let Some(bytes) = memory_bytes {
        builder = builder.with_memory_pool(Arc::new(FairSpillPool::new(bytes)));
    }
    Ok(builder.build_arc()?)
}

/// A session's state with all functions that are known by their name. Joins are planned for tasks
/// that have `task_bytes` of memory each, when that is known.
pub fn state(
    mut config: SessionConfig,
    runtime: Arc<RuntimeEnv>,
    task_bytes: Option<usize>,
) -> Result<SessionState> {
    let ballista = config.options().extensions.get::<BallistaConfig>();
    let is_for_cluster = ballista.is_some();
    if let (Some(ballista), Some(task_bytes)) = (ballista, task_bytes) {
        // each task has a copy of what is sent to all, beside what it reads
        let bytes_max = ballista.broadcast_join_threshold_bytes().min(task_bytes / 8);
        config = config.set_usize(BALLISTA_BROADCAST_JOIN_THRESHOLD_BYTES, bytes_max);
    }
    let mut state = SessionStateBuilder::new()
        .with_default_features()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_optimizer_rules(rules::logical())
        .with_physical_optimizer_rules(rules::physical(is_for_cluster, task_bytes))
        .build();
    for function in scalar_functions() {
        state.register_udf(Arc::new(function))?;
    }
    for function in udf::aggregate_functions() {
        state.register_udaf(Arc::new(function))?;
    }
    Ok(state)
}

/// A session in this process, with `n_partitions` threads of work and memory for sorts, joins and
/// groups bounded by `memory_bytes`.
pub fn in_process(
    n_partitions: usize,
    memory_bytes: usize,
    options: &[Setting],
    settings: &[Setting],
) -> Result<SessionContext> {
    let config = with_settings(config().with_target_partitions(n_partitions), settings)?;
    let state = state(config, runtime(options, Some(memory_bytes))?, None)?;
    Ok(SessionContext::new_with_state(state))
}

/// A session whose queries run on the cluster of the scheduler at `url` (`df://host:port`), in as
/// many parts as it has cores, under the name `job`. What cannot be sent runs in this process, with
/// memory bounded by `memory_bytes`.
pub async fn on_cluster(
    url: &str,
    tls: &Tls,
    job: &str,
    cluster: ClusterSize,
    memory_bytes: usize,
    options: &[Setting],
    settings: &[Setting],
) -> Result<SessionContext> {
    let config =
        cluster_config(tls).with_target_partitions(cluster.n_cores).with_ballista_job_name(job);
    let runtime = runtime(options, Some(memory_bytes))?;
    let state = state(with_settings(config, settings)?, runtime, None)?;
    let state = SessionContext::remote_with_state(url, state).await?.state();
    let remote = Arc::clone(state.query_planner());
    let planner = ClientPlanner { remote, n_slots: cluster.n_slots };
    let state = SessionStateBuilder::new_from_existing(state).with_query_planner(Arc::new(planner));
    let ctx = SessionContext::new_with_state(state.build());
    ctx.add_optimizer_rule(rules::to_travel());
    // Ballista puts the built-in functions in the place of all others
    scalar_functions().into_iter().for_each(|function| ctx.register_udf(function));
    udf::aggregate_functions().into_iter().for_each(|function| ctx.register_udaf(function));
    Ok(ctx)
}

fn with_settings(mut config: SessionConfig, settings: &[Setting]) -> Result<SessionConfig> {
    for (key, value) in settings {
        if is_secret(key) {
            // settings travel with every query, and the scheduler shows them
            bail!("--conf {key} looks like a secret; give it to each program by its environment");
        }
        config.options_mut().set(key, value).with_context(|| format!("--conf {key}={value}"))?;
    }
    Ok(config)
}

/// Opens object stores as their URLs turn up.
#[derive(Debug)]
struct Stores {
    options: Vec<Setting>,
    opened: DefaultObjectStoreRegistry,
}

impl ObjectStoreRegistry for Stores {
    fn register_store(
        &self,
        url: &Url,
        store: Arc<dyn ObjectStore>,
    ) -> Option<Arc<dyn ObjectStore>> {
        self.opened.register_store(url, store)
    }

    fn deregister_store(&self, url: &Url) -> datafusion::common::Result<Arc<dyn ObjectStore>> {
        self.opened.deregister_store(url)
    }

    fn get_store(&self, url: &Url) -> datafusion::common::Result<Arc<dyn ObjectStore>> {
        if let Ok(store) = self.opened.get_store(url) {
            return Ok(store);
        }
        let (store, _) = lake::open_store(url, &self.options)
            .map_err(|e| datafusion::common::DataFusionError::External(e.into()))?;
        self.opened.register_store(url, Arc::clone(&store));
        Ok(store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(key: &str, value: &str) -> Result<SessionConfig> {
        with_settings(cluster_config(&Tls::default()), &[(key.to_owned(), value.to_owned())])
    }

    #[test]
    fn settings_reach_the_engine() {
        let config = set("datafusion.execution.batch_size", "17").unwrap();
        assert_eq!(config.batch_size(), 17);
        let config = set("ballista.planner.adaptive.enabled", "true").unwrap();
        assert!(config.ballista_adaptive_query_planner_enabled());
    }

    #[test]
    fn a_setting_that_is_unknown_wrong_or_secret_is_named() {
        for (key, value, words) in [
            ("datafusion.execution.no_such_thing", "1", "no_such_thing"),
            ("datafusion.execution.batch_size", "many", "many"),
            ("s3.secret_access_key", "abc", "looks like a secret"),
        ] {
            let error = format!("{:#}", set(key, value).unwrap_err());
            assert!(error.contains(key) && error.contains(words), "{error}");
        }
        let error = format!("{:#}", set("s3.secret_access_key", "abc").unwrap_err());
        assert!(!error.contains("abc"), "{error}");
    }
}
