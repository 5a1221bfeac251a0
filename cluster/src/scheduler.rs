//! The scheduler: plans the queries of clients into stages and tasks for the executors.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::to_bytes;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::header::{CONTENT_TYPE, USER_AGENT};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use ballista_core::serde::protobuf::scheduler_grpc_server::SchedulerGrpcServer;
use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::config::{SchedulerConfig, TaskDistributionPolicy};
use ballista_scheduler::scheduler_process::create_scheduler;
use ballista_scheduler::scheduler_server::SchedulerServer;
use clap::Args;
use datafusion_proto::protobuf::{LogicalPlanNode, PhysicalPlanNode};
use parking_lot::Mutex;
use telemetry::ProcessMetrics;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tonic::codegen::Service;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::{TcpConnectInfo, TcpIncoming, TlsConnectInfo};

use crate::codec::{LogicalCodec, MESSAGE_BYTES_MAX, PhysicalCodec};
use crate::local_cluster::end_with_parent;
use crate::memory::TaskMemory;
use crate::remote::is_of;
use crate::session;
use crate::settings::Setting;
use crate::tls::{AGENT, Tls, TlsArgs};

/// How often leases and draining are looked at.
const TICK: Duration = Duration::from_secs(1);
/// Seconds for which the results of a query can be fetched after its end.
pub const RESULT_SECONDS: u64 = 3600;
/// Clients whose leases are remembered at most; beyond it the oldest is forgotten.
const LEASES_MAX: usize = 10_000;

/// Bytes of Ballista's metrics at most.
const METRICS_BYTES_MAX: usize = 1024 * 1024;

/// What executors call, by Ballista's names.
const EXECUTOR_CALLS: [&str; 3] = ["RegisterExecutor", "HeartBeatFromExecutor", "PollWork"];

/// What those who watch the scheduler ask for.
const PROBES: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// Arguments of `scheduler`.
#[derive(Debug, Clone, Args)]
pub struct SchedulerArgs {
    /// End when the program that has started this one is gone
    #[arg(long, hide = true)]
    pub with_parent: bool,
    /// Where clients and executors connect to
    #[arg(long, env = "TARMAC_SCHEDULER_LISTEN", default_value = "127.0.0.1:20050")]
    pub listen: SocketAddr,
    /// Host name that executors call back
    #[arg(long, env = "TARMAC_SCHEDULER_HOST")]
    pub external_host: Option<String>,
    /// Seconds without a heartbeat after which an executor counts as dead
    #[arg(long, env = "TARMAC_EXECUTOR_TIMEOUT", default_value_t = 20)]
    pub executor_timeout_seconds: u64,
    /// Seconds that jobs wait for an executor when all are dead, before they fail
    #[arg(long, env = "TARMAC_NO_EXECUTORS_GRACE", default_value_t = 30)]
    pub no_executors_grace_seconds: u64,
    /// Seconds without a heartbeat of a client after which its jobs are cancelled
    #[arg(long, env = "TARMAC_CLIENT_TIMEOUT", default_value_t = 30)]
    pub client_timeout_seconds: u64,
    /// Seconds that running jobs are given to end after SIGTERM
    #[arg(long, env = "TARMAC_DRAIN", default_value_t = 60)]
    pub drain_seconds: u64,
}

type Scheduler = SchedulerServer<LogicalPlanNode, PhysicalPlanNode>;

/// The last heartbeat of each client, by its id, the last word of the names of its queries.
type Leases = Arc<Mutex<HashMap<String, Instant>>>;

