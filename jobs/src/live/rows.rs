//! Documents → Parquet under the data root, through a file on this disk: there may be millions.

use std::fs::File;
use std::sync::Arc;

use anyhow::{Context, Result};
use chrono::NaiveDate;
use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Date32Array, FixedSizeListArray, Float64Array, Int32Array, RecordBatch,
    StringArray,
};
use datafusion::arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::prelude::SessionContext;
use events::{Arrival, N_CLASSES, Prediction};
use tempfile::NamedTempFile;

use crate::lake::Lake;

/// Rows on their way to the data root.
pub(super) struct Rows {
    writer: ArrowWriter<File>,
    file: NamedTempFile,
}

impl Rows {
    pub(super) fn new(columns: SchemaRef) -> Result<Self> {
        let file = NamedTempFile::new().context("no temporary file")?;
        let writer = ArrowWriter::try_new(file.reopen()?, columns, None)?;
        Ok(Self { writer, file })
    }

    pub(super) fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        self.writer.write(rows).context("cannot write a temporary file")
    }

    /// Puts them into a directory, and registers them.
    pub(super) async fn put(
        self,
        ctx: &SessionContext,
        lake: &Lake,
        name: &str,
        directory: &str,
    ) -> Result<()> {
        self.writer.close().context("cannot write a temporary file")?;
        lake.upload(self.file.path(), &format!("{directory}0.parquet")).await?;
        lake.register_table(ctx, name, directory, &[]).await
    }
}

fn columns(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    let columns = columns.into_iter().map(|(name, column)| (name, column, true));
    Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
}

fn days(days: impl Iterator<Item = NaiveDate>) -> ArrayRef {
    Arc::new(Date32Array::from_iter_values(days.map(|day| day.to_epoch_days())))
}

fn texts<'a>(texts: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(StringArray::from_iter(texts))
}

fn numbers(numbers: impl Iterator<Item = Option<f64>>) -> ArrayRef {
    Arc::new(Float64Array::from_iter(numbers))
}

/// `answers`: what was predicted.
pub(super) fn of_answers(answers: &[Prediction]) -> Result<RecordBatch> {
    let shares = answers.iter().flat_map(|answer| answer.probabilities);
    let item = Arc::new(Field::new_list_field(DataType::Float64, true));
    let shares = Arc::new(Float64Array::from_iter_values(shares));
    let shares = FixedSizeListArray::try_new(item, N_CLASSES as i32, shares, None)?;
    let classes = answers.iter().map(|answer| i32::from(answer.prediction));
    columns(vec![
        ("flight_date", days(answers.iter().map(|a| a.flight_date))),
        ("carrier", texts(answers.iter().map(|a| Some(&*a.carrier)))),
        ("flight_number", texts(answers.iter().map(|a| a.flight_num.as_deref()))),
        ("origin", texts(answers.iter().map(|a| Some(&*a.origin)))),
        ("dest", texts(answers.iter().map(|a| Some(&*a.dest)))),
        ("dep_delay_minutes", numbers(answers.iter().map(|a| Some(a.dep_delay)))),
        ("prediction", Arc::new(Int32Array::from_iter_values(classes))),
        ("probabilities", Arc::new(shares)),
        ("model_version", texts(answers.iter().map(|a| Some(&*a.model_version)))),
        ("answered_at", texts(answers.iter().map(|a| Some(&*a.answered_at)))),
    ])
}

/// `arrivals`: what was told of flights.
pub(super) fn of_arrivals(arrivals: &[Arrival]) -> Result<RecordBatch> {
    let never = arrivals.iter().map(|a| Some(a.never_arrived()));
    columns(vec![
        ("flight_date", days(arrivals.iter().map(|a| a.flight_date))),
        ("carrier", texts(arrivals.iter().map(|a| Some(&*a.carrier)))),
        ("flight_number", texts(arrivals.iter().map(|a| Some(&*a.flight_num)))),
        ("origin", texts(arrivals.iter().map(|a| Some(&*a.origin)))),
        ("dest", texts(arrivals.iter().map(|a| Some(&*a.dest)))),
        ("dep_delay_minutes", numbers(arrivals.iter().map(Arrival::dep_delay_minutes))),
        ("arr_delay_minutes", numbers(arrivals.iter().map(Arrival::delay_minutes))),
        ("never_arrived", Arc::new(BooleanArray::from_iter(never))),
    ])
}
