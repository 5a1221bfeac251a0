//! What both ends of the stream know of Kafka: how clients are configured, and topics.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use parking_lot::Mutex;
use rdkafka::admin::{
    AdminClient, AdminOptions, NewTopic, OwnedResourceSpecifier, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};

/// How long to wait for a broker before saying that there is none.
pub(crate) const BROKER_WAIT: Duration = Duration::from_secs(15);
/// Largest record, and largest batch as it was sent, that the request topic takes when it is made
/// here, in bytes. A request is refused far below, but it must get in to be answered with a refusal
/// and kept as a dead letter. Compressed batches are why it is not larger, see
/// [`INFLATION_MAX`].
pub const RECORD_BYTES_MAX: usize = 2 * 1024 * 1024;
/// What is fetched at once from a broker, in bytes as they were sent; a batch that is larger comes
/// alone.
pub(crate) const FETCH_BYTES_MAX: usize = 1024 * 1024;
/// How much larger a batch can become when it is read: librdkafka inflates gzip, whose limit this
/// is, and lz4 (255) without a bound of its own. So a stream may need that many times the larger of
/// `FETCH_BYTES_MAX` and the topic's `max.message.bytes`: 2.1 GiB for topics that are made here,
/// beside the queue. Source: <https://zlib.net/zlib_tech.html>.
pub const INFLATION_MAX: usize = 1032;
/// Largest batch of zstd, whose ratio has no limit, as it is read; a larger one cannot be.
const ZSTD_BYTES_MAX: usize = 1_000_000_000;
/// What a dead letter has beyond the message: headers of ours, and those that it came with.
const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Least `max.message.bytes` of the topics that are written: an answer and a dead letter without
/// its message fit.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// How long a broker may take to describe topics. One that does not, as the demo's, costs
/// a stream that much at its start; a batch that is too large is noticed later too.
const SIZES_WAIT: Duration = Duration::from_secs(2);
/// How long brokers may take to show which of them cannot be reached.
const COMPLAINT_WAIT: Duration = Duration::from_secs(3);
/// Longest text of librdkafka that is passed on, in bytes.
const COMPLAINT_BYTES_MAX: usize = 512;
/// What the stream depends on and therefore decides itself.
const RESERVED: [&str; 12] = [
    "acks",
    "auto.offset.reset",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.protocol",
    "message.max.bytes",
    "partition.assignment.strategy",
    "request.required.acks",
    "transactional.id",
];

/// Where requests come from and answers go to.
#[derive(Debug, Clone)]
pub struct Topics {
    /// Requests.
    pub requests: String,
    /// Answers.
    pub answers: String,
    /// Messages that cannot be scored.
    pub dead_letters: String,
}

/// librdkafka properties, `bootstrap.servers` among them. They may hold secrets.
pub type Properties = [(String, String)];

/// Refuses properties that would break what the stream promises, and those that librdkafka does not
/// take; the message names the property, and never its value, as librdkafka would.
pub fn check(properties: &Properties) -> Result<()> {
    for (name, value) in properties {
        ensure!(
            !RESERVED.contains(&name.as_str()),
            "the Kafka property {name} cannot be set: the stream decides it"
        );
        let native = ClientConfig::new().set(name, value).create_native_config();
        ensure!(
            native.is_ok(),
            "librdkafka knows no property {name}, or not with the value that it was given"
        );
    }
    Ok(())
}

/// What every client is made from.
pub(crate) fn config(properties: &Properties) -> ClientConfig {
    let mut config = ClientConfig::new();
    let bytes_max = (RECORD_BYTES_MAX + HEADER_BYTES_MAX).to_string();
    config.set("client.id", "tarmac").set("message.max.bytes", bytes_max);
    for (name, value) in properties {
        config.set(name, value);
    }
    // librdkafka's own lines would say again what our errors say
    config.set_log_level(RDKafkaLogLevel::Critical);
    config
}

/// What librdkafka last complained of, which names host and port; its error codes do not.
#[derive(Debug, Default, Clone)]
pub(crate) struct Complaint(Arc<Mutex<Option<String>>>);

impl Complaint {
    /// Remembers it.
    pub(crate) fn hear(&self, reason: &str) {
        let mut reason = reason.trim().to_owned();
        reason.truncate(reason.floor_char_boundary(COMPLAINT_BYTES_MAX));
        let mut last = self.0.lock();
        // "2/2 brokers are down" says less than what came before
        if last.is_none() || !reason.ends_with("brokers are down") {
            *last = Some(reason);
        }
    }

