//! Lists of a number for each class, as the functions of a model return them.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, Float64Array};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::{Result, exec_datafusion_err};

use crate::N_CLASSES;

/// Their type.
pub fn class_list() -> DataType {
    DataType::FixedSizeList(item(), N_CLASSES as i32)
}

/// A list for each [`N_CLASSES`] of the numbers; which lists are null.
pub fn by_class(numbers: Vec<f64>, nulls: Option<&NullBuffer>) -> Result<ArrayRef> {
    let (numbers, n) = (Arc::new(Float64Array::from(numbers)), N_CLASSES as i32);
    Ok(Arc::new(FixedSizeListArray::try_new(item(), n, numbers, nulls.cloned())?))
}

/// The numbers of each list, also of those that are null.
pub fn numbers(lists: &dyn Array) -> Result<&[[f64; N_CLASSES]]> {
    let lists = lists.as_fixed_size_list_opt();
    let lists = lists.filter(|lists| lists.value_length() == N_CLASSES as i32);
    let numbers = lists.and_then(|lists| lists.values().as_primitive_opt::<Float64Type>());
    let numbers = numbers.ok_or_else(|| exec_datafusion_err!("a list has no number per class"))?;
    Ok(numbers.values().as_chunks().0)
}

fn item() -> FieldRef {
    Arc::new(Field::new_list_field(DataType::Float64, false))
}
