//! `tree_histogram(row_key, label, indices)`: counts classes per open node, feature and index.
//!
//! The forest so far travels inside the function, not as an argument: an argument would be
//! expanded to an array for every batch. Each partition drops its rows down each tree to the open
//! node they belong to and adds their bootstrap weight. What comes out are the counters of each
//! partition, [packed](crate::train::counters); whoever splits adds them up, node by node. They are
//! integers, so neither order nor partitioning shows in their sums.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, LargeBinaryBuilder, ListArray};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Int64Type, UInt8Type};
use datafusion::common::utils::SingleRowListArrayBuilder;
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
use crate::train::block::{BLOCK_ROWS, Block, LARGE_BLOCK_ROWS, Ordered, Rows, Sampler};
use crate::train::counters::{Packed, pack};
use crate::train::layout::{Counters, Layout};
use crate::train::pass::Pass;
use crate::train::sampling::TREES_PER_HASH;
use crate::train::small::{Scratch, SmallTrees};
use crate::train::walk::{Fall, TreeWalk};

// trees that share a hash of a row are of one group
const _: () = assert!(TREES_PER_GROUP.is_multiple_of(TREES_PER_HASH));

/// Rows after which 32-bit counters are emptied into 64-bit ones: a row weighs at most 8.
const FLUSH_ROWS: usize = (u32::MAX / 8) as usize;

/// The aggregate function, made for one pass.
#[derive(Debug, Clone)]
pub struct TreeHistogram {
    signature: Signature,
    pass: Arc<Load<Pass>>,
    counted: Arc<CountedForest>,
}

impl TreeHistogram {
    /// The function that counts `pass`.
    pub fn new(pass: impl Into<Arc<Load<Pass>>>) -> Self {
        let pass = pass.into();
        let counted = Arc::new(CountedForest::new(&pass));
        Self { signature: Signature::any(3, Volatility::Immutable), pass, counted }
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
        Ok(parts_type())
    }

    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(HistogramAccumulator::new(&self.pass, Arc::clone(&self.counted))))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format!("{}[counters]", args.name), parts_type(), true))])
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// The type of packed counters in parts, which are to be added up.
pub fn parts_type() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::LargeBinary, true)))
}

/// The parts in one row.
pub fn packed_parts(result: &ListArray, row: usize) -> Vec<Vec<u8>> {
    let parts = result.value(row);
    parts.as_binary::<i64>().iter().flatten().map(<[u8]>::to_vec).collect()
}

/// The trees of a pass that have open nodes, by how their rows are counted, and where.
#[derive(Debug, Default)]
struct CountedForest {
    small: Vec<SmallTrees>,
    large: Vec<TreeWalk>,
    layout: Layout,
}

impl CountedForest {
    fn new(pass: &Pass) -> Self {
        let mut forest = Self::default();
        for open in pass.open.chunk_by(|a, b| a.tree / TREES_PER_GROUP == b.tree / TREES_PER_GROUP)
        {
            let (layout, group) = (&mut forest.layout, open[0].tree / TREES_PER_GROUP);
            let first = layout.n_wide();
            match SmallTrees::new(pass, group * TREES_PER_GROUP, open, first) {
                Some(trees) => {
                    open.iter().for_each(|node| _ = layout.add_wide(pass, node));
                    forest.small.push(trees);
                }
                None => {
                    let places: Vec<_> = open.iter().map(|node| layout.add(pass, node)).collect();
                    forest.large.extend(TreeWalk::of_open(pass, open, &places));
                }
            }
        }
        forest
    }
}

/// The counters of one partition.
#[derive(Debug)]
struct HistogramAccumulator {
    forest: Arc<CountedForest>,
    n_features: usize,
    n_counters: usize,
    recent: Counters,
    n_recent_rows: usize,
    /// Empty until there are more rows than recent counters can hold, or many parts of others.
    total: Vec<u64>,
    /// Those of other partitions, packed.
    others: Vec<Vec<u8>>,
    /// Rows that large trees have not counted yet.
    waiting: Rows,
    ordered: Ordered,
    sampler: Sampler,
    scratch: Scratch,
    fall: Fall,
}

