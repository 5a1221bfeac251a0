//! Counting rows into trees of few leaves: the leaf of a row is found in all of them at once, and
//! the four classes of a counter are counted together, in a word.

use crate::N_CLASSES;
use crate::model::masks::{
    LEAVES_MAX, LeafMasks, ROWS_TOGETHER, Survivors, TREES_PER_GROUP, leaf, leaves,
};
use crate::train::block::{BLOCK_ROWS, Block, Sample};
use crate::train::counters::of_word;
use crate::train::pass::{OpenNode, Pass};

/// Indices of a row, filled up so that rows lie at even places.
const INDICES: usize = 16;
/// Words of a leaf that is not open: it is counted too, where nobody looks and sums wrap, because a
/// row that is counted for nothing costs less than a branch. As many as there can be indices.
const HIDDEN: usize = 1 << 16;
/// Bytes from the leaves of one tree to those of the next: were it a power of two, those of all
/// trees for one row would compete for the same few lines of the cache.
const STRIDE: usize = BLOCK_ROWS + 64;

/// Neighbouring trees of a pass, at most [`TREES_PER_GROUP`].
#[derive(Debug)]
pub(crate) struct SmallTrees {
    first_tree: usize,
    masks: LeafMasks,
    trees: Vec<CountedTree>,
}

/// A tree with open nodes.
#[derive(Debug)]
struct CountedTree {
    tree: usize,
    /// Where its counters begin, and how many words they fill while they are packed.
    first: usize,
    n_words: usize,
    /// For each leaf as many features, with where their words begin.
    counted: Vec<(u8, u32)>,
    n_counted: usize,
}

/// Space to count a block in.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// Of the block as many as there are shifts.
    rows: Vec<[u16; INDICES]>,
    /// How far the counter of a row's class is shifted in its word.
    shifts: Vec<u8>,
    /// The leaf of each row, tree by tree.
    leaves: Vec<[u8; STRIDE]>,
    /// Four counters a word, of one tree; [`HIDDEN`] come before them.
    words: Vec<u64>,
}

impl SmallTrees {
    /// Trees `first_tree`, … of a pass, of which `open` are the open nodes and `first` is where
    /// their counters begin. None when some are too large.
    pub(crate) fn new(
        pass: &Pass,
        first_tree: usize,
        open: &[OpenNode],
        mut first: usize,
    ) -> Option<Self> {
        let n_indices = &pass.n_indices;
        let grown = &pass.trees[first_tree..pass.trees.len().min(first_tree + TREES_PER_GROUP)];
        if n_indices.len() > INDICES {
            return None;
        }
        let masks = LeafMasks::new(grown, n_indices)?;
        let mut trees = Vec::new();
        for open in open.chunk_by(|a, b| a.tree == b.tree) {
            let (tree, n_counted) = (open[0].tree, open[0].features.len());
            let words = |open: &OpenNode| Pass::n_counters(n_indices, open) / N_CLASSES;
            let n_words = open.iter().map(words).sum();
            let leaves = leaves(&pass.trees[tree]);
            let mut counted = vec![(0, 0); LEAVES_MAX * n_counted];
            let mut word = HIDDEN as u32;
            for open in open {
                let leaf = leaves.iter().position(|&node| node == open.node)?;
                for (counted, &feature) in
                    counted[leaf * n_counted..].iter_mut().zip(&open.features)
                {
                    *counted = (feature as u8, word);
                    word += n_indices[feature] as u32;
                }
            }
            trees.push(CountedTree { tree, first, n_words, counted, n_counted });
            first += n_words * N_CLASSES;
        }
        Some(Self { first_tree, masks, trees })
    }

    /// Trees that are counted.
    pub(crate) fn trees(&self) -> impl Iterator<Item = usize> {
        self.trees.iter().map(|counted| counted.tree)
    }

