//! Lists of a number for each class, as the functions of a model return them.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, FixedSizeListArray, Float64Array};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::Result;

use crate::N_CLASSES;

/// Their type.
pub(crate) fn class_list() -> DataType {
    DataType::FixedSizeList(item(), N_CLASSES as i32)
}

/// A list for each [`N_CLASSES`] of the numbers.
pub(crate) fn by_class(numbers: Vec<f64>) -> Result<ArrayRef> {
    let numbers = Arc::new(Float64Array::from(numbers));
    Ok(Arc::new(FixedSizeListArray::try_new(item(), N_CLASSES as i32, numbers, None)?))
}

fn item() -> FieldRef {
    Arc::new(Field::new_list_field(DataType::Float64, false))
}
