//! A model made ready to score columns of values, fast: they are encoded, and the encoded rows find
//! their leaves (`flat.rs`).

use datafusion::arrow::array::StructArray;
use datafusion::common::Result;

use crate::N_CLASSES;
use crate::encode::encoder::FeatureEncoder;
use crate::model::artefact::{Model, most_probable};
use crate::model::attribution;
use crate::model::calibration::calibrate;
use crate::model::flat::{BLOCK_ROWS, FlatForest};

/// A model that is ready to score.
#[derive(Debug)]
pub struct Scorer {
    version: String,
    model: Model,
    encoder: FeatureEncoder,
    forest: FlatForest,
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
        let forest = FlatForest::new(&model.trees, &model.features);
        Self { version: version.into(), forest, encoder, model }
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
        let mut sums = vec![[0.0; N_CLASSES]; n_rows];
        self.forest.add_to(&mut sums, indices, n_features);
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
            self.forest.changes(indices, n_features, changes, &mut leaves);
            let (n_trees, temperature) = (self.model.trees.len(), self.model.temperature);
            attribution::contributions(changes, &mut leaves, n_trees, temperature);
        }
        changes
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
    use crate::model::artefact::tests::{example, random_indices, random_model};

    type Row = (Option<f64>, Option<f64>, Option<i32>, Option<String>, Option<String>);

    fn a_row() -> impl Strategy<Value = Row> {
        let whole = || (-60..420_i32).prop_map(f64::from);
        let number = || {
            let odd = [f64::NAN, -0.0, f64::INFINITY, f64::MIN, 2_147_483_648.0];
            let odd = proptest::sample::select(odd.to_vec());
            proptest::option::of(prop_oneof![4 => -50.0..400.0, 4 => whole(), 1 => odd])
        };
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
        let model = random_model(4, 9);
        let indices = random_indices(&model, 2 * BLOCK_ROWS + 3);
        let scorer = Scorer::new(model.clone(), "v");
        let scores = scorer.score_indices(&indices);
        let contributions = scorer.contributions(&indices);
        for (row, indices) in indices.chunks_exact(6).enumerate() {
            let got = &scores.probabilities[row * N_CLASSES..][..N_CLASSES];
            assert_eq!(got, model.probabilities(indices), "row {row}");
            assert_eq!(contributions[row * 6..][..6], model.contributions(indices), "row {row}");
        }
    }
}
