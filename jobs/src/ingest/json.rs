//! JSON to rows: one object a line, or an array of objects.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::BufRead;

use anyhow::{Result, bail, ensure};
use chrono::DateTime;
use serde_json::Value;

use crate::ingest::columns::{COLUMNS, Names};
use crate::ingest::lines::{LINE_BYTES_MAX, read_line};
use crate::ingest::rows::{Rows, is_missing};
use crate::ingest::table::decoded;

/// Keys that are known at most; objects with ever new keys are no rows.
const KEYS_MAX: usize = 4096;
/// Numbers that Python writes though JSON does not know them.
const NO_JSON: [&[u8]; 3] = [b"NaN", b"-Infinity", b"Infinity"];

/// What Extended JSON calls values that stand in texts.
const EXTENDED: [&str; 7] =
    ["$date", "$numberInt", "$numberLong", "$numberDouble", "$numberDecimal", "$uuid", "$oid"];

pub(crate) type Object = serde_json::Map<String, Value>;

/// Where the values of objects go.
struct Keys<'a> {
    names: &'a Names,
    known: HashMap<String, Option<(usize, usize)>>,
}

impl Keys<'_> {
    fn push(&mut self, rows: &mut Rows<'_>, line: u64, object: &Object) -> Result<()> {
        let mut values: [Option<(usize, Cow<'_, str>)>; COLUMNS.len()] = Default::default();
        for (key, value) in object {
            let place = match self.known.get(key) {
                Some(place) => *place,
                None => {
                    let place = self.names.find(key);
                    rows.found(key);
                    if let Some((i, _)) = place {
                        rows.has[i] = true;
                    }
                    if self.known.len() >= KEYS_MAX {
                        return rows.push_malformed(line, "more names than a table has columns");
                    }
                    self.known.insert(key.clone(), place);
                    place
                }
            };
            let Some((i, rank)) = place else {
                if value.is_array() || value.is_object() {
                    rows.found_nested(key);
                }
                continue;
            };
            let Some(text) = text_of(value) else { continue };
            if !is_missing(&text) && values[i].as_ref().is_none_or(|(best, _)| rank < *best) {
                values[i] = Some((rank, text));
            }
        }
        rows.push(line, |i| values[i].as_ref().map(|(_, text)| text.as_ref()))
    }
}

/// How objects follow one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One a line.
    Lines,
    /// Each over several lines.
    Objects,
    /// In an array.
    Array,
}

/// Reads objects. `constants` are columns whose value is the same in the whole file.
pub fn read_json(
    mut bytes: impl BufRead,
    form: Form,
    names: &Names,
    constants: &[(String, String)],
    rows: &mut Rows<'_>,
) -> Result<()> {
    let mut keys = Keys { names, known: HashMap::new() };
    let mut take = |rows: &mut Rows<'_>, line: u64, text: &[u8]| match parse_object(text) {
        Ok(Some(mut object)) => {
            for (name, value) in constants {
                object.entry(name).or_insert_with(|| Value::String(value.clone()));
            }
            keys.push(rows, line, &object)
        }
        Ok(None) => Ok(()),
        Err(reason) => rows.push_malformed(line, &reason),
    };
    match form {
        Form::Lines => read_lines(&mut bytes, |line, text| take(rows, line, text))?,
        Form::Objects => read_objects(&mut bytes, 0, |line, text| take(rows, line, text))?,
        Form::Array => read_objects(&mut bytes, 1, |line, text| take(rows, line, text))?,
    }
    rows.give()
}

/// Gives each line with its number.
fn read_lines(
    bytes: &mut impl BufRead,
    mut take: impl FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    let mut text = Vec::new();
    for line in 1.. {
        if !read_line(bytes, &mut text)? {
            break;
        }
        take(line, &text)?;
    }
    Ok(())
}

