//! What a stream is told, and what it is connected with.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use store::Store;
use udf::model::scorer::Scorer;

use crate::stream::kafka::Topics;
use crate::stream::sink::Sink;
use crate::stream::source::Source;

/// A step of a micro-batch at which a test lets the program die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is scored; nothing is written but dead letters.
    Scored,
    /// Answers and offsets are in the store.
    Stored,
    /// Answers are in the topic; the group's offsets are not committed.
    Published,
}

/// How requests are answered.
pub struct Options {
    /// The consumer group; names the job and what it holds of the topic.
    pub group: String,
    /// The topics.
    pub topics: Topics,
    /// Whether the topic of requests keeps all of them in one chunk: it is not compacted.
    pub topic_is_whole: bool,
    /// How Kafka is reached.
    pub properties: Vec<(String, String)>,
    /// Largest message that is read, in bytes.
    pub message_bytes_max: usize,
    /// Age beyond which a request is not scored any more; `None` is for ever.
    pub expire_after: Option<Duration>,
    /// How long a sink may fail before the job ends with an error; `None` is for ever.
    pub give_up_after: Option<Duration>,
    /// A challenger that scores beside the champion; it is only counted.
    pub shadow: Option<Arc<Scorer>>,
    /// The clock.
    pub now: fn() -> DateTime<Utc>,
    /// Called at each step of a micro-batch.
    pub on_step: Box<dyn Fn(Step) + Send + Sync>,
}

/// What a stream reads from and writes to.
pub struct Connections<'a> {
    /// Requests.
    pub source: Source,
    /// Answers and dead letters.
    pub sink: Sink,
    /// Answers, and how far the stream is.
    pub store: &'a Store,
}
