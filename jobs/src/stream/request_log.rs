//! Which log an offset belongs to. Names outlive logs: a topic is deleted and made again, a broker
//! starts anew, two brokers share a store. An offset of another log would skip requests, so what
//! the last record was is kept beside it, and looked at again before it is trusted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use parking_lot::Mutex;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use store::Lease;
use tokio::task::spawn_blocking;

use crate::stream::kafka::{BROKER_WAIT, FETCH_BYTES_MAX, Properties, Reader, reader};
use crate::stream::micro_batch::Message;

/// How long a poll waits for the record that is looked for.
const POLL: Duration = Duration::from_millis(100);

/// Distinguishes the log of a partition from another one; the `log` of its [`Lease`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LogMark {
    /// Id of the cluster, where it has one.
    #[serde(default)]
    pub cluster: Option<String>,
    /// Where clients find the cluster.
    #[serde(default)]
    pub brokers: String,
    /// The last record that was consumed.
    #[serde(default)]
    pub last: Option<LastRecord>,
    /// Records before this offset may have been read before, as those of another log.
    #[serde(default)]
    pub read_again_to: i64,
}

/// A record, by what another one at its place would not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRecord {
    /// Its offset.
    pub offset: i64,
    /// Its time, in milliseconds since 1970.
    pub timestamp_ms: Option<i64>,
    /// [`digest`] of its key and value.
    pub digest: String,
}

impl LastRecord {
    /// Of a message.
    pub fn of(message: &Message) -> Self {
        Self {
            offset: message.offset,
            timestamp_ms: message.created_ms,
            digest: digest(message.key.as_deref(), message.value.as_deref()),
        }
    }
}

/// SHA-256 of a key and a value, in hexadecimal.
pub fn digest(key: Option<&[u8]>, value: Option<&[u8]>) -> String {
    let mut digest = Sha256::new();
    for part in [key, value] {
        // what is missing is not what is empty
        digest.update(part.map_or(-1, |part| part.len() as i64).to_le_bytes());
        digest.update(part.unwrap_or_default());
    }
    format!("{:x}", digest.finalize())
}

impl LogMark {
    /// What a lease says of its log; nothing when an earlier version wrote it.
    pub fn of(lease: &Lease) -> Result<Option<Self>> {
        let mark = lease.log.clone().map(serde_json::from_value).transpose();
        mark.with_context(|| format!("{}: the stored log is not understood", lease.id))
    }

    /// As it is kept.
    pub fn to_value(&self) -> Result<Value> {
        Ok(serde_json::to_value(self)?)
    }

    /// The address says something only where an id is missing: a cluster has many addresses.
    fn is_elsewhere(&self, other: &Self) -> bool {
        let has_ids = self.cluster.is_some() && other.cluster.is_some();
        self.has_other_cluster(other) || (!has_ids && self.brokers != other.brokers)
    }

    fn has_other_cluster(&self, other: &Self) -> bool {
        matches!((&self.cluster, &other.cluster), (Some(one), Some(two)) if one != two)
    }

    fn place(&self) -> String {
        let cluster = self.cluster.as_deref().unwrap_or("without an id");
        format!("cluster {cluster} at {}", self.brokers)
    }
}

/// What there is of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// Offset of the first record.
    pub begin: i64,
    /// Offset after the last record.
    pub end: i64,
    /// The record at the offset that was asked for, when it is there.
    pub record: Option<LastRecord>,
    /// Whether there is none although it is between the first and the last of a topic that keeps
    /// all: then there never was one.
    pub never_was: bool,
}

/// A cluster, and what there is of some partitions of a topic.
#[derive(Debug, Clone, Default)]
pub struct Inspection {
    /// The cluster, as the mark of a log of which nothing was consumed.
    pub here: LogMark,
    /// By partition.
    pub found: BTreeMap<i32, Found>,
}

/// Looks at a topic, over a connection that it keeps.
#[derive(Clone)]
pub struct Inspector {
    properties: Arc<Properties>,
    topic: String,
    topic_is_whole: bool,
    /// None after a failure: a reader does not learn soon of partitions that were added.
    reader: Arc<Mutex<Option<Reader>>>,
}

/// What is at an offset.
enum At {
    Record(LastRecord),
    /// No message: it was deleted, or never was.
    Nothing,
    /// Something that cannot be read.
    Damage,
}

