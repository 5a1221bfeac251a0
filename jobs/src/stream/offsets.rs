//! How far a stream is, as an operator sees and sets it.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use chrono::{DateTime, NaiveDate, Utc};
use events::{ANSWERS, STREAM_OFFSETS};
use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};
use store::{Lease, Store, WriteError};

use crate::stream::kafka::{BROKER_WAIT, FETCH_BYTES_MAX, Properties, is_whole, reader};
use crate::stream::poll::partitions;
use crate::stream::request_log::{
    Found, Inspection, Inspector, LogMark, Verdict, compare, offset_to_inspect,
};

/// How often leases that a stream acquires meanwhile are acquired back before that is an error.
const ATTEMPTS_MAX: u32 = 10;

/// Where a stream is to read on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The first request that is there.
    Earliest,
    /// After the last request that is there.
    Latest,
    /// The first request that Kafka got at this time or later.
    Time(DateTime<Utc>),
    /// This offset.
    Offset(i64),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => return Ok(Self::Earliest),
            "latest" => return Ok(Self::Latest),
            _ => {}
        }
        if let Ok(offset) = text.parse::<i64>() {
            return match offset {
                0.. => Ok(Self::Offset(offset)),
                _ => Err(format!("{text}: an offset is not negative")),
            };
        }
        let day = text.parse::<NaiveDate>().ok().and_then(|day| day.and_hms_opt(0, 0, 0));
        let time = DateTime::parse_from_rfc3339(text).map(|time| time.to_utc());
        time.ok().or(day.map(|day| day.and_utc())).map(Self::Time).ok_or_else(|| {
            format!(
                "{text:?} is not earliest, latest, an offset, or a time such as 2026-11-27 or \
                 2026-11-27T10:00:00Z"
            )
        })
    }
}

/// How far the stream is in one partition.
#[derive(Debug, Clone)]
pub struct PartitionOffsets {
    /// The partition of the request topic.
    pub partition: i32,
    /// What the store says; none when the group never read the partition.
    pub stored: Option<Lease>,
    /// What there is of the partition.
    pub found: Found,
    /// Whether what is stored is of the log that is there.
    pub verdict: Verdict,
}

fn id_of(group: &str, topic: &str, partition: i32) -> String {
    format!("{group}/{topic}/{partition}")
}

/// How far `group` is in all partitions of `topic`. Changes nothing.
pub async fn show(
    properties: &Properties,
    store: &Store,
    group: &str,
    topic: &str,
) -> Result<Vec<PartitionOffsets>> {
    let mut stored = BTreeMap::new();
    let mut wanted = BTreeMap::new();
    for partition in partitions_of(properties, topic).await? {
        let document = store.get(STREAM_OFFSETS, &id_of(group, topic, partition)).await?;
        let lease = document.as_ref().map(Lease::of).transpose()?;
        let mark = lease.as_ref().map(LogMark::of).transpose()?.flatten();
        let offset = lease.as_ref().and_then(|lease| offset_to_inspect(lease, mark.as_ref()));
        wanted.insert(partition, offset);
        stored.insert(partition, lease.map(|lease| (lease, mark)));
    }
    let inspector = Inspector::new(properties, topic, is_whole(properties, topic).await?);
    let Inspection { here, found } = inspector.inspect(wanted, true).await?;
    let shown = found.into_iter().map(|(partition, found)| {
        let stored = stored.remove(&partition).flatten();
        let verdict = match &stored {
            Some((lease, mark)) => compare(lease, mark.as_ref(), &here, &found),
            None => Verdict::Same,
        };
        PartitionOffsets { partition, stored: stored.map(|(lease, _)| lease), found, verdict }
    });
    Ok(shown.collect())
}

/// Lets `group` read on from `target`, in one partition or in all; returns the offsets from before
/// and from now on. A stream that runs is fenced, and goes on from there. Requests that were
/// answered keep their answers.
pub async fn reset(
    properties: &Properties,
    store: &Store,
    group: &str,
    topic: &str,
    partition: Option<i32>,
    target: &Target,
) -> Result<Vec<(i32, i64, i64)>> {
    let all = partitions_of(properties, topic).await?;
    let chosen = match partition {
        Some(partition) => {
            ensure!(all.contains(&partition), "{topic} has no partition {partition}");
            vec![partition]
        }
        None => all,
    };
    let offsets = resolve(properties, topic, &chosen, target).await?;
    let before = offsets.iter().map(|(partition, offset)| (*partition, offset.checked_sub(1)));
    let inspector = Inspector::new(properties, topic, is_whole(properties, topic).await?);
    let inspection = inspector.inspect(before.collect(), true).await?;
    for (partition, offset) in &offsets {
        let found = inspection.found.get(partition);
        let found = found.context("a partition that was not looked at")?;
        ensure!(
            (found.begin..=found.end).contains(offset),
            "{topic}/{partition} has the offsets {} to {}, not {offset}",
            found.begin,
            found.end
        );
    }
    let mut n_attempts = 0;
    loop {
        match acquire_and_move(store, group, topic, &offsets, &inspection).await {
            // a stream that runs, and has something to do, may acquire one between two of ours
            Err(WriteError::Fenced(_)) if n_attempts < ATTEMPTS_MAX => n_attempts += 1,
            moved => return Ok(moved?),
        }
    }
}

