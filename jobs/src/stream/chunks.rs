//! A micro-batch in chunks, and what of a chunk is written. A chunk is scored while the one before
//! is stored.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use events::Answer;
use serde_json::Value;
use store::Document;
use tokio::task::JoinHandle;
use tracing::{Instrument, Span};

use crate::deal::deal;
use crate::stream::micro_batch::{DeadLetter, Message, Plan, Rules, ScoredBatch, score};
use crate::stream::request_log::LastRecord;
use crate::stream::sink::{Record, SendError, Sent};
use crate::stream::spans::{RequestSpans, step};

/// Messages whose answers are written together. A larger micro-batch is split: a transaction
/// must end long before MongoDB's limit of 60 s, also on a busy server.
const CHUNK_ROWS: usize = 5_000;
/// Answers of a chunk from which on it is stored in more than one transaction.
const SHARED_ROWS: usize = 500;
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

/// Some partitions of a chunk, whose answers are stored together with their offsets.
pub(crate) struct Share {
    pub partitions: Vec<i32>,
    pub documents: Vec<Document>,
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

/// Documents, each of its partition in `from`, in at most `n_max` shares of about the same size.
/// Each of `partitions` is in one of them, also without documents; none is without partitions.
pub(crate) fn shares(
    documents: Vec<Document>,
    from: &[i32],
    partitions: impl Iterator<Item = i32>,
    n_max: usize,
) -> Result<Vec<Share>> {
    ensure!(documents.len() == from.len(), "an answer without a partition");
    let mut n_documents: BTreeMap<i32, u64> = partitions.map(|partition| (partition, 0)).collect();
    for partition in from {
        *n_documents.entry(*partition).or_default() += 1;
    }
    let n_max = if documents.len() < SHARED_ROWS { 1 } else { n_max };
    let dealt = deal(n_documents, n_max).into_iter();
    let mut shares: Vec<Share> =
        dealt.map(|partitions| Share { partitions, documents: Vec::new() }).collect();
    let places = shares.iter().enumerate();
    let share_of: BTreeMap<i32, usize> = places
        .flat_map(|(place, share)| {
            share.partitions.iter().map(move |&partition| (partition, place))
        })
        .collect();
    for (document, partition) in documents.into_iter().zip(from) {
        shares[share_of[partition]].documents.push(document);
    }
    Ok(shares)
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

/// The micro-batch in chunks of bounded rows and bytes, in the order of each partition. Kafka hands
/// out thousands of messages of one partition after the other, but chunks of a large one have of
/// all alike, so that they can be stored in [shares](Share).
pub(crate) fn chunks(mut messages: Vec<Message>) -> Vec<Vec<Message>> {
    if messages.len() >= SHARED_ROWS {
        messages = mixed(messages);
    }
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

/// Messages in an order in which partitions take turns, by how many each has.
fn mixed(messages: Vec<Message>) -> Vec<Message> {
    // how many there are, and were so far
    let mut of_partition: BTreeMap<i32, (u64, u64)> = BTreeMap::new();
    for message in &messages {
        of_partition.entry(message.partition).or_default().0 += 1;
    }
    let placed = messages.into_iter().map(|message| {
        let (n_messages, n_before) = of_partition.entry(message.partition).or_default();
        *n_before += 1;
        // the share of its partition that ends with it: the last one of each is at the end
        ((*n_before << 32) / *n_messages, message)
    });
    let mut placed: Vec<(u64, Message)> = placed.collect();
    placed.sort_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, message)| message).collect()
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
    fn a_chunk_has_of_all_partitions_alike_each_in_its_order() {
        let sizes = [(0, 8_000_u32), (1, 3_000), (2, 1_000)];
        let messages = sizes.iter().flat_map(|&(partition, n)| {
            (0..n).map(move |i| Message { partition, offset: i.into(), ..Message::default() })
        });
        let found = chunks(messages.collect());
        assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [5_000, 5_000, 2_000]);
        let of = |partition: i32, chunk: &[Message]| -> Vec<i64> {
            let own = chunk.iter().filter(|message| message.partition == partition);
            own.map(|message| message.offset).collect()
        };
        for (partition, n) in sizes {
            let mut all = Vec::new();
            for chunk in &found {
                let own = of(partition, chunk);
                let share = chunk.len() * n as usize / 12_000;
                assert!(own.len().abs_diff(share) <= 1, "{} for {share}", own.len());
                all.extend(own);
            }
            assert_eq!(all, (0..i64::from(n)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn each_partition_is_stored_in_one_share_and_shares_are_of_one_size() {
        let shared = |n: usize, n_max: usize| -> Vec<(Vec<i32>, Vec<usize>)> {
            let partition = |i: usize| [0, 1, 0, 1, 0, 2][i % 6];
            let of: Vec<i32> = (0..n).map(partition).collect();
            let document = |i: usize| Document::new(i.to_string(), &serde_json::json!({})).unwrap();
            let documents = (0..n).map(document).collect();
            let ids = |share: &Share| -> Vec<usize> {
                share.documents.iter().map(|document| document.id().parse().unwrap()).collect()
            };
            let found = shares(documents, &of, [0, 1, 2, 7, 8].into_iter(), n_max).unwrap();
            for share in &found {
                let own = (0..n).filter(|&i| share.partitions.contains(&partition(i)));
                assert_eq!(ids(share), own.collect::<Vec<_>>());
            }
            found.into_iter().map(|share| (share.partitions.clone(), ids(&share))).collect()
        };
        let sizes = |n: usize, n_max: usize| -> Vec<(Vec<i32>, usize)> {
            shared(n, n_max).into_iter().map(|(partitions, ids)| (partitions, ids.len())).collect()
        };
        assert_eq!(sizes(600, 2), [(vec![0, 7], 300), (vec![1, 2, 8], 300)]);
        // no share is without partitions, those without answers are not left out
        let alone = [(vec![0], 300), (vec![1], 200), (vec![2], 100), (vec![7], 0), (vec![8], 0)];
        assert_eq!(sizes(600, 5), alone);
        assert_eq!(sizes(600, 9), alone);
        assert_eq!(sizes(600, 1), [(vec![0, 1, 2, 7, 8], 600)]);
        // few are not worth it
        assert_eq!(sizes(SHARED_ROWS - 1, 2).len(), 1);
        assert_eq!(sizes(0, 2), [(vec![0, 1, 2, 7, 8], 0)]);
        assert!(shares(Vec::new(), &[0], [0].into_iter(), 1).is_err());
    }

    #[test]
    fn a_partition_is_done_up_to_its_last_message() {
        let message = |partition, offset| Message { partition, offset, ..Message::default() };
        let messages = [message(1, 7), message(0, 3), message(1, 9), message(0, 4)];
        assert_eq!(next_offsets(&messages), BTreeMap::from([(0, 5), (1, 10)]));
    }
}
