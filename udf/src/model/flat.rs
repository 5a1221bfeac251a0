//! A forest laid out to be walked fast, whatever the size of its trees.
//!
//! Where a row is after the first splits, [masks](crate::model::masks) tell for many trees at once;
//! a small tree has no others. From there it walks. The nodes of all trees are in one array, twelve
//! bytes each. A node has a bit for each index of its feature, which is added to its left child to
//! give the next node; a leaf leads to itself. Rows walk a tree side by side, a level at a time: a
//! row must wait for memory at every node, but many can wait together.

use std::collections::HashMap;

use crate::N_CLASSES;
use crate::encode::encoder::Encoding;
use crate::model::artefact::{FeatureSpec, LeftIndices, Node, Split, Tree};
use crate::model::masks::{
    LEAVES_MAX, LeafMasks, ROWS_TOGETHER, Survivors, TREES_PER_GROUP, crown, leaf, leaves,
};

/// Rows that had best walk side by side.
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

/// The [crowns](crown) of at most [`TREES_PER_GROUP`] trees.
#[derive(Debug)]
struct Crowns {
    masks: LeafMasks,
    trees: Vec<Crown>,
}

#[derive(Debug)]
struct Crown {
    /// The nodes where it ends, from left to right.
    ends: [u32; LEAVES_MAX],
    /// Shares of the classes at them.
    shares: [[f64; N_CLASSES]; LEAVES_MAX],
    /// Most levels below them: none of a small tree.
    n_levels: u32,
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
        for (group, trees) in trees.chunks(TREES_PER_GROUP).enumerate() {
            let crowns: Vec<Tree> = trees.iter().map(crown).collect();
            let masks = LeafMasks::new(&crowns, &n_indices).expect("a crown is small");
            let roots = flat.trees[group * TREES_PER_GROUP..].iter().map(|&(root, _)| root);
            let crowns = crowns.iter().zip(trees).zip(roots);
            let trees = crowns.map(|((crown, tree), root)| flat.crown(crown, tree, root)).collect();
            flat.crowns.push(Crowns { masks, trees });
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

    fn crown(&self, crown: &Tree, tree: &Tree, root: u32) -> Crown {
        let (mut ends, mut shares) = ([root; LEAVES_MAX], [[0.0; N_CLASSES]; LEAVES_MAX]);
        for (leaf, node) in leaves(crown).into_iter().enumerate() {
            ends[leaf] = root + node as u32;
            shares[leaf] = self.shares[ends[leaf] as usize];
        }
        Crown { ends, shares, n_levels: n_levels_below(crown, tree) }
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

    /// Tells, tree by tree, the leaves that a [block](BLOCK_ROWS) of rows of `n_features` indices
    /// falls to.
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
            for (t, crown) in crowns.trees.iter().enumerate() {
                for (node, alive) in at.iter_mut().zip(&alive) {
                    *node = crown.ends[leaf(alive[t])];
                }
                for _ in 0..crown.n_levels {
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
        if self.is_small() {
            for crowns in &self.crowns {
                crowns.add_to(sums, indices, n_features);
            }
            return;
        }
        let blocks = sums.chunks_mut(BLOCK_ROWS).zip(indices.chunks(BLOCK_ROWS * n_features));
        for (sums, indices) in blocks {
            self.leaves(indices, n_features, |_, leaves| {
                sums.iter_mut().zip(leaves).for_each(|(sum, &leaf)| add(sum, self.shares(leaf)));
            });
        }
    }

    /// Whether masks tell the leaves of all trees.
    fn is_small(&self) -> bool {
        self.crowns.iter().flat_map(|crowns| &crowns.trees).all(|crown| crown.n_levels == 0)
    }

    /// Adds up, for a [block](BLOCK_ROWS) of rows of `n_features` indices, the shares at the leaves
    /// that each falls to, and how they changed on the way: an element for each feature and row.
    pub(crate) fn changes(
        &self,
        indices: &[u16],
        n_features: usize,
        changes: &mut [[f64; N_CLASSES]],
        leaves: &mut [[f64; N_CLASSES]],
    ) {
        let mut at = vec![0; leaves.len()];
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
            for (sum, &node) in leaves.iter_mut().zip(&at) {
                add(sum, self.shares(node));
            }
        }
    }
}

impl Crowns {
    /// Adds the shares at their ends: a row after the other, which is quicker while no tree is
    /// walked.
    fn add_to(&self, sums: &mut [[f64; N_CLASSES]], indices: &[u16], n_features: usize) {
        let mut alive: [Survivors; ROWS_TOGETHER] = [[0; _]; _];
        let rows = indices.chunks(ROWS_TOGETHER * n_features);
        for (sums, indices) in sums.chunks_mut(ROWS_TOGETHER).zip(rows) {
            self.masks.survivors(indices, n_features, &mut alive);
            for (sum, alive) in sums.iter_mut().zip(&alive) {
                for (alive, crown) in alive.iter().zip(&self.trees) {
                    add(sum, &crown.shares[leaf(*alive)]);
                }
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
    use crate::model::artefact::tests::{random_indices, random_model};

    #[test]
    fn each_tree_tells_the_leaves_of_all_rows() {
        let model = random_model(2, 9);
        let forest = FlatForest::new(&model.trees, &model.features);
        let indices = random_indices(&model, 100);
        let mut told = Vec::new();
        forest.leaves(&indices, 6, |tree, leaves| {
            told.push(tree);
            for (row, &leaf) in indices.chunks_exact(6).zip(leaves) {
                let want = model.trees[tree].leaf(row).probabilities();
                assert_eq!(*forest.shares(leaf), want, "tree {tree}");
            }
        });
        assert!(told.into_iter().eq(0..model.trees.len()));
    }

    #[test]
    fn small_trees_are_not_walked_and_large_ones_only_below_their_crowns() {
        let levels = |depth| -> Vec<u32> {
            let model = random_model(1, depth);
            let forest = FlatForest::new(&model.trees, &model.features);
            let crowns = forest.crowns.iter().flat_map(|crowns| &crowns.trees);
            crowns.map(|crown| crown.n_levels).collect()
        };
        assert_eq!(levels(5), [0; 5]);
        let deep = levels(9);
        assert!(deep.iter().any(|&n| n > 0) && deep.iter().all(|&n| n < 9), "{deep:?}");
        // a chain: one split a level, of which 31 are its crown
        let chain = |n_splits: usize| {
            let mut nodes = vec![Node { counts: [1; N_CLASSES], split: None }; 2 * n_splits + 1];
            for i in 0..n_splits {
                let left = 2 * i + 1;
                let left_indices = LeftIndices::UpTo(0);
                let split = Split { feature: 0, left_indices, missing_left: true, left };
                nodes[2 * i].split = Some(split);
            }
            Tree { nodes }
        };
        assert_eq!([31, 32, 40].map(|n| n_levels_below(&crown(&chain(n)), &chain(n))), [0, 1, 9]);
    }
}
