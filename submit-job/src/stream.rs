//! `submit-job stream`: what the job needs, and what it shows of itself over HTTP.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use chrono::{DateTime, Utc};
use clap::{ArgMatches, Args, FromArgMatches, Subcommand, ValueEnum};
use cluster::session;
use cluster::settings::Setting;
use events::{PredictionRequest, StreamStatus};
use futures::FutureExt;
use jobs::lake::Lake;
use jobs::models::registry;
use jobs::stream::archive::Archive;
use jobs::stream::health;
use jobs::stream::kafka::create_topics;
use jobs::stream::limits::Limits;
use jobs::stream::metrics::Metrics;
use jobs::stream::outcomes;
use jobs::stream::sink::Sink;
use jobs::stream::source::{Settings, Source};
use jobs::stream::stats::StreamStats;
use jobs::stream::trigger::Trigger;
use jobs::stream::{self, Connections, Options, Step};
use store::Store;
use telemetry::ProcessMetrics;
use tokio::net::TcpListener;

use crate::archive::Archiving;
use crate::offsets::Offsets;
use crate::retention::KeepArgs;
use crate::servers::{GROUP, KafkaArgs, StoreArgs};

/// Memory for joins, groups and sorts of a micro-batch.
const MEMORY: usize = 512 * 1024 * 1024;
const MIB: usize = 1024 * 1024;
/// How often the stream's status is published for the pages.
const STATUS_EVERY: Duration = Duration::from_secs(5);

/// Largest message that may be read, in bytes: MongoDB takes no answer beyond 16 MiB, and an answer
/// repeats what its request said.
const MESSAGE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// When a micro-batch ends unless something else is said.
const INTERVAL: Duration = Duration::from_secs(10);
/// Messages of a micro-batch at most.
const MAX_ROWS: usize = 50_000;
/// The same, in MiB.
const MAX_MEGABYTES: usize = 64;
/// Messages that wait for a micro-batch at most.
const QUEUE_ROWS: usize = 100_000;
/// The same, in MiB.
const QUEUE_MEGABYTES: usize = 64;
/// Partitions of a topic that is made here at most: a broker keeps files open for each.
const PARTITIONS_MAX: i64 = 1_000;
/// Seconds from one look at what is to be archived to the next.
const ARCHIVE_EVERY: u64 = 300;
/// Where the stream shows how it is doing: any free port of this machine alone.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// What to do beside answering.
#[derive(Debug, Clone, Subcommand)]
pub enum StreamAction {
    /// Look at how far the group is, and set it
    Offsets(Offsets),
}

/// Arguments of `stream`.
#[derive(Debug, Clone)]
pub enum StreamArgs {
    /// How to answer.
    Answer(Box<Stream>),
    /// What to do instead.
    Instead(Box<StreamAction>),
}

// By hand: the derived code cannot make arguments optional as a whole that hold others' arguments.
impl FromArgMatches for StreamArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        match matches.subcommand() {
            Some(_) => StreamAction::from_arg_matches(matches)
                .map(|action| Self::Instead(Box::new(action))),
            None => Stream::from_arg_matches(matches).map(|args| Self::Answer(Box::new(args))),
        }
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for StreamArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        let command = StreamAction::augment_subcommands(Stream::augment_args(command));
        // what the subcommand needs it asks for itself
        command
            .subcommand_required(false)
            .arg_required_else_help(false)
            .args_conflicts_with_subcommands(true)
            .subcommand_negates_reqs(true)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

/// How `stream` answers.
#[derive(Debug, Clone, Args)]
pub struct Stream {
    /// Kafka.
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// How long what is written stays.
    #[command(flatten)]
    pub keep: KeepArgs,
    /// Consumer group
    #[arg(long, env = "TARMAC_GROUP", default_value = GROUP)]
    pub group: String,
    /// Partitions of the topic of requests when it is made here: as many streams can share it
    #[arg(long, value_name = "N", env = "TARMAC_PARTITIONS", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=PARTITIONS_MAX))]
    pub partitions: u16,
    /// When a micro-batch ends: interval:10s, arrival, once or available-now
    #[arg(long, env = "TARMAC_TRIGGER", default_value_t = Trigger::Interval(INTERVAL))]
    pub trigger: Trigger,
    /// Messages of a micro-batch at most
    #[arg(long, default_value_t = MAX_ROWS, value_parser = at_least_one)]
    pub max_rows: usize,
    /// Messages of a micro-batch at most, in MiB
    #[arg(long, default_value_t = MAX_MEGABYTES, value_parser = at_least_one)]
    pub max_megabytes: usize,
    /// Messages that wait for a micro-batch at most; then partitions are paused
    #[arg(long, default_value_t = QUEUE_ROWS, value_parser = at_least_one)]
    pub queue_rows: usize,
    /// Messages that wait for a micro-batch at most, in MiB; then partitions are paused
    #[arg(long, default_value_t = QUEUE_MEGABYTES, value_parser = at_least_one)]
    pub queue_megabytes: usize,
    /// Bytes of a message at most; a larger one is a dead letter
    #[arg(
        long,
        default_value_t = events::REQUEST_BYTES_MAX as u64,
        value_parser = clap::value_parser!(u64).range(1..=MESSAGE_BYTES_MAX)
    )]
    pub message_bytes_max: u64,
    /// Seconds after its Timestamp from which a request is answered `expired` [default: never]
    #[arg(long, value_name = "SECONDS")]
    pub expire_after: Option<u64>,
    /// Seconds that a server may be away before the job ends with an error [default: for ever]
    #[arg(long, value_name = "SECONDS")]
    pub give_up_after: Option<u64>,
    /// Keep the answers as Parquet files too, under archive/ of the data root
    #[arg(long)]
    pub archive: bool,
    /// Seconds from one look at what is to be archived to the next
    #[arg(long, value_name = "SECONDS", default_value_t = ARCHIVE_EVERY)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=24 * 3600))]
    pub archive_every: u64,
    /// Version of a challenger, or its beginning: scores beside the champion, and is only counted
    #[arg(long, value_name = "MODEL")]
    pub shadow: Option<String>,
    /// Where /metrics, /healthz and /readyz are served; port 0 is any, and the log says which
    #[arg(long, env = "TARMAC_STREAM_LISTEN", default_value_t = LISTEN)]
    pub listen: SocketAddr,
    /// Die at this step of the first micro-batch, as a crash would: for tests
    #[arg(long, hide = true)]
    pub crash_at: Option<CrashAt>,
}

