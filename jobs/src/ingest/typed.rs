//! Rows of tables that are clean beyond doubt, typed without SQL: a block of lines at a time.
//!
//! `sql/10_flights.sql` is what a flight is. Of what it says this knows the plain cases: a row is
//! taken here only if every value is written as nearly all files write it, and then becomes what
//! SQL makes of it, bit for bit. Any other row is left to SQL, so that nothing is decided here: a
//! test holds the two against each other over all layouts.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::Result;
use chrono::{Datelike, NaiveDate};
use datafusion::arrow::array::{
    ArrayRef, BooleanBuilder, Date32Builder, Float64Builder, Int32Builder, Int64Builder,
    RecordBatch, StringViewBuilder, TimestampMicrosecondBuilder,
};
use events::{clock_minutes, is_code};

use crate::clock::{Written, hhmm};
use crate::functions::flight_id;
use crate::ingest::columns::COLUMNS;
use crate::ingest::counted::Month;
use crate::ingest::lines::LINE_BYTES_MAX;
use crate::ingest::rows::is_missing;
use crate::zones::{Clocks, UTC};

/// Digits that a number of 64 bits holds exactly, with any power of ten up to as many.
const EXACT_DIGITS: usize = 15;
/// What some write where they do not know the tail number, as in SQL.
const NO_TAILS: [&str; 6] = ["UNKNOW", "UNKNOWN", "UNK", "NKNO", "XXXXXX", "-"];

/// Where a value of a row is.
#[derive(Debug, Clone)]
enum Source {
    /// In this field.
    Field(usize),
    /// The same in the whole file.
    Constant(String),
}

/// Where a table holds what flights are made of, and what that means.
#[derive(Debug, Clone)]
pub struct Layout {
    separator: u8,
    /// Whether a byte may end a field, or make it one that is not plain.
    is_special: [bool; 256],
    sources: [Option<Source>; COLUMNS.len()],
    /// Fields that a row has at least, and at most.
    n_fields: (usize, usize),
    /// The field in which a header shows: its name stands where rows have a day or a year.
    first: usize,
    has_utc_clock: bool,
}

/// The columns that flights are made of, by their place in [`COLUMNS`].
macro_rules! columns {
    ($($name:ident = $place:literal;)*) => {
        $(const $name: usize = $place;)*
        #[cfg(test)]
        const PLACES: &[(&str, usize)] = &[$((stringify!($name), $place)),*];
    };
}

columns! {
    FLIGHT_DATE = 0;
    YEAR = 1;
    MONTH = 2;
    DAY = 3;
    CARRIER = 4;
    FLIGHT_NUMBER = 5;
    TAIL_NUMBER = 6;
    ORIGIN = 7;
    DEST = 8;
    CRS_DEP_TIME = 9;
    DEP_TIME = 10;
    DEP_DELAY = 11;
    CRS_ARR_TIME = 12;
    ARR_TIME = 13;
    ARR_DELAY = 14;
    CANCELLED = 15;
    DIVERTED = 16;
    AIR_TIME = 17;
    DISTANCE = 18;
}

impl Layout {
    /// Of a table whose columns stand at `positions`: from `n_names` on they are `constants`.
    /// `None` when nothing of it stands in the rows.
    pub fn new(
        separator: u8,
        positions: &[Option<usize>; COLUMNS.len()],
        (n_names, n_fields): (usize, usize),
        constants: &[(String, String)],
        has_utc_clock: bool,
    ) -> Option<Self> {
        let source = |position: &Option<usize>| match *position {
            Some(i) if i < n_names => Some(Source::Field(i)),
            Some(i) => Some(Source::Constant(constants[i - n_names].1.trim().to_owned())),
            None => None,
        };
        let sources = positions.each_ref().map(source);
        let field = |source: &Option<Source>| match source {
            Some(Source::Field(i)) => Some(*i),
            _ => None,
        };
        let first = sources.iter().find_map(field)?;
        let n_fields = (n_names, n_fields.max(n_names));
        let mut is_special = [false; 256];
        for byte in [separator, b'\n', b'\r', b'"'] {
            is_special[usize::from(byte)] = true;
        }
        Some(Self { separator, is_special, sources, n_fields, first, has_utc_clock })
    }

