//! `tree_histogram(row_key, label, indices)`: counts classes per open node, feature and index.
//!
//! The forest so far travels inside the function, not as an argument: an argument would be
//! expanded to an array for every batch. Each partition drops its rows down each tree to the open
//! node they belong to and adds their bootstrap weight; states are [packed](crate::train::counters)
//! integers, merged by addition, so neither order nor partitioning shows in the result.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Int64Type, UInt8Type};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err, exec_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
};

use crate::N_CLASSES;
use crate::encode::encoder::indices_of;
use crate::functions::load::Load;
use crate::model::masks::TREES_PER_GROUP;
use crate::train::block::{BLOCK_ROWS, Block, Ordered, Sampler};
use crate::train::counters::{Packed, pack};
use crate::train::pass::Pass;
use crate::train::sampling::TREES_PER_HASH;
use crate::train::small::{Scratch, SmallTrees};
use crate::train::walk::{Fallen, TreeWalk};

// trees that share a hash of a row are of one group
const _: () = assert!(TREES_PER_GROUP.is_multiple_of(TREES_PER_HASH));

/// Rows after which 32-bit counters are emptied into 64-bit ones: a row weighs at most 8.
const FLUSH_ROWS: usize = (u32::MAX / 8) as usize;

/// The aggregate function, made for one pass.
#[derive(Debug, Clone)]
pub struct TreeHistogram {
    signature: Signature,
    pass: Arc<Load<Pass>>,
    trees: Arc<Vec<Trees>>,
}

impl TreeHistogram {
    /// The function that counts `pass`.
    pub fn new(pass: impl Into<Arc<Load<Pass>>>) -> Self {
        let pass = pass.into();
        let trees = Arc::new(Trees::of_pass(&pass));
        Self { signature: Signature::any(3, Volatility::Immutable), pass, trees }
    }

    /// What it counts.
    pub fn pass(&self) -> &Load<Pass> {
        &self.pass
    }

    /// The function as SQL calls it.
    pub fn into_udaf(self) -> AggregateUDF {
        self.into()
    }
}

impl PartialEq for TreeHistogram {
    fn eq(&self, other: &Self) -> bool {
        **self.pass == **other.pass
    }
}

impl Eq for TreeHistogram {}

impl std::hash::Hash for TreeHistogram {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.pass.seed.hash(state);
        self.pass.open.len().hash(state);
    }
}

impl AggregateUDFImpl for TreeHistogram {
    fn name(&self) -> &str {
        "tree_histogram"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Binary)
    }

    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(HistogramAccumulator::new(&self.pass, Arc::clone(&self.trees))))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format!("{}[counters]", args.name), DataType::Binary, true))])
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// Neighbouring trees of a pass, by how their rows are counted.
#[derive(Debug)]
enum Trees {
    Small(SmallTrees),
    Large(Vec<TreeWalk>),
}

impl Trees {
    /// All that have open nodes.
    fn of_pass(pass: &Pass) -> Vec<Self> {
        let (mut all, mut first) = (Vec::new(), 0);
        for open in pass.open.chunk_by(|a, b| a.tree / TREES_PER_GROUP == b.tree / TREES_PER_GROUP)
        {
            let first_tree = open[0].tree / TREES_PER_GROUP * TREES_PER_GROUP;
            all.push(match SmallTrees::new(pass, first_tree, open, first) {
                Some(trees) => Self::Small(trees),
                None => Self::Large(TreeWalk::of_open(pass, open, first)),
            });
            let n_counters = open.iter().map(|open| Pass::n_counters(&pass.n_indices, open));
            first += n_counters.sum::<usize>();
        }
        all
    }
}

/// The counters of one partition.
#[derive(Debug)]
struct HistogramAccumulator {
    trees: Arc<Vec<Trees>>,
    n_features: usize,
    n_counters: usize,
    /// Both are empty until there is something to count or to merge.
    recent: Vec<u32>,
    n_recent_rows: usize,
    total: Vec<u64>,
    ordered: Ordered,
    sampler: Sampler,
    scratch: Scratch,
    fallen: Vec<Fallen>,
}

