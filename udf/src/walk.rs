//! Dropping rows down the trees of a pass, and counting them where they come to rest. The inner
//! loops of training: no allocation, no hash map, three loads a step.

use crate::N_CLASSES;
use crate::forest::Tree;
use crate::histogram::Pass;

/// A tree made ready for walking: at each node a table from code to the next node.
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

/// A node leads to `next[offset + (code & mask)]`; a leaf has mask 0 and leads to itself.
#[derive(Debug, Clone, Copy)]
struct WalkNode {
    feature: u16,
    mask: u16,
    offset: u32,
}

const CLOSED: u16 = u16::MAX;

impl TreeWalk {
    /// Those trees of a pass that have open nodes. Counters lie in the order of the nodes.
    pub(crate) fn of_pass(pass: &Pass) -> Vec<Self> {
        let mut walks: Vec<Self> = Vec::new();
        let mut offset = 0;
        for open in &pass.open {
            if walks.last().is_none_or(|walk| walk.tree != open.tree) {
                let tree = &pass.trees[open.tree];
                walks.push(Self::new(open.tree, tree, &pass.n_codes, open.features.len()));
            }
            let walk = walks.last_mut().expect("one was pushed");
            walk.slots[open.node] = (walk.counted.len() / walk.n_counted) as u16;
            for &feature in &open.features {
                walk.counted.push((feature as u32, offset));
                offset += (pass.n_codes[feature] * N_CLASSES) as u32;
            }
        }
        walks
    }

    fn new(tree: usize, grown: &Tree, n_codes: &[usize], n_counted: usize) -> Self {
        let mut nodes = Vec::new();
        let mut next = Vec::new();
        let mut levels = vec![0; grown.nodes.len()];
        for (i, node) in grown.nodes.iter().enumerate() {
            let offset = next.len() as u32;
            match &node.split {
                Some(split) => {
                    nodes.push(WalkNode { feature: split.feature as u16, mask: !0, offset });
                    next.extend((0..n_codes[split.feature]).map(|code| {
                        (split.left + usize::from(!split.goes_left(code as u16))) as u16
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

    /// Adds the weights of the drawn rows to the counters of the open nodes that they fall to.
    pub(crate) fn count(
        &self,
        drawn: &[u16],
        weights: &[u8],
        labels: &[u8],
        codes: &[u16],
        n_features: usize,
        counters: &mut [u32],
    ) {
        for &row in drawn {
            let row = usize::from(row);
            let codes = &codes[row * n_features..][..n_features];
            let slot = self.slots[self.node(codes)];
            if slot == CLOSED {
                continue;
            }
            let (class, weight) = (usize::from(labels[row]), u32::from(weights[row]));
            let counted = &self.counted[usize::from(slot) * self.n_counted..][..self.n_counted];
            for &(feature, offset) in counted {
                let code = usize::from(codes[feature as usize]);
                counters[offset as usize + code * N_CLASSES + class] += weight;
            }
        }
    }

    /// The node that a row's codes fall to.
    #[inline]
    fn node(&self, codes: &[u16]) -> usize {
        let mut node = 0;
        for _ in 0..self.n_levels {
            let walk = self.nodes[node];
            let code = codes[usize::from(walk.feature)] & walk.mask;
            node = usize::from(self.next[walk.offset as usize + usize::from(code)]);
        }
        node
    }
}
