//! A forest laid out to be walked fast, whatever the size of its trees.
//!
//! Where a row is after the upper levels, [masks](crate::model::masks) tell for many trees at once;
//! of small trees these are all levels. From there it walks. The nodes of all trees are in one
//! array, twelve bytes each. A node has a bit for each index of its feature, which is added to its
//! left child to give the next node; a leaf leads to itself. Rows walk a tree side by side, a level
//! at a time: a row must wait for memory at every node, but many can wait together.

use std::collections::HashMap;

use crate::N_CLASSES;
use crate::encode::encoder::Encoding;
use crate::model::artefact::{FeatureSpec, LeftIndices, Node, Split, Tree};
use crate::model::masks::{LEAVES_MAX, LeafMasks, TREES_PER_GROUP, crown, leaf, leaves};

/// Rows that walk side by side.
pub(crate) const BLOCK_ROWS: usize = 2048;
/// Bits of a word.
const WORD: usize = u32::BITS as usize;

/// The trees of a model.
#[derive(Debug)]
pub(crate) struct FlatForest {
    /// The root of each tree, and its number of levels below.
    trees: Vec<(u32, u32)>,
    nodes: Vec<FlatNode>,
    /// Which indices go right. The first word is that of leaves: none.
    rights: Vec<u32>,
    /// Shares of the classes at each node.
    shares: Vec<[f64; N_CLASSES]>,
    /// How they differ from those of its parent; 0 at roots.
    steps: Vec<[f64; N_CLASSES]>,
    crowns: Vec<Crowns>,
}

/// The upper levels of at most [`TREES_PER_GROUP`] trees.
#[derive(Debug)]
struct Crowns {
    masks: LeafMasks,
    /// For each tree the nodes that are leaves of its crown, from left to right, and the levels
    /// below them.
    below: Vec<([u32; LEAVES_MAX], u32)>,
}

/// `child + right(index & mask)` is the next node.
#[derive(Debug, Clone, Copy)]
struct FlatNode {
    child: u32,
    first_word: u32,
    feature: u16,
    mask: u16,
}

impl FlatForest {
    /// The forest, for rows of an index for each of the features.
    pub(crate) fn new(trees: &[Tree], features: &[FeatureSpec]) -> Self {
        let mut flat = Self {
            trees: Vec::new(),
            nodes: Vec::new(),
            rights: vec![0],
            shares: Vec::new(),
            steps: Vec::new(),
            crowns: Vec::new(),
        };
        // thresholds recur, and their words with them
        let mut known = HashMap::new();
        for tree in trees {
            flat.add(tree, features, &mut known);
        }
        let n_indices: Vec<usize> = features.iter().map(|f| f.encoding.n_indices()).collect();
        let mut roots = flat.trees.iter().map(|&(root, _)| root);
        for trees in trees.chunks(TREES_PER_GROUP) {
            let crowns: Vec<Tree> = trees.iter().map(crown).collect();
            let masks = LeafMasks::new(&crowns, &n_indices).expect("a crown is small");
            let below = crowns.iter().zip(trees).zip(&mut roots).map(|((crown, tree), root)| {
                let mut nodes = [root; LEAVES_MAX];
                for (node, leaf) in nodes.iter_mut().zip(leaves(crown)) {
                    *node = root + leaf as u32;
                }
                (nodes, n_levels_below(crown, tree))
            });
            flat.crowns.push(Crowns { masks, below: below.collect() });
        }
        flat
    }

    fn add(
        &mut self,
        tree: &Tree,
        features: &[FeatureSpec],
        known: &mut HashMap<(usize, u16, bool), u32>,
    ) {
        let root = self.nodes.len() as u32;
        self.shares.extend(tree.nodes.iter().map(Node::probabilities));
        self.steps.resize(self.shares.len(), [0.0; N_CLASSES]);
        let mut levels = vec![0; tree.nodes.len()];
        for (i, node) in tree.nodes.iter().enumerate() {
            let Some(split) = &node.split else {
                let child = root + i as u32;
                self.nodes.push(FlatNode { child, first_word: 0, feature: 0, mask: 0 });
                continue;
            };
            for child in [split.left, split.left + 1] {
                levels[child] = levels[i] + 1;
                let shares = &self.shares[root as usize..];
                self.steps[root as usize + child] =
                    std::array::from_fn(|class| shares[child][class] - shares[i][class]);
            }
            let encoding = &features[split.feature].encoding;
            let first_word = match split.left_indices {
                LeftIndices::UpTo(last) => *known
                    .entry((split.feature, last, split.missing_left))
                    .or_insert_with(|| self.add_rights(split, encoding)),
                _ => self.add_rights(split, encoding),
            };
            let (child, feature) = (root + split.left as u32, split.feature as u16);
            self.nodes.push(FlatNode { child, first_word, feature, mask: !0 });
        }
        self.trees.push((root, levels.into_iter().max().unwrap_or(0)));
    }