impl Inspector {
    /// Does not connect yet. `topic_is_whole` says that the topic is not compacted.
    pub fn new(properties: &Properties, topic: &str, topic_is_whole: bool) -> Self {
        let (properties, topic) = (properties.into(), topic.to_owned());
        Self { properties, topic, topic_is_whole, reader: Arc::default() }
    }

    /// Looks at partitions: where they begin and end, and the record at an offset of each. One look
    /// at a time. The cluster's id is asked for when `with_cluster`: librdkafka's answer is memory
    /// that is never freed.
    ///
    /// Errors when the broker does not answer or the topic is not there.
    pub async fn inspect(
        &self,
        offsets: BTreeMap<i32, Option<i64>>,
        with_cluster: bool,
    ) -> Result<Inspection> {
        let inspector = self.clone();
        let inspect = move || {
            let mut kept = inspector.reader.lock();
            let reader = match kept.take() {
                Some(reader) => reader,
                None => reader(&inspector.properties, FETCH_BYTES_MAX)?,
            };
            let inspection = inspector.inspect_by(&reader, &offsets, with_cluster)?;
            *kept = Some(reader);
            Ok(inspection)
        };
        spawn_blocking(inspect).await?
    }

    fn inspect_by(
        &self,
        reader: &Reader,
        offsets: &BTreeMap<i32, Option<i64>>,
        with_cluster: bool,
    ) -> Result<Inspection> {
        let Self { topic, properties, .. } = self;
        let mut found = BTreeMap::new();
        for (partition, offset) in offsets {
            let watermarks = reader.fetch_watermarks(topic, *partition, BROKER_WAIT);
            let (begin, end) = watermarks.map_err(|error| {
                // librdkafka hands its complaints over when it is polled
                _ = reader.poll(Duration::ZERO);
                let what = format!("offsets of {topic}/{partition}: {error}");
                anyhow!(reader.context().explain(what))
            })?;
            let offset = offset.filter(|offset| (begin..end).contains(offset));
            let (record, never_was) = match offset {
                Some(offset) => match read_at(reader, topic, *partition, offset)? {
                    At::Record(record) => (Some(record), false),
                    At::Nothing => (None, self.topic_is_whole),
                    At::Damage => (None, false),
                },
                None => (None, false),
            };
            reader.unassign()?;
            found.insert(*partition, Found { begin, end, record, never_was });
        }
        let cluster = match with_cluster {
            true => reader.client().fetch_cluster_id(BROKER_WAIT),
            false => None,
        };
        let brokers = properties.iter().rfind(|(name, _)| name == "bootstrap.servers");
        let brokers = brokers.map(|(_, brokers)| brokers.clone()).unwrap_or_default();
        let here = LogMark { cluster, brokers, ..LogMark::default() };
        Ok(Inspection { here, found })
    }
}

/// What is at an offset.
fn read_at(reader: &Reader, topic: &str, partition: i32, offset: i64) -> Result<At> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
    reader.assign(&list)?;
    let started = Instant::now();
    loop {
        match reader.poll(POLL) {
            Some(Ok(message)) if message.offset() < offset => {}
            Some(Ok(message)) if message.offset() == offset => {
                return Ok(At::Record(record(&message)));
            }
            Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => return Ok(At::Nothing),
            Some(Err(error)) if is_of_data(&error) => return Ok(At::Damage),
            // brokers come and go
            Some(Err(_)) | None => {}
        }
        if started.elapsed() > BROKER_WAIT {
            let what = format!("{topic}/{partition} is not read at {offset}");
            bail!(reader.context().explain(what));
        }
    }
}

fn record(message: &BorrowedMessage) -> LastRecord {
    LastRecord {
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis(),
        digest: digest(message.key(), message.payload()),
    }
}

/// Whether an error is one of the data of a partition: reading it again fails again.
pub(crate) fn is_of_data(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{
        BadCompression, BadMessage, Inconsistent, InvalidMessage, InvalidMessageSize,
        InvalidRecord, MessageSizeTooLarge, NotImplemented, Underflow, UnsupportedCompressionType,
        UnsupportedFeature,
    };
    matches!(
        error.rdkafka_error_code(),
        Some(
            BadCompression
                | BadMessage
                | Inconsistent
                | InvalidMessage
                | InvalidMessageSize
                | InvalidRecord
                | MessageSizeTooLarge
                | NotImplemented
                | Underflow
                | UnsupportedCompressionType
                | UnsupportedFeature
        )
    )
}

