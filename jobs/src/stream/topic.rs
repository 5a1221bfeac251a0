//! A topic from some offsets to where it ends now, outside of any group.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, bail};
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};

use crate::stream::kafka::{Properties, Reader, reader};
use crate::stream::micro_batch::Message;
use crate::stream::poll::{end_offsets, message_of};

/// Messages that are given together.
const MESSAGES_PER_BATCH: usize = 1_000;
/// Bytes of messages that are given together, and that librdkafka reads ahead.
const BYTES_PER_BATCH: usize = 16 * 1024 * 1024;
/// Silence of the broker after which reading has failed.
const SILENCE: Duration = Duration::from_secs(30);

/// Reads what is in a topic when it is opened, one partition after the other.
pub(crate) struct TopicReader(Option<Unread>);

struct Unread {
    consumer: Reader,
    topic: String,
    /// Partitions that are not read to their end: where each begins, if not with what is there
    /// first, and where it ends.
    partitions: BTreeMap<i32, (Option<i64>, i64)>,
    /// The one that is being read, with its end.
    present: Option<(i32, i64)>,
}

impl TopicReader {
    /// Errors when no broker answers or the topic is not there.
    pub(crate) async fn open(properties: &Properties, topic: &str) -> Result<Self> {
        let (properties, topic) = (properties.to_vec(), topic.to_owned());
        let open = move || {
            let consumer = reader(&properties, BYTES_PER_BATCH)?;
            let ends = end_offsets(&consumer, consumer.context(), &topic)?;
            let partitions = ends.into_iter().map(|(partition, end)| (partition, (None, end)));
            let partitions = partitions.collect();
            Ok(Self(Some(Unread { consumer, topic, partitions, present: None })))
        };
        tokio::task::spawn_blocking(open).await?
    }

    /// Reads one partition from an offset on and up to another one.
    pub(crate) async fn of_range(
        properties: &Properties,
        topic: &str,
        (partition, from, to): (i32, i64, i64),
    ) -> Result<Self> {
        let (properties, topic) = (properties.to_vec(), topic.to_owned());
        let open = move || {
            let consumer = reader(&properties, BYTES_PER_BATCH)?;
            let partitions = BTreeMap::from([(partition, (Some(from), to))]);
            Ok(Self(Some(Unread { consumer, topic, partitions, present: None })))
        };
        tokio::task::spawn_blocking(open).await?
    }

    /// The partitions that hold messages.
    pub(crate) fn partitions(&self) -> Vec<i32> {
        self.0.iter().flat_map(|unread| unread.partitions.keys().copied()).collect()
    }

    /// Has a partition read from an offset on; what was deleted before it is passed over.
    pub(crate) fn start_at(&mut self, partition: i32, offset: i64) {
        let unread = self.0.as_mut().and_then(|unread| unread.partitions.get_mut(&partition));
        if let Some((begin, _)) = unread {
            *begin = Some(offset);
        }
    }

    /// Some messages, in the order of each partition; none at the end.
    pub(crate) async fn read(&mut self) -> Result<Vec<Message>> {
        let Some(mut unread) = self.0.take() else { return Ok(Vec::new()) };
        let read = tokio::task::spawn_blocking(move || {
            let messages = unread.read();
            (unread, messages)
        });
        let (unread, messages) = read.await?;
        self.0 = Some(unread);
        messages
    }
}

impl Unread {
    fn read(&mut self) -> Result<Vec<Message>> {
        let (mut messages, mut n_bytes) = (Vec::new(), 0);
        while messages.len() < MESSAGES_PER_BATCH && n_bytes < BYTES_PER_BATCH {
            if self.present.is_none() {
                let Some((partition, (begin, end))) = self.partitions.pop_first() else { break };
                if begin.is_some_and(|begin| begin >= end) {
                    continue;
                }
                let mut list = TopicPartitionList::new();
                let begin = begin.map_or(Offset::Beginning, Offset::Offset);
                list.add_partition_offset(&self.topic, partition, begin)?;
                self.consumer.assign(&list)?;
                self.present = Some((partition, end));
            }
            let Some((partition, end)) = self.present else { break };
            match self.consumer.poll(SILENCE) {
                Some(Ok(message)) if message.offset() < end => {
                    let is_last = message.offset() + 1 == end;
                    let message = message_of(&message);
                    n_bytes += message.n_bytes();
                    messages.push(message);
                    self.present = self.present.filter(|_| !is_last);
                }
                Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => self.present = None,
                Some(Err(error)) => {
                    let reason = self.consumer.context().explain(&error);
                    let what = format!("reading {}/{partition}: {reason}", self.topic);
                    return Err(anyhow::Error::new(error).context(what));
                }
                None => bail!("reading {}/{partition}: no answer from Kafka", self.topic),
            }
        }
        Ok(messages)
    }
}
