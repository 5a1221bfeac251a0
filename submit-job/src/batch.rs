//! Batch jobs from the command line: started, left alone, looked at, ended, resumed.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use cluster::remote::Remote;
use jobs::history::{self, Record, State};
use jobs::lake::Lake;
use jobs::lease;
use serde_json::Value;
use telemetry::traces;
use tracing::{Instrument, info_span};

use crate::cli::{Batch, Cli, Command};
use crate::config::{Environment, now};
use crate::context::{self, JobContext, Master, run_name};
use crate::distances::run_import_distances;
use crate::download::run_download;
use crate::driver::{self, Drive, JobOutcome, what_lacks, without_secrets};
use crate::enrich::run_enrich;
use crate::ingest::run_ingest;
use crate::live::run_evaluate_live;
use crate::predict::run_predict;
use crate::progress::{print, say, say_error};
use crate::publish::run_publish;
use crate::score::{Evaluate, run_evaluate, run_score};
use crate::sql;
use crate::train::run_train_command;

/// How long `--no-wait` waits for the job's process to begin.
const BEGIN_PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// Exit code of success.
pub const SUCCEEDED: u8 = 0;
/// Exit code of a failure.
pub const FAILED: u8 = 1;
/// Exit code when there is no such job.
const NO_SUCH_JOB: u8 = 3;
/// Exit code of `--status` while the job runs.
const RUNNING: u8 = 4;
/// Exit code of `--status` when the job's driver is gone.
const LOST: u8 = 5;
/// Exit code of a job that a person ended, as of a program that Ctrl-C ended.
const CANCELLED: u8 = 130;

fn exit_code(state: State) -> u8 {
    match state {
        State::Succeeded => SUCCEEDED,
        State::Failed => FAILED,
        State::Running => RUNNING,
        State::Lost => LOST,
        State::Cancelled => CANCELLED,
    }
}

/// Runs a batch job and keeps its record; returns the exit code.
pub async fn run(
    cli: &Cli,
    job: &Batch,
    around: &Environment,
    shutdown: impl Future<Output = ()>,
) -> Result<u8> {
    let id = cli.job_id.clone().unwrap_or_else(|| run_name(now()));
    if cli.job_id.is_some() {
        let lake = Lake::open(&cli.session.data, &around.store_options)?;
        let is_known = history::get(&lake, &id).await?.is_some();
        ensure!(!is_known, "there is a job {id} already; --resume goes on with it");
    }
    if cli.no_wait {
        return leave_alone(cli, around, &id, None).await;
    }
    let master = if job.has_session() { cli.session.master() } else { Master::Local(None) };
    let record = Record {
        name: cli.name.clone().unwrap_or_else(|| job.name().to_owned()),
        command: job.name().to_owned(),
        arguments: without_secrets(&around.arguments),
        master: master.to_string(),
        user: around.user.clone(),
        started: now(),
        alive: now(),
        ended: None,
        state: State::Running,
        error: None,
        result: Value::Null,
        id,
    };
    drive(cli, job, around, &master, record, shutdown).await
}

/// Runs the job of a record again, where it was.
pub async fn resume(
    cli: &Cli,
    around: &Environment,
    id: &str,
    shutdown: impl Future<Output = ()>,
) -> Result<u8> {
    let lake = Lake::open(&cli.session.data, &around.store_options)?;
    let Some(record) = history::get(&lake, id).await? else { return no_such_job(&lake, id) };
    let state = record.state_at(now());
    ensure!(state != State::Running, "{id} is running; its driver sent a heartbeat");
    ensure!(state != State::Succeeded, "{id} has succeeded already");
    if let Some(what) = what_lacks(&record.arguments) {
        bail!("{id} was started with {what}; start it again");
    }
    if cli.no_wait {
        return leave_alone(cli, around, id, Some(record)).await;
    }
    let line = ["submit-job"].into_iter().chain(record.arguments.iter().map(String::as_str));
    let earlier = Cli::parse_with(line, &around.file);
    let (mut earlier, _) = earlier.with_context(|| format!("arguments of {id}"))?;
    earlier.session.data.clone_from(&cli.session.data);
    earlier.session.tls = cli.session.tls.clone();
    let Some(Command::Batch(job)) = &earlier.command else { bail!("{id} is no batch job") };
    let recorded = record.master.parse::<Master>()?;
    let master = cli.session.master.clone().unwrap_or(recorded);
    let record = Record {
        master: master.to_string(),
        user: around.user.clone(),
        started: now(),
        alive: now(),
        ended: None,
        state: State::Running,
        error: None,
        ..record
    };
    drive(&earlier, job, around, &master, record, shutdown).await
}

