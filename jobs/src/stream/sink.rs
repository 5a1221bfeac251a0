//! What leaves the stream through Kafka: answers and dead letters. Sends only answers that the
//! store has, and malformed requests.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use futures::future::join_all;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders, ToBytes};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use serde_json::json;
use store::WriteError;
use telemetry::traces;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::stream::kafka::{Complaint, Properties, Topics, config, create_topics_of};
use crate::stream::micro_batch::DeadLetter;
use crate::stream::request_log::digest;

/// How long a record may take to be acknowledged before the attempt counts as failed.
const DELIVERY_WAIT: Duration = Duration::from_secs(20);
/// How long to wait for room in the producer before trying again.
const ROOM_WAIT: Duration = Duration::from_millis(100);
/// What a dead letter failed in: Kafka Connect's name for reading a value.
const STAGE: &str = "VALUE_CONVERTER";
/// Largest batch that is sent, in bytes, unless a topic takes less.
const BATCH_BYTES_MAX: usize = 1_000_000;
/// Names of a dead letter's headers, which follow those that the message came with: those of Kafka
/// Connect, so that its tools can read them, and ours.
pub mod headers {
    /// Topic that the message came from.
    pub const TOPIC: &str = "__connect.errors.topic";
    /// Partition of that topic.
    pub const PARTITION: &str = "__connect.errors.partition";
    /// Offset in that partition.
    pub const OFFSET: &str = "__connect.errors.offset";
    /// The job, by the name of its consumer group.
    pub const JOB: &str = "__connect.errors.connector.name";
    /// What failed.
    pub const STAGE: &str = "__connect.errors.stage";
    /// Why; names the field.
    pub const REASON: &str = "__connect.errors.exception.message";
    /// When the message was put there, in milliseconds since 1970; empty when it does not say.
    pub const TIMESTAMP: &str = "tarmac.source.timestamp";
    /// [`digest`](crate::stream::request_log::digest) of key and value.
    pub const DIGEST: &str = "tarmac.source.sha256";
    /// Bytes of a message that did not fit; the value says so. Only stubs have this.
    pub const STUB: &str = "tarmac.stub.bytes";
    /// All of them.
    pub const ALL: [&str; 9] =
        [TOPIC, PARTITION, OFFSET, JOB, STAGE, REASON, TIMESTAMP, DIGEST, STUB];
}

/// A record of the response topic.
pub struct Record {
    /// The UUID.
    pub key: String,
    /// The answer as JSON.
    pub value: String,
    /// How the trace of its request goes on, where it has one.
    pub traceparent: Option<String>,
}

/// A record that did not get into its topic.
#[derive(Debug)]
pub struct SendError {
    topic: String,
    error: KafkaError,
}

/// Records on their way to a topic.
pub struct Sent {
    topic: String,
    failures: mpsc::Receiver<KafkaError>,
}

/// What a record on its way holds of its [`Sent`]: the last one that lets go ends the wait. One for
/// all, where a future each would cost as much as sending. In an `Arc`, as librdkafka keeps it.
type Fate = Arc<mpsc::Sender<KafkaError>>;

impl Sent {
    /// None yet, and what those that are sent now hold.
    fn to(topic: &str) -> (Self, Fate) {
        let (fate, failures) = mpsc::channel(1);
        (Self { topic: topic.to_owned(), failures }, Arc::new(fate))
    }

    /// Done when all of them are acknowledged.
    pub async fn acknowledged(mut self) -> Result<(), SendError> {
        let mut first = None;
        // until the last of them is decided, also behind a failure
        while let Some(error) = self.failures.recv().await {
            first.get_or_insert(error);
        }
        match first {
            None => Ok(()),
            Some(error) => Err(SendError { topic: self.topic, error }),
        }
    }
}

impl ProducerContext for Complaint {
    type DeliveryOpaque = Fate;

    /// On the producer's thread, or on the one that drops the producer.
    fn delivery(&self, result: &DeliveryResult<'_>, fate: Fate) {
        if let Err((error, _)) = result {
            // there is room for the first failure, which is enough
            _ = fate.try_send(error.clone());
        }
    }
}

/// Writes answers and dead letters.
pub struct Sink {
    properties: Vec<(String, String)>,
    config: ClientConfig,
    producer: ThreadedProducer<Complaint>,
    complaint: Complaint,
    topics: Topics,
    job: String,
    batch_bytes: usize,
}

