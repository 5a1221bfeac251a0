//! Requests from Kafka, as micro-batches. A thread of its own polls, so that the consumer stays in
//! its group while a micro-batch is worked on; messages wait in a bounded queue, and partitions are
//! paused before that is full. Must not look into messages.
//!
//! Where to read from is not Kafka's business: a partition that the group assigns is reported as
//! [`Event::Assigned`], and read only when [`Source::start`] says from where.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::FutureExt;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};
use tokio::task::{JoinHandle as Task, spawn_blocking};
use tokio::time::{Instant, sleep_until};

use crate::stream::group::{Callbacks, Group, Item, Member};
use crate::stream::kafka::{bound_fetches, config};
use crate::stream::limits::Limits;
use crate::stream::metrics::Metrics;
use crate::stream::micro_batch::Message;
use crate::stream::poll::{end_offsets, poll, watch_broker};
use crate::stream::trigger::Trigger;

/// Quiet after which there is time for what can wait.
const IDLE: Duration = Duration::from_millis(500);
/// And after that, as long as it is quiet.
const IDLE_AGAIN: Duration = Duration::from_secs(5);
/// How long leaving the group waits for a look at the broker that has begun.
const LOOK_END_WAIT: Duration = Duration::from_secs(3);
/// Messages that librdkafka fetches ahead. More would be fetched again after each pause.
const FETCHED_MESSAGES: &str = "20000";
/// How long a partition of which enough was fetched is left alone, unless the properties say it.
/// librdkafka's default is a second, in which several times as much could be answered.
const FETCH_AGAIN: &str = "fetch.queue.backoff.ms";
const FETCH_AGAIN_MS: &str = "5";
/// How often consumer offsets are committed, for those who watch the lag.
const GROUP_COMMIT_MS: &str = "1000";
/// How often the group looks for new partitions.
const PARTITIONS_EVERY_MS: &str = "10000";
/// How often librdkafka reports how far it has read.
const STATISTICS_MS: &str = "1000";

/// Partitions that are ours until the next rebalance.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// Number of the rebalance.
    pub generation: u64,
    /// Partitions of the request topic.
    pub partitions: Vec<i32>,
}

/// A micro-batch that was read.
#[derive(Debug)]
pub struct MicroBatch {
    /// The messages, in the order of each partition; all of the present assignment.
    pub messages: Vec<Message>,
    /// Whether the stream ends with it.
    pub is_last: bool,
    /// Partitions that were silent for a while before: their log may be another one.
    pub rested: BTreeSet<i32>,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// Partitions were assigned, and wait for [`Source::start`].
    Assigned(Assignment),
    /// The partitions of the assignment before are others' now, or soon.
    Revoked,
    /// A micro-batch is there.
    MicroBatch(MicroBatch),
    /// Nothing came for a while; reported soon after each micro-batch, and then now and again.
    Idle,
    /// The client fetches nothing any more; [`Source::renew`] makes another one.
    Stalled,
}

/// A member of the consumer group that reads requests.
pub struct Source {
    consumer: Arc<Member>,
    group: Arc<Group>,
    poller: Option<JoinHandle<()>>,
    watch: Task<()>,
    trigger: Trigger,
    limits: Limits,
    metrics: Arc<Metrics>,
    /// The assignment that was last reported.
    generation: u64,
    /// When the micro-batch that is being filled ends.
    batch_ends: Option<Instant>,
    is_idle_reported: bool,
    /// For bounded triggers: where the partitions ended at the start.
    end_offsets: Option<BTreeMap<i32, i64>>,
    /// Partitions of the assignment that have not been read up to there.
    unread: Option<BTreeMap<i32, i64>>,
    settings: Settings,
    /// Clients that this one took the place of.
    n_clients_before: u32,
}

/// What is read, and how.
#[derive(Clone)]
pub struct Settings {
    /// How Kafka is reached.
    pub properties: Vec<(String, String)>,
    /// The topic of requests.
    pub topic: String,
    /// The consumer group.
    pub group: String,
    /// When a micro-batch ends.
    pub trigger: Trigger,
    /// What a micro-batch and the queue hold.
    pub limits: Limits,
    /// How long Kafka may be away, or what is there may be unreadable, before reading fails.
    pub give_up_after: Option<Duration>,
}

impl Source {
    /// Joins the group and subscribes to the topic.
    pub async fn open(settings: Settings, metrics: Arc<Metrics>) -> Result<Self> {
        Self::connect(settings, metrics, None, 0).await
    }

    /// The same with another client, which goes on where this one stood still.
    pub async fn renew(self) -> Result<Self> {
        let (settings, metrics) = (self.settings.clone(), Arc::clone(&self.metrics));
        let (end_offsets, n_clients) = (self.end_offsets.clone(), self.n_clients_before + 1);
        // a static member would be fenced by the one that follows
        self.close_group().await?;
        Self::connect(settings, metrics, end_offsets, n_clients).await
    }

