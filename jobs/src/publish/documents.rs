//! Rows → JSON documents: a field a column, none where it is null.

use std::sync::Arc;

use anyhow::Result;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type, Int64Type};
use serde_json::{Map, Value};

/// The rows of a batch. Texts, numbers, truth values, dates (as `YYYY-MM-DD`) and lists of them are
/// known; anything else is shown as text.
pub(crate) fn documents(batch: &RecordBatch) -> Result<Vec<Value>> {
    let mut documents = vec![Map::new(); batch.num_rows()];
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        for (document, value) in documents.iter_mut().zip(values(column)?) {
            if let Some(value) = value {
                document.insert(field.name().clone(), value);
            }
        }
    }
    Ok(documents.into_iter().map(Value::Object).collect())
}

fn values(column: &ArrayRef) -> Result<Vec<Option<Value>>> {
    let rows = 0..column.len();
    Ok(match column.data_type() {
        DataType::Boolean => column.as_boolean().iter().map(|v| v.map(Value::from)).collect(),
        integer if integer.is_integer() => {
            let column = cast(column, &DataType::Int64)?;
            column.as_primitive::<Int64Type>().iter().map(|v| v.map(Value::from)).collect()
        }
        number if number.is_numeric() => {
            let column = cast(column, &DataType::Float64)?;
            column.as_primitive::<Float64Type>().iter().map(|v| v.map(Value::from)).collect()
        }
        DataType::List(of) | DataType::FixedSizeList(of, _) => {
            let lists = cast(column, &DataType::List(Arc::clone(of)))?;
            let lists = lists.as_list::<i32>();
            let list = |row| -> Result<Option<Value>> {
                let items = values(&lists.value(row))?;
                let items = items.into_iter().map(|item| item.unwrap_or(Value::Null)).collect();
                Ok(lists.is_valid(row).then_some(Value::Array(items)))
            };
            rows.map(list).collect::<Result<_>>()?
        }
        // texts as they are, dates as ISO 8601 writes them
        _ => {
            let column = cast(column, &DataType::Utf8)?;
            column.as_string::<i32>().iter().map(|v| v.map(Value::from)).collect()
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{
        BooleanArray, Date32Array, Float64Array, Int32Array, ListArray, StringViewArray,
    };
    use datafusion::arrow::datatypes::Int32Type;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_is_a_document_without_what_is_null() {
        let lists = [Some(vec![Some(1), None]), None];
        let columns: [(&str, ArrayRef); 6] = [
            ("_id", Arc::new(StringViewArray::from(vec!["a", "a text longer than its view"]))),
            ("n", Arc::new(Int32Array::from(vec![Some(7), None]))),
            ("x", Arc::new(Float64Array::from(vec![None, Some(-0.5)]))),
            ("ok", Arc::new(BooleanArray::from(vec![Some(true), None]))),
            ("date", Arc::new(Date32Array::from(vec![Some(15706), None]))),
            ("list", Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists))),
        ];
        let batch = RecordBatch::try_from_iter_with_nullable(
            columns.map(|(name, column)| (name, column, true)),
        );
        let want = [
            json!({"_id": "a", "n": 7, "ok": true, "date": "2013-01-01", "list": [1, null]}),
            json!({"_id": "a text longer than its view", "x": -0.5}),
        ];
        assert_eq!(documents(&batch.unwrap()).unwrap(), want);
    }
}