    fn has(&self, column: usize) -> bool {
        self.sources[column].is_some()
    }
}

/// A flight as its row says it.
struct Typed<'a> {
    id: i64,
    date: NaiveDate,
    carrier: &'a str,
    number: Option<&'a str>,
    tail: Option<&'a str>,
    origin: &'a str,
    dest: &'a str,
    crs_dep: Option<i32>,
    /// The same, where the end of the day is no beginning.
    leaves: Option<i32>,
    dep: Option<i32>,
    dep_delay: Option<f64>,
    crs_arr: Option<i32>,
    arr: Option<i32>,
    arr_delay: Option<f64>,
    air_time: Option<f64>,
    distance: Option<f64>,
    cancelled: bool,
    diverted: bool,
}

/// A line that was split.
struct Row<'a> {
    layout: &'a Layout,
    block: &'a Block<'a>,
    fields: &'a [Range<usize>],
}

/// Lines that are typed together.
struct Block<'a> {
    bytes: &'a [u8],
    /// The same as text, where it is one: looked at once, not field by field.
    text: Option<&'a str>,
    is_ascii: bool,
}

/// What is not clean beyond doubt.
struct Unclear;

type Clean<T> = std::result::Result<T, Unclear>;

impl<'a> Row<'a> {
    /// The value of a column; `None` where it is missing.
    fn text(&self, column: usize) -> Clean<Option<&'a str>> {
        let text = match (&self.layout.sources[column], self.block.text) {
            (None, _) => return Ok(None),
            (Some(Source::Constant(text)), _) => text.as_str(),
            (Some(Source::Field(i)), Some(text)) => &text[self.fields[*i].clone()],
            (Some(Source::Field(i)), None) => {
                let bytes = &self.block.bytes[self.fields[*i].clone()];
                std::str::from_utf8(bytes).map_err(|_| Unclear)?
            }
        };
        let bytes = text.as_bytes();
        let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return Ok(None) };
        // what stands around a value, and numbers as they are written with semicolons
        let is_ascii = self.block.is_ascii || text.is_ascii();
        let is_odd = *first <= b' ' || *last <= b' ' || !is_ascii;
        if is_odd || self.layout.separator == b';' && bytes.contains(&b',') {
            return Err(Unclear);
        }
        Ok(Some(text).filter(|text| !is_missing(text)))
    }

    fn code(&self, column: usize) -> Clean<Option<&'a str>> {
        let Some(text) = self.text(column)? else { return Ok(None) };
        let is_plain = is_code(text) && !text.bytes().any(|byte| byte.is_ascii_lowercase());
        if is_plain { Ok(Some(text)) } else { Err(Unclear) }
    }

    /// A clock time as `HHMM`, and as minutes of the day.
    fn clock(&self, column: usize) -> Clean<Option<(i32, i32)>> {
        let Some(text) = self.text(column)? else { return Ok(None) };
        let is_plain = text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit());
        let time = match is_plain {
            true => Some(digits(text.as_bytes()).cast_signed()),
            false => hhmm(text, self.layout.has_utc_clock),
        };
        let time = time.and_then(|time| Some((time, clock_minutes(time)?)));
        time.map(Some).ok_or(Unclear)
    }

    fn number(&self, column: usize) -> Clean<Option<f64>> {
        let Some(text) = self.text(column)? else { return Ok(None) };
        decimal(text.as_bytes()).filter(|number| number.abs() < 1e9).map(Some).ok_or(Unclear)
    }

    /// A flag that is 0 or 1; `None` where it is missing.
    fn flag(&self, column: usize) -> Clean<Option<bool>> {
        match self.number(column)? {
            None => Ok(None),
            Some(0.0) => Ok(Some(false)),
            Some(1.0) => Ok(Some(true)),
            Some(_) => Err(Unclear),
        }
    }

    fn date(&self) -> Clean<NaiveDate> {
        let written = match self.text(FLIGHT_DATE)? {
            Some(text) => {
                let written = Written::parse(text).ok_or(Unclear)?;
                Some(
                    NaiveDate::from_epoch_days(written.day(self.layout.has_utc_clock))
                        .ok_or(Unclear)?,
                )
            }
            None => None,
        };
        let parts = [self.text(YEAR)?, self.text(MONTH)?, self.text(DAY)?];
        if let [Some(year), Some(month), Some(day)] = parts {
            let is_plain = |text: &str, n: Range<usize>| {
                n.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
            };
            // SQL reads the year as a number
            if year.starts_with('0')
                || !(is_plain(year, 4..5) && is_plain(month, 1..3) && is_plain(day, 1..3))
            {
                return Err(Unclear);
            }
            let [year, month, day] = [year, month, day].map(|text| digits(text.as_bytes()));
            let date = NaiveDate::from_ymd_opt(year.cast_signed(), month, day).ok_or(Unclear)?;
            return match written {
                Some(written) if written != date => Err(Unclear),
                _ => Ok(date),
            };
        }
        // what is said in part is not looked at
        written.ok_or(Unclear)
    }

    fn tail(&self) -> Clean<Option<&'a str>> {
        let Some(text) = self.code(TAIL_NUMBER)? else { return Ok(None) };
        // most begin with another letter
        let may_be_none = !text.starts_with('N') || text.len() == 4;
        let is_none =
            may_be_none && (NO_TAILS.contains(&text) || text.bytes().all(|byte| byte == b'0'));
        Ok(Some(text).filter(|_| !is_none))
    }

    fn typed(&self) -> Clean<Typed<'a>> {
        // neither a header nor a row of separators
        let first = &self.block.bytes[self.fields[self.layout.first].clone()];
        if !first.first().is_some_and(u8::is_ascii_digit) {
            return Err(Unclear);
        }
        let date = self.date()?;
        // years beyond these are written otherwise
        if !(0..=9999).contains(&date.year()) {
            return Err(Unclear);
        }
        let carrier = self.code(CARRIER)?.ok_or(Unclear)?;
        let origin = self.code(ORIGIN)?.ok_or(Unclear)?;
        let dest = self.code(DEST)?.ok_or(Unclear)?;
        let number = self.text(FLIGHT_NUMBER)?;
        if number.is_some_and(|number| !is_code(number)) {
            return Err(Unclear);
        }
        let crs_dep = self.clock(CRS_DEP_TIME)?;
        let (dep, arr) = (self.clock(DEP_TIME)?, self.clock(ARR_TIME)?);
        let crs_arr = self.clock(CRS_ARR_TIME)?;
        let (dep_delay, arr_delay) = (self.number(DEP_DELAY)?, self.number(ARR_DELAY)?);
        let (air_time, distance) = (self.number(AIR_TIME)?, self.number(DISTANCE)?);
        if distance.is_some_and(|miles| miles < 0.0) {
            return Err(Unclear);
        }
        let (cancelled, diverted) = (self.flag(CANCELLED)?, self.flag(DIVERTED)?);
        let has = |column| self.layout.has(column);
        let is_cancelled = match has(CANCELLED) {
            true => cancelled == Some(true),
            false => has(DEP_TIME) && dep.is_none(),
        };
        let is_diverted = match has(DIVERTED) {
            true => diverted == Some(true),
            false => {
                let has_times = has(DEP_TIME) && has(ARR_DELAY);
                has_times && dep.is_some() && arr_delay.is_none() && cancelled != Some(true)
            }
        };
        let (has_left, has_arrived) = (!is_cancelled, !(is_cancelled || is_diverted));
        let minutes = |time: Option<(i32, i32)>| time.map(|(_, minutes)| minutes);
        Ok(Typed {
            id: id(date, [Some(carrier), number, Some(origin), Some(dest)], crs_dep),
            date,
            carrier,
            number,
            tail: self.tail()?,
            origin,
            dest,
            crs_dep: minutes(crs_dep),
            leaves: crs_dep.map(|(hhmm, minutes)| if hhmm == 2400 { 1440 } else { minutes }),
            dep: minutes(dep).filter(|_| has_left),
            dep_delay: dep_delay.filter(|_| has_left),
            crs_arr: minutes(crs_arr),
            arr: minutes(arr).filter(|_| has_arrived),
            arr_delay: arr_delay.filter(|_| has_arrived),
            air_time: air_time.filter(|minutes| has_arrived && *minutes >= 0.0),
            distance,
            cancelled: is_cancelled,
            diverted: is_diverted,
        })
    }
}