/// Gives each object at this depth, 1 in an array, with the line that it begins on; what stands
/// between objects goes with the next one, but for commas. A bad one costs itself only.
///
/// Errors when one does not end: where the next one begins is not known then.
fn read_objects(
    bytes: &mut impl BufRead,
    base: usize,
    mut take: impl FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    let (mut line, mut begins, mut depth) = (1, 1, 0_usize);
    let (mut in_string, mut is_escaped) = (false, false);
    let mut text = Vec::new();
    loop {
        let chunk = bytes.fill_buf()?;
        if chunk.is_empty() {
            break;
        }
        let n = chunk.len();
        for &byte in chunk {
            let is_bracket = base == 1 && matches!((byte, depth), (b'[', 0) | (b']', 1));
            let is_between = depth <= base && (byte == b',' || byte.is_ascii_whitespace());
            if in_string || !is_bracket && !is_between {
                begins = if text.is_empty() { line } else { begins };
                text.push(byte);
            }
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' if in_string => is_escaped = true,
                b'"' => in_string = !in_string,
                b'[' | b'{' if !in_string => depth += 1,
                b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
                _ => {}
            }
            if !in_string && byte == b'}' && depth == base {
                take(begins, &text)?;
                text.clear();
            }
            line += u64::from(byte == b'\n');
            ensure!(
                text.len() <= LINE_BYTES_MAX,
                "line {begins}: an object of more than {LINE_BYTES_MAX} bytes, or a quote that \
                 does not end"
            );
        }
        bytes.consume(n);
    }
    if depth > 0 {
        let what = if base == 1 { "array" } else { "object" };
        bail!("line {begins}: the {what} does not end: it is cut off, or a quote does not end");
    }
    take(begins, &text)
}

/// A value as text; `None` when it is null. In MongoDB's Extended JSON, as `mongoexport` writes it,
/// an object of one field that begins with a dollar is a value.
pub(crate) fn text_of(value: &Value) -> Option<Cow<'_, str>> {
    let extended = value.as_object().filter(|object| object.len() == 1);
    let extended = extended.and_then(|object| object.iter().next());
    match (value, extended) {
        (Value::Null, _) => None,
        (Value::String(text), _) => Some(Cow::Borrowed(text.as_str())),
        (_, Some((key, Value::String(text)))) if EXTENDED.contains(&key.as_str()) => {
            Some(Cow::Borrowed(text.as_str()))
        }
        // milliseconds since 1970, or what the instant is in them
        (_, Some((key, of))) if key == "$date" => {
            let instant = DateTime::from_timestamp_millis(text_of(of)?.parse().ok()?)?;
            Some(Cow::Owned(instant.to_rfc3339()))
        }
        _ => Some(Cow::Owned(value.to_string())),
    }
}

/// `None` for a blank text.
pub(crate) fn parse_object(text: &[u8]) -> Result<Option<Object>, String> {
    if text.len() > LINE_BYTES_MAX {
        return Err(format!("longer than {LINE_BYTES_MAX} bytes"));
    }
    // some end each line as in an array
    let text = text.trim_ascii();
    let text = text.strip_suffix(b",").unwrap_or(text);
    if text.is_empty() {
        return Ok(None);
    }
    let text = decoded(text);
    let text = text.as_bytes();
    let parsed = serde_json::from_slice(text).or_else(|error| match without_nan(text) {
        Some(text) => serde_json::from_slice(&text),
        None => Err(error),
    });
    match parsed {
        Ok(Value::Object(object)) => Ok(Some(object)),
        Ok(_) => Err("not a JSON object".into()),
        // the parser counts lines of its own, which are not the file's
        Err(e) => Err(format!("not JSON: {e}").replace(" at line 1 column", " at column")),
    }
}

