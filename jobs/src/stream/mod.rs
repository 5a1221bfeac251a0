//! The streaming job: micro-batches of requests from Kafka, scored, to the store and to the
//! response topic.
//!
//! What a micro-batch leaves behind is written in this order, each step only after the one before
//! is durable: dead letters, then answers together with the offsets they come from, then answers to
//! the topic. Where to go on is what the store says, so a crash at any point repeats only work that
//! may be repeated.

pub mod archive;
pub(crate) mod chunks;
mod commit;
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
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use datafusion::prelude::SessionContext;
use events::{ANSWERS, ModelFeatures, STREAM_OFFSETS};
use futures::future::FutureExt;
use serde_json::Value;
use store::{Lease, Store, WriteError};
use telemetry::traces;
use tokio::time::sleep;
use tracing::Instrument;

use crate::distances;
use crate::lake::Lake;
use crate::models::registry::{RefreshOutcome, Serving};
use crate::stream::chunks::{About, Chunk, InFlight, ScoredChunk, chunks};
use crate::stream::dead_letters::{KnownLetters, known_letters};
use crate::stream::kafka::Properties;
use crate::stream::metrics::Metrics;
use crate::stream::micro_batch::{Plan, Rules};
use crate::stream::monitor::Observer;
pub use crate::stream::options::{Connections, Options, Step};
use crate::stream::request_log::{
    Inspection, Inspector, LogMark, Verdict, compare, offset_to_inspect,
};
use crate::stream::resume::{Resumed, resume};
use crate::stream::retry::{Retry, Shutdown, Stop};
use crate::stream::sink::Sink;
use crate::stream::source::{Assignment, Event, MicroBatch, Source};
use crate::stream::stats::StreamStats;

/// How long the store may take to record what only saves work.
const NOTE_WAIT: Duration = Duration::from_secs(5);
/// How often the leases are checked, beside each commit: that also keeps the offsets
/// of a stream that has nothing to do from growing old.
const LEASES_EVERY: Duration = Duration::from_secs(5);
/// Messages of a micro-batch from which on its last chunk waits for the next one to be read, to be
/// stored while that is scored. Fewer are scored in less time than a transaction takes, and would
/// wait longer than that.
const OVERLAP_ROWS: usize = 500;

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
        untold: vec![features_of(&serving)?],
        serving,
        distances,
        plan: Arc::new(Plan::new(ctx).await?),
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
        scoring: None,
        in_flight: None,
        phases: Phases::default(),
        streamed: StreamStats::default(),
        logged: StreamStats::default(),
    };
    while stream.run(shutdown.clone()).await? == Ended::Stalled {
        stream = Stream { source: stream.source.renew().await?, ..stream };
    }
    stream.note_published().await;
    let Stream { source, streamed, .. } = stream;
    source.close_group().await?;
    Ok(streamed)
}

pub(crate) struct Stream<'a> {
    ctx: &'a SessionContext,
    serving: Serving,
    distances: distances::Served,
    plan: Arc<Plan>,
    /// What is to be told of models before their first answer.
    untold: Vec<Value>,
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
    /// The chunk that was read last, if nothing of it is written yet.
    scoring: Option<Chunk>,
    /// The one before.
    in_flight: Option<InFlight>,
    /// Since the last micro-batch that was logged.
    phases: Phases,
    streamed: StreamStats,
    /// What it was when a micro-batch was logged last.
    logged: StreamStats,
}

/// Why a stream reads no more.
#[derive(PartialEq)]
enum Ended {
    /// It was told to end, or its bounded trigger is done.
    Done,
    /// Its client fetches nothing any more.
    Stalled,
}

/// How long the phases of a micro-batch took, by name. Chunks are scored and encoded while those
/// before are stored and published: what was left to wait for of that is `wait`.
type Phases = BTreeMap<&'static str, Duration>;

