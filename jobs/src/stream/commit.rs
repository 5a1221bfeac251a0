//! What the chunks of a stream leave behind, each step only after the one before is durable: dead
//! letters, then answers together with the offsets they come from, then answers to the topic.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use events::{ANSWERS, MODEL_FEATURES, REJECTIONS, STREAM_OFFSETS};
use futures::future::join_all;
use serde_json::Value;
use store::{Lease, WriteError};
use tracing::Instrument;

use crate::stream::chunks::{About, InFlight, ScoredChunk, Share, shares};
use crate::stream::dead_letters::KnownLetters;
use crate::stream::request_log::{LastRecord, LogMark, moved_to};
use crate::stream::retry::Stop;
use crate::stream::sink::Record;
use crate::stream::spans::{RequestSpans, step};
use crate::stream::{Step, Stream};

impl Stream<'_> {
    /// Writes what became of a chunk, and begins to publish it.
    pub(crate) async fn write(&mut self, scored: ScoredChunk, about: About) -> Result<(), Stop> {
        let micro_batch = about.micro_batch.clone();
        self.write_chunk(scored, about).instrument(micro_batch).await
    }

    async fn write_chunk(&mut self, scored: ScoredChunk, about: About) -> Result<(), Stop> {
        let ScoredChunk { mut batch, documents, rejections, score, encode } = scored;
        let About { n_messages, next, last, created_ms, requests, is_last_since, .. } = about;
        self.note_phase("score", score);
        self.note_phase("encode", encode);
        let mut clock = Instant::now();
        requests.reject(&batch.dead_letters);
        // the writer of a letter may have died before it wrote the rejection
        batch.dead_letters.retain(|letter| !self.known.contains(&letter.message));
        self.retry
            .until_done("dead_letters", self.source.lost(), async || {
                self.sink.send_dead_letters(&batch.dead_letters).await
            })
            .instrument(step("dead_letters"))
            .await?;
        self.lap("dead_letters", &mut clock);
        (self.options.on_step)(Step::Scored);

        let n_max = self.store.n_commits_together();
        let shares = shares(documents, &batch.partitions, next.keys().copied(), n_max)?;
        let storing = self.store(&rejections, &shares, &next, last);
        let kept = storing.instrument(step("store")).await?;
        requests.note("stored");
        self.lap("store", &mut clock);
        (self.options.on_step)(Step::Stored);

        let now_ms = (self.options.now)().timestamp_millis();
        self.streamed.count(n_messages, &batch, kept.len(), &created_ms, now_ms, self.metrics);
        self.observer.see(&batch.rows);
        let records = self.records(shares, &kept, &requests).await?;
        self.lap("count", &mut clock);

        self.finish_publishing().await?;
        let (step, mut clock) = (step("publish"), Instant::now());
        let sent = self.sink.begin_answers(&records);
        self.lap("send", &mut clock);
        self.in_flight = Some(InFlight { records, sent, next, step, requests, is_last_since });
        Ok(())
    }

    /// Waits until the answers in flight are published, which makes their messages done.
    pub(crate) async fn finish_publishing(&mut self) -> Result<(), Stop> {
        let Some(in_flight) = self.in_flight.take() else { return Ok(()) };
        let InFlight { records, sent, next, step, requests, is_last_since } = in_flight;
        let (mut clock, mut sent) = (Instant::now(), Some(sent));
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
        self.lap("publish", &mut clock);
        (self.options.on_step)(Step::Published);
        for (partition, lease) in &mut self.leases {
            lease.published = next.get(partition).copied().unwrap_or(lease.published);
        }
        self.has_to_note = true;
        self.source.done(&next)?;
        if let Some(started) = is_last_since {
            self.log_batch(started);
        }
        Ok(())
    }

    /// Writes answers and offsets, all shares at the same time; returns the ids of the answers that
    /// were there before.
    async fn store(
        &mut self,
        rejections: &[Value],
        shares: &[Share],
        next: &BTreeMap<i32, i64>,
        mut last: BTreeMap<i32, LastRecord>,
    ) -> Result<Vec<String>, Stop> {
        let mut commits = Vec::new();
        for Share { partitions, documents } in shares {
            let mut moved = BTreeMap::new();
            for partition in partitions {
                let lease = self.leases.get(partition).context("a partition that is not ours")?;
                let offset = next[partition];
                // what is read again, to be published, is in the store already
                let lease = match last.remove(partition) {
                    Some(last) if offset > lease.next => moved_to(lease, offset, last)?,
                    _ => lease.clone(),
                };
                moved.insert(*partition, lease);
            }
            commits.push((documents, moved, None));
        }
        let stored = self
            .retry
            .until_done("store", self.source.lost(), async || {
                self.store.write_once(MODEL_FEATURES, &self.untold).await?;
                self.store.upsert(REJECTIONS, rejections).await?;
                let commits = commits.iter_mut().map(async |(documents, moved, kept)| {
                    if kept.is_none() {
                        let leases: Vec<Lease> = moved.values().cloned().collect();
                        let commit = self.store.commit(ANSWERS, documents, STREAM_OFFSETS, &leases);
                        *kept = Some(commit.await?);
                    }
                    Ok(())
                });
                // all are waited for: a transaction that is dropped half-way keeps its locks
                join_all(commits).await.into_iter().collect::<Result<(), WriteError>>()
            })
            .await;
        let mut all_kept = Vec::new();
        for (_, moved, kept) in commits {
            if let Some(kept) = kept {
                self.leases.extend(moved);
                all_kept.extend(kept);
            }
        }
        stored?;
        self.untold.clear();
        if !self.known.is_empty() && !self.reads_again()? {
            self.known = KnownLetters::default();
        }
        Ok(all_kept)
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
        shares: Vec<Share>,
        kept: &[String],
        requests: &RequestSpans,
    ) -> Result<Vec<Record>, Stop> {
        let read = async || Ok(self.store.get_all(ANSWERS, kept).await?);
        let before = match kept {
            [] => Vec::new(),
            _ => self.retry.until_done("store", self.source.lost(), read).await?,
        };
        let id = |document: &Value| document["_id"].as_str().unwrap_or_default().to_owned();
        let mut before: BTreeMap<String, Value> =
            before.into_iter().map(|document| (id(&document), document)).collect();
        let documents = shares.into_iter().flat_map(|share| share.documents);
        let records = documents.map(|document| {
            let traceparent = requests.traceparent(document.id());
            let (key, json) = document.into_json();
            let value = before.remove(&key).map_or(json, |document| document.to_string());
            Record { key, value, traceparent }
        });
        Ok(records.collect())
    }

    fn log_batch(&mut self, started: Instant) {
        self.streamed.n_batches += 1;
        let (took, before) =
            (started.elapsed(), std::mem::replace(&mut self.logged, self.streamed));
        let (after, phases) = (self.streamed, std::mem::take(&mut self.phases));
        let ms = |phase| phases.get(phase).map_or(0, Duration::as_millis);
        self.metrics.windows_total.inc();
        self.metrics.window_seconds.observe(took.as_secs_f64());
        tracing::info!(
            messages = after.n_messages - before.n_messages,
            answered = after.n_answered - before.n_answered,
            repeated = after.n_repeated - before.n_repeated,
            dead_letters = after.n_dead_letters - before.n_dead_letters,
            score_ms = ms("score"),
            encode_ms = ms("encode"),
            wait_ms = ms("wait"),
            dead_letters_ms = ms("dead_letters"),
            store_ms = ms("store"),
            count_ms = ms("count"),
            publish_ms = ms("publish"),
            send_ms = ms("send"),
            batch_ms = took.as_millis(),
            "micro-batch"
        );
    }

    /// Notes that a phase took since the clock was started, and starts it again.
    pub(crate) fn lap(&mut self, phase: &'static str, clock: &mut Instant) {
        self.note_phase(phase, clock.elapsed());
        *clock = Instant::now();
    }

    fn note_phase(&mut self, phase: &'static str, took: Duration) {
        self.metrics.phase(phase, took);
        *self.phases.entry(phase).or_default() += took;
    }
}
