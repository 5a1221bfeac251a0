//! Small trees, and the upper levels of large ones, as bit masks, by which a row finds its leaf in
//! all of them at once.
//!
//! After QuickScorer (Lucchese et al., SIGIR 2015): each (feature, index) has a row of masks, one a
//! tree, that strike out the leaves which the index cannot reach; the lowest bit that survives all
//! features is the leaf. Since features are indices, the row is looked up, not searched.

use crate::model::artefact::{Node, Tree};

/// Leaves that a mask can hold.
pub(crate) const LEAVES_MAX: usize = 32;
/// Trees whose masks are combined together, in registers.
pub(crate) const TREES_PER_GROUP: usize = 24;
/// Rows whose survivors stay in the nearest cache until they are used.
pub(crate) const ROWS_TOGETHER: usize = 64;
/// The leaves of each tree that a row may fall to, a bit each.
pub(crate) type Survivors = [u32; TREES_PER_GROUP];

/// The masks of at most [`TREES_PER_GROUP`] trees.
#[derive(Debug)]
pub(crate) struct LeafMasks {
    /// Where the masks of a feature begin.
    first: Vec<usize>,
    /// A mask a tree, for each index of each feature.
    of_index: Vec<Survivors>,
}

impl LeafMasks {
    /// None when a tree has too many leaves, or there are too many trees.
    pub(crate) fn new(trees: &[Tree], n_indices: &[usize]) -> Option<Self> {
        let is_small = |tree: &Tree| leaves(tree).len() <= LEAVES_MAX;
        if trees.len() > TREES_PER_GROUP || !trees.iter().all(is_small) {
            return None;
        }
        let mut first = Vec::with_capacity(n_indices.len());
        let mut n_masks = 0;
        for n_indices in n_indices {
            first.push(n_masks);
            n_masks += n_indices;
        }
        let mut masks = Self { first, of_index: vec![[!0; TREES_PER_GROUP]; n_masks] };
        for (t, tree) in trees.iter().enumerate() {
            masks.add_below(tree, t, 0, 0, n_indices);
        }
        Some(masks)
    }

    /// Strikes out below a node whose leaves are numbered from `first_leaf` on; returns the number
    /// after its last one.
    fn add_below(
        &mut self,
        tree: &Tree,
        t: usize,
        node: usize,
        first_leaf: u32,
        n_indices: &[usize],
    ) -> u32 {
        let Some(split) = &tree.nodes[node].split else { return first_leaf + 1 };
        let middle = self.add_below(tree, t, split.left, first_leaf, n_indices);
        let of_left = ((1_u64 << middle) - (1_u64 << first_leaf)) as u32;
        let first = self.first[split.feature];
        let masks = &mut self.of_index[first..first + n_indices[split.feature]];
        for (index, masks) in masks.iter_mut().enumerate() {
            if !split.goes_left(index as u16) {
                masks[t] &= !of_left;
            }
        }
        self.add_below(tree, t, split.left + 1, middle, n_indices)
    }

    /// Finds the leaves of rows, which [`leaf`] then tells. Rows are `stride` indices, of which
    /// those of the features come first.
    // not inlined: where the bits are used at once, one by one, the compiler keeps each mask in a
    // register of its own
    #[inline(never)]
    pub(crate) fn survivors(&self, rows: &[u16], stride: usize, alive: &mut [Survivors]) {
        for (indices, alive) in rows.chunks_exact(stride).zip(alive) {
            let mut all = [!0; TREES_PER_GROUP];
            for (&index, first) in indices.iter().zip(&self.first) {
                let masks = &self.of_index[first + usize::from(index)];
                for (all, mask) in all.iter_mut().zip(masks) {
                    *all &= mask;
                }
            }
            *alive = all;
        }
    }
}

/// The leaf that a row falls to, of those that survive in a tree: the lowest.
#[inline]
pub(crate) fn leaf(alive: u32) -> usize {
    // never 32, as one survives, which the compiler does not know
    alive.trailing_zeros() as usize % LEAVES_MAX
}

/// The first splits of a tree in the order of its levels, as many as have masks. Nodes keep their
/// positions; those that are leaves here may be split in the tree.
pub(crate) fn crown(tree: &Tree) -> Tree {
    let mut room = 1..LEAVES_MAX;
    let nodes = tree.nodes.iter().map(|node| Node {
        counts: node.counts,
        split: node.split.clone().filter(|_| room.next().is_some()),
    });
    Tree { nodes: nodes.collect() }
}

/// The leaves of a tree from left to right: positions of nodes.
pub(crate) fn leaves(tree: &Tree) -> Vec<usize> {
    let (mut found, mut left) = (Vec::new(), vec![0]);
    while let Some(node) = left.pop() {
        match &tree.nodes[node].split {
            Some(split) => left.extend([split.left + 1, split.left]),
            None => found.push(node),
        }
    }
    found
}
