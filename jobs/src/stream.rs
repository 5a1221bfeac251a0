//! The streaming job: windows of requests from Kafka, scored, to the store and to the response
//! topic.
//!
//! What a window leaves behind is written in this order, each step only after the one before is
//! durable: dead letters, then answers together with the offsets they come from, then answers to
//! the topic. Where to go on is what the store says, so a crash at any point repeats only work that
//! may be repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use events::{ANSWERS, Answer, REJECTIONS, STREAM_OFFSETS};
use futures::future::{BoxFuture, FutureExt, Shared};
use serde_json::Value;
use store::{Claim, Store, WriteError};
use udf::scorer::Scorer;

use crate::dead_letters::{KnownLetters, known_letters};
use crate::kafka::{Properties, Topics};
use crate::lake::Lake;
use crate::meters::Meters;
use crate::models::{Looked, Serving};
use crate::observe::Observer;
use crate::piece::{created_ms, document, documents, last_records, next_offsets, pieces};
use crate::request_log::{
    Inspection, Inspector, LastRecord, LogMark, Verdict, judge, offset_to_inspect,
};
use crate::resume::{Resumed, resume};
use crate::retry::{Retry, Stop};
use crate::sink::{Record, SendError, Sent, Sink};
use crate::source::{Assignment, Event, Source, Window};
use crate::streamed::Streamed;
use crate::window::{self, DeadLetter, Message, Plan, Rules};

/// How long the store may take to record what only saves work.
const NOTE_WAIT: Duration = Duration::from_secs(5);

/// How often it is looked whether the claims hold, beside each commit: that also keeps the offsets
/// of a stream that has nothing to do from growing old.
const CLAIMS_EVERY: Duration = Duration::from_secs(5);

/// A place in a window's way at which a test lets the program die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is scored; nothing is written but dead letters.
    Scored,
    /// Answers and offsets are in the store.
    Stored,
    /// Answers are in the topic; the group has not been told.
    Published,
}

/// How requests are answered.
pub struct Options {
    /// The consumer group; names the job and what it holds of the topic.
    pub group: String,
    /// The topics.
    pub topics: Topics,
    /// Whether the topic of requests keeps all of them in one piece: it is not compacted.
    pub topic_is_whole: bool,
    /// How Kafka is reached.
    pub properties: Vec<(String, String)>,
    /// Largest message that is read, in bytes.
    pub message_bytes_max: usize,
    /// Age beyond which a request is not scored any more; `None` is for ever.
    pub expire_after: Option<Duration>,
    /// How long a sink may fail before the job ends with an error; `None` is for ever.
    pub give_up_after: Option<Duration>,
    /// A challenger that is asked beside the champion, and only counted.
    pub shadow: Option<Arc<Scorer>>,
    /// The clock.
    pub now: fn() -> DateTime<Utc>,
    /// Called at each step of a window.
    pub on_step: Box<dyn Fn(Step) + Send + Sync>,
}

/// What a stream reads from and writes to.
pub struct Ends<'a> {
    /// Requests.
    pub source: Source,
    /// Answers and dead letters.
    pub sink: Sink,
    /// Answers, and how far the stream is.
    pub store: &'a Store,
}

/// Loads what scoring needs: the champion, and the distances into memory.
pub async fn prepare(ctx: &SessionContext, lake: &Lake) -> Result<Serving> {
    let serving = Serving::load(ctx, lake).await?;
    lake.register_table(ctx, "distances", "distances/", &[]).await?;
    let distances = ctx.table("distances").await?;
    let schema = Arc::clone(distances.schema().inner());
    let table = MemTable::try_new(schema, vec![distances.collect().await?])?;
    ctx.deregister_table("distances")?;
    ctx.register_table("distances", Arc::new(table))?;
    Ok(serving)
}

