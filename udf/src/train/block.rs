//! Rows that are counted together, and which of them are in the sample of a tree.

use std::ops::Range;

use crate::train::sampling::{TREES_PER_HASH, bootstrap_weight, group_seed, row_hash};

/// Rows that are counted tree by tree before the next ones are looked at: what is known of them
/// stays in the second-level cache while every tree reads it.
pub(crate) const BLOCK_ROWS: usize = 8192;
/// The same for large trees: the more rows, the more of them meet in a node. A position among them
/// has 16 bits.
pub(crate) const LARGE_BLOCK_ROWS: usize = 7 * BLOCK_ROWS;
/// Rows of a run at most, so that those of a whole block can be split.
const RUN_ROWS: usize = BLOCK_ROWS / 2;
/// Rows of a run on average, from which on it is worth to look at runs and not at rows.
const RUN_ROWS_MIN: usize = 16;
/// Largest difference of keys that are put in order. Days of a year are nearer.
const SPREAD_MAX: u64 = 1_023;

/// At most [`LARGE_BLOCK_ROWS`] rows.
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

/// Rows of several batches, to be counted as one block.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    keys: Vec<i64>,
    labels: Vec<u8>,
    indices: Vec<u16>,
}

impl Rows {
    /// Number of them.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Adds rows.
    pub(crate) fn push(&mut self, block: &Block<'_>) {
        self.keys.extend_from_slice(block.keys);
        self.labels.extend_from_slice(block.labels);
        self.indices.extend_from_slice(block.indices);
    }

    /// All of them.
    pub(crate) fn block(&self, n_features: usize) -> Block<'_> {
        let Self { keys, labels, indices } = self;
        Block { keys, labels, indices, n_features }
    }

    /// Takes all away.
    pub(crate) fn clear(&mut self) {
        self.keys.clear();
        self.labels.clear();
        self.indices.clear();
    }

    /// Bytes of them.
    pub(crate) fn size(&self) -> usize {
        let of_row = self.keys.capacity() * size_of::<i64>() + self.labels.capacity();
        of_row + self.indices.capacity() * size_of::<u16>()
    }
}

/// Rows one after the other that have the same key, and with it the same weight in each tree.
#[derive(Debug, Clone)]
struct Run {
    key: i64,
    rows: Range<u16>,
}

/// Space to put the rows of a block in the order of their keys.
#[derive(Debug, Default)]
pub(crate) struct Ordered {
    rows: Rows,
    /// Where the next row of a key goes.
    next: Vec<u16>,
}

impl Ordered {
    /// The rows of a block in the order of their keys, where those are near each other, as days
    /// are: counters do not depend on the order, and runs are sampled in less time than rows.
    pub(crate) fn of<'a>(&'a mut self, block: Block<'a>) -> Block<'a> {
        let Block { keys, labels, indices, n_features } = block;
        let (Some(min), Some(max)) = (keys.iter().min(), keys.iter().max()) else { return block };
        let spread = max.abs_diff(*min);
        if spread > SPREAD_MAX || keys.is_sorted() {
            return block;
        }
        self.next.clear();
        self.next.resize(spread as usize + 1, 0);
        let of_key = |key: i64| key.abs_diff(*min) as usize;
        keys.iter().for_each(|key| self.next[of_key(*key)] += 1);
        let mut first = 0;
        for next in &mut self.next {
            first += std::mem::replace(next, first);
        }
        let rows = &mut self.rows;
        rows.keys.resize(keys.len(), 0);
        rows.labels.resize(keys.len(), 0);
        rows.indices.resize(indices.len(), 0);
        for ((key, label), row) in keys.iter().zip(labels).zip(indices.chunks_exact(n_features)) {
            let next = &mut self.next[of_key(*key)];
            let to = usize::from(*next);
            *next += 1;
            (rows.keys[to], rows.labels[to]) = (*key, *label);
            rows.indices[to * n_features..][..n_features].copy_from_slice(row);
        }
        rows.block(n_features)
    }

    /// Bytes of it.
    pub(crate) fn size(&self) -> usize {
        self.next.len() * size_of::<u16>() + self.rows.size()
    }
}

/// Draws the samples of trees from a block.
#[derive(Debug)]
pub(crate) struct Sampler {
    /// A seed for each group of trees that share a hash.
    seeds: Vec<u64>,
    /// Those of the block, if they are long.
    runs: Vec<Run>,
    /// Those of them that are in the sample of a tree, with their weight.
    drawn_runs: Vec<(Range<u16>, u16)>,
    /// The group for which the weights of rows are known.
    group: Option<usize>,
    /// The weight of each row in each tree of the group.
    weights: Vec<[u16; TREES_PER_HASH]>,
    /// The rows that are in the sample of a tree.
    drawn: Vec<u16>,
}

