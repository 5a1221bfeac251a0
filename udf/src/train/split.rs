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
use crate::model::masks::LEAVES_MAX;
use crate::train::counters::{BadCounters, Packed};
use crate::train::layout::is_narrow;
use crate::train::pass::{OpenNode, Pass};
use crate::train::sampling::{draw, hash};

/// Rows per class, each counted as often as it was drawn.
type Counts = [u64; N_CLASSES];

/// Bytes of a counter: 32 bits while rows are counted, 64 more in rows without end; what they
/// travel as is less.
const WIDE_BYTES: usize = size_of::<u32>() + size_of::<u64>();
/// Bytes of a [narrow](is_narrow) counter of a tree that is walked: 16 bits while rows are counted,
/// and what they travel as, which for most is one or less.
const NARROW_BYTES: usize = size_of::<u16>() + 2;

fn root() -> Node {
    Node { counts: [0; N_CLASSES], split: None }
}

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
        let mut growth = Self {
            params: params.clone(),
            kinds: encodings.iter().map(|e| e.kind()).collect(),
            n_indices: encodings.iter().map(|e| e.n_indices()).collect(),
            trees: vec![Tree { nodes: vec![root()] }; params.n_trees],
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
            let nodes = &self.trees[node.tree].nodes;
            // a tree of few leaves is counted by masks, in wide counters
            let is_walked = nodes.len() >= 2 * LEAVES_MAX;
            let of_counter = match is_walked && is_narrow(&nodes[node.node].counts) {
                true => NARROW_BYTES,
                false => WIDE_BYTES,
            };
            let needed = Pass::n_counters(&self.n_indices, node) * of_counter;
            if !open.is_empty() && needed > bytes_left {
                break;
            }
            bytes_left = bytes_left.saturating_sub(needed);
            open.push(node.clone());
        }
        if open.is_empty() {
            return None;
        }
        // what has no open node is not walked, and need not travel
        let mut trees = vec![Tree { nodes: vec![root()] }; self.trees.len()];
        for node in &open {
            if trees[node.tree].nodes.len() < self.trees[node.tree].nodes.len() {
                trees[node.tree] = self.trees[node.tree].clone();
            }
        }
        Some(Pass { seed: self.params.seed, n_indices: self.n_indices.clone(), trees, open })
    }

    /// Splits the nodes of `pass`, which [`next_pass`](Self::next_pass) gave, by its
    /// [packed](crate::train::counters) counters, which come in parts that are added up.
    ///
    /// Errors when the counters are not those of the pass; then this is of no use any more.
    pub fn split(&mut self, pass: &Pass, parts: &[Vec<u8>]) -> Result<(), BadCounters> {
        if parts.is_empty() {
            return Err(BadCounters);
        }
        let mut parts: Vec<Packed<'_>> = parts.iter().map(|part| Packed::new(part)).collect();
        let mut own = Vec::new();
        for open in &pass.open {
            let (queued, path) = self.this_level.pop_front().expect("the pass came from here");
            assert_eq!(&queued, open, "the pass came from here");
            own.clear();
            own.resize(Pass::n_counters(&self.n_indices, open), 0);
            parts.iter_mut().try_for_each(|part| part.add_to(&mut own))?;
            self.split_node(open, path, &own);
        }
        parts.into_iter().try_for_each(Packed::end)?;
        if self.this_level.is_empty() {
            self.this_level = std::mem::take(&mut self.next_level);
            self.depth += 1;
        }
        Ok(())
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
            let (by_index, _) = own.as_chunks::<N_CLASSES>();
            features.push((feature, by_index));
        }
        // every feature counts the same rows
        let counts = features.first().map_or([0; N_CLASSES], |(_, by_index)| sum(by_index));
        self.trees[open.tree].nodes[open.node].counts = counts;
        let best = features
            .iter()
            .filter_map(|(feature, by_index)| {
                let search = Search::new(counts, &self.params);
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
    min_rows_per_category: u64,
    /// A split must score above this.
    floor: f64,
}

impl Search {
    fn new(counts: Counts, params: &ForestParams) -> Self {
        // the last digits of a score are rounding
        let floor = purity(&counts) * (1.0 + 1e-12);
        let (min_rows, min_rows_per_category) =
            (params.min_rows_per_leaf.max(1), params.min_rows_per_category);
        Self { counts, min_rows, min_rows_per_category, floor }
    }

    fn score(&self, left: &Counts) -> Option<f64> {
        let right = minus(self.counts, *left);
        if total(left) < self.min_rows || total(&right) < self.min_rows {
            return None;
        }
        Some(purity(left) + purity(&right)).filter(|&score| score > self.floor)
    }

    /// The best threshold. Rows in the missing/unknown bin try both sides, and to be alone on
    /// theirs; where there are none, it goes with the larger side.
    fn threshold(&self, by_index: &[Counts]) -> Option<Found> {
        let missing = by_index[0];
        // up to 0 is no other index
        let alone = self.score(&missing).map(|score| (score, 0, true, missing));
        let mut best: Option<(f64, u16, bool, Counts)> = alone;
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
    /// a category; indices with too few rows in this node, or none, go with the larger side.
    fn subset(&self, by_index: &[Counts]) -> Option<Found> {
        let min_rows = self.min_rows_per_category.max(1);
        let (mut known, mut rare) = (Vec::new(), Vec::new());
        for (index, counts) in (0..=u16::MAX).zip(by_index) {
            match total(counts) {
                0 => {}
                n if n < min_rows => rare.push(index),
                _ => known.push(index),
            }
        }
        let of = |indices: &[u16]| {
            indices.iter().fold([0; N_CLASSES], |all, &i| plus(all, by_index[usize::from(i)]))
        };
        let (of_known, of_rare) = (of(&known), of(&rare));
        let mut best: Option<(f64, Counts, bool, Counts, usize)> = None;
        for weights in ORDERS {
            let mut left = [0; N_CLASSES];
            for (i, &index) in self.ordered(&known, by_index, weights).iter().enumerate() {
                left = plus(left, by_index[usize::from(index)]);
                let is_larger = 2 * total(&left) >= total(&of_known);
                let with_rare = if is_larger { plus(left, of_rare) } else { left };
                if let Some(score) = self.score(&with_rare)
                    && best.as_ref().is_none_or(|b| score > b.0)
                {
                    best = Some((score, with_rare, is_larger, weights, i + 1));
                }
            }
        }
        let (score, left_counts, is_larger, weights, n_left) = best?;
        let ordered = self.ordered(&known, by_index, weights);
        let (left, right) = ordered.split_at(n_left);
        // the list of the smaller side, so that what is not listed goes with the larger one
        let mut listed = if is_larger { right.to_vec() } else { left.to_vec() };
        listed.sort_unstable();
        let missing_left = (listed.first() == Some(&0)) != is_larger;
        listed.retain(|&index| index != 0);
        let left_indices = match is_larger {
            true => LeftIndices::Except(listed),
            false => LeftIndices::Among(listed),
        };
        Some(Found { score, left_indices, missing_left, left_counts })
    }

    /// Indices by their mean weight, that of the node mixed in; equal ones ascending.
    fn ordered(&self, indices: &[u16], by_index: &[Counts], weights: Counts) -> Vec<u16> {
        let weighted = |counts: &Counts| -> u64 {
            counts.iter().zip(weights).map(|(count, weight)| count * weight).sum()
        };
        let mean = weighted(&self.counts) as f64 / total(&self.counts) as f64;
        let mixed_in = self.min_rows_per_category as f64;
        let key = |index: u16| {
            let counts = &by_index[usize::from(index)];
            (weighted(counts) as f64 + mixed_in * mean) / (total(counts) as f64 + mixed_in)
        };
        let mut keyed: Vec<(f64, u16)> = indices.iter().map(|&index| (key(index), index)).collect();
        keyed.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        keyed.into_iter().map(|(_, index)| index).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::counters::pack;

    /// The split of a root over one feature whose indices have these counts.
    fn split(kind: Kind, by_index: &[Counts], params: &ForestParams) -> Option<Found> {
        let search = Search::new(sum(by_index), params);
        match kind {
            Kind::Numeric => search.threshold(by_index),
            Kind::Categorical => search.subset(by_index),
        }
    }

    fn original() -> ForestParams {
        ForestParams::original()
    }

    #[test]
    fn rows_without_a_value_may_be_a_side_of_their_own() {
        // late where nothing is known, early wherever something is
        let by_index = [[0, 0, 0, 50], [40, 1, 0, 0], [40, 0, 1, 0], [40, 1, 0, 0]];
        let found = split(Kind::Numeric, &by_index, &original()).unwrap();
        assert_eq!((found.left_indices, found.missing_left), (LeftIndices::UpTo(0), true));
        assert_eq!(found.left_counts, [0, 0, 0, 50]);
        // but not where there are none of them
        let by_index = [[0; 4], [40, 1, 0, 0], [40, 0, 1, 0], [1, 40, 0, 0]];
        let found = split(Kind::Numeric, &by_index, &original()).unwrap();
        assert_eq!(found.left_indices, LeftIndices::UpTo(2));
    }

    #[test]
    fn a_rare_category_goes_where_most_rows_go_and_so_do_those_without_rows() {
        let by_index =
            [[0; 4], [60, 10, 0, 0], [10, 60, 0, 0], [70, 10, 0, 0], [0, 3, 0, 0], [0; 4]];
        let found = split(Kind::Categorical, &by_index, &original()).unwrap();
        // each category counts: 2 and 4 are late
        let goes_left = |found: &Found, index| {
            let split = Split {
                feature: 0,
                left_indices: found.left_indices.clone(),
                missing_left: found.missing_left,
                left: 1,
            };
            split.goes_left(index)
        };
        let sides: Vec<bool> = (0..6).map(|index| goes_left(&found, index)).collect();
        let with_early = sides[1];
        assert_eq!(sides, [true, true, false, true, false, true].map(|left| left == with_early));
        assert_eq!(total(&found.left_counts), if with_early { 150 } else { 73 });

        let careful = ForestParams { min_rows_per_category: 5, ..original() };
        let found = split(Kind::Categorical, &by_index, &careful).unwrap();
        let sides: Vec<bool> = (0..6).map(|index| goes_left(&found, index)).collect();
        let with_early = sides[1];
        assert_eq!(sides, [true, true, false, true, true, true].map(|left| left == with_early));
        assert_eq!(total(&found.left_counts), if with_early { 153 } else { 70 });
    }

    #[test]
    fn what_is_listed_is_the_smaller_side() {
        let mut by_index = vec![[0; 4], [5, 0, 0, 0]];
        by_index.extend([[0, 9, 0, 0]; 30]);
        let found = split(Kind::Categorical, &by_index, &original()).unwrap();
        match found.left_indices {
            LeftIndices::Among(listed) | LeftIndices::Except(listed) => assert_eq!(listed, [1]),
            LeftIndices::UpTo(_) => panic!("a category has no threshold"),
        }
    }

    #[test]
    fn a_few_rows_of_a_category_do_not_make_it_the_surest_of_all() {
        // alone, a category with two rows would come first; with those of the node it does not
        let by_index = [[0; 4], [90, 10, 0, 0], [10, 90, 0, 0], [2, 0, 0, 0]];
        let (known, weights) = (vec![1, 2, 3], [1, 0, 0, 0]);
        let search = Search::new(sum(&by_index), &original());
        assert_eq!(search.ordered(&known, &by_index, weights), [2, 1, 3]);
        let careful = ForestParams { min_rows_per_category: 20, ..original() };
        let search = Search::new(sum(&by_index), &careful);
        assert_eq!(search.ordered(&known, &by_index, weights), [2, 3, 1]);
    }

    #[test]
    fn a_pass_takes_no_more_memory_than_it_may_and_carries_only_what_it_counts() {
        let encodings = [Encoding::Numeric((0..98).map(f64::from).collect())];
        let params = ForestParams { n_trees: 5, features_per_node: 1, ..original() };
        let mut growth = Growth::new(&params, &[&encodings[0]]);
        // a node has 100 indices of 4 counters of 12 bytes
        let pass = growth.next_pass(2 * 100 * 4 * 12).unwrap();
        assert_eq!(pass.open.len(), 2);
        assert_eq!(growth.next_pass(2 * 100 * 4 * 12 - 1).unwrap().open.len(), 1);
        assert_eq!(growth.next_pass(0).unwrap().open.len(), 1, "one at least");
        // once they have grown, trees that are not counted do not travel
        let mut counters = vec![0_u64; 100 * N_CLASSES];
        for (index, counts) in counters.as_chunks_mut::<N_CLASSES>().0.iter_mut().enumerate() {
            *counts = if index <= 50 { [7, 2, 0, 0] } else { [0, 0, 2, 7] };
        }
        let pass = growth.next_pass(usize::MAX).unwrap();
        assert_eq!(growth.clone().split(&pass, &[]), Err(BadCounters));
        // in two parts, of which one alone would not be split
        let (mut one, mut other) = (vec![0_u64; counters.len()], counters);
        let half = one.len() / 2;
        one[..half].swap_with_slice(&mut other[..half]);
        let parts = [one, other].map(|part| pack(&part.repeat(5)));
        growth.split(&pass, &parts).unwrap();
        let sizes = |bytes| -> Vec<usize> {
            growth.next_pass(bytes).unwrap().trees.iter().map(|tree| tree.nodes.len()).collect()
        };
        assert_eq!(sizes(0), [3, 1, 1, 1, 1]);
        assert_eq!(sizes(usize::MAX), [3; 5]);
    }
}
