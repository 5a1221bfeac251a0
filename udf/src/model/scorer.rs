//! A model made ready to score columns of values, fast.
//!
//! Trees of at most 32 leaves are evaluated after QuickScorer (Lucchese et al., SIGIR 2015): each
//! (feature, code) has a row of bit masks, one a tree, that strike out the leaves which the code
//! cannot reach; the leftmost bit that survives all features is the exit leaf. Since features are
//! codes, the row is looked up, not searched. Larger trees are walked.

use datafusion::arrow::array::ArrayRef;
use datafusion::common::Result;

use crate::N_CLASSES;
use crate::encode::codes::Encoder;
use crate::encode::features;
use crate::model::artefact::{Model, Tree};

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
    /// Position in [`features::FEATURES`] and encoder of each feature of the model.
    inputs: Vec<(usize, Encoder)>,
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
        let inputs = model
            .features
            .iter()
            .map(|spec| {
                let position = features::position(&spec.name).expect("a model was checked");
                (position, Encoder::new(&spec.codes))
            })
            .collect();
        Self { version: version.into(), masks: Masks::new(&model), inputs, model }
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The name of the model: the SHA-256 of its artefact.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Positions in [`features::FEATURES`] of the features that the model looks at.
    pub fn positions(&self) -> impl Iterator<Item = usize> {
        self.inputs.iter().map(|input| input.0)
    }

    /// Scores `n_rows` rows; `columns` holds all of [`features::FEATURES`], in order.
    pub fn score(&self, columns: &[ArrayRef], n_rows: usize) -> Result<Scores> {
        let n_features = self.inputs.len();
        let mut scores = Scores {
            classes: Vec::with_capacity(n_rows),
            probabilities: Vec::with_capacity(n_rows * N_CLASSES),
        };
        let mut rows = vec![0; n_features];
        let codes = self.codes(columns, n_rows)?;
        for codes in codes.chunks_exact(n_features) {
            let probabilities = match &self.masks {
                Some(masks) => masks.probabilities(codes, &mut rows),
                None => self.model.probabilities(codes),
            };
            scores.classes.push(crate::model::artefact::most_probable(&probabilities) as i32);
            scores.probabilities.extend_from_slice(&probabilities);
        }
        Ok(scores)
    }

    /// Codes of `n_rows` rows, those of a row together, in the order of the model's features.
    pub fn codes(&self, columns: &[ArrayRef], n_rows: usize) -> Result<Vec<u16>> {
        let n_features = self.inputs.len();
        let mut codes = vec![0; n_rows * n_features];
        for (i, (position, encoder)) in self.inputs.iter().enumerate() {
            encoder.encode(&columns[*position], &mut codes, i, n_features)?;
        }
        Ok(codes)
    }
}

