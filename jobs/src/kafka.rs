//! Kafka at both ends of the stream: windows of requests from a consumer group, answers and dead
//! letters to topics. Decides when a window is full; must not look into messages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use events::Answer;
use futures::future::{FutureExt, try_join_all};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{CommitMode, Consumer, StreamConsumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, Message as _, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};
use tokio::time::Instant;

use crate::trigger::Trigger;
use crate::window::{DeadLetter, Message};

/// How long to wait for a broker before saying that there is none.
const BROKER_WAIT: Duration = Duration::from_secs(15);
/// How long to let a coordinator that is starting or moving alone.
const COORDINATOR_PAUSE: Duration = Duration::from_millis(100);
/// How long a record may take to be acknowledged.
const DELIVERY_WAIT: Duration = Duration::from_secs(60);
/// Largest record that topics made here take, in bytes. A request is refused far below, but it
/// must get in to be answered with a refusal and kept as a dead letter.
const RECORD_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of messages of one window, beyond which it ends early.
const WINDOW_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Where requests come from and answers go to.
#[derive(Debug, Clone)]
pub struct Topics {
    /// Requests.
    pub requests: String,
    /// Answers.
    pub answers: String,
    /// Messages that cannot be scored.
    pub dead_letters: String,
}

/// librdkafka properties, `bootstrap.servers` among them.
pub type Properties = [(String, String)];

fn config(properties: &Properties) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("client.id", "tarmac").set("message.max.bytes", RECORD_BYTES_MAX.to_string());
    for (name, value) in properties {
        config.set(name, value);
    }
    // librdkafka's own lines would say again what our errors say
    config.set_log_level(RDKafkaLogLevel::Critical);
    config
}

/// Makes those topics that do not exist, with one partition.
pub async fn create_topics(properties: &Properties, topics: &Topics) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = config(properties).create()?;
    let admin = Arc::new(admin);
    let known = {
        let admin = Arc::clone(&admin);
        let fetch = move || -> Result<BTreeSet<String>> {
            let metadata = admin.inner().fetch_metadata(None, BROKER_WAIT)?;
            Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
        };
        tokio::task::spawn_blocking(fetch).await?.context("no Kafka broker answers")?
    };
    let max_bytes = RECORD_BYTES_MAX.to_string();
    let topic = |name| {
        NewTopic::new(name, 1, TopicReplication::Fixed(-1)).set("max.message.bytes", &max_bytes)
    };
    let names = [&topics.requests, &topics.answers, &topics.dead_letters];
    let missing = names.into_iter().filter(|name| !known.contains(*name));
    let topics: Vec<NewTopic> = missing.map(|name| topic(name)).collect();
    if topics.is_empty() {
        return Ok(());
    }
    let options = AdminOptions::new().request_timeout(Some(BROKER_WAIT));
    let results = admin.create_topics(&topics, &options).await.context("cannot create topics")?;
    for result in results {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => bail!("cannot create topic {topic}: {code}"),
        }
    }
    Ok(())
}

/// A member of the consumer group that reads requests.
pub struct Source {
    consumer: Arc<StreamConsumer>,
    topic: String,
    trigger: Trigger,
    rows_max: usize,
    /// Partitions that hold what a bounded trigger has yet to read; `None` for unbounded ones.
    unread: Option<BTreeMap<i32, i64>>,
}

/// A window that was read.
#[derive(Debug)]
pub struct Window {
    /// The messages, in the order of each partition.
    pub messages: Vec<Message>,
    /// Whether the stream ends with it.
    pub is_last: bool,
}

