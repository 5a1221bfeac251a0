//! Counting rows into trees of any size: rows are dropped down a tree, put in the order of the
//! nodes where they come to rest, and counted node by node.
//!
//! In that order because of the counters: those of a deep tree are larger than any cache, those of
//! one of its nodes are not. The more rows are counted together, the fewer wait for memory.

use crate::N_CLASSES;
use crate::model::artefact::Tree;
use crate::train::block::{Block, Sample};
use crate::train::layout::{Counters, Place};
use crate::train::pass::{OpenNode, Pass};

/// Rows that are dropped down a tree together: what is known of them stays in the cache.
const ROWS_TOGETHER: usize = 4096;

/// A tree made ready for walking.
#[derive(Debug)]
pub(crate) struct TreeWalk {
    pub(crate) tree: usize,
    n_levels: u32,
    nodes: Vec<WalkNode>,
    /// A bit an index of a node's feature: whether it leads to the right. The first words are 0.
    turns: Vec<u64>,
    /// Per node, which of the open nodes it is, or as many as there are.
    slots: Vec<u16>,
    open: Vec<CountedNode>,
}

/// A node leads to `next`, or to the one behind it; a leaf always leads to itself.
#[derive(Debug, Clone, Copy)]
struct WalkNode {
    feature: u16,
    next: u16,
    /// Where its words of `turns` begin.
    turns: u32,
}

/// An open node.
#[derive(Debug)]
struct CountedNode {
    place: Place,
    /// Features that are counted, each with the number of indices of those before it.
    features: Vec<(u32, u32)>,
}

/// Space to count a block in.
#[derive(Debug, Default)]
pub(crate) struct Fall {
    rows: Vec<FallingRow>,
    /// Positions in the block and weights, in the order of slots.
    by_slot: Vec<(u16, u16)>,
    /// Where the rows of a slot end.
    ends: Vec<usize>,
}

/// A row on its way down a tree.
#[derive(Debug, Clone, Copy)]
struct FallingRow {
    row: u16,
    weight: u16,
    /// The node where it is, then that node's slot.
    at: u16,
}

impl TreeWalk {
    /// The trees of a pass that have some of the nodes `open`, whose counters are at `places`.
    pub(crate) fn of_open(pass: &Pass, open: &[OpenNode], places: &[Place]) -> Vec<Self> {
        let mut walks: Vec<Self> = Vec::new();
        for (open, place) in open.iter().zip(places) {
            if walks.last().is_none_or(|walk| walk.tree != open.tree) {
                walks.push(Self::new(open.tree, &pass.trees[open.tree], &pass.n_indices));
            }
            let walk = walks.last_mut().expect("one was pushed");
            let (mut features, mut n_before) = (Vec::new(), 0);
            for &feature in &open.features {
                features.push((feature as u32, n_before as u32));
                n_before += pass.n_indices[feature];
            }
            walk.slots[open.node] = walk.open.len() as u16;
            walk.open.push(CountedNode { place: *place, features });
        }
        for walk in &mut walks {
            let n_open = walk.open.len() as u16;
            walk.slots.iter_mut().for_each(|slot| *slot = n_open.min(*slot));
        }
        walks
    }

    fn new(tree: usize, grown: &Tree, n_indices: &[usize]) -> Self {
        let n_words = |n_indices: usize| n_indices.div_ceil(u64::BITS as usize);
        let mut nodes = Vec::new();
        let mut turns = vec![0; n_indices.iter().map(|&n| n_words(n)).max().unwrap_or(0)];
        let mut levels = vec![0; grown.nodes.len()];
        for (i, node) in grown.nodes.iter().enumerate() {
            let Some(split) = &node.split else {
                nodes.push(WalkNode { feature: 0, next: i as u16, turns: 0 });
                continue;
            };
            let n_indices = n_indices[split.feature];
            let first = turns.len();
            turns.resize(first + n_words(n_indices), 0);
            for index in (0..n_indices).filter(|&index| !split.goes_left(index as u16)) {
                turns[first + index / 64] |= 1 << (index % 64);
            }
            let (feature, next) = (split.feature as u16, split.left as u16);
            nodes.push(WalkNode { feature, next, turns: first as u32 });
            levels[split.left] = levels[i] + 1;
            levels[split.left + 1] = levels[i] + 1;
        }
        let n_levels = levels.into_iter().max().unwrap_or(0);
        let slots = vec![u16::MAX; nodes.len()];
        Self { tree, n_levels, nodes, turns, slots, open: Vec::new() }
    }

