//! A cluster on this machine, for trying it: a scheduler and executors as child processes, started
//! again when one ends.

use std::ffi::OsString;
use std::net::{Ipv4Addr, TcpListener};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Error, Result, bail, ensure};
use clap::Args;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::memory;
use crate::remote::Remote;
use crate::tls::{Tls, TlsArgs};

/// Highest port that is tried: above it, systems give ports to outgoing connections.
const PORT_MAX: u16 = 32_000;
/// How long the cluster may take to be ready.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long a child may take to end after SIGTERM.
const END_PATIENCE: Duration = Duration::from_secs(70);
const POLL: Duration = Duration::from_millis(100);
/// Time until a child that has ended is started again: the first pause, and what it grows to by
/// doubling.
const RESTART_PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How far the cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Starting,
    Ready,
    /// Executors first: they leave the scheduler's list.
    EndingExecutors,
    EndingScheduler,
}

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
    /// Memory of each executor for joins, groups and sorts, in MiB [default: most of
    /// this machine's, divided among them]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub executor_memory: Option<u64>,
}

/// Starts the cluster, whose programs have `options` too, calls `on_ready` with what it is and its
/// address (`df://host:port`), and stops it when `shutdown` is done. A child that ends before it is
/// ready ends all; later it is started again.
pub async fn run(
    args: &ClusterArgs,
    tls: &TlsArgs,
    options: &[OsString],
    on_ready: impl FnOnce(&str, &str),
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let loaded = tls.load()?;
    let n_executors = usize::from(args.executors);
    let ports = free_ports(args.port, 1 + 2 * n_executors)?;
    let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cores = args.cores.unwrap_or((n_cores / n_executors).max(1));
    let memory_mib = args.executor_memory.unwrap_or_else(|| memory::share_mib(n_executors));
    let address = format!("127.0.0.1:{}", ports[0]);

    let mut programs = vec![Program::new("scheduler", &["--listen", &address], tls, options)];
    for pair in ports[1..].chunks_exact(2) {
        let (listen, task_port) = (format!("127.0.0.1:{}", pair[0]), pair[1].to_string());
        let (cores, memory) = (cores.to_string(), memory_mib.to_string());
        let mut arguments = vec!["--scheduler", &address, "--listen", &listen];
        arguments.extend(["--cores", &cores, "--executor-memory", &memory]);
        // with certificates an executor asks for its tasks
        if !loaded.is_on() {
            arguments.extend(["--task-port", &task_port]);
        }
        programs.push(Program::new("executor", &arguments, tls, options));
    }
    let (phase, seen) = watch::channel(Phase::Starting);
    let mut kept = JoinSet::new();
    for program in programs {
        let child = program.start()?;
        kept.spawn(program.keep(child, seen.clone()));
    }
    tokio::pin!(shutdown);
    let mut served = tokio::select! {
        () = &mut shutdown => Ok(()),
        started = wait_until_ready(&address, &loaded, n_executors * cores) => match started {
            Ok(()) => {
                phase.send_replace(Phase::Ready);
                let cluster = format!(
                    "cluster is ready: scheduler and {n_executors} executors with {cores} cores \
                     and {memory_mib} MiB each{}; Ctrl-C stops it",
                    if loaded.is_on() { ", encrypted" } else { "" }
                );
                on_ready(&cluster, &format!("df://{address}"));
                shutdown.await;
                Ok(())
            }
            Err(error) => Err(error),
        },
        Some(ended) = kept.join_next() => ended.map_err(Error::from).flatten(),
    };
    phase.send_replace(Phase::EndingExecutors);
    loop {
        if kept.len() <= 1 {
            phase.send_replace(Phase::EndingScheduler);
        }
        let Some(ended) = kept.join_next().await else { return served };
        // the others are ended in their order all the same
        served = served.and(ended.map_err(Error::from).flatten());
    }
}

/// One of the cluster's programs: this program again.
struct Program {
    name: &'static str,
    arguments: Vec<OsString>,
    /// When it is to end.
    ends_in: Phase,
}

impl Program {
    fn new(name: &'static str, arguments: &[&str], tls: &TlsArgs, options: &[OsString]) -> Self {
        let own = [&[name, "--with-parent"], arguments].concat();
        let own = own.into_iter().map(OsString::from).chain(tls.arguments());
        let arguments = own.chain(options.iter().cloned()).collect();
        let is_scheduler = name == "scheduler";
        let ends_in = if is_scheduler { Phase::EndingScheduler } else { Phase::EndingExecutors };
        Self { name, arguments, ends_in }
    }

    fn start(&self) -> Result<Child> {
        let program = std::env::current_exe().context("this program's file")?;
        Command::new(program)
            .args(&self.arguments)
            // open as long as we live
            .stdin(Stdio::piped())
            // Ctrl-C is for us; we stop the children in order
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start the {}", self.name))
    }

    /// Starts it again whenever it ends, until all end; fails when it ends before the cluster is
    /// ready.
    async fn keep(self, mut child: Child, mut phase: watch::Receiver<Phase>) -> Result<()> {
        let known = phase.clone();
        let ends_in = self.ends_in;
        let is_over = async move { _ = phase.wait_for(|phase| *phase >= ends_in).await };
        tokio::pin!(is_over);
        let (first, last) = RESTART_PAUSES;
        let (mut pause, mut started) = (first, Instant::now());
        loop {
            // waiting would close it
            let _open = child.stdin.take();
            let status = tokio::select! {
                status = child.wait() => status.context("it cannot be waited for")?,
                () = &mut is_over => {
                    end(self.name, &mut child).await;
                    return Ok(());
                }
            };
            let is_ready = *known.borrow() >= Phase::Ready;
            ensure!(is_ready, "the {} has ended: {status}", self.name);
            // one that worked for a while has not failed again
            if started.elapsed() > last {
                pause = first;
            }
            tracing::warn!(%status, ?pause, "the {} has ended and is started again", self.name);
            child = loop {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = &mut is_over => return Ok(()),
                }
                pause = last.min(2 * pause);
                started = Instant::now();
                match self.start() {
                    Ok(child) => break child,
                    Err(error) => tracing::warn!(error = format!("{error:#}"), ?pause, "once more"),
                }
            };
        }
    }
}

/// Ends this program by SIGTERM when the one that has started it is gone, however it ended: then
/// its end of our standard input is closed.
pub fn end_with_parent() {
    std::thread::spawn(|| {
        _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        _ = signal::raise(Signal::SIGTERM);
    });
}

async fn wait_until_ready(address: &str, tls: &Tls, n_cores: usize) -> Result<()> {
    let remote = Remote::new(address, tls, "cluster")?;
    let started = Instant::now();
    loop {
        match remote.size().await.map(|size| size.n_cores) {
            Ok(n) if n >= n_cores => return Ok(()),
            _ if started.elapsed() < START_PATIENCE => tokio::time::sleep(POLL).await,
            Ok(n) => bail!("the cluster has {n} of {n_cores} cores after {START_PATIENCE:?}"),
            Err(error) => return Err(error.context("the cluster does not start")),
        }
    }
}

async fn end(name: &str, child: &mut Child) {
    let Some(pid) = child.id() else { return };
    let sent = signal::kill(Pid::from_raw(pid as i32), Signal::SIGTERM);
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