impl Source {
    /// Joins `group` and subscribes to `topic`.
    pub async fn open(
        properties: &Properties,
        topic: &str,
        group: &str,
        trigger: Trigger,
        rows_max: usize,
    ) -> Result<Self> {
        let mut config = config(properties);
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("enable.partition.eof", "true")
            .set("queued.max.messages.kbytes", "65536");
        let consumer: Arc<StreamConsumer> = Arc::new(config.create()?);
        let is_bounded = matches!(trigger, Trigger::Once | Trigger::AvailableNow);
        let unread = if is_bounded {
            let (consumer, topic) = (Arc::clone(&consumer), topic.to_owned());
            let unread = tokio::task::spawn_blocking(move || unread_ends(&consumer, &topic));
            Some(unread.await??)
        } else {
            None
        };
        consumer.subscribe(&[topic]).with_context(|| format!("cannot subscribe to {topic}"))?;
        Ok(Self { consumer, topic: topic.to_owned(), trigger, rows_max, unread })
    }

    /// Reads the next window: it ends by the trigger, when it is full, or when `shutdown` is
    /// done, which makes it the last.
    pub async fn window(
        &mut self,
        mut shutdown: impl Future<Output = ()> + Unpin,
    ) -> Result<Window> {
        let mut messages = Vec::new();
        let mut n_bytes = 0;
        let ends = match self.trigger {
            Trigger::Interval(interval) => Some(Instant::now() + interval),
            _ => None,
        };
        loop {
            if self.unread.as_ref().is_some_and(BTreeMap::is_empty) {
                return Ok(Window { messages, is_last: true });
            }
            let is_full = match self.trigger {
                // one window is promised, so only memory ends it
                Trigger::Once => n_bytes >= WINDOW_BYTES_MAX,
                _ => messages.len() >= self.rows_max || n_bytes >= WINDOW_BYTES_MAX,
            };
            if is_full {
                return Ok(Window { messages, is_last: false });
            }
            let received = if self.trigger == Trigger::Arrival && !messages.is_empty() {
                match self.consumer.recv().now_or_never() {
                    Some(received) => received,
                    None => return Ok(Window { messages, is_last: false }),
                }
            } else {
                tokio::select! {
                    biased;
                    () = &mut shutdown => return Ok(Window { messages, is_last: true }),
                    () = at(ends) => return Ok(Window { messages, is_last: false }),
                    received = self.consumer.recv() => received,
                }
            };
            match received {
                Ok(message) => {
                    let message = Message {
                        partition: message.partition(),
                        offset: message.offset(),
                        key: message.key().map(<[u8]>::to_vec),
                        value: message.payload().map(<[u8]>::to_vec),
                    };
                    n_bytes += message.value.as_ref().map_or(0, Vec::len);
                    self.note_read(message.partition, message.offset + 1);
                    messages.push(message);
                }
                Err(KafkaError::PartitionEOF(partition)) => self.note_read(partition, i64::MAX),
                Err(error) => tolerate(&error)?,
            }
        }
    }

    fn note_read(&mut self, partition: i32, next_offset: i64) {
        if let Some(unread) = &mut self.unread
            && unread.get(&partition).is_some_and(|end| next_offset >= *end)
        {
            unread.remove(&partition);
        }
    }

    /// Records that everything up to these messages is answered.
    pub async fn commit(&self, messages: &[Message]) -> Result<()> {
        let mut ends = BTreeMap::new();
        for message in messages {
            let end = ends.entry(message.partition).or_insert(0);
            *end = message.offset.max(*end);
        }
        if ends.is_empty() {
            return Ok(());
        }
        let mut offsets = TopicPartitionList::new();
        for (partition, offset) in ends {
            offsets.add_partition_offset(&self.topic, partition, Offset::Offset(offset + 1))?;
        }
        let consumer = Arc::clone(&self.consumer);
        let commit = move || when_coordinated(|| consumer.commit(&offsets, CommitMode::Sync));
        tokio::task::spawn_blocking(commit).await?.context("cannot commit offsets")
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Brokers come and go, and librdkafka reconnects by itself; only what it gave up on is an error.
fn tolerate(error: &KafkaError) -> Result<()> {
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::Fatal
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed,
        )
        | None => bail!("reading requests: {error}"),
        Some(_) => {
            tracing::warn!(%error, "reading requests");
            Ok(())
        }
    }
}

