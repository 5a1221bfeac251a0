//! A prediction request: what a valid one is, and how bytes become one.
//!
//! Decoding is strict in what scoring depends on and indifferent to the rest: day of week, month
//! and year that older clients send are not read, because they follow from `FlightDate`.

use std::borrow::Cow;

use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat, Utc};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

/// Largest message that is decoded, in bytes. A form fills less than 1 KiB; the rest is room for
/// fields of other clients.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// Longest carrier, airport or flight number, in bytes. Real codes have 2 to 4.
const CODE_BYTES_MAX: usize = 8;
/// Largest departure delay, in minutes: a week either way. BTS's largest is below two days.
pub const DELAY_MINUTES_MAX: f64 = 7.0 * 24.0 * 60.0;
/// Largest distance, in miles: half the Earth's circumference.
pub const DISTANCE_MILES_MAX: f64 = 12_451.0;
/// Longest `Timestamp`, in bytes: it is passed on with the answer. ISO 8601 with nanoseconds and an
/// offset has 35.
pub const TIMESTAMP_BYTES_MAX: usize = 64;
/// Longest reason, in bytes: parsers quote what they could not read, however long it is.
pub const REASON_BYTES_MAX: usize = 1024;

/// What some programs write before UTF-8 text.
pub(crate) const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
/// What a UUID as a URN begins with, in RFC 9562.
const URN: &str = "urn:uuid:";

/// A carrier, airport or tail number as it is kept: without blanks around it, in capitals. `None`
/// when nothing is left. The one reading of raw files and of requests.
pub fn flight_code(text: &str) -> Option<Cow<'_, str>> {
    let text = text.trim();
    match text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        _ if text.is_empty() => None,
        true => Some(Cow::Owned(text.to_ascii_uppercase())),
        false => Some(Cow::Borrowed(text)),
    }
}

/// Whether a text is what a carrier, an airport, an airplane or a flight can be called: 1 to 8
/// letters, digits and hyphens, and then maybe a number in parentheses, by which BTS tells apart
/// carriers that had one code after the other, such as `PA (1)`. What is none cannot be asked for.
#[inline]
pub fn is_code(text: &str) -> bool {
    let name = text.strip_suffix(')').and_then(|text| text.rsplit_once('('));
    let name = name.map_or(text, |(name, number)| {
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        if is_number { name.strip_suffix(' ').unwrap_or(name) } else { "" }
    });
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    text.len() <= CODE_BYTES_MAX && !name.is_empty() && name.bytes().all(is_plain)
}

/// Minutes since midnight of a local clock time as `HHMM`; 2400 is midnight, too. `None` for what
/// is no time of day. The one reading of raw files and of requests.
#[inline]
pub fn clock_minutes(hhmm: i32) -> Option<i32> {
    let (hours, minutes) = (hhmm.div_euclid(100), hhmm.rem_euclid(100));
    match (hours, minutes) {
        (24, 0) => Some(0),
        (0..24, 0..60) => Some(hours * 60 + minutes),
        _ => None,
    }
}

/// One request: will this flight be late?
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PredictionRequest {
    /// Departure delay in minutes, negative when early.
    pub dep_delay: f64,
    /// Carrier code, e.g. `AA`.
    pub carrier: String,
    /// Local date of departure, `YYYY-MM-DD`.
    pub flight_date: NaiveDate,
    /// Destination airport code.
    pub dest: String,
    /// Origin airport code.
    pub origin: String,
    /// Flight number, where known. Clients write it as text or as a number.
    #[serde(default, deserialize_with = "scalar_text")]
    pub flight_num: Option<String>,
    /// Distance in miles; looked up from the route where absent.
    #[serde(default)]
    pub distance: Option<f64>,
    /// Scheduled local departure, `HHMM`, where known.
    #[serde(rename = "CRSDepTime", default)]
    pub crs_dep_time: Option<i32>,
    /// Scheduled local arrival, `HHMM`, where known.
    #[serde(rename = "CRSArrTime", default)]
    pub crs_arr_time: Option<i32>,
    /// When the request was made, ISO 8601 or a number. Kept as text and passed on as it came;
    /// see [`asked_at`](Self::asked_at).
    #[serde(default, deserialize_with = "scalar_text")]
    pub timestamp: Option<String>,
    /// Names the request; the answer is kept under it. Read in any spelling, see [`parse_uuid`].
    #[serde(rename = "UUID", deserialize_with = "any_spelling")]
    pub uuid: Uuid,
}

