//! Tables of text to rows: fields between commas, semicolons, tabs or bars, quoted or not.
//!
//! A record is a line. One whose quoted field does not end on it goes on in the next ones, if what
//! comes of that is a record; otherwise the quote is astray, that line alone is bad, and the lines
//! after it are read as if it were not there.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::BufRead;

use anyhow::Result;
use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use crate::ingest::columns::{Names, Positions, lacks};
use crate::ingest::lines::{LINE_BYTES_MAX, read_line};
use crate::ingest::rows::{Rows, Unfit};

/// Fields of a record at most. BTS has 110.
const FIELDS_MAX: usize = 2048;
/// What may stand between fields.
const SEPARATORS: [u8; 4] = [b',', b';', b'\t', b'|'];
/// Lines after the first that are looked at for a header, for a message.
const LINES_AFTER_TITLE: usize = 10;
/// Lines of a record at most: a remark in several lines has a few.
const RECORD_LINES_MAX: usize = 32;
/// Room for the fields of a record.
const RECORD_BYTES_MAX: usize = RECORD_LINES_MAX * LINE_BYTES_MAX;

/// Lines of a file, some of them put back.
struct Lines<R> {
    bytes: R,
    read: u64,
    back: VecDeque<Vec<u8>>,
}

impl<R: BufRead> Lines<R> {
    /// Reads the next line into `into`; its number, or `None` at the end.
    fn next(&mut self, into: &mut Vec<u8>) -> Result<Option<u64>> {
        if let Some(line) = self.back.pop_front() {
            *into = line;
        } else if read_line(&mut self.bytes, into)? {
            self.read += 1;
        } else {
            return Ok(None);
        }
        Ok(Some(self.read - self.back.len() as u64))
    }

    /// Puts back lines that were read last.
    fn put_back(&mut self, lines: Vec<Vec<u8>>) {
        for line in lines.into_iter().rev() {
            self.back.push_front(line);
        }
    }
}

/// Splits records into fields.
struct Splitter {
    separator: u8,
    reader: Reader,
    bytes: Vec<u8>,
    ends: Vec<usize>,
    n_bytes: usize,
    n_fields: usize,
}

/// What became of a line.
#[derive(Debug, PartialEq, Eq)]
enum Split {
    Record,
    /// It ends within a quoted field, after so many whole ones.
    Open(usize),
    TooLong,
}

impl Splitter {
    fn new(separator: u8) -> Self {
        Self {
            separator,
            reader: ReaderBuilder::new().delimiter(separator).build(),
            bytes: vec![0; RECORD_BYTES_MAX],
            ends: vec![0; FIELDS_MAX],
            n_bytes: 0,
            n_fields: 0,
        }
    }

    /// Splits a line that begins a record.
    fn begin(&mut self, line: &[u8]) -> Split {
        self.reader.reset();
        (self.n_bytes, self.n_fields) = (0, 0);
        self.go_on(line)
    }

    /// Splits a line within a record.
    fn go_on(&mut self, line: &[u8]) -> Split {
        let (bytes, ends) = (&mut self.bytes[self.n_bytes..], &mut self.ends[self.n_fields..]);
        let (result, _, n_bytes, n_fields) = self.reader.read_record(line, bytes, ends);
        self.n_bytes += n_bytes;
        self.n_fields += n_fields;
        match result {
            ReadRecordResult::Record => Split::Record,
            ReadRecordResult::InputEmpty | ReadRecordResult::End => Split::Open(self.n_fields),
            ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => Split::TooLong,
        }
    }

    fn field(&self, i: usize) -> Option<&[u8]> {
        let end = *self.ends[..self.n_fields].get(i)?;
        Some(&self.bytes[if i == 0 { 0 } else { self.ends[i - 1] }..end])
    }

    /// Whether there is nothing in it: spreadsheets end with rows of separators.
    fn is_blank(&self) -> bool {
        self.bytes[..self.n_bytes].trim_ascii().is_empty()
    }

    /// A field as it is read: where semicolons stand between fields, commas stand in numbers.
    fn value<'a>(&self, field: &'a [u8]) -> Cow<'a, str> {
        let is_number = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b',' | b'-');
        if self.separator == b';' && field.contains(&b',') && field.iter().all(is_number) {
            return Cow::Owned(decoded(field).replacen(',', ".", 1));
        }
        decoded(field)
    }

    /// The fields of a header, without the empty ones at its end.
    fn header(&self) -> Vec<String> {
        let fields = (0..self.n_fields).filter_map(|i| self.field(i));
        let mut names: Vec<_> = fields.map(|field| decoded(field).trim().to_owned()).collect();
        while names.last().is_some_and(String::is_empty) {
            names.pop();
        }
        names
    }
}

