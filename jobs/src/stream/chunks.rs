//! A micro-batch in chunks that fit a transaction, and what of a chunk is written.

use std::collections::BTreeMap;

use anyhow::Result;
use events::Answer;
use serde_json::Value;

use crate::stream::micro_batch::{DeadLetter, Message, ScoredBatch};
use crate::stream::request_log::LastRecord;

/// Messages whose answers are written together. A larger micro-batch is split: a transaction
/// must end long before MongoDB's limit of 60 s, also on a busy server.
const CHUNK_ROWS: usize = 5_000;
/// Bytes of messages whose answers are written together: an answer repeats what its request said.
const CHUNK_BYTES: usize = 8 * 1024 * 1024;

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

/// For each partition, the offset after the last message.
pub(crate) fn next_offsets(messages: &[Message]) -> BTreeMap<i32, i64> {
    messages.iter().map(|message| (message.partition, message.offset + 1)).collect()
}

/// For each partition, the last message.
pub(crate) fn last_records(messages: &[Message]) -> BTreeMap<i32, LastRecord> {
    let last: BTreeMap<i32, &Message> = messages.iter().map(|m| (m.partition, m)).collect();
    last.into_iter().map(|(partition, message)| (partition, LastRecord::of(message))).collect()
}

/// When Kafka got each message.
pub(crate) fn created_ms(messages: &[Message]) -> Vec<i64> {
    messages.iter().filter_map(|message| message.created_ms).collect()
}

/// The answers as they are stored.
pub(crate) fn documents(scored: &ScoredBatch) -> Result<Vec<Value>> {
    scored.answers.iter().map(document).collect()
}

/// Why messages were rejected, as documents for those who sent them.
pub(crate) fn rejections(letters: &[DeadLetter]) -> Result<Vec<Value>> {
    letters.iter().filter_map(DeadLetter::rejection).map(|answer| document(&answer)).collect()
}

/// The answer as it is stored: under its UUID.
fn document(answer: &Answer) -> Result<Value> {
    let mut document = serde_json::to_value(answer)?;
    document["_id"] = Value::from(answer.uuid().to_string());
    Ok(document)
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