/// The sample of a tree.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sample<'a> {
    /// Runs of rows, each of a weight.
    Runs(&'a [(Range<u16>, u16)]),
    /// Some rows; weights of all.
    Rows {
        /// Positions in the block.
        drawn: &'a [u16],
        /// Of which `lane` is that of the tree.
        weights: &'a [[u16; TREES_PER_HASH]],
        /// Position of the tree in its group.
        lane: usize,
    },
}

impl Sampler {
    pub(crate) fn new(seed: u64, n_trees: usize) -> Self {
        let n_groups = n_trees.div_ceil(TREES_PER_HASH);
        Self {
            seeds: (0..n_groups).map(|group| group_seed(seed, group)).collect(),
            runs: Vec::new(),
            drawn_runs: Vec::new(),
            group: None,
            weights: Vec::new(),
            drawn: Vec::new(),
        }
    }

    /// Looks at a block before it is sampled.
    pub(crate) fn look_at(&mut self, block: &Block<'_>) {
        self.group = None;
        self.runs.clear();
        let n_rows = self.drawn.len().max(block.keys.len());
        self.weights.resize(n_rows, [0; TREES_PER_HASH]);
        self.drawn.resize(n_rows, 0);
        let mut end = 0;
        for run in block.keys.chunk_by(|a, b| a == b) {
            for rows in run.chunks(RUN_ROWS) {
                let begin = end;
                end += rows.len() as u16;
                self.runs.push(Run { key: rows[0], rows: begin..end });
            }
            if self.runs.len() * RUN_ROWS_MIN > block.keys.len() {
                self.runs.clear();
                return;
            }
        }
    }

    /// Draws for a tree from the block that was looked at last; the trees of a group are best asked
    /// for one after the other.
    pub(crate) fn sample(&mut self, block: &Block<'_>, tree: usize) -> Sample<'_> {
        let (group, lane) = (tree / TREES_PER_HASH, tree % TREES_PER_HASH);
        let seed = self.seeds[group];
        let bits = |key: i64, lane: usize| (row_hash(key, seed) >> (16 * lane)) as u16;
        if !self.runs.is_empty() {
            let weighed = self.runs.iter();
            let weighed =
                weighed.map(|run| (run.rows.clone(), bootstrap_weight(bits(run.key, lane))));
            self.drawn_runs.clear();
            self.drawn_runs.extend(weighed.filter(|(_, weight)| *weight > 0));
            return Sample::Runs(&self.drawn_runs);
        }
        let weights = &mut self.weights[..block.keys.len()];
        if self.group.replace(group) != Some(group) {
            for (weights, &key) in weights.iter_mut().zip(block.keys) {
                *weights = std::array::from_fn(|lane| bits(key, lane));
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
        Sample::Rows { drawn: &self.drawn[..n_drawn], weights, lane }
    }

    /// Bytes of it.
    pub(crate) fn size(&self) -> usize {
        size_of_val(&self.weights[..])
            + size_of_val(&self.drawn[..])
            + size_of_val(&self.runs[..])
            + size_of_val(&self.drawn_runs[..])
    }
}

impl Sample<'_> {
    /// Rows that are in it.
    pub(crate) fn n_rows(&self) -> usize {
        match self {
            Self::Runs(runs) => runs.iter().map(|(rows, _)| rows.len()).sum(),
            Self::Rows { drawn, .. } => drawn.len(),
        }
    }

    /// It in two parts, of which neither is as large as a whole block.
    pub(crate) fn halves(self) -> [Self; 2] {
        match self {
            Self::Runs(runs) => {
                let (left, right) = runs.split_at(runs.len() / 2);
                [left, right].map(Self::Runs)
            }
            Self::Rows { drawn, weights, lane } => {
                let (left, right) = drawn.split_at(drawn.len() / 2);
                [left, right].map(|drawn| Self::Rows { drawn, weights, lane })
            }
        }
    }

    /// Does something with each row and its weight.
    #[inline]
    pub(crate) fn for_each(self, mut f: impl FnMut(usize, u16)) {
        match self {
            Self::Runs(runs) => {
                for (rows, weight) in runs {
                    for row in usize::from(rows.start)..usize::from(rows.end) {
                        f(row, *weight);
                    }
                }
            }
            Self::Rows { drawn, weights, lane } => {
                for row in drawn {
                    let row = usize::from(*row);
                    f(row, weights[row][lane]);
                }
            }
        }
    }
}
