//! A prediction request: what a valid one is, and how bytes become one.
//!
//! Decoding is strict in what scoring depends on and indifferent to the rest: day of week, month
//! and year that older clients send are not read, because they follow from `FlightDate`.

use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Largest message that is decoded, in bytes. A form fills less than 1 KiB; the rest is room for
/// fields of other clients.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// Longest carrier, airport or flight number, in bytes. Real codes have 2 to 4.
const CODE_BYTES_MAX: usize = 8;
/// Largest departure delay, in minutes: a week either way. BTS's largest is below two days.
const DELAY_MINUTES_MAX: f64 = 7.0 * 24.0 * 60.0;
/// Largest distance, in miles: half the Earth's circumference.
const DISTANCE_MILES_MAX: f64 = 12_451.0;

/// One question: will this flight be late?
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(non_snake_case, reason = "field names are the interface of the original system")]
pub struct PredictionRequest {
    /// Departure delay in minutes, negative when early.
    pub DepDelay: f64,
    /// Carrier code, e.g. `AA`.
    pub Carrier: String,
    /// Local date of departure, `YYYY-MM-DD`.
    pub FlightDate: NaiveDate,
    /// Destination airport code.
    pub Dest: String,
    /// Origin airport code.
    pub Origin: String,
    /// Flight number, where known.
    #[serde(default)]
    pub FlightNum: Option<String>,
    /// Distance in miles; looked up from the route where absent.
    #[serde(default)]
    pub Distance: Option<f64>,
    /// Scheduled local departure, `HHMM`, where known.
    #[serde(default)]
    pub CRSDepTime: Option<i32>,
    /// Scheduled local arrival, `HHMM`, where known.
    #[serde(default)]
    pub CRSArrTime: Option<i32>,
    /// When the question was asked, ISO 8601. Kept as text and passed on as it came; see
    /// [`asked_at`](Self::asked_at).
    #[serde(default)]
    pub Timestamp: Option<String>,
    /// Names the request; the answer is kept under it.
    pub UUID: Uuid,
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
    /// The kind of fault, for counting.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::Malformed(_) => "malformed",
            Self::OutOfRange { .. } => "out_of_range",
        }
    }
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
        request.check()?;
        for code in [&mut request.Carrier, &mut request.Origin, &mut request.Dest] {
            code.make_ascii_uppercase();
        }
        Ok(request)
    }

    /// Encodes the request as the JSON that [`decode`](Self::decode) reads.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a struct of plain fields always serialises")
    }

    /// The time of asking as clients write it: ISO 8601, UTC, milliseconds.
    pub fn timestamp(now: DateTime<Utc>) -> String {
        now.to_rfc3339_opts(SecondsFormat::Millis, true)
    }

    /// When the question was asked, where `Timestamp` says it in ISO 8601; without an offset it is
    /// read as UTC, which the original system's clients mean.
    pub fn asked_at(&self) -> Option<DateTime<Utc>> {
        let text = self.Timestamp.as_deref()?;
        let with_offset = DateTime::parse_from_rfc3339(text).map(|time| time.to_utc());
        let without = || text.parse::<NaiveDateTime>().map(|time| time.and_utc());
        with_offset.or_else(|_| without()).ok()
    }

    /// Checks values that JSON types cannot express.
    pub fn check(&self) -> Result<(), BadRequest> {
        check_code("Carrier", &self.Carrier)?;
        check_code("Origin", &self.Origin)?;
        check_code("Dest", &self.Dest)?;
        if let Some(flight_number) = self.FlightNum.as_deref().filter(|text| !text.is_empty()) {
            check_code("FlightNum", flight_number)?;
        }
        check_range("DepDelay", self.DepDelay, -DELAY_MINUTES_MAX, DELAY_MINUTES_MAX)?;
        if let Some(distance) = self.Distance {
            check_range("Distance", distance, 0.0, DISTANCE_MILES_MAX)?;
        }
        check_clock("CRSDepTime", self.CRSDepTime)?;
        check_clock("CRSArrTime", self.CRSArrTime)
    }
}

