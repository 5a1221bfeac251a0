//! A cluster on this machine, for trying it: a scheduler and executors as child processes.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::remote::Remote;
use crate::tls::Tls;

/// Highest port that is tried: above it, systems give ports to outgoing connections.
const PORT_MAX: u16 = 32_000;
/// How long the cluster may take to be ready.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long a child may take to end after SIGTERM.
const END_PATIENCE: Duration = Duration::from_secs(70);
const POLL: Duration = Duration::from_millis(100);

/// Arguments of `cluster`.
#[derive(Debug, Args)]
pub struct ClusterArgs {
    /// Number of executors
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub executors: u16,
    /// First port to try; each executor takes two more
    #[arg(long, default_value_t = 20050)]
    pub port: u16,
    /// Tasks at a time of each executor [default: the cores, divided among them]
    #[arg(long)]
    pub cores: Option<usize>,
    /// Memory of each executor for joins, groups and sorts, in MiB
    #[arg(long, default_value_t = 1024)]
    pub executor_memory: u64,
}

/// Starts the cluster, calls `on_ready` with what it is and its address (`df://host:port`), and
/// stops it when `shutdown` is done or a child ends.
pub async fn run(
    args: &ClusterArgs,
    on_ready: impl FnOnce(&str, &str),
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let n_executors = usize::from(args.executors);
    let ports = free_ports(args.port, 1 + 2 * n_executors)?;
    let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cores = args.cores.unwrap_or((n_cores / n_executors).max(1));
    let address = format!("127.0.0.1:{}", ports[0]);

    let mut children = vec![("scheduler", child(&["scheduler", "--listen", &address])?)];
    let memory = args.executor_memory.to_string();
    for pair in ports[1..].chunks_exact(2) {
        children.push((
            "executor",
            child(&[
                "executor",
                "--scheduler",
                &address,
                "--listen",
                &format!("127.0.0.1:{}", pair[0]),
                "--task-port",
                &pair[1].to_string(),
                "--cores",
                &cores.to_string(),
                "--executor-memory",
                &memory,
            ])?,
        ));
    }
    let served = tokio::select! {
        ready = wait_until_ready(&address, n_executors * cores) => match ready {
            Ok(()) => {
                let cluster = format!(
                    "cluster is ready: scheduler and {n_executors} executors with {cores} cores \
                     each; Ctrl-C stops it"
                );
                on_ready(&cluster, &format!("df://{address}"));
                tokio::select! {
                    () = shutdown => Ok(()),
                    ended = first_end(&mut children) => ended,
                }
            }
            Err(error) => Err(error),
        },
    };
    // executors first: they leave the scheduler's list
    for (name, child) in children.iter_mut().rev() {
        end(name, child).await;
    }
    served
}

/// This program again, as one of the cluster's.
fn child(arguments: &[&str]) -> Result<Child> {
    let program = std::env::current_exe().context("this program's file")?;
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        // Ctrl-C is for us; we stop the children in order
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {}", arguments[0]))
}

async fn wait_until_ready(address: &str, n_cores: usize) -> Result<()> {
    let remote = Remote::new(address, &Tls::default(), "cluster")?;
    let started = Instant::now();
    loop {
        match remote.n_cores().await {
            Ok(n) if n >= n_cores => return Ok(()),
            _ if started.elapsed() < START_PATIENCE => tokio::time::sleep(POLL).await,
            Ok(n) => bail!("the cluster has {n} of {n_cores} cores after {START_PATIENCE:?}"),
            Err(error) => return Err(error.context("the cluster does not start")),
        }
    }
}

/// Fails when one of the children ends: they are meant to stay.
async fn first_end(children: &mut [(&str, Child)]) -> Result<()> {
    let waiting = children
        .iter_mut()
        .map(|(name, child)| Box::pin(async move { (*name, child.wait().await) }));
    let ((name, status), ..) = futures::future::select_all(waiting).await;
    bail!("the {name} has ended: {}", status.context("it cannot be waited for")?)
}

async fn end(name: &str, child: &mut Child) {
    let Some(pid) = child.id() else { return };
    let sent = Command::new("kill").args(["-TERM", &pid.to_string()]).status().await;
    if sent.is_err() || tokio::time::timeout(END_PATIENCE, child.wait()).await.is_err() {
        tracing::warn!(name, pid, "is killed");
        _ = child.kill().await;
    }
}

/// Ports that nothing listens on, from `first` on.
fn free_ports(first: u16, n: usize) -> Result<Vec<u16>> {
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let ports: Vec<u16> = (first..PORT_MAX).filter(is_free).take(n).collect();
    if ports.len() < n {
        bail!("there are no {n} free ports from {first} to {PORT_MAX}");
    }
    Ok(ports)
}
