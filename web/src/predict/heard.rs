//! An answer as it came through the response topic.

use events::Answer;
use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Headers};
use telemetry::{SPAN, traces};
use tracing::{Span, info_span};

/// The answer, and how the trace of its request goes on, where it has one.
pub(crate) struct Heard {
    pub(crate) answer: Answer,
    traceparent: Option<String>,
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

    /// What the trace shows of a page that gets it.
    pub(crate) fn show(&self) -> Span {
        let Some(traceparent) = &self.traceparent else { return Span::none() };
        let span = info_span!(target: SPAN, parent: None, "show the answer");
        traces::go_on(&span, traceparent);
        span
    }
}
