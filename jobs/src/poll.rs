//! The thread that polls Kafka, and what else is asked of the broker beside the stream's work.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::group::{Group, Item, Member};
use crate::kafka::BROKER_WAIT;
use crate::window::Message;

/// How long the thread waits for a message before it looks after the rest.
const POLL: Duration = Duration::from_millis(20);
/// How often the ends of the partitions are asked for, to know the lag.
const LAG_EVERY: Duration = Duration::from_secs(2);
/// How long the same complaint of librdkafka is not repeated.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// The thread that polls, until the group is told to stop.
pub(crate) fn poll(consumer: &Member, group: &Group) {
    let watch = group.fail_on_panic();
    let mut complaints = Complaints::default();
    while !group.is_stopped() {
        group.look_after(consumer);
        match consumer.poll(POLL) {
            None => {}
            Some(Ok(message)) => group.push(Item::Message(Message {
                partition: message.partition(),
                offset: message.offset(),
                created_ms: message.timestamp().to_millis(),
                key: message.key().map(<[u8]>::to_vec),
                value: message.payload().map(<[u8]>::to_vec),
            })),
            Some(Err(KafkaError::PartitionEOF(partition))) => group.push(Item::End(partition)),
            Some(Err(error)) if is_final(&error) => group.fail(error.to_string()),
            // brokers come and go, and librdkafka reconnects by itself
            Some(Err(error)) => complaints.hear(&error),
        }
    }
    watch.dismiss();
}

/// What librdkafka complains of, ten times a second while no broker is there.
#[derive(Default)]
struct Complaints {
    last: Option<(String, Instant)>,
}

impl Complaints {
    fn hear(&mut self, error: &KafkaError) {
        let error = error.to_string();
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

/// Asks where partitions end, which tells how far behind we are even when they are paused.
pub(crate) async fn watch_lag(consumer: Arc<Member>, group: Arc<Group>) {
    loop {
        let (consumer, group) = (Arc::clone(&consumer), Arc::clone(&group));
        let ask = move || {
            for partition in group.assigned() {
                if let Ok((_, end)) = consumer.fetch_watermarks(group.topic(), partition, LAG_EVERY)
                {
                    group.note_end(partition, end);
                }
            }
        };
        if spawn_blocking(ask).await.is_err() {
            return;
        }
        sleep(LAG_EVERY).await;
    }
}

/// Where each partition that holds messages ends now.
pub(crate) fn ends<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
) -> Result<BTreeMap<i32, i64>> {
    let metadata = consumer.fetch_metadata(Some(topic), BROKER_WAIT);
    let metadata = metadata.context("no Kafka broker answers")?;
    let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
    let mut ends = BTreeMap::new();
    for partition in partitions.map(|partition| partition.id()) {
        let (begin, end) = consumer
            .fetch_watermarks(topic, partition, BROKER_WAIT)
            .with_context(|| format!("where {topic}/{partition} ends"))?;
        if begin < end {
            ends.insert(partition, end);
        }
    }
    Ok(ends)
}
