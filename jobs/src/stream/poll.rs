//! The thread that polls Kafka, and what else is asked of the broker beside the stream's work.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::stream::group::{Group, Item, Member};
use crate::stream::health::Server;
use crate::stream::kafka::{BROKER_WAIT, Complaint, Properties, headers_of};
use crate::stream::micro_batch::Message;
use crate::stream::request_log::{find_damage, is_of_data};

/// How long the thread waits for a message before it looks after the rest.
const POLL: Duration = Duration::from_millis(20);
/// How often the broker is asked for the topic and the end offsets of its partitions, and how long
/// each answer may take.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How many looks find a partition standing still before another client is tried: a slow line takes
/// its time for a large batch. Each client has twice the patience of the one before.
const STILL_MAX: u32 = 15;
/// How long the same complaint of librdkafka is not repeated.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// The thread that polls, until the group is stopped.
pub(crate) fn poll(consumer: &Member, group: &Group) {
    let watch = group.fail_on_panic();
    let mut complaints = Complaints::default();
    let mut is_told = true;
    while !group.is_stopped() {
        group.look_after(consumer);
        match consumer.poll(if is_told { POLL } else { Duration::ZERO }) {
            Some(Ok(message)) => is_told = group.push(Item::Message(message_of(&message))),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                is_told = group.push(Item::End(partition));
            }
            nothing => {
                group.tell();
                is_told = true;
                if let Some(Err(error)) = nothing {
                    fail(consumer, group, &error, &mut complaints);
                }
            }
        }
    }
    watch.dismiss();
}

/// What becomes of an error, by whether it passes, and how.
fn fail(consumer: &Member, group: &Group, error: &KafkaError, complaints: &mut Complaints) {
    use RDKafkaErrorCode::{
        AutoOffsetReset, OffsetOutOfRange, UnknownPartition, UnknownTopic, UnknownTopicId,
        UnknownTopicOrPartition,
    };
    let reason = group.complaint.explain(error);
    if is_final(error) {
        return group.fail(reason);
    }
    match error.rdkafka_error_code() {
        _ if is_of_data(error) => group.suspect_damage(),
        // what is to be read is gone, or the log is another one: the stream finds out
        Some(AutoOffsetReset | OffsetOutOfRange) => {
            tracing::warn!(error = reason, "the log has no such offset any more");
            if let Err(error) = group.assign_again(consumer) {
                group.fail(format!("{error:#}"));
            }
        }
        // looked at by those who watch the broker
        Some(UnknownTopicOrPartition | UnknownTopic | UnknownPartition | UnknownTopicId) => {
            complaints.hear(reason);
        }
        // brokers come and go, and librdkafka reconnects by itself
        _ => {
            group.metrics().health.complain(Server::Kafka, reason.clone(), Instant::now());
            complaints.hear(reason);
        }
    }
}

/// A message with what it holds, its own.
pub(crate) fn message_of(message: &BorrowedMessage) -> Message {
    Message {
        partition: message.partition(),
        offset: message.offset(),
        created_ms: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers_of(message),
    }
}

/// What librdkafka complains of, ten times a second while no broker is there.
#[derive(Default)]
struct Complaints {
    last: Option<(String, Instant)>,
}

impl Complaints {
    fn hear(&mut self, error: String) {
        let is_known =
            |(last, at): &(String, Instant)| *last == error && at.elapsed() < COMPLAIN_EVERY;
        if !self.last.as_ref().is_some_and(is_known) {
            tracing::warn!(error, "reading requests");
            self.last = Some((error, Instant::now()));
        }
    }
}

/// Whether librdkafka gives up on it.
fn is_final(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{Fatal, GroupAuthorizationFailed, TopicAuthorizationFailed};
    let code = error.rdkafka_error_code();
    matches!(error, KafkaError::MessageConsumptionFatal(_))
        || matches!(code, None | Some(Fatal | GroupAuthorizationFailed | TopicAuthorizationFailed))
}