/// The first partition that cannot be read at its offset because of what is there.
pub(crate) fn find_damage(
    properties: &Properties,
    topic: &str,
    offsets: &BTreeMap<i32, i64>,
) -> Result<Option<(i32, i64, String)>> {
    let reader = reader(properties, FETCH_BYTES_MAX)?;
    for (partition, offset) in offsets {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
        reader.assign(&list)?;
        let started = Instant::now();
        while started.elapsed() < BROKER_WAIT {
            match reader.poll(POLL) {
                Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => break,
                Some(Err(error)) if is_of_data(&error) => {
                    return Ok(Some((*partition, *offset, reader.context().explain(error))));
                }
                Some(Err(_)) | None => {}
            }
        }
    }
    Ok(None)
}

/// Whether stored offsets are those of the log that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// They are, or nothing speaks against it.
    Same,
    /// They are not; why, which names both.
    Other(String),
}

/// A lease of everything before `next`, of which `last` is the last record.
pub(crate) fn moved_to(lease: &Lease, next: i64, last: LastRecord) -> Result<Lease> {
    let mut mark = LogMark::of(lease)?.unwrap_or_default();
    mark.last = Some(last);
    if next >= mark.read_again_to {
        mark.read_again_to = 0;
    }
    Ok(Lease { next, log: Some(mark.to_value()?), ..lease.clone() })
}

/// The record of a lease that is looked for: the last one consumed, which for offsets of earlier
/// versions is the one before the next.
pub fn offset_to_inspect(lease: &Lease, mark: Option<&LogMark>) -> Option<i64> {
    match mark {
        Some(mark) => mark.last.as_ref().map(|last| last.offset),
        None => lease.next.checked_sub(1).filter(|offset| *offset >= 0),
    }
}

/// Holds what is stored against what is there. A record that retention or compaction has deleted
/// proves nothing; then the cluster's id decides. One that was never there does: where the last
/// record was, the log that is there has the mark of a transaction, or an aborted message.
pub fn compare(lease: &Lease, mark: Option<&LogMark>, here: &LogMark, found: &Found) -> Verdict {
    let Found { begin, end, record, never_was } = found;
    if lease.next > *end {
        let there = mark.map_or_else(|| "an earlier version".to_owned(), LogMark::place);
        return Verdict::Other(format!(
            "offset {} of {there} is beyond the end, {end}, of the log of {}",
            lease.next,
            here.place()
        ));
    }
    let Some(mark) = mark else { return Verdict::Same };
    match (&mark.last, record) {
        (Some(last), Some(record)) if last == record => Verdict::Same,
        (Some(last), Some(_)) => Verdict::Other(format!(
            "the record at offset {} of {} is not that of {}",
            last.offset,
            mark.place(),
            here.place()
        )),
        (Some(last), None) if *never_was => Verdict::Other(format!(
            "at offset {} of {}, where {} had its last record, there is none",
            last.offset,
            here.place(),
            mark.place()
        )),
        (last, _) if mark.has_other_cluster(here) => {
            let last = last.as_ref().map_or(0, |last| last.offset);
            let gone = if last < *begin { ", deleted by now," } else { "" };
            Verdict::Other(format!(
                "offset {last}{gone} is one of {}, and this is {}",
                mark.place(),
                here.place()
            ))
        }
        _ => Verdict::Same,
    }
}

