//! A micro-batch in chunks that fit a transaction, and what of a chunk is written. A chunk is
//! scored while the one before is stored.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use events::Answer;
use serde_json::Value;
use store::Document;
use tokio::task::JoinHandle;
use tracing::{Instrument, Span};

use crate::stream::micro_batch::{DeadLetter, Message, Plan, Rules, ScoredBatch, score};
use crate::stream::request_log::LastRecord;
use crate::stream::sink::{Record, SendError, Sent};
use crate::stream::spans::{RequestSpans, step};

/// Messages whose answers are written together. A larger micro-batch is split: a transaction
/// must end long before MongoDB's limit of 60 s, also on a busy server.
const CHUNK_ROWS: usize = 5_000;
/// Bytes of messages whose answers are written together: an answer repeats what its request said.
const CHUNK_BYTES: usize = 8 * 1024 * 1024;

/// A chunk that is being scored, until it is dropped.
pub(crate) struct Chunk {
    scoring: Scoring,
    about: About,
}

/// A task that ends when nobody waits for it any more.
struct Scoring(JoinHandle<Result<ScoredChunk>>);

impl Drop for Scoring {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What is known of a chunk's messages beside their answers.
pub(crate) struct About {
    pub n_messages: u64,
    /// For each partition, the offset after the last message.
    pub next: BTreeMap<i32, i64>,
    /// For each partition, the last message.
    pub last: BTreeMap<i32, LastRecord>,
    /// When Kafka got each message, in milliseconds since 1970.
    pub created_ms: Vec<i64>,
    /// What traces show of the requests.
    pub requests: RequestSpans,
    /// And of the micro-batch.
    pub micro_batch: Span,
    /// When the micro-batch was begun, if this is the last chunk of it.
    pub is_last_since: Option<Instant>,
}

/// What became of a chunk, ready to be written.
pub(crate) struct ScoredChunk {
    pub batch: ScoredBatch,
    /// The answers as they are stored: under their UUIDs.
    pub documents: Vec<Document>,
    /// Why messages were rejected, as documents for those who sent them.
    pub rejections: Vec<Value>,
    /// How long reading and scoring took.
    pub score: Duration,
    /// How long making documents took.
    pub encode: Duration,
}

impl About {
    /// Of messages of `topic`, in the micro-batch that this is called in.
    pub(crate) fn new(messages: &[Message], topic: &str, is_last_since: Option<Instant>) -> Self {
        Self {
            n_messages: messages.len() as u64,
            next: next_offsets(messages),
            last: last_records(messages),
            created_ms: messages.iter().filter_map(|message| message.created_ms).collect(),
            requests: RequestSpans::begin(messages, topic),
            micro_batch: Span::current(),
            is_last_since,
        }
    }
}

impl Chunk {
    /// Begins to score messages, on another thread.
    pub(crate) fn begin(
        plan: &Arc<Plan>,
        messages: Vec<Message>,
        rules: Rules,
        about: About,
    ) -> Self {
        let plan = Arc::clone(plan);
        let scoring = async move { score_chunk(&plan, messages, rules).await };
        let scoring = tokio::spawn(scoring.instrument(step("score")));
        Self { scoring: Scoring(scoring), about }
    }

    /// Waits until it is scored.
    pub(crate) async fn scored(mut self) -> Result<(ScoredChunk, About)> {
        Ok(((&mut self.scoring.0).await??, self.about))
    }
}

async fn score_chunk(plan: &Plan, messages: Vec<Message>, rules: Rules) -> Result<ScoredChunk> {
    let started = Instant::now();
    let batch = score(plan, messages, rules).await?;
    let score = started.elapsed();
    let document = |answer: &Answer| Document::new(answer.uuid().to_string(), answer);
    let documents = batch.answers.iter().map(document).collect::<Result<_>>()?;
    let rejections = rejections(&batch.dead_letters)?;
    let encode = started.elapsed() - score;
    Ok(ScoredChunk { batch, documents, rejections, score, encode })
}

/// Answers on their way to the topic; the store has them.
pub(crate) struct InFlight {
    pub records: Vec<Record>,
    pub sent: Result<Sent, SendError>,
    /// Where their messages end.
    pub next: BTreeMap<i32, i64>,
    /// What traces show of this step, and of the requests.
    pub step: Span,
    pub requests: RequestSpans,
    /// When the micro-batch was begun, if this is the last chunk of it.
    pub is_last_since: Option<Instant>,
}

/// The micro-batch in chunks of bounded rows and bytes, in order.
pub(crate) fn chunks(messages: Vec<Message>) -> Vec<Vec<Message>> {
    let mut chunks = Vec::new();
    let (mut chunk, mut n_bytes) = (Vec::new(), 0);
    for message in messages {
        n_bytes += message.n_bytes();
        chunk.push(message);
        if chunk.len() == CHUNK_ROWS || n_bytes >= CHUNK_BYTES {
            chunks.push(std::mem::take(&mut chunk));
            n_bytes = 0;
        }
    }
    if !chunk.is_empty() {
        chunks.push(chunk);
    }
    chunks
}

fn next_offsets(messages: &[Message]) -> BTreeMap<i32, i64> {
    messages.iter().map(|message| (message.partition, message.offset + 1)).collect()
}

fn last_records(messages: &[Message]) -> BTreeMap<i32, LastRecord> {
    let last: BTreeMap<i32, &Message> = messages.iter().map(|m| (m.partition, m)).collect();
    last.into_iter().map(|(partition, message)| (partition, LastRecord::of(message))).collect()
}

fn rejections(letters: &[DeadLetter]) -> Result<Vec<Value>> {
    let document = |answer: Answer| {
        let mut document = serde_json::to_value(&answer)?;
        document["_id"] = Value::from(answer.uuid().to_string());
        Ok(document)
    };
    letters.iter().filter_map(DeadLetter::rejection).map(document).collect()
}

/// Whether it says that the request was too old.
pub(crate) fn is_expired(answer: &Answer) -> bool {
    matches!(answer, Answer::Expired(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_bounded_in_order_and_leave_nothing_out() {
        let message = |offset: usize, n_bytes: usize| Message {
            offset: offset as i64,
            value: Some(vec![0; n_bytes]),
            ..Message::default()
        };
        let many: Vec<Message> = (0..2 * CHUNK_ROWS + 1).map(|i| message(i, 1)).collect();
        let sizes = |messages: &[Message]| -> Vec<usize> {
            let found = chunks(messages.to_vec());
            assert_eq!(found.concat(), messages);
            found.iter().map(Vec::len).collect()
        };
        assert_eq!(sizes(&many), [CHUNK_ROWS, CHUNK_ROWS, 1]);
        assert_eq!(sizes(&many[..CHUNK_ROWS]), [CHUNK_ROWS]);
        let large: Vec<Message> = (0..5).map(|i| message(i, CHUNK_BYTES / 2)).collect();
        assert_eq!(sizes(&large), [2, 2, 1]);
        assert!(chunks(Vec::new()).is_empty());
    }

    #[test]
    fn a_partition_is_done_up_to_its_last_message() {
        let message = |partition, offset| Message { partition, offset, ..Message::default() };
        let messages = [message(1, 7), message(0, 3), message(1, 9), message(0, 4)];
        assert_eq!(next_offsets(&messages), BTreeMap::from([(0, 5), (1, 10)]));
    }
}