    /// Adds it to a text that says what failed.
    pub(crate) fn explain(&self, what: impl std::fmt::Display) -> String {
        match &*self.0.lock() {
            Some(reason) => format!("{what}: {reason}"),
            None => what.to_string(),
        }
    }
}

impl ClientContext for Complaint {
    fn error(&self, _: KafkaError, reason: &str) {
        self.hear(reason);
    }
}

impl ConsumerContext for Complaint {}

/// A consumer outside of any group, which commits nothing.
pub(crate) type Reader = BaseConsumer<Complaint>;

/// Makes a [`Reader`] that reports the end of a partition, and reads so many bytes ahead.
pub(crate) fn reader(properties: &Properties, bytes_ahead: usize) -> Result<Reader> {
    let mut config = config(properties);
    config
        // not joined; librdkafka wants a name
        .set("group.id", "tarmac-reader")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "earliest")
        .set("allow.auto.create.topics", "false")
        // a broker does one thing a connection at a time: a fetch that waits at the end of a
        // partition holds up what is asked next
        .set("fetch.wait.max.ms", "10")
        .set("queued.max.messages.kbytes", (bytes_ahead / 1024).max(1).to_string());
    bound_fetches(&mut config);
    Ok(config.create_with_context(Complaint::default())?)
}

/// The headers of a message, in order. One whose name is not UTF-8, which other clients may send,
/// is left out with a warning: there is no way to hand it on.
pub(crate) fn headers_of(message: &BorrowedMessage) -> Vec<(String, Option<Vec<u8>>)> {
    let Some(headers) = message.headers() else { return Vec::new() };
    let header = |i| {
        let header = headers.try_get(i)?;
        Some((header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
    };
    let mut all = Vec::with_capacity(headers.count());
    for i in 0..headers.count() {
        // rdkafka takes every name for UTF-8, and panics
        match catch_unwind(AssertUnwindSafe(|| header(i))) {
            Ok(header) => all.extend(header),
            Err(_) => tracing::warn!(
                topic = message.topic(),
                partition = message.partition(),
                offset = message.offset(),
                "a header whose name is not UTF-8 is left out"
            ),
        }
    }
    all
}

/// Bounds what a consumer fetches at once.
pub(crate) fn bound_fetches(config: &mut ClientConfig) {
    config
        .set("fetch.message.max.bytes", FETCH_BYTES_MAX.to_string())
        // librdkafka raises the second to the first
        .set("message.max.bytes", FETCH_BYTES_MAX.to_string())
        .set("fetch.max.bytes", FETCH_BYTES_MAX.to_string())
        .set("receive.message.max.bytes", ZSTD_BYTES_MAX.to_string());
}

/// What the configuration of topics asks of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TopicLimits {
    /// Bytes of a batch at most that each topic takes that is written.
    pub batch_bytes_max: Option<usize>,
    /// How long requests stay in their topic; [`Duration::MAX`] is for ever.
    pub requests_kept: Option<Duration>,
    /// Whether messages stay in the topic of requests in one chunk, as far as is known: it is not
    /// compacted.
    pub requests_are_whole: bool,
}

/// Makes those topics that do not exist, that of requests with so many partitions and the others
/// with one, and checks that those that exist take what is written to them. Returns their limits.
pub async fn create_topics(
    properties: &Properties,
    topics: &Topics,
    n_partitions: u16,
) -> Result<TopicLimits> {
    let all = [&topics.requests, &topics.answers, &topics.dead_letters];
    create_topics_of(properties, topics, &all, n_partitions).await
}

/// The same, of which only those named in `made` are made.
pub(crate) async fn create_topics_of(
    properties: &Properties,
    topics: &Topics,
    made: &[&String],
    n_partitions: u16,
) -> Result<TopicLimits> {
    match try_create_topics(properties, topics, made, n_partitions).await {
        Ok(limits) => Ok(limits),
        Err(error) => {
            // an administrator's client keeps to itself which broker it cannot reach
            let properties = properties.to_vec();
            let asked = tokio::task::spawn_blocking(move || ask_all_brokers(&properties)).await;
            Err(match asked.ok().flatten() {
                Some(complaint) => anyhow!("{error:#}: {complaint}"),
                None => error,
            })
        }
    }
}

/// What librdkafka complains of when each broker is asked for something.
fn ask_all_brokers(properties: &Properties) -> Option<String> {
    let reader = reader(properties, FETCH_BYTES_MAX).ok()?;
    _ = reader.client().fetch_group_list(None, COMPLAINT_WAIT);
    // of a broker that is gone there is always another one
    let until = Instant::now() + COMPLAINT_WAIT;
    while let Some(Err(_)) = reader.poll(Duration::from_millis(100))
        && Instant::now() < until
    {}
    let complaint = reader.context().explain("");
    Some(complaint.trim_start_matches(": ").to_owned()).filter(|said| !said.is_empty())
}

async fn try_create_topics(
    properties: &Properties,
    topics: &Topics,
    made: &[&String],
    n_partitions: u16,
) -> Result<TopicLimits> {
    let admin: AdminClient<DefaultClientContext> = config(properties).create()?;
    let admin = Arc::new(admin);
    let known = {
        let admin = Arc::clone(&admin);
        let fetch = move || -> Result<BTreeSet<String>> {
            let metadata = admin.inner().fetch_metadata(None, BROKER_WAIT);
            let metadata = metadata.context("no Kafka broker answers")?;
            Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
        };
        tokio::task::spawn_blocking(fetch).await??
    };
    let record = RECORD_BYTES_MAX.to_string();
    let dead_letter = (RECORD_BYTES_MAX + HEADER_BYTES_MAX).to_string();
    let wanted = [
        (&topics.requests, &record, n_partitions),
        (&topics.answers, &record, 1),
        (&topics.dead_letters, &dead_letter, 1),
    ];
    let missing =
        wanted.into_iter().filter(|(name, ..)| made.contains(name) && !known.contains(*name));
    let new: Vec<NewTopic> = missing
        .map(|(name, bytes_max, n_partitions)| {
            NewTopic::new(name, n_partitions.into(), TopicReplication::Fixed(-1))
                .set("max.message.bytes", bytes_max)
        })
        .collect();
    if !new.is_empty() {
        let options = AdminOptions::new().request_timeout(Some(BROKER_WAIT));
        let results = admin.create_topics(&new, &options).await;
        for result in results.context("cannot create topics")? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => bail!("cannot create topic {topic}: {code}"),
            }
        }
    }
    let names = [&topics.requests, &topics.answers, &topics.dead_letters];
    let described = describe(&admin, &names.map(String::as_str)).await;
    let sizes = described.iter().filter_map(|(name, topic)| Some((name.clone(), topic.bytes_max?)));
    let batch_bytes_max = check_sizes(topics, &sizes.collect())?;
    let requests_kept = described.get(&topics.requests).and_then(|topic| topic.kept);
    let requests_are_whole = described.get(&topics.requests).is_some_and(|topic| topic.is_whole);
    Ok(TopicLimits { batch_bytes_max, requests_kept, requests_are_whole })
}