impl HistogramAccumulator {
    fn new(pass: &Pass, trees: Arc<Vec<Trees>>) -> Self {
        Self {
            trees,
            n_features: pass.n_indices.len(),
            n_counters: pass.len(),
            recent: Vec::new(),
            n_recent_rows: 0,
            total: Vec::new(),
            ordered: Ordered::default(),
            sampler: Sampler::new(pass.seed, pass.trees.len()),
            scratch: Scratch::default(),
            fallen: Vec::new(),
        }
    }

    /// Counts a block of rows into every tree.
    fn count(&mut self, block: Block<'_>) {
        self.n_recent_rows += block.keys.len();
        if self.n_recent_rows > FLUSH_ROWS {
            self.flush();
            self.n_recent_rows = block.keys.len();
        }
        if self.recent.is_empty() {
            // written: the first addition to memory that is merely promised to be zero costs two
            // faults of its page, of which the second stops all threads
            self.recent.resize(self.n_counters, 0);
        }
        let block = self.ordered.of(block);
        self.sampler.look_at(&block);
        if self.trees.iter().any(|trees| matches!(trees, Trees::Small(_))) {
            self.scratch.lay_out(&block);
        }
        for trees in self.trees.iter() {
            match trees {
                Trees::Small(small) => {
                    small.find_leaves(&mut self.scratch);
                    for (i, tree) in small.trees().enumerate() {
                        let sample = self.sampler.sample(&block, tree);
                        small.count(i, sample, &mut self.scratch, &mut self.recent);
                    }
                }
                Trees::Large(walks) => {
                    for walk in walks {
                        let sample = self.sampler.sample(&block, walk.tree);
                        walk.count(&block, sample, &mut self.fallen, &mut self.recent);
                    }
                }
            }
        }
    }

    fn flush(&mut self) {
        if self.n_recent_rows == 0 {
            return;
        }
        // as above: written, not promised
        self.total.resize(self.n_counters, 0);
        for (total, recent) in self.total.iter_mut().zip(&self.recent) {
            *total += u64::from(*recent);
        }
        self.recent.fill(0);
        self.n_recent_rows = 0;
    }

    /// The counters, packed.
    fn packed(&mut self) -> Vec<u8> {
        if self.total.is_empty() && !self.recent.is_empty() {
            return pack(&self.recent);
        }
        self.flush();
        // of no rows there are as many, all 0
        self.total.resize(self.n_counters, 0);
        pack(&self.total)
    }
}

/// Counts `rows` (keys, labels, indices) at once, without a query; the counters are
/// [packed](crate::train::counters).
pub fn count_rows(pass: &Pass, rows: &[ArrayRef]) -> Result<Vec<u8>> {
    let mut accumulator = HistogramAccumulator::new(pass, Arc::new(Trees::of_pass(pass)));
    accumulator.update_batch(rows)?;
    Ok(accumulator.packed())
}

