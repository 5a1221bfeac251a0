//! `distinct_counts(features)`: for each field of the struct of features, its distinct values with
//! the number of rows that have them, as a struct of two lists. Counts are exact, so the bins and
//! categories made from them do not depend on the order or partitioning of the rows. Nulls and NaN
//! are not counted.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, ListArray, StringArray, StructArray, UInt64Array,
};
use datafusion::arrow::buffer::{NullBuffer, OffsetBuffer};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Fields, Float64Type, UInt64Type};
use datafusion::common::{Result, ScalarValue, exec_datafusion_err, exec_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};

use crate::encode::categories::short_key;
use crate::encode::encoder::{DistinctValues, Kind};

/// Most distinct values of a feature: one with more is no feature but a key.
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
        Ok(DataType::Struct(result_fields(&kinds(&types[0])?)))
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let kinds = kinds(args.expr_fields[0].data_type())?;
        let counters = kinds.into_iter().map(|(name, kind)| (name, Counter::new(kind)));
        Ok(Box::new(Counters(counters.collect())))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let fields = result_fields(&kinds(args.input_fields[0].data_type())?);
        let name = format!("{}[counts]", args.name);
        Ok(vec![Arc::new(Field::new(name, DataType::Struct(fields), true))])
    }
}

/// The features of the struct with their kinds.
fn kinds(features: &DataType) -> Result<Vec<(String, Kind)>> {
    let DataType::Struct(fields) = features else {
        return plan_err!("distinct_counts takes the struct of features, not {features}");
    };
    let kind = |field: &FieldRef| match Kind::of(field.data_type()) {
        Some(kind) => Ok((field.name().clone(), kind)),
        None => plan_err!(
            "feature {:?} is {}; a feature is a number, a truth value or a text",
            field.name(),
            field.data_type()
        ),
    };
    fields.iter().map(kind).collect()
}

fn result_fields(kinds: &[(String, Kind)]) -> Fields {
    let field = |(name, kind): &(String, Kind)| {
        Field::new(name, DataType::Struct(counts_fields(*kind)), false)
    };
    kinds.iter().map(field).collect()
}

fn counts_fields(kind: Kind) -> Fields {
    let value = match kind {
        Kind::Numeric => DataType::Float64,
        Kind::Categorical => DataType::Utf8,
    };
    let list = |name, of| Field::new(name, DataType::List(item(of)), false);
    Fields::from(vec![list("values", value), list("n_rows", DataType::UInt64)])
}

fn item(of: DataType) -> FieldRef {
    Arc::new(Field::new_list_field(of, false))
}

/// Counts of each feature, by its name.
#[derive(Debug)]
struct Counters(Vec<(String, Counter)>);

impl Counters {
    fn counts(&self) -> Result<ScalarValue> {
        let kinds: Vec<_> = self.0.iter().map(|(name, c)| (name.clone(), c.kind)).collect();
        let columns = self.0.iter().map(|(_, counter)| counter.counts());
        let columns = columns.collect::<Result<_>>()?;
        let counts = StructArray::try_new(result_fields(&kinds), columns, None)?;
        Ok(ScalarValue::Struct(Arc::new(counts)))
    }
}

impl Accumulator for Counters {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let features = values[0].as_struct();
        for ((name, counter), column) in self.0.iter_mut().zip(features.columns()) {
            counter.add(name, column, features.nulls(), |_| 1)?;
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.counts()?])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let states = states[0].as_struct();
        for ((name, counter), counts) in self.0.iter_mut().zip(states.columns()) {
            let counts = counts.as_struct();
            let (values, n_rows) =
                (counts.column(0).as_list::<i32>(), counts.column(1).as_list::<i32>());
            for i in 0..counts.len() {
                let n_rows = n_rows.value(i);
                let n_rows = n_rows.as_primitive::<UInt64Type>().values();
                counter.add(name, &values.value(i), None, |row| n_rows[row])?;
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.counts()
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.0.iter().map(|(_, counter)| counter.size()).sum::<usize>()
    }
}

/// Whole numbers that are counted in a table: most minutes, days and miles are among them.
const WHOLE: Range<i32> = -1_024..7_168;

/// Counts by the bits of a number, or by the bytes of a text: short texts fit into a number too.
#[derive(Debug)]
struct Counter {
    kind: Kind,
    /// Rows with each number of [`WHOLE`]; empty until there are numbers.
    whole: Vec<u64>,
    short: HashMap<u64, u64, foldhash::fast::FixedState>,
    long: HashMap<String, u64, foldhash::fast::FixedState>,
}

impl Counter {
    fn new(kind: Kind) -> Self {
        Self { kind, whole: Vec::new(), short: HashMap::default(), long: HashMap::default() }
    }

    #[inline]
    fn add_number(&mut self, value: f64, n_rows: u64) {
        // what is not whole is no longer itself
        let whole = value as i32;
        let position = whole.wrapping_sub(WHOLE.start).cast_unsigned() as usize;
        match self.whole.get_mut(position) {
            Some(n) if f64::from(whole) == value => *n += n_rows,
            _ if value.is_nan() => {}
            _ => *self.short.entry(value.to_bits()).or_default() += n_rows,
        }
    }