async fn drive(
    cli: &Cli,
    job: &Batch,
    around: &Environment,
    master: &Master,
    record: Record,
    shutdown: impl Future<Output = ()>,
) -> Result<u8> {
    let id = record.id.clone();
    let opened =
        context::open(&cli.session, master, &record.name, &id, &around.store_options).await?;
    let JobContext { remote, shown, .. } = &opened;
    let lake = opened.lake.clone();
    let drive = Drive {
        lake: lake.clone(),
        remote: remote.clone(),
        shown: Arc::clone(shown),
        now,
        keeps_record: keeps_record(job, &lake, &record).await?,
    };
    let span = info_span!(
        target: telemetry::SPAN,
        parent: None,
        "job",
        otel.name = record.command,
        tarmac.job.id = record.id,
        tarmac.job.name = record.name,
    );
    let work = work(job, around, &opened).instrument(span.clone());
    let ended = drive.run(record, work, shutdown).await?;
    if let JobOutcome::Failed(error) = &ended {
        // what is wrong with a statement quotes it, and it may hold a secret
        let is_statement = matches!(job, Batch::Sql(_));
        let why = if is_statement { "failed".to_owned() } else { format!("{error:#}") };
        traces::fail(&span, &why);
    }
    drop(span);
    if drive.keeps_record
        && !matches!(ended, JobOutcome::Succeeded)
        // others need not wait until it counts as gone
        && let Err(error) = lease::release(&lake, &id).await
    {
        tracing::debug!(error = format!("{error:#}"), "what the job had is not given back");
    }
    match ended {
        JobOutcome::Succeeded => Ok(SUCCEEDED),
        JobOutcome::Cancelled => {
            say("cancelled");
            advise(&lake, &id).await;
            Ok(CANCELLED)
        }
        JobOutcome::Failed(error) => {
            say_error(&format!("{error:#}"));
            advise(&lake, &id).await;
            Ok(FAILED)
        }
    }
}

/// Whether a job leaves a record. What makes a data root does in any case, and what only reads
/// where it can.
///
/// Errors when the data root that a job needs is not there.
async fn keeps_record(job: &Batch, lake: &Lake, record: &Record) -> Result<bool> {
    match job {
        Batch::Download(_) | Batch::Ingest(_) | Batch::ImportDistances(_) | Batch::Enrich(_) => {
            lake.create()?;
        }
        Batch::Sql(_) if !lake.exists() => return Ok(false),
        Batch::Sql(_) => {
            if let Err(error) = record.put(lake).await {
                say(&format!("this job leaves no record: {error:#}"));
                return Ok(false);
            }
        }
        _ => ensure!(
            lake.exists(),
            "there is no data root {}; `submit-job ingest` makes it",
            lake.root()
        ),
    }
    Ok(true)
}

/// Says that a job can go on where it was, if it has left something to go on from.
async fn advise(lake: &Lake, id: &str) {
    let left = lake.list(&format!("training/{id}/")).await;
    if left.is_ok_and(|left| !left.is_empty()) {
        say(&format!("`submit-job --resume {id}` goes on from where it was"));
    }
}

/// The job itself; what came of it goes to its record.
async fn work(job: &Batch, around: &Environment, opened: &JobContext) -> Result<Value> {
    let lake = &opened.lake;
    match job {
        Batch::Download(args) => run_download(opened, args).await,
        Batch::Ingest(args) => run_ingest(opened, args, &around.store_options).await,
        Batch::ImportDistances(args) => {
            run_import_distances(opened, &args.store.open(lake, around).await?, args).await
        }
        Batch::Train(args) => run_train_command(opened, args).await,
        Batch::Evaluate(Evaluate { live, .. }) if live.live => {
            let store = live.store.open(lake, around).await?;
            let kafka = live.kafka.as_ref().map(|kafka| live.client.properties(kafka, around));
            let kafka = kafka.transpose()?;
            run_evaluate_live(opened, live, &store, kafka, now).await
        }
        Batch::Evaluate(args) => run_evaluate(opened, &args.model).await,
        Batch::Score(args) => run_score(opened, args).await,
        Batch::Publish(args) => {
            run_publish(opened, &args.store.open(lake, around).await?, args.again).await
        }
        Batch::Enrich(args) => run_enrich(&args.store.open(lake, around).await?, args, now()).await,
        Batch::Predict(args) => {
            let store = match args.needs_store() {
                true => Some(args.store.open(lake, around).await?),
                false => None,
            };
            run_predict(opened, args, store.as_ref(), &around.store_options, now).await
        }
        Batch::Sql(args) => sql::run(opened, args).await,
    }
}