/// What the store is told of a model.
fn features_of(serving: &Serving) -> Result<Value> {
    let champion = serving.champion();
    let (version, model) = (champion.version().to_owned(), champion.model());
    let features = model.features.iter().map(|spec| spec.name.clone()).collect();
    let base_rates = model.base_rates();
    Ok(serde_json::to_value(ModelFeatures { version, features, base_rates })?)
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
                Event::Revoked => {
                    self.leave_to_others();
                    (Ok(()), false)
                }
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
                    let done = self.finish().await;
                    self.note_published().await;
                    (done, false)
                }
            };
            // a bounded stream whose last micro-batch went to others waits for its next assignment
            let is_over = is_last && (done.is_ok() || shutdown.peek().is_some());
            match done {
                Ok(()) => {}
                Err(Stop::Lost) => {
                    // nor is what follows it written
                    self.scoring = None;
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
        (self.scoring, self.in_flight) = (None, None);
        // micro-batches that others finish are not ours to log
        self.phases.clear();
        self.logged = self.streamed;
    }

    /// Answers a micro-batch, in chunks. While more is there already, the last chunk of a large one
    /// is left to the next micro-batch, or to [`finish`](Self::finish), and so is publishing.
    async fn answer(&mut self, batch: MicroBatch) -> Result<(), Stop> {
        let MicroBatch { messages, is_last, rested } = batch;
        if messages.is_empty() {
            return self.finish().await;
        }
        if !rested.is_empty() {
            self.finish().await?;
            if !self.is_same_log(&rested).await? {
                tracing::warn!("micro-batch is dropped: the topic was made again meanwhile");
                self.leave_to_others();
                self.source.assign_again()?;
                return Ok(());
            }
        }
        let started = Instant::now();
        if self.serving.is_due() || self.distances.is_due() {
            // what is scored does not wait for the data root, and is of the model before
            self.write_scored().await?;
            self.refresh().await?;
        }
        let is_small = messages.len() < OVERLAP_ROWS;
        let mut chunks = chunks(messages).into_iter().peekable();
        while let Some(messages) = chunks.next() {
            let is_last_since = chunks.peek().is_none().then_some(started);
            let about = About::new(&messages, &self.options.topics.requests, is_last_since);
            let rules = Rules {
                now: (self.options.now)(),
                message_bytes_max: self.options.message_bytes_max,
                expire_after: self.options.expire_after,
            };
            let before = self.take_scored().await?;
            self.scoring = Some(Chunk::begin(&self.plan, messages, rules, about));
            if let Some((scored, about)) = before {
                self.write(scored, about).await?;
            }
        }
        // what is behind waits neither for the store nor for the topic
        if is_last || !self.source.has_next() {
            self.finish().await
        } else if is_small {
            self.write_scored().await
        } else {
            Ok(())
        }
    }

    /// Has written and published all that was read.
    async fn finish(&mut self) -> Result<(), Stop> {
        self.write_scored().await?;
        self.finish_publishing().await
    }

    async fn write_scored(&mut self) -> Result<(), Stop> {
        match self.take_scored().await? {
            Some((scored, about)) => self.write(scored, about).await,
            None => Ok(()),
        }
    }

    /// The chunk that is being scored, when it is.
    async fn take_scored(&mut self) -> Result<Option<(ScoredChunk, About)>, Stop> {
        let Some(chunk) = self.scoring.take() else { return Ok(None) };
        let mut clock = Instant::now();
        let scored = chunk.scored().await?;
        self.lap("wait", &mut clock);
        Ok(Some(scored))
    }

    async fn refresh(&mut self) -> Result<()> {
        match self.serving.refresh(self.ctx).await {
            RefreshOutcome::Same => {}
            RefreshOutcome::Refused => self.metrics.models_refused_total.inc(),
            RefreshOutcome::Replaced => {
                self.plan = Arc::new(Plan::new(self.ctx).await?);
                self.untold.push(features_of(&self.serving)?);
                self.observer.replace(&self.serving);
            }
        }
        if self.distances.refresh(self.ctx).await {
            self.plan = Arc::new(Plan::new(self.ctx).await?);
        }
        Ok(())
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