/// What the configuration of a topic says.
#[derive(Debug, Clone)]
pub struct TopicConfig {
    /// Largest message that it takes, in bytes.
    pub bytes_max: Option<usize>,
    /// For how long messages stay; for ever is [`Duration::MAX`].
    pub kept: Option<Duration>,
    /// Whether all messages between the first and the last are there: it is not compacted.
    pub is_whole: bool,
    /// Copies that must have a message before it counts as written.
    pub replicas_min: Option<usize>,
}

/// What brokers say of themselves and of a topic.
#[derive(Debug, Clone)]
pub struct TopicFacts {
    /// Brokers that are there.
    pub n_brokers: usize,
    /// Partitions; none when there is no such topic.
    pub n_partitions: usize,
    /// Partitions without a leader: nobody reads or writes them.
    pub n_leaderless: usize,
    /// Copies of the partition that has the fewest.
    pub n_replicas: usize,
    /// Its configuration, where the broker shows it.
    pub config: Option<TopicConfig>,
}

/// What brokers say of each of these topics. Makes none, and writes nothing.
pub async fn examine(properties: &Properties, names: &[&str]) -> Result<Vec<TopicFacts>> {
    let admin: AdminClient<DefaultClientContext> = config(properties).create()?;
    let admin = Arc::new(admin);
    let asked = Arc::clone(&admin);
    let fetch = move || asked.inner().fetch_metadata(None, BROKER_WAIT);
    let metadata = match tokio::task::spawn_blocking(fetch).await? {
        Ok(metadata) => metadata,
        Err(error) => {
            // an administrator's client keeps to itself which broker it cannot reach
            let properties = properties.to_vec();
            let complaint = tokio::task::spawn_blocking(move || ask_all_brokers(&properties));
            let complaint = complaint.await.ok().flatten().unwrap_or_else(|| error.to_string());
            bail!("no Kafka broker answers: {complaint}");
        }
    };
    let mut described = describe(&admin, names).await;
    let facts = |name: &&str| {
        let topic = metadata.topics().iter().find(|topic| topic.name() == *name);
        let partitions = topic.map(|topic| topic.partitions()).unwrap_or_default();
        TopicFacts {
            n_brokers: metadata.brokers().len(),
            n_partitions: partitions.len(),
            n_leaderless: partitions.iter().filter(|part| part.leader() < 0).count(),
            n_replicas: partitions.iter().map(|part| part.replicas().len()).min().unwrap_or(0),
            config: described.remove(*name),
        }
    };
    Ok(names.iter().map(facts).collect())
}