/// Acquires partitions, and moves them to these offsets; returns the offsets from before and after.
async fn acquire_and_move(
    store: &Store,
    group: &str,
    topic: &str,
    offsets: &BTreeMap<i32, i64>,
    inspection: &Inspection,
) -> Result<Vec<(i32, i64, i64)>, WriteError> {
    let Inspection { here, found } = inspection;
    let (mut moved, mut leases) = (Vec::new(), Vec::new());
    for (partition, offset) in offsets {
        let (partition, offset) = (*partition, *offset);
        let found = found.get(&partition).context("a partition that was not looked at")?;
        let lease = store.acquire(STREAM_OFFSETS, &id_of(group, topic, partition)).await?;
        let before = LogMark::of(&lease)?.map_or(0, |mark| mark.read_again_to);
        // what is read again may have left dead letters behind
        let read_again_to = before.max(lease.next.min(found.end));
        let read_again_to = if offset < read_again_to { read_again_to } else { 0 };
        let mark = LogMark { last: found.record.clone(), read_again_to, ..here.clone() };
        moved.push((partition, lease.next, offset));
        let log = Some(mark.to_value()?);
        leases.push(Lease { next: offset, published: offset, log, ..lease });
    }
    store.commit(ANSWERS, &[], STREAM_OFFSETS, &leases).await?;
    Ok(moved)
}

async fn partitions_of(properties: &Properties, topic: &str) -> Result<Vec<i32>> {
    let (properties, topic) = (properties.to_vec(), topic.to_owned());
    let ask = move || {
        let reader = reader(&properties, FETCH_BYTES_MAX)?;
        partitions(&reader, reader.context(), &topic)
    };
    tokio::task::spawn_blocking(ask).await?
}

/// The offsets that a target means.
async fn resolve(
    properties: &Properties,
    topic: &str,
    partitions: &[i32],
    target: &Target,
) -> Result<BTreeMap<i32, i64>> {
    let (properties, topic, target) = (properties.to_vec(), topic.to_owned(), target.clone());
    let partitions = partitions.to_vec();
    let resolve = move || -> Result<BTreeMap<i32, i64>> {
        let reader = reader(&properties, FETCH_BYTES_MAX)?;
        let mut offsets = BTreeMap::new();
        for partition in partitions {
            let watermarks = reader.fetch_watermarks(&topic, partition, BROKER_WAIT);
            let (begin, end) = watermarks.map_err(|error| {
                _ = reader.poll(Duration::ZERO);
                anyhow!(reader.context().explain(error))
            })?;
            let offset = match &target {
                Target::Earliest => begin,
                Target::Latest => end,
                Target::Offset(offset) => *offset,
                Target::Time(time) => {
                    let mut list = TopicPartitionList::new();
                    let time = Offset::Offset(time.timestamp_millis());
                    list.add_partition_offset(&topic, partition, time)?;
                    let found = reader.offsets_for_times(list, BROKER_WAIT)?;
                    match found.elements().first().map(|element| element.offset()) {
                        Some(Offset::Offset(offset)) => offset,
                        // nothing is as late as that
                        _ => end,
                    }
                }
            };
            offsets.insert(partition, offset);
        }
        Ok(offsets)
    };
    tokio::task::spawn_blocking(resolve).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_and_others_are_explained() {
        assert_eq!("earliest".parse(), Ok(Target::Earliest));
        assert_eq!("17".parse(), Ok(Target::Offset(17)));
        let midnight = DateTime::parse_from_rfc3339("2026-11-27T00:00:00Z").unwrap().to_utc();
        assert_eq!("2026-11-27".parse(), Ok(Target::Time(midnight)));
        assert_eq!("2026-11-27T01:00:00+01:00".parse(), Ok(Target::Time(midnight)));
        for bad in ["", "-1", "first", "2026-13-01", "10:00"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }
}
