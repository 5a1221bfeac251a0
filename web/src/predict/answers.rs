//! Answers: found in the store, heard on the response topic.
//!
//! One consumer a process reads the response topic from its end and broadcasts what it hears. It
//! belongs to no group: every web process hears every answer, and commits nothing. What it misses,
//! before the topic exists or while the broker is away, is in the store, which event streams read
//! too. Losing a message here costs seconds, never an answer.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use events::{ANSWERS, Answer, REJECTIONS};
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde_json::{Value, json};
use store::Store;
use tokio::sync::{broadcast, watch};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::app::stopped;
use crate::predict::explanation::{self, Explanation};
use crate::predict::heard::Heard;

/// How often to look for new partitions; they are added rarely, by hand.
const PARTITIONS_LOOK_EVERY: Duration = Duration::from_secs(30);
/// How often to look for a topic that does not exist yet: the streaming job makes it on demand.
const TOPIC_LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the broker may take to describe the topic; the end of the process waits for it.
const METADATA_WAIT_MAX: Duration = Duration::from_secs(3);
/// Doublings of the pause between attempts to reach the broker: 1 s, 2 s, … 32 s.
const BACKOFF_DOUBLINGS_MAX: u32 = 5;
/// Pause after an error of the consumer, which reconnects by itself and only reports.
const ERROR_PAUSE: Duration = Duration::from_secs(1);

/// How long an answer waits for what is beside it, which is not what was asked.
const EXPLANATION_WAIT: Duration = Duration::from_secs(2);

/// An answer: the document as it is kept, and what it means.
pub(crate) struct Found {
    pub(crate) document: Value,
    pub(crate) answer: Answer,
}

impl Found {
    /// The answer as it came through the topic, for when the store does not have it yet.
    pub(crate) fn heard(answer: &Answer) -> Result<Self> {
        Ok(Self { document: serde_json::to_value(answer)?, answer: answer.clone() })
    }
}

/// The answer to request `id`, or else why it was rejected, if the store knows either.
pub(crate) async fn find(store: &Store, id: Uuid) -> Result<Option<Found>> {
    for collection in [ANSWERS, REJECTIONS] {
        if let Some(document) = store.get(collection, &id.to_string()).await? {
            let answer = serde_json::from_value(document.clone())
                .with_context(|| format!("document {id} of {collection} is not an answer"))?;
            return Ok(Some(Found { document, answer }));
        }
    }
    Ok(None)
}

/// What is known beside an answer; nothing when the store does not say in time.
pub(crate) async fn explain(store: &Store, answer: &Answer) -> Explanation {
    let Answer::Ok(prediction) = answer else { return Explanation::default() };
    match timeout(EXPLANATION_WAIT, explanation::explain(store, prediction)).await {
        Ok(Ok(explanation)) => explanation,
        Ok(Err(error)) => {
            tracing::error!("cannot explain an answer: {error:#}");
            Explanation::default()
        }
        Err(_) => Explanation::default(),
    }
}

/// What is known about request `id`, as clients of the original system read it.
pub(crate) fn state(id: Uuid, found: Option<&Found>) -> Value {
    let Some(Found { answer, document }) = found else {
        return json!({ "status": "WAIT", "id": id });
    };
    match answer {
        Answer::Ok(_) => json!({ "status": "OK", "id": id, "prediction": document }),
        Answer::Rejected(refusal) => {
            json!({ "status": "REJECTED", "id": id, "reason": refusal.reason })
        }
        Answer::Expired(refusal) => {
            json!({ "status": "EXPIRED", "id": id, "reason": refusal.reason })
        }
    }
}

/// The consumer of the response topic, without partitions yet.
pub(crate) fn consumer(kafka: &[(String, String)]) -> Result<Arc<StreamConsumer>> {
    let mut config = ClientConfig::new();
    config.extend(kafka.iter().cloned());
    let consumer = config
        .set("client.id", "tarmac-web")
        // librdkafka wants a name even from a consumer that joins no group
        .set("group.id", "tarmac-web")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "latest")
        .create()
        .context("the Kafka properties make no consumer")?;
    Ok(Arc::new(consumer))
}

/// Broadcasts every answer that arrives on `topic`, until `stopping`.
pub(crate) async fn listen(
    consumer: Arc<StreamConsumer>,
    topic: String,
    heard: broadcast::Sender<Arc<Heard>>,
    stopping: watch::Receiver<bool>,
) {
    tokio::select! {
        () = stopped(stopping) => {}
        never = follow_partitions(&consumer, &topic) => match never {},
        never = receive(&consumer, &heard) => match never {},
    }
}

async fn receive(consumer: &StreamConsumer, heard: &broadcast::Sender<Arc<Heard>>) -> Infallible {
    loop {
        match consumer.recv().await {
            // nobody waits: not worth decoding
            Ok(_) if heard.receiver_count() == 0 => {}
            Ok(message) => match serde_json::from_slice(message.payload().unwrap_or_default()) {
                // the last receiver may have left meanwhile, which is no error
                Ok(answer) => drop(heard.send(Arc::new(Heard::of(&message, answer)))),
                Err(error) => tracing::warn!(
                    topic = message.topic(),
                    partition = message.partition(),
                    offset = message.offset(),
                    %error,
                    "message on the response topic is not an answer"
                ),
            },
            Err(error) => {
                tracing::warn!(%error, "the response topic cannot be read");
                sleep(ERROR_PAUSE).await;
            }
        }
    }
}