/// The UUID of a message that is otherwise no valid request, so that its sender can be told.
pub fn request_uuid(bytes: &[u8]) -> Option<Uuid> {
    #[derive(Deserialize)]
    #[expect(non_snake_case, reason = "field names are the interface of the original system")]
    struct Sender {
        UUID: Uuid,
    }
    decode_object(bytes, REQUEST_BYTES_MAX).ok().map(|sender: Sender| sender.UUID)
}

/// Decodes one JSON object of at most `limit` bytes; fields that `T` does not have are passed over.
fn decode_object<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, BadRequest> {
    if bytes.len() > limit {
        return Err(BadRequest::TooLarge { n_bytes: bytes.len(), limit });
    }
    // serde would not look into the text of a field that it passes over
    let text = std::str::from_utf8(bytes).map_err(|e| {
        BadRequest::Malformed(format!("message is not UTF-8 at byte {}", e.valid_up_to()))
    })?;
    if !text.trim_ascii_start().starts_with('{') {
        // serde would also accept an array, field by field
        return Err(BadRequest::Malformed("message is not a JSON object".into()));
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

/// A UUID from its text, in the one form that documents are kept under.
pub fn parse_uuid(text: &str) -> Option<Uuid> {
    if text.len() != 36 { None } else { Uuid::try_parse(text).ok() }
}

fn check_code(field: &'static str, code: &str) -> Result<(), BadRequest> {
    let valid = (1..=CODE_BYTES_MAX).contains(&code.len())
        && code.bytes().all(|b| b.is_ascii_alphanumeric());
    if valid {
        return Ok(());
    }
    let reason = format!("must be 1 to {CODE_BYTES_MAX} letters or digits");
    Err(BadRequest::OutOfRange { field, reason })
}

fn check_range(field: &'static str, value: f64, min: f64, max: f64) -> Result<(), BadRequest> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(BadRequest::OutOfRange { field, reason: format!("{value} is not within {min} and {max}") })
}

fn check_clock(field: &'static str, hhmm: Option<i32>) -> Result<(), BadRequest> {
    match hhmm {
        Some(t) if !(0..=2400).contains(&t) || t % 100 > 59 => Err(BadRequest::OutOfRange {
            field,
            reason: format!("{t} is not a time of day as HHMM"),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"DepDelay":290.0,"Carrier":"aa","FlightDate":"2016-12-25",
        "Dest":"SFO","FlightNum":"1024","Origin":"ATL","Distance":2139.0,"DayOfYear":360,
        "DayOfMonth":25,"DayOfWeek":6,"Timestamp":"2016-12-20T10:00:00.000Z",
        "UUID":"0d7a4bd0-6d7e-4f2e-9a53-2f4f3f5e0a01"}"#;

    #[test]
    fn a_request_of_the_original_system_is_read_and_survives_a_round_trip() {
        let request = PredictionRequest::decode(GOOD.as_bytes()).unwrap();
        assert_eq!(request.Carrier, "AA");
        assert_eq!(request.FlightDate.to_string(), "2016-12-25");
        assert_eq!(PredictionRequest::decode(&request.encode()).unwrap(), request);
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
        assert_eq!(request_uuid(&message), None);
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
            request.Timestamp = Some(timestamp.to_owned());
            request.asked_at().map(PredictionRequest::timestamp)
        };
        let expected = Some("2016-12-20T10:00:00.250Z".to_owned());
        assert_eq!(asked_at("2016-12-20T10:00:00.250Z"), expected);
        assert_eq!(asked_at("2016-12-20T12:00:00.25+02:00"), expected);
        assert_eq!(asked_at("2016-12-20T10:00:00.250000"), expected);
        assert_eq!(asked_at("yesterday"), None);
    }

    #[test]
    fn the_sender_of_a_bad_request_is_known_when_it_gave_a_uuid() {
        let message = GOOD.replace("290.0", "\"late\"");
        assert!(request_uuid(message.as_bytes()).is_some());
        let passed_over = GOOD.replace("\"DayOfYear\":360", "\"DayOfYear\":1e999");
        assert!(request_uuid(passed_over.as_bytes()).is_some());
        assert_eq!(request_uuid(b"{\"UUID\":\"no\"}"), None);
        assert_eq!(request_uuid(b"nonsense"), None);
    }
}
