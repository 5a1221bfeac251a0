//! Raw files to rows of text: decompresses, reads CSV, Parquet or JSON Lines, and says for each
//! row which file and line it comes from. What cannot be read as a row is a row too, with the
//! reason in `malformed`; nothing is decided here beyond that.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, RecordBatch, StringBuilder, UInt64Builder,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::parquet::arrow::ProjectionMask;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::ingest::layouts::{Layout, RAW_COLUMNS, detect};

/// Rows of a batch.
const BATCH_ROWS: usize = 8192;
/// Longest line of JSON, and longest CSV record, in bytes. A BTS record has about 500.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// Layouts that tables can have, and layouts that objects can have.
const TABLES: &[&str] = &["bts", "nycflights13"];
const OBJECTS: &[&str] = &["features"];

/// The schema of the relation `raw_flights`.
pub fn raw_schema() -> SchemaRef {
    let mut fields = vec![
        Field::new("layout", DataType::Utf8, false),
        Field::new("file", DataType::Utf8, false),
        Field::new("line", DataType::UInt64, false),
        Field::new("malformed", DataType::Utf8, true),
    ];
    fields.extend(RAW_COLUMNS.iter().map(|name| Field::new(*name, DataType::Utf8, true)));
    Arc::new(Schema::new(fields))
}

/// Takes batches of `raw_flights`.
pub type Sink<'a> = &'a mut dyn FnMut(RecordBatch) -> Result<()>;

/// Reads a file; `on_bytes` gets the number of bytes read so far.
///
/// Errors when the file cannot be read or fits no layout; the message names it.
pub fn read(path: &Path, on_bytes: &mut dyn FnMut(u64), sink: Sink<'_>) -> Result<()> {
    let mut read = || -> Result<()> {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let file = File::open(path)?;
        if name.ends_with(".parquet") {
            let n_bytes = file.metadata()?.len();
            read_parquet(path, file, sink)?;
            on_bytes(n_bytes);
            return Ok(());
        }
        let counted = Counted { file, on_bytes };
        if let Some(name) = name.strip_suffix(".gz") {
            read_text(path, name, flate2::read::MultiGzDecoder::new(counted), sink)
        } else if let Some(name) = name.strip_suffix(".bz2") {
            read_text(path, name, bzip2::read::MultiBzDecoder::new(counted), sink)
        } else if name.ends_with(".zip") {
            read_zip(path, counted, sink)
        } else {
            read_text(path, name, counted, sink)
        }
    };
    read().with_context(|| path.display().to_string())
}

/// Whether a file's name says that it may hold flights.
pub fn is_readable(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let plain = [".gz", ".bz2", ".zip"].iter().find_map(|end| name.strip_suffix(end));
    let known = [".csv", ".jsonl", ".json"].iter().any(|end| plain.unwrap_or(name).ends_with(end));
    known || name.ends_with(".parquet") || name.ends_with(".zip")
}

fn read_zip(path: &Path, counted: Counted<'_>, sink: Sink<'_>) -> Result<()> {
    let n_bytes = counted.file.metadata()?.len();
    let mut archive = zip::ZipArchive::new(counted.file)?;
    for i in 0..archive.len() {
        let entry = archive.by_index(i)?;
        let name = entry.name().to_owned();
        // BTS puts a readme beside the table
        if name.ends_with(".csv") || name.ends_with(".jsonl") || name.ends_with(".json") {
            read_text(path, &name, entry, sink)?;
        }
    }
    (counted.on_bytes)(n_bytes);
    Ok(())
}

fn read_text(path: &Path, name: &str, bytes: impl Read, sink: Sink<'_>) -> Result<()> {
    let file = path.display().to_string();
    if name.ends_with(".csv") {
        read_csv(file, bytes, sink)
    } else if name.ends_with(".jsonl") || name.ends_with(".json") {
        read_json_lines(file, BufReader::new(bytes), sink)
    } else {
        bail!("not a .csv, .parquet, .jsonl or .json file (or one of them as .gz, .bz2, .zip)")
    }
}