/// A [`Step`] on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum CrashAt {
    /// [`Step::Scored`].
    Scored,
    /// [`Step::Stored`].
    Stored,
    /// [`Step::Published`].
    Published,
}

fn at_least_one(text: &str) -> Result<usize> {
    let number: usize = text.parse()?;
    anyhow::ensure!(number > 0, "must be at least 1");
    Ok(number)
}

impl Stream {
    /// What `stream --kafka BROKERS` says.
    pub fn new(brokers: &str) -> Self {
        Self {
            kafka: KafkaArgs::new(brokers),
            store: StoreArgs::default(),
            keep: KeepArgs::default(),
            group: GROUP.into(),
            partitions: 1,
            trigger: Trigger::Interval(INTERVAL),
            max_rows: MAX_ROWS,
            max_megabytes: MAX_MEGABYTES,
            queue_rows: QUEUE_ROWS,
            queue_megabytes: QUEUE_MEGABYTES,
            message_bytes_max: events::REQUEST_BYTES_MAX as u64,
            expire_after: None,
            give_up_after: None,
            archive: false,
            archive_every: ARCHIVE_EVERY,
            shadow: None,
            listen: LISTEN,
            crash_at: None,
        }
    }

    fn give_up_after(&self) -> Option<Duration> {
        self.give_up_after.map(Duration::from_secs)
    }

    fn limits(&self) -> Limits {
        Limits {
            batch_rows: self.max_rows,
            batch_bytes: self.max_megabytes.saturating_mul(MIB),
            queue_rows: self.queue_rows,
            queue_bytes: self.queue_megabytes.saturating_mul(MIB),
        }
    }

    async fn options(
        &self,
        lake: &Lake,
        properties: &[Setting],
        now: fn() -> DateTime<Utc>,
    ) -> Result<Options> {
        let shadow = match &self.shadow {
            Some(start) => {
                let version = registry::find(lake, start).await?;
                Some(Arc::new(registry::load_to_score(lake, &version).await?))
            }
            None => None,
        };
        let crash_at = self.crash_at.map(|step| match step {
            CrashAt::Scored => Step::Scored,
            CrashAt::Stored => Step::Stored,
            CrashAt::Published => Step::Published,
        });
        Ok(Options {
            group: self.group.clone(),
            topics: self.kafka.topics()?,
            topic_is_whole: false,
            properties: properties.to_vec(),
            message_bytes_max: self.message_bytes_max as usize,
            expire_after: self.expire_after.map(Duration::from_secs),
            give_up_after: self.give_up_after(),
            shadow,
            now,
            on_step: Box::new(move |step| {
                if Some(step) == crash_at {
                    std::process::abort()
                }
            }),
        })
    }
}

