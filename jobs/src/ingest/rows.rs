//! Rows of `raw_flights` that are being collected from one file.

use std::fmt;
use std::sync::Arc;

use anyhow::Result;
use datafusion::arrow::array::{
    ArrayRef, BooleanArray, RecordBatch, StringArray, StringBuilder, UInt64Builder,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::ingest::columns::{COLUMNS, compared, index_of, lacks};

/// Rows of a batch.
const BATCH_ROWS: usize = 8192;
/// Text of a batch, in bytes: rows have about 100.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Names of columns that a message holds at most, and characters of each.
const FOUND_MAX: usize = 40;
const NAME_CHARS_MAX: usize = 40;
/// Words that stand for a value that is missing, in lower case: R, SQL dumps, pandas, Python.
const MISSING: [&str; 9] = ["", "na", "n/a", "<na>", "null", "\\n", "nan", "nat", "none"];

/// The schema of the relation `raw_flights`.
pub fn raw_schema() -> SchemaRef {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    let said = |name: &str| Field::new(name, DataType::Boolean, false);
    let mut fields = vec![
        text("file", false),
        Field::new("line", DataType::UInt64, false),
        text("malformed", true),
        said("has_dep_time"),
        said("has_arr_delay"),
        said("has_cancelled"),
        said("has_diverted"),
        said("has_utc_clock"),
    ];
    fields.extend(COLUMNS.iter().map(|column| text(column.name, true)));
    Arc::new(Schema::new(fields))
}

/// Takes batches of `raw_flights`.
pub type Sink<'a> = &'a mut dyn FnMut(RecordBatch) -> Result<()>;

/// Whether a text stands for a value that is missing.
pub fn is_missing(text: &str) -> bool {
    // most values are told by their first byte
    match text.as_bytes().first() {
        None => true,
        Some(b'n' | b'N' | b'<' | b'\\') if text.len() <= 4 => {
            MISSING.iter().any(|word| word.eq_ignore_ascii_case(text))
        }
        Some(_) => false,
    }
}

/// Why a file holds no flights: it is named and passed over, and the others are read.
#[derive(Debug)]
pub struct Unfit(pub String);

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unfit {}

/// Rows of one file.
pub struct Rows<'a> {
    file: String,
    sink: Sink<'a>,
    lines: UInt64Builder,
    malformed: StringBuilder,
    columns: Vec<StringBuilder>,
    n_waiting: usize,
    n_rows: u64,
    /// Which of [`COLUMNS`] the file has.
    pub has: [bool; COLUMNS.len()],
    /// What the file's columns are called, for messages.
    found: Vec<String>,
    first_reason: Option<String>,
    nested: Option<String>,
    has_day_of_year: bool,
    is_of_a_data_root: bool,
    n_bytes: usize,
}

impl<'a> Rows<'a> {
    /// Of `file`, as people call it.
    pub fn new(file: &str, sink: Sink<'a>) -> Self {
        Self {
            file: file.to_owned(),
            sink,
            lines: UInt64Builder::new(),
            malformed: StringBuilder::new(),
            columns: COLUMNS.iter().map(|_| StringBuilder::new()).collect(),
            n_waiting: 0,
            n_rows: 0,
            has: [false; COLUMNS.len()],
            found: Vec::new(),
            first_reason: None,
            nested: None,
            has_day_of_year: false,
            is_of_a_data_root: false,
            n_bytes: 0,
        }
    }

