//! What the thread that polls Kafka and the stream share: the assignment, the queue between them,
//! and how far the messages are answered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use parking_lot::{Mutex, MutexGuard};
use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::{Notify, watch};

use crate::stream::health::Server;
use crate::stream::kafka::Complaint;
use crate::stream::limits::Limits;
use crate::stream::metrics::Metrics;
use crate::stream::micro_batch::Message;
use crate::stream::stall::Stall;

/// Silence of a partition during which its topic may have been made again: librdkafka notices
/// nothing, but it fetches again only 500 ms after a fetch that found no topic.
const REST: Duration = Duration::from_millis(300);

/// What is put into the queue at most before the stream is told: being woken for each message of
/// many costs it more than taking them.
const TOLD_TOGETHER: usize = 256;

/// What waits in the queue.
pub(crate) enum Item {
    Message(Message),
    /// The partition has been read to its end.
    End(i32),
}

/// Our place in the consumer group.
pub(crate) struct Group {
    topic: String,
    limits: Limits,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    /// Something was put into the queue, or the assignment changed.
    changed: Notify,
    generation: watch::Sender<u64>,
    /// What librdkafka complained of.
    pub(crate) complaint: Complaint,
}

#[derive(Default)]
pub(crate) struct State {
    /// Number of the present assignment, counted here: raised by whatever changes it.
    pub(crate) generation: u64,
    /// Partitions that are ours; `None` during a rebalance.
    pub(crate) assigned: Option<Vec<i32>>,
    /// Why nothing will be read any more.
    pub(crate) failure: Option<String>,
    queue: VecDeque<Item>,
    n_rows: usize,
    n_bytes: usize,
    /// What was put in since the stream was told of it.
    n_untold: usize,
    is_paused: bool,
    is_stopped: bool,
    /// When each partition was heard last, and those that were silent before what is in the queue.
    heard: BTreeMap<i32, Instant>,
    rested: BTreeSet<i32>,
    /// Where answered messages end, those that were read, and partitions.
    answered: BTreeMap<i32, i64>,
    read: BTreeMap<i32, i64>,
    end_offsets: BTreeMap<i32, i64>,
    /// Stretches without a message: marks of transactions, and what was aborted.
    gaps: BTreeMap<i32, (i64, i64)>,
    /// Something that was read made no sense; it is found out where.
    is_damaged: bool,
    /// Partitions that are not fetched any more.
    stall: Stall,
    pub(crate) is_stalled: bool,
}

impl State {
    pub(crate) fn take(&mut self) -> Option<Item> {
        let item = self.queue.pop_front()?;
        if let Item::Message(message) = &item {
            self.n_rows -= 1;
            self.n_bytes -= message.n_bytes();
        }
        Some(item)
    }

    /// Resumes what is paused. Before it is let go: librdkafka remembers that a partition was
    /// paused when it comes back, and would read nothing.
    fn resume(&mut self, consumer: &Member) -> KafkaResult<()> {
        if self.is_paused {
            consumer.resume(&consumer.assignment()?)?;
            self.is_paused = false;
        }
        Ok(())
    }

    /// The partitions that were silent for [`REST`] before something that was taken since this was
    /// asked last, or before what waits.
    pub(crate) fn take_rested(&mut self) -> BTreeSet<i32> {
        std::mem::take(&mut self.rested)
    }

    fn drop_queue(&mut self) {
        self.queue.clear();
        (self.n_rows, self.n_bytes) = (0, 0);
    }

    fn forget(&mut self) {
        self.generation += 1;
        self.drop_queue();
        self.answered.clear();
        self.read.clear();
        self.end_offsets.clear();
        self.gaps.clear();
        self.heard.clear();
        self.rested.clear();
        self.stall.forget();
        self.is_damaged = false;
    }
}