/// Runs until `shutdown` is done or a bounded trigger is. `ctx` was [`prepare`]d, which gave
/// `serving`. A window is scored with one model, the champion at its end.
pub async fn run(
    ctx: &SessionContext,
    serving: Serving,
    ends: Ends<'_>,
    options: &Options,
    meters: &Meters,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<Streamed> {
    let shutdown = shutdown.boxed().shared();
    let retry = Retry::new(options.give_up_after, meters, shutdown.clone());
    let observer = Observer::new(Arc::clone(serving.champion()), options.shadow.clone(), meters);
    let Ends { source, sink, store } = ends;
    let mut stream = Stream {
        ctx,
        serving,
        plan: Plan::new(ctx).await?,
        source,
        sink,
        store,
        options,
        meters,
        retry,
        observer,
        claims: BTreeMap::new(),
        inspector: Inspector::new(
            &options.properties,
            &options.topics.requests,
            options.topic_is_whole,
        ),
        looked: Instant::now(),
        held: BTreeMap::new(),
        known: KnownLetters::default(),
        has_to_note: false,
        telling: None,
        streamed: Streamed::default(),
    };
    stream.run(shutdown).await?;
    stream.note_published().await;
    let Stream { source, streamed, .. } = stream;
    source.close_group().await?;
    Ok(streamed)
}

struct Stream<'a> {
    ctx: &'a SessionContext,
    serving: Serving,
    plan: Plan,
    source: Source,
    sink: Sink,
    store: &'a Store,
    options: &'a Options,
    meters: &'a Meters,
    retry: Retry<'a>,
    observer: Observer<'a>,
    /// What we hold of each assigned partition. `published` goes before what the store knows: it
    /// is written with the next answers.
    claims: BTreeMap<i32, Claim>,
    inspector: Inspector,
    /// When it was last looked whether the claims hold.
    looked: Instant,
    /// What we held before the last assignment.
    held: BTreeMap<i32, Claim>,
    /// Letters that were written before what is read again.
    known: KnownLetters,
    has_to_note: bool,
    telling: Option<Telling>,
    streamed: Streamed,
}

/// Answers on their way to the topic; the store has them.
struct Telling {
    records: Vec<Record>,
    sent: Result<Sent, SendError>,
    /// Where their messages end.
    next: BTreeMap<i32, i64>,
}

/// How long the phases of a window took.
#[derive(Default)]
struct Phases {
    score: Duration,
    store: Duration,
    publish: Duration,
}