/// Why a message is not a request. The text names the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// The message exceeds the limit.
    #[error("message of {n_bytes} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// What it has.
        n_bytes: usize,
        /// What it may have.
        limit: usize,
    },
    /// Not JSON, or a field is missing or of the wrong type.
    #[error("{0}")]
    Malformed(String),
    /// A field has a value that no flight can have.
    #[error("{field}: {reason}")]
    OutOfRange {
        /// Name of the field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl BadRequest {
    /// All kinds of fault.
    pub const KINDS: [&str; 3] = ["too_large", "malformed", "out_of_range"];

    /// The kind of fault, for counting; one of [`KINDS`](Self::KINDS).
    pub fn kind(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::Malformed(_) => "malformed",
            Self::OutOfRange { .. } => "out_of_range",
        }
    }

    /// The text of the error, cut to [`REASON_BYTES_MAX`].
    pub fn reason(&self) -> String {
        cut(self.to_string())
    }
}

/// The beginning of a text that is longer than [`REASON_BYTES_MAX`], marked as such.
fn cut(mut text: String) -> String {
    const ELLIPSIS: &str = "…";
    if text.len() > REASON_BYTES_MAX {
        text.truncate(text.floor_char_boundary(REASON_BYTES_MAX - ELLIPSIS.len()));
        text.push_str(ELLIPSIS);
    }
    text
}

impl PredictionRequest {
    /// Decodes and checks one message of at most [`REQUEST_BYTES_MAX`] bytes. Pure; never panics,
    /// whatever the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadRequest> {
        Self::decode_within(bytes, REQUEST_BYTES_MAX)
    }

    /// [Decodes](Self::decode) one message of at most `limit` bytes.
    pub fn decode_within(bytes: &[u8], limit: usize) -> Result<Self, BadRequest> {
        let mut request: Self = decode_object(bytes, limit)?;
        for code in [&mut request.carrier, &mut request.origin, &mut request.dest] {
            *code = flight_code(code).unwrap_or_default().into_owned();
        }
        request.check()?;
        Ok(request)
    }

    /// Encodes the request as the JSON that [`decode`](Self::decode) reads.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a struct of plain fields always serialises")
    }

    /// An id for a request that is made now: a UUID of version 7, which begins with the time, so
    /// that the index of a store of answers grows at its end. 74 of its bits are random.
    pub fn new_id(now: DateTime<Utc>) -> Uuid {
        let millis = u64::try_from(now.timestamp_millis()).unwrap_or_default();
        // in a random one the bits from there on are random where they are in this one
        let mut random = [0; 10];
        random.copy_from_slice(&Uuid::new_v4().as_bytes()[6..]);
        uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
    }

    /// The time of asking as clients write it: ISO 8601, UTC, milliseconds.
    pub fn timestamp(now: DateTime<Utc>) -> String {
        now.to_rfc3339_opts(SecondsFormat::Millis, true)
    }

    /// When the request was made, where `Timestamp` says it: in ISO 8601, which without an offset
    /// is read as UTC, because the original system's clients mean that; or in seconds or
    /// milliseconds since 1970. A number that is neither, such as a day without its dashes, says
    /// nothing.
    pub fn asked_at(&self) -> Option<DateTime<Utc>> {
        /// The first number that is milliseconds: as seconds it would be in the year 5138.
        const MILLISECONDS_FROM: f64 = 1e11;
        /// In 2001; smaller numbers are something else.
        const SECONDS_FROM: f64 = 1e9;
        let text = self.timestamp.as_deref()?;
        if let Ok(number) = text.parse::<f64>() {
            if !(SECONDS_FROM..=f64::MAX).contains(&number) {
                return None;
            }
            let is_ms = number >= MILLISECONDS_FROM;
            let ms = if is_ms { number } else { number * 1e3 };
            return DateTime::from_timestamp_millis(ms as i64);
        }
        let with_offset = DateTime::parse_from_rfc3339(text).map(|time| time.to_utc());
        let without = || text.parse::<NaiveDateTime>().map(|time| time.and_utc());
        with_offset.or_else(|_| without()).ok()
    }

    /// Checks values that JSON types cannot express.
    pub fn check(&self) -> Result<(), BadRequest> {
        check_code("Carrier", &self.carrier)?;
        check_code("Origin", &self.origin)?;
        check_code("Dest", &self.dest)?;
        if let Some(flight_number) = self.flight_num.as_deref().filter(|text| !text.is_empty()) {
            check_code("FlightNum", flight_number)?;
        }
        check_range("DepDelay", self.dep_delay, -DELAY_MINUTES_MAX, DELAY_MINUTES_MAX)?;
        if let Some(distance) = self.distance {
            check_range("Distance", distance, 0.0, DISTANCE_MILES_MAX)?;
        }
        check_clock("CRSDepTime", self.crs_dep_time)?;
        check_clock("CRSArrTime", self.crs_arr_time)?;
        match self.timestamp.as_ref().map_or(0, String::len) {
            ..=TIMESTAMP_BYTES_MAX => Ok(()),
            n_bytes => Err(BadRequest::OutOfRange {
                field: "Timestamp",
                reason: format!("{n_bytes} bytes exceed the limit of {TIMESTAMP_BYTES_MAX}"),
            }),
        }
    }
}

