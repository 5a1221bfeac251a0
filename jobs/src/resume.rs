//! From where a partition is read when it is assigned: what the store says, held against the log
//! that is there.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use store::Claim;

use crate::meters::Meters;
use crate::request_log::{Found, Inspection, LogMark, Verdict, conflict, judge};

/// What a stream holds of the partitions that were assigned.
#[derive(Debug, Default)]
pub(crate) struct Resumed {
    /// By partition, as they are from now on.
    pub(crate) claims: BTreeMap<i32, Claim>,
    /// Whether the store should know of it before anything is read.
    pub(crate) is_changed: bool,
}

/// Decides for claims that were just made; `held` is what this process held before. Warns of what
/// is read from the beginning, and of what was deleted before it was read.
///
/// Errors when another cluster uses the same store and group.
pub(crate) fn resume(
    stored: BTreeMap<i32, Claim>,
    held: &BTreeMap<i32, Claim>,
    inspection: &Inspection,
    meters: &Meters,
) -> Result<Resumed> {
    let mut resumed = Resumed::default();
    for (partition, claim) in stored {
        let found = inspection.found.get(&partition);
        let found = found.with_context(|| format!("{} was not looked at", claim.id))?;
        let mark = LogMark::of(&claim)?;
        let verdict = judge(&claim, mark.as_ref(), &inspection.here, found);
        let (ours, here) = (held.get(&partition), &inspection.here);
        if let Some(why) =
            ours.and_then(|ours| conflict(ours, &claim, mark.as_ref(), here, &verdict))
        {
            bail!(why);
        }
        let next = match verdict {
            Verdict::Same => {
                resumed.is_changed |= mark.is_none() && claim.next > 0;
                skip_deleted(claim, mark, &inspection.here, found, meters)?
            }
            Verdict::Other(why) => {
                tracing::warn!(
                    log = claim.id,
                    why,
                    from = found.begin,
                    "another log: it is read from its beginning"
                );
                meters.other_logs_total.inc();
                resumed.is_changed = true;
                let mark = LogMark { read_again_to: found.end, ..inspection.here.clone() };
                let log = Some(mark.to_value()?);
                Claim { next: found.begin, published: found.begin, log, ..claim }
            }
        };
        resumed.claims.insert(partition, next);
    }
    Ok(resumed)
}

/// Goes on in the same log, behind what retention has deleted.
fn skip_deleted(
    claim: Claim,
    mark: Option<LogMark>,
    here: &LogMark,
    found: &Found,
    meters: &Meters,
) -> Result<Claim> {
    let n_deleted = found.begin - claim.next;
    // a group that begins has missed nothing
    let is_new = mark.is_none() && claim.next == 0;
    if n_deleted > 0 && !is_new {
        tracing::warn!(
            log = claim.id,
            from = claim.next,
            to = found.begin,
            n_deleted,
            "requests were deleted by Kafka before they were read"
        );
        meters.deleted_unread_total.inc_by(n_deleted.unsigned_abs());
    }
    // what an earlier version stored is adopted with the record that it ended with
    let mut mark = mark.unwrap_or_else(|| LogMark { last: found.record.clone(), ..here.clone() });
    (mark.cluster, mark.brokers) = (here.cluster.clone(), here.brokers.clone());
    Ok(Claim {
        next: claim.next.max(found.begin),
        published: claim.published.max(found.begin),
        log: Some(mark.to_value()?),
        ..claim
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request_log::LastRecord;

    fn inspection(begin: i64, end: i64, record: Option<LastRecord>) -> Inspection {
        let here = LogMark { brokers: "here:9092".into(), ..LogMark::default() };
        let found = BTreeMap::from([(0, Found { begin, end, record, ..Found::default() })]);
        Inspection { here, found }
    }

    fn stored(next: i64, published: i64, last: Option<LastRecord>) -> BTreeMap<i32, Claim> {
        let mark = LogMark { brokers: "here:9092".into(), last, ..LogMark::default() };
        let log = Some(mark.to_value().unwrap());
        BTreeMap::from([(0, Claim { id: "g/t/0".into(), epoch: 2, next, published, log })])
    }

    fn record(offset: i64, digest: &str) -> LastRecord {
        LastRecord { offset, timestamp_ms: None, digest: digest.into() }
    }

    #[test]
    fn offsets_of_an_earlier_version_are_adopted_with_the_record_they_end_with() {
        let meters = Meters::new().unwrap();
        let mut claims = stored(7, 5, None);
        claims.get_mut(&0).unwrap().log = None;
        let there = inspection(0, 9, Some(record(6, "a")));
        let resumed = resume(claims, &BTreeMap::new(), &there, &meters).unwrap();
        assert!(resumed.is_changed);
        let claim = &resumed.claims[&0];
        assert_eq!((claim.next, claim.published), (7, 5));
        assert_eq!(LogMark::of(claim).unwrap().unwrap().last, Some(record(6, "a")));
        // once
        let again = resume(resumed.claims, &BTreeMap::new(), &there, &meters).unwrap();
        assert!(!again.is_changed);
    }

    #[test]
    fn another_log_is_read_from_its_beginning_and_remembers_what_may_be_read_again() {
        let meters = Meters::new().unwrap();
        let claims = stored(7, 7, Some(record(6, "a")));
        let there = inspection(2, 9, Some(record(6, "b")));
        let resumed = resume(claims, &BTreeMap::new(), &there, &meters).unwrap();
        let claim = &resumed.claims[&0];
        assert_eq!((claim.next, claim.published, claim.epoch), (2, 2, 2));
        let mark = LogMark::of(claim).unwrap().unwrap();
        assert_eq!((mark.last, mark.read_again_to), (None, 9));
        assert!(resumed.is_changed);
        assert_eq!(meters.other_logs_total.get(), 1);
    }

    #[test]
    fn requests_that_were_deleted_unread_are_counted() {
        let meters = Meters::new().unwrap();
        let claims = stored(7, 5, Some(record(6, "a")));
        let resumed = resume(claims, &BTreeMap::new(), &inspection(10, 12, None), &meters).unwrap();
        let claim = &resumed.claims[&0];
        assert_eq!((claim.next, claim.published), (10, 10));
        assert_eq!(meters.deleted_unread_total.get(), 3);
        // what was answered, and only not published, is no request unread
        let claims = stored(10, 5, Some(record(9, "a")));
        resume(claims, &BTreeMap::new(), &inspection(10, 12, None), &meters).unwrap();
        assert_eq!(meters.deleted_unread_total.get(), 3);
        // a group that begins
        let mut claims = stored(0, 0, None);
        claims.get_mut(&0).unwrap().log = None;
        let resumed = resume(claims, &BTreeMap::new(), &inspection(10, 12, None), &meters).unwrap();
        assert_eq!((resumed.claims[&0].next, meters.deleted_unread_total.get()), (10, 3));
    }
}
