//! The servers that jobs talk to, Kafka and the store: how they are named, and how secrets get
//! here without being seen: from the environment or a file, never from the command line.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use cluster::settings::{Setting, is_secret, setting, settings_of};
use jobs::lake::Lake;
use jobs::stream::kafka::{Topics, check};
use store::Store;

use crate::config::Environment;

/// The consumer group of a stream unless another is named.
pub const GROUP: &str = "tarmac-stream";

/// Where documents are kept.
#[derive(Debug, Clone, Args)]
pub struct StoreArgs {
    /// MongoDB URL [default: SQLite under the data root]
    #[arg(long, env = "TARMAC_MONGO", hide_env_values = true)]
    pub mongo: Option<String>,
    /// File with the MongoDB URL
    #[arg(long, value_name = "FILE", env = "TARMAC_MONGO_FILE", conflicts_with = "mongo")]
    pub mongo_file: Option<PathBuf>,
    /// MongoDB database
    #[arg(long, env = "TARMAC_DATABASE", default_value = events::DATABASE)]
    pub database: String,
}

/// Where messages go.
#[derive(Debug, Clone, Args)]
pub struct KafkaArgs {
    /// Kafka brokers, host:port with commas between
    #[arg(long, env = "TARMAC_KAFKA")]
    pub kafka: String,
    /// How they are spoken to.
    #[command(flatten)]
    pub client: KafkaClientArgs,
    /// The topics.
    #[command(flatten)]
    pub names: TopicArgs,
}

/// How topics are called.
#[derive(Debug, Clone, Args)]
pub struct TopicArgs {
    /// Topic of requests
    #[arg(long, env = "TARMAC_REQUEST_TOPIC", default_value = events::REQUEST_TOPIC)]
    pub request_topic: String,
    /// Topic of answers
    #[arg(long, env = "TARMAC_RESPONSE_TOPIC", default_value = events::RESPONSE_TOPIC)]
    pub response_topic: String,
}

/// How brokers are spoken to.
#[derive(Debug, Clone, Default, Args)]
pub struct KafkaClientArgs {
    /// Property of librdkafka, such as security.protocol=SASL_SSL; may be repeated. A secret comes
    /// from a file or from the environment: TARMAC_KAFKA_CONF_SASL_PASSWORD is sasl.password
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    pub kafka_conf: Vec<Setting>,
    /// File with properties of librdkafka, KEY=VALUE a line; --kafka-conf takes precedence
    #[arg(long, value_name = "FILE", env = "TARMAC_KAFKA_PROPERTIES")]
    pub kafka_properties: Option<PathBuf>,
}

impl Default for StoreArgs {
    fn default() -> Self {
        Self { mongo: None, mongo_file: None, database: events::DATABASE.into() }
    }
}

impl StoreArgs {
    /// Whether it is SQLite under the data root.
    pub fn is_embedded(&self) -> bool {
        self.mongo.is_none() && self.mongo_file.is_none()
    }

    /// Opens the store: MongoDB, or SQLite under the data root.
    pub async fn open(&self, lake: &Lake, around: &Environment) -> Result<Store> {
        let url = match &self.mongo_file {
            Some(path) => {
                let url = std::fs::read_to_string(path);
                Some(url.with_context(|| path.display().to_string())?.trim().to_owned())
            }
            None => self.mongo.clone(),
        };
        let Some(url) = url else {
            let path = lake
                .local_path("store.sqlite")
                .context("the embedded store needs a local data root; give --mongo for this one")?;
            lake.create()?;
            return Store::embedded(&path);
        };
        let mut arguments = around.arguments.iter().map(|argument| argument.to_string_lossy());
        let is_seen = arguments.any(|argument| argument.contains(&url));
        ensure!(
            !(is_seen && has_password(&url)),
            "a password on the command line is seen by others on this machine: give the URL in \
             TARMAC_MONGO or --mongo-file"
        );
        Store::mongo(&url, &self.database).await
    }
}

fn has_password(url: &str) -> bool {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority.split(['/', '?']).next().unwrap_or_default();
    authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
}

impl KafkaArgs {
    /// The defaults, for these brokers.
    pub fn new(brokers: &str) -> Self {
        Self {
            kafka: brokers.to_owned(),
            client: KafkaClientArgs::default(),
            names: TopicArgs {
                request_topic: events::REQUEST_TOPIC.into(),
                response_topic: events::RESPONSE_TOPIC.into(),
            },
        }
    }