/// Decodes one JSON object of at most `limit` bytes; fields that `T` does not have are passed over.
pub(crate) fn decode_object<T: DeserializeOwned>(
    bytes: &[u8],
    limit: usize,
) -> Result<T, BadRequest> {
    if bytes.len() > limit {
        return Err(BadRequest::TooLarge { n_bytes: bytes.len(), limit });
    }
    if let Some(encoding) = encoding_of(bytes) {
        return Err(BadRequest::Malformed(encoding));
    }
    // some programs write a byte order mark before UTF-8 too
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    // serde would not look into the text of a field that it passes over
    let text = std::str::from_utf8(bytes).map_err(|e| {
        BadRequest::Malformed(format!("message is not UTF-8 at byte {}", e.valid_up_to()))
    })?;
    if !text.trim_ascii_start().starts_with('{') {
        // serde would also accept an array, field by field
        return Err(BadRequest::Malformed("message is not a JSON object".into()));
    }
    // most are valid, and to keep the path to each field, for the error, costs as much as reading
    if let Ok(object) = serde_json::from_str(text) {
        return Ok(object);
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let object = serde_path_to_error::deserialize(&mut json).map_err(|e| {
        match e.path().to_string().as_str() {
            // the path is lost where the text ends in the middle of something
            "." | "?" => BadRequest::Malformed(e.inner().to_string()),
            path => BadRequest::Malformed(format!("{path}: {}", e.inner())),
        }
    })?;
    json.end().map_err(|e| BadRequest::Malformed(e.to_string()))?;
    Ok(object)
}

/// What a message is written in, when that is plain and is not ours; says what to do.
fn encoding_of(bytes: &[u8]) -> Option<String> {
    if let Some((id, _)) = registry_schema(bytes) {
        return Some(format!(
            "message begins with the prefix of a schema registry (schema {id}): send plain JSON, \
             without the registry's serializer"
        ));
    }
    let is_doubly_encoded = json_text(bytes)?.trim_ascii_start().starts_with('{');
    is_doubly_encoded.then(|| {
        "message is a JSON object within a JSON string, encoded twice: send the object itself"
            .to_owned()
    })
}

/// The number of the schema and what follows it, in the wire format of schema registries: a zero,
/// the schema's number in four bytes, the value.
pub(crate) fn registry_schema(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (prefix, value) = bytes.split_first_chunk::<5>()?;
    let [0, id @ ..] = *prefix else { return None };
    Some((u32::from_be_bytes(id), value))
}

/// The text of a message that is one JSON string.
pub(crate) fn json_text(bytes: &[u8]) -> Option<String> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes).trim_ascii();
    bytes.starts_with(b"\"").then(|| serde_json::from_slice(bytes).ok()).flatten()
}

