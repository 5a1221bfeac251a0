//! An executor: runs the tasks of the scheduler's stages and keeps what they make until it is
//! fetched.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use arrow_flight::flight_service_server::FlightServiceServer;
use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use ballista_core::registry::BallistaFunctionRegistry;
use ballista_executor::ArrowFlightServerProvider;
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use ballista_executor::flight_service::BallistaFlightService;
use ballista_executor::shutdown::Shutdown;
use clap::Args;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::SessionConfig;
use telemetry::ProcessMetrics;
use tokio::net::TcpListener;
use tonic::transport::{Server, ServerTlsConfig};

use crate::codec::{LogicalCodec, MESSAGE_BYTES_MAX, PhysicalCodec};
use crate::local_cluster::end_with_parent;
use crate::memory;
use crate::scheduler::RESULT_SECONDS;
use crate::session;
use crate::settings::Setting;
use crate::tls::{Tls, TlsArgs};

/// Seconds that an executor waits for its scheduler to start.
const CONNECT_SECONDS: u16 = 60;
/// Seconds after which what a scheduler that is gone did not sweep away is.
const SHUFFLE_SECONDS: u64 = 2 * RESULT_SECONDS;
/// Seconds between two sweeps.
const SWEEP_SECONDS: u64 = 300;

/// Arguments of `executor`.
#[derive(Debug, Clone, Args)]
pub struct ExecutorArgs {
    /// End when the program that has started this one is gone
    #[arg(long, hide = true)]
    pub with_parent: bool,
    /// The scheduler, host:port
    #[arg(long, env = "TARMAC_SCHEDULER", default_value = "127.0.0.1:20050")]
    pub scheduler: String,
    /// Where other executors and clients fetch results
    #[arg(long, env = "TARMAC_EXECUTOR_LISTEN", default_value = "127.0.0.1:20051")]
    pub listen: SocketAddr,
    /// Where /metrics and /healthz are served; port 0 is any, and the log says which
    #[arg(long, env = "TARMAC_EXECUTOR_METRICS_LISTEN", default_value = "127.0.0.1:0")]
    pub metrics_listen: SocketAddr,
    /// Port on which the scheduler starts tasks, without TLS [default: the next one]
    #[arg(long, env = "TARMAC_EXECUTOR_TASK_PORT")]
    pub task_port: Option<u16>,
    /// Host name that the others reach it by [default: the address of --listen, or where the
    /// scheduler sees it come from]
    #[arg(long, env = "TARMAC_EXECUTOR_HOST")]
    pub external_host: Option<String>,
    /// Tasks at a time [default: one a core]
    #[arg(long, env = "TARMAC_EXECUTOR_CORES")]
    pub cores: Option<usize>,
    /// Memory for joins, groups and sorts, in MiB, in equal parts for the tasks; beyond it they
    /// spill or fail [default: most of this machine's, or of its container's]
    #[arg(
        long,
        env = "TARMAC_EXECUTOR_MEMORY",
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub executor_memory: Option<u64>,
    /// Directory for results and spilled rows
    #[arg(long, env = "TARMAC_WORK", default_value = "tarmac-work")]
    pub work: PathBuf,
    /// Seconds between two heartbeats, without TLS
    #[arg(long, env = "TARMAC_HEARTBEAT", default_value_t = 5)]
    pub heartbeat_seconds: u64,
}

/// Runs until SIGTERM or Ctrl-C, and then until its tasks have ended.
pub async fn run(args: &ExecutorArgs, tls: &TlsArgs, options: Vec<Setting>) -> Result<()> {
    if args.with_parent {
        end_with_parent();
    }
    let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cores = args.cores.unwrap_or(n_cores).max(1);
    let memory_mib = args.executor_memory.unwrap_or_else(|| memory::share_mib(1));
    let memory_bytes = memory_mib.saturating_mul(1024 * 1024);
    let tls = tls.load()?;
    let mut config = config(args, &tls, options)?;
    config.vcores = cores;
    config.memory_pool_size = Some(memory_bytes);
    // the scheduler plans joins by it
    let agent = memory::agent(&args.listen, memory_bytes / cores as u64);
    config.override_create_grpc_client_endpoint = Some(tls.endpoint(agent));
    tracing::info!(
        scheduler = args.scheduler,
        listen = %args.listen,
        cores,
        memory_mib,
        memory_mib_of_a_task = memory_mib / cores as u64,
        "executor starts"
    );
    let shown = show(args.metrics_listen).await?;
    let running = start_executor_process(Arc::new(config));
    let what = || format!("executor on {} of scheduler {}", args.listen, args.scheduler);
    tokio::select! {
        ended = running => ended.with_context(what),
        ended = shown => ended.context("metrics are not served any more"),
    }
}

