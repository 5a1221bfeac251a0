//! The command line of `submit-job`: raw flags in, ready values out.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser, Subcommand};
use jobs::train::TrainOptions;
use jobs::trigger::Trigger;
use linfa::ParamGuard;
use udf::features::{FEATURES, position};
use udf::fit::ForestFit;
use udf::forest::ForestParams;

/// Flight-delay prediction: ingest flights, train a model, answer requests.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    /// Data root: a directory, or the URL of an object store such as s3://bucket/prefix
    #[arg(long, env = "TARMAC_DATA", default_value = "tarmac-data", global = true)]
    pub data: String,
    /// Threads of work [default: one a core]
    #[arg(long, env = "TARMAC_THREADS", global = true)]
    pub threads: Option<usize>,
    /// Memory for joins, groups and sorts, in MiB; beyond it they spill to disk or fail
    #[arg(long, env = "TARMAC_MEMORY", default_value_t = 2048, global = true)]
    pub memory: usize,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The whole way, on real flights, in one process: ingest, train, serve, ask
    Demo(Demo),
    /// Raw files to flights
    Ingest(Ingest),
    /// Flights to a model
    Train(Train),
    /// Airlines, airports and distances to the store
    Publish(StoreArgs),
    /// SQL over flights, features and training, with predict_delay
    Sql(Sql),
    /// Answer the requests of a Kafka topic
    Stream(Stream),
    /// Serve the web pages
    Web(Web),
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// End after the first answer
    #[arg(long)]
    pub once: bool,
    /// Where the page is served
    #[arg(long, env = "TARMAC_LISTEN", default_value = "127.0.0.1:5000")]
    pub listen: SocketAddr,
}

/// Arguments of `ingest`.
#[derive(Debug, Args)]
pub struct Ingest {
    /// Files or directories: .csv, .parquet, .jsonl, and .gz, .bz2, .zip of them
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Share of bad rows above which nothing is replaced and the job fails
    #[arg(long, default_value_t = 0.01)]
    pub rejects_max: f64,
}

/// Arguments of `train`.
#[derive(Debug, Args)]
pub struct Train {
    /// Number of trees
    #[arg(long, default_value_t = ForestParams::default().n_trees)]
    pub trees: usize,
    /// Splits from a root to its deepest leaf
    #[arg(long, default_value_t = ForestParams::default().depth)]
    pub depth: u32,
    /// Bins of a numeric feature at most
    #[arg(long, default_value_t = ForestParams::default().n_bins)]
    pub bins: usize,
    /// Rows that each side of a split holds at least
    #[arg(long, default_value_t = ForestParams::default().min_rows_per_leaf)]
    pub min_rows_per_leaf: u64,
    /// Features that a node may choose from [default: square root of their number]
    #[arg(long)]
    pub features_per_node: Option<usize>,
    /// Share of the flights that are held out
    #[arg(long, default_value_t = ForestParams::default().holdout)]
    pub holdout: f64,
    /// Seed of all random choices
    #[arg(long, default_value_t = ForestParams::default().seed)]
    pub seed: u64,
    /// Feature that the model must not look at; may be repeated
    #[arg(long, value_name = "FEATURE")]
    pub without: Vec<String>,
    /// Optional feature that the model may look at; may be repeated
    #[arg(long, value_name = "FEATURE")]
    pub with: Vec<String>,
    /// Memory for the counters of one pass over the rows, in MiB
    #[arg(long, default_value_t = 256)]
    pub histogram_memory: usize,
    /// Memory for the coded rows, in MiB; more are written under the data root
    #[arg(long, default_value_t = 2048)]
    pub codes_memory: u64,
    /// Print one line of JSON instead of the report
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `sql`.
#[derive(Debug, Args)]
pub struct Sql {
    /// Statement to run; without -c and -f a shell reads statements from the terminal
    #[arg(short, long, value_name = "STATEMENT", conflicts_with = "file")]
    pub command: Option<String>,
    /// File with statements, separated by semicolons
    #[arg(short, long)]
    pub file: Option<PathBuf>,
}

/// Where documents are kept.
#[derive(Debug, Args)]
pub struct StoreArgs {
    /// MongoDB URL [default: SQLite under the data root]
    #[arg(long, env = "TARMAC_MONGO", hide_env_values = true)]
    pub mongo: Option<String>,
    /// MongoDB database
    #[arg(long, env = "TARMAC_DATABASE", default_value = events::DATABASE)]
    pub database: String,
}

/// Where messages go.
#[derive(Debug, Args)]
pub struct KafkaArgs {
    /// Kafka brokers, host:port with commas between
    #[arg(long, env = "TARMAC_KAFKA")]
    pub kafka: String,
    /// Topic of requests
    #[arg(long, env = "TARMAC_REQUEST_TOPIC", default_value = events::REQUEST_TOPIC)]
    pub request_topic: String,
    /// Topic of answers
    #[arg(long, env = "TARMAC_RESPONSE_TOPIC", default_value = events::RESPONSE_TOPIC)]
    pub response_topic: String,
}

/// Arguments of `stream`.
#[derive(Debug, Args)]
pub struct Stream {
    /// Kafka.
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Consumer group
    #[arg(long, env = "TARMAC_GROUP", default_value = "tarmac-stream")]
    pub group: String,
    /// When a window ends: interval:10s, arrival, once or available-now
    #[arg(long, env = "TARMAC_TRIGGER", default_value = "interval:10s")]
    pub trigger: Trigger,
    /// Messages of a window at most
    #[arg(long, default_value_t = 10_000)]
    pub max_rows: usize,
}

/// Arguments of `web`.
#[derive(Debug, Args)]
pub struct Web {
    /// Kafka.
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Where pages are served
    #[arg(long, env = "TARMAC_LISTEN", default_value = "127.0.0.1:5000")]
    pub listen: SocketAddr,
}

impl KafkaArgs {
    /// As librdkafka's properties.
    pub fn properties(&self) -> Vec<(String, String)> {
        vec![("bootstrap.servers".into(), self.kafka.clone())]
    }
}

impl Train {
    /// The defaults, as if nothing was said on the command line.
    pub fn default_options() -> Result<TrainOptions> {
        let Command::Train(train) = Cli::try_parse_from(["submit-job", "train"])?.command else {
            bail!("train is a command");
        };
        train.options()
    }