/// A text in UTF-8, or else in Latin-1, which older exports are written in.
pub fn decoded(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(bytes.iter().map(|byte| char::from(*byte)).collect()),
    }
}

/// What the columns of a file are.
#[derive(Default)]
struct Header {
    names: Vec<String>,
    /// Fields of its line, the empty ones at its end too.
    n_fields: usize,
    positions: Positions,
}

impl Header {
    /// The header that was split last. Names of `constants` stand behind those of the file.
    fn read(splitter: &Splitter, known: &Names, constants: &[(String, String)]) -> Self {
        let names = splitter.header();
        let constants = constants.iter().map(|(name, _)| name.as_str());
        let positions = known.positions(names.iter().map(String::as_str).chain(constants));
        Self { names, n_fields: splitter.n_fields, positions }
    }

    fn fits(&self) -> bool {
        lacks(|i| self.positions[i].is_some()).is_none()
    }

    /// Why the record that was split last does not stand under it. Fields that nothing names may be
    /// there, empty: many programs end each row, or the header, with a separator.
    fn refuses(&self, splitter: &Splitter) -> Option<String> {
        let n_fields = splitter.n_fields;
        let more = self.n_fields.max(self.names.len())..n_fields;
        let is_bare = |i| splitter.field(i).is_some_and(|field| field.trim_ascii().is_empty());
        let fits = n_fields >= self.names.len() && more.into_iter().all(is_bare);
        (!fits).then(|| format!("{n_fields} fields instead of {}", self.names.len()))
    }
}

/// The header that a line is, with what splits it when it fits flights; otherwise the one with the
/// most names.
fn header_of(
    line: &[u8],
    known: &Names,
    constants: &[(String, String)],
) -> (Header, Option<Splitter>) {
    let mut nearest = Header::default();
    for separator in SEPARATORS {
        let mut splitter = Splitter::new(separator);
        splitter.begin(line);
        let header = Header::read(&splitter, known, constants);
        if header.fits() {
            return (header, Some(splitter));
        }
        if header.names.len() > nearest.names.len() {
            nearest = header;
        }
    }
    (nearest, None)
}

/// Reads a table with a header. `constants` are columns whose value is the same in the whole file;
/// the file's own columns come first.
///
/// Errors with [`Unfit`] when its columns make no flights.
pub fn read_table(
    bytes: impl BufRead,
    known: &Names,
    constants: &[(String, String)],
    rows: &mut Rows<'_>,
) -> Result<()> {
    let mut lines = Lines { bytes, read: 0, back: VecDeque::new() };
    let mut line = Vec::new();
    // Excel may say in a line of its own what stands between fields
    let is_before = |line: &[u8]| {
        let line = line.trim_ascii();
        line.is_empty() || line.len() < 6 && line.to_ascii_lowercase().starts_with(b"sep=")
    };
    while lines.next(&mut line)?.is_some() && is_before(&line) {}
    let (mut header, splitter) = header_of(&line, known, constants);
    let Some(mut splitter) = splitter else {
        return Err(unfit(&mut lines, &header, known, constants, rows)?);
    };
    set_header(rows, &header);
    while let Some(number) = lines.next(&mut line)? {
        if line.trim_ascii().is_empty() {
            continue;
        }
        if let Some(reason) = read_record(&mut lines, &line, &mut splitter, &header)? {
            rows.push_malformed(number, &reason)?;
            continue;
        }
        if splitter.is_blank() {
            continue;
        }
        if let Some(again) = header_again(&splitter, &header, known, constants) {
            if again.positions != header.positions {
                rows.push_malformed(number, "a header with other columns, used from here on")?;
                rows.give()?;
                set_header(rows, &again);
            }
            header = again;
            continue;
        }
        if let Some(reason) = header.refuses(&splitter) {
            rows.push_malformed(number, &reason)?;
            continue;
        }
        let n_names = header.names.len();
        let texts = header.positions.map(|position| match position {
            Some(i) if i >= n_names => Some(Cow::Borrowed(constants[i - n_names].1.as_str())),
            Some(i) => splitter.field(i).map(|field| splitter.value(field)),
            None => None,
        });
        rows.push(number, |i| texts[i].as_deref())?;
    }
    rows.give()
}

