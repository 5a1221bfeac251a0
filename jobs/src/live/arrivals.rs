//! A topic of arrivals → the store. Each message once: documents and how far the topic is read are
//! written together.

use std::collections::BTreeMap;

use anyhow::Result;
use events::{ARRIVAL_REJECTIONS, ARRIVALS, Arrival, STREAM_OFFSETS};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use serde_json::json;
use sha2::{Digest, Sha256};
use store::{Document, Lease, Store};

use crate::stream::kafka::{Properties, is_whole};
use crate::stream::micro_batch::Message;
use crate::stream::request_log::{
    Inspection, Inspector, LastRecord, LogMark, Verdict, compare, moved_to, offset_to_inspect,
};
use crate::stream::topic::TopicReader;

/// What the offsets are kept under, as a group of streams.
const GROUP: &str = "arrivals";
/// Messages that are no arrivals and are told at most.
const BAD_MAX: usize = 3;
/// Bytes of such a message that are kept.
const KEPT_BYTES_MAX: usize = 4 * 1024;

/// What came of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TakenIn {
    /// Messages that were read.
    pub n_messages: u64,
    /// Those that are no arrivals.
    pub n_rejects: u64,
    /// What is wrong with the first of these.
    pub bad: Vec<String>,
    /// Messages that Kafka deleted before they were read.
    pub n_deleted: u64,
    /// Partitions that are not those of the last time, and were read from their beginning; why.
    pub other_logs: Vec<String>,
}

/// Takes what came on the topic since the last time into the store; `None` when there is no such
/// topic. What cannot be read is kept in a collection of its own, with the reason.
///
/// Errors when another job takes arrivals in at the same time: it does the rest.
pub async fn take_in(
    properties: &Properties,
    store: &Store,
    topic: &str,
) -> Result<Option<TakenIn>> {
    let mut reader = match TopicReader::open(properties, topic).await {
        Ok(reader) => reader,
        Err(error) if is_unknown(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let (mut leases, mut wanted) = (BTreeMap::new(), BTreeMap::new());
    for partition in reader.partitions() {
        let lease = store.acquire(STREAM_OFFSETS, &format!("{GROUP}/{topic}/{partition}")).await?;
        wanted.insert(partition, offset_to_inspect(&lease, LogMark::of(&lease)?.as_ref()));
        leases.insert(partition, lease);
    }
    let inspector = Inspector::new(properties, topic, is_whole(properties, topic).await?);
    let Inspection { here, found } = inspector.inspect(wanted, true).await?;
    let mut taken = TakenIn::default();
    for (partition, found) in &found {
        let Some(lease) = leases.get_mut(partition) else { continue };
        match compare(lease, LogMark::of(lease)?.as_ref(), &here, found) {
            Verdict::Same => {
                reader.start_at(*partition, lease.next);
                let has_begun = lease.next > 0;
                let n_deleted = (found.begin - lease.next).max(0).unsigned_abs();
                taken.n_deleted += if has_begun { n_deleted } else { 0 };
            }
            Verdict::Other(why) => taken.other_logs.push(format!("{topic}/{partition}: {why}")),
        }
        lease.log = Some(here.to_value()?);
    }
    loop {
        let messages = reader.read().await?;
        if messages.is_empty() {
            return Ok(Some(taken));
        }
        keep(store, topic, &messages, &mut leases, &mut taken).await?;
    }
}

fn is_unknown(error: &anyhow::Error) -> bool {
    let code = error.downcast_ref::<KafkaError>().and_then(KafkaError::rdkafka_error_code);
    code == Some(RDKafkaErrorCode::UnknownTopicOrPartition)
}

async fn keep(
    store: &Store,
    topic: &str,
    messages: &[Message],
    leases: &mut BTreeMap<i32, Lease>,
    taken: &mut TakenIn,
) -> Result<()> {
    let (mut arrivals, mut rejects, mut touched) =
        (BTreeMap::new(), Vec::new(), BTreeMap::<i32, Lease>::new());
    for message in messages {
        let Message { partition, offset, value, .. } = message;
        let bytes = value.as_deref().unwrap_or_default();
        match Arrival::decode(bytes) {
            Ok(arrival) => {
                let id = id(&arrival, message);
                arrivals.insert(id.clone(), Document::new(id, &arrival)?);
            }
            Err(error) => {
                let place = format!("{topic}/{partition}/{offset}");
                let reason = error.reason();
                let text = String::from_utf8_lossy(&bytes[..bytes.len().min(KEPT_BYTES_MAX)]);
                rejects.push(json!({
                    "_id": format!("{place}/{}", digest(bytes)),
                    "Reason": reason,
                    "Message": text,
                    "Bytes": bytes.len(),
                }));
                if taken.bad.len() < BAD_MAX {
                    taken.bad.push(format!("{place}: {reason}"));
                }
            }
        }
        if let Some(lease) = leases.get_mut(partition) {
            *lease = moved_to(lease, offset + 1, LastRecord::of(message))?;
            lease.published = lease.next;
            touched.insert(*partition, lease.clone());
        }
    }
    taken.n_messages += messages.len() as u64;
    taken.n_rejects += rejects.len() as u64;
    store.upsert(ARRIVAL_REJECTIONS, &rejects).await?;
    let arrivals: Vec<Document> = arrivals.into_values().collect();
    let touched: Vec<Lease> = touched.into_values().collect();
    store.commit(ARRIVALS, &arrivals, STREAM_OFFSETS, &touched).await?;
    Ok(())
}

/// Names what was told of a flight: those of a day stand together, then those of a flight, the last
/// one last.
fn id(arrival: &Arrival, message: &Message) -> String {
    let Message { partition, offset, created_ms, value, .. } = message;
    let created_ms = created_ms.unwrap_or_default().max(0);
    let place = format!("{created_ms:015}/{offset:012}/{partition}");
    // where the topic was made again, another message may be at the same place
    format!("{}{place}/{}", flight(arrival), digest(value.as_deref().unwrap_or_default()))
}

/// What the names of all that was told of a flight begin with.
pub(super) fn flight(arrival: &Arrival) -> String {
    let Arrival { flight_date, carrier, flight_num, origin, dest, .. } = arrival;
    let number = flight_num.trim_start_matches('0');
    format!("{flight_date}/{carrier}/{number}/{origin}/{dest}/")
}

fn digest(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_of_a_flight_stands_together_in_the_order_of_time() {
        let arrival = |number: &str, delay: i32| {
            let text = format!(
                r#"{{"Carrier":"UA","FlightDate":"2013-12-20","Origin":"EWR","Dest":"IAH",
                    "FlightNum":"{number}","ArrDelay":{delay}}}"#
            );
            (Arrival::decode(text.as_bytes()).unwrap(), text)
        };
        let name = |number: &str, delay: i32, created_ms: i64, offset: i64| {
            let (arrival, text) = arrival(number, delay);
            let (created_ms, value) = (Some(created_ms), Some(text.into_bytes()));
            id(&arrival, &Message { offset, created_ms, value, ..Message::default() })
        };
        let early = name("0015", 1, 999, 7);
        let start = "2013-12-20/UA/15/EWR/IAH/000000000000999/000000000007/0/";
        assert!(early.starts_with(start), "{early}");
        assert_eq!(early, name("0015", 1, 999, 7));
        // within a millisecond too
        assert!((8..40).all(|delay| name("15", delay, 999, 10) > early), "{early}");
        let late = name("15", 2, 1_700_000_000_000, 3);
        assert!(early < late && late.starts_with(&flight(&arrival("15", 2).0)), "{late}");
    }
}
