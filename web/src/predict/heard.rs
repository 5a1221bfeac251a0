//! An answer as it came through the response topic.

use events::Answer;
use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Headers};
use telemetry::traces;

/// The answer, and how the trace of its request goes on, where it has one.
pub(crate) struct Heard {
    pub(crate) answer: Answer,
    pub(crate) traceparent: Option<String>,
}

impl Heard {
    /// Of the message that the answer was read from.
    pub(crate) fn of(message: &BorrowedMessage, answer: Answer) -> Self {
        let header = |headers: &rdkafka::message::BorrowedHeaders| {
            let found = headers.iter().find(|header| header.key == traces::HEADER)?;
            traces::of_header(found.value).map(str::to_owned)
        };
        Self { answer, traceparent: message.headers().and_then(header) }
    }
}