impl HistogramAccumulator {
    fn new(pass: &Pass, forest: Arc<CountedForest>) -> Self {
        Self {
            forest,
            n_features: pass.n_indices.len(),
            n_counters: pass.len(),
            recent: Counters::default(),
            n_recent_rows: 0,
            total: Vec::new(),
            others: Vec::new(),
            waiting: Rows::default(),
            ordered: Ordered::default(),
            sampler: Sampler::new(pass.seed, pass.trees.len()),
            scratch: Scratch::default(),
            fall: Fall::default(),
        }
    }

    /// Counts a block of rows into every tree, the large ones when there are enough of them.
    fn count(&mut self, block: Block<'_>) {
        if self.n_recent_rows + block.keys.len() > FLUSH_ROWS {
            self.flush();
        }
        self.n_recent_rows += block.keys.len();
        self.recent.make_room(&self.forest.layout);
        if !self.forest.large.is_empty() {
            if self.waiting.len() + block.keys.len() > LARGE_BLOCK_ROWS {
                self.count_waiting();
            }
            self.waiting.push(&block);
        }
        if self.forest.small.is_empty() {
            return;
        }
        let block = self.ordered.of(block);
        self.sampler.look_at(&block);
        self.scratch.lay_out(&block);
        for small in &self.forest.small {
            small.find_leaves(&mut self.scratch);
            for (i, tree) in small.trees().enumerate() {
                let sample = self.sampler.sample(&block, tree);
                small.count(i, sample, &mut self.scratch, &mut self.recent.wide);
            }
        }
    }

    /// Counts the rows that wait into the large trees.
    fn count_waiting(&mut self) {
        if self.waiting.len() == 0 {
            return;
        }
        let block = self.ordered.of(self.waiting.block(self.n_features));
        self.sampler.look_at(&block);
        for walk in &self.forest.large {
            let sample = self.sampler.sample(&block, walk.tree);
            walk.count(&block, sample, &mut self.fall, &mut self.recent);
        }
        self.waiting.clear();
    }

    fn flush(&mut self) {
        if self.n_recent_rows == 0 {
            return;
        }
        self.count_waiting();
        // written, not promised, as those of rows
        self.total.resize(self.n_counters, 0);
        self.recent.empty_into(&mut self.total, &self.forest.layout);
        self.n_recent_rows = 0;
    }

    /// The counters of its own rows, packed.
    fn packed(&mut self) -> Vec<u8> {
        self.count_waiting();
        if self.total.is_empty() && self.n_recent_rows > 0 {
            return self.recent.pack(&self.forest.layout);
        }
        self.flush();
        // of no rows there are as many, all 0
        self.total.resize(self.n_counters, 0);
        pack(&self.total)
    }

    /// Unpacks the counters of others, where they would fill more bytes than their sums.
    fn add_up_others(&mut self) -> Result<()> {
        self.total.resize(self.n_counters, 0);
        for part in self.others.drain(..) {
            let mut part = Packed::new(&part);
            part.add_to(&mut self.total)
                .and_then(|()| part.end())
                .map_err(|e| exec_datafusion_err!("tree_histogram: partial counters: {e}"))?;
        }
        Ok(())
    }

    /// All counters: its own, if it has rows or there are no others, and those of others.
    fn parts(&mut self) -> ScalarValue {
        let mut parts = LargeBinaryBuilder::new();
        if self.n_recent_rows > 0 || !self.total.is_empty() || self.others.is_empty() {
            parts.append_value(self.packed());
        }
        self.others.drain(..).for_each(|part| parts.append_value(part));
        let parts: ArrayRef = Arc::new(parts.finish());
        ScalarValue::List(Arc::new(SingleRowListArrayBuilder::new(parts).build_list_array()))
    }
}

