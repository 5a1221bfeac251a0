//! What an error of MongoDB means: whether the same may be tried again, and its words for a person.

use anyhow::anyhow;
use mongodb::bson::Bson;
use mongodb::error::{Error, ErrorKind};

use crate::WriteError;

/// Codes of errors that come again however often a command is repeated: it is not understood or not
/// allowed, a document is too large or against the rules of its collection.
/// Source: `src/mongo/base/error_codes.yml` of the server.
const PERMANENT: [i32; 13] = [
    2,     // BadValue
    9,     // FailedToParse
    13,    // Unauthorized
    14,    // TypeMismatch
    18,    // AuthenticationFailed
    22,    // InvalidBSON
    59,    // CommandNotFound
    72,    // InvalidOptions
    73,    // InvalidNamespace
    121,   // DocumentValidationFailure
    166,   // CommandNotSupportedOnView
    10334, // BSONObjectTooLarge
    17419, // the document after an update is too large
];

/// Longest text of an error, in bytes: a server may quote the whole command.
const ERROR_BYTES_MAX: usize = 1024;

/// A failed command, as an error that says whether it may be repeated.
pub(crate) fn fault(what: String, error: &Error) -> WriteError {
    fault_of(code_of(error), anyhow!("{what}: {}", explain(error)))
}

pub(crate) fn code_of(error: &Error) -> Option<i32> {
    match &*error.kind {
        ErrorKind::Command(command) => Some(command.code),
        _ => None,
    }
}

/// The same of an element of `writeErrors`, or of `writeConcernError`.
pub(crate) fn write_fault(what: String, error: &Bson) -> WriteError {
    let said = error.as_document().and_then(|error| error.get_str("errmsg").ok());
    let said = cut(said.unwrap_or("no reason is given").to_owned());
    let code = code(error);
    fault_of(code, anyhow!("{what}: error {}: {said}", code.unwrap_or_default()))
}

fn fault_of(code: Option<i32>, error: anyhow::Error) -> WriteError {
    match code {
        Some(code) if PERMANENT.contains(&code) => WriteError::Permanent(error),
        _ => WriteError::Passing(error),
    }
}

/// What the driver says of an error, without the server's reply, which it would dump as
/// hexadecimal, also of errors within the state of a replica set.
pub(crate) fn explain(error: &Error) -> String {
    const REPLY: &str = "server response: ";
    let mut text = error.kind.to_string();
    while let Some(start) = text.find(", labels: ") {
        let Some(at) = text[start..].find(REPLY) else { break };
        let reply = &text[start + at + REPLY.len()..];
        let n_bytes =
            if reply.starts_with("None") { Some(4) } else { reply.find("})").map(|i| i + 2) };
        let end = n_bytes.map_or(text.len(), |n_bytes| text.len() - reply.len() + n_bytes);
        text.replace_range(start..end, "");
    }
    cut(text)
}

fn cut(mut text: String) -> String {
    if text.len() > ERROR_BYTES_MAX {
        text.truncate(text.floor_char_boundary(ERROR_BYTES_MAX));
        text.push('…');
    }
    text
}

pub(crate) fn code(error: &Bson) -> Option<i32> {
    error.as_document()?.get_i32("code").ok()
}