    /// The options, checked; errors name the flag.
    pub fn options(&self) -> Result<TrainOptions> {
        let named = |name: &String| {
            let names: Vec<&str> = FEATURES.iter().map(|feature| feature.name).collect();
            position(name)
                .with_context(|| format!("there is no feature {name:?}; there are {names:?}"))
        };
        let mut features: BTreeSet<usize> =
            (0..FEATURES.len()).filter(|&i| FEATURES[i].by_default).collect();
        for name in &self.with {
            features.insert(named(name)?);
        }
        for name in &self.without {
            features.remove(&named(name)?);
        }
        ensure!(!features.is_empty(), "--without leaves no feature");
        let default_per_node = (features.len() as f64).sqrt().round() as usize;
        let params = ForestParams {
            n_trees: self.trees,
            depth: self.depth,
            n_bins: self.bins,
            min_rows_per_leaf: self.min_rows_per_leaf,
            features_per_node: self.features_per_node.unwrap_or(default_per_node),
            holdout: self.holdout,
            seed: self.seed,
        };
        let params = ForestFit::new(params).check().map_err(|e| anyhow::anyhow!("--{e}"))?;
        Ok(TrainOptions {
            params,
            features,
            histogram_bytes: self.histogram_memory.saturating_mul(1024 * 1024),
            codes_bytes: self.codes_memory.saturating_mul(1024 * 1024),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn train(flags: &[&str]) -> Result<TrainOptions> {
        let all = ["submit-job", "train"].iter().chain(flags);
        match Cli::try_parse_from(all)?.command {
            Command::Train(train) => train.options(),
            _ => bail!("train is a command"),
        }
    }

    #[test]
    fn the_default_forest_is_that_of_the_original_system() {
        let options = train(&[]).unwrap();
        assert_eq!(*options.params.get(), ForestParams::default());
        assert_eq!(options.features, (0..9).collect());
    }

    #[test]
    fn features_are_added_and_removed_by_name() {
        let options = train(&["--without", "dep_delay", "--with", "crs_dep"]).unwrap();
        assert_eq!(options.features, (1..10).collect());
        let error = train(&["--without", "colour"]).unwrap_err().to_string();
        assert!(error.contains("colour") && error.contains("dep_delay"), "{error}");
    }

    #[test]
    fn a_flag_out_of_range_is_named() {
        let error = train(&["--trees", "0"]).unwrap_err().to_string();
        assert_eq!(error, "--trees is 0, not within 1 and 1000");
    }
}
