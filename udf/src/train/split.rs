//! Counts into splits: a forest grown level by level, pure and without rows.
//!
//! The caller asks for the [`Pass`] that comes next, counts it however it likes, and hands the
//! counters back; [`Growth`] splits the nodes. Splits maximise the decrease of Gini impurity
//! (Breiman et al.: Classification and regression trees, 1984).

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::N_CLASSES;
use crate::encode::encoder::{Encoding, Kind};
use crate::model::artefact::{ForestParams, LeftIndices, Node, Split, Tree};
use crate::train::pass::{OpenNode, Pass};
use crate::train::sampling::{draw, hash};

/// Rows per class, each counted as often as it was drawn.
type Counts = [u64; N_CLASSES];

/// A forest that is being grown. Can be written down between two passes and gone on with later.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Growth {
    params: ForestParams,
    kinds: Vec<Kind>,
    n_indices: Vec<usize>,
    trees: Vec<Tree>,
    /// Open nodes of this level and of the next, with their paths from the root.
    this_level: VecDeque<(OpenNode, u64)>,
    next_level: VecDeque<(OpenNode, u64)>,
    depth: u32,
}

impl Growth {
    /// A forest of roots, each open.
    pub fn new(params: &ForestParams, encodings: &[&Encoding]) -> Self {
        let root = Node { counts: [0; N_CLASSES], split: None };
        let mut growth = Self {
            params: params.clone(),
            kinds: encodings.iter().map(|e| e.kind()).collect(),
            n_indices: encodings.iter().map(|e| e.n_indices()).collect(),
            trees: vec![Tree { nodes: vec![root] }; params.n_trees],
            this_level: VecDeque::new(),
            next_level: VecDeque::new(),
            depth: 0,
        };
        growth.this_level =
            (0..params.n_trees).map(|tree| (growth.open_node(tree, 0, 1), 1)).collect();
        growth
    }

    /// How it is grown.
    pub fn params(&self) -> &ForestParams {
        &self.params
    }

    /// Depth of the level that is being split; the roots have 0.
    pub fn depth(&self) -> u32 {
        self.depth
    }

    /// What to count next: open nodes of this level whose counters fit into `bytes`, one at
    /// least. `None` when the forest is grown.
    pub fn next_pass(&self, bytes: usize) -> Option<Pass> {
        let mut open = Vec::new();
        let mut bytes_left = bytes;
        for (node, _) in &self.this_level {
            let needed = Pass::n_counters(&self.n_indices, node) * size_of::<u64>();
            if !open.is_empty() && needed > bytes_left {
                break;
            }
            bytes_left = bytes_left.saturating_sub(needed);
            open.push(node.clone());
        }
        if open.is_empty() {
            return None;
        }
        let (seed, n_indices) = (self.params.seed, self.n_indices.clone());
        Some(Pass { seed, n_indices, trees: self.trees.clone(), open })
    }

    /// Splits the nodes of `pass`, which [`next_pass`](Self::next_pass) gave, by its counters.
    ///
    /// Panics when the counters are not those of the pass.
    pub fn split(&mut self, pass: &Pass, counters: &[u64]) {
        let mut counters = counters;
        for open in &pass.open {
            let (queued, path) = self.this_level.pop_front().expect("the pass came from here");
            assert_eq!(&queued, open, "the pass came from here");
            let (own, rest) = counters.split_at(Pass::n_counters(&self.n_indices, open));
            counters = rest;
            self.split_node(open, path, own);
        }
        if self.this_level.is_empty() {
            self.this_level = std::mem::take(&mut self.next_level);
            self.depth += 1;
        }
    }

    /// The grown trees.
    pub fn into_trees(self) -> Vec<Tree> {
        self.trees
    }