/// Watches the broker and the topic beside the stream's work: whether they are there, the end
/// offsets, from which the lag is known even while partitions are paused, and what cannot be read.
pub(crate) async fn watch_broker(
    consumer: Arc<Member>,
    group: Arc<Group>,
    properties: Vec<(String, String)>,
    give_up_after: Option<Duration>,
    n_clients_before: u32,
) {
    let still_max = STILL_MAX.saturating_mul(2_u32.saturating_pow(n_clients_before));
    let mut was_gone = false;
    loop {
        let (consumer, properties) = (Arc::clone(&consumer), properties.clone());
        let looked = Arc::clone(&group);
        let look = move || look_at_broker(&consumer, &looked, &properties, was_gone, still_max);
        match spawn_blocking(look).await {
            Ok(is_gone) => was_gone = is_gone,
            Err(_) => return group.fail("the task that watches Kafka has panicked".into()),
        }
        if group.lock().is_stalled {
            return;
        }
        if let Some(why) = give_up_after.and_then(|limit| group.metrics().health.give_up(limit)) {
            return group.fail(format!("given up: {why}"));
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Looks once; whether the topic is gone.
fn look_at_broker(
    consumer: &Member,
    group: &Group,
    properties: &Properties,
    was_gone: bool,
    still_max: u32,
) -> bool {
    let (health, since) = (&group.metrics().health, Instant::now());
    let topic = group.topic();
    let metadata = match consumer.fetch_metadata(Some(topic), LOOK_EVERY) {
        Ok(metadata) => metadata,
        Err(error) => {
            health.complain(Server::Kafka, group.complaint.explain(error), since);
            return was_gone;
        }
    };
    health.heard(Server::Kafka);
    let partitions = metadata.topics().iter().map(|topic| topic.partitions().len());
    if partitions.sum::<usize>() == 0 {
        if !health.damaged(format!("the topic {topic} is not there")) {
            tracing::error!(topic, "the topic of requests is not there; it is waited for");
        }
        return true;
    }
    let mut is_other = was_gone;
    for partition in group.assigned() {
        if group.is_stopped() {
            return was_gone;
        }
        // before it is asked: more may be read meanwhile
        let read = group.read_of(partition);
        if let Ok((_, end)) = consumer.fetch_watermarks(topic, partition, LOOK_EVERY) {
            if group.note_end(partition, end) >= still_max {
                tracing::warn!(
                    topic,
                    partition,
                    read,
                    end,
                    "librdkafka does not fetch what is there; another client is made"
                );
                group.stall();
                return was_gone;
            }
            is_other |= read.is_some_and(|read| read > end) && group.read_of(partition) >= read;
        }
    }
    if is_other {
        tracing::warn!(topic, "the topic was made again: its log is looked at anew");
        if let Err(error) = group.assign_again(consumer) {
            group.fail(format!("{error:#}"));
        }
        health.mended();
        return false;
    }
    look_for_damage(group, properties, since);
    false
}

/// Finds out what cannot be read, if something could not.
fn look_for_damage(group: &Group, properties: &Properties, since: Instant) {
    let (health, topic) = (&group.metrics().health, group.topic());
    if let Some((generation, read)) = group.damaged() {
        match find_damage(properties, topic, &read) {
            Ok(Some((partition, offset, error))) => {
                let what =
                    format!("{topic}/{partition} cannot be read at offset {offset}: {error}");
                if !health.damaged(what) {
                    tracing::error!(
                        topic,
                        partition,
                        offset,
                        error,
                        "a batch cannot be read, and requests behind it wait"
                    );
                }
            }
            Ok(None) => group.mended(generation),
            Err(error) => health.complain(Server::Kafka, format!("{error:#}"), since),
        }
    }
}

/// The partitions of a topic.
///
/// Errors when no broker answers or the topic is not there.
pub(crate) fn partitions<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    complaint: &Complaint,
    topic: &str,
) -> Result<Vec<i32>> {
    let metadata = consumer.fetch_metadata(Some(topic), BROKER_WAIT).map_err(|error| {
        // librdkafka hands its complaints over when it is polled
        _ = consumer.poll(Duration::ZERO);
        anyhow!(complaint.explain(format!("no Kafka broker answers: {error}")))
    })?;
    let topics = || metadata.topics().iter();
    let partitions: Vec<i32> =
        topics().flat_map(|topic| topic.partitions()).map(|partition| partition.id()).collect();
    if partitions.is_empty() {
        let code = topics().find_map(|topic| topic.error()).map(RDKafkaErrorCode::from);
        let code = code.unwrap_or(RDKafkaErrorCode::UnknownTopicOrPartition);
        let error = anyhow::Error::new(KafkaError::MetadataFetch(code));
        return Err(error.context(format!("there is no topic {topic}")));
    }
    Ok(partitions)
}

/// The end offset of each partition that holds messages.
///
/// Errors when no broker answers or the topic is not there.
pub(crate) fn end_offsets<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    complaint: &Complaint,
    topic: &str,
) -> Result<BTreeMap<i32, i64>> {
    let mut offsets = BTreeMap::new();
    for partition in partitions(consumer, complaint, topic)? {
        let (begin, end) = consumer
            .fetch_watermarks(topic, partition, BROKER_WAIT)
            .with_context(|| format!("where {topic}/{partition} ends"))?;
        if begin < end {
            offsets.insert(partition, end);
        }
    }
    Ok(offsets)
}