/// Runs until `shutdown` is done and the running jobs have ended, or been given their time.
pub async fn run(
    args: &SchedulerArgs,
    tls: &TlsArgs,
    options: Vec<Setting>,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    if args.with_parent {
        end_with_parent();
    }
    let tls = tls.load()?;
    let task_memory = TaskMemory::default();
    let config = Arc::new(config(args, &tls, options, task_memory.clone()));
    config.validate()?;
    let cluster = BallistaCluster::new_from_config(&config).await?;
    let scheduler: Scheduler = create_scheduler(cluster, config).await?;
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    tracing::info!(address = %listener.local_addr()?, "scheduler is ready");

    let leases = Leases::default();
    let grpc = SchedulerGrpcServer::new(scheduler.clone())
        .max_encoding_message_size(MESSAGE_BYTES_MAX as usize)
        .max_decoding_message_size(MESSAGE_BYTES_MAX as usize);
    let api = ballista_scheduler::api::get_routes(Arc::new(scheduler.clone()));
    let router = api
        .clone()
        .merge(routes(&scheduler, Arc::clone(&leases), api)?)
        .merge(Routes::new(grpc).prepare().into_axum_router())
        .layer(axum::middleware::from_fn_with_state(task_memory, refuse_strangers))
        .layer(axum::middleware::from_fn(refuse_unknown_paths))
        .layer(axum::middleware::map_request(with_peer));
    let mut server = Server::builder().accept_http1(true);
    if let Some(tls) = tls.server_config() {
        server = server.tls_config(tls)?;
    }
    // without TCP_NODELAY small answers wait for acknowledgements: 40 ms a query
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let serving = server.add_routes(Routes::from(router)).serve_with_incoming(incoming);
    let timeout = Duration::from_secs(args.client_timeout_seconds);
    let drain = Duration::from_secs(args.drain_seconds);
    tokio::select! {
        served = serving => Ok(served?),
        () = reap(&scheduler, &leases, timeout) => Ok(()),
        () = async { shutdown.await; drained(&scheduler, drain).await } => Ok(()),
    }
}

fn config(
    args: &SchedulerArgs,
    tls: &Tls,
    options: Vec<Setting>,
    task_memory: TaskMemory,
) -> SchedulerConfig {
    let host = args.external_host.clone().unwrap_or_else(|| args.listen.ip().to_string());
    let state = move |config| {
        let runtime = session::runtime(&options, None).map_err(external)?;
        session::state(config, runtime, task_memory.bytes(std::time::Instant::now()))
            .map_err(external)
    };
    SchedulerConfig {
        external_host: host,
        bind_host: args.listen.ip().to_string(),
        bind_port: args.listen.port(),
        scheduling_policy: tls.scheduling_policy(),
        task_distribution: TaskDistributionPolicy::RoundRobin,
        executor_timeout_seconds: args.executor_timeout_seconds,
        expire_dead_executor_interval_seconds: 1,
        finished_job_data_clean_up_interval_seconds: RESULT_SECONDS,
        no_executors_grace_period_seconds: args.no_executors_grace_seconds,
        grpc_server_max_decoding_message_size: MESSAGE_BYTES_MAX,
        grpc_server_max_encoding_message_size: MESSAGE_BYTES_MAX,
        grpc_client_max_message_size: MESSAGE_BYTES_MAX,
        override_config_producer: Some(session::config_producer(tls)),
        override_session_builder: Some(Arc::new(state)),
        override_logical_codec: Some(Arc::new(LogicalCodec::default())),
        override_physical_codec: Some(Arc::new(PhysicalCodec::default())),
        override_create_grpc_client_endpoint: Some(tls.endpoint(AGENT)),
        use_tls: tls.is_on(),
        // Ballista lets pages of a site of its own read the REST interface; ours are none
        cors_allowed_origins: format!("{}://{}", tls.scheme(), args.listen),
        ..SchedulerConfig::default()
    }
}

fn external(error: anyhow::Error) -> datafusion::common::DataFusionError {
    datafusion::common::DataFusionError::External(error.into())
}

/// Refuses executors that are not Tarmac's of this version: they lack our functions, or would
/// compute other bytes, and their failures would not say so.
async fn refuse_strangers(
    State(task_memory): State<TaskMemory>,
    request: Request,
    next: Next,
) -> Response {
    let is_from_executor =
        EXECUTOR_CALLS.iter().any(|call| request.uri().path().ends_with(&format!("/{call}")));
    let agent = request.headers().get(USER_AGENT).and_then(|agent| agent.to_str().ok());
    let agent = agent.unwrap_or("unknown").to_owned();
    if is_from_executor && agent.split_whitespace().next() != Some(AGENT) {
        tracing::warn!(agent, "executor is refused");
        let words = format!("this scheduler is {AGENT}, the executor is {agent}");
        return tonic::Status::failed_precondition(words).into_http();
    }
    if is_from_executor {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
        task_memory.note(peer.map(|peer| peer.0.ip()), &agent, std::time::Instant::now());
    }
    next.run(request).await
}

