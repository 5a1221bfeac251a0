//! What leaves the stream through Kafka: answers and dead letters. Nothing is sent but what the
//! store has, or what is no question.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use futures::future::{join_all, try_join_all};
use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer};

use crate::kafka::{Properties, Topics, config};
use crate::window::DeadLetter;

/// How long a record may take to be acknowledged before the attempt counts as failed.
const DELIVERY_WAIT: Duration = Duration::from_secs(20);
/// What a dead letter failed in: Kafka Connect's name for reading a value.
const STAGE: &str = "VALUE_CONVERTER";
/// Names of a dead letter's headers: those of Kafka Connect, so that its tools can read them.
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
}

/// A record of the response topic: the UUID, and the answer as JSON.
pub type Record = (String, Vec<u8>);

/// Records on their way to a topic.
pub struct Sent {
    topic: String,
    deliveries: Vec<DeliveryFuture>,
}

impl Sent {
    /// Done when all of them are acknowledged.
    pub async fn acknowledged(self) -> Result<()> {
        let topic = &self.topic;
        for delivered in join_all(self.deliveries).await {
            let delivered = delivered.with_context(|| format!("writing to {topic}"))?;
            delivered.map_err(|(error, _)| anyhow!("cannot write to {topic}: {error}"))?;
        }
        Ok(())
    }
}

/// Writes answers and dead letters.
pub struct Sink {
    config: ClientConfig,
    producer: FutureProducer,
    topics: Topics,
    job: String,
}

impl Sink {
    /// Makes a producer for the job of that name; nothing is sent yet.
    pub fn open(properties: &Properties, topics: Topics, job: &str) -> Result<Self> {
        let mut config = config(properties);
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // a window is sent at once, there is nothing to wait for
            .set("linger.ms", "0")
            .set("message.timeout.ms", DELIVERY_WAIT.as_millis().to_string());
        Ok(Self { producer: config.create()?, config, topics, job: job.to_owned() })
    }

    /// A producer that has lost count of its records sends no more; another one does.
    fn renew(&mut self) -> Result<()> {
        if let Some((code, reason)) = self.producer.client().fatal_error() {
            tracing::warn!(%code, reason, "the producer is replaced");
            self.producer = self.config.create()?;
        }
        Ok(())
    }

    /// Hands answers to the producer, whose own threads send them.
    pub fn begin_answers(&mut self, records: &[Record]) -> Result<Sent> {
        self.renew()?;
        let topic = self.topics.answers.clone();
        let mut deliveries = Vec::with_capacity(records.len());
        for (key, value) in records {
            let record = FutureRecord::to(&topic).key(key).payload(value);
            match self.producer.send_result(record) {
                Ok(delivery) => deliveries.push(delivery),
                Err((error, _)) => bail!("cannot write to {topic}: {error}"),
            }
        }
        Ok(Sent { topic, deliveries })
    }

    /// Keeps messages that cannot be scored, bytes unchanged; returns when all are acknowledged.
    pub async fn send_dead_letters(&mut self, dead_letters: &[DeadLetter]) -> Result<()> {
        self.renew()?;
        let sends = dead_letters.iter().map(|letter| {
            let message = &letter.message;
            let (partition, offset) = (message.partition.to_string(), message.offset.to_string());
            let headers = [
                (headers::TOPIC, self.topics.requests.as_str()),
                (headers::PARTITION, &partition),
                (headers::OFFSET, &offset),
                (headers::JOB, &self.job),
                (headers::STAGE, STAGE),
                (headers::REASON, &letter.reason),
            ];
            let headers = headers.into_iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header { key, value: Some(value) })
            });
            let mut record =
                FutureRecord::<[u8], [u8]>::to(&self.topics.dead_letters).headers(headers);
            if let Some(key) = &message.key {
                record = record.key(key.as_slice());
            }
            if let Some(value) = &message.value {
                record = record.payload(value.as_slice());
            }
            self.producer.send(record, DELIVERY_WAIT)
        });
        match try_join_all(sends).await {
            Ok(_) => Ok(()),
            Err((error, _)) => bail!("cannot write to {}: {error}", self.topics.dead_letters),
        }
    }
}
