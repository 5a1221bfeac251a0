//! The streaming job: micro-batches of requests from Kafka, scored, to the store and to the
//! response topic.
//!
//! What a micro-batch leaves behind is written in this order, each step only after the one before
//! is durable: dead letters, then answers together with the offsets they come from, then answers to
//! the topic. Where to go on is what the store says, so a crash at any point repeats only work that
//! may be repeated.

pub mod archive;
pub(crate) mod chunks;
pub mod dead_letters;
mod group;
pub mod health;
pub mod kafka;
pub mod limits;
pub mod metrics;
pub mod micro_batch;
mod monitor;
pub mod offsets;
mod options;
pub mod outcomes;
mod poll;
pub mod request_log;
pub mod requests;
mod resume;
mod retry;
pub mod sink;
pub mod source;
mod spans;
mod stall;
pub mod stats;
pub(crate) mod topic;
pub mod trigger;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use datafusion::prelude::SessionContext;
use events::{ANSWERS, REJECTIONS, STREAM_OFFSETS};
use futures::future::FutureExt;
use serde_json::Value;
use store::{Lease, Store, WriteError};
use telemetry::traces;
use tokio::time::sleep;
use tracing::{Instrument, Span};

use crate::distances;
use crate::lake::Lake;
use crate::models::registry::{RefreshOutcome, Serving};
use crate::stream::chunks::{
    chunks, created_ms, documents, last_records, next_offsets, rejections,
};
use crate::stream::dead_letters::{KnownLetters, known_letters};
use crate::stream::kafka::Properties;
use crate::stream::metrics::Metrics;
use crate::stream::micro_batch::{Message, Plan, Rules};
use crate::stream::monitor::Observer;
pub use crate::stream::options::{Connections, Options, Step};
use crate::stream::request_log::{
    Inspection, Inspector, LastRecord, LogMark, Verdict, compare, moved_to, offset_to_inspect,
};
use crate::stream::resume::{Resumed, resume};
use crate::stream::retry::{Retry, Shutdown, Stop};
use crate::stream::sink::{Record, SendError, Sent, Sink};
use crate::stream::source::{Assignment, Event, MicroBatch, Source};
use crate::stream::spans::{RequestSpans, step};
use crate::stream::stats::StreamStats;

/// How long the store may take to record what only saves work.
const NOTE_WAIT: Duration = Duration::from_secs(5);
/// How often the leases are checked, beside each commit: that also keeps the offsets
/// of a stream that has nothing to do from growing old.
const LEASES_EVERY: Duration = Duration::from_secs(5);

/// What scoring needs, looked at again from time to time.
pub struct Prepared {
    /// The champion.
    pub serving: Serving,
    /// The distances, in memory.
    pub distances: distances::Served,
}

/// Loads what scoring needs.
pub async fn prepare(ctx: &SessionContext, lake: &Lake) -> Result<Prepared> {
    let serving = Serving::load(ctx, lake).await?;
    Ok(Prepared { serving, distances: distances::Served::load(ctx, lake).await? })
}

