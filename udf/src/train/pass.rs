//! What one pass over the rows counts.

use serde::{Deserialize, Serialize};

use crate::N_CLASSES;
use crate::model::artefact::Tree;

/// Indices of a feature at most: an index has 16 bits.
const INDICES_MAX: usize = 1 << 16;

/// What one query counts: the forest so far and some of its open nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pass {
    /// Seed of the bootstrap.
    pub seed: u64,
    /// Number of indices of each feature.
    pub n_indices: Vec<usize>,
    /// The forest so far. Leaves that are not open stay leaves. The counts of open nodes are what
    /// all rows weigh there, or 0: counters are as wide as that needs.
    pub trees: Vec<Tree>,
    /// Nodes to count, ascending by tree and node.
    pub open: Vec<OpenNode>,
}

/// A leaf that may yet be split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenNode {
    /// Position of its tree.
    pub tree: usize,
    /// Position in its tree.
    pub node: usize,
    /// The features it may choose from, ascending; as many for each node of a tree.
    pub features: Vec<usize>,
}

impl Pass {
    /// Counters that one open node needs.
    pub fn n_counters(n_indices: &[usize], node: &OpenNode) -> usize {
        node.features.iter().map(|&f| n_indices[f] * N_CLASSES).sum()
    }

    /// Says what is wrong with a pass that was read from outside.
    pub(crate) fn check(&self) -> std::result::Result<(), String> {
        for tree in &self.trees {
            tree.check(&self.n_indices)?;
        }
        if let Some(n) = self.n_indices.iter().find(|&&n| !(1..=INDICES_MAX).contains(&n)) {
            return Err(format!("a feature of {n} indices"));
        }
        let mut before: Option<&OpenNode> = None;
        for open in &self.open {
            let OpenNode { tree, node, features } = open;
            let is_leaf = |tree: &Tree| tree.nodes.get(*node).is_some_and(|n| n.split.is_none());
            if !self.trees.get(*tree).is_some_and(is_leaf) {
                return Err(format!("node {node} of tree {tree} is no leaf"));
            }
            if features.iter().any(|&feature| feature >= self.n_indices.len()) {
                return Err(format!("node {node} of tree {tree} names a feature there is not"));
            }
            if before.is_some_and(|before| (before.tree, before.node) >= (*tree, *node)) {
                return Err(format!("node {node} of tree {tree} is out of order"));
            }
            let other = before.filter(|before| before.tree == *tree);
            if features.is_empty() || other.is_some_and(|o| o.features.len() != features.len()) {
                return Err(format!("node {node} of tree {tree} has another number of features"));
            }
            before = Some(open);
        }
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.open.iter().map(|node| Self::n_counters(&self.n_indices, node)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::artefact::Node;

    #[test]
    fn a_pass_that_could_not_be_counted_is_refused() {
        let tree = Tree { nodes: vec![Node { counts: [0; N_CLASSES], split: None }] };
        let open = |tree, features: &[usize]| OpenNode { tree, node: 0, features: features.into() };
        let pass = |n_indices: [usize; 2], open: &[OpenNode]| Pass {
            seed: 1,
            n_indices: n_indices.to_vec(),
            trees: vec![tree.clone(), tree.clone()],
            open: open.to_vec(),
        };
        let [first, second] = [open(0, &[0, 1]), open(1, &[1])];
        assert_eq!(pass([2, 3], &[first.clone(), second.clone()]).check(), Ok(()));
        let refused = |n_indices, open: &[OpenNode]| pass(n_indices, open).check().unwrap_err();
        for n_indices in [[2, 0], [INDICES_MAX + 1, 2]] {
            assert!(refused(n_indices, &[]).starts_with("a feature of "));
        }
        for (opened, want) in [
            ([second.clone(), first.clone()], "node 0 of tree 0 is out of order"),
            ([second.clone(), second], "node 0 of tree 1 is out of order"),
            ([first.clone(), open(1, &[])], "node 0 of tree 1 has another number of features"),
            ([first.clone(), open(1, &[2])], "node 0 of tree 1 names a feature there is not"),
            ([first, open(2, &[0])], "node 0 of tree 2 is no leaf"),
        ] {
            assert_eq!(refused([2, 3], &opened), want);
        }
    }
}
