//! Encoding: the values of features become small integers, bin indices of numbers and category
//! indices of texts. A tree sees nothing but indices, in training and in scoring, so both agree on
//! every value, bit for bit.
//!
//! Index 0 is the missing/unknown bin: null, NaN, and categories that training did not see. A
//! number has the index of its bin (1 … bins), a category that of its rank by frequency
//! (1 … 65,535).

use std::borrow::Cow;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryArray, StructArray};
use datafusion::arrow::buffer::{Buffer, NullBuffer};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Fields, Float64Type};
use datafusion::common::{Result, exec_err, plan_err};
use serde::{Deserialize, Serialize};

use crate::encode::bins::{NumericEncoder, quantile_edges};
use crate::encode::categories::{CategoryEncoder, short_key};

/// How a feature's values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// By size; splits are thresholds.
    Numeric,
    /// By identity; splits are subsets.
    Categorical,
}

impl Kind {
    /// The kind of a feature by the type of its field: numbers and truth values are numeric, text
    /// is categorical. `None` for what cannot be a feature.
    pub fn of(data_type: &DataType) -> Option<Self> {
        match data_type {
            DataType::Dictionary(_, values) => Self::of(values),
            DataType::Boolean => Some(Self::Numeric),
            _ if data_type.is_numeric() => Some(Self::Numeric),
            _ if data_type.is_string() => Some(Self::Categorical),
            _ => None,
        }
    }
}

/// Largest number of categories of a feature; rarer ones share the missing/unknown bin.
pub const CATEGORIES_MAX: usize = 65_535;

/// The indices of rows as an array: `n_features` a row, each two bytes, the lower one first. Bytes
/// of a fixed width, because files give them back as fast as memory.
pub fn index_array(indices: Vec<u16>, n_features: usize) -> Result<FixedSizeBinaryArray> {
    let indices = if cfg!(target_endian = "little") {
        Buffer::from_vec(indices)
    } else {
        Buffer::from_iter(indices.into_iter().map(u16::to_le))
    };
    let n_bytes = (n_features * size_of::<u16>()) as i32;
    Ok(FixedSizeBinaryArray::try_new(n_bytes, indices, None)?)
}

/// The indices in an array that [`index_array`] made, one row after the other.
pub fn indices_of(array: &FixedSizeBinaryArray) -> Cow<'_, [u16]> {
    let bytes = array.values();
    if cfg!(target_endian = "little") && bytes.as_ptr().align_offset(align_of::<u16>()) == 0 {
        return Cow::Borrowed(bytes.typed_data());
    }
    let pairs = bytes.chunks_exact(size_of::<u16>());
    Cow::Owned(pairs.map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect())
}

/// How the values of one feature become indices. Part of the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Encoding {
    /// Ascending upper edges, each belonging to the bin it closes; a value above all has the
    /// last index.
    Numeric(Vec<f64>),
    /// Categories, most frequent first, ties alphabetical.
    Categorical(Vec<String>),
}

/// The distinct values of a feature with the number of rows that have them.
#[derive(Debug, Clone, PartialEq)]
pub enum DistinctValues {
    /// Values of a numeric feature.
    Numeric(Vec<(f64, u64)>),
    /// Values of a categorical feature.
    Categorical(Vec<(String, u64)>),
}

impl Encoding {
    /// The encoding for the given values: at most `n_bins_max` bins of about equal numbers of rows,
    /// or an index for each category. The order of the values does not matter.
    pub fn from_values(values: DistinctValues, n_bins_max: usize) -> Self {
        match values {
            DistinctValues::Numeric(values) => Self::Numeric(quantile_edges(values, n_bins_max)),
            DistinctValues::Categorical(mut values) => {
                values.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
                values.truncate(CATEGORIES_MAX);
                Self::Categorical(values.into_iter().map(|(value, _)| value).collect())
            }
        }
    }

    /// Number of indices, the missing/unknown bin included.
    pub fn n_indices(&self) -> usize {
        match self {
            Self::Numeric(edges) => edges.len() + 2,
            Self::Categorical(categories) => categories.len() + 1,
        }
    }

    /// How the values are compared.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Numeric(_) => Kind::Numeric,
            Self::Categorical(_) => Kind::Categorical,
        }
    }

    /// The index of one number. The definition that [`FeatureEncoder`] must agree with.
    pub fn index_of_number(&self, value: Option<f64>) -> u16 {
        match (self, value) {
            (Self::Numeric(edges), Some(v)) if !v.is_nan() => {
                1 + edges.iter().filter(|&&edge| edge < v).count() as u16
            }
            _ => 0,
        }
    }

    /// The index of one category. The definition that [`FeatureEncoder`] must agree with.
    pub fn index_of_category(&self, value: Option<&str>) -> u16 {
        match (self, value) {
            (Self::Categorical(categories), Some(v)) => {
                categories.iter().position(|c| c == v).map_or(0, |i| i as u16 + 1)
            }
            _ => 0,
        }
    }

    /// Says what is wrong with an encoding that was read from outside.
    pub fn check(&self) -> std::result::Result<(), String> {
        match self {
            Self::Numeric(edges) => {
                let ascending = edges.windows(2).all(|w| w[0] < w[1]);
                if !ascending || edges.iter().any(|e| !e.is_finite()) {
                    return Err("bin edges are not finite and ascending".into());
                }
            }
            Self::Categorical(categories) => {
                let mut sorted: Vec<_> = categories.iter().collect();
                sorted.sort_unstable();
                if sorted.windows(2).any(|w| w[0] == w[1]) {
                    return Err("a category is listed twice".into());
                }
            }
        }
        if self.n_indices() > CATEGORIES_MAX + 1 {
            return Err(format!("{} indices exceed {}", self.n_indices(), CATEGORIES_MAX + 1));
        }
        Ok(())
    }
}

