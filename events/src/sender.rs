//! Whom a message is from that cannot be read as a request: the UUID, found without a parser, so
//! that its sender can be answered.

use std::str;

use uuid::Uuid;

use crate::request::{BYTE_ORDER_MARK, json_text, parse_uuid, registry_schema};

/// Longest spelling of a UUID that is looked at, in bytes. A URN in braces has 47.
const SPELLING_BYTES_MAX: usize = 64;

/// The UUID of a message, whatever else is wrong with it: too large, not UTF-8, cut off, no JSON
/// (`NaN`, a trailing comma), encoded twice, or behind the prefix of a schema registry.
///
/// It is the value of `UUID` in the outermost object. None when there is none, or two that differ.
pub fn request_uuid(bytes: &[u8]) -> Option<Uuid> {
    let bytes = match registry_schema(bytes) {
        Some((_, value)) => value,
        None => bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes),
    };
    match json_text(bytes) {
        Some(text) => uuid_of_object(text.as_bytes()),
        None => uuid_of_object(bytes),
    }
}

/// Walks over the tokens of what should be an object. Only strings and brackets are distinguished,
/// which is all that it takes to know what is a key of the outermost object.
fn uuid_of_object(bytes: &[u8]) -> Option<Uuid> {
    let mut rest = bytes.trim_ascii_start();
    let mut depth = 0_usize;
    let mut found = None;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                let (text, after) = string(rest);
                rest = after;
                if depth == 1 && text == b"UUID" {
                    let Some(value) = value_of_key(rest) else { continue };
                    let (text, after) = string(value);
                    rest = after;
                    let uuid = spelling(text)?;
                    if found.is_some_and(|other| other != uuid) {
                        return None;
                    }
                    found = Some(uuid);
                }
            }
            _ if depth == 0 => return found,
            _ => {}
        }
    }
    found
}

/// What is between the quotes, of which the first is already read, and what follows the second.
fn string(bytes: &[u8]) -> (&[u8], &[u8]) {
    let mut is_escaped = false;
    for (i, byte) in bytes.iter().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return (&bytes[..i], &bytes[i + 1..]),
            _ => {}
        }
    }
    (bytes, &[])
}

/// What follows the colon and the first quote of a string.
fn value_of_key(bytes: &[u8]) -> Option<&[u8]> {
    let value = bytes.trim_ascii_start().strip_prefix(b":")?;
    value.trim_ascii_start().strip_prefix(b"\"")
}

fn spelling(text: &[u8]) -> Option<Uuid> {
    let text = str::from_utf8(text).ok().filter(|text| text.len() <= SPELLING_BYTES_MAX)?;
    parse_uuid(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0d7a4bd0-6d7e-4f2e-9a53-2f4f3f5e0a01";
    const OTHER: &str = "0d7a4bd0-6d7e-4f2e-9a53-2f4f3f5e0a02";

    #[test]
    fn the_sender_of_a_bad_request_is_known_when_it_gave_a_uuid() {
        let with = |rest: &str| format!("{{{rest}, \"UUID\": \"{ID}\"}}").into_bytes();
        let not_utf_8 = [b"{\"Carrier\":\"\xff\",".to_vec(), with("")[2..].to_vec()].concat();
        let cut_off = format!("{{\"UUID\":\"{ID}\",\"Carrier\":\"A");
        let registered = [vec![0, 0, 0, 0, 7], with("\"a\":1")].concat();
        let twice = serde_json::to_vec(str::from_utf8(&with("\"a\":1")).unwrap()).unwrap();
        for message in [
            with("\"DepDelay\": \"late\""),
            with("\"DepDelay\": NaN"),
            with("\"DepDelay\": -Infinity"),
            with("\"a\": 1e999"),
            with("\"a\": 1,"),
            with("\"a\": {\"UUID\": \"x\"}"),
            with("\"a\": \"}\\\"{[\""),
            with(&format!("\"Padding\": \"{}\"", "x".repeat(70_000))),
            with(&format!("\"UUID\": \"{}\"", ID.to_uppercase())),
            [BYTE_ORDER_MARK, &with("\"a\":1")].concat(),
            not_utf_8,
            cut_off.into_bytes(),
            registered,
            twice,
        ] {
            let found = request_uuid(&message).map(|uuid| uuid.to_string());
            assert_eq!(found.as_deref(), Some(ID), "{}", message.escape_ascii());
        }
    }

    #[test]
    fn who_gave_none_or_two_is_not_known() {
        for message in [
            String::new(),
            "nonsense".into(),
            "{\"UUID\":\"no\"}".into(),
            "{\"UUID\":7}".into(),
            format!("\"UUID\":\"{ID}\""),
            format!("[\"UUID\",\"{ID}\"]"),
            format!("{{\"a\":{{\"UUID\":\"{ID}\"}}}}"),
            format!("{{\"a\":\"\\\"UUID\\\":\\\"{ID}\\\"\"}}"),
            format!("{{\"UUID\":\"{ID}\",\"UUID\":\"{OTHER}\"}}"),
            format!("{{\"UUID\":\"{}\"}}", "0".repeat(100_000)),
        ] {
            assert_eq!(request_uuid(message.as_bytes()), None, "{message}");
        }
    }
}
