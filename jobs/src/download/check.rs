//! Whether a downloaded file is what was asked for: servers send pages of the web, half archives
//! and other months, all of them with success.

use std::path::Path;

use anyhow::{Result, bail, ensure};
use datafusion::arrow::array::{Array, AsArray, RecordBatch};

use crate::clock::Written;
use crate::ingest::columns::Names;
use crate::ingest::counted::Month;
use crate::ingest::months::name as shown;
use crate::ingest::raw::{self, Reading};
use crate::ingest::rows::Unfit;

/// Rows of a month at most; the largest have 700,000.
const ROWS_MAX: u64 = 20_000_000;
/// Reasons that are told at most.
const REASONS_SHOWN: usize = 3;

/// Reads a whole file of a month of flights, as an ingestion will; returns the number of its rows.
///
/// Errors when it cannot be read, is damaged, holds no flights, or some of another month.
pub(crate) fn check_month(path: &Path, name: &str, month: Month) -> Result<u64> {
    let (mut n_rows, mut is_there, mut other) = (0, false, None);
    let mut sink = |batch: RecordBatch| {
        n_rows += batch.num_rows() as u64;
        ensure!(n_rows <= ROWS_MAX, "more than {ROWS_MAX} rows are no month of flights");
        for of in (0..batch.num_rows()).filter_map(|row| month_of(&batch, row)) {
            is_there |= of == month;
            // said at the end: in a damaged file anything can stand
            other = other.or(Some(of).filter(|of| *of != month));
        }
        Ok(())
    };
    let mut reasons = Vec::new();
    let mut reading = Reading {
        known: &Names::default(),
        constants: &[],
        pass_over: &mut |name, reason| reasons.push(format!("{name}: {reason}")),
        sink: &mut sink,
        flights: None,
    };
    if let Err(error) = raw::read(path, name, &mut |_| (), &mut reading) {
        ensure!(error.is::<Unfit>() && !reasons.is_empty(), error);
        reasons.truncate(REASONS_SHOWN);
        bail!("{error}: {}", reasons.join("; "));
    }
    if let Some(other) = other {
        bail!("it holds flights of {}, not only of {}", shown(other), shown(month));
    }
    ensure!(is_there, "it holds no flight with a date");
    Ok(n_rows)
}

/// The month of a row of `raw_flights`; what has none is for an ingestion to refuse.
fn month_of(batch: &RecordBatch, row: usize) -> Option<Month> {
    let text = |name| {
        let column = batch.column_by_name(name)?.as_string_opt::<i32>()?;
        column.is_valid(row).then(|| column.value(row).trim())
    };
    let parts = || Some((text("year")?.parse().ok()?, text("month")?.parse().ok()?));
    let month = parts().or_else(|| Some(Written::parse(text("flight_date")?)?.month()));
    month.filter(|(_, number)| (1..=12).contains(number))
}