/// A text with `null` in the place of what is no number; `None` when there is no such thing.
fn without_nan(text: &[u8]) -> Option<Vec<u8>> {
    let mut made = Vec::with_capacity(text.len());
    let (mut in_string, mut is_escaped, mut i) = (false, false, 0);
    let mut n_found = 0;
    while let Some(&byte) = text.get(i) {
        let word = NO_JSON.iter().find(|word| !in_string && text[i..].starts_with(word));
        if let Some(word) = word {
            made.extend_from_slice(b"null");
            n_found += 1;
            i += word.len();
            continue;
        }
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            _ => {}
        }
        made.push(byte);
        i += 1;
    }
    (n_found > 0).then_some(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elements(text: &str) -> Vec<(u64, String)> {
        try_elements(text, 1).unwrap()
    }

    fn try_elements(text: &str, base: usize) -> Result<Vec<(u64, String)>> {
        let mut found = Vec::new();
        let mut bytes = std::io::BufReader::with_capacity(3, text.as_bytes());
        let taken = read_objects(&mut bytes, base, |line, text| {
            let text = String::from_utf8(text.to_vec())?;
            found.extend((!text.is_empty()).then_some((line, text)));
            Ok(())
        });
        taken.map(|()| found)
    }

    #[test]
    fn values_of_extended_json_are_their_texts() {
        for (json, text) in [
            (r#""UA""#, Some("UA")),
            ("12.5", Some("12.5")),
            ("null", None),
            (r#"{"$date":"2013-12-20T10:00:00Z"}"#, Some("2013-12-20T10:00:00Z")),
            (r#"{"$date":{"$numberLong":"1387533600000"}}"#, Some("2013-12-20T10:00:00+00:00")),
            (r#"{"$date":1387533600000}"#, Some("2013-12-20T10:00:00+00:00")),
            (r#"{"$numberDouble":"-3.5"}"#, Some("-3.5")),
            (r#"{"$oid":"ab"}"#, Some("ab")),
            (r#"{"a":"b"}"#, Some(r#"{"a":"b"}"#)),
        ] {
            let value: Value = serde_json::from_str(json).unwrap();
            assert_eq!(text_of(&value).as_deref(), text, "{json}");
        }
    }

    #[test]
    fn an_array_is_its_elements_with_their_lines() {
        let text = "[\n{\"a\": \"],}\\\"\", \"b\": [1, 2]},\n  {\"a\":\n2}\n]\n";
        let expected =
            [(2, "{\"a\": \"],}\\\"\", \"b\": [1, 2]}".to_owned()), (3, "{\"a\":\n2}".to_owned())];
        assert_eq!(elements(text), expected);
        assert_eq!(elements("[]"), []);
        // what is no object goes with the next one, or is left at the end: it is never unsaid
        assert_eq!(elements("[1, {}]"), [(1, "1{}".to_owned())]);
        assert_eq!(elements("[{}] x"), [(1, "{}".to_owned()), (1, "x".to_owned())]);
    }

    #[test]
    fn objects_may_follow_one_another_over_lines() {
        let found = try_elements("{\n\"a\": {\"b\": 1}\n}\n{\n\"a\": \"}\"\n}\n", 0).unwrap();
        let expected = [(1, "{\n\"a\": {\"b\": 1}\n}"), (4, "{\n\"a\": \"}\"\n}")];
        assert!(found.iter().map(|(line, text)| (*line, text.as_str())).eq(expected), "{found:?}");
        let error = try_elements("{\n\"a\": 1,\n", 0).unwrap_err().to_string();
        assert!(error.contains("the object does not end"), "{error}");
    }

    #[test]
    fn an_array_that_does_not_end_is_an_error() {
        for text in
            ["[{\"a\":1},{\"a\":", "[{\"a\":1},", "[{\"a\":1}", "[\n{\"a\":\"1},\n{\"a\":1}]"]
        {
            let error = try_elements(text, 1).unwrap_err().to_string();
            assert!(error.contains("the array does not end"), "{error}");
        }
        let long = format!("[{{}},\n{{\"a\":\"{}", "x".repeat(LINE_BYTES_MAX));
        assert!(
            try_elements(&long, 1)
                .unwrap_err()
                .to_string()
                .starts_with("line 2: an object of more")
        );
    }

    #[test]
    fn what_is_no_number_is_null_outside_of_texts() {
        let made = without_nan(br#"{"NaN":NaN,"b":"\"NaN","c":-Infinity,"d":[Infinity]}"#).unwrap();
        assert_eq!(made, br#"{"NaN":null,"b":"\"NaN","c":null,"d":[null]}"#);
        assert_eq!(without_nan(br#"{"a":"NaN"}"#), None);
    }
}
