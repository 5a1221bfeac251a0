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
use crate::train::counters::{Packed, pack};
use crate::train::pass::Pass;
use crate::train::sampling::{TREES_PER_HASH, bootstrap_weight, group_seed, row_hash};
use crate::train::walk::{Block, TreeWalk};

/// Rows that are counted tree by tree before the next ones are looked at: their indices and hashes
/// stay in the second-level cache while every tree reads them.
const BLOCK_ROWS: usize = 4096;
/// Rows after which 32-bit counters are emptied into 64-bit ones: a row weighs at most 8.
const FLUSH_ROWS: usize = (u32::MAX / 8) as usize;

/// The aggregate function, made for one pass.
#[derive(Debug, Clone)]
pub struct TreeHistogram {
    signature: Signature,
    pass: Arc<Load<Pass>>,
    walks: Arc<Vec<TreeWalk>>,
}

impl TreeHistogram {
    /// The function that counts `pass`.
    pub fn new(pass: impl Into<Arc<Load<Pass>>>) -> Self {
        let pass = pass.into();
        let walks = Arc::new(TreeWalk::of_pass(&pass));
        Self { signature: Signature::any(3, Volatility::Immutable), pass, walks }
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
        Ok(Box::new(HistogramAccumulator::new(&self.pass, Arc::clone(&self.walks))))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format!("{}[counters]", args.name), DataType::Binary, true))])
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// The counters of one partition.
#[derive(Debug)]
struct HistogramAccumulator {
    walks: Arc<Vec<TreeWalk>>,
    n_features: usize,
    /// A seed for each group of trees that share a hash.
    seeds: Vec<u64>,
    n_counters: usize,
    /// Both are empty until there is something to count or to merge.
    recent: Vec<u32>,
    n_recent_rows: usize,
    total: Vec<u64>,
    hashes: Vec<u64>,
    weights: Vec<u8>,
    drawn: Vec<u16>,
    nodes: Vec<u16>,
}

impl HistogramAccumulator {
    fn new(pass: &Pass, walks: Arc<Vec<TreeWalk>>) -> Self {
        let n_groups = pass.trees.len().div_ceil(TREES_PER_HASH);
        Self {
            walks,
            n_features: pass.n_indices.len(),
            seeds: (0..n_groups).map(|group| group_seed(pass.seed, group)).collect(),
            n_counters: pass.len(),
            recent: Vec::new(),
            n_recent_rows: 0,
            total: Vec::new(),
            hashes: Vec::new(),
            weights: vec![0; BLOCK_ROWS],
            drawn: vec![0; BLOCK_ROWS],
            nodes: vec![0; BLOCK_ROWS],
        }
    }

    /// Counts a block of rows into every tree. `indices` holds `n_features` indices a row.
    fn count(&mut self, keys: &[i64], labels: &[u8], indices: &[u16]) {
        self.n_recent_rows += keys.len();
        if self.n_recent_rows > FLUSH_ROWS {
            self.flush();
            self.n_recent_rows = keys.len();
        }
        if self.recent.is_empty() {
            // written: the first addition to memory that is merely promised to be zero costs two
            // faults of its page, of which the second stops all threads
            self.recent.resize(self.n_counters, 0);
        }
        let walks = Arc::clone(&self.walks);
        let mut hashed_group = None;
        for walk in walks.iter() {
            let group = walk.tree / TREES_PER_HASH;
            if hashed_group != Some(group) {
                let seed = self.seeds[group];
                self.hashes.clear();
                self.hashes.extend(keys.iter().map(|&key| row_hash(key, seed)));
                hashed_group = Some(group);
            }
            let n_drawn = self.draw_rows(16 * (walk.tree % TREES_PER_HASH) as u32);
            let (n_features, weights) = (self.n_features, self.weights.as_slice());
            let block = Block { labels, indices, n_features, weights };
            walk.count(&block, &self.drawn[..n_drawn], &mut self.nodes, &mut self.recent);
        }
    }

    /// Lists the rows of the block that are in a tree's sample, and weighs all.
    fn draw_rows(&mut self, lane_shift: u32) -> usize {
        // two loops: the first has no branch and no dependence, so the compiler vectorises it
        for (weight, hash) in self.weights.iter_mut().zip(&self.hashes) {
            *weight = bootstrap_weight((hash >> lane_shift) as u16);
        }
        let mut n_drawn = 0;
        for (row, weight) in self.weights[..self.hashes.len()].iter().enumerate() {
            self.drawn[n_drawn] = row as u16;
            n_drawn += usize::from(*weight > 0);
        }
        n_drawn
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
    let mut accumulator = HistogramAccumulator::new(pass, Arc::new(TreeWalk::of_pass(pass)));
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
            self.count(
                &keys.values()[start..end],
                &labels.values()[start..end],
                &all_indices[start * self.n_features..end * self.n_features],
            );
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
        size_of_val(self) + self.recent.len() * 4 + self.total.len() * 8 + BLOCK_ROWS * 13
    }
}