/// Keeps every partition of the topic assigned: those found first from their end, later ones from
/// their beginning, because they did not exist when the server started.
async fn follow_partitions(consumer: &Arc<StreamConsumer>, topic: &str) -> Infallible {
    // none until the broker has been asked once
    let mut n_assigned: Option<i32> = None;
    let mut n_failures = 0;
    loop {
        let pause = match assign_new(consumer, topic, n_assigned).await {
            Ok(n_partitions) => {
                if n_assigned != Some(n_partitions) {
                    tracing::info!(topic, n_partitions, "listening for answers");
                }
                n_assigned = Some(n_partitions);
                n_failures = 0;
                if n_partitions == 0 { TOPIC_LOOK_EVERY } else { PARTITIONS_LOOK_EVERY }
            }
            Err(error) => {
                tracing::warn!(topic, "cannot listen for answers: {error:#}");
                let pause = Duration::from_secs(1 << n_failures);
                n_failures = BACKOFF_DOUBLINGS_MAX.min(n_failures + 1);
                pause
            }
        };
        sleep(pause).await;
    }
}

/// Assigns the partitions beyond the `n_assigned` first; returns how many are assigned then.
async fn assign_new(
    consumer: &Arc<StreamConsumer>,
    topic: &str,
    n_assigned: Option<i32>,
) -> Result<i32> {
    let n_partitions = count_partitions(Arc::clone(consumer), topic.to_owned()).await?;
    let start = if n_assigned.is_none() { Offset::End } else { Offset::Beginning };
    let n_assigned = n_assigned.unwrap_or(0);
    if n_partitions <= n_assigned {
        return Ok(n_assigned);
    }
    let mut partitions = TopicPartitionList::new();
    for partition in n_assigned..n_partitions {
        partitions.add_partition_offset(topic, partition, start)?;
    }
    consumer.incremental_assign(&partitions).context("assigning partitions")?;
    Ok(n_partitions)
}

/// Partitions of the topic, numbered from 0; none when it does not exist.
async fn count_partitions(consumer: Arc<StreamConsumer>, topic: String) -> Result<i32> {
    let look = move || -> Result<i32> {
        let metadata = consumer.fetch_metadata(Some(&topic), METADATA_WAIT_MAX)?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
            return Ok(0);
        };
        match found.error().map(RDKafkaErrorCode::from) {
            None => Ok(i32::try_from(found.partitions().len())?),
            Some(RDKafkaErrorCode::UnknownTopicOrPartition) => Ok(0),
            Some(error) => bail!("the broker describes the topic with {error}"),
        }
    };
    tokio::task::spawn_blocking(look).await?.context("asking for the topic's partitions")
}

#[cfg(test)]
mod tests {
    use events::Refusal;

    use super::*;

    #[tokio::test]
    async fn the_state_of_a_request_is_wait_then_ok_or_why_not() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::embedded(&directory.path().join("answers.sqlite")).unwrap();
        let [waiting, scored, rejected, expired] = [1, 2, 3, 4].map(Uuid::from_u128);
        let document = |answer: Answer| {
            let mut document = serde_json::to_value(&answer).unwrap();
            document["_id"] = json!(answer.uuid());
            document
        };
        let refusal = |uuid, reason: &str| Refusal { uuid, reason: reason.into() };
        let late = document(Answer::Expired(refusal(expired, "Timestamp: old")));
        let prediction = crate::predict::card::tests::prediction(scored);
        let rejection = |id| document(Answer::Rejected(refusal(id, "Origin: bad")));
        let once = [scored, rejected].map(rejection);
        let document = document(Answer::Ok(Box::new(prediction)));
        store.write_once(ANSWERS, &[document.clone(), late]).await.unwrap();
        // what was rejected first and could be read later is answered
        store.upsert(REJECTIONS, &once).await.unwrap();

        for (id, want) in [
            (waiting, json!({ "status": "WAIT", "id": waiting })),
            (scored, json!({ "status": "OK", "id": scored, "prediction": document })),
            (rejected, json!({ "status": "REJECTED", "id": rejected, "reason": "Origin: bad" })),
            (expired, json!({ "status": "EXPIRED", "id": expired, "reason": "Timestamp: old" })),
        ] {
            let found = find(&store, id).await.unwrap();
            assert_eq!(state(id, found.as_ref()), want);
        }
    }

    #[tokio::test]
    async fn a_document_that_is_no_answer_is_an_error_that_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::embedded(&directory.path().join("answers.sqlite")).unwrap();
        let id = Uuid::from_u128(7);
        store.upsert(ANSWERS, &[json!({ "_id": id })]).await.unwrap();
        let error = format!("{:#}", find(&store, id).await.err().unwrap());
        assert!(error.contains(&id.to_string()), "{error}");
    }
}
