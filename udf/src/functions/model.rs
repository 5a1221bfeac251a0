//! The functions of a model, each called as `name(model, features)`; see [`ModelFunction`].

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, AsArray, Int32Array, ListArray, ListBuilder, StringBuilder, StringViewArray,
    StructArray,
};
use datafusion::arrow::buffer::{Buffer, ScalarBuffer};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err, exec_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::encode::encoder::{index_array, indices_of};
use crate::functions::classes::{by_class, class_list};
use crate::functions::contributions::{contributions, explanation_fields};
use crate::functions::indices::index_type;
use crate::functions::load::Load;
use crate::model::scorer::Scorer;

/// Models by the name that SQL calls them.
pub type Models = BTreeMap<String, Arc<Scorer>>;

/// Metadata of a column of indices: the version of the model that they are indices of.
const MODEL_VERSION: &str = "tarmac.model_version";

/// What a function returns of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Output {
    /// `model_indices`: the indices of the features that the model uses, see [`index_array`]. The
    /// other functions take them in place of `features`, so that a row is encoded once for all.
    Indices,
    /// `predict_delay`: struct (prediction, `probabilities[4]`, model_version).
    Prediction,
    /// `unseen_features`: list of the features that are missing or unknown to the model.
    Unseen,
    /// `delay_contributions`: struct (`base_rates[4]`, contributions), the latter a list of struct
    /// (feature, `changes[4]`), see [`attribution`](crate::model::attribution).
    Contributions,
}

impl Output {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Indices, Self::Prediction, Self::Unseen, Self::Contributions];

    fn name(self) -> &'static str {
        match self {
            Self::Indices => "model_indices",
            Self::Prediction => "predict_delay",
            Self::Unseen => "unseen_features",
            Self::Contributions => "delay_contributions",
        }
    }

    /// The output of the function of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|output| output.name() == name)
    }
}

/// A function of a model and of a row's features. `model` is a text literal that names one of the
/// models the function was made with, which travel inside it; `features` is the struct of features,
/// in which the model finds those it uses by name, or their indices by `model_indices`.
#[derive(Debug, Clone)]
pub struct ModelFunction {
    output: Output,
    models: Arc<Load<Models>>,
    signature: Signature,
}

impl ModelFunction {
    /// The function over these models.
    pub fn new(output: Output, models: impl Into<Arc<Load<Models>>>) -> Self {
        let signature = Signature::any(2, Volatility::Immutable);
        Self { output, models: models.into(), signature }
    }

    /// The models that it knows.
    pub fn models(&self) -> &Load<Models> {
        &self.models
    }

    /// A model is its version, so functions of the same versions are the same.
    fn identity(&self) -> (Output, Vec<(&str, &str)>) {
        let models = self.models.iter();
        (self.output, models.map(|(name, scorer)| (name.as_str(), scorer.version())).collect())
    }

    fn scorer(&self, model: &ScalarValue) -> Result<&Arc<Scorer>> {
        let Some(Some(name)) = model.try_as_str() else {
            return plan_err!("{}: the model is named by a text, not {model}", self.name());
        };
        let Some(scorer) = self.models.get(name) else {
            let known: Vec<_> = self.models.keys().collect();
            return plan_err!("there is no model {name:?}; there are {known:?}");
        };
        Ok(scorer)
    }
}

impl PartialEq for ModelFunction {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for ModelFunction {}

impl Hash for ModelFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl ScalarUDFImpl for ModelFunction {
    fn name(&self) -> &str {
        self.output.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.output {
            // of no model: it decides how many there are
            Output::Indices => index_type(0),
            Output::Prediction => DataType::Struct(prediction_fields()),
            Output::Unseen => DataType::new_list(DataType::Utf8, true),
            Output::Contributions => DataType::Struct(explanation_fields()),
        })
    }

    /// Checks the arguments, so that what is wrong with them is said before a row is read.
    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let Some(model) = args.scalar_arguments[0] else {
            // a parameter that is not bound yet
            return Ok(Arc::new(Field::new(self.name(), self.return_type(&[])?, true)));
        };
        let scorer = self.scorer(model)?;
        let features = &args.arg_fields[1];
        match features.data_type() {
            DataType::Struct(fields) => scorer.encoder().check(fields)?,
            DataType::FixedSizeBinary(_) => match features.metadata().get(MODEL_VERSION) {
                Some(version) if version == scorer.version() => {}
                _ => return plan_err!("{}: the indices are not of this model", self.name()),
            },
            other => return plan_err!("{} takes the struct of features, not {other}", self.name()),
        }
        let field = match self.output {
            Output::Indices => {
                let version = (MODEL_VERSION.to_owned(), scorer.version().to_owned());
                Field::new(self.name(), index_type(scorer.encoder().n_features()), true)
                    .with_metadata(HashMap::from([version]))
            }
            _ => Field::new(self.name(), self.return_type(&[])?, true),
        };
        Ok(Arc::new(field))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let ColumnarValue::Scalar(name) = &args.args[0] else {
            return exec_err!("{}: the model is named by a text literal", self.name());
        };
        let scorer = self.scorer(name)?;
        let features = args.args[1].to_array(args.number_rows)?;
        let indices = match features.as_struct_opt() {
            Some(features) => Cow::Owned(scorer.encoder().encode(features)?),
            None => indices_of(features.as_fixed_size_binary_opt().ok_or_else(|| {
                exec_datafusion_err!("{} takes the struct of features", self.name())
            })?),
        };
        let n_features = scorer.encoder().n_features();
        if indices.len() != args.number_rows * n_features {
            return exec_err!("{}: a row has {n_features} indices", self.name());
        }
        let column: ArrayRef = match self.output {
            Output::Indices => Arc::new(index_array(indices.into_owned(), n_features)?),
            Output::Prediction => Arc::new(predictions(scorer, &indices)?),
            Output::Unseen => Arc::new(unseen(scorer, &indices)),
            Output::Contributions => Arc::new(contributions(scorer, &indices)?),
        };
        Ok(ColumnarValue::Array(column))
    }
}

fn predictions(scorer: &Scorer, indices: &[u16]) -> Result<StructArray> {
    let scores = scorer.score_indices(indices);
    let n_rows = scores.classes.len();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from(scores.classes)),
        by_class(scores.probabilities, None)?,
        Arc::new(repeated(scorer.version(), n_rows)),
    ];
    Ok(StructArray::try_new(prediction_fields(), columns, None)?)
}

fn unseen(scorer: &Scorer, indices: &[u16]) -> ListArray {
    let mut features = ListBuilder::new(StringBuilder::new());
    for row in indices.chunks_exact(scorer.encoder().n_features()) {
        for (spec, _) in scorer.model().features.iter().zip(row).filter(|(_, index)| **index == 0) {
            features.values().append_value(&spec.name);
        }
        features.append(true);
    }
    features.finish()
}

fn prediction_fields() -> Fields {
    Fields::from(vec![
        Field::new("prediction", DataType::Int32, false),
        Field::new("probabilities", class_list(), false),
        Field::new("model_version", DataType::Utf8View, false),
    ])
}

/// The text in every row, stored once.
fn repeated(text: &str, n_rows: usize) -> StringViewArray {
    let one = StringViewArray::from(vec![text]);
    let views = ScalarBuffer::from(vec![one.views()[0]; n_rows]);
    let buffers: Vec<Buffer> = one.data_buffers().to_vec();
    StringViewArray::new(views, buffers, None)
}