/// The flight's id, of texts as SQL makes them of these values.
fn id(date: NaiveDate, names: [Option<&str>; 4], crs_dep: Option<(i32, i32)>) -> i64 {
    let mut day = *b"0000-00-00";
    write_digits(&mut day[..4], date.year().unsigned_abs());
    write_digits(&mut day[5..7], date.month());
    write_digits(&mut day[8..], date.day());
    let day = std::str::from_utf8(&day).ok();
    let mut time = [b'0'; 4];
    let time = crs_dep.and_then(|(hhmm, _)| {
        write_digits(&mut time, hhmm.unsigned_abs());
        let n_zeros = time[..3].iter().take_while(|byte| **byte == b'0').count();
        std::str::from_utf8(&time[n_zeros..]).ok()
    });
    let [carrier, number, origin, dest] = names;
    flight_id([day, carrier, number, origin, dest, time])
}

fn write_digits(into: &mut [u8], mut number: u32) {
    for byte in into.iter_mut().rev() {
        *byte = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// The number of at most nine digits.
fn digits(text: &[u8]) -> u32 {
    text.iter().fold(0, |number, byte| number * 10 + u32::from(byte - b'0'))
}

/// `-12`, `12.50`: what is computed exactly is what a parser gives. `None` for any other spelling.
fn decimal(text: &[u8]) -> Option<f64> {
    const POWERS: [f64; EXACT_DIGITS + 1] =
        [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];
    let (is_negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let (mut number, mut n_digits, mut point) = (0_u64, 0, None);
    for (i, byte) in text.iter().enumerate() {
        match byte {
            b'0'..=b'9' => {
                number = number.wrapping_mul(10).wrapping_add(u64::from(byte - b'0'));
                n_digits += 1;
            }
            b'.' if point.is_none() && i > 0 && i + 1 < text.len() => point = Some(i + 1),
            _ => return None,
        }
    }
    if n_digits == 0 || n_digits > EXACT_DIGITS {
        return None;
    }
    let number = number as f64 / POWERS[point.map_or(0, |point| text.len() - point)];
    Some(if is_negative { -number } else { number })
}

/// Flights that are being collected, a builder a column.
struct Columns {
    id: Int64Builder,
    date: Date32Builder,
    /// Scheduled departures.
    instants: TimestampMicrosecondBuilder,
    texts: [StringViewBuilder; 5],
    minutes: [Int32Builder; 4],
    numbers: [Float64Builder; 4],
    flags: [BooleanBuilder; 2],
}

/// Without room at first: a block may hold a few flights of each of many months.
impl Default for Columns {
    fn default() -> Self {
        Self {
            id: Int64Builder::with_capacity(0),
            date: Date32Builder::with_capacity(0),
            instants: TimestampMicrosecondBuilder::with_capacity(0),
            texts: std::array::from_fn(|_| StringViewBuilder::with_capacity(0)),
            minutes: std::array::from_fn(|_| Int32Builder::with_capacity(0)),
            numbers: std::array::from_fn(|_| Float64Builder::with_capacity(0)),
            flags: std::array::from_fn(|_| BooleanBuilder::with_capacity(0)),
        }
    }
}

impl Columns {
    fn push(&mut self, flight: &Typed<'_>, clocks: &mut Clocks) {
        self.id.append_value(flight.id);
        let day = flight.date.to_epoch_days();
        let instant = flight.leaves.and_then(|time| clocks.instant(flight.origin, day, time));
        self.instants.append_option(instant);
        self.date.append_value(day);
        let Typed { carrier, number, tail, origin, dest, .. } = *flight;
        let texts = [Some(carrier), number, tail, Some(origin), Some(dest)];
        self.texts.iter_mut().zip(texts).for_each(|(column, text)| column.append_option(text));
        let minutes = [flight.crs_dep, flight.dep, flight.crs_arr, flight.arr];
        self.minutes.iter_mut().zip(minutes).for_each(|(column, n)| column.append_option(n));
        let numbers = [flight.dep_delay, flight.arr_delay, flight.air_time, flight.distance];
        self.numbers.iter_mut().zip(numbers).for_each(|(column, n)| column.append_option(n));
        let flags = [flight.cancelled, flight.diverted];
        self.flags.iter_mut().zip(flags).for_each(|(column, is)| column.append_value(is));
    }

    /// In the order of `sql/10_flights.sql`.
    fn finish(mut self) -> Result<RecordBatch> {
        use std::sync::Arc;
        let [carrier, number, tail, origin, dest] =
            self.texts.each_mut().map(|c| -> ArrayRef { Arc::new(c.finish()) });
        let [crs_dep, dep, crs_arr, arr] =
            self.minutes.each_mut().map(|c| -> ArrayRef { Arc::new(c.finish()) });
        let [dep_delay, arr_delay, air_time, distance] =
            self.numbers.each_mut().map(|c| -> ArrayRef { Arc::new(c.finish()) });
        let [cancelled, diverted] =
            self.flags.each_mut().map(|c| -> ArrayRef { Arc::new(c.finish()) });
        let columns: [(&str, ArrayRef); 18] = [
            ("flight_id", Arc::new(self.id.finish())),
            ("flight_date", Arc::new(self.date.finish())),
            ("carrier", carrier),
            ("flight_number", number),
            ("tail_number", tail),
            ("origin", origin),
            ("dest", dest),
            ("crs_dep_minutes", crs_dep),
            ("crs_dep_utc", Arc::new(self.instants.finish().with_timezone(UTC))),
            ("dep_minutes", dep),
            ("dep_delay_minutes", dep_delay),
            ("crs_arr_minutes", crs_arr),
            ("arr_minutes", arr),
            ("arr_delay_minutes", arr_delay),
            ("air_time_minutes", air_time),
            ("distance_miles", distance),
            ("cancelled", cancelled),
            ("diverted", diverted),
        ];
        let columns = columns.map(|(name, column)| (name, column, true));
        Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
    }
}

/// A line that is left to SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Its bytes in the block, with what ends it.
    pub bytes: Range<usize>,
    /// Its number in the block, from 0.
    pub line: u64,
}

/// What became of a block of lines.
#[derive(Debug, Default)]
pub struct Parsed {
    /// Flights by month.
    pub flights: BTreeMap<Month, RecordBatch>,
    /// Lines that are left to SQL, in order.
    pub left: Vec<Left>,
    /// All lines.
    pub n_lines: u64,
}

/// Types the rows of a block that begins with a line; with `wanted` no row is typed, and those of
/// that flight are left with the others.
pub fn parse(layout: &Layout, bytes: &[u8], wanted: Option<i64>) -> Result<Parsed> {
    let mut parsed = Parsed::default();
    let mut months: BTreeMap<Month, Columns> = BTreeMap::new();
    let mut clocks = Clocks::default();
    let mut fields = Vec::with_capacity(layout.n_fields.1);
    let text = std::str::from_utf8(bytes).ok();
    let block = Block { bytes, text, is_ascii: bytes.is_ascii() };
    let mut at = 0;
    while at < bytes.len() {
        let begin = at;
        let is_plain = split(layout, bytes, &mut at, &mut fields);
        let (least, most) = layout.n_fields;
        let is_short = at - begin <= LINE_BYTES_MAX;
        let fits = is_plain && is_short && (least..=most).contains(&fields.len());
        let row = Row { layout, block: &block, fields: &fields };
        match fits.then(|| row.typed()) {
            Some(Ok(flight)) if wanted.is_none_or(|id| id != flight.id) => {
                if wanted.is_none() {
                    let month = (flight.date.year(), flight.date.month().cast_signed());
                    months.entry(month).or_default().push(&flight, &mut clocks);
                }
            }
            _ => parsed.left.push(Left { bytes: begin..at, line: parsed.n_lines }),
        }
        parsed.n_lines += 1;
    }
    for (month, columns) in months {
        parsed.flights.insert(month, columns.finish()?);
    }
    Ok(parsed)
}

/// Splits the line that begins at `at`, and moves that behind it; whether it is plain: fields are
/// quoted whole or not at all, no quote is in one, and it ends as lines do.
fn split(layout: &Layout, block: &[u8], at: &mut usize, fields: &mut Vec<Range<usize>>) -> bool {
    fields.clear();
    let begin = *at;
    let mut from = begin;
    loop {
        let is_quoted = block.get(from) == Some(&b'"');
        let start = from + usize::from(is_quoted);
        let rest = block.get(start..).unwrap_or_default();
        let mut to = if is_quoted {
            let end = rest.iter().position(|byte| matches!(byte, b'"' | b'\n' | b'\r'));
            let Some(end) = end.filter(|end| rest[*end] == b'"') else { break };
            start + end + 1
        } else {
            let end = rest.iter().position(|byte| layout.is_special[usize::from(*byte)]);
            start + end.unwrap_or(rest.len())
        };
        fields.push(start..to - usize::from(is_quoted));
        match block.get(to) {
            Some(byte) if *byte == layout.separator => from = to + 1,
            Some(b'\r') if block.get(to + 1) == Some(&b'\n') => {
                *at = to + 2;
                return true;
            }
            Some(b'\n') | None => {
                to += 1;
                *at = to.min(block.len());
                return true;
            }
            Some(_) => break,
        }
    }
    let end = memchr::memchr(b'\n', &block[begin..]);
    *at = end.map_or(block.len(), |end| begin + end + 1);
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::columns::index_of;

    #[test]
    fn columns_are_where_they_are() {
        for (name, place) in PLACES {
            assert_eq!(index_of(&name.to_ascii_lowercase()), Some(*place), "{name}");
        }
    }

    #[test]
    fn a_number_is_what_a_parser_gives_or_left_alone() {
        for text in ["0", "-0", "12", "12.50", "-3.75", "0.1", "123456789.012345", "-0.00", "007"] {
            let parsed: f64 = text.parse().unwrap();
            assert_eq!(
                decimal(text.as_bytes()).map(f64::to_bits),
                Some(parsed.to_bits()),
                "{text}"
            );
        }
        for text in ["", "-", ".", "1.", ".5", "+1", "1e3", "1,5", "NaN", "inf", "1.2.3", "--1"] {
            assert_eq!(decimal(text.as_bytes()), None, "{text}");
        }
        assert_eq!(decimal(b"1234567890.123456"), None, "sixteen digits");
    }

    #[test]
    fn a_line_is_split_or_left_whole() {
        let mut positions = [None; COLUMNS.len()];
        positions[FLIGHT_DATE] = Some(0);
        let layout = Layout::new(b',', &positions, (1, 1), &[], false).unwrap();
        let of = |text: &str| {
            let (mut at, mut fields) = (0, Vec::new());
            let is_plain = split(&layout, text.as_bytes(), &mut at, &mut fields);
            let fields: Vec<&str> = fields.iter().map(|range| &text[range.clone()]).collect();
            (is_plain, if is_plain { fields.join("|") } else { String::new() }, at)
        };
        for (text, fields, at) in [
            ("a,b\nc", "a|b", 4),
            ("a,b\r\nc", "a|b", 5),
            ("a,,\n", "a||", 4),
            ("a,b", "a|b", 3),
            ("\"a,b\",c\n", "a,b|c", 8),
            ("\"\",\"x\"\r\n", "|x", 8),
            ("\n", "", 1),
        ] {
            assert_eq!(of(text), (true, fields.to_owned(), at), "{text:?}");
        }
        for (text, at) in [
            ("\"a\nb\",c\n", 3),
            ("\"a\"\"b\",c\nd", 9),
            ("a\"b,c\nd", 6),
            ("\"a\"b,c\nd", 7),
            ("a\rb\nc", 4),
            ("\"a", 2),
        ] {
            assert_eq!(of(text), (false, String::new(), at), "{text:?}");
        }
    }
}