fn set_header(rows: &mut Rows<'_>, header: &Header) {
    header.names.iter().for_each(|name| rows.found(name));
    rows.has = header.positions.map(|position| position.is_some());
}

/// The record that was split last, when it is a header: files that were written one after the
/// other into one have several.
fn header_again(
    splitter: &Splitter,
    header: &Header,
    known: &Names,
    constants: &[(String, String)],
) -> Option<Header> {
    // where a day or a year stands, a name stands in a header only; most rows are told by a byte
    let first = header.positions.iter().flatten().find(|i| **i < header.names.len())?;
    if !splitter.field(*first)?.first()?.is_ascii_alphabetic() {
        return None;
    }
    let again = Header::read(splitter, known, constants);
    again.fits().then_some(again)
}

/// Splits the record that begins with `line`; the reason when it is none.
fn read_record(
    lines: &mut Lines<impl BufRead>,
    line: &[u8],
    splitter: &mut Splitter,
    header: &Header,
) -> Result<Option<String>> {
    let too_long = || Some(format!("longer than {LINE_BYTES_MAX} bytes"));
    if line.len() > LINE_BYTES_MAX {
        return Ok(too_long());
    }
    let n_before = match splitter.begin(line) {
        Split::Record => return Ok(None),
        Split::TooLong => return Ok(too_long()),
        Split::Open(n_before) => n_before,
    };
    let (mut taken, mut split) = (Vec::new(), Split::Open(n_before));
    while matches!(split, Split::Open(_)) && taken.len() < RECORD_LINES_MAX {
        let mut next = Vec::new();
        if lines.next(&mut next)?.is_none() {
            break;
        }
        split = splitter.go_on(&next);
        taken.push(next);
    }
    let mut is_record = split == Split::Record && header.refuses(splitter).is_none();
    if is_record {
        // the quote of a first field is astray when the line has all its fields if it is a letter
        let mut alone = Splitter::new(splitter.separator);
        alone.reader = ReaderBuilder::new().delimiter(splitter.separator).quoting(false).build();
        let is_whole = alone.begin(line) == Split::Record && header.refuses(&alone).is_none();
        let is_astray = n_before == 0 && is_whole;
        // or when a line that is a record by itself was swallowed, but for the end of a first
        // field. Not a clone of the other's reader: csv-core's loses its table
        let mut alone = Splitter::new(splitter.separator);
        let n_lines = taken.len();
        let has_swallowed = taken.iter().enumerate().any(|(i, line)| {
            let is_whole = alone.begin(line) == Split::Record && header.refuses(&alone).is_none();
            is_whole && !(n_before == 0 && i + 1 == n_lines)
        });
        is_record = !is_astray && !has_swallowed;
    }
    if is_record {
        return Ok(None);
    }
    lines.put_back(taken);
    Ok(Some("its quote does not end".to_owned()))
}

/// Why a file whose first line is no header of flights does not fit, with a guess at the cause.
fn unfit(
    lines: &mut Lines<impl BufRead>,
    nearest: &Header,
    known: &Names,
    constants: &[(String, String)],
    rows: &mut Rows<'_>,
) -> Result<anyhow::Error> {
    let mut line = Vec::new();
    for _ in 0..LINES_AFTER_TITLE {
        let Some(number) = lines.next(&mut line)? else { break };
        if header_of(&line, known, constants).1.is_some() {
            let title = nearest.names.join(" ");
            let title: String = title.chars().take(60).collect();
            return Ok(Unfit(format!(
                "its first line is no header: {title:?}; line {number} is one, delete what is \
                 before it"
            ))
            .into());
        }
    }
    // names of columns do not begin with digits, but for an odd one
    let is_value = |name: &&String| name.starts_with(|c: char| c.is_ascii_digit());
    let n_values = nearest.names.iter().filter(is_value).count();
    if n_values > 1 {
        return Ok(Unfit(
            "its first line looks like a row; the names of its columns are missing, \
             write them before it"
                .to_owned(),
        )
        .into());
    }
    set_header(rows, nearest);
    let refusal = rows.check().err().unwrap_or_else(|| Unfit("no header".to_owned()).into());
    Ok(match nearest.names.len() {
        0 | 1 => refusal.context("there is no comma, semicolon, tab or bar in its first line"),
        _ => refusal,
    })
}
