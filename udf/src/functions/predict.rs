//! The functions that carry codes or models into SQL:
//!
//! - `feature_codes(…features…)`: the codes of a row, for training;
//! - `predict_delay(model, …features…)`: struct (prediction, `probabilities[4]`, model_version);
//! - `unseen_features(model, …features…)`: the fields whose value the model has no place for;
//! - `delay_contributions(model, …features…)`: see [`contributions`](crate::model::attribution).
//!
//! `…features…` are all of [`FEATURES`], in order. Models and codes travel inside the functions;
//! `model` names one of those that the function was made with.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, FixedSizeListArray, Float64Array, Int32Array, ListBuilder, StringBuilder,
    StringViewArray, StructArray,
};
use datafusion::arrow::buffer::{Buffer, ScalarBuffer};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::N_CLASSES;
use crate::encode::codes::{Codes, Encoder, code_array};
use crate::encode::features::{self, FEATURES};
use crate::model::artefact::FeatureSpec;
use crate::model::scorer::Scorer;

/// Models by the name that SQL calls them.
pub type Models = BTreeMap<String, Arc<Scorer>>;

/// `feature_codes(…features…)`: a code for each of the given features, see
/// [`code_array`].
#[derive(Debug, Clone)]
pub struct FeatureCodes {
    signature: Signature,
    inputs: Arc<Vec<(usize, Codes, Encoder)>>,
}

impl FeatureCodes {
    /// The function for these features.
    pub fn new(specs: &[FeatureSpec]) -> Self {
        let inputs = specs.iter().map(|spec| {
            let position = features::position(&spec.name).expect("features come from the list");
            (position, spec.codes.clone(), Encoder::new(&spec.codes))
        });
        let signature = Signature::any(FEATURES.len(), Volatility::Immutable);
        Self { signature, inputs: Arc::new(inputs.collect()) }
    }

    /// The features that it codes.
    pub fn feature_specs(&self) -> Vec<FeatureSpec> {
        let spec = |(position, codes): (usize, &Codes)| FeatureSpec {
            name: FEATURES[position].name.to_owned(),
            codes: codes.clone(),
        };
        self.specs().map(spec).collect()
    }

    fn specs(&self) -> impl Iterator<Item = (usize, &Codes)> {
        self.inputs.iter().map(|(position, codes, _)| (*position, codes))
    }
}

impl PartialEq for FeatureCodes {
    fn eq(&self, other: &Self) -> bool {
        self.specs().eq(other.specs())
    }
}

impl Eq for FeatureCodes {}

impl Hash for FeatureCodes {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.specs().for_each(|(position, codes)| (position, codes.n_codes()).hash(state));
    }
}

impl ScalarUDFImpl for FeatureCodes {
    fn name(&self) -> &str {
        "feature_codes"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::FixedSizeBinary((self.inputs.len() * size_of::<u16>()) as i32))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = arrays(&args.args, args.number_rows)?;
        let n_features = self.inputs.len();
        let mut codes = vec![0; args.number_rows * n_features];
        for (i, (position, _, encoder)) in self.inputs.iter().enumerate() {
            encoder.encode(&columns[*position], &mut codes, i, n_features)?;
        }
        Ok(ColumnarValue::Array(Arc::new(code_array(codes, n_features)?)))
    }
}

/// `predict_delay(model, …features…)`.
#[derive(Debug, Clone)]
pub struct PredictDelay {
    signature: Signature,
    models: Arc<Models>,
}

/// `unseen_features(model, …features…)`: list of the names of request fields.
#[derive(Debug, Clone)]
pub struct UnseenFeatures {
    signature: Signature,
    models: Arc<Models>,
}

macro_rules! identified_by_models {
    ($function:ident) => {
        impl $function {
            /// The function that can ask these models.
            pub fn new(models: Arc<Models>) -> Self {
                let signature = Signature::any(FEATURES.len() + 1, Volatility::Immutable);
                Self { signature, models }
            }

            /// The models it can ask.
            pub fn models(&self) -> &Models {
                &self.models
            }
        }

        impl PartialEq for $function {
            fn eq(&self, other: &Self) -> bool {
                versions(&self.models).eq(versions(&other.models))
            }
        }

        impl Eq for $function {}

        impl std::hash::Hash for $function {
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
                versions(&self.models).for_each(|names| names.hash(state));
            }
        }
    };
}

