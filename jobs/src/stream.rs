//! The streaming job: windows of requests from Kafka, scored, to the store, to the response topic.
//!
//! In this order, so that a crash at any point only repeats work that may be repeated: answers to
//! the store (once per UUID, the first stays), answers to the topic, dead letters to theirs, and
//! then the offsets.

use std::time::Instant;

use anyhow::Result;
use chrono::{DateTime, Utc};
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use events::Answer;
use serde_json::Value;
use std::sync::Arc;
use store::Store;

use crate::kafka::{Sink, Source};
use crate::lake::Lake;
use crate::models::Serving;
use crate::window;

/// What a stream did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Streamed {
    /// Messages read.
    pub n_messages: u64,
    /// Requests scored.
    pub n_scored: u64,
    /// Dead letters written.
    pub n_dead_letters: u64,
    /// Windows that held messages.
    pub n_windows: u64,
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
    mut serving: Serving,
    mut source: Source,
    sink: &Sink,
    store: &Store,
    now: fn() -> DateTime<Utc>,
    shutdown: impl Future<Output = ()>,
) -> Result<Streamed> {
    let mut shutdown = std::pin::pin!(shutdown);
    let mut streamed = Streamed::default();
    loop {
        let window = source.window(&mut shutdown).await?;
        if !window.messages.is_empty() {
            serving.refresh(ctx).await;
            answer(ctx, &source, sink, store, window.messages, now(), &mut streamed).await?;
        }
        if window.is_last {
            return Ok(streamed);
        }
    }
}

async fn answer(
    ctx: &SessionContext,
    source: &Source,
    sink: &Sink,
    store: &Store,
    messages: Vec<window::Message>,
    now: DateTime<Utc>,
    streamed: &mut Streamed,
) -> Result<()> {
    let started = Instant::now();
    let scored = window::score(ctx, messages.clone(), now).await?;
    let score_ms = started.elapsed().as_millis();
    let documents = scored.answers.iter().map(document).collect::<Result<Vec<_>>>()?;
    store.write_once(events::ANSWERS, &documents).await?;
    sink.send_answers(&scored.answers).await?;
    sink.send_dead_letters(&scored.dead_letters).await?;
    source.commit(&messages).await?;

    let n_scored = scored.answers.iter().filter(|a| matches!(a, Answer::Scored(_))).count();
    streamed.n_messages += messages.len() as u64;
    streamed.n_scored += n_scored as u64;
    streamed.n_dead_letters += scored.dead_letters.len() as u64;
    streamed.n_windows += 1;
    for letter in &scored.dead_letters {
        let window::Message { partition, offset, .. } = letter.message;
        tracing::warn!(partition, offset, reason = letter.reason, "dead letter");
    }
    tracing::info!(
        messages = messages.len(),
        scored = n_scored,
        dead_letters = scored.dead_letters.len(),
        repeated = scored.n_repeated,
        score_ms,
        window_ms = started.elapsed().as_millis(),
        "window"
    );
    Ok(())
}

/// The answer as it is stored: under its UUID.
fn document(answer: &Answer) -> Result<Value> {
    let mut document = serde_json::to_value(answer)?;
    document["_id"] = Value::from(answer.uuid().to_string());
    Ok(document)
}
