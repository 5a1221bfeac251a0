//! A model made ready to score columns of values, fast.
//!
//! Trees of at most 32 leaves are evaluated after QuickScorer (Lucchese et al., SIGIR 2015): each
//! (feature, index) has a row of bit masks, one a tree, that strike out the leaves which the index
//! cannot reach; the leftmost bit that survives all features is the exit leaf. Since features are
//! indices, the row is looked up, not searched. Larger trees are walked (`flat.rs`).

use datafusion::arrow::array::StructArray;
use datafusion::common::Result;

use crate::N_CLASSES;
use crate::encode::encoder::FeatureEncoder;
use crate::model::artefact::{Model, Tree, most_probable};
use crate::model::attribution;
use crate::model::calibration::calibrate;
use crate::model::flat::{BLOCK_ROWS, FlatForest};

/// Leaves that a mask can hold.
const LEAVES_MAX: usize = 32;

/// Words of masks that are combined together, in registers.
const LANES: usize = 4;
/// Masks in a word.
const MASKS: usize = 2;

/// A model that is ready to score.
#[derive(Debug)]
pub struct Scorer {
    version: String,
    model: Model,
    encoder: FeatureEncoder,
    flat: FlatForest,
    masks: Option<Masks>,
}

/// The scores of a batch.
#[derive(Debug, Default, PartialEq)]
pub struct Scores {
    /// Class of each row.
    pub classes: Vec<i32>,
    /// [`N_CLASSES`] probabilities a row.
    pub probabilities: Vec<f64>,
}

impl Scorer {
    /// Prepares a model that is known by `version`.
    pub fn new(model: Model, version: impl Into<String>) -> Self {
        let features = model.features.iter().map(|spec| (spec.name.as_str(), &spec.encoding));
        let encoder = FeatureEncoder::new(features);
        let flat = FlatForest::new(&model.trees, &model.features);
        Self { version: version.into(), masks: Masks::new(&model), flat, encoder, model }
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The name of the model: the SHA-256 of its artefact.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What encodes the features that the model uses.
    pub fn encoder(&self) -> &FeatureEncoder {
        &self.encoder
    }

    /// Scores rows of the struct `features`.
    pub fn score(&self, features: &StructArray) -> Result<Scores> {
        Ok(self.score_indices(&self.encoder.encode(features)?))
    }

    /// Scores rows that were encoded by [`encoder`](Self::encoder).
    pub fn score_indices(&self, indices: &[u16]) -> Scores {
        let n_features = self.encoder.n_features();
        let n_rows = indices.len() / n_features;
        let mut sums = Vec::with_capacity(n_rows);
        match &self.masks {
            Some(masks) => masks.sums(indices, n_features, &mut sums),
            None => self.flat.sums(indices, n_features, &mut sums),
        }
        let n_trees = self.model.trees.len() as f64;
        let mut rows = sums;
        rows.as_flattened_mut().iter_mut().for_each(|sum| *sum /= n_trees);
        calibrate(&mut rows, self.model.temperature);
        Scores {
            classes: rows.iter().map(|row| most_probable(row) as i32).collect(),
            probabilities: rows.into_flattened(),
        }
    }

    /// [`Model::contributions`] of each row, one after the other, faster.
    pub fn contributions(&self, indices: &[u16]) -> Vec<[f64; N_CLASSES]> {
        let n_features = self.encoder.n_features();
        let mut changes = vec![[0.0; N_CLASSES]; indices.len()];
        let blocks = changes.chunks_mut(BLOCK_ROWS * n_features);
        for (changes, indices) in blocks.zip(indices.chunks(BLOCK_ROWS * n_features)) {
            let mut leaves = vec![[0.0; N_CLASSES]; indices.len() / n_features];
            self.flat.changes(indices, n_features, changes, &mut leaves);
            let (n_trees, temperature) = (self.model.trees.len(), self.model.temperature);
            attribution::contributions(changes, &mut leaves, n_trees, temperature);
        }
        changes
    }
}

/// The forest as bit masks.
#[derive(Debug)]
struct Masks {
    /// Words of an index: a mask a tree, filled up to whole [`LANES`].
    stride: usize,
    /// `stride` masks for each index of each feature, two in a word.
    of_index: Vec<u64>,
    /// Where the masks of a feature begin.
    first: Vec<usize>,
    /// Shares of the classes at leaf `l` of tree `t`, at `t * LEAVES_MAX + l`.
    leaves: Vec<[f64; N_CLASSES]>,
}

impl Masks {
    fn new(model: &Model) -> Option<Self> {
        let n_trees = model.trees.len();
        let stride = n_trees.div_ceil(MASKS).next_multiple_of(LANES);
        let mut first = Vec::new();
        let mut n_masks = 0;
        for feature in &model.features {
            first.push(n_masks);
            n_masks += feature.encoding.n_indices() * stride;
        }
        let leaves = vec![[0.0; N_CLASSES]; n_trees * LEAVES_MAX];
        let mut masks = Self { stride, of_index: vec![u64::MAX; n_masks], first, leaves };
        for (t, tree) in model.trees.iter().enumerate() {
            if tree.nodes.iter().filter(|node| node.split.is_none()).count() > LEAVES_MAX {
                return None;
            }
            masks.add_subtree(model, t, tree, 0, &mut 0);
        }
        Some(masks)
    }