    /// Adds the weights of a sample to the counters of the open nodes that its rows fall to.
    pub(crate) fn count(
        &self,
        block: &Block<'_>,
        sample: Sample<'_>,
        fall: &mut Fall,
        counters: &mut Counters,
    ) {
        fall.rows.clear();
        sample.for_each(|row, weight| {
            fall.rows.push(FallingRow { row: row as u16, weight, at: 0 });
        });
        for rows in fall.rows.chunks_mut(ROWS_TOGETHER) {
            self.drop_rows(block, rows);
        }
        fall.put_in_order(&self.slots, self.open.len());
        let mut begin = 0;
        for (node, &end) in self.open.iter().zip(&fall.ends) {
            node.count(block, &fall.by_slot[begin..end], counters);
            begin = end;
        }
    }

    /// Finds the node of each row. A level at a time for all rows: steps of different rows do not
    /// wait for each other, those of one row do.
    fn drop_rows(&self, block: &Block<'_>, rows: &mut [FallingRow]) {
        for _ in 0..self.n_levels {
            for FallingRow { row, at, .. } in &mut *rows {
                let node = self.nodes[usize::from(*at)];
                let index = usize::from(*row) * block.n_features + usize::from(node.feature);
                let index = block.indices[index];
                let turns = self.turns[node.turns as usize + usize::from(index / 64)];
                *at = node.next + (turns >> (index % 64) & 1) as u16;
            }
        }
    }
}

impl Fall {
    /// Puts the rows in the order of the slots of their nodes, those without one at the end.
    fn put_in_order(&mut self, slots: &[u16], n_open: usize) {
        let Self { rows, by_slot, ends } = self;
        ends.clear();
        ends.resize(n_open + 1, 0);
        for FallingRow { at, .. } in &mut *rows {
            *at = slots[usize::from(*at)];
            ends[usize::from(*at)] += 1;
        }
        // beginnings, each of which becomes an end as the rows go to their places
        let mut begin = 0;
        for end in &mut *ends {
            begin += std::mem::replace(end, begin);
        }
        by_slot.resize(by_slot.len().max(rows.len()), (0, 0));
        for FallingRow { row, weight, at } in rows {
            let end = &mut ends[usize::from(*at)];
            by_slot[*end] = (*row, *weight);
            *end += 1;
        }
    }

    /// Bytes of it.
    pub(crate) fn size(&self) -> usize {
        self.rows.len() * size_of::<FallingRow>()
            + self.by_slot.len() * size_of::<(u16, u16)>()
            + self.ends.len() * size_of::<usize>()
    }
}

impl CountedNode {
    /// Counts rows, given as positions and weights.
    fn count(&self, block: &Block<'_>, rows: &[(u16, u16)], counters: &mut Counters) {
        match self.place {
            Place::Wide(first) => {
                let (wide, _) = counters.wide[first..].as_chunks_mut::<N_CLASSES>();
                self.visit(block, rows, |at, label, weight| {
                    wide[at][usize::from(label) % N_CLASSES] += u32::from(weight);
                });
            }
            Place::Narrow(first) => {
                let narrow = &mut counters.narrow[first..];
                self.visit(block, rows, |at, label, weight| {
                    narrow[at] += u64::from(weight) << (16 * (label % N_CLASSES as u8));
                });
            }
        }
    }

    /// Calls `add` with the position among the node's indices, the class and the weight, for every
    /// feature of every row.
    #[inline]
    fn visit(&self, block: &Block<'_>, rows: &[(u16, u16)], mut add: impl FnMut(usize, u8, u16)) {
        // at once what the compiler knows: the default, and what the original's forest has
        let (fives, rest) = self.features.as_chunks::<5>();
        let (threes, rest) = rest.as_chunks::<3>();
        fives.iter().for_each(|features| visit_features(block, rows, features, &mut add));
        threes.iter().for_each(|features| visit_features(block, rows, features, &mut add));
        let (ones, _) = rest.as_chunks::<1>();
        ones.iter().for_each(|features| visit_features(block, rows, features, &mut add));
    }
}

#[inline]
fn visit_features<const N: usize>(
    block: &Block<'_>,
    rows: &[(u16, u16)],
    features: &[(u32, u32); N],
    add: &mut impl FnMut(usize, u8, u16),
) {
    let features = features.map(|(feature, n_before)| (feature as usize, n_before as usize));
    for &(row, weight) in rows {
        let row = usize::from(row);
        let indices = &block.indices[row * block.n_features..][..block.n_features];
        for (feature, n_before) in features {
            add(n_before + usize::from(indices[feature]), block.labels[row], weight);
        }
    }
}