/// Why a process that held a partition must not go on: what is stored was written by one that reads
/// somewhere else than `here`, and is no continuation of `ours`.
pub fn conflict(
    ours: &Lease,
    stored: &Lease,
    mark: Option<&LogMark>,
    here: &LogMark,
    verdict: &Verdict,
) -> Option<String> {
    let mark = mark?;
    // an id may be one that many clusters were given, and a cluster has many addresses
    let is_conflict = match verdict {
        Verdict::Same => here.is_elsewhere(mark) && stored.next < ours.next,
        Verdict::Other(_) => here.is_elsewhere(mark) || here.brokers != mark.brokers,
    };
    is_conflict.then(|| {
        format!(
            "{}: two clusters use one store and one group, and take it from each other: {} and \
             {}. Give one of them another --group, or another --database",
            stored.id,
            here.place(),
            mark.place()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: i64, text: &str) -> LastRecord {
        LastRecord { offset, timestamp_ms: Some(5), digest: digest(None, Some(text.as_bytes())) }
    }

    fn mark(cluster: &str, last: Option<LastRecord>) -> LogMark {
        let brokers = format!("{cluster}:9092");
        LogMark { cluster: Some(cluster.into()), brokers, last, read_again_to: 0 }
    }

    fn lease(next: i64) -> Lease {
        Lease { id: "g/t/0".into(), epoch: 1, next, published: next, log: None }
    }

    fn found(begin: i64, end: i64, record: Option<LastRecord>) -> Found {
        Found { begin, end, record, never_was: false }
    }

    #[test]
    fn a_key_that_is_missing_is_not_one_that_is_empty() {
        let digests = [
            digest(None, Some(b"ab")),
            digest(Some(b""), Some(b"ab")),
            digest(Some(b"a"), Some(b"b")),
            digest(Some(b"ab"), None),
        ];
        let different: std::collections::BTreeSet<_> = digests.iter().collect();
        assert_eq!(different.len(), digests.len());
    }

    #[test]
    fn the_last_record_tells_whether_the_log_is_the_same() {
        let here = mark("a", None);
        let same = record(6, "x");
        let compare =
            |mark: &LogMark, next, found| compare(&lease(next), Some(mark), &here, &found);
        let stored = mark("a", Some(same.clone()));
        assert_eq!(compare(&stored, 7, found(0, 9, Some(same.clone()))), Verdict::Same);
        // a mirror, or a cluster whose id was set anew
        let elsewhere = mark("b", Some(same.clone()));
        assert_eq!(compare(&elsewhere, 7, found(0, 9, Some(same))), Verdict::Same);
        for (mark, next, found, says) in [
            (&stored, 7, found(0, 9, Some(record(6, "y"))), "the record at offset 6"),
            (&stored, 7, found(0, 6, None), "beyond the end, 6"),
            (&stored, 7, found(0, 0, None), "beyond the end, 0"),
            (
                &stored,
                7,
                Found { never_was: true, ..found(0, 9, None) },
                "at offset 6 of cluster a",
            ),
            (&elsewhere, 7, found(8, 9, None), "offset 6, deleted by now, is one of cluster b"),
        ] {
            let Verdict::Other(why) = compare(mark, next, found) else { panic!("{says}") };
            assert!(why.contains(says) && why.contains("cluster a at a:9092"), "{why}");
        }
    }

    #[test]
    fn what_is_deleted_or_was_never_told_is_no_proof() {
        let here = mark("a", None);
        let stored = mark("a", Some(record(6, "x")));
        for (mark, found) in [
            (Some(&stored), found(8, 9, None)),
            (Some(&stored), found(0, 9, None)),
            (None, found(0, 9, Some(record(6, "x")))),
            (None, found(0, 7, None)),
            (Some(&here), found(0, 7, None)),
        ] {
            assert_eq!(compare(&lease(7), mark, &here, &found), Verdict::Same);
        }
    }

    #[test]
    fn two_clusters_with_one_store_are_told_apart_from_a_topic_that_was_made_again() {
        let (here, other) = (mark("a", None), Verdict::Other("other".into()));
        let conflict = |next, mark: LogMark, verdict: &Verdict| {
            super::conflict(&lease(7), &lease(next), Some(&mark), &here, verdict)
        };
        let why = conflict(0, mark("b", None), &Verdict::Same).unwrap();
        assert!(why.contains("cluster a at a:9092 and cluster b at b:9092"), "{why}");
        assert!(conflict(9, mark("b", None), &other).is_some());
        assert!(conflict(9, mark("b", None), &Verdict::Same).is_none());
        assert!(conflict(0, mark("a", None), &other).is_none());
        // one cluster has many addresses, one without an id has only them, and an id may be shared
        let elsewhere = LogMark { brokers: "localhost:9092".into(), ..mark("a", None) };
        assert!(conflict(0, elsewhere.clone(), &Verdict::Same).is_none());
        assert!(conflict(0, elsewhere.clone(), &other).is_some());
        assert!(conflict(0, LogMark { cluster: None, ..elsewhere }, &Verdict::Same).is_some());
    }
}
