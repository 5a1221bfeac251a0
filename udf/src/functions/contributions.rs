//! `delay_contributions(model, …features…)`: what moved each answer, by
//! [`Model::contributions`](crate::model::artefact::Model::contributions).

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, FixedSizeListArray, Float64Array, ListArray, StringArray, StructArray,
};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::N_CLASSES;
use crate::encode::features::FEATURES;
use crate::functions::predict::{
    Models, identified_by_models, model_and_columns, probability_item, versions,
};

/// `delay_contributions(model, …features…)`: struct (`base_rates[4]`, contributions), the latter a
/// list of struct (feature, `changes[4]`), one for each feature of the model that changes anything.
/// `base_rates` and all `changes` of a row sum to its probabilities.
#[derive(Debug, Clone)]
pub struct DelayContributions {
    signature: Signature,
    models: Arc<Models>,
}

identified_by_models!(DelayContributions);

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