    async fn connect(
        settings: Settings,
        metrics: Arc<Metrics>,
        known_ends: Option<BTreeMap<i32, i64>>,
        n_clients_before: u32,
    ) -> Result<Self> {
        let Settings { properties, topic, group, trigger, limits, give_up_after } =
            settings.clone();
        let mut config = config(&properties);
        config
            .set("group.id", group)
            // what is stored is committed by librdkafka, again and again until it is taken
            .set("enable.auto.offset.store", "false")
            .set("auto.commit.interval.ms", GROUP_COMMIT_MS)
            // an offset that is gone is for the stream to explain
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "true")
            .set("topic.metadata.refresh.interval.ms", PARTITIONS_EVERY_MS)
            .set("statistics.interval.ms", STATISTICS_MS)
            // all partitions are taken away before any is given: a change of hands is one event
            .set("partition.assignment.strategy", "range,roundrobin")
            .set("queued.min.messages", FETCHED_MESSAGES)
            .set("queued.max.messages.kbytes", (limits.queue_bytes / 1024).max(1).to_string());
        if config.get(FETCH_AGAIN).is_none() {
            config.set(FETCH_AGAIN, FETCH_AGAIN_MS);
        }
        bound_fetches(&mut config);
        let group = Arc::new(Group::new(&topic, limits, Arc::clone(&metrics)));
        let consumer: KafkaResult<Member> =
            config.create_with_context(Callbacks(Arc::clone(&group)));
        let consumer = Arc::new(consumer.context("the Kafka properties make no consumer")?);
        let end_offsets = match trigger {
            Trigger::Once | Trigger::AvailableNow if known_ends.is_none() => {
                let (consumer, group) = (Arc::clone(&consumer), Arc::clone(&group));
                let ask = move || end_offsets(&consumer, &group.complaint, group.topic());
                Some(spawn_blocking(ask).await??)
            }
            _ => known_ends,
        };
        consumer.subscribe(&[&topic]).with_context(|| format!("cannot subscribe to {topic}"))?;
        let poller = {
            let (consumer, group) = (Arc::clone(&consumer), Arc::clone(&group));
            thread::Builder::new().name("kafka-poll".into()).spawn(move || poll(&consumer, &group))
        };
        let watch = watch_broker(
            Arc::clone(&consumer),
            Arc::clone(&group),
            properties,
            give_up_after,
            n_clients_before,
        );
        Ok(Self {
            consumer,
            group,
            poller: Some(poller.context("cannot start a thread")?),
            watch: tokio::spawn(watch),
            trigger,
            limits,
            metrics,
            generation: 0,
            batch_ends: None,
            is_idle_reported: true,
            end_offsets,
            unread: None,
            settings,
            n_clients_before,
        })
    }

    /// Waits for what happens next. A micro-batch ends by the trigger, when it is full, or when
    /// `shutdown` is done, which makes it the last. What was read of an assignment that is lost is
    /// thrown away.
    pub async fn next(&mut self, mut shutdown: impl Future<Output = ()> + Unpin) -> Result<Event> {
        let (mut messages, mut n_bytes) = (Vec::new(), 0);
        let idle = Instant::now() + if self.is_idle_reported { IDLE_AGAIN } else { IDLE };
        loop {
            if let Some(event) = self.look(&mut messages, &mut n_bytes)? {
                return Ok(event);
            }
            if self.group.lock().is_stalled {
                return Ok(match (&mut shutdown).now_or_never() {
                    Some(()) => self.close(messages, true),
                    None => Event::Stalled,
                });
            }
            let is_last = self.unread.as_ref().is_some_and(BTreeMap::is_empty);
            let is_full = self.is_full(messages.len(), n_bytes);
            let has_arrived = self.trigger == Trigger::Arrival && !messages.is_empty();
            if is_last || is_full || has_arrived {
                // a stream that lags never waits below, so it looks here whether it must stop
                let is_over = (&mut shutdown).now_or_never().is_some();
                return Ok(self.close(messages, is_last || is_over));
            }
            if let (Trigger::Interval(interval), None) = (self.trigger, self.batch_ends) {
                self.batch_ends = Some(Instant::now() + interval);
            }
            tokio::select! {
                biased;
                () = &mut shutdown => return Ok(self.close(messages, true)),
                () = self.group.changed() => {}
                () = at(self.batch_ends) => {
                    self.batch_ends = None;
                    if !messages.is_empty() {
                        return Ok(self.close(messages, false));
                    }
                }
                () = sleep_until(idle), if messages.is_empty() => {
                    self.is_idle_reported = true;
                    return Ok(Event::Idle);
                }
            }
        }
    }

    /// Whether the next micro-batch is there already.
    pub fn has_next(&self) -> bool {
        let (n_rows, n_bytes) = self.group.n_waiting();
        // where the queue is the smaller one, more than it holds will not be there
        let is_queue_full = n_rows >= self.limits.queue_rows;
        is_queue_full
            || self.is_full(n_rows, n_bytes)
            || self.trigger == Trigger::Arrival && n_rows > 0
    }

    fn is_full(&self, n_rows: usize, n_bytes: usize) -> bool {
        // of `once` one micro-batch is promised, so only memory ends it
        let ends_by_rows = self.trigger != Trigger::Once;
        ends_by_rows && n_rows >= self.limits.batch_rows || n_bytes >= self.limits.batch_bytes
    }

    fn close(&mut self, messages: Vec<Message>, is_last: bool) -> Event {
        self.batch_ends = None;
        self.is_idle_reported = false;
        let rested = self.group.lock().take_rested();
        Event::MicroBatch(MicroBatch { messages, is_last, rested })
    }

    /// Takes from the queue what the micro-batch has room for; a change of what is ours takes
    /// precedence.
    fn look(&mut self, messages: &mut Vec<Message>, n_bytes: &mut usize) -> Result<Option<Event>> {
        let mut state = self.group.lock();
        if let Some(failure) = &state.failure {
            bail!("reading requests: {failure}");
        }
        if state.generation != self.generation {
            self.generation = state.generation;
            self.unread = None;
            messages.clear();
            *n_bytes = 0;
            let generation = state.generation;
            return Ok(Some(match state.assigned.clone() {
                Some(partitions) => Event::Assigned(Assignment { generation, partitions }),
                None => Event::Revoked,
            }));
        }
        while !self.is_full(messages.len(), *n_bytes) {
            let (partition, next) = match state.take() {
                Some(Item::Message(message)) => {
                    *n_bytes += message.n_bytes();
                    let read = (message.partition, message.offset + 1);
                    messages.push(message);
                    read
                }
                Some(Item::End(partition)) => (partition, i64::MAX),
                None => break,
            };
            if let Some(unread) = &mut self.unread
                && unread.get(&partition).is_some_and(|end| next >= *end)
            {
                unread.remove(&partition);
            }
        }
        self.metrics.window_rows.set(messages.len() as i64);
        Ok(None)
    }

    /// Reads the partitions of an assignment from these offsets, if it is still ours.
    pub fn start(&mut self, assignment: &Assignment, offsets: &BTreeMap<i32, i64>) -> Result<()> {
        if let Some(end_offsets) = &self.end_offsets {
            let is_unread = |(partition, end): &(&i32, &i64)| {
                offsets.get(partition).is_some_and(|offset| offset < end)
            };
            let unread = end_offsets.iter().filter(is_unread);
            self.unread = Some(unread.map(|(partition, end)| (*partition, *end)).collect());
        }
        self.group.start(&self.consumer, assignment.generation, &self.list(offsets)?)
    }

    fn list(&self, offsets: &BTreeMap<i32, i64>) -> Result<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in offsets {
            let offset = Offset::Offset(*offset);
            list.add_partition_offset(self.group.topic(), *partition, offset)?;
        }
        Ok(list)
    }

    /// Drops what was read and reports the assignment again: another process has acquired a
    /// partition of it.
    pub fn assign_again(&self) -> Result<()> {
        self.group.assign_again(&self.consumer)
    }

    /// Resolves when the present assignment is lost.
    pub fn lost(&self) -> impl Future<Output = ()> + use<> {
        self.group.lost(self.generation)
    }

    /// Lets the group, and with it the usual tools, know that everything before these offsets is
    /// done. Nothing depends on it.
    pub fn done(&self, offsets: &BTreeMap<i32, i64>) -> Result<()> {
        self.group.done(&self.consumer, self.generation, &self.list(offsets)?);
        Ok(())
    }

    /// Leaves the group.
    pub async fn close_group(mut self) -> Result<()> {
        self.watch.abort();
        // the task holds the consumer, which leaves when the last of its holders is gone
        _ = (&mut self.watch).await;
        self.group.stop();
        let poller = self.poller.take();
        let closed = spawn_blocking(move || {
            drop(poller.map(JoinHandle::join));
            // a look at the broker that had begun holds the consumer too
            let started = std::time::Instant::now();
            while Arc::strong_count(&self.consumer) > 1 && started.elapsed() < LOOK_END_WAIT {
                std::thread::sleep(Duration::from_millis(5));
            }
            drop(self);
        });
        closed.await.context("leaving the group")
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.watch.abort();
        self.group.stop();
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}