fn read_csv(file: String, bytes: impl Read, sink: Sink<'_>) -> Result<()> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(bytes);
    let header: Vec<String> = reader.headers()?.iter().map(|name| name.trim().to_owned()).collect();
    let layout = detect(&header, TABLES)?;
    let positions = layout.positions(&header);
    let mut rows = Rows::new(layout, file);
    let mut record = csv::ByteRecord::new();
    while reader.read_byte_record(&mut record)? {
        let line = record.position().map_or(0, csv::Position::line);
        let text = std::str::from_utf8(record.as_slice());
        let malformed = if record.len() != header.len() {
            Some(format!("{} fields instead of {}", record.len(), header.len()))
        } else if record.as_slice().len() > LINE_BYTES_MAX {
            Some(format!("record of {} bytes exceeds {LINE_BYTES_MAX}", record.as_slice().len()))
        } else {
            text.err().map(|e| format!("not UTF-8: {e}"))
        };
        match malformed {
            Some(reason) => rows.push_malformed(line, &reason),
            None => rows.push(line, |i| {
                let field = record.get(positions[i]?)?;
                std::str::from_utf8(field).ok()
            }),
        }
        rows.give_when_full(sink)?;
    }
    rows.give(sink)
}

fn read_json_lines(file: String, mut bytes: impl BufRead, sink: Sink<'_>) -> Result<()> {
    let mut rows: Option<Rows> = None;
    // until the first good line shows the layout
    let mut early: Vec<(u64, String)> = Vec::new();
    let mut line = Vec::new();
    for line_number in 1.. {
        line.clear();
        if bytes.by_ref().take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.len() > LINE_BYTES_MAX && !line.ends_with(b"\n") {
            bytes.skip_until(b'\n')?;
        }
        let object = match parse_object(&line) {
            Ok(Some(object)) => object,
            Ok(None) => continue,
            Err(reason) => {
                match &mut rows {
                    Some(rows) => rows.push_malformed(line_number, &reason),
                    None if early.len() < BATCH_ROWS => early.push((line_number, reason)),
                    None => bail!("no line of the first {BATCH_ROWS} is a JSON object"),
                }
                continue;
            }
        };
        let rows = match &mut rows {
            Some(rows) => rows,
            None => {
                let header: Vec<String> = object.keys().cloned().collect();
                let layout = detect(&header, OBJECTS)?;
                rows.insert(Rows::new(layout, file.clone()))
            }
        };
        for (line_number, reason) in early.drain(..) {
            rows.push_malformed(line_number, &reason);
        }
        rows.push_object(line_number, &object);
        rows.give_when_full(sink)?;
    }
    match rows {
        Some(mut rows) => rows.give(sink),
        None if early.is_empty() => bail!("the file is empty"),
        None => bail!("no line is a JSON object; line {}: {}", early[0].0, early[0].1),
    }
}

type Object = serde_json::Map<String, serde_json::Value>;

/// `None` for a blank line.
fn parse_object(line: &[u8]) -> Result<Option<Object>, String> {
    if line.len() > LINE_BYTES_MAX {
        return Err(format!("line exceeds {LINE_BYTES_MAX} bytes"));
    }
    let line = line.trim_ascii();
    if line.is_empty() {
        return Ok(None);
    }
    match serde_json::from_slice(line) {
        Ok(serde_json::Value::Object(object)) => Ok(Some(object)),
        Ok(_) => Err("not a JSON object".into()),
        // the parser counts lines of its own, which are not the file's
        Err(e) => Err(format!("not JSON: {e}").replace(" at line 1 column", " at column")),
    }
}