/// Asks the group's coordinator, again while it is only starting or moving: a new broker has none
/// for a moment. Blocks.
fn when_coordinated<T>(mut ask: impl FnMut() -> KafkaResult<T>) -> KafkaResult<T> {
    let give_up = std::time::Instant::now() + BROKER_WAIT;
    loop {
        let answer = ask();
        let is_moving = answer.as_ref().is_err_and(|error| {
            matches!(
                error.rdkafka_error_code(),
                Some(
                    RDKafkaErrorCode::NotCoordinator
                        | RDKafkaErrorCode::CoordinatorNotAvailable
                        | RDKafkaErrorCode::CoordinatorLoadInProgress
                )
            )
        });
        if !is_moving || std::time::Instant::now() > give_up {
            return answer;
        }
        std::thread::sleep(COORDINATOR_PAUSE);
    }
}

/// For each partition that holds messages the group has not read: where it ends now.
fn unread_ends(consumer: &StreamConsumer, topic: &str) -> Result<BTreeMap<i32, i64>> {
    let metadata =
        consumer.fetch_metadata(Some(topic), BROKER_WAIT).context("no broker answers")?;
    let partitions: BTreeSet<i32> = metadata
        .topics()
        .iter()
        .flat_map(|topic| topic.partitions())
        .map(|partition| partition.id())
        .collect();
    let mut list = TopicPartitionList::new();
    for partition in &partitions {
        list.add_partition(topic, *partition);
    }
    let committed = when_coordinated(|| consumer.committed_offsets(list.clone(), BROKER_WAIT))
        .context("cannot read committed offsets")?;
    let mut ends = BTreeMap::new();
    for partition in partitions {
        let (low, high) = consumer.fetch_watermarks(topic, partition, BROKER_WAIT)?;
        let next = match committed.find_partition(topic, partition).map(|found| found.offset()) {
            Some(Offset::Offset(offset)) => offset.max(low),
            _ => low,
        };
        if next < high {
            ends.insert(partition, high);
        }
    }
    Ok(ends)
}

/// Writes answers and dead letters.
pub struct Sink {
    producer: FutureProducer,
    topics: Topics,
}

impl Sink {
    /// Connects; nothing is sent yet.
    pub fn open(properties: &Properties, topics: Topics) -> Result<Self> {
        let mut config = config(properties);
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", DELIVERY_WAIT.as_millis().to_string());
        Ok(Self { producer: config.create()?, topics })
    }

    /// Sends answers, keyed by UUID; returns when all are acknowledged.
    pub async fn send_answers(&self, answers: &[Answer]) -> Result<()> {
        let records: Vec<(String, Vec<u8>)> = answers
            .iter()
            .map(|answer| Ok((answer.uuid().to_string(), serde_json::to_vec(answer)?)))
            .collect::<Result<_>>()?;
        let sends = records.iter().map(|(key, value)| {
            let record = FutureRecord::to(&self.topics.answers).key(key).payload(value);
            self.producer.send(record, DELIVERY_WAIT)
        });
        match try_join_all(sends).await {
            Ok(_) => Ok(()),
            Err((error, _)) => bail!("cannot write to {}: {error}", self.topics.answers),
        }
    }

    /// Keeps messages that cannot be scored, bytes unchanged; returns when all are acknowledged.
    /// Header names are those of Kafka Connect, so that its tools can read them.
    pub async fn send_dead_letters(&self, dead_letters: &[DeadLetter]) -> Result<()> {
        let sends = dead_letters.iter().map(|letter| {
            let message = &letter.message;
            let (partition, offset) = (message.partition.to_string(), message.offset.to_string());
            let headers = [
                ("__connect.errors.topic", &self.topics.requests),
                ("__connect.errors.partition", &partition),
                ("__connect.errors.offset", &offset),
                ("__connect.errors.exception.message", &letter.reason),
            ]
            .into_iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| {
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
