//! `scheduler`: plans the queries of clients into tasks for executors.

use anyhow::Result;
use clap::Parser;
use cluster::config::{Environment, log, signal};
use cluster::scheduler::{SchedulerArgs, run};
use cluster::tls::TlsArgs;

/// The scheduler of a Tarmac cluster.
#[derive(Parser)]
#[command(
    version,
    about = "The scheduler of a Tarmac cluster: plans queries into tasks for executors"
)]
struct Cli {
    #[command(flatten)]
    scheduler: SchedulerArgs,
    #[command(flatten)]
    tls: TlsArgs,
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    log("info");
    run(&cli.scheduler, &cli.tls, Environment::read().store_options, signal()).await
}
