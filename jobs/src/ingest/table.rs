//! Tables of text to rows: fields between commas, semicolons, tabs or bars, quoted or not.
//!
//! A record is a line. One whose quoted field does not end on it goes on in the next ones, if what
//! comes of that is a record; otherwise the quote is astray, that line alone is bad, and the lines
//! after it are read as if it were not there.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::BufRead;
use std::sync::Arc;

use anyhow::Result;
use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use crate::ingest::columns::{Names, Positions, lacks};
use crate::ingest::flights::{Flights, Parsing};
use crate::ingest::lines::{Blocks, LINE_BYTES_MAX, read_line};
use crate::ingest::rows::{Rows, Unfit};
use crate::ingest::typed::{Layout, Left};

/// Fields of a record at most. BTS has 110.
const FIELDS_MAX: usize = 2048;
/// What may stand between fields.
const SEPARATORS: [u8; 4] = [b',', b';', b'\t', b'|'];
/// Lines after the first that are looked at for a header, for a message.
const LINES_AFTER_TITLE: usize = 10;
/// Lines of a record at most: a remark in several lines has a few.
const RECORD_LINES_MAX: usize = 32;
/// Lines that are read one by one after one that did not stand alone; doubled each time, so that a
/// file with many such lines is read about as fast as without blocks.
const LINES_ALONE: usize = 1_000;
/// Blocks without such a line after which one is an exception again.
const BLOCKS_WHOLE: usize = 4;
/// Room for the fields of a record.
const RECORD_BYTES_MAX: usize = RECORD_LINES_MAX * LINE_BYTES_MAX;

/// Lines of a file, some of them put back.
struct Lines<R> {
    bytes: Blocks<R>,
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
/// With `flights` rows that are clean beyond doubt go there.
///
/// Errors with [`Unfit`] when its columns make no flights.
pub fn read_table(
    bytes: impl BufRead,
    known: &Names,
    constants: &[(String, String)],
    rows: &mut Rows<'_>,
    mut flights: Option<&mut Flights>,
) -> Result<()> {
    let mut lines = Lines { bytes: Blocks::new(bytes), read: 0, back: VecDeque::new() };
    let mut line = Vec::new();
    // Excel may say in a line of its own what stands between fields
    let is_before = |line: &[u8]| {
        let line = line.trim_ascii();
        line.is_empty() || line.len() < 6 && line.to_ascii_lowercase().starts_with(b"sep=")
    };
    while lines.next(&mut line)?.is_some() && is_before(&line) {}
    let (header, splitter) = header_of(&line, known, constants);
    let Some(splitter) = splitter else {
        return Err(unfit(&mut lines, &header, known, constants, rows)?);
    };
    set_header(rows, &header);
    rows.check()?;
    let mut table = Table { splitter, header, known, constants };
    // lines that are read one by one before blocks are tried again
    let mut n_alone = LINES_ALONE;
    loop {
        let layout = flights.is_some().then(|| table.layout(rows)).flatten().map(Arc::new);
        if let (Some(layout), Some(flights)) = (&layout, flights.as_deref_mut())
            && lines.back.is_empty()
        {
            match table.read_blocks(&mut lines, layout, flights, rows)? {
                None => return rows.give(),
                Some(n_blocks) if n_blocks >= BLOCKS_WHOLE => n_alone = LINES_ALONE,
                Some(_) => {}
            }
        }
        for _ in 0..n_alone {
            let Some(number) = lines.next(&mut line)? else { return rows.give() };
            if line.trim_ascii().is_empty() {
                continue;
            }
            match read_record(&mut lines, &line, &mut table.splitter, &table.header)? {
                Some(reason) => rows.push_malformed(number, &reason)?,
                None => table.take(number, rows)?,
            }
        }
        n_alone *= 2;
    }
}

/// A table that is being read.
struct Table<'a> {
    splitter: Splitter,
    header: Header,
    known: &'a Names,
    constants: &'a [(String, String)],
}

