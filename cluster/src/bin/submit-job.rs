//! `submit-job`: starts a job and looks after jobs.

use anyhow::Result;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use cluster::batch::{self, FAILED, SUCCEEDED};
use cluster::cli::{Cli, Command, Master};
use cluster::config::{Environment, log, now, signal};
use cluster::progress::say;
use cluster::streaming::{self, StreamAction, StreamArgs};
use cluster::{
    demo, dlq, executor, local_cluster, models, offsets, retention, run, scheduler, shell,
};
use jobs::lake::Lake;

#[tokio::main]
async fn main() {
    let code = run(Cli::parse(), Environment::read()).await.unwrap_or_else(|error| {
        say(&format!("error: {error:#}"));
        FAILED
    });
    // not by returning: that would wait for what was cancelled and has not noticed yet
    std::process::exit(code.into())
}

async fn run(cli: Cli, around: Environment) -> Result<u8> {
    use Command::{Cluster, Demo, Dlq, Executor, Gc, Models, Scheduler, Stream, Web};
    log(match cli.command {
        Some(Stream(StreamArgs::Instead(_))) => "warn",
        Some(Stream(_) | Web(_) | Scheduler(_) | Executor(_)) => "info",
        _ => "warn",
    });
    if let Some(id) = &cli.status {
        return batch::status(&cli, &around, id).await;
    } else if let Some(id) = &cli.kill {
        return batch::kill(&cli, &around, id).await;
    } else if let Some(id) = &cli.resume {
        return batch::resume(&cli, &around, id, signal()).await;
    } else if cli.list {
        return batch::list(&cli, &around).await;
    }
    let Some(command) = &cli.command else {
        Cli::command().error(ErrorKind::MissingSubcommand, "what to do?").exit()
    };
    if command.job().is_some() {
        return batch::run(&cli, &around, signal()).await;
    }
    let options = &around.store_options;
    match command {
        Cluster(args) => local_cluster::run(args, signal()).await?,
        Scheduler(args) => scheduler::run(args, &cli.tls, options.clone(), signal()).await?,
        Executor(args) => executor::run(args, &cli.tls, options.clone()).await?,
        Stream(args) => {
            let shutdown = signal();
            let lake = Lake::open(&cli.data, options)?;
            match args {
                StreamArgs::Instead(action) => {
                    let StreamAction::Offsets(args) = action.as_ref();
                    let group = args.group();
                    let properties = group.kafka.properties(&around)?;
                    let store = group.store.open(&lake, &around).await?;
                    offsets::run_offsets(&store, args, &properties).await?;
                }
                StreamArgs::Answer(args) => {
                    let properties = args.kafka.properties(&around)?;
                    args.kafka.topics()?;
                    let store = args.store.open(&lake, &around).await?;
                    streaming::run_stream(&lake, &store, args, &properties, now, shutdown).await?;
                }
            }
        }
        Web(args) => {
            let shutdown = signal();
            let lake = Lake::open(&cli.data, options)?;
            let properties = args.kafka.properties(&around)?;
            let store = args.store.open(&lake, &around).await?;
            run::run_web(store, args, &properties, now, shutdown).await?;
        }
        Dlq(args) => {
            let lake = Lake::open(&cli.data, options)?;
            dlq::run_dlq(&lake, args, &args.kafka().properties(&around)?, &around).await?;
        }
        Gc(args) => retention::run_gc(&Lake::open(&cli.data, options)?, args, now()).await?,
        Models(args) => models::run_models(&Lake::open(&cli.data, options)?, args).await?,
        _ => {
            let master = cli.master.clone().unwrap_or(Master::Local(None));
            let opened = run::open(&cli, &master, &run::run_name(now()), options).await?;
            match command {
                Demo(args) => demo::run(&opened, args, now, signal()).await?,
                _ => shell::interact(&opened, around.shell_history).await?,
            }
        }
    }
    Ok(SUCCEEDED)
}