    /// Adds a row; `value` gives the text of the i-th of [`COLUMNS`].
    pub fn push<'t>(&mut self, line: u64, value: impl Fn(usize) -> Option<&'t str>) -> Result<()> {
        self.lines.append_value(line);
        self.malformed.append_null();
        for (i, column) in self.columns.iter_mut().enumerate() {
            let text = value(i).map(str::trim).filter(|text| !is_missing(text));
            self.n_bytes += text.map_or(0, str::len);
            column.append_option(text);
        }
        self.pushed()
    }

    /// Notes rows that went elsewhere.
    pub fn took(&mut self, n_rows: u64) {
        self.n_rows += n_rows;
    }

    /// Whether instants show the local time by their UTC clock: the file is a feature file of the
    /// original system.
    pub fn has_utc_clock(&self) -> bool {
        self.has_day_of_year && !index_of("year").is_some_and(|i| self.has[i])
    }

    /// Adds what is no row, with the reason.
    pub fn push_malformed(&mut self, line: u64, reason: &str) -> Result<()> {
        self.first_reason.get_or_insert_with(|| format!("line {line}: {reason}"));
        self.lines.append_value(line);
        self.malformed.append_value(reason);
        self.columns.iter_mut().for_each(StringBuilder::append_null);
        self.pushed()
    }

    fn pushed(&mut self) -> Result<()> {
        self.n_waiting += 1;
        self.n_rows += 1;
        let is_full = self.n_waiting >= BATCH_ROWS || self.n_bytes >= BATCH_BYTES;
        if is_full { self.give() } else { Ok(()) }
    }

    /// Notes that the file has a column of this name.
    pub fn found(&mut self, name: &str) {
        let name = name.trim();
        let is = |known: &str| compared(name) == known;
        self.has_day_of_year |= is("dayofyear");
        self.is_of_a_data_root |= is("crsdepminutes");
        if self.found.len() <= FOUND_MAX {
            self.found.push(name.chars().take(NAME_CHARS_MAX).collect());
        }
    }

    /// Notes that something of this name holds more than a value.
    pub fn found_nested(&mut self, name: &str) {
        self.nested.get_or_insert_with(|| name.chars().take(NAME_CHARS_MAX).collect());
    }

    /// Errors when the columns that were found make no flights, and names them.
    pub fn check(&self) -> Result<()> {
        if self.is_of_a_data_root {
            let what = "these are flights as a data root keeps them, not raw ones: read what they \
                        were made of, or copy the data root";
            return Err(Unfit(what.to_owned()).into());
        }
        let Some(lacks) = lacks(|i| self.has[i]) else { return Ok(()) };
        if let Some(name) = &self.nested {
            return Err(Unfit(format!(
                "what stands under {name:?} is no value: flights are objects of values, one a line \
                 or in an array (pandas: orient='records', lines=True)"
            ))
            .into());
        }
        let Some(reason) = self.first_reason.as_ref().filter(|_| self.found.is_empty()) else {
            let more = if self.found.len() > FOUND_MAX { ", …" } else { "" };
            let found = self.found.iter().take(FOUND_MAX).map(String::as_str);
            let mut found = found.collect::<Vec<_>>().join(", ");
            if found.is_empty() {
                found.push_str("not there");
            }
            return Err(Unfit(format!(
                "its columns make no flights: there is no {lacks}; the columns are {found}{more}; \
                 --columns says which is which"
            ))
            .into());
        };
        Err(Unfit(format!("nothing in it is a row; {reason}")).into())
    }

    /// The number of rows; errors when there are none.
    pub fn some(&self) -> Result<u64> {
        if self.n_rows == 0 {
            return Err(Unfit("there are no rows in this file".to_owned()).into());
        }
        Ok(self.n_rows)
    }

    /// Gives what waits.
    pub fn give(&mut self) -> Result<()> {
        if self.n_waiting == 0 {
            return Ok(());
        }
        // objects show their columns one by one; before the first batch goes all must be there
        self.check()?;
        let n = self.n_waiting;
        let has = |name: &str| index_of(name).is_some_and(|i| self.has[i]);
        let said = |is: bool| -> ArrayRef { Arc::new(BooleanArray::from(vec![is; n])) };
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(std::iter::repeat_n(&self.file, n))),
            Arc::new(self.lines.finish()),
            Arc::new(self.malformed.finish()),
            said(has("dep_time")),
            said(has("arr_delay")),
            said(has("cancelled")),
            said(has("diverted")),
            said(self.has_utc_clock()),
        ];
        columns.extend(self.columns.iter_mut().map(|c| -> ArrayRef { Arc::new(c.finish()) }));
        (self.n_waiting, self.n_bytes) = (0, 0);
        (self.sink)(RecordBatch::try_new(raw_schema(), columns)?)
    }
}
