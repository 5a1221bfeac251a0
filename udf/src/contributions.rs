//! What moved an answer, and how far: `delay_contributions(model, …features…)`.
//!
//! On its way down a tree a row passes nodes, each with the class shares of the rows that it was
//! grown from. A step from a node to its child changes the shares; the change is put down to the
//! feature that the node splits by. Over a path the changes add up to the difference between leaf
//! and root, so over the forest they add up to the difference between the answer and the base
//! rates (Saabas, "Interpreting random forests", 2014). Exact, and one walk a tree.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, StructArray};
use datafusion::arrow::array::{FixedSizeListArray, Float64Array, ListArray, StringArray};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::N_CLASSES;
use crate::features::FEATURES;
use crate::forest::Model;
use crate::predict::{Models, identified_by_models, model_and_columns, probability_item, versions};

/// `delay_contributions(model, …features…)`: struct (base_rates[4], contributions), the latter a
/// list of struct (feature, changes[4]), one for each feature of the model that changes anything.
/// `base_rates` and all `changes` of a row sum to its probabilities.
#[derive(Debug, Clone)]
pub struct DelayContributions {
    signature: Signature,
    models: Arc<Models>,
}

identified_by_models!(DelayContributions);

impl Model {
    /// Shares of the classes before anything is known of a row: the mean of the roots.
    pub fn base_rates(&self) -> [f64; N_CLASSES] {
        let roots = self.trees.iter().map(|tree| tree.nodes[0].probabilities());
        let sums = roots.fold([0.0; N_CLASSES], |sums, root| add(sums, root, 1.0));
        sums.map(|sum| sum / self.trees.len() as f64)
    }

    /// For each of [`Model::features`], how far it moves each class from its base rate.
    pub fn contributions(&self, codes: &[u16]) -> Vec<[f64; N_CLASSES]> {
        let mut changes = vec![[0.0; N_CLASSES]; self.features.len()];
        for tree in &self.trees {
            let mut node = &tree.nodes[0];
            let mut shares = node.probabilities();
            // ends: children come after their parents
            while let Some(split) = &node.split {
                let side = usize::from(!split.goes_left(codes[split.feature]));
                node = &tree.nodes[split.left + side];
                let before = std::mem::replace(&mut shares, node.probabilities());
                let change = &mut changes[split.feature];
                *change = add(add(*change, shares, 1.0), before, -1.0);
            }
        }
        let n_trees = self.trees.len() as f64;
        changes.into_iter().map(|change| change.map(|sum| sum / n_trees)).collect()
    }
}

fn add(sums: [f64; N_CLASSES], shares: [f64; N_CLASSES], sign: f64) -> [f64; N_CLASSES] {
    std::array::from_fn(|class| sums[class] + sign * shares[class])
}

impl ScalarUDFImpl for DelayContributions {
    fn name(&self) -> &str {
        "delay_contributions"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(explanation_fields()))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (scorer, columns) = model_and_columns(&self.models, &args)?;
        let model = scorer.model();
        let names: Vec<&str> = scorer.positions().map(|position| FEATURES[position].name).collect();
        let (mut features, mut changes, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
        for codes in scorer.codes(&columns, args.number_rows)?.chunks_exact(names.len()) {
            let n_before = features.len();
            for (name, change) in names.iter().zip(model.contributions(codes)) {
                if change != [0.0; N_CLASSES] {
                    features.push(*name);
                    changes.extend(change);
                }
            }
            lengths.push(features.len() - n_before);
        }
        let contributions = StructArray::try_new(
            contribution_fields(),
            vec![Arc::new(StringArray::from(features)), by_class(changes)?],
            None,
        )?;
        let contributions = ListArray::try_new(
            contribution_item(),
            OffsetBuffer::from_lengths(lengths),
            Arc::new(contributions),
            None,
        )?;
        let base_rates = by_class(model.base_rates().repeat(args.number_rows))?;
        let columns: Vec<ArrayRef> = vec![base_rates, Arc::new(contributions)];
        let explained = StructArray::try_new(explanation_fields(), columns, None)?;
        Ok(ColumnarValue::Array(Arc::new(explained)))
    }
}

/// [`N_CLASSES`] numbers a row.
fn by_class(numbers: Vec<f64>) -> Result<ArrayRef> {
    let numbers = Arc::new(Float64Array::from(numbers));
    let n_classes = N_CLASSES as i32;
    Ok(Arc::new(FixedSizeListArray::try_new(probability_item(), n_classes, numbers, None)?))
}

fn class_list() -> DataType {
    DataType::FixedSizeList(probability_item(), N_CLASSES as i32)
}

fn contribution_fields() -> Fields {
    Fields::from(vec![
        Field::new("feature", DataType::Utf8, false),
        Field::new("changes", class_list(), false),
    ])
}

fn contribution_item() -> Arc<Field> {
    Arc::new(Field::new_list_field(DataType::Struct(contribution_fields()), false))
}

fn explanation_fields() -> Fields {
    Fields::from(vec![
        Field::new("base_rates", class_list(), false),
        Field::new("contributions", DataType::List(contribution_item()), false),
    ])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::forest::tests::{example, random_model};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn base_rates_and_contributions_sum_to_the_answer(
            seed: u64,
            depth in 0..8_u32,
            numbers in proptest::collection::vec(any::<u16>(), 16),
        ) {
            let model = random_model(seed, depth);
            let n_codes = model.features.iter().map(|spec| spec.codes.n_codes());
            let codes: Vec<u16> =
                n_codes.zip(&numbers).map(|(n, number)| number % n as u16).collect();
            let mut sums = model.base_rates();
            for change in model.contributions(&codes) {
                sums = add(sums, change, 1.0);
                // what one class wins the others lose
                prop_assert!(change.iter().sum::<f64>().abs() < 1e-12);
            }
            for (sum, probability) in sums.iter().zip(model.probabilities(&codes)) {
                prop_assert!((sum - probability).abs() < 1e-12, "{} {}", sum, probability);
            }
        }
    }

    #[test]
    fn only_features_that_a_row_passes_get_something() {
        let mut model = example();
        for tree in &mut model.trees {
            tree.nodes.truncate(1);
            tree.nodes[0].split = None;
        }
        let codes = vec![1; model.features.len()];
        assert_eq!(model.contributions(&codes), vec![[0.0; N_CLASSES]; codes.len()]);
        assert_eq!(model.base_rates(), model.probabilities(&codes));
    }
}
