//! `feature_indices(features)`: the indices of a row's features, for training. The encodings travel
//! inside the function.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::encode::encoder::{FeatureEncoder, index_array};
use crate::functions::load::Load;
use crate::model::artefact::FeatureSpec;

/// `feature_indices(features)`: two bytes for each of the features it was made for, in their order,
/// see [`index_array`].
#[derive(Debug, Clone)]
pub struct FeatureIndices {
    signature: Signature,
    specs: Arc<Load<Vec<FeatureSpec>>>,
    encoder: Arc<FeatureEncoder>,
}

impl FeatureIndices {
    /// The function for these features.
    pub fn new(specs: impl Into<Arc<Load<Vec<FeatureSpec>>>>) -> Self {
        let specs = specs.into();
        let features = specs.iter().map(|spec| (spec.name.as_str(), &spec.encoding));
        let encoder = Arc::new(FeatureEncoder::new(features));
        let signature = Signature::any(1, Volatility::Immutable);
        Self { signature, specs, encoder }
    }

    /// The features whose indices it gives.
    pub fn specs(&self) -> &Load<Vec<FeatureSpec>> {
        &self.specs
    }
}

impl PartialEq for FeatureIndices {
    fn eq(&self, other: &Self) -> bool {
        **self.specs == **other.specs
    }
}

impl Eq for FeatureIndices {}

impl Hash for FeatureIndices {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // edges are floating point numbers, which have no hash
        self.specs.iter().for_each(|spec| (&spec.name, spec.encoding.n_indices()).hash(state));
    }
}

impl ScalarUDFImpl for FeatureIndices {
    fn name(&self) -> &str {
        "feature_indices"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(index_type(self.encoder.n_features()))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        match args.arg_fields[0].data_type() {
            DataType::Struct(fields) => self.encoder.check(fields)?,
            other => return plan_err!("feature_indices takes the struct of features, not {other}"),
        }
        Ok(Arc::new(Field::new(self.name(), index_type(self.encoder.n_features()), true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let features = args.args[0].to_array(args.number_rows)?;
        let Some(features) = features.as_struct_opt() else {
            return exec_err!("feature_indices takes the struct of features");
        };
        let indices = self.encoder.encode(features)?;
        Ok(ColumnarValue::Array(Arc::new(index_array(indices, self.encoder.n_features())?)))
    }
}

/// The type of the indices of `n_features` features.
pub(crate) fn index_type(n_features: usize) -> DataType {
    DataType::FixedSizeBinary((n_features * size_of::<u16>()) as i32)
}
