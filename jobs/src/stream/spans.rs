//! What traces show of a stream: a span for each request that came with a trace, which goes on from
//! who asked, and one for each micro-batch, with its steps below it. A request's span is linked to
//! the micro-batch that answers it, because that answers others too.

use std::collections::HashMap;

use events::request_uuid;
use telemetry::{SPAN, traces};
use tracing::{Span, info_span};
use uuid::Uuid;

use crate::stream::micro_batch::{DeadLetter, Message};

/// A micro-batch of so many messages; nothing where it has none.
pub(crate) fn micro_batch(messages: &[Message]) -> Span {
    match messages.len() {
        0 => Span::none(),
        n => info_span!(target: SPAN, "micro-batch", messaging.batch.message_count = n),
    }
}

/// A step of the micro-batch that this is called in.
pub(crate) fn step(name: &'static str) -> Span {
    info_span!(target: SPAN, "step", otel.name = name)
}

/// The requests of a chunk that came with a trace, while they are answered. Those that are dropped
/// before they are [`done`](Self::done) are left to whoever reads the partition next.
#[derive(Default)]
pub(crate) struct RequestSpans(HashMap<Uuid, Span>);

impl Drop for RequestSpans {
    fn drop(&mut self) {
        self.0.values().for_each(|span| traces::fail(span, "left to another process"));
    }
}

impl RequestSpans {
    /// Begins one for each message of `topic` that says its trace and its UUID.
    pub(crate) fn begin(messages: &[Message], topic: &str) -> Self {
        if !traces::is_on() {
            return Self::default();
        }
        let micro_batch = Span::current();
        let begin = |message: &Message, uuid: Uuid, traceparent: &str| {
            let span = info_span!(
                target: SPAN,
                parent: None,
                "process",
                otel.name = format!("process {topic}"),
                otel.kind = "consumer",
                messaging.system = "kafka",
                messaging.operation.type = "process",
                messaging.destination.name = topic,
                messaging.destination.partition.id = message.partition,
                messaging.kafka.offset = message.offset,
                tarmac.request.id = %uuid,
            );
            traces::go_on(&span, traceparent);
            span.follows_from(&micro_batch);
            span
        };
        let mut spans = HashMap::new();
        for message in messages {
            // most may come without a trace: they are not searched
            if let Some(traceparent) = traceparent_of(message)
                && let Some(uuid) = message.value.as_deref().and_then(request_uuid)
            {
                spans.entry(uuid).or_insert_with(|| begin(message, uuid, traceparent));
            }
        }
        Self(spans)
    }

    /// All of them are answered, or kept aside.
    pub(crate) fn done(mut self) {
        self.0.clear();
    }

    /// Notes that all of them have come so far.
    pub(crate) fn note(&self, what: &'static str) {
        self.0.values().for_each(|span| traces::note(span, what));
    }

    /// Says of those that are kept aside why.
    pub(crate) fn reject(&self, letters: &[DeadLetter]) {
        for letter in letters {
            if let Some(span) = letter.uuid.and_then(|uuid| self.0.get(&uuid)) {
                traces::fail(span, &letter.reason);
            }
        }
    }

    /// How the trace of a request goes on with its answer.
    pub(crate) fn traceparent(&self, id: &str) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&id.parse().ok()?).and_then(traces::traceparent)
    }
}

fn traceparent_of(message: &Message) -> Option<&str> {
    let mut headers = message.headers.iter();
    let (_, value) = headers.find(|(name, _)| name == traces::HEADER)?;
    traces::of_header(value.as_deref())
}