    /// Numbers the leaves below `node` from left to right, from `next_leaf` on.
    fn add_subtree(
        &mut self,
        model: &Model,
        t: usize,
        tree: &Tree,
        node: usize,
        next_leaf: &mut usize,
    ) {
        let Some(split) = &tree.nodes[node].split else {
            self.leaves[t * LEAVES_MAX + *next_leaf] = tree.nodes[node].probabilities();
            *next_leaf += 1;
            return;
        };
        let first_leaf = *next_leaf;
        self.add_subtree(model, t, tree, split.left, next_leaf);
        let n_left = *next_leaf - first_leaf;
        let left_leaves = ((1_u64 << n_left) - 1) << first_leaf << (32 * (t % MASKS));
        for index in 0..model.features[split.feature].encoding.n_indices() {
            if !split.goes_left(index as u16) {
                let word = self.first[split.feature] + index * self.stride + t / MASKS;
                self.of_index[word] &= !left_leaves;
            }
        }
        self.add_subtree(model, t, tree, split.left + 1, next_leaf);
    }

    /// Sum of the shares at the leaves that each row falls to, in the order of the trees.
    fn sums(&self, indices: &[u16], n_features: usize, sums: &mut Vec<[f64; N_CLASSES]>) {
        let mut rows = vec![0; n_features];
        for indices in indices.chunks_exact(n_features) {
            sums.push(self.sum(indices, &mut rows));
        }
    }