impl Accumulator for HistogramAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let (Some(keys), Some(labels), Some(indices)) = (
            values[0].as_primitive_opt::<Int64Type>(),
            values[1].as_primitive_opt::<UInt8Type>(),
            values[2].as_fixed_size_binary_opt(),
        ) else {
            return exec_err!("tree_histogram needs a BIGINT, a TINYINT UNSIGNED and indices");
        };
        let n_rows = keys.len();
        let has_nulls = keys.null_count() + labels.null_count() + indices.null_count() > 0;
        if has_nulls || indices.value_length() as usize != self.n_features * size_of::<u16>() {
            return exec_err!("tree_histogram needs {} indices a row and no null", self.n_features);
        }
        if labels.values().iter().any(|&label| usize::from(label) >= N_CLASSES) {
            return exec_err!("tree_histogram needs labels below {N_CLASSES}");
        }
        let all_indices = indices_of(indices);
        for start in (0..n_rows).step_by(BLOCK_ROWS) {
            let end = n_rows.min(start + BLOCK_ROWS);
            self.count(Block {
                keys: &keys.values()[start..end],
                labels: &labels.values()[start..end],
                indices: &all_indices[start * self.n_features..end * self.n_features],
                n_features: self.n_features,
            });
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Binary(Some(self.packed()))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.total.resize(self.n_counters, 0);
        for state in states[0].as_binary::<i32>().iter().flatten() {
            let mut state = Packed::new(state);
            state
                .add_to(&mut self.total)
                .and_then(|()| state.end())
                .map_err(|e| exec_datafusion_err!("tree_histogram: partial counters: {e}"))?;
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Binary(Some(self.packed())))
    }

    fn size(&self) -> usize {
        let counters = self.recent.len() * 4 + self.total.len() * 8;
        let of_rows = self.ordered.size() + self.sampler.size() + self.scratch.size();
        size_of_val(self) + counters + of_rows + self.fallen.len() * size_of::<Fallen>()
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{Int64Array, UInt8Array};
    use proptest::prelude::*;

    use super::*;
    use crate::encode::encoder::index_array;
    use crate::model::artefact::tests::{random_model, random_tree};
    use crate::train::pass::OpenNode;
    use crate::train::sampling::{bootstrap_weight, group_seed, hash, row_hash};

    /// A pass over trees of two depths, most leaves of which are open.
    fn pass(seed: u64, depths: [u32; 2], n_counted: usize) -> Pass {
        let features = random_model(seed, 0).features;
        let depth = |t: u64| depths[usize::from(t >= TREES_PER_GROUP as u64)];
        let trees: Vec<_> =
            (0..30).map(|t| random_tree(hash(&[seed, t]), depth(t), &features)).collect();
        let mut open = Vec::new();
        for (tree, grown) in trees.iter().enumerate() {
            let first = hash(&[seed, tree as u64, 1]) as usize % (features.len() - n_counted + 1);
            let features: Vec<usize> = (first..first + n_counted).collect();
            let leaves = (0..grown.nodes.len()).filter(|&node| grown.nodes[node].split.is_none());
            // some trees, and some leaves, are done
            let open_of_tree =
                leaves.filter(|&node| !hash(&[seed, tree as u64, node as u64]).is_multiple_of(5));
            open.extend(open_of_tree.map(|node| OpenNode {
                tree,
                node,
                features: features.clone(),
            }));
        }
        let n_indices = features.iter().map(|spec| spec.encoding.n_indices()).collect();
        Pass { seed, n_indices, trees, open }
    }

    /// What the counters are, row by row.
    fn plain(pass: &Pass, keys: &[i64], labels: &[u8], indices: &[u16]) -> Vec<u64> {
        let mut counters = Vec::new();
        for open in &pass.open {
            let seed = group_seed(pass.seed, open.tree / TREES_PER_HASH);
            let mut of_node = vec![0; Pass::n_counters(&pass.n_indices, open)];
            for (row, indices) in indices.chunks_exact(pass.n_indices.len()).enumerate() {
                let (tree, mut node) = (&pass.trees[open.tree], 0);
                while let Some(split) = &tree.nodes[node].split {
                    node = split.left + usize::from(!split.goes_left(indices[split.feature]));
                }
                if node != open.node {
                    continue;
                }
                let bits = row_hash(keys[row], seed) >> (16 * (open.tree % TREES_PER_HASH));
                let mut first = usize::from(labels[row]);
                for &feature in &open.features {
                    of_node[first + usize::from(indices[feature]) * N_CLASSES] +=
                        u64::from(bootstrap_weight(bits as u16));
                    first += pass.n_indices[feature] * N_CLASSES;
                }
            }
            counters.extend(of_node);
        }
        counters
    }

    fn counted(pass: &Pass, keys: &[i64], labels: &[u8], indices: &[u16]) -> Vec<u64> {
        let rows: [ArrayRef; 3] = [
            Arc::new(Int64Array::from(keys.to_vec())),
            Arc::new(UInt8Array::from(labels.to_vec())),
            Arc::new(index_array(indices.to_vec(), pass.n_indices.len()).unwrap()),
        ];
        let packed = count_rows(pass, &rows).unwrap();
        let (mut packed, mut counters) = (Packed::new(&packed), vec![0; pass.len()]);
        packed.add_to(&mut counters).and_then(|()| packed.end()).unwrap();
        counters
    }

    fn random_rows(pass: &Pass, seed: u64, n: usize) -> (Vec<u8>, Vec<u16>) {
        let random = |i: usize, what: u64| hash(&[seed, i as u64, what]) as usize;
        let labels = (0..n).map(|row| (random(row, 0) % N_CLASSES) as u8).collect();
        let n_features = pass.n_indices.len();
        let index = |i: usize| (random(i, 1) % pass.n_indices[i % n_features]) as u16;
        (labels, (0..n * n_features).map(index).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn however_trees_are_counted_counters_are_what_they_are_row_by_row(
            seed: u64,
            depths in [0..6_u32, 0..9_u32],
            n_counted in 1..6_usize,
            n in 0..400_usize,
            days in prop_oneof![Just(None), (1..30_u64).prop_map(Some)],
        ) {
            let pass = pass(seed, depths, n_counted);
            let (labels, indices) = random_rows(&pass, seed, n);
            let key = |row: u64| hash(&[seed, row]) % days.unwrap_or(u64::MAX);
            let keys = (0..n as u64).map(|row| (key(row) as i64).wrapping_add(15_706));
            let keys: Vec<i64> = keys.collect();
            let got = counted(&pass, &keys, &labels, &indices);
            // all of them are too much to print
            prop_assert!(got == plain(&pass, &keys, &labels, &indices));
        }
    }

    #[test]
    fn trees_are_counted_in_both_ways() {
        let ways = |depths| {
            let is_small = |trees: &Trees| matches!(trees, Trees::Small(_));
            Trees::of_pass(&pass(7, depths, 3)).iter().map(is_small).collect::<Vec<_>>()
        };
        assert_eq!(ways([4, 9]), [true, false]);
        assert_eq!(ways([9, 4]), [false, true]);
    }

    #[test]
    fn the_heaviest_rows_of_a_whole_block_fit_their_counters() {
        let pass = pass(7, [0, 0], 3);
        let weight = |key: i64| bootstrap_weight(row_hash(key, group_seed(pass.seed, 0)) as u16);
        let mut heaviest = (0..).filter(|&key| weight(key) == 8);
        let [one, other] = std::array::from_fn(|_| heaviest.next().unwrap());
        let n = BLOCK_ROWS + 3;
        let (labels, indices) = (vec![2; n], vec![0; n * pass.n_indices.len()]);
        // as a run, and row by row
        for keys in [vec![one; n], (0..n).map(|row| [one, other][row % 2]).collect()] {
            let got = counted(&pass, &keys, &labels, &indices);
            assert!(got == plain(&pass, &keys, &labels, &indices));
            assert!(got.contains(&(8 * n as u64)));
        }
    }

    #[test]
    fn blocks_are_ordered_whole_wherever_their_keys_are() {
        let pass = pass(11, [3, 7], 3);
        let n = 2 * BLOCK_ROWS + 5;
        let (labels, indices) = random_rows(&pass, 11, n);
        for first in [i64::MIN, 15_706, i64::MAX - 2] {
            let keys: Vec<i64> = (0..n).map(|row| first + (row % 3) as i64).collect();
            let got = counted(&pass, &keys, &labels, &indices);
            assert!(got == plain(&pass, &keys, &labels, &indices), "{first}");
        }
    }
}