/// A UUID from its text: in any case, with or without hyphens, in braces or as a URN. Documents are
/// kept under the one form that [`Uuid`] displays.
pub fn parse_uuid(text: &str) -> Option<Uuid> {
    let text = text.trim_ascii();
    let text = match text.split_at_checked(URN.len()) {
        Some((start, rest)) if start.eq_ignore_ascii_case(URN) => rest,
        _ => text,
    };
    let text = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
    // the crate's own parser knows braces and URNs too, but not every case, nor both at once
    let is_bare = matches!(text.len(), 32 | 36);
    if is_bare { Uuid::try_parse(text).ok() } else { None }
}

fn any_spelling<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uuid, D::Error> {
    let text = Cow::<str>::deserialize(deserializer)?;
    let explain = || D::Error::custom(format!("{text:?} is not a UUID"));
    parse_uuid(&text).ok_or_else(explain)
}

/// The text of a JSON scalar; none when it is null.
pub(crate) fn scalar_text<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    /// Whole numbers below it are exact; the text of larger ones would have up to 309 digits.
    const INTEGERS_BELOW: f64 = 1e15;
    /// What clients write where text is meant.
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a string, a number, true, false or null")]
    enum Scalar {
        Text(String),
        Unsigned(u64),
        Signed(i64),
        Float(f64),
        Truth(bool),
    }
    Ok(Option::deserialize(deserializer)?.map(|scalar| match scalar {
        Scalar::Text(text) => text,
        Scalar::Unsigned(number) => number.to_string(),
        Scalar::Signed(number) => number.to_string(),
        // 1519.0 is 1519, as tools without integers write it
        Scalar::Float(number) if number.fract() == 0.0 && number.abs() < INTEGERS_BELOW => {
            number.to_string()
        }
        Scalar::Float(number) => serde_json::Value::from(number).to_string(),
        Scalar::Truth(truth) => truth.to_string(),
    }))
}

pub(crate) fn check_code(field: &'static str, code: &str) -> Result<(), BadRequest> {
    if is_code(code) {
        return Ok(());
    }
    let reason = format!("must be 1 to {CODE_BYTES_MAX} letters or digits");
    Err(BadRequest::OutOfRange { field, reason })
}

pub(crate) fn check_range(
    field: &'static str,
    value: f64,
    min: f64,
    max: f64,
) -> Result<(), BadRequest> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(BadRequest::OutOfRange { field, reason: format!("{value} is not within {min} and {max}") })
}

