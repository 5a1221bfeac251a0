//! The topic of what could not be read: what is in it, and back to where it came from. Must not
//! change or remove a letter.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use datafusion::arrow::array::{
    AsArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use datafusion::arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, TimeUnit};
use datafusion::prelude::{SessionContext, col};
use events::REPLAYED_DEAD_LETTERS;
use futures::future::try_join_all;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::json;
use sha2::{Digest, Sha256};
use store::Store;

use crate::stream::kafka::{Complaint, Properties, Topics, config};
use crate::stream::micro_batch::{Headers, Message};
use crate::stream::request_log::digest;
use crate::stream::sink::headers;
use crate::stream::topic::TopicReader;

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
    /// Headers in order: those that the message came with, then [ours](headers).
    pub headers: Headers,
    /// Key, unchanged.
    pub key: Option<Vec<u8>>,
    /// Value, unchanged.
    pub value: Option<Vec<u8>>,
}

impl From<Message> for Letter {
    fn from(message: Message) -> Self {
        let Message { partition, offset, created_ms, key, value, headers } = message;
        Self { partition, offset, created_ms, headers, key, value }
    }
}

impl Letter {
    /// The header of that name that was written with the letter, see [`headers`]. The message may
    /// have come with one of the same name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().rfind(|(key, _)| key == name)?;
        std::str::from_utf8(value.as_deref()?).ok()
    }

    /// Whether only a stub of the message was kept.
    pub fn is_stub(&self) -> bool {
        self.header(headers::STUB).is_some()
    }

    /// The headers that the message came with.
    fn original_headers(&self) -> OwnedHeaders {
        let mut ours: BTreeSet<&str> = headers::ALL.into();
        let mut original: Vec<_> = self.headers.iter().rev().collect();
        original.retain(|(key, _)| !ours.remove(key.as_str()));
        original.into_iter().rev().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: value.as_ref() })
        })
    }

    fn digest(&self) -> String {
        match self.header(headers::DIGEST) {
            Some(digest) => digest.to_owned(),
            None => digest(self.key.as_deref(), self.value.as_deref()),
        }
    }

    /// Where the message came from, with its digest: an offset is used again when a topic is made
    /// again.
    fn source_id(&self, topics: &Topics) -> String {
        let from = |name| self.header(name);
        let place = match (from(headers::TOPIC), from(headers::PARTITION), from(headers::OFFSET)) {
            (Some(topic), Some(partition), Some(offset)) => format!("{topic}/{partition}/{offset}"),
            _ => format!("{}/{}/{}", topics.dead_letters, self.partition, self.offset),
        };
        format!("{place}/{}", self.digest())
    }
}

/// Letters that were written of partitions that are read again, as digests of their names: there
/// may be very many.
#[derive(Debug, Default)]
pub(crate) struct KnownLetters(HashSet<[u8; 16]>);

impl KnownLetters {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a letter of this message is among them.
    pub(crate) fn contains(&self, message: &Message) -> bool {
        if self.is_empty() {
            return false;
        }
        let Message { partition, offset, created_ms, key, value, .. } = message;
        let digest = digest(key.as_deref(), value.as_deref());
        let time = created_ms.map(|ms| ms.to_string()).unwrap_or_default();
        // earlier versions did not keep the time
        ["-", &time].iter().any(|time| self.0.contains(&name(*partition, *offset, time, &digest)))
    }
}

fn name(partition: i32, offset: i64, time: &str, digest: &str) -> [u8; 16] {
    let name = Sha256::digest(format!("{partition}/{offset}/{time}/{digest}"));
    *name.first_chunk().expect("it has 32 bytes")
}

