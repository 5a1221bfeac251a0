//! The questions that this process has sent lately, so that a page can say of an id whether
//! somebody asked.

use std::collections::{HashSet, VecDeque};

use parking_lot::Mutex;
use uuid::Uuid;

/// Questions that are remembered; then the oldest is forgotten.
const REMEMBERED: usize = 10_000;

/// Ids of questions, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<(VecDeque<Uuid>, HashSet<Uuid>)>);

impl Recent {
    pub(crate) fn add(&self, id: Uuid) {
        let (order, known) = &mut *self.0.lock();
        if order.len() >= REMEMBERED
            && let Some(oldest) = order.pop_front()
        {
            known.remove(&oldest);
        }
        order.push_back(id);
        known.insert(id);
    }

    pub(crate) fn knows(&self, id: Uuid) -> bool {
        self.0.lock().1.contains(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_known_and_the_oldest_forgotten() {
        let recent = Recent::default();
        let id = |i: usize| Uuid::from_u128(i as u128);
        (0..=REMEMBERED).for_each(|i| recent.add(id(i)));
        assert!(!recent.knows(id(0)) && recent.knows(id(1)) && recent.knows(id(REMEMBERED)));
        assert_eq!(recent.0.lock().1.len(), REMEMBERED);
    }
}