    /// `rows` is scratch space, an element a feature.
    #[inline]
    fn sum(&self, indices: &[u16], rows: &mut [usize]) -> [f64; N_CLASSES] {
        for ((row, &index), first) in rows.iter_mut().zip(indices).zip(&self.first) {
            *row = first + usize::from(index) * self.stride;
        }
        let mut sum = [0.0; N_CLASSES];
        for (lane, leaves) in self.leaves.chunks(LANES * MASKS * LEAVES_MAX).enumerate() {
            let mut alive = [u64::MAX; LANES];
            for row in &*rows {
                let masks = &self.of_index[row + lane * LANES..][..LANES];
                for (alive, mask) in alive.iter_mut().zip(masks) {
                    *alive &= mask;
                }
            }
            for (tree, leaves) in leaves.chunks_exact(LEAVES_MAX).enumerate() {
                let alive = (alive[tree / MASKS] >> (32 * (tree % MASKS))) as u32;
                // never 32: the exit leaf survives
                let leaf = &leaves[alive.trailing_zeros() as usize % LEAVES_MAX];
                for (total, p) in sum.iter_mut().zip(leaf) {
                    *total += p;
                }
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{
        Array, ArrayRef, AsArray, Float64Array, Int32Array, StringArray,
    };
    use datafusion::arrow::compute::cast;
    use datafusion::arrow::datatypes::{DataType, Field, Float64Type};
    use proptest::prelude::*;

    use super::*;
    use crate::encode::encoder::Encoding;
    use crate::model::artefact::tests::{example, random_model};

    type Row = (Option<f64>, Option<f64>, Option<i32>, Option<String>, Option<String>);

    fn a_row() -> impl Strategy<Value = Row> {
        let number = || proptest::option::of(prop_oneof![-50.0..400.0, Just(f64::NAN), Just(-0.0)]);
        let text = || proptest::option::of("[A-C]{0,2}|a-long-category|[A-Z]{3}-[A-Z]{3}");
        (number(), number(), proptest::option::of(-1..40_i32), text(), text())
    }

    /// The struct `features`: what the random models use, in another order, and a field more.
    fn features(rows: &[Row]) -> StructArray {
        let delay: ArrayRef = Arc::new(Float64Array::from_iter(rows.iter().map(|r| r.0)));
        let distance: ArrayRef = Arc::new(Float64Array::from_iter(rows.iter().map(|r| r.1)));
        let day: ArrayRef = Arc::new(Int32Array::from_iter(rows.iter().map(|r| r.2)));
        let carrier: ArrayRef = Arc::new(StringArray::from_iter(rows.iter().map(|r| r.3.clone())));
        let route: ArrayRef = Arc::new(StringArray::from_iter(rows.iter().map(|r| r.4.clone())));
        let fields = [
            ("route", route),
            ("dest", Arc::clone(&carrier)),
            ("carrier", carrier),
            ("day_of_month", Arc::clone(&day)),
            ("day_of_week", day),
            ("distance", distance),
            ("dep_delay", delay),
        ];
        let fields = fields.map(|(name, column)| {
            (Arc::new(Field::new(name, column.data_type().clone(), true)), column)
        });
        StructArray::from(fields.to_vec())
    }

    /// The same, value by value: the definition.
    fn row_by_row(model: &Model, features: &StructArray, row: usize) -> [f64; N_CLASSES] {
        let index = |spec: &crate::model::artefact::FeatureSpec| {
            let column = features.column_by_name(&spec.name).unwrap();
            let valid = column.is_valid(row);
            match &spec.encoding {
                Encoding::Numeric(_) => {
                    let numbers = cast(column, &DataType::Float64).unwrap();
                    let number = numbers.as_primitive::<Float64Type>().value(row);
                    spec.encoding.index_of_number(valid.then_some(number))
                }
                Encoding::Categorical(_) => {
                    let text = column.as_string::<i32>().value(row);
                    spec.encoding.index_of_category(valid.then_some(text))
                }
            }
        };
        model.probabilities(&model.features.iter().map(index).collect::<Vec<u16>>())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn scoring_equals_the_plain_evaluation_bit_for_bit(
            seed: u64,
            depth in 0..8_u32,
            rows in proptest::collection::vec(a_row(), 0..40),
        ) {
            let temperature = [1.0, 0.8][usize::from(seed.is_multiple_of(2))];
            let model = Model { temperature, ..random_model(seed, depth) };
            let features = features(&rows);
            let scorer = Scorer::new(model.clone(), "v");
            let scores = scorer.score(&features).unwrap();
            for row in 0..rows.len() {
                let want = row_by_row(&model, &features, row);
                let got = &scores.probabilities[row * N_CLASSES..][..N_CLASSES];
                prop_assert_eq!(got.iter().map(|p| p.to_bits()).collect::<Vec<_>>(),
                    want.iter().map(|p| p.to_bits()).collect::<Vec<_>>());
                let class = crate::model::artefact::most_probable(&want) as i32;
                prop_assert_eq!(scores.classes[row], class);
            }
            let indices = scorer.encoder().encode(&features).unwrap();
            let contributions = scorer.contributions(&indices);
            for (row, indices) in indices.chunks_exact(6).enumerate() {
                prop_assert_eq!(&contributions[row * 6..][..6], model.contributions(indices));
            }
        }
    }

    #[test]
    fn a_row_that_is_null_has_no_value_at_all() {
        let row = (Some(12.0), Some(2475.0), Some(7), Some("A".to_owned()), Some("BC".to_owned()));
        let (fields, columns, _) = features(&[row.clone(), row]).into_parts();
        let features = StructArray::new(fields, columns, Some(vec![true, false].into()));
        let scorer = Scorer::new(example(), "v");
        let indices = scorer.encoder().encode(&features).unwrap();
        let (first, second) = indices.split_at(scorer.encoder().n_features());
        assert!(first.iter().all(|&index| index > 0), "{first:?}");
        assert!(second.iter().all(|&index| index == 0), "{second:?}");
    }

    #[test]
    fn rows_are_walked_by_the_block_in_their_order() {
        let model = random_model(3, 9);
        let random = |i: u64| crate::train::sampling::hash(&[i]);
        let n_indices: Vec<u64> =
            model.features.iter().map(|spec| spec.encoding.n_indices() as u64).collect();
        let n_rows = 2 * crate::model::flat::BLOCK_ROWS + 3;
        let indices: Vec<u16> = (0..n_rows as u64 * 6)
            .map(|i| (random(i) % n_indices[i as usize % 6]) as u16)
            .collect();
        let scorer = Scorer::new(model.clone(), "v");
        let scores = scorer.score_indices(&indices);
        let contributions = scorer.contributions(&indices);
        for (row, indices) in indices.chunks_exact(6).enumerate() {
            let got = &scores.probabilities[row * N_CLASSES..][..N_CLASSES];
            assert_eq!(got, model.probabilities(indices), "row {row}");
            assert_eq!(contributions[row * 6..][..6], model.contributions(indices), "row {row}");
        }
    }

    #[test]
    fn small_trees_use_masks_and_large_ones_are_walked() {
        assert!(Scorer::new(example(), "v").masks.is_some());
        assert!(Scorer::new(random_model(1, 7), "v").masks.is_none());
    }
}