    /// See [`KafkaClientArgs::properties`].
    pub fn properties(&self, around: &Environment) -> Result<Vec<Setting>> {
        self.client.properties(&self.kafka, around)
    }

    /// See [`TopicArgs::topics`].
    pub fn topics(&self) -> Result<Topics> {
        self.names.topics()
    }
}

impl TopicArgs {
    /// The topic of messages that cannot be scored.
    pub fn dead_letters(&self) -> String {
        format!("{}{}", self.request_topic, events::DLQ_SUFFIX)
    }

    /// The topics. Errors when two of them are one: answers would be read as requests.
    pub fn topics(&self) -> Result<Topics> {
        let topics = Topics {
            requests: self.request_topic.clone(),
            answers: self.response_topic.clone(),
            dead_letters: self.dead_letters(),
        };
        let answers = &topics.answers;
        ensure!(
            *answers != topics.requests && *answers != topics.dead_letters,
            "--response-topic {answers} is the topic of requests, or of their dead letters: \
             answers need one of their own"
        );
        Ok(topics)
    }
}

impl KafkaClientArgs {
    /// As librdkafka's properties: those of the file of options, then of the file of properties,
    /// then the environment's, then the command line's, of which the later take precedence; and
    /// the brokers.
    pub fn properties(&self, brokers: &str, around: &Environment) -> Result<Vec<Setting>> {
        for (name, _) in &self.kafka_conf {
            let variable = name.replace('.', "_").to_uppercase();
            ensure!(
                !is_secret(name),
                "--kafka-conf {name}: a secret on the command line is seen by others on this \
                 machine: give it in TARMAC_KAFKA_CONF_{variable} or --kafka-properties"
            );
        }
        let mut properties = around.file.table("kafka-conf").to_vec();
        if let Some(path) = &self.kafka_properties {
            properties.extend(settings_of(path)?);
        }
        properties.extend(around.kafka_properties.iter().cloned());
        properties.extend(self.kafka_conf.iter().cloned());
        check(&properties)?;
        properties.push(("bootstrap.servers".into(), brokers.to_owned()));
        Ok(properties)
    }
}

#[cfg(test)]
mod tests {
    use crate::config_file::ConfigFile;

    use super::*;

    fn kafka(conf: &[(&str, &str)]) -> KafkaArgs {
        KafkaArgs {
            kafka: "a:1".into(),
            client: KafkaClientArgs {
                kafka_conf: conf.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
                kafka_properties: None,
            },
            names: TopicArgs { request_topic: "requests".into(), response_topic: "answers".into() },
        }
    }

    fn around(arguments: &[&str]) -> Environment {
        Environment {
            arguments: arguments.iter().map(Into::into).collect(),
            user: "somebody".into(),
            store_options: Vec::new(),
            kafka_properties: vec![("sasl.password".into(), "hunter2".into())],
            file: ConfigFile::default(),
            variables: Vec::new(),
            shell_history: None,
        }
    }

    #[test]
    fn a_secret_is_taken_from_the_surroundings_and_refused_as_an_argument() {
        let around = around(&[]);
        let properties = kafka(&[("security.protocol", "SASL_SSL")]).properties(&around).unwrap();
        let names: Vec<&str> = properties.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["sasl.password", "security.protocol", "bootstrap.servers"]);
        for secret in ["sasl.password", "ssl.key.password", "ssl.key.pem"] {
            let error = kafka(&[(secret, "hunter2")]).properties(&around).unwrap_err().to_string();
            let variable = secret.replace('.', "_").to_uppercase();
            assert!(error.contains(secret) && error.contains(&variable), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let error = kafka(&[("acks", "0")]).properties(&around).unwrap_err().to_string();
        assert!(error.contains("acks cannot be set"), "{error}");
    }

    #[tokio::test]
    async fn a_password_in_an_argument_is_refused_and_not_repeated() {
        let directory = tempfile::tempdir().unwrap();
        let lake = Lake::open(directory.path().to_str().unwrap(), &[]).unwrap();
        let url = "mongodb://someone:hunter2@127.0.0.1:1/";
        let args = StoreArgs { mongo: Some(url.into()), ..StoreArgs::default() };
        let error = args.open(&lake, &around(&["--mongo", url])).await.unwrap_err().to_string();
        assert!(error.contains("TARMAC_MONGO") && !error.contains("hunter2"), "{error}");
        assert!(!has_password("mongodb://host:27017/?a=b@c:d") && has_password(url));
    }
}