    /// Finds the leaves of the rows that were laid out last. To be called before they are counted.
    pub(crate) fn find_leaves(&self, scratch: &mut Scratch) {
        let n_words = self.trees.iter().map(|tree| tree.n_words).max().unwrap_or(0);
        scratch.words.resize(scratch.words.len().max(HIDDEN + n_words), 0);
        scratch.leaves.resize(TREES_PER_GROUP, [0; STRIDE]);
        let n_trees = self.trees.last().map_or(0, |last| last.tree + 1 - self.first_tree);
        let mut alive: [Survivors; ROWS_TOGETHER] = [[0; _]; _];
        let rows = &scratch.rows[..scratch.shifts.len()];
        for (i, rows) in rows.chunks(ROWS_TOGETHER).enumerate() {
            self.masks.survivors(rows.as_flattened(), INDICES, &mut alive);
            for (t, leaves) in scratch.leaves[..n_trees].iter_mut().enumerate() {
                let leaves = &mut leaves[i * ROWS_TOGETHER..];
                for (found, alive) in leaves.iter_mut().zip(&alive[..rows.len()]) {
                    *found = leaf(alive[t]) as u8;
                }
            }
        }
    }

    /// Adds the weights of a sample of tree number `i` of [`trees`](Self::trees) to its counters.
    pub(crate) fn count(
        &self,
        i: usize,
        sample: Sample<'_>,
        scratch: &mut Scratch,
        counters: &mut [u32],
    ) {
        // a counter of a word holds 65,535, and a row weighs 8 at most
        if sample.n_rows() == BLOCK_ROWS {
            for half in sample.halves() {
                self.count(i, half, scratch, counters);
            }
            return;
        }
        let tree = &self.trees[i];
        let leaves = &scratch.leaves[tree.tree - self.first_tree];
        let (rows, words) = ((&scratch.rows[..], &scratch.shifts[..], leaves), &mut scratch.words);
        match tree.n_counted {
            // what the original's forest has, and the default
            3 => tree.count(sample, rows, tree.of_leaf::<3>(), words),
            5 => tree.count(sample, rows, tree.of_leaf::<5>(), words),
            n => tree.count(sample, rows, |leaf| &tree.counted[leaf * n..][..n], words),
        }
        let (counters, _) = counters[tree.first..].as_chunks_mut::<N_CLASSES>();
        for (counters, word) in counters.iter_mut().zip(&mut words[HIDDEN..][..tree.n_words]) {
            for (counter, recent) in counters.iter_mut().zip(of_word(std::mem::take(word))) {
                *counter += u32::from(recent);
            }
        }
    }
}

/// Indices of each row, shifts, and the leaves in a tree.
type Rows<'a> = (&'a [[u16; INDICES]], &'a [u8], &'a [u8; STRIDE]);

impl CountedTree {
    /// What is counted at a leaf, as many features as the compiler knows.
    fn of_leaf<'a, const N: usize>(&'a self) -> impl Fn(usize) -> &'a [(u8, u32)] {
        let (counted, _) = self.counted.as_chunks::<N>();
        |leaf| &counted[leaf]
    }

    #[inline]
    fn count<'a>(
        &self,
        sample: Sample<'_>,
        (rows, shifts, leaves): Rows<'_>,
        of_leaf: impl Fn(usize) -> &'a [(u8, u32)],
        words: &mut [u64],
    ) {
        sample.for_each(|row, weight| {
            let (indices, add) = (&rows[row], u64::from(weight) << (shifts[row] & 63));
            for (feature, word) in of_leaf(usize::from(leaves[row]) % LEAVES_MAX) {
                let index = indices[usize::from(*feature) % INDICES];
                let word = &mut words[*word as usize + usize::from(index)];
                *word = word.wrapping_add(add);
            }
        });
    }
}

impl Scratch {
    /// Lays out the rows of a block, before leaves are found in any trees.
    pub(crate) fn lay_out(&mut self, block: &Block<'_>) {
        self.shifts.clear();
        self.shifts.extend(block.labels.iter().map(|label| label * 16));
        // never less: what a short block takes away would be written again for the next one
        self.rows.resize(BLOCK_ROWS, [0; INDICES]);
        let rows = block.indices.chunks_exact(block.n_features);
        for (row, indices) in self.rows.iter_mut().zip(rows) {
            row[..block.n_features].copy_from_slice(indices);
        }
    }

    /// Bytes of it.
    pub(crate) fn size(&self) -> usize {
        self.rows.len() * size_of::<[u16; INDICES]>()
            + self.shifts.len()
            + self.leaves.len() * STRIDE
            + self.words.len() * size_of::<u64>()
    }
}