/// Runs until `shutdown` is done or a bounded trigger is. `ctx` was [`prepare`]d. A micro-batch is
/// scored with one model, the champion at its end.
pub async fn run(
    ctx: &SessionContext,
    Prepared { serving, distances }: Prepared,
    connections: Connections<'_>,
    options: &Options,
    metrics: &Metrics,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<StreamStats> {
    let shutdown = shutdown.map(|()| tokio::time::Instant::now()).boxed().shared();
    let retry = Retry::new(options.give_up_after, metrics, shutdown.clone());
    let observer = Observer::new(&serving, options.shadow.clone(), metrics);
    let Connections { source, sink, store } = connections;
    let mut stream = Stream {
        ctx,
        serving,
        distances,
        plan: Plan::new(ctx).await?,
        source,
        sink,
        store,
        options,
        metrics,
        retry,
        observer,
        leases: BTreeMap::new(),
        inspector: Inspector::new(
            &options.properties,
            &options.topics.requests,
            options.topic_is_whole,
        ),
        looked: Instant::now(),
        held: BTreeMap::new(),
        known: KnownLetters::default(),
        has_to_note: false,
        in_flight: None,
        streamed: StreamStats::default(),
    };
    while stream.run(shutdown.clone()).await? == Ended::Stalled {
        stream = Stream { source: stream.source.renew().await?, ..stream };
    }
    stream.note_published().await;
    let Stream { source, streamed, .. } = stream;
    source.close_group().await?;
    Ok(streamed)
}

struct Stream<'a> {
    ctx: &'a SessionContext,
    serving: Serving,
    distances: distances::Served,
    plan: Plan,
    source: Source,
    sink: Sink,
    store: &'a Store,
    options: &'a Options,
    metrics: &'a Metrics,
    retry: Retry<'a>,
    observer: Observer<'a>,
    /// What we hold of each assigned partition. `published` takes precedence over what the store
    /// knows: it is written with the next answers.
    leases: BTreeMap<i32, Lease>,
    inspector: Inspector,
    /// When it was last looked whether the leases hold.
    looked: Instant,
    /// What we held before the last assignment.
    held: BTreeMap<i32, Lease>,
    /// Letters that were written before what is read again.
    known: KnownLetters,
    has_to_note: bool,
    in_flight: Option<InFlight>,
    streamed: StreamStats,
}

/// Answers on their way to the topic; the store has them.
struct InFlight {
    records: Vec<Record>,
    sent: Result<Sent, SendError>,
    /// Where their messages end.
    next: BTreeMap<i32, i64>,
    /// What traces show of this step, and of the requests.
    step: Span,
    requests: RequestSpans,
}

/// Why a stream reads no more.
#[derive(PartialEq)]
enum Ended {
    /// It was told to end, or its bounded trigger is done.
    Done,
    /// Its client fetches nothing any more.
    Stalled,
}

/// How long the phases of a micro-batch took.
#[derive(Default)]
struct Phases {
    score: Duration,
    store: Duration,
    publish: Duration,
}

