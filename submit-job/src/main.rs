//! `submit-job`: the one program. Starts jobs and services, and looks after them.

use anyhow::Result;
use clap::CommandFactory;
use clap::error::ErrorKind;
use cluster::{executor, local_cluster, scheduler};
use jobs::lake::Lake;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use submit_job::batch::{self, FAILED, SUCCEEDED};
use submit_job::cli::{Administration, Batch, Cli, Command, Service};
use submit_job::config::{Environment, now, signal};
use submit_job::config_show::run_config;
use submit_job::context::{self, JobContext};
use submit_job::dlq::run_dlq;
use submit_job::doctor::run_doctor;
use submit_job::generate::{run_completions, run_man};
use submit_job::healthy::run_healthy;
use submit_job::ingest::run_rejects;
use submit_job::log::{log, traces};
use submit_job::models::{promote_if_better, run_models};
use submit_job::offsets::run_offsets;
use submit_job::progress::{print, say, say_error};
use submit_job::retention::run_gc;
use submit_job::stream::{StreamAction, StreamArgs, run_stream};
use submit_job::web::{listen, run_web};
use submit_job::{demo, sql};

/// Stack of a thread: plans are trees that are walked by recursion, and a statement that is nested
/// deeply must not end a scheduler that others use. Taken as it is used.
const STACK_BYTES: usize = 64 * 1024 * 1024;
/// Open files that are asked for: connections, files of the store and of flights.
const OPEN_FILES_MAX: u64 = 65_536;

fn main() -> Result<()> {
    let around = Environment::read();
    let (cli, file) = Cli::read(&around.arguments);
    let around = around.with(file);
    raise_open_files();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().thread_stack_size(STACK_BYTES).build()?;
    let main = std::thread::Builder::new().stack_size(STACK_BYTES);
    let running = main.spawn(move || {
        let code = runtime.block_on(run(cli, around)).unwrap_or_else(|error| {
            say_error(&format!("{error:#}"));
            FAILED
        });
        // not by returning: that would wait for what was cancelled and has not noticed yet
        std::process::exit(code.into())
    })?;
    _ = running.join();
    // only a panic comes here; it has been reported
    std::process::exit(FAILED.into())
}

/// Takes as many open files as this process may have, within reason: the usual 1,024 are fewer than
/// the connections that pages are served on. One that may not goes on with what it has.
fn raise_open_files() {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let wanted = hard.min(OPEN_FILES_MAX);
    if soft < wanted {
        _ = setrlimit(Resource::RLIMIT_NOFILE, wanted, hard);
    }
}

/// Runs the program with its log and its traces.
async fn run(cli: Cli, around: Environment) -> Result<u8> {
    let traces = traces(cli.otlp_endpoint.as_deref(), cli.role());
    log(log_level(&cli), cli.log_format, traces.as_ref().ok().and_then(Option::as_ref));
    let traces = traces?;
    let ended = run_command(cli, around).await;
    if let Some(traces) = traces {
        traces.end();
    }
    ended
}