/// Starts this program again, for the job alone, prints the job's id, and leaves it once its record
/// is another one than `before`.
async fn leave_alone(
    cli: &Cli,
    around: &Environment,
    id: &str,
    before: Option<Record>,
) -> Result<u8> {
    let lake = Lake::open(&cli.session.data, &around.store_options)?;
    // what it prints, such as rows, and what it says; on this machine also for an object store
    let log = match lake.local_path(&history::path(id, "log")?) {
        Some(path) => path,
        None => std::env::temp_dir().join(format!("submit-job-{id}.log")),
    };
    log.parent().map(std::fs::create_dir_all).transpose()?;
    // of a job that goes on, what it said before stays
    let file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(&log)
        .with_context(|| log.display().to_string())?;
    let log = log.display();
    let program = std::env::current_exe().context("this program's file")?;
    let is_told = before.is_some() || cli.job_id.is_some();
    let mut child = tokio::process::Command::new(program)
        .args(around.arguments.iter().filter(|argument| *argument != "--no-wait"))
        .args(["--job-id", id].into_iter().filter(|_| !is_told))
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        // Ctrl-C in this terminal is not for it
        .process_group(0)
        .spawn()
        .context("cannot start a process for the job")?;
    let started = tokio::time::Instant::now();
    let begun = |record: Option<Record>| record.map(|record| record.started);
    let before = begun(before);
    while begun(history::get(&lake, id).await?) == before {
        if let Some(status) = child.try_wait()? {
            // a job that leaves no record is over, too
            ensure!(status.success(), "the job's process has ended: {status}; see {log}");
            break;
        }
        ensure!(started.elapsed() < BEGIN_PATIENCE, "the job's process does not begin; see {log}");
        tokio::time::sleep(POLL).await;
    }
    say(&format!("what it prints goes to {log}"));
    print(id)?;
    Ok(SUCCEEDED)
}

/// Prints the record of a job; its state is the exit code.
pub async fn status(cli: &Cli, around: &Environment, id: &str) -> Result<u8> {
    let lake = Lake::open(&cli.session.data, &around.store_options)?;
    let Some(mut record) = history::get(&lake, id).await? else { return no_such_job(&lake, id) };
    record.state = record.state_at(now());
    print(&serde_json::to_string_pretty(&record)?)?;
    Ok(exit_code(record.state))
}

/// Ends a job.
pub async fn kill(cli: &Cli, around: &Environment, id: &str) -> Result<u8> {
    let lake = Lake::open(&cli.session.data, &around.store_options)?;
    let Some(record) = history::get(&lake, id).await? else { return no_such_job(&lake, id) };
    let remote = match record.master.parse()? {
        Master::Cluster(address) => Some(Remote::new(&address, &cli.session.tls.load()?, id)?),
        Master::Local(_) => None,
    };
    driver::kill(&lake, record, remote.as_ref(), now).await?;
    Ok(SUCCEEDED)
}

/// Lists the jobs, the last one first.
pub async fn list(cli: &Cli, around: &Environment) -> Result<u8> {
    let lake = Lake::open(&cli.session.data, &around.store_options)?;
    print(&format!(
        "{:<28} {:<12} {:<10} {:<20} {:>8}  {}",
        "id", "name", "state", "started", "seconds", "master"
    ))?;
    for record in history::list(&lake).await? {
        let until = record.ended.unwrap_or(record.alive);
        let seconds = (until - record.started).as_seconds_f64();
        print(&format!(
            "{:<28} {:<12} {:<10} {:<20} {seconds:>8.1}  {}",
            record.id,
            record.name,
            record.state_at(now()).to_string(),
            record.started.format("%Y-%m-%d %H:%M:%S"),
            record.master
        ))?;
    }
    Ok(SUCCEEDED)
}

fn no_such_job(lake: &Lake, id: &str) -> Result<u8> {
    say(&format!("there is no job {id} under {}", lake.root()));
    Ok(NO_SUCH_JOB)
}