    fn split_node(&mut self, open: &OpenNode, path: u64, counters: &[u64]) {
        let mut features = Vec::new();
        let mut counters = counters;
        for &feature in &open.features {
            let (own, rest) = counters.split_at(self.n_indices[feature] * N_CLASSES);
            counters = rest;
            features.push((feature, as_counts(own)));
        }
        // every feature counts the same rows
        let counts = features.first().map_or([0; N_CLASSES], |(_, by_index)| sum(by_index));
        self.trees[open.tree].nodes[open.node].counts = counts;
        let best = features
            .iter()
            .filter_map(|(feature, by_index)| {
                let search = Search::new(counts, self.params.min_rows_per_leaf);
                match self.kinds[*feature] {
                    Kind::Numeric => search.threshold(by_index),
                    Kind::Categorical => search.subset(by_index),
                }
                .map(|found| (*feature, found))
            })
            // the first of equals
            .reduce(|best, next| if next.1.score > best.1.score { next } else { best });
        let Some((feature, found)) = best else { return };
        let nodes = &mut self.trees[open.tree].nodes;
        let left = nodes.len();
        let Found { left_indices, missing_left, left_counts, .. } = found;
        nodes[open.node].split = Some(Split { feature, left_indices, missing_left, left });
        for (side, child) in [left_counts, minus(counts, left_counts)].into_iter().enumerate() {
            self.trees[open.tree].nodes.push(Node { counts: child, split: None });
            if self.may_split(&child) {
                let path = path * 2 + side as u64;
                let node = self.open_node(open.tree, left + side, path);
                self.next_level.push_back((node, path));
            }
        }
    }

    fn may_split(&self, counts: &Counts) -> bool {
        let pure = counts.iter().filter(|&&n| n > 0).count() < 2;
        let n: u64 = counts.iter().sum();
        self.depth + 1 < self.params.depth && !pure && n >= 2 * self.params.min_rows_per_leaf
    }

    fn open_node(&self, tree: usize, node: usize, path: u64) -> OpenNode {
        let seed = hash(&[self.params.seed, 0x6e6f_6465, tree as u64, path]);
        let features = draw(self.n_indices.len(), self.params.features_per_node, seed);
        OpenNode { tree, node, features }
    }
}

/// A split that was found, with Σ (Σ c²) / n over its sides: what a decrease of impurity raises.
struct Found {
    score: f64,
    left_indices: LeftIndices,
    missing_left: bool,
    left_counts: Counts,
}

/// The search for a node's best split on one feature. Counts are per index, those of the
/// missing/unknown bin first.
struct Search {
    counts: Counts,
    min_rows: u64,
    /// A split must score above this.
    floor: f64,
}

impl Search {
    fn new(counts: Counts, min_rows: u64) -> Self {
        // the last digits of a score are rounding
        let floor = purity(&counts) * (1.0 + 1e-12);
        Self { counts, min_rows: min_rows.max(1), floor }
    }

    fn score(&self, left: &Counts) -> Option<f64> {
        let right = minus(self.counts, *left);
        if total(left) < self.min_rows || total(&right) < self.min_rows {
            return None;
        }
        Some(purity(left) + purity(&right)).filter(|&score| score > self.floor)
    }

    /// The best threshold. Rows in the missing/unknown bin try both sides; where there are none, it
    /// goes with the larger side.
    fn threshold(&self, by_index: &[Counts]) -> Option<Found> {
        let missing = by_index[0];
        let mut best: Option<(f64, u16, bool, Counts)> = None;
        let mut below = [0; N_CLASSES];
        for (index, counts) in by_index.iter().enumerate().skip(1).take(by_index.len() - 2) {
            below = plus(below, *counts);
            for (missing_left, left) in [(false, below), (true, plus(below, missing))] {
                if let Some(score) = self.score(&left)
                    && best.is_none_or(|b| score > b.0)
                {
                    best = Some((score, index as u16, missing_left, left));
                }
            }
        }
        best.map(|(score, index, missing_left, left_counts)| Found {
            score,
            left_indices: LeftIndices::UpTo(index),
            missing_left: if total(&missing) > 0 {
                missing_left
            } else {
                self.left_is_larger(&left_counts)
            },
            left_counts,
        })
    }