/// The letters that came from these partitions of the topic of requests, from before these offsets.
/// None when their topic is not there, or we may not read it: then a letter may be written twice,
/// which is better than to write nothing.
pub(crate) async fn known_letters(
    properties: &Properties,
    topics: &Topics,
    read_again: &BTreeMap<i32, i64>,
) -> Result<KnownLetters> {
    use RDKafkaErrorCode::{TopicAuthorizationFailed, UnknownTopicOrPartition};
    let mut known = HashSet::new();
    let scanned = scan(properties, topics, None, async |letters| {
        for letter in letters {
            let from = |name| letter.header(name);
            let is_ours = from(headers::TOPIC) == Some(&topics.requests);
            let partition = from(headers::PARTITION).and_then(|p| p.parse().ok());
            let offset = from(headers::OFFSET).and_then(|offset| offset.parse().ok());
            let (Some(partition), Some(offset)) = (partition, offset) else { continue };
            if is_ours && read_again.get(&partition).is_some_and(|to| offset < *to) {
                let time = from(headers::TIMESTAMP).unwrap_or("-");
                known.insert(name(partition, offset, time, &letter.digest()));
            }
        }
        Ok(())
    });
    match scanned.await {
        Ok(()) => Ok(KnownLetters(known)),
        Err(error) => match error.downcast_ref::<KafkaError>().and_then(|e| e.rdkafka_error_code())
        {
            Some(TopicAuthorizationFailed | UnknownTopicOrPartition) => {
                let (topic, error) = (&topics.dead_letters, format!("{error:#}"));
                tracing::warn!(topic, error, "dead letters may be written a second time");
                Ok(KnownLetters::default())
            }
            _ => Err(error),
        },
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
    let mut reader = TopicReader::open(properties, &topics.dead_letters).await?;
    loop {
        let messages = reader.read().await?;
        let letters: Vec<Letter> = messages.into_iter().map(Letter::from).collect();
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

/// What became of letters that were to be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Replayed {
    /// Sent to the topic that they came from.
    pub n_sent: u64,
    /// Left alone, because they had been sent before.
    pub n_known: u64,
    /// Left alone, because only a stub of them was kept.
    pub n_stubs: u64,
}

/// Sends letters to the topic that they came from, key, value and headers unchanged; returns when
/// all are acknowledged. What was sent is remembered in `store` by the place that it came from, and
/// not sent again unless `again`.
pub async fn replay(
    properties: &Properties,
    topics: &Topics,
    store: &Store,
    letters: &[Letter],
    again: bool,
) -> Result<Replayed> {
    let ids: Vec<String> = letters.iter().map(|letter| letter.source_id(topics)).collect();
    let mut known: HashSet<String> = match again {
        true => HashSet::new(),
        false => {
            let known = store.get_all(REPLAYED_DEAD_LETTERS, &ids).await?;
            known.iter().filter_map(|d| Some(d["_id"].as_str()?.to_owned())).collect()
        }
    };
    let mut config = config(properties);
    config.set("enable.idempotence", "true").set("acks", "all");
    let complaint = Complaint::default();
    let producer: FutureProducer<Complaint> = config.create_with_context(complaint.clone())?;
    let (mut replayed, mut sends, mut sent) = (Replayed::default(), Vec::new(), Vec::new());
    for (letter, id) in letters.iter().zip(ids) {
        // a letter may be there twice
        if letter.is_stub() {
            replayed.n_stubs += 1;
        } else if known.insert(id.clone()) {
            sends.push(send(&producer, &complaint, topics, letter));
            sent.push(json!({ "_id": id }));
        } else {
            replayed.n_known += 1;
        }
    }
    try_join_all(sends).await?;
    replayed.n_sent = sent.len() as u64;
    store.upsert(REPLAYED_DEAD_LETTERS, &sent).await?;
    Ok(replayed)
}

async fn send(
    producer: &FutureProducer<Complaint>,
    complaint: &Complaint,
    topics: &Topics,
    letter: &Letter,
) -> Result<()> {
    let place = || format!("dead letter {}/{}", letter.partition, letter.offset);
    let topic = letter.header(headers::TOPIC).unwrap_or(&topics.requests);
    ensure!(topic == topics.requests, "{}: it came from the topic {topic}", place());
    let mut record = FutureRecord::<[u8], [u8]>::to(topic).headers(letter.original_headers());
    if let Some(key) = &letter.key {
        record = record.key(key.as_slice());
    }
    if let Some(value) = &letter.value {
        record = record.payload(value.as_slice());
    }
    match producer.send(record, SEND_WAIT).await {
        Ok(_) => Ok(()),
        Err((error, _)) => {
            let error = complaint.explain(error);
            bail!("{}: cannot write to {topic}: {error}", place())
        }
    }
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