pub(crate) use identified_by_models;

identified_by_models!(PredictDelay);
identified_by_models!(UnseenFeatures);

/// A model is its version, so functions with the same versions are the same.
pub(crate) fn versions(models: &Models) -> impl Iterator<Item = (&str, &str)> {
    models.iter().map(|(name, scorer)| (name.as_str(), scorer.version()))
}

impl ScalarUDFImpl for PredictDelay {
    fn name(&self) -> &str {
        "predict_delay"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(prediction_fields()))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (scorer, columns) = model_and_columns(&self.models, &args)?;
        let scores = scorer.score(&columns, args.number_rows)?;
        let probabilities = FixedSizeListArray::try_new(
            probability_item(),
            N_CLASSES as i32,
            Arc::new(Float64Array::from(scores.probabilities)),
            None,
        )?;
        let prediction = StructArray::try_new(
            prediction_fields(),
            vec![
                Arc::new(Int32Array::from(scores.classes)),
                Arc::new(probabilities),
                Arc::new(repeated(scorer.version(), args.number_rows)),
            ],
            None,
        )?;
        Ok(ColumnarValue::Array(Arc::new(prediction)))
    }
}

impl ScalarUDFImpl for UnseenFeatures {
    fn name(&self) -> &str {
        "unseen_features"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::new_list(DataType::Utf8, true))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (scorer, columns) = model_and_columns(&self.models, &args)?;
        let positions: Vec<usize> = scorer.positions().collect();
        let mut fields = ListBuilder::new(StringBuilder::new());
        for codes in scorer.codes(&columns, args.number_rows)?.chunks_exact(positions.len()) {
            for (position, _) in positions.iter().zip(codes).filter(|(_, code)| **code == 0) {
                fields.values().append_value(FEATURES[*position].field);
            }
            fields.append(true);
        }
        Ok(ColumnarValue::Array(Arc::new(fields.finish())))
    }
}

fn prediction_fields() -> Fields {
    let probabilities = DataType::FixedSizeList(probability_item(), N_CLASSES as i32);
    Fields::from(vec![
        Field::new("prediction", DataType::Int32, false),
        Field::new("probabilities", probabilities, false),
        Field::new("model_version", DataType::Utf8View, false),
    ])
}

pub(crate) fn probability_item() -> FieldRef {
    Arc::new(Field::new_list_field(DataType::Float64, false))
}

/// The text in every row, stored once.
fn repeated(text: &str, n_rows: usize) -> StringViewArray {
    let one = StringViewArray::from(vec![text]);
    let views = ScalarBuffer::from(vec![one.views()[0]; n_rows]);
    let buffers: Vec<Buffer> = one.data_buffers().to_vec();
    StringViewArray::new(views, buffers, None)
}

pub(crate) fn model_and_columns(
    models: &Models,
    args: &ScalarFunctionArgs,
) -> Result<(Arc<Scorer>, Vec<ArrayRef>)> {
    let name = match &args.args[0] {
        ColumnarValue::Scalar(
            ScalarValue::Utf8(Some(name))
            | ScalarValue::Utf8View(Some(name))
            | ScalarValue::LargeUtf8(Some(name)),
        ) => name,
        _ => return exec_err!("the first argument names a model and must be a text literal"),
    };
    let Some(scorer) = models.get(name) else {
        let known: Vec<_> = models.keys().collect();
        return exec_err!("there is no model {name:?}; there are {known:?}");
    };
    Ok((Arc::clone(scorer), arrays(&args.args[1..], args.number_rows)?))
}

fn arrays(values: &[ColumnarValue], n_rows: usize) -> Result<Vec<ArrayRef>> {
    values.iter().map(|value| value.to_array(n_rows)).collect()
}