    fn add_text(&mut self, text: &str, view: u128, n_rows: u64) {
        match short_key(view) {
            Some(key) => *self.short.entry(key).or_default() += n_rows,
            None => match self.long.get_mut(text) {
                Some(n) => *n += n_rows,
                None => _ = self.long.insert(text.to_owned(), n_rows),
            },
        }
    }

    fn add(
        &mut self,
        feature: &str,
        column: &ArrayRef,
        nulls_of_rows: Option<&NullBuffer>,
        n_rows: impl Fn(usize) -> u64,
    ) -> Result<()> {
        let nulls = NullBuffer::union(column.logical_nulls().as_ref(), nulls_of_rows);
        let is_valid = |i| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(i));
        match self.kind {
            Kind::Numeric => {
                let column = cast(column, &DataType::Float64)?;
                let column = column.as_primitive::<Float64Type>();
                self.whole.resize(WHOLE.len(), 0);
                for (i, &value) in column.values().iter().enumerate() {
                    if is_valid(i) {
                        self.add_number(value, n_rows(i));
                    }
                }
            }
            Kind::Categorical => {
                let column = cast(column, &DataType::Utf8View)?;
                let column = column.as_string_view();
                for (i, &view) in column.views().iter().enumerate() {
                    if is_valid(i) {
                        self.add_text(column.value(i), view, n_rows(i));
                    }
                }
            }
        }
        if self.short.len() + self.long.len() > VALUES_MAX {
            return exec_err!("feature {feature:?} has more than {VALUES_MAX} distinct values");
        }
        Ok(())
    }

    fn counts(&self) -> Result<ArrayRef> {
        let whole = || WHOLE.zip(&self.whole).filter(|(_, n)| **n > 0);
        let mut n_rows: Vec<u64> = whole().map(|(_, n)| *n).collect();
        n_rows.extend(self.short.values().chain(self.long.values()));
        let values: ArrayRef = match self.kind {
            Kind::Numeric => {
                let whole = whole().map(|(number, _)| f64::from(number));
                let numbers = whole.chain(self.short.keys().map(|&bits| f64::from_bits(bits)));
                Arc::new(Float64Array::from_iter_values(numbers))
            }
            Kind::Categorical => {
                let mut values = Vec::with_capacity(n_rows.len());
                for key in self.short.keys() {
                    let bytes = key.to_le_bytes();
                    let length = 8 - key.leading_zeros() as usize / 8;
                    values.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
                }
                values.extend(self.long.keys().cloned());
                Arc::new(StringArray::from(values))
            }
        };
        let list = |values: ArrayRef| -> ArrayRef {
            let offsets = OffsetBuffer::from_lengths([values.len()]);
            let item = item(values.data_type().clone());
            Arc::new(ListArray::new(item, offsets, values, None))
        };
        let columns = vec![list(values), list(Arc::new(UInt64Array::from(n_rows)))];
        Ok(Arc::new(StructArray::try_new(counts_fields(self.kind), columns, None)?))
    }

    fn size(&self) -> usize {
        self.whole.len() * 8 + self.short.capacity() * 17 + self.long.capacity() * 64
    }
}

/// The distinct values of one feature, from row 0 of the struct that `distinct_counts` returned.
pub fn read(counts: &ArrayRef, feature: &str) -> Result<DistinctValues> {
    let counts = counts.as_struct_opt().and_then(|counts| counts.column_by_name(feature));
    let counts = counts
        .and_then(|counts| counts.as_struct_opt())
        .ok_or_else(|| exec_datafusion_err!("feature {feature:?} was not counted"))?;
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn each_number_is_counted_as_itself_and_both_zeros_as_one() {
        let edges = [WHOLE.start - 1, WHOLE.start, WHOLE.end - 1, WHOLE.end].map(f64::from);
        let odd = [-0.5, 0.5, 1.0, 1.25, 7_167.5, f64::MAX, f64::INFINITY, f64::NEG_INFINITY];
        let once = edges.into_iter().chain(odd);
        let rows = once.clone().map(Some).chain([Some(0.0), Some(-0.0), Some(f64::NAN), None]);
        let rows: ArrayRef = Arc::new(Float64Array::from_iter(rows));
        let mut counter = Counter::new(Kind::Numeric);
        for weight in [1, 2] {
            counter.add("f", &rows, None, |_| weight).unwrap();
        }
        let counts = counter.counts().unwrap();
        let all = StructArray::try_new(
            result_fields(&[("f".to_owned(), Kind::Numeric)]),
            vec![counts],
            None,
        );
        let all: ArrayRef = Arc::new(all.unwrap());
        let DistinctValues::Numeric(found) = read(&all, "f").unwrap() else { panic!("no numbers") };
        let bits = |(value, n): (f64, u64)| (value.to_bits(), n);
        let found: BTreeMap<u64, u64> = found.into_iter().map(bits).collect();
        let want = once.map(|value| (value, 3)).chain([(0.0, 6)]);
        assert_eq!(found, want.map(bits).collect());
    }
}
