//! Parquet files to rows.

use std::fs::File;
use std::sync::Arc;

use anyhow::{Context, Result};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::parquet::arrow::ProjectionMask;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use uuid::Uuid;

use crate::ingest::columns::{COLUMNS, Names};
use crate::ingest::rows::Rows;
use crate::ingest::table::decoded;

/// Rows that are decoded at once.
const BATCH_ROWS: usize = 8192;

/// A column as text; 16 bytes are a UUID, others that are not UTF-8 as in a table of text.
fn text_of(column: &ArrayRef) -> Result<ArrayRef> {
    use DataType::{Binary, BinaryView, FixedSizeBinary, LargeBinary};
    if !matches!(column.data_type(), Binary | BinaryView | FixedSizeBinary(_) | LargeBinary) {
        return Ok(cast(column, &DataType::Utf8)?);
    }
    let bytes = cast(column, &Binary)?;
    let is_uuid = *column.data_type() == FixedSizeBinary(16);
    let texts = bytes.as_binary::<i32>().iter().map(|bytes| match bytes.map(Uuid::from_slice) {
        Some(Ok(uuid)) if is_uuid => Some(uuid.to_string().into()),
        _ => bytes.map(decoded),
    });
    Ok(Arc::new(texts.collect::<StringArray>()))
}

/// Reads the columns that are wanted, as text. `constants` are columns whose value is the same in
/// the whole file; the file's own come first.
pub fn read_parquet(
    file: File,
    known: &Names,
    constants: &[(String, String)],
    rows: &mut Rows<'_>,
) -> Result<()> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
    let names: Vec<String> = builder.schema().fields().iter().map(|f| f.name().clone()).collect();
    let all = names.iter().chain(constants.iter().map(|(name, _)| name));
    let positions = known.positions(all.map(String::as_str));
    names.iter().for_each(|name| rows.found(name));
    rows.has = positions.map(|position| position.is_some());
    rows.check()?;

    let wanted = positions.into_iter().flatten().filter(|i| *i < names.len());
    let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
    let reader = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build()?;
    let mut line = 0;
    for batch in reader {
        let batch = batch?;
        let text = |i: usize| -> Result<Option<ArrayRef>> {
            let Some(name) = positions[i].and_then(|position| names.get(position)) else {
                return Ok(None);
            };
            let column = batch.column_by_name(name).context("a column that was asked for")?;
            let as_text = text_of(column);
            Ok(Some(as_text.with_context(|| format!("column {name} holds no values"))?))
        };
        let columns: Vec<_> = (0..COLUMNS.len()).map(text).collect::<Result<_>>()?;
        let constant = |i: usize| {
            let position = positions[i]?.checked_sub(names.len())?;
            constants.get(position).map(|(_, value)| value.as_str())
        };
        for row in 0..batch.num_rows() {
            line += 1;
            rows.push(line, |i| match columns[i].as_ref() {
                Some(column) => {
                    let column = column.as_string::<i32>();
                    column.is_valid(row).then(|| column.value(row))
                }
                None => constant(i),
            })?;
        }
    }
    rows.give()
}