impl Stream<'_> {
    async fn run(&mut self, shutdown: Shutdown<'_>) -> Result<Ended> {
        loop {
            let told = shutdown.clone().map(drop);
            let (done, is_last) = match self.source.next(told).await? {
                Event::Stalled => {
                    self.leave_to_others();
                    return Ok(Ended::Stalled);
                }
                Event::Assigned(assignment) => (self.acquire(&assignment).await, false),
                Event::MicroBatch(batch) => {
                    let is_last = batch.is_last;
                    let span = spans::micro_batch(&batch.messages);
                    let done = self.answer(batch).instrument(span.clone()).await;
                    if done.is_err() {
                        traces::fail(&span, "not finished by this process");
                    }
                    (done, is_last)
                }
                Event::Idle => {
                    self.note_published().await;
                    (Ok(()), false)
                }
            };
            // a bounded stream whose last micro-batch went to others waits for its next assignment
            let is_over = is_last && (done.is_ok() || shutdown.peek().is_some());
            match done {
                Ok(()) => {}
                Err(Stop::Lost) => {
                    tracing::warn!("micro-batch is dropped: partitions were revoked")
                }
                Err(Stop::Fenced(acquired)) => {
                    tracing::warn!(
                        acquired,
                        "micro-batch is dropped: another process has acquired a lease"
                    );
                    self.metrics.fenced_total.inc();
                    self.leave_to_others();
                    self.source.assign_again()?;
                }
                Err(Stop::Failed(error)) => return Err(error),
            }
            if self.looked.elapsed() >= LEASES_EVERY && !is_over {
                self.look_at_leases().await?;
                self.looked = Instant::now();
            }
            if is_over {
                return Ok(Ended::Done);
            }
        }
    }

    /// Notices when somebody has acquired what is ours although there is nothing to write: an
    /// operator, who lets us go on from somewhere else.
    async fn look_at_leases(&mut self) -> Result<()> {
        if let Err(WriteError::Fenced(acquired)) = self.note_leases().await {
            tracing::warn!(acquired, "another process acquired what is ours");
            self.metrics.fenced_total.inc();
            self.leave_to_others();
            self.source.assign_again()?;
        }
        Ok(())
    }

    /// Takes what the group assigned, away from its holder, and reads on from where the store
    /// says, if that is of the same log. Answers that may not be published are read and published
    /// again.
    async fn acquire(&mut self, assignment: &Assignment) -> Result<(), Stop> {
        self.leave_to_others();
        let Options { group, topics, properties, .. } = self.options;
        let mut stored = BTreeMap::new();
        for partition in &assignment.partitions {
            let id = format!("{group}/{}/{partition}", topics.requests);
            let lease = async || self.store.acquire(STREAM_OFFSETS, &id).await;
            let lease = self.retry.until_done("store", self.source.lost(), lease).await?;
            stored.insert(*partition, lease);
        }
        let inspection = self.inspect(stored.iter(), true).await?;
        let Resumed { leases, is_changed } = resume(stored, &self.held, &inspection, self.metrics)?;
        let all: Vec<Lease> = leases.values().cloned().collect();
        if is_changed {
            let note = async || self.store.commit(ANSWERS, &[], STREAM_OFFSETS, &all).await;
            self.retry.until_done("store", self.source.lost(), note).await?;
        }
        self.known = self.letters_before(properties, &leases).await?;
        let offsets = leases.iter().map(|(partition, lease)| (*partition, lease.published));
        let offsets: BTreeMap<i32, i64> = offsets.collect();
        self.leases = leases;
        tracing::info!(?offsets, "reading on from where the store says");
        self.source.start(assignment, &offsets)?;
        // the holder before may have died before its offsets were committed
        Ok(self.source.done(&offsets)?)
    }

    /// What there is of the logs of leases.
    async fn inspect(
        &self,
        leases: impl Iterator<Item = (&i32, &Lease)>,
        with_cluster: bool,
    ) -> Result<Inspection, Stop> {
        let mut offsets = BTreeMap::new();
        for (partition, lease) in leases {
            let mark = LogMark::of(lease)?;
            offsets.insert(*partition, offset_to_inspect(lease, mark.as_ref()));
        }
        let look = async || Ok(self.inspector.inspect(offsets.clone(), with_cluster).await?);
        self.retry.until_done("log", self.source.lost(), look).await
    }

    /// Whether partitions that were silent are still of the log that we have read so far.
    async fn is_same_log(&self, rested: &BTreeSet<i32>) -> Result<bool, Stop> {
        let leases = || self.leases.iter().filter(|(partition, _)| rested.contains(partition));
        let Inspection { here, found } = self.inspect(leases(), false).await?;
        for (partition, lease) in leases() {
            let mark = LogMark::of(lease)?;
            let found = found.get(partition).context("a partition that was not looked at")?;
            if compare(lease, mark.as_ref(), &here, found) != Verdict::Same {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The dead letters that may have been written before, of partitions that are read again.
    async fn letters_before(
        &self,
        properties: &Properties,
        leases: &BTreeMap<i32, Lease>,
    ) -> Result<KnownLetters, Stop> {
        let mut read_again = BTreeMap::new();
        for (partition, lease) in leases {
            let to = LogMark::of(lease)?.map_or(0, |mark| mark.read_again_to);
            if lease.published < to {
                read_again.insert(*partition, to);
            }
        }
        if read_again.is_empty() {
            return Ok(KnownLetters::default());
        }
        let read = async || Ok(known_letters(properties, &self.options.topics, &read_again).await?);
        // as long as it takes: there may be very many
        self.retry.until_done_slowly("dead_letters", self.source.lost(), read).await
    }

    /// The next process that acquires the partitions reads, and publishes, what is not published
    /// yet.
    fn leave_to_others(&mut self) {
        self.held.append(&mut self.leases);
        self.in_flight = None;
    }

    /// Answers a micro-batch, in chunks that fit a transaction.
    async fn answer(&mut self, batch: MicroBatch) -> Result<(), Stop> {
        let MicroBatch { messages, is_last, rested } = batch;
        if messages.is_empty() {
            self.finish_publishing().await?;
            return Ok(());
        }
        if !rested.is_empty() && !self.is_same_log(&rested).await? {
            tracing::warn!("micro-batch is dropped: the topic was made again meanwhile");
            self.finish_publishing().await?;
            self.leave_to_others();
            self.source.assign_again()?;
            return Ok(());
        }
        let (started, before) = (Instant::now(), self.streamed);
        self.refresh().await?;
        let mut phases = Phases::default();
        for chunk in chunks(messages) {
            self.answer_chunk(chunk, &mut phases).await?;
        }
        // what is behind does not wait for the topic: it scores and stores meanwhile
        if is_last || !self.source.has_next() {
            phases.publish += self.finish_publishing().await?;
        }
        self.streamed.n_batches += 1;
        let (took, after) = (started.elapsed(), self.streamed);
        self.metrics.windows_total.inc();
        self.metrics.window_seconds.observe(took.as_secs_f64());
        tracing::info!(
            messages = after.n_messages - before.n_messages,
            answered = after.n_answered - before.n_answered,
            repeated = after.n_repeated - before.n_repeated,
            dead_letters = after.n_dead_letters - before.n_dead_letters,
            score_ms = phases.score.as_millis(),
            store_ms = phases.store.as_millis(),
            publish_ms = phases.publish.as_millis(),
            batch_ms = took.as_millis(),
            "micro-batch"
        );
        Ok(())
    }

    async fn refresh(&mut self) -> Result<()> {
        match self.serving.refresh(self.ctx).await {
            RefreshOutcome::Same => {}
            RefreshOutcome::Refused => self.metrics.models_refused_total.inc(),
            RefreshOutcome::Replaced => {
                self.plan = Plan::new(self.ctx).await?;
                self.observer.replace(&self.serving);
            }
        }
        if self.distances.refresh(self.ctx).await {
            self.plan = Plan::new(self.ctx).await?;
        }
        Ok(())
    }

    async fn answer_chunk(
        &mut self,
        messages: Vec<Message>,
        phases: &mut Phases,
    ) -> Result<(), Stop> {
        let rules = Rules {
            now: (self.options.now)(),
            message_bytes_max: self.options.message_bytes_max,
            expire_after: self.options.expire_after,
        };
        let (next, created) = (next_offsets(&messages), created_ms(&messages));
        let last = last_records(&messages);
        let n_messages = messages.len() as u64;
        let (metrics, mut clock) = (self.metrics, Instant::now());
        let mut lap = |name, phase: &mut Duration| {
            let took = clock.elapsed();
            clock = Instant::now();
            metrics.phase(name, took);
            *phase += took;
        };
        let spans = RequestSpans::begin(&messages, &self.options.topics.requests);
        let scoring = micro_batch::score(&self.plan, messages, rules);
        let mut scored = scoring.instrument(step("score")).await?;
        spans.reject(&scored.dead_letters);
        // the writer of a letter may have died before it wrote the rejection
        let rejections = rejections(&scored.dead_letters)?;
        scored.dead_letters.retain(|letter| !self.known.contains(&letter.message));
        lap("score", &mut phases.score);
        self.retry
            .until_done("dead_letters", self.source.lost(), async || {
                self.sink.send_dead_letters(&scored.dead_letters).await
            })
            .instrument(step("dead_letters"))
            .await?;
        lap("dead_letters", &mut phases.publish);
        (self.options.on_step)(Step::Scored);

        let documents = documents(&scored)?;
        let storing = self.store(&rejections, &documents, &next, last);
        let kept = storing.instrument(step("store")).await?;
        spans.note("stored");
        lap("store", &mut phases.store);
        (self.options.on_step)(Step::Stored);

        let now_ms = (self.options.now)().timestamp_millis();
        self.streamed.count(n_messages, &scored, kept.len(), &created, now_ms, metrics);
        self.observer.see(&scored.rows);

        let records = self.records(&documents, &kept, &spans).await?;
        phases.publish += self.finish_publishing().await?;
        let step = step("publish");
        let sent = self.sink.begin_answers(&records);
        self.in_flight = Some(InFlight { records, sent, next, step, requests: spans });
        Ok(())
    }

    /// Waits until the answers in flight are published, which makes their messages done; how long
    /// that took.
    async fn finish_publishing(&mut self) -> Result<Duration, Stop> {
        let Some(InFlight { records, sent, next, step, requests }) = self.in_flight.take() else {
            return Ok(Duration::ZERO);
        };
        let (started, mut sent) = (Instant::now(), Some(sent));
        self.retry
            .until_done("answers", self.source.lost(), async || {
                let sent = sent.take().unwrap_or_else(|| self.sink.begin_answers(&records));
                let done = match sent {
                    Ok(sent) => sent.acknowledged().await,
                    Err(error) => Err(error),
                };
                match done {
                    Ok(()) => Ok(()),
                    Err(error) => Err(self.sink.recover(error).await),
                }
            })
            .await?;
        drop(step);
        requests.done();
        let took = started.elapsed();
        self.metrics.phase("publish", took);
        (self.options.on_step)(Step::Published);
        for (partition, lease) in &mut self.leases {
            lease.published = next.get(partition).copied().unwrap_or(lease.published);
        }
        self.has_to_note = true;
        self.source.done(&next)?;
        Ok(took)
    }

    /// Writes answers and offsets; returns the ids of the answers that were there before.
    async fn store(
        &mut self,
        rejections: &[Value],
        documents: &[Value],
        next: &BTreeMap<i32, i64>,
        mut last: BTreeMap<i32, LastRecord>,
    ) -> Result<Vec<String>, Stop> {
        let mut moved = BTreeMap::new();
        for (partition, offset) in next {
            let lease = self.leases.get(partition).context("a partition that is not ours")?;
            // what is read again, to be published, is in the store already
            let lease = match last.remove(partition) {
                Some(last) if *offset > lease.next => moved_to(lease, *offset, last)?,
                _ => lease.clone(),
            };
            moved.insert(*partition, lease);
        }
        let leases: Vec<Lease> = moved.values().cloned().collect();
        let kept = self
            .retry
            .until_done("store", self.source.lost(), async || {
                self.store.upsert(REJECTIONS, rejections).await?;
                self.store.commit(ANSWERS, documents, STREAM_OFFSETS, &leases).await
            })
            .await?;
        self.leases.extend(moved);
        if !self.known.is_empty() && !self.reads_again()? {
            self.known = KnownLetters::default();
        }
        Ok(kept)
    }

    /// Whether any partition is still where letters may have been written before.
    fn reads_again(&self) -> Result<bool> {
        for lease in self.leases.values() {
            if LogMark::of(lease)?.is_some_and(|mark| lease.published < mark.read_again_to) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What is published: what the store has, also where that was there before.
    async fn records(
        &self,
        documents: &[Value],
        kept: &[String],
        spans: &RequestSpans,
    ) -> Result<Vec<Record>, Stop> {
        let read = async || Ok(self.store.get_all(ANSWERS, kept).await?);
        let before = match kept {
            [] => Vec::new(),
            _ => self.retry.until_done("store", self.source.lost(), read).await?,
        };
        let id = |document: &Value| document["_id"].as_str().unwrap_or_default().to_owned();
        let before: BTreeMap<String, &Value> = before.iter().map(|d| (id(d), d)).collect();
        let records = documents.iter().map(|document| {
            let id = id(document);
            let answer = before.get(&id).copied().unwrap_or(document);
            let traceparent = spans.traceparent(&id);
            Record { key: id, value: answer.to_string().into_bytes(), traceparent }
        });
        Ok(records.collect())
    }

    /// Records what is published, so that the next holder of the lease need not do it again. There
    /// is no harm when this fails.
    async fn note_published(&mut self) {
        if !std::mem::take(&mut self.has_to_note) {
            return;
        }
        if let Err(error) = self.note_leases().await {
            tracing::warn!(error = format!("{error:#}"), "what is published is not recorded");
        }
    }

    /// Writes the leases as they are.
    async fn note_leases(&self) -> Result<(), WriteError> {
        if self.leases.is_empty() {
            return Ok(());
        }
        let leases: Vec<Lease> = self.leases.values().cloned().collect();
        tokio::select! {
            biased;
            noted = self.store.commit(ANSWERS, &[], STREAM_OFFSETS, &leases) => noted.map(drop),
            () = sleep(NOTE_WAIT) => Err(anyhow!("no answer within {NOTE_WAIT:?}").into()),
            () = self.retry.grace_is_over() => Err(anyhow!("told to end").into()),
        }
    }
}