impl Sink {
    /// Makes a producer for the job of that name; nothing is sent yet. `bytes_max` is the least
    /// `max.message.bytes` of the topics, as [`crate::stream::kafka::create_topics`] finds it.
    pub fn open(
        properties: &Properties,
        topics: Topics,
        bytes_max: Option<usize>,
        job: &str,
    ) -> Result<Self> {
        let mut config = config(properties);
        let batch_bytes = batch_bytes(bytes_max);
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("batch.size", batch_bytes.to_string())
            // a micro-batch is sent at once, there is nothing to wait for
            .set("linger.ms", "0")
            .set("message.timeout.ms", DELIVERY_WAIT.as_millis().to_string());
        let complaint = Complaint::default();
        Ok(Self {
            properties: properties.to_vec(),
            producer: config.create_with_context(complaint.clone())?,
            complaint,
            config,
            topics,
            job: job.to_owned(),
            batch_bytes,
        })
    }

    fn replace_producer(&mut self) -> Result<(), KafkaError> {
        self.producer = self.config.create_with_context(self.complaint.clone())?;
        Ok(())
    }

    /// A producer that has lost count of its records sends no more; another one does.
    fn renew(&mut self) -> Result<(), KafkaError> {
        if let Some((code, reason)) = self.producer.client().fatal_error() {
            tracing::warn!(%code, reason, "the producer is replaced");
            self.replace_producer()?;
        }
        Ok(())
    }

    /// Does what can be done about a record that was not taken: makes a topic again that was
    /// deleted, sends smaller batches to one that takes less than it did. Says whether it may be
    /// sent again.
    pub async fn recover(&mut self, failed: SendError) -> WriteError {
        use RDKafkaErrorCode::{
            ClusterAuthorizationFailed, InvalidTopic, MessageTimedOut, TopicAuthorizationFailed,
            UnknownPartition, UnknownTopic, UnknownTopicId, UnknownTopicOrPartition,
        };
        let SendError { topic, error } = failed;
        let error_text = self.complaint.explain(&error);
        let reason = anyhow!("cannot write to {topic}: {error_text}");
        let code = error.rdkafka_error_code();
        let is_too_large = is_too_large(&error);
        match code {
            Some(ClusterAuthorizationFailed | InvalidTopic | TopicAuthorizationFailed) => {
                return WriteError::Permanent(reason);
            }
            Some(
                MessageTimedOut
                | UnknownPartition
                | UnknownTopic
                | UnknownTopicId
                | UnknownTopicOrPartition,
            ) => {}
            _ if is_too_large => {}
            _ => return WriteError::Passing(reason),
        }
        // somebody may be about to make the others again
        let made = create_topics_of(&self.properties, &self.topics, &[&topic], 1).await;
        let bytes_max = match made {
            Ok(limits) => limits.batch_bytes_max,
            Err(error) => return WriteError::Passing(error.context(reason)),
        };
        let batch_bytes = batch_bytes(bytes_max);
        if is_too_large && batch_bytes >= self.batch_bytes {
            return WriteError::Permanent(reason.context("raise max.message.bytes of the topic"));
        }
        self.batch_bytes = batch_bytes;
        self.config.set("batch.size", batch_bytes.to_string());
        // what it knew of the topic holds no more
        match self.replace_producer() {
            Ok(()) => WriteError::Passing(reason),
            Err(error) => WriteError::Passing(anyhow!(error)),
        }
    }

    /// Hands answers to the producer, whose own threads send them.
    pub fn begin_answers(&mut self, records: &[Record]) -> Result<Sent, SendError> {
        let topic = self.topics.answers.clone();
        let failed = |error| SendError { topic: topic.clone(), error };
        self.renew().map_err(failed)?;
        let (sent, fate) = Sent::to(&topic);
        for Record { key, value, traceparent } in records {
            let record = BaseRecord::with_opaque_to(&topic, Arc::clone(&fate));
            let mut record = record.key(key).payload(value);
            if let Some(value) = traceparent {
                let header = Header { key: traces::HEADER, value: Some(value) };
                record = record.headers(OwnedHeaders::new().insert(header));
            }
            self.producer.send(record).map_err(|(error, _)| failed(error))?;
        }
        Ok(sent)
    }

