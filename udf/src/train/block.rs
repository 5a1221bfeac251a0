//! Rows that are counted together, and which of them are in the sample of a tree.

use crate::train::sampling::{TREES_PER_HASH, bootstrap_weight, group_seed, row_hash};

/// Rows that are counted tree by tree before the next ones are looked at: what is known of them
/// stays in the second-level cache while every tree reads it.
pub(crate) const BLOCK_ROWS: usize = 8192;

/// At most [`BLOCK_ROWS`] rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block<'a> {
    /// Key of each row.
    pub(crate) keys: &'a [i64],
    /// Class of each row.
    pub(crate) labels: &'a [u8],
    /// `n_features` indices a row.
    pub(crate) indices: &'a [u16],
    /// Indices of a row.
    pub(crate) n_features: usize,
}

/// Draws the samples of trees from a block.
#[derive(Debug)]
pub(crate) struct Sampler {
    /// A seed for each group of trees that share a hash.
    seeds: Vec<u64>,
    /// The group whose weights are known.
    group: Option<usize>,
    /// The weight of each row in each tree of the group.
    weights: Vec<[u16; TREES_PER_HASH]>,
    drawn: Vec<u16>,
}

/// The sample of a tree.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample<'a> {
    /// Positions of its rows in the block.
    pub(crate) drawn: &'a [u16],
    weights: &'a [[u16; TREES_PER_HASH]],
    lane: usize,
}

impl Sampler {
    pub(crate) fn new(seed: u64, n_trees: usize) -> Self {
        let n_groups = n_trees.div_ceil(TREES_PER_HASH);
        Self {
            seeds: (0..n_groups).map(|group| group_seed(seed, group)).collect(),
            group: None,
            weights: vec![[0; TREES_PER_HASH]; BLOCK_ROWS],
            drawn: vec![0; BLOCK_ROWS],
        }
    }

    /// To be called with each block, before it is sampled.
    pub(crate) fn forget(&mut self) {
        self.group = None;
    }

    /// Draws for a tree; the trees of a group are best asked for one after the other.
    pub(crate) fn sample(&mut self, block: &Block<'_>, tree: usize) -> Sample<'_> {
        let (group, lane) = (tree / TREES_PER_HASH, tree % TREES_PER_HASH);
        let weights = &mut self.weights[..block.keys.len()];
        if self.group.replace(group) != Some(group) {
            let seed = self.seeds[group];
            for (weights, &key) in weights.iter_mut().zip(block.keys) {
                let hash = row_hash(key, seed);
                *weights = std::array::from_fn(|lane| (hash >> (16 * lane)) as u16);
            }
            // a loop of its own, without a branch or a dependence: the compiler vectorises it
            for bits in weights.as_flattened_mut() {
                *bits = bootstrap_weight(*bits);
            }
        }
        let mut n_drawn = 0;
        for (row, weights) in weights.iter().enumerate() {
            self.drawn[n_drawn] = row as u16;
            n_drawn += usize::from(weights[lane] > 0);
        }
        Sample { drawn: &self.drawn[..n_drawn], weights, lane }
    }
}

impl Sample<'_> {
    /// How often a row of the block is in it.
    #[inline]
    pub(crate) fn weight(&self, row: usize) -> u16 {
        self.weights[row][self.lane]
    }
}
