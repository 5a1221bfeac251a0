//! `submit-job`: starts a job. Arguments, environment, logging and signals end here.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Result;
use chrono::{DateTime, Utc};
use clap::Parser;
use cluster::cli::{Cli, Command};
use cluster::progress::say;
use cluster::{demo, run, shell};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<()> {
    let quiet = match cli.command {
        Command::Stream(_) | Command::Web(_) => "info",
        _ => "warn",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(quiet));
    let is_terminal = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(is_terminal)
        .with_writer(std::io::stderr)
        .init();
    let opened = run::open(&cli, &object_store_options())?;
    match &cli.command {
        Command::Demo(args) => demo::run(&opened, args, now, signal()).await,
        Command::Ingest(args) => run::run_ingest(&opened, args, now()).await.map(|_| ()),
        Command::Train(args) => run::run_train_command(&opened, args).await,
        Command::Publish(args) => {
            let store = run::open_store(&opened.lake, args).await?;
            run::run_publish(&opened, &store).await
        }
        Command::Sql(args) => shell::run(&opened, args).await,
        Command::Stream(args) => {
            let store = run::open_store(&opened.lake, &args.store).await?;
            run::run_stream(&opened.lake, &store, args, now, signal()).await
        }
        Command::Web(args) => {
            let store = run::open_store(&opened.lake, &args.store).await?;
            run::run_web(store, args, signal()).await
        }
    }
}

/// The usual variables of an object store: `AWS_REGION` becomes `aws_region`.
#[expect(clippy::disallowed_methods, reason = "a program reads its environment here, once")]
fn object_store_options() -> Vec<(String, String)> {
    std::env::vars()
        .filter(|(name, _)| name.starts_with("AWS_"))
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect()
}

#[expect(clippy::disallowed_methods, reason = "the clock of the program")]
fn now() -> DateTime<Utc> {
    Utc::now()
}

/// Done at the first Ctrl-C or SIGTERM.
async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        tracing::error!("signals cannot be waited for; the program ends at once on one");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
