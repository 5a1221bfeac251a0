//! Where the counters of a pass lie while rows are counted, and how wide they are.

use crate::N_CLASSES;
use crate::train::counters::{Packer, of_word};
use crate::train::pass::{OpenNode, Pass};

/// Where the counters of an open node begin.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    /// Among those of 32 bits.
    Wide(usize),
    /// Among the words of four counters of 16 bits, the lowest of the first class. Only of a node
    /// that is known not to have more rows than a counter can hold: most of a deep tree are, and
    /// half as much memory is twice as near.
    Narrow(usize),
}

/// Whether the counters of a node of these counts are narrow. What its rows weigh was counted where
/// its parent was split; of a root nobody knows it, and it has 0.
pub(crate) fn is_narrow(counts: &[u64; N_CLASSES]) -> bool {
    (1..=u64::from(u16::MAX)).contains(&counts.iter().sum())
}

/// Where all of a pass are.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    /// Of each open node, with the number of its indices over all features.
    places: Vec<(Place, usize)>,
    n_wide: usize,
    n_narrow: usize,
}

/// The counters of one partition. Both are empty until there is something to count.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) wide: Vec<u32>,
    pub(crate) narrow: Vec<u64>,
}

impl Layout {
    /// Adds a node whose counters may become of any size.
    pub(crate) fn add_wide(&mut self, pass: &Pass, node: &OpenNode) -> Place {
        let n_counters = Pass::n_counters(&pass.n_indices, node);
        let place = Place::Wide(self.n_wide);
        self.n_wide += n_counters;
        self.places.push((place, n_counters / N_CLASSES));
        place
    }

    /// Adds a node whose counters may be as narrow as they can be.
    pub(crate) fn add(&mut self, pass: &Pass, node: &OpenNode) -> Place {
        if !is_narrow(&pass.trees[node.tree].nodes[node.node].counts) {
            return self.add_wide(pass, node);
        }
        let n_words = Pass::n_counters(&pass.n_indices, node) / N_CLASSES;
        let place = Place::Narrow(self.n_narrow);
        self.n_narrow += n_words;
        self.places.push((place, n_words));
        place
    }

    /// Where the wide counters of the next node begin.
    pub(crate) fn n_wide(&self) -> usize {
        self.n_wide
    }
}

impl Counters {
    /// Makes room for those of a layout, all 0.
    pub(crate) fn make_room(&mut self, layout: &Layout) {
        // written: the first addition to memory that is merely promised to be zero costs two faults
        // of its page, of which the second stops all threads
        self.wide.resize(layout.n_wide, 0);
        self.narrow.resize(layout.n_narrow, 0);
    }

    /// Packs them in the order of the pass.
    pub(crate) fn pack(&self, layout: &Layout) -> Vec<u8> {
        let mut packer = Packer::default();
        for &(place, n) in &layout.places {
            match place {
                Place::Wide(first) => packer.push(&self.wide[first..][..n * N_CLASSES]),
                Place::Narrow(first) => packer.push_words(&self.narrow[first..][..n]),
            }
        }
        packer.finish()
    }

    /// Empties them into `total`, where they are in the order of the pass.
    pub(crate) fn empty_into(&mut self, total: &mut [u64], layout: &Layout) {
        let (mut total, _) = total.as_chunks_mut::<N_CLASSES>();
        for &(place, n) in &layout.places {
            let (own, rest) = total.split_at_mut(n);
            total = rest;
            match place {
                Place::Wide(first) => {
                    let wide = &mut self.wide[first..][..n * N_CLASSES];
                    for (total, wide) in own.as_flattened_mut().iter_mut().zip(wide) {
                        *total += u64::from(std::mem::take(wide));
                    }
                }
                Place::Narrow(first) => {
                    for (total, word) in own.iter_mut().zip(&mut self.narrow[first..][..n]) {
                        for (total, counter) in total.iter_mut().zip(of_word(std::mem::take(word)))
                        {
                            *total += u64::from(counter);
                        }
                    }
                }
            }
        }
    }

    /// Bytes of them.
    pub(crate) fn size(&self) -> usize {
        size_of_val(&self.wide[..]) + size_of_val(&self.narrow[..])
    }
}