/// [`Encoding`]s of some features made ready to encode rows of the struct `features`, whose fields
/// are found by name: the struct may have others, in any order.
#[derive(Debug)]
pub struct FeatureEncoder {
    inputs: Vec<(String, Encoder)>,
}

impl FeatureEncoder {
    /// Prepares the tables; the order of the features is that of the indices of a row.
    pub fn new<'a>(features: impl IntoIterator<Item = (&'a str, &'a Encoding)>) -> Self {
        let input = |(name, encoding): (&str, &Encoding)| (name.to_owned(), Encoder::new(encoding));
        Self { inputs: features.into_iter().map(input).collect() }
    }

    /// Number of features, which is the number of indices of a row.
    pub fn n_features(&self) -> usize {
        self.inputs.len()
    }

    /// Checks that a struct of these fields has every feature, each of its kind. Errors name the
    /// feature.
    pub fn check(&self, fields: &Fields) -> Result<()> {
        for (name, encoder) in &self.inputs {
            let Some((_, field)) = fields.find(name) else {
                let names: Vec<_> = fields.iter().map(|field| field.name()).collect();
                return plan_err!("there is no feature {name:?} in the struct; it has {names:?}");
            };
            let kind = Kind::of(field.data_type());
            // a NULL literal is a missing value of either kind
            if kind != Some(encoder.kind()) && !field.data_type().is_null() {
                let (found, kind) = (field.data_type(), encoder.kind());
                return plan_err!("feature {name:?} is {found}, the model takes it as {kind:?}");
            }
        }
        Ok(())
    }

    /// Indices of all rows, those of a row together, in the order of the features.
    pub fn encode(&self, features: &StructArray) -> Result<Vec<u16>> {
        self.check(features.fields())?;
        let n_features = self.inputs.len();
        let mut indices = vec![0; features.len() * n_features];
        for (position, (name, encoder)) in self.inputs.iter().enumerate() {
            let Some(column) = features.column_by_name(name) else {
                return exec_err!("there is no feature {name:?}");
            };
            encoder.encode(column, &mut indices, position, n_features)?;
            // a null holds some value underneath, which was encoded like any other
            let nulls = NullBuffer::union(column.logical_nulls().as_ref(), features.nulls());
            if let Some(nulls) = nulls.filter(|nulls| nulls.null_count() > 0) {
                let rows = indices.chunks_exact_mut(n_features).zip(&nulls);
                rows.filter(|(_, is_valid)| !is_valid).for_each(|(row, _)| row[position] = 0);
            }
        }
        Ok(indices)
    }
}

/// One [`Encoding`] made ready to encode whole columns.
#[derive(Debug)]
enum Encoder {
    Numeric(NumericEncoder),
    Categorical(CategoryEncoder),
}

impl Encoder {
    fn new(encoding: &Encoding) -> Self {
        match encoding {
            Encoding::Numeric(edges) => Self::Numeric(NumericEncoder::new(edges)),
            Encoding::Categorical(categories) => {
                Self::Categorical(CategoryEncoder::new(categories))
            }
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Numeric(_) => Kind::Numeric,
            Self::Categorical(_) => Kind::Categorical,
        }
    }

    /// Writes the index of row `i` of `column` to `indices[i * stride + position]`; that of a null
    /// is not defined.
    fn encode(
        &self,
        column: &ArrayRef,
        indices: &mut [u16],
        position: usize,
        stride: usize,
    ) -> Result<()> {
        let rows = indices.chunks_exact_mut(stride);
        match self {
            Self::Numeric(encoder) => {
                let column = cast(column, &DataType::Float64)?;
                let column = column.as_primitive::<Float64Type>();
                for (row, &value) in rows.zip(column.values()) {
                    row[position] = encoder.index(value);
                }
            }
            Self::Categorical(encoder) => {
                let column = cast(column, &DataType::Utf8View)?;
                let column = column.as_string_view();
                for (i, (row, &view)) in rows.zip(column.views()).enumerate() {
                    row[position] = match short_key(view) {
                        Some(key) => encoder.index_of_key(key),
                        None => encoder.index_of_long(column.value(i)),
                    };
                }
            }
        }
        Ok(())
    }
}
