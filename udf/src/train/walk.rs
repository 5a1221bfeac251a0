//! Dropping rows down trees of any size, and counting them where they come to rest: no allocation,
//! no hash map, three loads a step.

use crate::N_CLASSES;
use crate::model::artefact::Tree;
use crate::train::block::{Block, Sample};
use crate::train::pass::{OpenNode, Pass};

/// A tree made ready for walking: at each node a table from index to the next node.
#[derive(Debug)]
pub(crate) struct TreeWalk {
    pub(crate) tree: usize,
    n_levels: u32,
    nodes: Vec<WalkNode>,
    next: Vec<u16>,
    /// Per node, which of the open nodes it is, or [`CLOSED`].
    slots: Vec<u16>,
    /// Features of an open node, as many for each, with where their counters begin.
    counted: Vec<(u32, u32)>,
    n_counted: usize,
}

/// A node leads to `next[offset + (index & mask)]`; a leaf has mask 0 and leads to itself.
#[derive(Debug, Clone, Copy)]
struct WalkNode {
    feature: u16,
    mask: u16,
    offset: u32,
}

const CLOSED: u16 = u16::MAX;

impl TreeWalk {
    /// The trees of a pass that have some of the nodes `open`, whose counters begin at `first`.
    pub(crate) fn of_open(pass: &Pass, open: &[OpenNode], first: usize) -> Vec<Self> {
        let mut walks: Vec<Self> = Vec::new();
        let mut offset = first as u32;
        for open in open {
            if walks.last().is_none_or(|walk| walk.tree != open.tree) {
                let tree = &pass.trees[open.tree];
                walks.push(Self::new(open.tree, tree, &pass.n_indices, open.features.len()));
            }
            let walk = walks.last_mut().expect("one was pushed");
            walk.slots[open.node] = (walk.counted.len() / walk.n_counted) as u16;
            for &feature in &open.features {
                walk.counted.push((feature as u32, offset));
                offset += (pass.n_indices[feature] * N_CLASSES) as u32;
            }
        }
        walks
    }

    fn new(tree: usize, grown: &Tree, n_indices: &[usize], n_counted: usize) -> Self {
        let mut nodes = Vec::new();
        let mut next = Vec::new();
        let mut levels = vec![0; grown.nodes.len()];
        for (i, node) in grown.nodes.iter().enumerate() {
            let offset = next.len() as u32;
            match &node.split {
                Some(split) => {
                    nodes.push(WalkNode { feature: split.feature as u16, mask: !0, offset });
                    next.extend((0..n_indices[split.feature]).map(|index| {
                        (split.left + usize::from(!split.goes_left(index as u16))) as u16
                    }));
                    levels[split.left] = levels[i] + 1;
                    levels[split.left + 1] = levels[i] + 1;
                }
                None => {
                    nodes.push(WalkNode { feature: 0, mask: 0, offset });
                    next.push(i as u16);
                }
            }
        }
        Self {
            tree,
            n_levels: levels.into_iter().max().unwrap_or(0),
            slots: vec![CLOSED; nodes.len()],
            nodes,
            next,
            counted: Vec::new(),
            n_counted,
        }
    }

    /// Adds the weights of a sample to the counters of the open nodes that its rows fall to.
    /// `fallen` is scratch space.
    pub(crate) fn count(
        &self,
        block: &Block<'_>,
        sample: Sample<'_>,
        fallen: &mut Vec<Fallen>,
        counters: &mut [u32],
    ) {
        fallen.clear();
        sample.for_each(|row, weight| {
            fallen.push(Fallen { row: row as u16, weight, node: 0 });
        });
        self.drop_rows(block, fallen);
        for &Fallen { row, weight, node } in &*fallen {
            let (row, slot) = (usize::from(row), self.slots[usize::from(node)]);
            if slot == CLOSED {
                continue;
            }
            let class = usize::from(block.labels[row]);
            let indices = &block.indices[row * block.n_features..][..block.n_features];
            let counted = &self.counted[usize::from(slot) * self.n_counted..][..self.n_counted];
            for &(feature, offset) in counted {
                let index = usize::from(indices[feature as usize]);
                counters[offset as usize + index * N_CLASSES + class] += u32::from(weight);
            }
        }
    }

    /// Finds the node of each row. A level at a time for all rows: steps of different rows do not
    /// wait for each other, those of one row do.
    fn drop_rows(&self, block: &Block<'_>, fallen: &mut [Fallen]) {
        for _ in 0..self.n_levels {
            for Fallen { row, node, .. } in &mut *fallen {
                let walk = self.nodes[usize::from(*node)];
                let at = usize::from(*row) * block.n_features + usize::from(walk.feature);
                let index = block.indices[at] & walk.mask;
                *node = self.next[walk.offset as usize + usize::from(index)];
            }
        }
    }
}

/// A row on its way down a tree.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fallen {
    row: u16,
    weight: u16,
    node: u16,
}
