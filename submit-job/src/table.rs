//! Rows as a table of text, printed as they come.

use anyhow::Result;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::arrow::util::pretty::pretty_format_batches_with_schema;
use unicode_width::UnicodeWidthStr;

/// Rows that are looked at before columns have their widths. A longer value after them makes its
/// own line longer.
const FIRST_ROWS: usize = 1_000;

/// A table that is printed.
pub struct Table {
    schema: SchemaRef,
    /// The first rows, until they are printed.
    first: Vec<RecordBatch>,
    /// The line above and below the rows, when the first rows are printed.
    border: Option<String>,
}

impl Table {
    /// A table of these columns.
    pub fn new(schema: SchemaRef) -> Self {
        Self { schema, first: Vec::new(), border: None }
    }

    /// Takes rows and returns the text that can be printed now: nothing before there are enough
    /// rows for the widths of the columns.
    pub fn add(&mut self, batch: RecordBatch) -> Result<String> {
        if let Some(border) = &self.border {
            return lines(&batch, border);
        }
        self.first.push(batch);
        if self.first.iter().map(RecordBatch::num_rows).sum::<usize>() < FIRST_ROWS {
            return Ok(String::new());
        }
        let text = self.first_rows()?;
        // the border below comes after the last row
        let (rows, border) = text.rsplit_once('\n').unwrap_or_default();
        self.border = Some(border.to_owned());
        Ok(format!("{rows}\n"))
    }

    /// The rest of the text. A statement that gives no columns has none.
    pub fn end(mut self) -> Result<String> {
        match &self.border {
            Some(border) => Ok(format!("{border}\n")),
            None if self.schema.fields().is_empty() => Ok(String::new()),
            None => Ok(format!("{}\n", self.first_rows()?)),
        }
    }

    fn first_rows(&mut self) -> Result<String> {
        let (schema, first) = (self.schema.clone(), std::mem::take(&mut self.first));
        Ok(pretty_format_batches_with_schema(schema, &first)?.to_string())
    }
}

/// The lines of rows, in columns as wide as those of `border`.
fn lines(batch: &RecordBatch, border: &str) -> Result<String> {
    let options = FormatOptions::default();
    let columns = batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    // +----+ has a blank on each side of the value
    let widths: Vec<_> =
        border.trim_matches('+').split('+').map(|dashes| dashes.len() - 2).collect();
    let mut text = String::new();
    for row in 0..batch.num_rows() {
        let values = columns.iter().map(|column| column.value(row).try_to_string());
        let values = values.collect::<Result<Vec<_>, _>>()?;
        let n_lines = values.iter().map(|value| value.lines().count()).max().unwrap_or(1).max(1);
        for n in 0..n_lines {
            for (value, width) in values.iter().zip(&widths) {
                let line = value.lines().nth(n).unwrap_or_default();
                let blanks = width.saturating_sub(line.width());
                text.push_str(&format!("| {line}{:blanks$} ", ""));
            }
            text.push_str("|\n");
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    fn rows(texts: &[&str]) -> RecordBatch {
        let texts: ArrayRef = Arc::new(StringArray::from(texts.to_vec()));
        let n: ArrayRef = Arc::new(Int64Array::from(vec![7; texts.len()]));
        RecordBatch::try_from_iter([("airport", texts), ("n", n)]).unwrap()
    }

    /// The text of a table that gets these rows, batch by batch.
    fn printed(batches: &[RecordBatch]) -> String {
        let mut table = Table::new(rows(&[]).schema());
        let mut text = String::new();
        for batch in batches {
            text += &table.add(batch.clone()).unwrap();
        }
        text + &table.end().unwrap()
    }

    #[test]
    fn rows_look_the_same_before_and_after_the_widths_are_known() {
        let texts = ["Newark", "東京 羽田", "São Paulo", "two\nlines", "", "O’Hare"];
        let first = vec!["Rio de Janeiro"; FIRST_ROWS];
        let all: Vec<&str> = first.iter().chain(&texts).copied().collect();
        let at_once = printed(&[rows(&all)]);
        let in_parts = printed(&[rows(&first), rows(&texts[..2]), rows(&texts[2..])]);
        assert!(in_parts == at_once, "{}", &in_parts[in_parts.len() - 300..]);
        assert!(in_parts.contains("\n| 東京 羽田      | 7 |\n"));
        assert_eq!(in_parts.lines().count(), FIRST_ROWS + texts.len() + 1 + 4);
    }

    #[test]
    fn no_rows_have_a_header_and_no_columns_have_nothing() {
        let header = "+---------+---+\n| airport | n |\n+---------+---+\n+---------+---+\n";
        assert_eq!(printed(&[]), header);
        assert_eq!(printed(&[rows(&[])]), header);
        let none = Table::new(Arc::new(datafusion::arrow::datatypes::Schema::empty()));
        assert_eq!(none.end().unwrap(), "");
    }
}