/// Answers requests until `shutdown` is done; `properties` are those of [`KafkaArgs`].
pub async fn run_stream(
    lake: &Lake,
    store: &Store,
    args: &Stream,
    properties: &[Setting],
    now: fn() -> DateTime<Utc>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<()> {
    // a micro-batch is small: one thread scores it faster than two that must be coordinated
    let ctx = session::in_process(1, MEMORY, &[], &[])?;
    let prepared = stream::prepare(&ctx, lake).await?;
    let mut options = args.options(lake, properties, now).await?;
    let metrics = Arc::new(Metrics::new()?);
    let shown = show(args.listen, Arc::clone(&metrics)).await?;
    let limits = create_topics(properties, &options.topics, args.partitions).await?;
    args.keep.check(&options.topics.requests, limits.requests_kept);
    options.topic_is_whole = limits.requests_are_whole;
    let bytes_max = limits.batch_bytes_max;
    let archive = || Archive::new(lake, store, &ctx, &options);
    let archive = args.archive.then(archive).transpose()?;
    let sink = Sink::open(properties, options.topics.clone(), bytes_max, &args.group)?;
    let settings = Settings {
        properties: properties.to_vec(),
        topic: args.kafka.names.request_topic.clone(),
        group: args.group.clone(),
        trigger: args.trigger,
        limits: args.limits(),
        give_up_after: args.give_up_after(),
    };
    let source = Source::open(settings, Arc::clone(&metrics)).await?;
    tracing::info!(
        topic = options.topics.requests,
        store = store.describe(),
        model = prepared.serving.champion().version(),
        shadow = options.shadow.as_ref().map(|shadow| shadow.version()),
        "stream is ready"
    );
    let connections = Connections { source, sink, store };
    let every = Duration::from_secs(args.archive_every);
    let archiving = archive.map(|archive| Archiving::start(archive, every, &metrics));
    let shutdown = shutdown.boxed().shared();
    let running = async {
        let told = shutdown.clone();
        let ran = stream::run(&ctx, prepared, connections, &options, &metrics, told).await?;
        if let (Some(archiving), true) = (&archiving, args.trigger.is_bounded()) {
            // who waits for what was there to be answered waits for its archive too
            tokio::select! {
                biased;
                () = shutdown.clone() => {}
                archived = archiving.finish() => archived?,
            }
        }
        anyhow::Ok(ran)
    };
    let streamed = tokio::select! {
        streamed = running => streamed?,
        never = publish_status(store, &args.group, &metrics, now) => match never {},
        never = args.keep.apply(store) => match never {},
        never = outcomes::watch(store, |found| metrics.set_outcomes(found)) => match never {},
        never = health::watch(store, &metrics.health, args.give_up_after()) => match never? {},
        served = shown => {
            served?;
            anyhow::bail!("the metrics are not served any more")
        }
    };
    tell_end(&streamed);
    Ok(())
}

fn tell_end(streamed: &StreamStats) {
    tracing::info!(
        messages = streamed.n_messages,
        answered = streamed.n_answered,
        repeated = streamed.n_repeated,
        dead_letters = streamed.n_dead_letters,
        batches = streamed.n_batches,
        "stream ended"
    );
}

/// Publishes the stream's status for the pages, every few seconds. Nothing depends on it.
async fn publish_status(
    store: &Store,
    group: &str,
    metrics: &Metrics,
    now: fn() -> DateTime<Utc>,
) -> Infallible {
    let (mut before, mut published_at): (Option<StreamStatus>, _) = (None, Instant::now());
    loop {
        tokio::time::sleep(STATUS_EVERY).await;
        let at = PredictionRequest::timestamp(now());
        let since = before.as_ref().map(|before| (before, published_at.elapsed().as_secs_f64()));
        let Some(status) = metrics.health.status(group, at, since) else { continue };
        published_at = Instant::now();
        let published = async {
            let document = serde_json::to_value(&status)?;
            anyhow::Ok(store.upsert(events::STREAM_STATUS, &[document]).await?)
        };
        match tokio::time::timeout(STATUS_EVERY, published).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!("the status is not published: {error:#}"),
            Err(_) => tracing::debug!("the status is not published: the store does not answer"),
        }
        before = Some(status);
    }
}

/// Serves what the metrics say; the future that is returned does it, as long as it is polled.
async fn show(
    listen: SocketAddr,
    metrics: Arc<Metrics>,
) -> Result<impl Future<Output = std::io::Result<()>>> {
    let listener = TcpListener::bind(listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {listen}"))?;
    tracing::info!(
        url = format!("http://{}/metrics", listener.local_addr()?),
        "metrics are served"
    );
    let process = Arc::new(ProcessMetrics::new("stream")?);
    let router = Router::new()
        .route("/metrics", get(show_metrics))
        .with_state((Arc::clone(&metrics), process))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz).with_state(metrics));
    Ok(axum::serve(listener, router).into_future())
}

async fn show_metrics(
    State((metrics, process)): State<(Arc<Metrics>, Arc<ProcessMetrics>)>,
) -> Response {
    let text = || Ok::<_, anyhow::Error>(metrics.to_text()? + &process.to_text()?);
    match text() {
        Ok(text) => ([(CONTENT_TYPE, telemetry::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}\n")).into_response(),
    }
}

async fn readyz(State(metrics): State<Arc<Metrics>>) -> Response {
    match metrics.health.unready() {
        None => "ready\n".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use clap::builder::Resettable;
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        stream: Stream,
    }

    #[test]
    fn the_defaults_are_those_of_the_command_line() {
        // whatever the environment of the test says
        let line = Line::command().mut_args(|argument| argument.env(Resettable::Reset));
        let typed = line.try_get_matches_from(["stream", "--kafka", "a:1"]).unwrap();
        let typed = Line::from_arg_matches(&typed).unwrap().stream;
        assert_eq!(format!("{typed:?}"), format!("{:?}", Stream::new("a:1")));
    }
}
