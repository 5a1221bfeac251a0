//! Partitions that librdkafka has stopped fetching although there is something to read.
//!
//! It keeps the leader epoch that it knows of a partition, and takes no lower one. A topic that is
//! made again begins with a low one, and where the deletion was not seen, because the process was
//! suspended or cut off, each fetch is refused for ever without a word. Only a new client, which
//! knows nothing, gets out of it.

use std::collections::BTreeMap;

/// How far partitions are fetched, and how often they were found to stand still.
#[derive(Default)]
pub(crate) struct Stall {
    fetched: BTreeMap<i32, Fetched>,
    /// The offset at which each partition was found to stand still, and how often.
    still: BTreeMap<i32, (i64, u32)>,
}

/// What librdkafka says of a partition.
struct Fetched {
    next: i64,
    /// Whether what it has fetched waits to be taken, which keeps it from fetching more.
    is_waiting: bool,
}

impl Stall {
    /// The partition is fetched at `next` next.
    pub(crate) fn note_fetched(&mut self, partition: i32, next: i64, is_waiting: bool) {
        self.fetched.insert(partition, Fetched { next, is_waiting });
    }

    /// How many looks in a row have found the partition, which is read at `read` next and ends at
    /// `end`, where it was although nothing keeps it from being fetched.
    pub(crate) fn look(&mut self, partition: i32, read: i64, end: i64, is_paused: bool) -> u32 {
        let Some(Fetched { next, is_waiting }) = self.fetched.get(&partition) else { return 0 };
        // before the first fetch it is less than any offset
        let at = read.max(*next);
        if at >= end {
            self.still.remove(&partition);
            return 0;
        }
        let (before, n_looks) = self.still.entry(partition).or_insert((i64::MIN, 0));
        if *before != at {
            (*before, *n_looks) = (at, 0);
        } else if !is_paused && !is_waiting {
            *n_looks += 1;
        }
        *n_looks
    }

    pub(crate) fn forget(&mut self) {
        self.fetched.clear();
        self.still.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_still_although_it_could_be_fetched_is_counted() {
        let mut stall = Stall::default();
        assert_eq!(stall.look(0, 5, 9, false), 0, "nothing is known of it");
        // a fetch that has not begun has no offset
        stall.note_fetched(0, -1001, false);
        let looks: Vec<u32> = (0..4).map(|_| stall.look(0, 5, 9, false)).collect();
        assert_eq!(looks, [0, 1, 2, 3]);
        // neither its own queue nor ours may be the reason
        assert_eq!(stall.look(0, 5, 9, true), 3);
        stall.note_fetched(0, -1001, true);
        assert_eq!(stall.look(0, 5, 9, false), 3);
        // marks of transactions are no messages, but they are fetched
        stall.note_fetched(0, 7, false);
        assert_eq!(stall.look(0, 5, 9, false), 0);
        assert_eq!(stall.look(0, 5, 10, false), 1);
        // the end, where it may be for long
        stall.note_fetched(0, 10, false);
        assert_eq!(stall.look(0, 5, 10, false), 0);
        assert_eq!(stall.look(0, 5, 11, false), 0, "something has just come");
        assert_eq!(stall.look(0, 5, 11, false), 1);
        stall.forget();
        assert_eq!(stall.look(0, 5, 11, false), 0);
    }
}
