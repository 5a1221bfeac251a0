//! Flights played once more: each is asked about as it left, then it is told when it landed, and in
//! the end it is looked at how the answers turned out.

use std::time::Duration;

use anyhow::{Context, Result};
use chrono::{DateTime, NaiveDate, Utc};
use cluster::session;
use events::{ANSWERS, ARRIVAL_TOPIC, LiveEvaluation, PredictionRequest, REQUEST_TOPIC};
use futures::future::try_join_all;
use jobs::live::arrivals::take_in;
use jobs::live::replay::flights_of;
use jobs::live::{Days, evaluate_live};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::Value;
use store::Store;

use crate::context::JobContext;
use crate::progress::say;

/// The days: two that a model with the default options has not seen in its training.
const SINCE: (i32, u32, u32) = (2013, 12, 16);
const UNTIL: (i32, u32, u32) = (2013, 12, 21);
/// Flights of each.
const FLIGHTS: usize = 150;
/// Memory for its joins and sorts.
const MEMORY: usize = 512 * 1024 * 1024;
/// How long answers may take: joining a consumer group takes some seconds.
pub const ANSWER_WAIT: Duration = Duration::from_secs(60);
/// How often the store is looked at for them.
const ANSWER_POLL: Duration = Duration::from_millis(50);

/// Plays them, against the brokers and the store of a stream that runs. What goes wrong is said,
/// and ends nothing else.
pub async fn replay(opened: &JobContext, kafka: &str, store: &Store, now: fn() -> DateTime<Utc>) {
    if let Err(error) = play(opened, kafka, store, now).await {
        say(&format!("not replayed: {error:#}"));
    }
}

async fn play(
    opened: &JobContext,
    kafka: &str,
    store: &Store,
    now: fn() -> DateTime<Utc>,
) -> Result<()> {
    // relations of its own: those of the demo are in use
    let ctx = session::in_process(1, MEMORY, &[], &[])?;
    let day = |(year, month, day)| NaiveDate::from_ymd_opt(year, month, day).context("a date");
    let days = Days { since: day(SINCE)?, until: day(UNTIL)?, recent_from: String::new() };
    let mut flights = flights_of(&ctx, &opened.lake, days.since, FLIGHTS).await?;
    flights.extend(flights_of(&ctx, &opened.lake, days.until, FLIGHTS).await?);
    let n_flights = flights.len();
    say(&format!(
        "\n5  replaying {n_flights} flights of {} and {}, which a default model is not trained on",
        days.since, days.until
    ));
    let producer: FutureProducer = ClientConfig::new().set("bootstrap.servers", kafka).create()?;
    let ids: Vec<String> =
        flights.iter().map(|_| PredictionRequest::new_id(now()).to_string()).collect();
    let requests = flights.iter().zip(&ids).map(|(flight, id)| {
        let mut request = flight.clone();
        request["UUID"] = id.as_str().into();
        request["Timestamp"] = PredictionRequest::timestamp(now()).into();
        request
    });
    send(&producer, REQUEST_TOPIC, requests.collect()).await?;
    answers_to(store, &ids).await?;
    send(&producer, ARRIVAL_TOPIC, flights).await?;
    let properties = [("bootstrap.servers".to_owned(), kafka.to_owned())];
    let taken = take_in(&properties, store, ARRIVAL_TOPIC).await?.unwrap_or_default();
    let run = format!("{}-replay", opened.id);
    let live = evaluate_live(&ctx, &opened.lake, store, &run, &days, &|_| ()).await?;
    say(&format!("   {} flights have landed", taken.n_messages));
    for LiveEvaluation { model, known, accuracy, log_loss, .. } in live.models {
        let (Some(accuracy), Some(log_loss)) = (accuracy, log_loss) else { continue };
        let (model, right) = (model.get(..12).unwrap_or(&model), 100.0 * accuracy);
        say(&format!(
            "   of {known} answers so far by model {model} {right:.0} % were right, log loss \
             {log_loss:.3}"
        ));
    }
    Ok(())
}

/// Waits for the answers to all of these requests.
pub async fn answers_to(store: &Store, ids: &[String]) -> Result<Vec<Value>> {
    let found = async {
        loop {
            let answers = store.get_all(ANSWERS, ids).await?;
            if answers.len() == ids.len() {
                return anyhow::Ok(answers);
            }
            tokio::time::sleep(ANSWER_POLL).await;
        }
    };
    let found = tokio::time::timeout(ANSWER_WAIT, found).await;
    found.with_context(|| format!("no answer within {ANSWER_WAIT:?}"))?
}

async fn send(producer: &FutureProducer, topic: &str, messages: Vec<Value>) -> Result<()> {
    let sends = messages.iter().map(|message| async {
        let value = message.to_string();
        let record = FutureRecord::<(), _>::to(topic).payload(&value);
        producer.send(record, ANSWER_WAIT).await.map_err(|(error, _)| error)
    });
    try_join_all(sends).await?;
    Ok(())
}
