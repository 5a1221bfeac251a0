//! `fingerprint(column, …)`: a number for all values of all rows, whatever their order, files and
//! partitions: a correction changes it. The sum of a hash of each row; a struct counts as its
//! fields.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Int64Type, UInt64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};

use crate::encode::categories::short_key;
use crate::train::sampling::{GOLDEN, hash_text, mix};

/// What a missing value hashes as.
const MISSING: u64 = u64::MAX;

/// The aggregate function.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    signature: Signature,
}

impl Default for Fingerprint {
    fn default() -> Self {
        Self { signature: Signature::variadic_any(Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for Fingerprint {
    fn name(&self) -> &str {
        "fingerprint"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::UInt64)
    }

    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Sum(0)))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let name = format!("{}[sum]", args.name);
        Ok(vec![Arc::new(Field::new(name, DataType::UInt64, false))])
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

#[derive(Debug)]
struct Sum(u64);

impl Accumulator for Sum {
    fn update_batch(&mut self, columns: &[ArrayRef]) -> Result<()> {
        let n_rows = columns.first().map_or(0, |column| column.len());
        let mut hashes = vec![GOLDEN; n_rows];
        columns.iter().try_for_each(|column| add(column, &mut hashes))?;
        self.0 = hashes.into_iter().fold(self.0, |sum, hash| sum.wrapping_add(mix(hash)));
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.evaluate()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let sums = states[0].as_primitive::<UInt64Type>().values();
        self.0 = sums.iter().fold(self.0, |sum, other| sum.wrapping_add(*other));
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::from(self.0))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// Mixes the values of a column into the hashes of their rows.
fn add(column: &ArrayRef, hashes: &mut [u64]) -> Result<()> {
    let nulls = column.logical_nulls();
    match column.data_type() {
        DataType::Struct(_) => {
            for field in column.as_struct().columns() {
                add(field, hashes)?;
            }
        }
        kind if kind.is_floating() => {
            let column = cast(column, &DataType::Float64)?;
            let values = column.as_primitive::<Float64Type>().values();
            // one zero, and one way to have no number
            let bits = |v: &f64| if v.is_nan() { MISSING } else { (v + 0.0).to_bits() };
            mix_in(hashes, nulls.as_ref(), values.iter().map(bits));
        }
        kind if kind.is_integer() || matches!(kind, DataType::Boolean | DataType::Date32) => {
            let column = cast(column, &DataType::Int64)?;
            let values = column.as_primitive::<Int64Type>().values();
            mix_in(hashes, nulls.as_ref(), values.iter().map(|v| v.cast_unsigned()));
        }
        kind if kind.is_string() || matches!(kind, DataType::Dictionary(..)) => {
            let column = cast(column, &DataType::Utf8View)?;
            let column = column.as_string_view();
            let views = column.views().iter().enumerate();
            let keys = views.map(|(row, &view)| match short_key(view) {
                Some(key) => key,
                None => hash_text(column.value(row)),
            });
            mix_in(hashes, nulls.as_ref(), keys);
        }
        other => return exec_err!("fingerprint does not know values of {other}"),
    }
    Ok(())
}

fn mix_in(hashes: &mut [u64], nulls: Option<&NullBuffer>, values: impl Iterator<Item = u64>) {
    for (row, (hash, value)) in hashes.iter_mut().zip(values).enumerate() {
        let is_valid = nulls.is_none_or(|nulls| nulls.is_valid(row));
        *hash = mix(*hash ^ if is_valid { value } else { MISSING }).wrapping_add(GOLDEN);
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{Float64Array, Int64Array, StringArray};

    use super::*;

    type Row = (i64, Option<f64>, Option<&'static str>);

    fn of(parts: &[&[Row]]) -> u64 {
        let mut all = Sum(0);
        for part in parts {
            let mut own = Sum(0);
            let columns: [ArrayRef; 3] = [
                Arc::new(part.iter().map(|row| row.0).collect::<Int64Array>()),
                Arc::new(part.iter().map(|row| row.1).collect::<Float64Array>()),
                Arc::new(part.iter().map(|row| row.2).collect::<StringArray>()),
            ];
            own.update_batch(&columns).unwrap();
            let state = own.state().unwrap()[0].to_array().unwrap();
            all.merge_batch(&[state]).unwrap();
        }
        all.0
    }

    #[test]
    fn order_and_partitions_do_not_matter_and_every_value_does() {
        let rows: [Row; 3] =
            [(1, Some(2.5), Some("UA")), (2, None, Some("a long name")), (3, Some(0.0), None)];
        let whole = of(&[&rows]);
        assert_eq!(whole, of(&[&[rows[2]], &[rows[1], rows[0]]]));
        assert_eq!(whole, of(&[&[rows[0], rows[1]], &[(3, Some(-0.0), None)]]));
        for (at, other) in [
            (0, (4, Some(2.5), Some("UA"))),
            (0, (1, Some(2.25), Some("UA"))),
            (0, (1, Some(2.5), Some("AU"))),
            (1, (2, Some(0.0), Some("a long name"))),
            (1, (2, None, Some("a long mane"))),
            (2, (3, Some(0.0), Some(""))),
        ] {
            let mut corrected = rows;
            corrected[at] = other;
            assert_ne!(whole, of(&[&corrected]), "{other:?}");
        }
        assert_ne!(whole, of(&[&rows, &[rows[0]]]), "a row twice");
    }
}