impl Group {
    pub(crate) fn new(topic: &str, limits: Limits, metrics: Arc<Metrics>) -> Self {
        Self {
            topic: topic.to_owned(),
            limits,
            metrics,
            state: Mutex::default(),
            changed: Notify::new(),
            generation: watch::Sender::new(0),
            complaint: Complaint::default(),
        }
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Resolves when there is something to look at, also when it came before.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    pub(crate) fn lost(&self, generation: u64) -> impl Future<Output = ()> + use<> {
        let mut receiver = self.generation.subscribe();
        async move {
            // the sender lives as long as the stream that asks
            _ = receiver.wait_for(|present| *present != generation).await;
        }
    }

    fn announce(&self, state: MutexGuard<'_, State>) {
        self.generation.send_replace(state.generation);
        drop(state);
        self.changed.notify_one();
    }

    /// Puts into the queue; whether the stream knows of it, else it is to be [told](Self::tell)
    /// when nothing else comes.
    pub(crate) fn push(&self, item: Item) -> bool {
        let mut state = self.lock();
        if let Item::Message(message) = &item {
            state.n_rows += 1;
            state.n_bytes += message.n_bytes();
            state.read.insert(message.partition, message.offset + 1);
            let now = Instant::now();
            let before = state.heard.insert(message.partition, now);
            if before.is_none_or(|before| now.duration_since(before) >= REST) {
                state.rested.insert(message.partition);
            }
        }
        state.queue.push_back(item);
        state.n_untold += 1;
        let is_told = state.n_untold == TOLD_TOGETHER;
        drop(state);
        if is_told {
            self.tell();
        }
        is_told
    }

    /// Tells the stream of what was put into the queue, if there is something.
    pub(crate) fn tell(&self) {
        if std::mem::take(&mut self.lock().n_untold) > 0 {
            self.metrics.health.heard(Server::Kafka);
            self.changed.notify_one();
        }
    }

    /// Rows and bytes in the queue.
    pub(crate) fn n_waiting(&self) -> (usize, usize) {
        let state = self.lock();
        (state.n_rows, state.n_bytes)
    }

    /// Reads the assigned partitions from these offsets, unless another rebalance came between.
    pub(crate) fn start(
        &self,
        consumer: &Member,
        generation: u64,
        from: &TopicPartitionList,
    ) -> Result<()> {
        let mut state = self.lock();
        if state.generation == generation {
            // the polling thread may have had a message in its hand when all were dropped
            state.drop_queue();
            consumer.assign(from).context("cannot read the assigned partitions")?;
            state.answered.extend(raw(from));
            state.read.extend(raw(from));
            // what is there now was just looked at
            let now = Instant::now();
            state.heard.extend(raw(from).into_iter().map(|(partition, _)| (partition, now)));
        }
        Ok(())
    }

    /// Something that was read made no sense: it is to be found out what.
    pub(crate) fn suspect_damage(&self) {
        self.lock().is_damaged = true;
    }

    /// Where the partitions are read next, with the number of the assignment, when some of it makes
    /// no sense.
    pub(crate) fn damaged(&self) -> Option<(u64, BTreeMap<i32, i64>)> {
        let state = self.lock();
        state.is_damaged.then(|| (state.generation, state.read.clone()))
    }

    /// What was found out of the damage of an assignment: nothing any more.
    pub(crate) fn mended(&self, generation: u64) {
        let mut state = self.lock();
        if state.generation == generation {
            state.is_damaged = false;
        }
        drop(state);
        self.metrics.health.mended();
    }

    pub(crate) fn assign_again(&self, consumer: &Member) -> Result<()> {
        let mut state = self.lock();
        if state.assigned.is_some() {
            state.resume(consumer).context("cannot resume partitions")?;
            consumer.assign(&TopicPartitionList::new()).context("cannot stop reading")?;
            state.forget();
            self.metrics.health.mended();
            self.metrics.forget_partitions();
        }
        self.announce(state);
        Ok(())
    }

    /// Lets librdkafka commit consumer offsets, in its own time, and when partitions are revoked.
    pub(crate) fn done(&self, consumer: &Member, generation: u64, offsets: &TopicPartitionList) {
        let mut state = self.lock();
        if state.generation != generation {
            return;
        }
        if let Err(error) = consumer.store_offsets(offsets) {
            tracing::warn!(%error, "consumer offsets are not committed");
        }
        state.answered.extend(raw(offsets));
        self.show_lag(&state);
    }

    pub(crate) fn assigned(&self) -> Vec<i32> {
        self.lock().assigned.clone().unwrap_or_default()
    }

    /// Where a partition is read next.
    pub(crate) fn read_of(&self, partition: i32) -> Option<i64> {
        self.lock().read.get(&partition).copied()
    }

    /// Notes the end offset of a partition; how many such looks in a row have found it standing
    /// still before that, see [`Stall`].
    pub(crate) fn note_end(&self, partition: i32, end: i64) -> u32 {
        let mut guard = self.lock();
        let state = &mut *guard;
        if !state.answered.contains_key(&partition) {
            return 0;
        }
        state.end_offsets.insert(partition, end);
        self.show_lag(state);
        let read = state.read.get(&partition).copied().unwrap_or_default();
        // what cannot be read is not passed by another client either
        let is_held = state.is_paused || state.is_damaged;
        state.stall.look(partition, read, end, is_held)
    }

    /// Nothing will be fetched any more by this client.
    pub(crate) fn stall(&self) {
        let mut state = self.lock();
        state.is_stalled = true;
        self.announce(state);
    }

    fn show_lag(&self, state: &State) {
        for (partition, end) in &state.end_offsets {
            let answered = state.answered.get(partition).unwrap_or(end);
            let done = match state.gaps.get(partition) {
                Some((from, to)) if from <= answered => to.max(answered),
                _ => answered,
            };
            self.metrics.set_lag(*partition, (end - done).max(0));
        }
    }

    /// Learns from librdkafka where partitions end in what is no message, and what waits behind
    /// open transactions. Runs on the polling thread: what it has polled is in `read`.
    fn note_statistics(&self, statistics: &Statistics) {
        let mut state = self.lock();
        let Some(topic) = statistics.topics.get(&self.topic) else { return };
        for (partition, seen) in &topic.partitions {
            let Some(read) = state.read.get(partition).copied() else { continue };
            state.stall.note_fetched(*partition, seen.next_offset, seen.fetchq_cnt > 0);
            // nothing waits to be polled, so what is before the end was polled
            if seen.fetchq_cnt == 0 && seen.eof_offset >= read {
                state.gaps.insert(*partition, (read, seen.eof_offset));
            }
            if seen.hi_offset >= 0 && seen.ls_offset >= 0 {
                let behind =
                    self.metrics.behind_transactions.with_label_values(&[partition.to_string()]);
                behind.set((seen.hi_offset - seen.ls_offset).max(0));
            }
        }
        self.show_lag(&state);
    }

    pub(crate) fn fail(&self, failure: String) {
        let mut state = self.lock();
        state.failure.get_or_insert(failure);
        self.announce(state);
    }

    pub(crate) fn stop(&self) {
        self.lock().is_stopped = true;
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.lock().is_stopped
    }

    /// What the polling thread does between polls: pauses and resumes.
    pub(crate) fn look_after(&self, consumer: &Member) {
        let mut state = self.lock();
        let (rows_max, bytes_max) = (self.limits.queue_rows, self.limits.queue_bytes);
        let is_full = state.n_rows >= rows_max || state.n_bytes >= bytes_max;
        let has_room = state.n_rows <= rows_max / 2 && state.n_bytes <= bytes_max / 2;
        let change = match state.is_paused {
            false if is_full => Some(true),
            true if has_room => Some(false),
            _ => None,
        };
        if let Some(pause) = change {
            let changed = consumer.assignment().and_then(|all| match pause {
                true => consumer.pause(&all),
                false => consumer.resume(&all),
            });
            match changed {
                Ok(()) => state.is_paused = pause,
                // tried again at once
                Err(error) => tracing::warn!(%error, pause, "cannot pause or resume partitions"),
            }
        }
        self.metrics.queue_rows.set(state.n_rows as i64);
        self.metrics.queue_bytes.set(state.n_bytes as i64);
        self.metrics.paused.set(state.is_paused.into());
    }

    /// Fails the stream when the polling thread ends other than by [`Watch::dismiss`].
    pub(crate) fn fail_on_panic(&self) -> Watch<'_> {
        Watch(self)
    }
}