fn config(args: &ExecutorArgs, tls: &Tls, options: Vec<Setting>) -> Result<ExecutorProcessConfig> {
    let (host, port) = args.scheduler.rsplit_once(':').context("--scheduler is not host:port")?;
    let work = work_directory(&args.work, args.listen)?;
    let state =
        session::state(session::cluster_config(tls), session::runtime(&options, None)?, None)?;
    let registry = BallistaFunctionRegistry::from(&state);
    let spill = work.clone();
    let runtime = move |_: &SessionConfig| {
        let registry = session::stores(&options);
        let builder = RuntimeEnvBuilder::new().with_object_store_registry(registry);
        builder.with_temp_file_path(spill.clone()).build_arc()
    };
    Ok(ExecutorProcessConfig {
        bind_host: args.listen.ip().to_string(),
        external_host: host_of(args),
        port: args.listen.port(),
        grpc_port: args.task_port.unwrap_or_else(|| args.listen.port().wrapping_add(1)),
        scheduler_host: host.to_owned(),
        scheduler_port: port.parse().context("--scheduler is not host:port")?,
        scheduler_connect_timeout_seconds: CONNECT_SECONDS,
        task_scheduling_policy: tls.scheduling_policy(),
        work_dir: Some(work.display().to_string()),
        job_data_ttl_seconds: SHUFFLE_SECONDS,
        job_data_clean_up_interval_seconds: SWEEP_SECONDS,
        grpc_max_decoding_message_size: MESSAGE_BYTES_MAX,
        grpc_max_encoding_message_size: MESSAGE_BYTES_MAX,
        executor_heartbeat_interval_seconds: args.heartbeat_seconds,
        override_function_registry: Some(Arc::new(registry)),
        override_runtime_producer: Some(Arc::new(runtime)),
        override_config_producer: Some(session::config_producer(tls)),
        override_logical_codec: Some(Arc::new(LogicalCodec::default())),
        override_physical_codec: Some(Arc::new(PhysicalCodec::default())),
        override_arrow_flight_service: tls.server_config().map(flight_with_tls),
        ..ExecutorProcessConfig::default()
    })
}

/// Serves `/healthz` and `/metrics`, of this process: of tasks the scheduler knows more. The future
/// that is returned does it.
async fn show(listen: SocketAddr) -> Result<impl Future<Output = std::io::Result<()>>> {
    let listener = TcpListener::bind(listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {listen}"))?;
    let url = format!("http://{}/metrics", listener.local_addr()?);
    tracing::info!(url, "metrics are served");
    let process = Arc::new(ProcessMetrics::new("executor")?);
    let metrics = move || {
        let text = process.to_text().map_err(|_| StatusCode::INTERNAL_SERVER_ERROR);
        async { text.map(|text| ([(CONTENT_TYPE, telemetry::CONTENT_TYPE)], text)) }
    };
    let router =
        Router::new().route("/healthz", get(async || "ok\n")).route("/metrics", get(metrics));
    Ok(axum::serve(listener, router).into_future())
}

/// The host that others reach the executor by; none where it listens at all addresses, as in a
/// container: the scheduler sees where it comes from.
fn host_of(args: &ExecutorArgs) -> Option<String> {
    match (&args.external_host, args.listen.ip()) {
        (Some(host), _) => Some(host.clone()),
        (None, ip) if ip.is_unspecified() => None,
        (None, IpAddr::V6(ip)) => Some(format!("[{ip}]")),
        (None, ip) => Some(ip.to_string()),
    }
}

/// A directory of this executor's own, so that several on a machine do not sweep each other's.
fn work_directory(work: &Path, listen: SocketAddr) -> Result<PathBuf> {
    let directory = work.join(format!("executor-{}", listen.port()));
    let made = std::fs::create_dir_all(&directory).and_then(|()| directory.canonicalize());
    made.with_context(|| format!("--work {}", directory.display()))
}

/// Ballista's service for results, encrypted.
fn flight_with_tls(tls: ServerTlsConfig) -> Arc<ArrowFlightServerProvider> {
    Arc::new(move |work: String, address: SocketAddr, mut shutdown: Shutdown, _| {
        let tls = tls.clone();
        tokio::spawn(async move {
            let service = FlightServiceServer::new(BallistaFlightService::new(work))
                .max_decoding_message_size(MESSAGE_BYTES_MAX as usize)
                .max_encoding_message_size(MESSAGE_BYTES_MAX as usize);
            let server = Server::builder().tcp_nodelay(true).tls_config(tls)?.add_service(service);
            Ok(server.serve_with_shutdown(address, shutdown.recv()).await?)
        })
    })
}