    /// The words of a split; returns where they begin.
    fn add_rights(&mut self, split: &Split, encoding: &Encoding) -> u32 {
        let first = self.rights.len();
        self.rights.resize(first + encoding.n_indices().div_ceil(WORD), 0);
        for index in 0..encoding.n_indices() {
            let right = u32::from(!split.goes_left(index as u16));
            self.rights[first + index / WORD] |= right << (index % WORD);
        }
        first as u32
    }

    #[inline]
    fn next(&self, node: u32, indices: &[u16]) -> u32 {
        let at = self.nodes[node as usize];
        let index = usize::from(indices[usize::from(at.feature)] & at.mask);
        let word = self.rights[at.first_word as usize + index / WORD];
        at.child + ((word >> (index % WORD)) & 1)
    }

    /// Tells, tree by tree, the leaves that rows fall to, at most [`BLOCK_ROWS`] of `n_features`
    /// indices.
    pub(crate) fn leaves(
        &self,
        indices: &[u16],
        n_features: usize,
        mut tell: impl FnMut(usize, &[u32]),
    ) {
        let n_rows = indices.len() / n_features;
        let mut alive = vec![[0; TREES_PER_GROUP]; n_rows];
        let mut at = vec![0; n_rows];
        for (group, crowns) in self.crowns.iter().enumerate() {
            crowns.masks.survivors(indices, n_features, &mut alive);
            for (t, (nodes, n_levels)) in crowns.below.iter().enumerate() {
                for (node, alive) in at.iter_mut().zip(&alive) {
                    *node = nodes[leaf(alive[t])];
                }
                for _ in 0..*n_levels {
                    for (node, row) in at.iter_mut().zip(indices.chunks_exact(n_features)) {
                        *node = self.next(*node, row);
                    }
                }
                tell(group * TREES_PER_GROUP + t, &at);
            }
        }
    }

    /// Shares of the classes at a leaf.
    #[inline]
    pub(crate) fn shares(&self, leaf: u32) -> &[f64; N_CLASSES] {
        &self.shares[leaf as usize]
    }

    /// Adds the shares at the leaves that each row falls to, in the order of the trees.
    pub(crate) fn add_to(&self, sums: &mut [[f64; N_CLASSES]], indices: &[u16], n_features: usize) {
        let blocks = sums.chunks_mut(BLOCK_ROWS).zip(indices.chunks(BLOCK_ROWS * n_features));
        for (sums, indices) in blocks {
            self.leaves(indices, n_features, |_, leaves| {
                sums.iter_mut().zip(leaves).for_each(|(sum, &leaf)| add(sum, self.shares(leaf)));
            });
        }
    }

    /// Adds up, for at most [`BLOCK_ROWS`] rows of `n_features` indices, the shares at the leaves
    /// that each falls to, and how they changed on the way: an element for each feature and row.
    pub(crate) fn changes(
        &self,
        indices: &[u16],
        n_features: usize,
        changes: &mut [[f64; N_CLASSES]],
        leaves: &mut [[f64; N_CLASSES]],
    ) {
        let mut at = [0; BLOCK_ROWS];
        for &(root, n_levels) in &self.trees {
            at.fill(root);
            for _ in 0..n_levels {
                let rows =
                    indices.chunks_exact(n_features).zip(changes.chunks_exact_mut(n_features));
                for (node, (row, changes)) in at.iter_mut().zip(rows) {
                    let next = self.next(*node, row);
                    if next != *node {
                        let feature = usize::from(self.nodes[*node as usize].feature);
                        add(&mut changes[feature], &self.steps[next as usize]);
                        *node = next;
                    }
                }
            }
            for (sum, node) in leaves.iter_mut().zip(at) {
                add(sum, &self.shares[node as usize]);
            }
        }
    }
}

/// Most levels of a tree below its crown. Children come after their parents.
fn n_levels_below(crown: &Tree, tree: &Tree) -> u32 {
    let mut below = vec![0; tree.nodes.len()];
    for (i, node) in tree.nodes.iter().enumerate() {
        if let (Some(split), None) = (&node.split, &crown.nodes[i].split) {
            let levels = below[i] + 1;
            below[split.left..=split.left + 1].fill(levels);
        }
    }
    below.into_iter().max().unwrap_or(0)
}

#[inline]
fn add(sums: &mut [f64; N_CLASSES], shares: &[f64; N_CLASSES]) {
    sums.iter_mut().zip(shares).for_each(|(sum, share)| *sum += share);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::artefact::tests::random_model;

    #[test]
    fn each_tree_tells_the_leaves_of_all_rows_once() {
        let model = random_model(2, 7);
        let forest = FlatForest::new(&model.trees, &model.features);
        let mut told = Vec::new();
        forest.leaves(&[0; 6 * 3], 6, |tree, leaves| told.push((tree, leaves.len())));
        let want: Vec<_> = (0..model.trees.len()).map(|tree| (tree, 3)).collect();
        assert_eq!(told, want);
    }
}