/// Watches over the polling thread.
pub(crate) struct Watch<'a>(&'a Group);

impl Watch<'_> {
    pub(crate) fn dismiss(self) {
        std::mem::forget(self);
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.0.fail("the thread that polls Kafka has panicked".into());
    }
}

/// What librdkafka calls, on the polling thread.
pub(crate) struct Callbacks(pub(crate) Arc<Group>);

/// The consumer that is a member of the group.
pub(crate) type Member = BaseConsumer<Callbacks>;

impl ClientContext for Callbacks {
    /// The polling thread gets the same error next, without the reason.
    fn error(&self, _: KafkaError, reason: &str) {
        self.0.complaint.hear(reason);
    }

    fn stats(&self, statistics: Statistics) {
        self.0.note_statistics(&statistics);
    }
}

impl ConsumerContext for Callbacks {
    /// Notes what a rebalance assigns, but reads nothing: the stream says from which offsets.
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        event: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let Self(group) = self;
        let mut state = group.lock();
        let resumed = state.resume(consumer);
        let is_assigned = event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        let (what, taken) = if is_assigned {
            ("assigned", consumer.assign(&TopicPartitionList::new()))
        } else if consumer.assignment_lost() {
            ("lost", consumer.unassign())
        } else {
            ("revoked", consumer.unassign())
        };
        if let Err(error) = resumed.and(taken) {
            state.failure.get_or_insert(format!("partitions that were {what}: {error}"));
        }
        let elements = list.elements();
        let partitions: Vec<i32> = elements.iter().map(|element| element.partition()).collect();
        if what == "lost" {
            tracing::warn!(?partitions, "partitions lost: another member may have them already");
        } else {
            tracing::info!(?partitions, "partitions {what}");
        }
        state.forget();
        group.metrics.health.mended();
        state.assigned = is_assigned.then_some(partitions);
        group.metrics.rebalanced(what, state.assigned.as_ref().map_or(0, Vec::len));
        group.announce(state);
    }

    /// Nothing depends on what the group knows.
    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::warn!(%error, "the group did not take our offsets");
        }
    }
}

/// Partitions and offsets of a list.
fn raw(list: &TopicPartitionList) -> Vec<(i32, i64)> {
    let elements = list.elements().into_iter();
    elements.filter_map(|e| Some((e.partition(), e.offset().to_raw()?))).collect()
}