/// What batches may be compressed with for librdkafka to read them, of all that Kafka knows.
pub fn codecs_that_are_missing() -> Result<Vec<&'static str>> {
    let features = ClientConfig::new().create_native_config()?.get("builtin.features")?;
    let has = |codec: &str| features.split(',').any(|feature| feature == codec);
    Ok(["gzip", "snappy", "lz4", "zstd"].into_iter().filter(|codec| !has(codec)).collect())
}

/// Whether a topic keeps all messages between its first and its last, by its configuration.
pub async fn is_whole(properties: &Properties, topic: &str) -> Result<bool> {
    let admin: AdminClient<DefaultClientContext> = config(properties).create()?;
    let described = describe(&admin, &[topic]).await;
    Ok(described.get(topic).is_some_and(|topic| topic.is_whole))
}

/// The topics whose configuration the broker shows.
async fn describe(
    admin: &AdminClient<DefaultClientContext>,
    topics: &[&str],
) -> BTreeMap<String, TopicConfig> {
    let asked: Vec<_> = topics.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
    let options = AdminOptions::new().request_timeout(Some(SIZES_WAIT));
    let described = match admin.describe_configs(&asked, &options).await {
        Ok(described) => described,
        Err(error) => {
            tracing::debug!(%error, "topics are not described");
            return BTreeMap::new();
        }
    };
    let topic = |config: rdkafka::admin::ConfigResource| {
        let OwnedResourceSpecifier::Topic(name) = &config.specifier else { return None };
        let value = |name| config.get(name)?.value.as_deref();
        let bytes_max = value("max.message.bytes").and_then(|value| value.parse().ok());
        // a topic that is only compacted keeps the last message of each key for ever
        let policy = value("cleanup.policy");
        let is_deleted = policy.is_none_or(|policy| policy.contains("delete"));
        let is_whole = policy.is_some_and(|policy| !policy.contains("compact"));
        let kept = value("retention.ms").and_then(|value| value.parse::<i64>().ok());
        let kept = kept.map(|ms| match u64::try_from(ms) {
            Ok(ms) if is_deleted => Duration::from_millis(ms),
            _ => Duration::MAX,
        });
        let replicas_min = value("min.insync.replicas").and_then(|value| value.parse().ok());
        Some((name.clone(), TopicConfig { bytes_max, kept, is_whole, replicas_min }))
    };
    described.into_iter().flatten().filter_map(topic).collect()
}

/// Refuses topics that are too small for what is written to them, and warns of a topic of requests
/// whose batches may become too large for the memory that is promised.
fn check_sizes(topics: &Topics, sizes: &BTreeMap<String, usize>) -> Result<Option<usize>> {
    for name in [&topics.answers, &topics.dead_letters] {
        let Some(bytes_max) = sizes.get(name) else { continue };
        ensure!(
            *bytes_max >= ANSWER_BYTES_MAX,
            "the topic {name} takes {bytes_max} bytes a message, and answers may need \
             {ANSWER_BYTES_MAX}: raise its max.message.bytes"
        );
    }
    let size = |name: &String| sizes.get(name).copied();
    let requests = size(&topics.requests);
    if let (Some(requests), Some(letters)) = (requests, size(&topics.dead_letters))
        && letters < requests
    {
        tracing::warn!(
            topic = topics.dead_letters,
            max_message_bytes = letters,
            requests,
            "what cannot be read and is larger than this is kept as a stub: place, size, digest"
        );
    }
    if let Some(requests) = requests.filter(|requests| *requests > RECORD_BYTES_MAX) {
        tracing::warn!(
            topic = topics.requests,
            max_message_bytes = requests,
            memory_mb = requests.saturating_mul(INFLATION_MAX) / 1_000_000,
            "a compressed batch of this size may need that much memory; lower max.message.bytes"
        );
    }
    Ok([size(&topics.answers), size(&topics.dead_letters)].into_iter().flatten().min())
}
