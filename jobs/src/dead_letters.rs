//! The topic of what could not be read: what is in it, and back to where it came from. Must not
//! change or remove a letter.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use datafusion::arrow::array::{
    AsArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use datafusion::arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, TimeUnit};
use datafusion::prelude::{SessionContext, col};
use futures::future::try_join_all;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};

use crate::kafka::{Properties, Topics, config};
use crate::poll::ends;
use crate::sink::headers;

/// Letters that are looked at together; bounds memory.
const LETTERS_PER_BATCH: usize = 1_000;
/// Silence of the broker after which reading has failed.
const SILENCE: Duration = Duration::from_secs(30);
/// How long a letter that is sent again may take to be acknowledged.
const SEND_WAIT: Duration = Duration::from_secs(30);

/// A message in the topic of dead letters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Letter {
    /// Partition of this topic.
    pub partition: i32,
    /// Offset in that partition.
    pub offset: i64,
    /// When it was put there, in milliseconds since 1970.
    pub created_ms: Option<i64>,
    /// Headers as text, in order.
    pub headers: Vec<(String, String)>,
    /// Key, unchanged.
    pub key: Option<Vec<u8>>,
    /// Value, unchanged.
    pub value: Option<Vec<u8>>,
}

impl Letter {
    /// The header of that name, see [`headers`].
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Reads the letters that are there now and for which `filter`, a condition in SQL, holds; gives
/// them to `take`, some at a time, in the order of each partition. Its columns:
///
/// `dlq_partition`, `dlq_offset`, `written_at`; where the message came from: `source_topic`,
/// `source_partition`, `source_offset`; `job`, `reason`, `bytes`, and `value`, the message as text.
pub async fn scan(
    properties: &Properties,
    topics: &Topics,
    filter: Option<&str>,
    mut take: impl AsyncFnMut(Vec<Letter>) -> Result<()>,
) -> Result<()> {
    let ctx = SessionContext::new();
    let mut reader = Reader::open(properties, &topics.dead_letters).await?;
    loop {
        let (back, letters) = tokio::task::spawn_blocking(move || {
            let letters = reader.read();
            (reader, letters)
        })
        .await?;
        reader = back;
        let letters = letters?;
        if letters.is_empty() {
            return Ok(());
        }
        let letters = match filter {
            Some(filter) => select(&ctx, letters, filter).await?,
            None => letters,
        };
        if !letters.is_empty() {
            take(letters).await?;
        }
    }
}

/// Sends letters to the topic that they came from, key and value unchanged; returns when all are
/// acknowledged.
pub async fn replay(properties: &Properties, topics: &Topics, letters: &[Letter]) -> Result<()> {
    let mut config = config(properties);
    config.set("enable.idempotence", "true").set("acks", "all");
    let producer: FutureProducer = config.create()?;
    let sends = letters.iter().map(async |letter| {
        let place = || format!("dead letter {}/{}", letter.partition, letter.offset);
        let topic = letter.header(headers::TOPIC).unwrap_or(&topics.requests);
        ensure!(topic == topics.requests, "{}: it came from the topic {topic}", place());
        let mut record = FutureRecord::<[u8], [u8]>::to(topic);
        if let Some(key) = &letter.key {
            record = record.key(key.as_slice());
        }
        if let Some(value) = &letter.value {
            record = record.payload(value.as_slice());
        }
        match producer.send(record, SEND_WAIT).await {
            Ok(_) => Ok(()),
            Err((error, _)) => bail!("{}: cannot write to {topic}: {error}", place()),
        }
    });
    try_join_all(sends).await.map(drop)
}

/// Those for which the condition holds.
async fn select(ctx: &SessionContext, letters: Vec<Letter>, filter: &str) -> Result<Vec<Letter>> {
    let frame = ctx.read_batch(columns(&letters)?)?;
    let condition = frame.parse_sql_expr(filter).with_context(|| format!("--where {filter}"))?;
    let places = frame
        .filter(condition)
        .and_then(|frame| frame.select([col("dlq_partition"), col("dlq_offset")]));
    let batches = places.with_context(|| format!("--where {filter}"))?.collect().await?;
    let mut wanted = BTreeSet::new();
    for batch in &batches {
        let partitions = batch.column(0).as_primitive::<Int32Type>().values();
        let offsets = batch.column(1).as_primitive::<Int64Type>().values();
        wanted.extend(partitions.iter().copied().zip(offsets.iter().copied()));
    }
    let is_wanted = |letter: &Letter| wanted.contains(&(letter.partition, letter.offset));
    Ok(letters.into_iter().filter(is_wanted).collect())
}

fn columns(letters: &[Letter]) -> Result<RecordBatch> {
    let header = |name: &'static str| {
        StringArray::from_iter(letters.iter().map(|letter| letter.header(name)))
    };
    let number = |name: &'static str| {
        let parse = |letter: &Letter| letter.header(name)?.parse::<i64>().ok();
        Int64Array::from_iter(letters.iter().map(parse))
    };
    let text = |letter: &Letter| {
        letter.value.as_deref().map(|value| String::from_utf8_lossy(value).into_owned())
    };
    let n_bytes = letters.iter().map(|letter| letter.value.as_ref().map_or(0, Vec::len) as i64);
    let field = |name: &str, of| Field::new(name, of, true);
    let schema = Schema::new(vec![
        field("dlq_partition", DataType::Int32),
        field("dlq_offset", DataType::Int64),
        field("written_at", DataType::Timestamp(TimeUnit::Millisecond, None)),
        field("source_topic", DataType::Utf8),
        field("source_partition", DataType::Int64),
        field("source_offset", DataType::Int64),
        field("job", DataType::Utf8),
        field("reason", DataType::Utf8),
        field("bytes", DataType::Int64),
        field("value", DataType::Utf8),
    ]);
    let batch = RecordBatch::try_new(
        Arc::new(schema),
        vec![
            Arc::new(Int32Array::from_iter_values(letters.iter().map(|l| l.partition))),
            Arc::new(Int64Array::from_iter_values(letters.iter().map(|l| l.offset))),
            Arc::new(TimestampMillisecondArray::from_iter(letters.iter().map(|l| l.created_ms))),
            Arc::new(header(headers::TOPIC)),
            Arc::new(number(headers::PARTITION)),
            Arc::new(number(headers::OFFSET)),
            Arc::new(header(headers::JOB)),
            Arc::new(header(headers::REASON)),
            Arc::new(Int64Array::from_iter_values(n_bytes)),
            Arc::new(StringArray::from_iter(letters.iter().map(text))),
        ],
    );
    Ok(batch?)
}

