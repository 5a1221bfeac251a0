//! `executor`: runs the tasks of a scheduler.

use anyhow::Result;
use clap::Parser;
use cluster::config::{Environment, log};
use cluster::executor::{ExecutorArgs, run};
use cluster::tls::TlsArgs;

/// An executor of a Tarmac cluster.
#[derive(Parser)]
#[command(version, about = "An executor of a Tarmac cluster: runs the tasks of a scheduler")]
struct Cli {
    #[command(flatten)]
    executor: ExecutorArgs,
    #[command(flatten)]
    tls: TlsArgs,
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    log("info");
    run(&cli.executor, &cli.tls, Environment::read().store_options).await
}