impl Stream<'_> {
    async fn run(&mut self, shutdown: Shared<BoxFuture<'_, ()>>) -> Result<()> {
        loop {
            let (done, is_last) = match self.source.next(shutdown.clone()).await? {
                Event::Assigned(assignment) => (self.claim(&assignment).await, false),
                Event::Window(window) => {
                    let is_last = window.is_last;
                    (self.answer(window).await, is_last)
                }
                Event::Idle => {
                    self.note_published().await;
                    (Ok(()), false)
                }
            };
            // a bounded stream whose last window went to others waits for what it is assigned next
            let is_over = is_last && (done.is_ok() || shutdown.peek().is_some());
            match done {
                Ok(()) => {}
                Err(Stop::Lost) => tracing::warn!("a window is left to others: the group decided"),
                Err(Stop::Fenced(claimed)) => {
                    tracing::warn!(claimed, "a window is thrown away: another process claimed it");
                    self.meters.fenced_total.inc();
                    self.leave_to_others();
                    self.source.assign_again()?;
                }
                Err(Stop::Failed(error)) => return Err(error),
            }
            if self.looked.elapsed() >= CLAIMS_EVERY {
                self.look_at_claims().await?;
                self.looked = Instant::now();
            }
            if is_over {
                return Ok(());
            }
        }
    }

    /// Notices when somebody has claimed what is ours although there is nothing to write: an
    /// operator, who lets us go on from somewhere else.
    async fn look_at_claims(&mut self) -> Result<()> {
        if let Err(WriteError::Fenced(claimed)) = self.note_claims().await {
            tracing::warn!(claimed, "another process claimed what is ours");
            self.meters.fenced_total.inc();
            self.leave_to_others();
            self.source.assign_again()?;
        }
        Ok(())
    }

    /// Takes what the group assigned, away from whoever had it, and reads on from where the store
    /// says, if that is of the same log. Answers that others may not have been told of are read,
    /// and told, again.
    async fn claim(&mut self, assignment: &Assignment) -> Result<(), Stop> {
        self.leave_to_others();
        let Options { group, topics, properties, .. } = self.options;
        let mut stored = BTreeMap::new();
        for partition in &assignment.partitions {
            let id = format!("{group}/{}/{partition}", topics.requests);
            let claim = async || self.store.claim(STREAM_OFFSETS, &id).await;
            let claim = self.retry.until_done("store", self.source.lost(), claim).await?;
            stored.insert(*partition, claim);
        }
        let inspection = self.inspect(stored.iter(), true).await?;
        let Resumed { claims, is_changed } = resume(stored, &self.held, &inspection, self.meters)?;
        let all: Vec<Claim> = claims.values().cloned().collect();
        if is_changed {
            let note = async || self.store.commit(ANSWERS, &[], STREAM_OFFSETS, &all).await;
            self.retry.until_done("store", self.source.lost(), note).await?;
        }
        self.known = self.letters_before(properties, &claims).await?;
        let offsets = claims.iter().map(|(partition, claim)| (*partition, claim.published));
        let offsets: BTreeMap<i32, i64> = offsets.collect();
        self.claims = claims;
        tracing::info!(?offsets, "reading on from where the store says");
        self.source.start(assignment, &offsets)?;
        // whoever had it before may have died before the group was told
        Ok(self.source.done(&offsets)?)
    }

    /// What there is of the logs of claims.
    async fn inspect(
        &self,
        claims: impl Iterator<Item = (&i32, &Claim)>,
        with_cluster: bool,
    ) -> Result<Inspection, Stop> {
        let mut offsets = BTreeMap::new();
        for (partition, claim) in claims {
            let mark = LogMark::of(claim)?;
            offsets.insert(*partition, offset_to_inspect(claim, mark.as_ref()));
        }
        let look = async || Ok(self.inspector.inspect(offsets.clone(), with_cluster).await?);
        self.retry.until_done("log", self.source.lost(), look).await
    }

    /// Whether partitions that were silent are still of the log that we have read so far.
    async fn is_same_log(&self, rested: &BTreeSet<i32>) -> Result<bool, Stop> {
        let claims = || self.claims.iter().filter(|(partition, _)| rested.contains(partition));
        let Inspection { here, found } = self.inspect(claims(), false).await?;
        for (partition, claim) in claims() {
            let mark = LogMark::of(claim)?;
            let found = found.get(partition).context("a partition that was not looked at")?;
            if judge(claim, mark.as_ref(), &here, found) != Verdict::Same {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The dead letters that may have been written before, of partitions that are read again.
    async fn letters_before(
        &self,
        properties: &Properties,
        claims: &BTreeMap<i32, Claim>,
    ) -> Result<KnownLetters, Stop> {
        let mut read_again = BTreeMap::new();
        for (partition, claim) in claims {
            let to = LogMark::of(claim)?.map_or(0, |mark| mark.read_again_to);
            if claim.published < to {
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

    /// Whoever claims the partitions next reads, and tells, what is not told yet.
    fn leave_to_others(&mut self) {
        self.held.append(&mut self.claims);
        self.telling = None;
    }

    /// Answers a window, in pieces that fit a transaction.
    async fn answer(&mut self, window: Window) -> Result<(), Stop> {
        let Window { messages, is_last, rested } = window;
        if messages.is_empty() {
            self.finish_telling().await?;
            return Ok(());
        }
        if !rested.is_empty() && !self.is_same_log(&rested).await? {
            tracing::warn!("a window is thrown away: the topic was made again meanwhile");
            self.finish_telling().await?;
            self.leave_to_others();
            self.source.assign_again()?;
            return Ok(());
        }
        let (started, before) = (Instant::now(), self.streamed);
        self.refresh().await?;
        let mut phases = Phases::default();
        for piece in pieces(messages) {
            self.answer_piece(piece, &mut phases).await?;
        }
        // what is behind does not wait for the topic: it scores and stores meanwhile
        if is_last || !self.source.has_next() {
            phases.publish += self.finish_telling().await?;
        }
        self.streamed.n_windows += 1;
        let (took, after) = (started.elapsed(), self.streamed);
        self.meters.windows_total.inc();
        self.meters.window_seconds.observe(took.as_secs_f64());
        tracing::info!(
            messages = after.n_messages - before.n_messages,
            answered = after.n_answered - before.n_answered,
            repeated = after.n_repeated - before.n_repeated,
            dead_letters = after.n_dead_letters - before.n_dead_letters,
            score_ms = phases.score.as_millis(),
            store_ms = phases.store.as_millis(),
            publish_ms = phases.publish.as_millis(),
            window_ms = took.as_millis(),
            "window"
        );
        Ok(())
    }

    async fn refresh(&mut self) -> Result<()> {
        match self.serving.refresh(self.ctx).await {
            Looked::Same => {}
            Looked::Refused => self.meters.models_refused_total.inc(),
            Looked::Replaced => {
                self.plan = Plan::new(self.ctx).await?;
                self.observer.replace(Arc::clone(self.serving.champion()));
            }
        }
        Ok(())
    }

    async fn answer_piece(
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
        let (meters, mut clock) = (self.meters, Instant::now());
        let mut lap = |name, phase: &mut Duration| {
            let took = clock.elapsed();
            clock = Instant::now();
            meters.phase(name, took);
            *phase += took;
        };
        let mut scored = window::score(&self.plan, messages, rules).await?;
        // whoever wrote a letter may have died before it wrote the rejection
        let rejections = rejections(&scored.dead_letters)?;
        scored.dead_letters.retain(|letter| !self.known.contains(&letter.message));
        lap("score", &mut phases.score);
        self.retry
            .until_done("dead_letters", self.source.lost(), async || {
                self.sink.send_dead_letters(&scored.dead_letters).await
            })
            .await?;
        lap("dead_letters", &mut phases.publish);
        (self.options.on_step)(Step::Scored);

        let documents = documents(&scored)?;
        let kept = self.store(&rejections, &documents, &next, last).await?;
        lap("store", &mut phases.store);
        (self.options.on_step)(Step::Stored);

        let now_ms = (self.options.now)().timestamp_millis();
        self.streamed.count(n_messages, &scored, kept.len(), &created, now_ms, meters);
        self.observer.see(&scored.rows);

        let records = self.records(&documents, &kept).await?;
        phases.publish += self.finish_telling().await?;
        let sent = self.sink.begin_answers(&records);
        self.telling = Some(Telling { records, sent, next });
        Ok(())
    }

    /// Waits until the topic has the answers that it is being told, which makes their messages
    /// done; how long that took.
    async fn finish_telling(&mut self) -> Result<Duration, Stop> {
        let Some(Telling { records, sent, next }) = self.telling.take() else {
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
        let took = started.elapsed();
        self.meters.phase("publish", took);
        (self.options.on_step)(Step::Published);
        for (partition, claim) in &mut self.claims {
            claim.published = next.get(partition).copied().unwrap_or(claim.published);
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
            let claim = self.claims.get(partition).context("a partition that is not ours")?;
            // what is read again, to be published, is in the store already
            let claim = match last.remove(partition) {
                Some(last) if *offset > claim.next => moved_to(claim, *offset, last)?,
                _ => claim.clone(),
            };
            moved.insert(*partition, claim);
        }
        let claims: Vec<Claim> = moved.values().cloned().collect();
        let kept = self
            .retry
            .until_done("store", self.source.lost(), async || {
                self.store.upsert(REJECTIONS, rejections).await?;
                self.store.commit(ANSWERS, documents, STREAM_OFFSETS, &claims).await
            })
            .await?;
        self.claims.extend(moved);
        if !self.known.is_empty() && !self.reads_again()? {
            self.known = KnownLetters::default();
        }
        Ok(kept)
    }

    /// Whether any partition is still where letters may have been written before.
    fn reads_again(&self) -> Result<bool> {
        for claim in self.claims.values() {
            if LogMark::of(claim)?.is_some_and(|mark| claim.published < mark.read_again_to) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What the topic is told: what the store has, also where that was there before.
    async fn records(&self, documents: &[Value], kept: &[String]) -> Result<Vec<Record>, Stop> {
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
            (id, answer.to_string().into_bytes())
        });
        Ok(records.collect())
    }

    /// Records what is published, so that the next who claims need not do it again. There is no
    /// harm when this fails.
    async fn note_published(&mut self) {
        if !std::mem::take(&mut self.has_to_note) {
            return;
        }
        if let Err(error) = self.note_claims().await {
            tracing::warn!(error = format!("{error:#}"), "what is published is not recorded");
        }
    }

    /// Writes the claims as they are.
    async fn note_claims(&self) -> Result<(), WriteError> {
        if self.claims.is_empty() {
            return Ok(());
        }
        let claims: Vec<Claim> = self.claims.values().cloned().collect();
        let noted = self.store.commit(ANSWERS, &[], STREAM_OFFSETS, &claims);
        tokio::time::timeout(NOTE_WAIT, noted).await.map_err(anyhow::Error::from)??;
        Ok(())
    }
}

/// Why messages were rejected, as documents for those who sent them.
fn rejections(letters: &[DeadLetter]) -> Result<Vec<Value>> {
    let refusals = letters.iter().filter_map(DeadLetter::rejection);
    refusals.map(|refusal| document(&Answer::Refused(refusal))).collect()
}

/// A claim of everything before `next`, of which `last` is the last record.
fn moved_to(claim: &Claim, next: i64, last: LastRecord) -> Result<Claim> {
    let mut mark = LogMark::of(claim)?.unwrap_or_default();
    mark.last = Some(last);
    if next >= mark.read_again_to {
        mark.read_again_to = 0;
    }
    Ok(Claim { next, log: Some(mark.to_value()?), ..claim.clone() })
}
