//! What sends questions to Kafka.

use std::time::Duration;

use anyhow::{Context, Result};
use parking_lot::RwLock;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use tokio::task::spawn_blocking;

/// How long Kafka may take to acknowledge a question before that is reported as failed.
const DELIVERY_MS_MAX: &str = "10000";

/// A producer that reports success only for what all replicas in sync hold, once and in order. One
/// that delivers nothing any more, as librdkafka's may after a broker has died, is replaced.
pub(crate) struct Sender {
    config: ClientConfig,
    producer: RwLock<FutureProducer>,
}

impl Sender {
    /// By these properties.
    pub(crate) fn open(kafka: &[(String, String)]) -> Result<Self> {
        let mut config = ClientConfig::new();
        config.set("client.id", "tarmac-web").set("message.timeout.ms", DELIVERY_MS_MAX);
        config.extend(kafka.iter().cloned());
        config.set("acks", "all").set("enable.idempotence", "true");
        let producer = config.create().context("the Kafka properties make no producer")?;
        Ok(Self { config, producer: RwLock::new(producer) })
    }

    /// The producer at present.
    pub(crate) fn producer(&self) -> FutureProducer {
        self.producer.read().clone()
    }

    /// Resolves when the brokers have it.
    pub(crate) async fn send(&self, record: FutureRecord<'_, String, Vec<u8>>) -> Result<()> {
        let producer = self.producer();
        // a full queue means that Kafka has been away for long: say so at once
        let sent = producer.send(record, Duration::ZERO).await;
        match sent {
            Ok(_) => Ok(()),
            Err((error, _)) => {
                if is_of_producer(&error) {
                    self.replace(producer).await;
                }
                Err(error.into())
            }
        }
    }

    /// Replaces a producer that has failed, unless another one is there already. Those who wait for
    /// it hold it until they know.
    async fn replace(&self, failed: FutureProducer) {
        if !self.is_present(&failed) {
            return;
        }
        let another: FutureProducer = match self.config.create() {
            Ok(another) => another,
            Err(error) => return tracing::error!(%error, "the Kafka producer is not replaced"),
        };
        let replaced = {
            let mut producer = self.producer.write();
            match producer.client().native_ptr() == failed.client().native_ptr() {
                true => std::mem::replace(&mut *producer, another),
                false => another,
            }
        };
        tracing::warn!("Kafka has acknowledged nothing for long: another producer is tried");
        // it waits for its threads
        _ = spawn_blocking(move || drop((replaced, failed))).await;
    }

    fn is_present(&self, producer: &FutureProducer) -> bool {
        self.producer.read().client().native_ptr() == producer.client().native_ptr()
    }
}

/// Whether another producer may do better.
fn is_of_producer(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{Fatal, MessageTimedOut, QueueFull};
    matches!(error.rdkafka_error_code(), Some(Fatal | MessageTimedOut | QueueFull))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_producer_that_delivers_nothing_is_replaced() {
        // nobody is there
        let nobody = [("bootstrap.servers", "127.0.0.1:1"), ("message.timeout.ms", "100")];
        let nobody = nobody.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let sender = Sender::open(&nobody).unwrap();
        let before = sender.producer();
        let (key, payload) = (String::new(), Vec::new());
        let record = || FutureRecord::to("topic").key(&key).payload(&payload);
        let (first, second) = tokio::join!(sender.send(record()), sender.send(record()));
        for error in [first.unwrap_err(), second.unwrap_err()] {
            assert!(error.to_string().contains("MessageTimedOut"), "{error}");
        }
        let after = sender.producer();
        assert_ne!(before.client().native_ptr(), after.client().native_ptr());
        // what failed with the one before is no word against this one
        sender.replace(before).await;
        assert_eq!(sender.producer().client().native_ptr(), after.client().native_ptr());
    }
}