fn read_parquet(path: &Path, file: File, sink: Sink<'_>) -> Result<()> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
    let header: Vec<String> =
        builder.schema().fields().iter().map(|field| field.name().clone()).collect();
    let layout = detect(&header, TABLES)?;
    let wanted: Vec<usize> = layout.positions(&header).into_iter().flatten().collect();
    let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
    let reader = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build()?;
    let mut rows = Rows::new(layout, path.display().to_string());
    let mut line = 0;
    for batch in reader {
        let batch = batch?;
        let columns: Vec<Option<ArrayRef>> = RAW_COLUMNS
            .iter()
            .map(|raw| layout.names(raw).iter().find_map(|name| batch.column_by_name(name)))
            .map(|column| column.map(|column| cast(column, &DataType::Utf8)).transpose())
            .collect::<Result<_, _>>()?;
        for row in 0..batch.num_rows() {
            line += 1;
            rows.push(line, |i| {
                let column = columns[i].as_ref()?.as_string::<i32>();
                column.is_valid(row).then(|| column.value(row))
            });
        }
        rows.give_when_full(sink)?;
    }
    rows.give(sink)
}

/// Rows of `raw_flights` that are being collected from one file.
struct Rows {
    layout: &'static Layout,
    file: String,
    lines: UInt64Builder,
    malformed: StringBuilder,
    columns: Vec<StringBuilder>,
    n_rows: usize,
}

impl Rows {
    fn new(layout: &'static Layout, file: String) -> Self {
        let columns = RAW_COLUMNS.iter().map(|_| StringBuilder::new()).collect();
        let (lines, malformed) = (UInt64Builder::new(), StringBuilder::new());
        Self { layout, file, lines, malformed, columns, n_rows: 0 }
    }

    /// Adds a row; `value` gives the text of the i-th of [`RAW_COLUMNS`].
    fn push<'a>(&mut self, line: u64, value: impl Fn(usize) -> Option<&'a str>) {
        self.lines.append_value(line);
        self.malformed.append_null();
        for (i, column) in self.columns.iter_mut().enumerate() {
            let text = value(i).map(str::trim);
            // R writes NA for what is not there
            column.append_option(text.filter(|text| !text.is_empty() && *text != "NA"));
        }
        self.n_rows += 1;
    }

    fn push_object(&mut self, line: u64, object: &Object) {
        let texts: Vec<Option<String>> = RAW_COLUMNS
            .iter()
            .map(|raw| {
                let value = self.layout.names(raw).iter().find_map(|name| object.get(*name))?;
                match value {
                    serde_json::Value::Null => None,
                    serde_json::Value::String(text) => Some(text.clone()),
                    other => Some(other.to_string()),
                }
            })
            .collect();
        self.push(line, |i| texts[i].as_deref());
    }

    fn push_malformed(&mut self, line: u64, reason: &str) {
        self.lines.append_value(line);
        self.malformed.append_value(reason);
        self.columns.iter_mut().for_each(StringBuilder::append_null);
        self.n_rows += 1;
    }

    fn give_when_full(&mut self, sink: Sink<'_>) -> Result<()> {
        if self.n_rows >= BATCH_ROWS { self.give(sink) } else { Ok(()) }
    }

    fn give(&mut self, sink: Sink<'_>) -> Result<()> {
        if self.n_rows == 0 {
            return Ok(());
        }
        let repeated = |text: &str| -> ArrayRef {
            let mut builder = StringBuilder::new();
            (0..self.n_rows).for_each(|_| builder.append_value(text));
            Arc::new(builder.finish())
        };
        let mut columns = vec![repeated(self.layout.name), repeated(&self.file)];
        columns.push(Arc::new(self.lines.finish()));
        columns.push(Arc::new(self.malformed.finish()));
        columns.extend(self.columns.iter_mut().map(|c| -> ArrayRef { Arc::new(c.finish()) }));
        self.n_rows = 0;
        sink(RecordBatch::try_new(raw_schema(), columns)?)
    }
}

/// A file that counts how much of it was read.
struct Counted<'a> {
    file: File,
    on_bytes: &'a mut dyn FnMut(u64),
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.file.read(buffer)?;
        (self.on_bytes)(n as u64);
        Ok(n)
    }
}