pub(crate) fn check_clock(field: &'static str, hhmm: Option<i32>) -> Result<(), BadRequest> {
    match hhmm {
        Some(t) if clock_minutes(t).is_none() => Err(BadRequest::OutOfRange {
            field,
            reason: format!("{t} is not a time of day as HHMM"),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_letters_digits_and_maybe_a_number_behind() {
        for code in ["UA", "9E", "PA (1)", "PA(1)", "EI-DUB", "10397", "N14228", "1545"] {
            assert!(is_code(code), "{code}");
        }
        for code in
            ["", "U A", "(1)", " (1)", "PA ()", "PA (x)", "PA (1", "$ne", "South West", "É1"]
        {
            assert!(!is_code(code), "{code}");
        }
    }

    const GOOD: &str = r#"{"DepDelay":290.0,"Carrier":"aa","FlightDate":"2016-12-25",
        "Dest":"SFO","FlightNum":"1024","Origin":"ATL","Distance":2139.0,"DayOfYear":360,
        "DayOfMonth":25,"DayOfWeek":6,"Timestamp":"2016-12-20T10:00:00.000Z",
        "UUID":"0d7a4bd0-6d7e-4f2e-9a53-2f4f3f5e0a01"}"#;

    #[test]
    fn ids_are_in_the_order_of_their_time_and_not_guessed() {
        let at = |ms| PredictionRequest::new_id(DateTime::from_timestamp_millis(ms).unwrap());
        let ids = [0, 1, 1_700_000_000_000, 1_700_000_000_001].map(at);
        assert!(ids.is_sorted(), "{ids:?}");
        let same = [at(5), at(5)].map(|id| id.into_bytes());
        assert_eq!(same[0][..6], same[1][..6]);
        assert_ne!(same[0][6..], same[1][6..]);
        for id in ids {
            assert_eq!((id.get_version_num(), id.get_variant()), (7, uuid::Variant::RFC4122));
            assert_eq!(parse_uuid(&id.to_string()), Some(id));
        }
    }

    #[test]
    fn a_request_of_the_original_system_is_read_and_survives_a_round_trip() {
        let request = PredictionRequest::decode(GOOD.as_bytes()).unwrap();
        assert_eq!(request.carrier, "AA");
        assert_eq!(request.flight_date.to_string(), "2016-12-25");
        assert_eq!(PredictionRequest::decode(&request.encode()).unwrap(), request);
    }

    #[test]
    fn codes_lose_blanks_and_become_capitals() {
        let request = GOOD.replacen("\"aa\"", "\" aA \"", 1).replacen("\"SFO\"", "\"sfo\\n\"", 1);
        let request = PredictionRequest::decode(request.as_bytes()).unwrap();
        assert_eq!((request.carrier.as_str(), request.dest.as_str()), ("AA", "SFO"));
        for (text, code) in [("", None), (" \t", None), ("n001aa", Some("N001AA"))] {
            assert_eq!(flight_code(text).as_deref(), code, "{text:?}");
        }
    }

    #[test]
    fn a_clock_time_is_minutes_of_the_day() {
        for (hhmm, minutes) in [(0, 0), (1, 1), (59, 59), (100, 60), (2359, 1439), (2400, 0)] {
            assert_eq!(clock_minutes(hhmm), Some(minutes), "{hhmm}");
        }
        for hhmm in [-1, -100, 60, 1260, 2401, 2500, i32::MIN, i32::MAX] {
            assert_eq!(clock_minutes(hhmm), None, "{hhmm}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_message_is_named() {
        for (from, to, want) in [
            ("290.0", "\"late\"", "DepDelay: invalid type"),
            ("290.0", "1e9", "DepDelay: 1000000000 is not within"),
            ("290.0", "null", "DepDelay: invalid type"),
            ("\"DepDelay\":290.0,", "", "missing field `DepDelay`"),
            ("2016-12-25", "2016-13-25", "FlightDate: "),
            ("\"ATL\"", "\"$ne\"", "Origin: must be 1 to 8 letters or digits"),
            ("\"SFO\"", "\"\"", "Dest: must be 1 to 8 letters or digits"),
            ("\"UUID\"", "\"Uuid\"", "missing field `UUID`"),
            ("0d7a4bd0-", "xxxxxxxx-", "UUID: "),
            ("2139.0", "-1", "Distance: -1 is not within"),
            ("\"DayOfYear\":360", "\"CRSDepTime\":2561", "CRSDepTime: 2561 is not a time"),
            ("}", "", "EOF while parsing"),
            ("}", "} x", "trailing characters"),
            ("{", "[{", "message is not a JSON object"),
        ] {
            let message = GOOD.replacen(from, to, 1);
            let error = PredictionRequest::decode(message.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(want), "{error:?} should say {want:?}");
        }
    }

    #[test]
    fn text_that_is_not_utf_8_is_refused_even_in_a_field_that_is_passed_over() {
        let at = GOOD.find("DayOfYear").unwrap();
        let mut message = GOOD.as_bytes().to_vec();
        message[at] = 0x80;
        let error = PredictionRequest::decode(&message).unwrap_err().to_string();
        assert_eq!(error, format!("message is not UTF-8 at byte {at}"));
    }

    #[test]
    fn a_large_message_is_refused_before_it_is_parsed() {
        let message = vec![b' '; REQUEST_BYTES_MAX + 1];
        assert_eq!(
            PredictionRequest::decode(&message),
            Err(BadRequest::TooLarge { n_bytes: REQUEST_BYTES_MAX + 1, limit: REQUEST_BYTES_MAX })
        );
    }

    #[test]
    fn the_time_of_asking_is_read_with_and_without_an_offset() {
        let asked_at = |timestamp: &str| {
            let mut request = PredictionRequest::decode(GOOD.as_bytes()).unwrap();
            request.timestamp = Some(timestamp.to_owned());
            request.asked_at().map(PredictionRequest::timestamp)
        };
        let expected = Some("2016-12-20T10:00:00.250Z".to_owned());
        assert_eq!(asked_at("2016-12-20T10:00:00.250Z"), expected);
        assert_eq!(asked_at("2016-12-20T12:00:00.25+02:00"), expected);
        assert_eq!(asked_at("2016-12-20T10:00:00.250000"), expected);
        for nothing in ["yesterday", "NaN", "inf", "20161225", "1230", "-1482228000", "1e300"] {
            assert_eq!(asked_at(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn what_common_producers_write_is_read_where_its_meaning_is_plain() {
        let read = |from: &str, to: &str| {
            let message = GOOD.replacen(from, to, 1);
            PredictionRequest::decode(message.as_bytes()).unwrap_or_else(|e| panic!("{to}: {e}"))
        };
        let number = |to: &str| read("\"1024\"", to).flight_num;
        for (to, want) in
            [("1024", "1024"), ("1024.0", "1024"), ("\"1024\"", "1024"), ("true", "true")]
        {
            assert_eq!(number(to).as_deref(), Some(want));
        }
        assert_eq!(number("null"), None);
        let time = "\"2016-12-20T10:00:00.000Z\"";
        for (to, asked_at) in [
            ("1482228000", "2016-12-20T10:00:00.000Z"),
            ("1482228000250", "2016-12-20T10:00:00.250Z"),
            ("1482228000.25", "2016-12-20T10:00:00.250Z"),
            ("\"1482228000250\"", "2016-12-20T10:00:00.250Z"),
        ] {
            let request = read(time, to);
            assert_eq!(request.timestamp.as_deref(), Some(to.trim_matches('"')));
            assert_eq!(PredictionRequest::timestamp(request.asked_at().unwrap()), asked_at);
        }
        for to in ["true", "false", "null", "-1", "1e300"] {
            _ = read(time, to).asked_at();
        }
        let with_mark = format!("\u{feff}{GOOD}");
        assert!(PredictionRequest::decode(with_mark.as_bytes()).is_ok());
    }

    #[test]
    fn a_uuid_is_one_however_it_is_written() {
        let plain = "0d7a4bd0-6d7e-4f2e-9a53-2f4f3f5e0a01";
        let upper = plain.to_uppercase();
        for spelling in [
            plain.to_owned(),
            upper.clone(),
            plain.replace('-', ""),
            format!("{{{upper}}}"),
            format!("urn:uuid:{plain}"),
            format!("URN:UUID:{upper}"),
            format!("urn:uuid:{{{plain}}}"),
            format!(" {plain}\n"),
        ] {
            assert_eq!(parse_uuid(&spelling).unwrap().to_string(), plain, "{spelling}");
            let text = serde_json::to_string(&spelling).unwrap();
            let message = GOOD.replace(&format!("\"{plain}\""), &text);
            let request = PredictionRequest::decode(message.as_bytes()).unwrap();
            assert_eq!(request.uuid.to_string(), plain, "{spelling}");
        }
        for other in ["", "{}", "urn:uuid:", "0d7a4bd0", "{0d7a4bd0-6d7e-4f2e-9a53-2f4f3f5e0a01"] {
            assert_eq!(parse_uuid(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_encoded_in_another_way_is_named() {
        let reason = |message: &[u8]| PredictionRequest::decode(message).unwrap_err().reason();
        let registered = [&[0, 0, 0, 1, 2], GOOD.as_bytes()].concat();
        assert!(reason(&registered).contains("schema registry (schema 258)"));
        let twice = serde_json::to_string(GOOD).unwrap();
        assert!(reason(twice.as_bytes()).contains("encoded twice"));
        assert_eq!(reason(b"\"text\""), "message is not a JSON object");
        assert_eq!(reason(&[0, 0]), "message is not a JSON object");
    }

    #[test]
    fn a_reason_and_a_time_of_asking_have_a_limit() {
        let long = "é".repeat(20_000);
        for (from, to) in [
            ("290.0", format!("\"{long}\"")),
            ("0d7a4bd0-6d7e-4f2e-9a53-2f4f3f5e0a01", long.clone()),
        ] {
            let message = GOOD.replacen(from, &to, 1);
            let reason = PredictionRequest::decode(message.as_bytes()).unwrap_err().reason();
            assert!(reason.len() <= REASON_BYTES_MAX, "{} bytes", reason.len());
            assert!(reason.ends_with('…'), "{reason}");
        }
        let late = GOOD.replace("2016-12-20T10:00:00.000Z", &"9".repeat(65));
        let reason = PredictionRequest::decode(late.as_bytes()).unwrap_err().reason();
        assert_eq!(reason, "Timestamp: 65 bytes exceed the limit of 64");
    }
}