/// Reads a topic from its beginning to where it ends now, outside of any group.
struct Reader {
    consumer: BaseConsumer,
    topic: String,
    /// Partitions that are not read to their end, with the end.
    unread: BTreeMap<i32, i64>,
    /// The one that is being read.
    present: Option<(i32, i64)>,
}

impl Reader {
    async fn open(properties: &Properties, topic: &str) -> Result<Self> {
        let mut config = config(properties);
        config
            .set("group.id", "tarmac-dlq")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true");
        let topic = topic.to_owned();
        let open = move || {
            let consumer: BaseConsumer = config.create()?;
            let unread = ends(&consumer, &topic)?;
            Ok(Self { consumer, topic, unread, present: None })
        };
        tokio::task::spawn_blocking(open).await?
    }

    /// Some letters; none at the end.
    fn read(&mut self) -> Result<Vec<Letter>> {
        let mut letters = Vec::new();
        while letters.len() < LETTERS_PER_BATCH {
            let Some((partition, end)) = self.present.or_else(|| self.unread.pop_first()) else {
                break;
            };
            if self.present.is_none() {
                let mut list = TopicPartitionList::new();
                list.add_partition_offset(&self.topic, partition, Offset::Beginning)?;
                self.consumer.assign(&list)?;
            }
            self.present = Some((partition, end));
            match self.consumer.poll(SILENCE) {
                Some(Ok(message)) if message.offset() < end => {
                    let is_last = message.offset() + 1 == end;
                    letters.push(letter(&message));
                    self.present = self.present.filter(|_| !is_last);
                }
                Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => self.present = None,
                Some(Err(error)) => bail!("reading {}/{partition}: {error}", self.topic),
                None => bail!("reading {}/{partition}: no answer from Kafka", self.topic),
            }
        }
        Ok(letters)
    }
}

fn letter(message: &BorrowedMessage) -> Letter {
    let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into();
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    Letter {
        partition: message.partition(),
        offset: message.offset(),
        created_ms: message.timestamp().to_millis(),
        headers: headers.map(|header| (header.key.to_owned(), text(header.value))).collect(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
    }
}
