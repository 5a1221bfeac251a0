//! Rows as a table of text, printed as they come.

use std::io::{ErrorKind, Write};

use anyhow::Result;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::arrow::util::pretty::pretty_format_batches;

/// Rows that are looked at before columns have their widths. A longer value after them makes its
/// own line longer.
const FIRST_ROWS: usize = 1_000;

/// A table that is printed.
#[derive(Default)]
pub struct Table {
    /// The first rows, until they are printed.
    first: Vec<RecordBatch>,
    /// The line above and below the rows, when the first rows are printed.
    border: Option<String>,
}

impl Table {
    /// Prints rows, once there are enough for the widths of the columns. Returns whether somebody
    /// still reads.
    pub fn add(&mut self, batch: RecordBatch) -> Result<bool> {
        if let Some(border) = &self.border {
            return written(&lines(&batch, border)?);
        }
        self.first.push(batch);
        if self.first.iter().map(RecordBatch::num_rows).sum::<usize>() < FIRST_ROWS {
            return Ok(true);
        }
        let text = pretty_format_batches(&std::mem::take(&mut self.first))?.to_string();
        // the border below comes after the last row
        let (rows, border) = text.rsplit_once('\n').unwrap_or_default();
        self.border = Some(border.to_owned());
        written(&format!("{rows}\n"))
    }

    /// Prints what is left. Returns whether somebody still reads.
    pub fn end(self) -> Result<bool> {
        match self.border {
            Some(border) => written(&format!("{border}\n")),
            None if self.first.is_empty() => Ok(true),
            None => written(&format!("{}\n", pretty_format_batches(&self.first)?)),
        }
    }
}

/// A line a row, in columns as wide as those of `border`.
fn lines(batch: &RecordBatch, border: &str) -> Result<String> {
    let options = FormatOptions::default();
    let columns = batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    // +----+ has a blank on each side of the value
    let widths = border.trim_matches('+').split('+').map(|dashes| dashes.len() - 2);
    let columns: Vec<_> = columns.iter().zip(widths).collect();
    let mut text = String::new();
    for row in 0..batch.num_rows() {
        for (column, width) in &columns {
            text.push_str(&format!("| {:width$} ", column.value(row).try_to_string()?));
        }
        text.push_str("|\n");
    }
    Ok(text)
}

/// Prints text; returns whether somebody still reads.
fn written(text: &str) -> Result<bool> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // a reader that has seen enough closes its end; that is no error of ours
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        written => Ok(written.map(|()| true)?),
    }
}