/// The forest as bit masks.
#[derive(Debug)]
struct Masks {
    n_trees: usize,
    /// Words of a code: a mask a tree, filled up to whole [`LANES`].
    stride: usize,
    /// `stride` masks for each code of each feature, two in a word.
    of_code: Vec<u64>,
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
            n_masks += feature.codes.n_codes() * stride;
        }
        let leaves = vec![[0.0; N_CLASSES]; n_trees * LEAVES_MAX];
        let mut masks = Self { n_trees, stride, of_code: vec![u64::MAX; n_masks], first, leaves };
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
        for code in 0..model.features[split.feature].codes.n_codes() {
            if !split.goes_left(code as u16) {
                let word = self.first[split.feature] + code * self.stride + t / MASKS;
                self.of_code[word] &= !left_leaves;
            }
        }
        self.add_subtree(model, t, tree, split.left + 1, next_leaf);
    }

    /// `rows` is scratch space, an element a feature.
    #[inline]
    fn probabilities(&self, codes: &[u16], rows: &mut [usize]) -> [f64; N_CLASSES] {
        for ((row, &code), first) in rows.iter_mut().zip(codes).zip(&self.first) {
            *row = first + usize::from(code) * self.stride;
        }
        let mut sum = [0.0; N_CLASSES];
        for (lane, leaves) in self.leaves.chunks(LANES * MASKS * LEAVES_MAX).enumerate() {
            let mut alive = [u64::MAX; LANES];
            for row in &*rows {
                let masks = &self.of_code[row + lane * LANES..][..LANES];
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
        sum.map(|total| total / self.n_trees as f64)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{Array, Float64Array, Int32Array, StringArray};
    use proptest::prelude::*;

    use super::*;
    use crate::encode::codes::Codes;
    use crate::encode::features::FEATURES;
    use crate::model::artefact::tests::{example, random_model};

    type Row = (Option<f64>, Option<f64>, Option<i32>, Option<String>, Option<String>);

    fn a_row() -> impl Strategy<Value = Row> {
        let number = || proptest::option::of(prop_oneof![-50.0..400.0, Just(f64::NAN), Just(-0.0)]);
        let text = || proptest::option::of("[A-C]{0,2}|a-long-category|[A-Z]{3}-[A-Z]{3}");
        (number(), number(), proptest::option::of(-1..40_i32), text(), text())
    }

    /// One column for each of [`FEATURES`].
    fn columns(rows: &[Row]) -> Vec<ArrayRef> {
        let a: ArrayRef = Arc::new(Float64Array::from_iter(rows.iter().map(|r| r.0)));
        let b: ArrayRef = Arc::new(Float64Array::from_iter(rows.iter().map(|r| r.1)));
        let c: ArrayRef = Arc::new(Int32Array::from_iter(rows.iter().map(|r| r.2)));
        let d: ArrayRef = Arc::new(StringArray::from_iter(rows.iter().map(|r| r.3.clone())));
        let e: ArrayRef = Arc::new(StringArray::from_iter(rows.iter().map(|r| r.4.clone())));
        [&a, &b, &c, &c, &c, &d, &d, &d, &e, &a, &b].map(Arc::clone).to_vec()
    }

    /// The same, value by value: the definition.
    fn row_by_row(model: &Model, columns: &[ArrayRef], row: usize) -> [f64; N_CLASSES] {
        let codes: Vec<u16> = model
            .features
            .iter()
            .map(|spec| {
                let column = &columns[features::position(&spec.name).unwrap()];
                let valid = column.is_valid(row);
                match &spec.codes {
                    Codes::Numeric(_) => {
                        let all = datafusion::arrow::compute::cast(
                            column,
                            &datafusion::arrow::datatypes::DataType::Float64,
                        );
                        let all = all.unwrap();
                        let all = all.as_any().downcast_ref::<Float64Array>().unwrap();
                        spec.codes.code_of_number(valid.then(|| all.value(row)))
                    }
                    Codes::Categorical(_) => {
                        let all = column.as_any().downcast_ref::<StringArray>().unwrap();
                        spec.codes.code_of_category(valid.then(|| all.value(row)))
                    }
                }
            })
            .collect();
        model.probabilities(&codes)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn scoring_equals_the_plain_evaluation_bit_for_bit(
            seed: u64,
            depth in 0..8_u32,
            rows in proptest::collection::vec(a_row(), 0..40),
        ) {
            let model = random_model(seed, depth);
            let columns = columns(&rows);
            prop_assert_eq!(columns.len(), FEATURES.len());
            let scorer = Scorer::new(model.clone(), "v");
            let scores = scorer.score(&columns, rows.len()).unwrap();
            for row in 0..rows.len() {
                let want = row_by_row(&model, &columns, row);
                let got = &scores.probabilities[row * N_CLASSES..][..N_CLASSES];
                prop_assert_eq!(got.iter().map(|p| p.to_bits()).collect::<Vec<_>>(),
                    want.iter().map(|p| p.to_bits()).collect::<Vec<_>>());
                let class = crate::model::artefact::most_probable(&want) as i32;
                prop_assert_eq!(scores.classes[row], class);
            }
        }
    }

    #[test]
    fn small_trees_use_masks_and_large_ones_are_walked() {
        assert!(Scorer::new(example(), "v").masks.is_some());
        assert!(Scorer::new(random_model(1, 7), "v").masks.is_none());
    }
}
