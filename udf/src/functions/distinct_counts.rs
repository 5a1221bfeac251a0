//! `distinct_counts(column)`: the distinct values of a column, each with its number of rows, as
//! one struct of two lists. Counts are exact, so the bins and categories made from them do not
//! depend on the order or partitioning of the rows. Nulls and NaN are not counted.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, ListArray, StringArray, StructArray, UInt64Array,
};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Fields, Float64Type, UInt64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};

use crate::encode::codes::{DistinctValues, short_key};

/// Most distinct values of a column: a feature with more is no feature but a key.
const VALUES_MAX: usize = 4_000_000;

/// The aggregate function.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DistinctCounts {
    signature: Signature,
}

impl Default for DistinctCounts {
    fn default() -> Self {
        Self { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for DistinctCounts {
    fn name(&self) -> &str {
        "distinct_counts"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(result_fields(types[0].is_numeric())))
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let numeric = args.expr_fields[0].data_type().is_numeric();
        Ok(Box::new(Counter { numeric, short: HashMap::default(), long: HashMap::default() }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let numeric = args.input_fields[0].data_type().is_numeric();
        let fields = result_fields(numeric);
        Ok(vec![Arc::new(Field::new(
            format!("{}[counts]", args.name),
            DataType::Struct(fields),
            true,
        ))])
    }
}

fn result_fields(numeric: bool) -> Fields {
    let value = if numeric { DataType::Float64 } else { DataType::Utf8 };
    let list = |name, of| Field::new(name, DataType::List(item(of)), false);
    Fields::from(vec![list("values", value), list("n_rows", DataType::UInt64)])
}

fn item(of: DataType) -> FieldRef {
    Arc::new(Field::new_list_field(of, false))
}

/// Counts by the bits of a number, or by the bytes of a text: short texts fit into a number too.
#[derive(Debug)]
struct Counter {
    numeric: bool,
    short: HashMap<u64, u64, foldhash::fast::FixedState>,
    long: HashMap<String, u64, foldhash::fast::FixedState>,
}

impl Counter {
    fn add_text(&mut self, text: &str, view: u128, n_rows: u64) {
        match short_key(view) {
            Some(key) => *self.short.entry(key).or_default() += n_rows,
            None => match self.long.get_mut(text) {
                Some(n) => *n += n_rows,
                None => _ = self.long.insert(text.to_owned(), n_rows),
            },
        }
    }

    fn add(&mut self, column: &ArrayRef, n_rows: impl Fn(usize) -> u64) -> Result<()> {
        if self.numeric {
            let column = cast(column, &DataType::Float64)?;
            let column = column.as_primitive::<Float64Type>();
            for (i, &value) in column.values().iter().enumerate() {
                if column.is_valid(i) && !value.is_nan() {
                    // + 0.0 makes one zero of both
                    *self.short.entry((value + 0.0).to_bits()).or_default() += n_rows(i);
                }
            }
        } else {
            let column = cast(column, &DataType::Utf8View)?;
            let column = column.as_string_view();
            for (i, &view) in column.views().iter().enumerate() {
                if column.is_valid(i) {
                    self.add_text(column.value(i), view, n_rows(i));
                }
            }
        }
        if self.short.len() + self.long.len() > VALUES_MAX {
            return exec_err!("distinct_counts: more than {VALUES_MAX} distinct values");
        }
        Ok(())
    }

    fn counts(&self) -> Result<ScalarValue> {
        let mut n_rows: Vec<u64> = self.short.values().copied().collect();
        n_rows.extend(self.long.values());
        let values: ArrayRef = if self.numeric {
            Arc::new(Float64Array::from_iter_values(self.short.keys().map(|&k| f64::from_bits(k))))
        } else {
            let mut values = Vec::with_capacity(n_rows.len());
            for key in self.short.keys() {
                let bytes = key.to_le_bytes();
                let length = 8 - key.leading_zeros() as usize / 8;
                values.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
            }
            values.extend(self.long.keys().cloned());
            Arc::new(StringArray::from(values))
        };
        let fields = result_fields(self.numeric);
        let list = |values: ArrayRef| -> ArrayRef {
            let offsets = OffsetBuffer::from_lengths([values.len()]);
            let item = item(values.data_type().clone());
            Arc::new(ListArray::new(item, offsets, values, None))
        };
        let columns = vec![list(values), list(Arc::new(UInt64Array::from(n_rows)))];
        Ok(ScalarValue::Struct(Arc::new(StructArray::try_new(fields, columns, None)?)))
    }
}

impl Accumulator for Counter {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(&values[0], |_| 1)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.counts()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let states = states[0].as_struct();
        let (values, n_rows) =
            (states.column(0).as_list::<i32>(), states.column(1).as_list::<i32>());
        for i in 0..states.len() {
            let n_rows = n_rows.value(i);
            let n_rows = n_rows.as_primitive::<UInt64Type>().values();
            self.add(&values.value(i), |row| n_rows[row])?;
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.counts()
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.short.capacity() * 17 + self.long.capacity() * 64
    }
}

/// Reads the struct that `distinct_counts` returns, in row 0 of `column`.
pub fn read(column: &ArrayRef) -> Result<DistinctValues> {
    let Some(counts) = column.as_struct_opt() else {
        return exec_err!("distinct_counts returns a struct, not {}", column.data_type());
    };
    let values = counts.column(0).as_list::<i32>().value(0);
    let n_rows = counts.column(1).as_list::<i32>().value(0);
    let n_rows = n_rows.as_primitive::<UInt64Type>().values().iter().copied();
    Ok(if values.data_type().is_numeric() {
        let values = values.as_primitive::<Float64Type>().values().iter().copied();
        DistinctValues::Numeric(values.zip(n_rows).collect())
    } else {
        let values = values.as_string::<i32>().iter().flatten().map(str::to_owned);
        DistinctValues::Categorical(values.zip(n_rows).collect())
    })
}