/// Counts `rows` (keys, labels, indices) at once, without a query; the counters are
/// [packed](crate::train::counters).
pub fn count_rows(pass: &Pass, rows: &[ArrayRef]) -> Result<Vec<u8>> {
    let mut accumulator = HistogramAccumulator::new(pass, Arc::new(CountedForest::new(pass)));
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
        Ok(vec![self.parts()])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let states = states[0].as_list::<i32>();
        self.others.extend((0..states.len()).flat_map(|row| packed_parts(states, row)));
        let n_bytes: usize = self.others.iter().map(Vec::len).sum();
        if n_bytes > self.n_counters * size_of::<u64>() {
            self.add_up_others()?;
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(self.parts())
    }

    fn size(&self) -> usize {
        let others: usize = self.others.iter().map(Vec::len).sum();
        let counters = self.recent.size() + size_of_val(&self.total[..]) + others;
        let of_rows = self.waiting.size() + self.ordered.size() + self.sampler.size();
        size_of_val(self) + counters + of_rows + self.scratch.size() + self.fall.size()
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{Int64Array, UInt8Array};
    use proptest::prelude::*;

    use super::*;
    use crate::encode::encoder::{Encoding, index_array};
    use crate::model::artefact::ForestParams;
    use crate::model::artefact::tests::{random_model, random_tree};
    use crate::train::pass::OpenNode;
    use crate::train::sampling::{bootstrap_weight, group_seed, hash, row_hash};
    use crate::train::split::Growth;

    /// A pass over trees of two depths, most leaves of which are open, and some of which have more
    /// rows than narrow counters hold.
    fn pass(seed: u64, depths: [u32; 2], n_counted: usize) -> Pass {
        let features = random_model(seed, 0).features;
        let depth = |t: u64| depths[usize::from(t >= TREES_PER_GROUP as u64)];
        let mut trees: Vec<_> =
            (0..30).map(|t| random_tree(hash(&[seed, t]), depth(t), &features)).collect();
        for (i, node) in trees.iter_mut().flat_map(|tree| &mut tree.nodes).enumerate() {
            node.counts[0] += [0, 1 << 16][usize::from(hash(&[seed, i as u64]).is_multiple_of(3))];
        }
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

    fn arrays(pass: &Pass, keys: &[i64], labels: &[u8], indices: &[u16]) -> [ArrayRef; 3] {
        [
            Arc::new(Int64Array::from(keys.to_vec())),
            Arc::new(UInt8Array::from(labels.to_vec())),
            Arc::new(index_array(indices.to_vec(), pass.n_indices.len()).unwrap()),
        ]
    }

    fn unpacked(pass: &Pass, parts: &[Vec<u8>]) -> Vec<u64> {
        let mut counters = vec![0; pass.len()];
        for part in parts {
            let mut part = Packed::new(part);
            part.add_to(&mut counters).and_then(|()| part.end()).unwrap();
        }
        counters
    }

    fn counted(pass: &Pass, keys: &[i64], labels: &[u8], indices: &[u16]) -> Vec<u64> {
        let rows = arrays(pass, keys, labels, indices);
        unpacked(pass, &[count_rows(pass, &rows).unwrap()])
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
            let forest = CountedForest::new(&pass(7, depths, 3));
            let n_small =
                forest.small.iter().flat_map(SmallTrees::trees).filter(|&t| t < 24).count();
            let n_large = forest.large.iter().filter(|walk| walk.tree < 24).count();
            (n_small > 0, n_large > 0, forest.small.len())
        };
        assert_eq!(ways([4, 9]), (true, false, 1));
        assert_eq!(ways([9, 4]), (false, true, 1));
    }

    #[test]
    fn the_counters_of_a_pass_fit_the_memory_that_it_may_take() {
        const BYTES: usize = 160_000;
        // of 100 indices, and labels that nothing explains: trees grow as deep as they may
        let encoding = Encoding::Numeric((0..98).map(f64::from).collect());
        let params =
            ForestParams { n_trees: 3, depth: 8, features_per_node: 2, ..ForestParams::original() };
        let mut growth = Growth::new(&params, &[&encoding; 2]);
        let first = growth.next_pass(BYTES).unwrap();
        let (labels, indices) = random_rows(&first, 3, 5_000);
        let keys: Vec<i64> = (0..5_000).map(|row| hash(&[row]) as i64).collect();
        let rows = arrays(&first, &keys, &labels, &indices);
        let mut n_open = 0;
        while let Some(pass) = growth.next_pass(BYTES) {
            let mut counters = Counters::default();
            counters.make_room(&CountedForest::new(&pass).layout);
            let packed = count_rows(&pass, &rows).unwrap();
            assert!(counters.size() + packed.len() <= BYTES);
            n_open = n_open.max(pass.open.len());
            growth.split(&pass, &[packed]).unwrap();
        }
        // by the twelve bytes of a wide counter there were room for 16 nodes
        assert!(n_open > 40, "{n_open}");
    }

    #[test]
    fn the_heaviest_rows_of_a_whole_block_fit_their_counters() {
        let mut pass = pass(7, [0, 0], 3);
        let weight = |key: i64| bootstrap_weight(row_hash(key, group_seed(pass.seed, 0)) as u16);
        let mut heaviest = (0..).filter(|&key| weight(key) == 8);
        let [one, other] = std::array::from_fn(|_| heaviest.next().unwrap());
        // with more than 16 features, rows are counted as those of large trees, in counters that
        // are as wide as what is known of the node wants; of a root nothing is
        for (n_features, weight, n) in [
            (pass.n_indices.len(), 0, BLOCK_ROWS + 3),
            (17, 0, BLOCK_ROWS + 3),
            (17, 65_536, BLOCK_ROWS),
            (17, 65_535, BLOCK_ROWS - 1),
        ] {
            pass.n_indices.resize(n_features, 1);
            pass.trees.iter_mut().for_each(|tree| tree.nodes[0].counts = [0, 0, weight, 0]);
            let (labels, indices) = (vec![2; n], vec![0; n * n_features]);
            // as a run, and row by row
            for keys in [vec![one; n], (0..n).map(|row| [one, other][row % 2]).collect()] {
                let got = counted(&pass, &keys, &labels, &indices);
                assert!(got == plain(&pass, &keys, &labels, &indices));
                assert!(got.contains(&(8 * n as u64)));
            }
        }
    }

    #[test]
    fn blocks_are_ordered_whole_wherever_their_keys_are() {
        let pass = pass(11, [3, 7], 3);
        let n = LARGE_BLOCK_ROWS + BLOCK_ROWS + 5;
        let (labels, indices) = random_rows(&pass, 11, n);
        for first in [i64::MIN, 15_706, i64::MAX - 2] {
            let keys: Vec<i64> = (0..n).map(|row| first + (row % 3) as i64).collect();
            let got = counted(&pass, &keys, &labels, &indices);
            assert!(got == plain(&pass, &keys, &labels, &indices), "{first}");
        }
    }

    #[test]
    fn counters_that_were_emptied_or_merged_are_what_they_were() {
        let pass = pass(13, [3, 7], 3);
        let n = 1_000;
        let (labels, indices) = random_rows(&pass, 13, n);
        let keys: Vec<i64> = (0..n as i64).collect();
        let want = plain(&pass, &keys, &labels, &indices);
        let rows = arrays(&pass, &keys, &labels, &indices);
        let forest = Arc::new(CountedForest::new(&pass));
        let new = || HistogramAccumulator::new(&pass, Arc::clone(&forest));
        let [mut emptied, mut other, mut merged] = std::array::from_fn(|_| new());
        for (part, first) in (0..n).step_by(99).enumerate() {
            let rows = rows.each_ref().map(|rows| rows.slice(first, 99.min(n - first)));
            emptied.update_batch(&rows).unwrap();
            // of some rows before others come, of all at the end, of none
            (0..2).for_each(|_| emptied.flush());
            let one = if part % 2 == 0 { &mut merged } else { &mut other };
            one.update_batch(&rows).unwrap();
        }
        let array = |value: Result<ScalarValue>| value.unwrap().to_array().unwrap();
        let evaluated = |one: &mut HistogramAccumulator| {
            let parts = packed_parts(array(one.evaluate()).as_list(), 0);
            (parts.len(), unpacked(&pass, &parts))
        };
        assert!(evaluated(&mut emptied) == (1, want.clone()));
        let state = array(other.state().map(|mut state| state.remove(0)));
        merged.flush();
        merged.merge_batch(&[Arc::clone(&state)]).unwrap();
        // as it is where nothing is counted, only merged
        let mut twice = new();
        twice.merge_batch(&[array(merged.state().map(|mut state| state.remove(0)))]).unwrap();
        assert!(evaluated(&mut twice) == (2, want));
        assert!(evaluated(&mut new()) == (1, vec![0; pass.len()]));
        // many parts are not kept apart
        let mut many = new();
        (0..100).for_each(|_| many.merge_batch(&[Arc::clone(&state)]).unwrap());
        let (n_parts, sums) = evaluated(&mut many);
        let of_one: Vec<u64> = unpacked(&pass, &packed_parts(state.as_list(), 0));
        assert!(n_parts < 50 && sums.iter().zip(of_one).all(|(sum, one)| *sum == 100 * one));
    }
}
