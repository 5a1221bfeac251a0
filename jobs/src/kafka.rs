//! What both ends of the stream know of Kafka: how clients are configured, and topics.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::RDKafkaErrorCode;

/// How long to wait for a broker before saying that there is none.
pub(crate) const BROKER_WAIT: Duration = Duration::from_secs(15);
/// Largest record that the request topic takes when it is made here, in bytes. A request is
/// refused far below, but it must get in to be answered with a refusal and kept as a dead letter.
pub(crate) const RECORD_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What a dead letter has beyond the message: headers, of which the reason is the longest.
const HEADER_BYTES_MAX: usize = 64 * 1024;
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

/// Refuses properties that would break what the stream promises; the message names the property.
pub fn check(properties: &Properties) -> Result<()> {
    match properties.iter().find(|(name, _)| RESERVED.contains(&name.as_str())) {
        Some((name, _)) => bail!("the Kafka property {name} cannot be set: the stream decides it"),
        None => Ok(()),
    }
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

/// Makes those topics that do not exist, with one partition.
pub async fn create_topics(properties: &Properties, topics: &Topics) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = config(properties).create()?;
    let admin = Arc::new(admin);
    let known = {
        let admin = Arc::clone(&admin);
        let fetch = move || -> Result<BTreeSet<String>> {
            let metadata = admin.inner().fetch_metadata(None, BROKER_WAIT)?;
            Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
        };
        tokio::task::spawn_blocking(fetch).await?.context("no Kafka broker answers")?
    };
    let record = RECORD_BYTES_MAX.to_string();
    let dead_letter = (RECORD_BYTES_MAX + HEADER_BYTES_MAX).to_string();
    let wanted = [
        (&topics.requests, &record),
        (&topics.answers, &record),
        (&topics.dead_letters, &dead_letter),
    ];
    let missing = wanted.into_iter().filter(|(name, _)| !known.contains(*name));
    let topic = |(name, bytes_max)| {
        NewTopic::new(name, 1, TopicReplication::Fixed(-1)).set("max.message.bytes", bytes_max)
    };
    let topics: Vec<NewTopic> =
        missing.map(|(name, bytes_max)| topic((name.as_str(), bytes_max.as_str()))).collect();
    if topics.is_empty() {
        return Ok(());
    }
    let options = AdminOptions::new().request_timeout(Some(BROKER_WAIT));
    let results = admin.create_topics(&topics, &options).await.context("cannot create topics")?;
    for result in results {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => bail!("cannot create topic {topic}: {code}"),
        }
    }
    Ok(())
}
