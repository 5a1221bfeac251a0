//! From where a partition is read when it is assigned: what the store says, held against the log
//! that is there.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use store::Lease;

use crate::stream::metrics::Metrics;
use crate::stream::request_log::{Found, Inspection, LogMark, Verdict, compare, conflict};

/// What a stream holds of the partitions that were assigned.
#[derive(Debug, Default)]
pub(crate) struct Resumed {
    /// By partition, as they are from now on.
    pub(crate) leases: BTreeMap<i32, Lease>,
    /// Whether the store should know of it before anything is read.
    pub(crate) is_changed: bool,
}

/// Decides for leases that were just made; `held` is what this process held before. Warns of what
/// is read from the beginning, and of what was deleted before it was read.
///
/// Errors when another cluster uses the same store and group.
pub(crate) fn resume(
    stored: BTreeMap<i32, Lease>,
    held: &BTreeMap<i32, Lease>,
    inspection: &Inspection,
    metrics: &Metrics,
) -> Result<Resumed> {
    let mut resumed = Resumed::default();
    for (partition, lease) in stored {
        let found = inspection.found.get(&partition);
        let found = found.with_context(|| format!("{} was not looked at", lease.id))?;
        let mark = LogMark::of(&lease)?;
        let verdict = compare(&lease, mark.as_ref(), &inspection.here, found);
        let (ours, here) = (held.get(&partition), &inspection.here);
        if let Some(why) =
            ours.and_then(|ours| conflict(ours, &lease, mark.as_ref(), here, &verdict))
        {
            bail!(why);
        }
        let next = match verdict {
            Verdict::Same => {
                resumed.is_changed |= mark.is_none() && lease.next > 0;
                skip_deleted(lease, mark, &inspection.here, found, metrics)?
            }
            Verdict::Other(why) => {
                tracing::warn!(
                    log = lease.id,
                    why,
                    from = found.begin,
                    "another log: it is read from its beginning"
                );
                metrics.other_logs_total.inc();
                resumed.is_changed = true;
                let mark = LogMark { read_again_to: found.end, ..inspection.here.clone() };
                let log = Some(mark.to_value()?);
                Lease { next: found.begin, published: found.begin, log, ..lease }
            }
        };
        resumed.leases.insert(partition, next);
    }
    Ok(resumed)
}

/// Goes on in the same log, behind what retention has deleted.
fn skip_deleted(
    lease: Lease,
    mark: Option<LogMark>,
    here: &LogMark,
    found: &Found,
    metrics: &Metrics,
) -> Result<Lease> {
    let n_deleted = found.begin - lease.next;
    // a group that begins has missed nothing
    let is_new = mark.is_none() && lease.next == 0;
    if n_deleted > 0 && !is_new {
        tracing::warn!(
            log = lease.id,
            from = lease.next,
            to = found.begin,
            n_deleted,
            "requests were deleted by Kafka before they were read"
        );
        metrics.deleted_unread_total.inc_by(n_deleted.unsigned_abs());
    }
    // what an earlier version stored is adopted with the record that it ended with
    let mut mark = mark.unwrap_or_else(|| LogMark { last: found.record.clone(), ..here.clone() });
    (mark.cluster, mark.brokers) = (here.cluster.clone(), here.brokers.clone());
    Ok(Lease {
        next: lease.next.max(found.begin),
        published: lease.published.max(found.begin),
        log: Some(mark.to_value()?),
        ..lease
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::request_log::LastRecord;

    fn inspection(begin: i64, end: i64, record: Option<LastRecord>) -> Inspection {
        let here = LogMark { brokers: "here:9092".into(), ..LogMark::default() };
        let found = BTreeMap::from([(0, Found { begin, end, record, ..Found::default() })]);
        Inspection { here, found }
    }

    fn stored(next: i64, published: i64, last: Option<LastRecord>) -> BTreeMap<i32, Lease> {
        let mark = LogMark { brokers: "here:9092".into(), last, ..LogMark::default() };
        let log = Some(mark.to_value().unwrap());
        BTreeMap::from([(0, Lease { id: "g/t/0".into(), epoch: 2, next, published, log })])
    }

    fn record(offset: i64, digest: &str) -> LastRecord {
        LastRecord { offset, timestamp_ms: None, digest: digest.into() }
    }

    #[test]
    fn offsets_of_an_earlier_version_are_adopted_with_the_record_they_end_with() {
        let metrics = Metrics::new().unwrap();
        let mut leases = stored(7, 5, None);
        leases.get_mut(&0).unwrap().log = None;
        let there = inspection(0, 9, Some(record(6, "a")));
        let resumed = resume(leases, &BTreeMap::new(), &there, &metrics).unwrap();
        assert!(resumed.is_changed);
        let lease = &resumed.leases[&0];
        assert_eq!((lease.next, lease.published), (7, 5));
        assert_eq!(LogMark::of(lease).unwrap().unwrap().last, Some(record(6, "a")));
        // once
        let again = resume(resumed.leases, &BTreeMap::new(), &there, &metrics).unwrap();
        assert!(!again.is_changed);
    }

    #[test]
    fn another_log_is_read_from_its_beginning_and_remembers_what_may_be_read_again() {
        let metrics = Metrics::new().unwrap();
        let leases = stored(7, 7, Some(record(6, "a")));
        let there = inspection(2, 9, Some(record(6, "b")));
        let resumed = resume(leases, &BTreeMap::new(), &there, &metrics).unwrap();
        let lease = &resumed.leases[&0];
        assert_eq!((lease.next, lease.published, lease.epoch), (2, 2, 2));
        let mark = LogMark::of(lease).unwrap().unwrap();
        assert_eq!((mark.last, mark.read_again_to), (None, 9));
        assert!(resumed.is_changed);
        assert_eq!(metrics.other_logs_total.get(), 1);
    }

    #[test]
    fn requests_that_were_deleted_unread_are_counted() {
        let metrics = Metrics::new().unwrap();
        let leases = stored(7, 5, Some(record(6, "a")));
        let resumed =
            resume(leases, &BTreeMap::new(), &inspection(10, 12, None), &metrics).unwrap();
        let lease = &resumed.leases[&0];
        assert_eq!((lease.next, lease.published), (10, 10));
        assert_eq!(metrics.deleted_unread_total.get(), 3);
        // what was answered, and only not published, is no request unread
        let leases = stored(10, 5, Some(record(9, "a")));
        resume(leases, &BTreeMap::new(), &inspection(10, 12, None), &metrics).unwrap();
        assert_eq!(metrics.deleted_unread_total.get(), 3);
        // a group that begins
        let mut leases = stored(0, 0, None);
        leases.get_mut(&0).unwrap().log = None;
        let resumed =
            resume(leases, &BTreeMap::new(), &inspection(10, 12, None), &metrics).unwrap();
        assert_eq!((resumed.leases[&0].next, metrics.deleted_unread_total.get()), (10, 3));
    }
}