    /// Keeps messages that cannot be scored, bytes unchanged; returns when all are acknowledged.
    /// Of one that the topic does not take, because it is too large, a stub is kept: place, size,
    /// digest and reason.
    pub async fn send_dead_letters(
        &mut self,
        dead_letters: &[DeadLetter],
    ) -> Result<(), WriteError> {
        let topic = self.topics.dead_letters.clone();
        let mut failed = self.renew().err();
        let sends = dead_letters.iter().map(|letter| self.send_letter(letter));
        for (sent, letter) in join_all(sends).await.into_iter().zip(dead_letters) {
            let Err(mut error) = sent else { continue };
            if is_too_large(&error) {
                // a batch of several may be what was too large
                error = match self.send_letter(letter).await {
                    Err(error) if is_too_large(&error) => match self.send_stub(letter).await {
                        Ok(()) => continue,
                        Err(error) => error,
                    },
                    Err(error) => error,
                    Ok(()) => continue,
                };
            }
            failed.get_or_insert(error);
        }
        match failed {
            None => Ok(()),
            Some(error) => Err(self.recover(SendError { topic, error }).await),
        }
    }

    async fn send_letter(&self, letter: &DeadLetter) -> Result<(), KafkaError> {
        let message = &letter.message;
        let own = message.headers.iter();
        let headers = own.fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: value.as_ref() })
        });
        let (sent, fate) = Sent::to(&self.topics.dead_letters);
        let record = BaseRecord::<[u8], [u8], _>::with_opaque_to(&self.topics.dead_letters, fate);
        let mut record = record.headers(self.with_ours(headers, letter));
        if let Some(key) = &message.key {
            record = record.key(key.as_slice());
        }
        if let Some(value) = &message.value {
            record = record.payload(value.as_slice());
        }
        self.send_alone(record, sent).await
    }

    async fn send_stub(&self, letter: &DeadLetter) -> Result<(), KafkaError> {
        let message = &letter.message;
        let (n_bytes, place) = (message.n_bytes(), (message.partition, message.offset));
        let stub = json!({
            "Topic": self.topics.requests,
            "Partition": place.0,
            "Offset": place.1,
            "Bytes": n_bytes,
            "Sha256": digest(message.key.as_deref(), message.value.as_deref()),
            "Reason": letter.reason,
        });
        tracing::warn!(
            partition = place.0,
            offset = place.1,
            n_bytes,
            topic = self.topics.dead_letters,
            "a dead letter does not fit its topic: a stub is kept"
        );
        let headers = self.with_ours(OwnedHeaders::new(), letter);
        let n_bytes = n_bytes.to_string();
        let headers = headers.insert(Header { key: headers::STUB, value: Some(&n_bytes) });
        let stub = stub.to_string();
        let (sent, fate) = Sent::to(&self.topics.dead_letters);
        let record = BaseRecord::<[u8], str, _>::with_opaque_to(&self.topics.dead_letters, fate)
            .headers(headers)
            .payload(stub.as_str());
        self.send_alone(record, sent).await
    }

    /// Sends a dead letter, whose own failure is of interest. While the producer has no room, it is
    /// waited for.
    async fn send_alone<P: ToBytes + ?Sized>(
        &self,
        mut record: BaseRecord<'_, [u8], P, Fate>,
        sent: Sent,
    ) -> Result<(), KafkaError> {
        let give_up = Instant::now() + DELIVERY_WAIT;
        while let Err((error, unsent)) = self.producer.send(record) {
            let is_full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
            if !is_full || Instant::now() >= give_up {
                return Err(error);
            }
            record = unsent;
            sleep(ROOM_WAIT).await;
        }
        sent.acknowledged().await.map_err(|failed| failed.error)
    }

    fn with_ours(&self, headers: OwnedHeaders, letter: &DeadLetter) -> OwnedHeaders {
        let message = &letter.message;
        let (partition, offset) = (message.partition.to_string(), message.offset.to_string());
        let timestamp = message.created_ms.map(|ms| ms.to_string()).unwrap_or_default();
        let digest = digest(message.key.as_deref(), message.value.as_deref());
        let ours = [
            (headers::TOPIC, self.topics.requests.as_str()),
            (headers::PARTITION, &partition),
            (headers::OFFSET, &offset),
            (headers::JOB, &self.job),
            (headers::STAGE, STAGE),
            (headers::REASON, &letter.reason),
            (headers::TIMESTAMP, &timestamp),
            (headers::DIGEST, &digest),
        ];
        ours.into_iter().fold(headers, |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value) })
        })
    }
}

fn is_too_large(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{InvalidMessageSize, MessageBatchTooLarge, MessageSizeTooLarge};
    matches!(
        error.rdkafka_error_code(),
        Some(InvalidMessageSize | MessageBatchTooLarge | MessageSizeTooLarge)
    )
}

/// A batch is refused as a whole when it is larger than its topic takes; what is around the records
/// counts too.
fn batch_bytes(bytes_max: Option<usize>) -> usize {
    bytes_max.map_or(BATCH_BYTES_MAX, |bytes_max| BATCH_BYTES_MAX.min(bytes_max / 4 * 3))
}