impl Table<'_> {
    /// How its rows are typed without SQL, if they can be.
    fn layout(&self, rows: &Rows<'_>) -> Option<Layout> {
        let Header { names, n_fields, positions } = &self.header;
        let n_fields = (names.len(), *n_fields);
        let separator = self.splitter.separator;
        Layout::new(separator, positions, n_fields, self.constants, rows.has_utc_clock())
    }

    /// Takes the record that was split last, which begins at this line.
    fn take(&mut self, number: u64, rows: &mut Rows<'_>) -> Result<()> {
        if let Some(again) = self.header_again() {
            if again.positions != self.header.positions {
                rows.push_malformed(number, "a header with other columns, used from here on")?;
                rows.give()?;
                set_header(rows, &again);
                rows.check()?;
            }
            self.header = again;
            return Ok(());
        }
        self.take_row(number, rows)
    }

    fn header_again(&self) -> Option<Header> {
        header_again(&self.splitter, &self.header, self.known, self.constants)
    }

    /// Takes the record that was split last, which is no header.
    fn take_row(&self, number: u64, rows: &mut Rows<'_>) -> Result<()> {
        let Self { splitter, header, constants, .. } = self;
        if splitter.is_blank() {
            return Ok(());
        }
        if let Some(reason) = header.refuses(splitter) {
            return rows.push_malformed(number, &reason);
        }
        let n_names = header.names.len();
        let texts = header.positions.map(|position| match position {
            Some(i) if i >= n_names => Some(Cow::Borrowed(constants[i - n_names].1.as_str())),
            Some(i) => splitter.field(i).map(|field| splitter.value(field)),
            None => None,
        });
        rows.push(number, |i| texts[i].as_deref())
    }

    /// Reads blocks of lines, whose clean rows become `flights` and the others `rows`, up to a line
    /// that does not stand alone: a record goes on in the next one, or the columns change. Returns
    /// the number of blocks before it, `None` at the end of the table.
    fn read_blocks(
        &mut self,
        lines: &mut Lines<impl BufRead>,
        layout: &Arc<Layout>,
        flights: &mut Flights,
        rows: &mut Rows<'_>,
    ) -> Result<Option<usize>> {
        let mut waiting: VecDeque<Parsing> = VecDeque::new();
        for n_blocks in 0.. {
            while waiting.len() <= flights.n_threads()
                && let Some(block) = lines.bytes.next_block(flights.block_bytes())?
            {
                waiting.push_back(flights.parse(layout, block));
            }
            let Some(parsing) = waiting.pop_front() else { break };
            let (mut parsed, mut block) = flights.wait(parsing)?;
            let stop = self.take_left(lines.read, &parsed.left, &block, rows)?;
            if let Some(stop) = stop {
                let rest = block.split_off(stop);
                // what was typed behind it may be something else
                (parsed, _) = flights.wait(flights.parse(layout, block))?;
                let waiting: Result<Vec<_>> =
                    waiting.drain(..).map(|of| flights.wait(of)).collect();
                let blocks = waiting?.into_iter().map(|(_, block)| block);
                lines.bytes.give_back([rest].into_iter().chain(blocks));
            }
            lines.read += parsed.n_lines;
            rows.took(parsed.n_lines - parsed.left.len() as u64);
            flights.add(parsed.flights)?;
            if stop.is_some() {
                return Ok(Some(n_blocks));
            }
        }
        Ok(None)
    }

    /// Takes the lines of a block that are left to SQL, up to one that is no record by itself, or a
    /// header; where in the block that is. `n_before` lines are before the block.
    fn take_left(
        &mut self,
        n_before: u64,
        left: &[Left],
        block: &[u8],
        rows: &mut Rows<'_>,
    ) -> Result<Option<usize>> {
        for Left { bytes, line: n } in left {
            let stop = Ok(Some(bytes.start));
            let Some(line) = whole_line(&block[bytes.clone()]) else { return stop };
            if line.trim_ascii().is_empty() {
                continue;
            }
            let number = n_before + n + 1;
            match self.splitter.begin(&line) {
                Split::Open(_) => return stop,
                Split::TooLong => rows.push_malformed(number, &too_long())?,
                Split::Record if self.header_again().is_some() => return stop,
                Split::Record => self.take_row(number, rows)?,
            }
        }
        Ok(None)
    }
}

/// A line as [`read_line`] gives it; `None` where that would read several, or a part of it.
fn whole_line(line: &[u8]) -> Option<Vec<u8>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let is_one = line.len() < LINE_BYTES_MAX && !line.contains(&b'\r');
    is_one.then(|| [line, b"\n"].concat())
}

fn too_long() -> String {
    format!("longer than {LINE_BYTES_MAX} bytes")
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
    if line.len() > LINE_BYTES_MAX {
        return Ok(Some(too_long()));
    }
    let n_before = match splitter.begin(line) {
        Split::Record => return Ok(None),
        Split::TooLong => return Ok(Some(too_long())),
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