    /// The best subset among the prefixes of several orders: by the share of each class, and by
    /// the mean class. For two classes one such order holds the best subset (Breiman et al.); for
    /// more, trying each class against the rest comes close. The missing/unknown bin takes part as
    /// a category; indices without rows in this node go with the larger side.
    fn subset(&self, by_index: &[Counts]) -> Option<Found> {
        let present: Vec<u16> =
            (0..by_index.len()).filter(|&c| total(&by_index[c]) > 0).map(|c| c as u16).collect();
        let mut best: Option<(f64, Counts, Vec<u16>)> = None;
        for weights in ORDERS {
            let key = |index: &u16| {
                let counts = &by_index[usize::from(*index)];
                let weighted: u64 = counts.iter().zip(weights).map(|(c, w)| c * w).sum();
                weighted as f64 / total(counts) as f64
            };
            let mut ordered = present.clone();
            ordered.sort_by(|a, b| key(a).total_cmp(&key(b)).then(a.cmp(b)));
            let mut left = [0; N_CLASSES];
            for (i, &index) in ordered.iter().enumerate() {
                left = plus(left, by_index[usize::from(index)]);
                if let Some(score) = self.score(&left)
                    && best.as_ref().is_none_or(|b| score > b.0)
                {
                    best = Some((score, left, ordered[..=i].to_vec()));
                }
            }
        }
        let (score, left_counts, mut left_indices) = best?;
        if self.left_is_larger(&left_counts) {
            left_indices.extend(
                (0..by_index.len()).filter(|&c| total(&by_index[c]) == 0).map(|c| c as u16),
            );
        }
        left_indices.sort_unstable();
        let missing_left = left_indices.first() == Some(&0);
        left_indices.retain(|&index| index != 0);
        Some(Found {
            score,
            left_indices: LeftIndices::Among(left_indices),
            missing_left,
            left_counts,
        })
    }

    fn left_is_larger(&self, left: &Counts) -> bool {
        2 * total(left) >= total(&self.counts)
    }
}

/// Weights of the classes in the orders that [`Search::subset`] tries.
const ORDERS: [Counts; 5] = [[0, 1, 2, 3], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]];

/// Importance of each feature: its share of the decrease of impurity in each tree, averaged over
/// the trees (as Spark MLlib does). All 0 when no tree split.
pub fn importances(trees: &[Tree], n_features: usize) -> Vec<f64> {
    let mut importances = vec![0.0; n_features];
    for tree in trees {
        let mut decreases = vec![0.0; n_features];
        for node in &tree.nodes {
            let Some(split) = &node.split else { continue };
            let [left, right] = [0, 1].map(|side| purity(&tree.nodes[split.left + side].counts));
            decreases[split.feature] += left + right - purity(&node.counts);
        }
        add_share(&mut importances, &decreases);
    }
    let mut shares = vec![0.0; n_features];
    add_share(&mut shares, &importances);
    shares
}

fn add_share(to: &mut [f64], parts: &[f64]) {
    let whole: f64 = parts.iter().sum();
    if whole > 0.0 {
        to.iter_mut().zip(parts).for_each(|(to, part)| *to += part / whole);
    }
}

/// Σ c² / n: rows minus Gini impurity times rows.
fn purity(counts: &Counts) -> f64 {
    match total(counts) {
        0 => 0.0,
        n => counts.iter().map(|&c| c as f64 * c as f64).sum::<f64>() / n as f64,
    }
}

fn as_counts(counters: &[u64]) -> Vec<Counts> {
    counters.chunks_exact(N_CLASSES).map(|c| std::array::from_fn(|class| c[class])).collect()
}

fn total(counts: &Counts) -> u64 {
    counts.iter().sum()
}

fn sum(by_index: &[Counts]) -> Counts {
    by_index.iter().fold([0; N_CLASSES], |all, &counts| plus(all, counts))
}

fn plus(a: Counts, b: Counts) -> Counts {
    std::array::from_fn(|class| a[class] + b[class])
}

fn minus(a: Counts, b: Counts) -> Counts {
    std::array::from_fn(|class| a[class] - b[class])
}