/// Answers 404 where Ballista would answer anything: a request that is no gRPC with an empty reply
/// of gRPC, and `/` with the way to a page of its own, which is told our address.
async fn refuse_unknown_paths(request: Request, next: Next) -> Response {
    let is_ours = |path: &str| path.starts_with("/api/") || PROBES.contains(&path);
    let kind = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let is_grpc = kind.is_some_and(|kind| kind.starts_with(b"application/grpc"));
    if !is_grpc && !is_ours(request.uri().path()) {
        return StatusCode::NOT_FOUND.into_response();
    }
    next.run(request).await
}

/// Says where a request comes from in the way that Ballista asks: it takes an executor that does
/// not give its host for one that is there.
async fn with_peer(mut request: Request) -> Request {
    let extensions = request.extensions();
    let plain = extensions.get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
    let tls = extensions.get::<TlsConnectInfo<TcpConnectInfo>>();
    let peer = plain.or_else(|| tls.and_then(|info| info.get_ref().remote_addr()));
    if let Some(peer) = peer {
        request.extensions_mut().insert(ConnectInfo(peer));
    }
    request
}

/// What we serve beside Ballista's own routes, `api`.
fn routes(scheduler: &Scheduler, leases: Leases, api: Router) -> Result<Router> {
    let process = Arc::new(ProcessMetrics::new("scheduler")?);
    let lease = |State(leases): State<Leases>, Path(client): Path<String>| async move {
        let mut leases = leases.lock();
        if leases.len() >= LEASES_MAX && !leases.contains_key(&client) {
            let oldest = leases.iter().min_by_key(|(_, at)| **at).map(|(id, _)| id.clone());
            oldest.and_then(|id| leases.remove(&id));
        }
        leases.insert(client, Instant::now());
        StatusCode::NO_CONTENT
    };
    let scheduler = scheduler.clone();
    let is_ready = || async move {
        match scheduler.is_ready() {
            true => (StatusCode::OK, "ok"),
            false => (StatusCode::SERVICE_UNAVAILABLE, "there are no executors"),
        }
    };
    let metrics = |mut request: Request| async move {
        *request.uri_mut() = Uri::from_static("/api/metrics");
        let response = api.clone().call(request).await.into_response();
        let bytes = to_bytes(response.into_body(), METRICS_BYTES_MAX).await;
        let bytes = bytes.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        let process = process.to_text().map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        let text = String::from_utf8_lossy(&bytes).into_owned() + &process;
        Ok::<_, StatusCode>(([(CONTENT_TYPE, telemetry::CONTENT_TYPE)], text))
    };
    Ok(Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(is_ready))
        .route("/metrics", get(metrics))
        .route("/api/lease/{client}", post(lease))
        .with_state(leases))
}

/// Cancels what clients run that sent a heartbeat once and send none any more. Never ends.
async fn reap(scheduler: &Scheduler, leases: &Leases, timeout: Duration) {
    loop {
        tokio::time::sleep(TICK).await;
        let expired: Vec<String> = {
            let mut leases = leases.lock();
            leases.extract_if(|_, at| at.elapsed() > timeout).map(|(job, _)| job).collect()
        };
        if expired.is_empty() {
            continue;
        }
        for (job_id, name) in running(scheduler).await {
            if expired.iter().any(|client| is_of(&name, client)) {
                tracing::warn!(job = name, job_id, "client is gone, its query is cancelled");
                if let Err(error) = scheduler.cancel_job(job_id.into()).await {
                    tracing::warn!(job = name, %error, "query is not cancelled");
                }
            }
        }
    }
}

/// Done when no job runs, after `patience` at the latest.
async fn drained(scheduler: &Scheduler, patience: Duration) {
    let started = Instant::now();
    loop {
        let n_running = running(scheduler).await.len();
        if n_running == 0 || started.elapsed() > patience {
            tracing::info!(n_running, "scheduler ends");
            return;
        }
        tokio::time::sleep(TICK).await;
    }
}

/// Ids and names of the jobs that wait or run.
async fn running(scheduler: &Scheduler) -> Vec<(String, String)> {
    use ballista_core::serde::protobuf::job_status::Status;
    let jobs = scheduler.state.task_manager.get_all_jobs().await.unwrap_or_default();
    let is_running = |status: &Option<Status>| {
        matches!(status, None | Some(Status::Queued(_) | Status::Running(_)))
    };
    jobs.into_iter()
        .filter(|job| is_running(&job.status.status))
        .map(|job| (job.job_id.to_string(), job.job_name))
        .collect()
}