async fn run_command(cli: Cli, around: Environment) -> Result<u8> {
    if !around.file.path.as_os_str().is_empty() {
        tracing::info!(file = %around.file.path.display(), "options are read");
    }
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
    match command {
        Command::Batch(Batch::Sql(args)) if args.is_shell() => {
            let name = cli.name.as_deref().unwrap_or("shell");
            sql::interact(&open(&cli, &around, name).await?, around.shell_history).await?;
        }
        Command::Batch(job) => return batch::run(&cli, job, &around, signal()).await,
        Command::Service(service) => serve(&cli, service, &around).await?,
        Command::Administration(Administration::Dlq(args)) => {
            let lake = Lake::open(&cli.session.data, &around.store_options)?;
            run_dlq(&lake, args, &args.kafka().properties(&around)?, &around).await?;
        }
        Command::Administration(Administration::Rejects(args)) => {
            run_rejects(&Lake::open(&cli.session.data, &around.store_options)?, args).await?;
        }
        Command::Administration(Administration::Models(args)) => {
            if let Some(model) = args.contender() {
                promote_if_better(&open(&cli, &around, "promote").await?, model).await?;
            } else {
                let lake = Lake::open(&cli.session.data, &around.store_options)?;
                run_models(&lake, args).await?;
            }
        }
        Command::Administration(Administration::Config(args)) => {
            run_config(args, &Cli::configurable(), &cli.given, &around)?
        }
        Command::Administration(Administration::Doctor(args)) => {
            let root = Cli::configurable();
            let is_well = run_doctor(args, &cli.session, &root, &around).await?;
            return Ok(if is_well { SUCCEEDED } else { FAILED });
        }
        Command::Administration(Administration::Healthy(args)) => run_healthy(args).await?,
        Command::Administration(Administration::Completions(args)) => {
            run_completions(args, Cli::command())?
        }
        Command::Administration(Administration::Man(args)) => run_man(args, Cli::command())?,
        Command::Administration(Administration::Gc(args)) => {
            run_gc(&Lake::open(&cli.session.data, &around.store_options)?, args, now()).await?;
        }
    }
    Ok(SUCCEEDED)
}

/// Services log what they do, commands only what a person must know.
fn log_level(cli: &Cli) -> &'static str {
    use Service::{Executor, Scheduler, Stream, Web};
    match &cli.command {
        Some(Command::Service(Stream(StreamArgs::Instead(_)))) => "warn",
        Some(Command::Service(Stream(_) | Web(_) | Scheduler(_) | Executor(_))) => "info",
        _ => "warn",
    }
}

/// Runs a service until it is stopped.
async fn serve(cli: &Cli, service: &Service, around: &Environment) -> Result<()> {
    let (options, tls) = (&around.store_options, &cli.session.tls);
    match service {
        Service::Demo(args) => {
            let opened = open(cli, around, "demo").await?;
            opened.lake.create()?;
            demo::run(&opened, args, now, signal()).await
        }
        Service::Stream(StreamArgs::Answer(args)) => {
            let shutdown = signal();
            let lake = Lake::open(&cli.session.data, options)?;
            let properties = args.kafka.properties(around)?;
            args.kafka.topics()?;
            let store = args.store.open(&lake, around).await?;
            run_stream(&lake, &store, args, &properties, now, shutdown).await
        }
        Service::Stream(StreamArgs::Instead(action)) => {
            let StreamAction::Offsets(args) = action.as_ref();
            let lake = Lake::open(&cli.session.data, options)?;
            let properties = args.group().kafka.properties(around)?;
            let store = args.group().store.open(&lake, around).await?;
            run_offsets(&store, args, &properties).await
        }
        Service::Web(args) => {
            let shutdown = signal();
            let lake = Lake::open(&cli.session.data, options)?;
            let properties = args.kafka.properties(around)?;
            let listener = listen(args.listen).await?;
            let store = args.store.open(&lake, around).await?;
            run_web(listener, store, args, &properties, now, shutdown).await
        }
        Service::Cluster(args) => {
            let on_ready = |cluster: &str, address: &str| {
                say(cluster);
                // the address is told in any case
                print(address).unwrap_or_else(|error| say(&format!("{error:#}: {address}")));
            };
            local_cluster::run(args, tls, &cli.for_children(), on_ready, signal()).await
        }
        Service::Scheduler(args) => scheduler::run(args, tls, options.clone(), signal()).await,
        Service::Executor(args) => executor::run(args, tls, options.clone()).await,
    }
}

/// What a job runs in that leaves no record.
async fn open(cli: &Cli, around: &Environment, name: &str) -> Result<JobContext> {
    let id = context::run_name(now());
    let master = cli.session.master();
    context::open(&cli.session, &master, name, &id, &around.store_options).await
}
