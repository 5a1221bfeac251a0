//! What one pass over the rows counts.

use serde::{Deserialize, Serialize};

use crate::N_CLASSES;
use crate::model::artefact::Tree;

/// What one query counts: the forest so far and some of its open nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pass {
    /// Seed of the bootstrap.
    pub seed: u64,
    /// Number of indices of each feature.
    pub n_indices: Vec<usize>,
    /// The forest so far. Leaves that are not open stay leaves.
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
    /// The features it may choose from, ascending.
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
        for OpenNode { tree, node, features } in &self.open {
            let is_leaf = |tree: &Tree| tree.nodes.get(*node).is_some_and(|n| n.split.is_none());
            if !self.trees.get(*tree).is_some_and(is_leaf) {
                return Err(format!("node {node} of tree {tree} is no leaf"));
            }
            if features.iter().any(|&feature| feature >= self.n_indices.len()) {
                return Err(format!("node {node} of tree {tree} names a feature there is not"));
            }
        }
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.open.iter().map(|node| Self::n_counters(&self.n_indices, node)).sum()
    }
}
