//! Whatever bytes come, the decoder says what they are or what is wrong with them.

use events::{BadRequest, PredictionRequest, REASON_BYTES_MAX, REQUEST_BYTES_MAX, request_uuid};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Together with the second property more than 10,000 messages.
const CASES: u32 = 6_000;
const GOOD: &str = r#"{"DepDelay": 290.0, "Carrier": "AA", "FlightDate": "2016-12-25",
    "Dest": "SFO", "FlightNum": "1519", "Origin": "ATL", "Distance": 2139.0, "DayOfYear": 360,
    "CRSDepTime": 930, "CRSArrTime": 1215, "Timestamp": "2016-12-20T10:00:00.000Z",
    "UUID": "0d7a4bd0-6d7e-4f2e-9a53-2f4f3f5e0a01"}"#;
const FIELDS: [&str; 13] = [
    "DepDelay",
    "Carrier",
    "FlightDate",
    "Dest",
    "FlightNum",
    "Origin",
    "Distance",
    "DayOfYear",
    "CRSDepTime",
    "CRSArrTime",
    "Timestamp",
    "UUID",
    "$where",
];
const VALUES: [&str; 22] = [
    "null",
    "true",
    "0",
    "-0.0",
    "1e308",
    "1e999",
    "-1e-999",
    "9223372036854775808",
    "2400",
    "\"\"",
    "\"AA\"",
    "\"2016-12-25\"",
    "\"2016-02-30\"",
    "\"-262144-01-01\"",
    "\"\\ud800\"",
    "\"\\u0000\"",
    "\"0d7a4bd0-6d7e-4f2e-9a53-2f4f3f5e0a01\"",
    "{}",
    "[[]]",
    "{\"$ne\":\"\"}",
    "\"Zürich\"",
    "NaN",
];

/// A good message with some bytes replaced, inserted or cut off.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let change = (0..GOOD.len(), any::<u8>(), 0..3_u8);
    vec(change, 0..6).prop_map(|changes| {
        let mut bytes = GOOD.as_bytes().to_vec();
        for (at, byte, how) in changes {
            let at = at.min(bytes.len().saturating_sub(1));
            match how {
                0 if !bytes.is_empty() => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => bytes.truncate(at.max(1)),
            }
        }
        bytes
    })
}

/// An object with our fields, any values, some fields twice and some not at all.
fn odd_object() -> impl Strategy<Value = Vec<u8>> {
    vec((select(&FIELDS[..]), select(&VALUES[..])), 0..16).prop_map(|fields| {
        let fields: Vec<String> =
            fields.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
        format!("{{{}}}", fields.join(", ")).into_bytes()
    })
}

/// Brackets far beyond what a parser may recurse into.
fn deep() -> impl Strategy<Value = Vec<u8>> {
    (1..30_000_usize, select(&["[", "{\"a\":", "{\"UUID\":["][..]))
        .prop_map(|(depth, open)| format!("{{\"x\":{}", open.repeat(depth)).into_bytes())
}

/// A good message in which a value is much longer than any that is meant.
fn long() -> impl Strategy<Value = Vec<u8>> {
    let texts = select(&["x", "é", "\\u0000", "\\\"", "9", "{", "0d7a4bd0-"][..]);
    (select(&FIELDS[..]), texts, 1..20_000_usize, any::<bool>()).prop_map(
        |(field, text, n, is_quoted)| {
            let quote = if is_quoted { "\"" } else { "" };
            let value = format!("{quote}{}{quote}", text.repeat(n));
            format!("{{\"{field}\":{value},{}", &GOOD[1..]).into_bytes()
        },
    )
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![4 => damaged(), 3 => odd_object(), 2 => vec(any::<u8>(), 0..400), 1 => deep(),
        1 => long()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_a_request_or_a_reason(bytes in message()) {
        match PredictionRequest::decode(&bytes) {
            Ok(request) => {
                prop_assert_eq!(request.check(), Ok(()));
                prop_assert!(request.dep_delay.is_finite());
                // what was understood can be said again
                let again = PredictionRequest::decode(&request.encode());
                prop_assert_eq!(again.as_ref(), Ok(&request));
                prop_assert_eq!(request_uuid(&bytes), Some(request.uuid));
                _ = request.asked_at();
            }
            Err(error) if error.reason().len() > REASON_BYTES_MAX => {
                prop_assert!(false, "a reason of {} bytes", error.reason().len());
            }
            Err(BadRequest::TooLarge { n_bytes, limit }) => {
                prop_assert!(n_bytes == bytes.len() && n_bytes > limit);
                _ = request_uuid(&bytes);
            }
            Err(error) => {
                prop_assert!(bytes.len() <= REQUEST_BYTES_MAX && !error.to_string().is_empty());
                _ = request_uuid(&bytes);
            }
        }
    }

    #[test]
    fn a_message_with_one_odd_value_names_its_field_or_is_read(
        field in select(&FIELDS[..11]),
        value in select(&VALUES[..]),
    ) {
        let mut fields: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(GOOD).unwrap();
        let Ok(value) = serde_json::from_str(value) else { return Ok(()) };
        fields.insert(field.to_owned(), value);
        let message = serde_json::to_vec(&fields).unwrap();
        if let Err(error) = PredictionRequest::decode(&message) {
            prop_assert!(error.to_string().contains(field), "{}: {}", field, error);
        }
    }
}
