//! The command line of `submit-job`: raw flags in, ready values out.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use chrono::NaiveDate;
use clap::{Args, Parser, Subcommand};
use jobs::train::options::{FeatureChoice, TrainOptions};
use linfa::ParamGuard;
use udf::model::artefact::ForestParams;
use udf::train::fit::ForestFit;

use crate::dlq::Dlq;
use crate::enrich::Enrich;
use crate::executor::ExecutorArgs;
use crate::local_cluster::ClusterArgs;
use crate::models::Models;
use crate::retention::Gc;
use crate::scheduler::SchedulerArgs;
use crate::servers::{StoreArgs, Web};
use crate::settings::{Setting, setting, settings_of};
use crate::streaming::StreamArgs;
use crate::tls::TlsArgs;

/// Bytes of a unit of memory on the command line.
const MIB: usize = 1024 * 1024;

/// Flight-delay prediction: ingest flights, train a model, answer requests.
#[derive(Debug, Parser)]
#[command(version, about = ABOUT, arg_required_else_help = true)]
#[command(after_help = EXIT_CODES)]
pub struct Cli {
    /// Data root: a directory, or the URL of an object store such as s3://bucket/prefix
    #[arg(long, env = "TARMAC_DATA", default_value = "tarmac-data", global = true)]
    pub data: String,
    /// Where jobs run.
    #[arg(long, env = "TARMAC_MASTER", global = true, help = MASTER_HELP)]
    pub master: Option<Master>,
    /// What the job is called in the history and on the cluster
    #[arg(long, global = true)]
    pub name: Option<String>,
    /// Setting of the engine, such as datafusion.execution.batch_size=4096; may be repeated
    #[arg(long, value_name = "KEY=VALUE", global = true, value_parser = setting)]
    pub conf: Vec<Setting>,
    /// File with settings, KEY=VALUE or KEY VALUE a line; --conf takes precedence
    #[arg(long, value_name = "FILE", env = "TARMAC_PROPERTIES", global = true)]
    pub properties_file: Option<PathBuf>,
    /// Memory of this process for joins, groups and sorts, in MiB; beyond it they spill or fail
    #[arg(long, env = "TARMAC_MEMORY", default_value_t = 2048, global = true)]
    pub memory: usize,
    /// Wait for the job's end; the default
    #[arg(long, global = true, overrides_with = "no_wait")]
    pub wait: bool,
    /// Print the job's id and leave it to a process of its own
    #[arg(long, global = true)]
    pub no_wait: bool,
    /// Print the record of a job as JSON
    #[arg(long, value_name = "ID", group = "about_jobs")]
    pub status: Option<String>,
    /// End a job
    #[arg(long, value_name = "ID", group = "about_jobs")]
    pub kill: Option<String>,
    /// List the jobs of the data root
    #[arg(long, group = "about_jobs")]
    pub list: bool,
    /// Go on with a job that failed or was lost, where it was
    #[arg(long, value_name = "ID", group = "about_jobs")]
    pub resume: Option<String>,
    /// The id of the job, which --no-wait has told already
    #[arg(long, hide = true, global = true)]
    pub job_id: Option<String>,
    /// TLS.
    #[command(flatten)]
    pub tls: TlsArgs,
    /// What to do
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Not in a comment, where its brackets would be a link.
const MASTER_HELP: &str =
    "Where jobs run: local, local[THREADS] or df://HOST:PORT [default: local]";
const ABOUT: &str = "Flight-delay prediction: ingest flights, train a model, answer requests";
/// What scripts can rely on.
const EXIT_CODES: &str = "Exit codes: 0 succeeded, 1 failed, 2 wrong usage, 3 no such job, \
4 still running, 5 lost (resume it), 130 cancelled.";

/// Where jobs run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Master {
    /// In this process, with this many threads, or one a core.
    Local(Option<usize>),
    /// On the cluster of the scheduler at this `host:port`.
    Cluster(String),
}

impl FromStr for Master {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(address) = text.strip_prefix("df://") {
            let has_port = address
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
            ensure!(has_port, "{text} is not df://host:port");
            return Ok(Self::Cluster(address.to_owned()));
        }
        let threads = text.strip_prefix("local[").and_then(|rest| rest.strip_suffix(']'));
        match (text, threads) {
            ("local", _) | (_, Some("*")) => Ok(Self::Local(None)),
            (_, Some(threads)) => {
                let n_threads = threads.parse().ok().filter(|n| (1..=1024).contains(n));
                let n_threads = n_threads.with_context(|| format!("{text}: not 1 to 1024"))?;
                Ok(Self::Local(Some(n_threads)))
            }
            _ => bail!("{text} is neither local, local[N], local[*] nor df://host:port"),
        }
    }
}

impl fmt::Display for Master {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(None) => write!(f, "local"),
            Self::Local(Some(n_threads)) => write!(f, "local[{n_threads}]"),
            Self::Cluster(address) => write!(f, "df://{address}"),
        }
    }
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
    /// Evaluate a model on the flights that its training held out
    Evaluate(Ask),
    /// Flights to predictions, as Parquet under the data root
    Score(Ask),
    /// What pages are made of to the store: flights, airlines, airplanes, airports, delays, models
    Publish(StoreArgs),
    /// What Wikipedia says of the airlines to the store
    Enrich(Enrich),
    /// Batch prediction: answer the requests that were stored for the nightly batch
    Predict(Predict),
    /// SQL over flights, features and training, with predict_delay
    Sql(Sql),
    /// Answer the requests of a Kafka topic
    Stream(StreamArgs),
    /// Look at the messages that could not be read, and send them again
    Dlq(Dlq),
    /// Look at models, promote one, go back to the one before
    Models(Models),
    /// Delete what has outlived its use under the data root: records of jobs, models
    Gc(Gc),
    /// Serve the web pages
    Web(Web),
    /// Start a scheduler and executors on this machine
    Cluster(ClusterArgs),
    /// What `cluster` starts; the program `scheduler` is the same
    #[command(hide = true)]
    Scheduler(SchedulerArgs),
    /// What `cluster` starts; the program `executor` is the same
    #[command(hide = true)]
    Executor(ExecutorArgs),
}

impl Command {
    /// The job's name in the history; `None` for what is no batch job.
    pub fn job(&self) -> Option<&'static str> {
        match self {
            Self::Ingest(_) => Some("ingest"),
            Self::Train(_) => Some("train"),
            Self::Evaluate(_) => Some("evaluate"),
            Self::Score(_) => Some("score"),
            Self::Publish(_) => Some("publish"),
            Self::Enrich(_) => Some("enrich"),
            Self::Predict(_) => Some("predict"),
            Self::Sql(args) if args.command.is_some() || args.file.is_some() => Some("sql"),
            _ => None,
        }
    }
}

/// Arguments of `evaluate` and `score`.
#[derive(Debug, Args)]
pub struct Ask {
    /// Version of the model [default: the champion]
    #[arg(long)]
    pub model: Option<String>,
}

/// Arguments of `predict`.
#[derive(Debug, Args)]
pub struct Predict {
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Day on which the requests were left, YYYY-MM-DD, UTC [default: yesterday and today]
    #[arg(long)]
    pub day: Option<NaiveDate>,
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
    #[arg(long, default_value_t = TrainOptions::default().histogram_bytes / MIB)]
    pub histogram_memory: usize,
    /// Memory for the encoded rows, in MiB; more are written under the data root
    #[arg(long, default_value_t = TrainOptions::default().indices_bytes / MIB as u64)]
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

impl Cli {
    /// The settings of the file, then those of the command line, which take precedence.
    pub fn settings(&self) -> Result<Vec<Setting>> {
        let mut settings = match &self.properties_file {
            Some(path) => settings_of(path)?,
            None => Vec::new(),
        };
        settings.extend(self.conf.iter().cloned());
        Ok(settings)
    }
}

impl Train {
    /// The options, checked; errors name the flag.
    pub fn options(&self) -> Result<TrainOptions> {
        let features = FeatureChoice { with: self.with.clone(), without: self.without.clone() };
        let n_features = features.names().len();
        ensure!(n_features > 0, "--without leaves no feature");
        let default_per_node = (n_features as f64).sqrt().round() as usize;
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
            histogram_bytes: self.histogram_memory.saturating_mul(MIB),
            indices_bytes: self.codes_memory.saturating_mul(MIB as u64),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn train(flags: &[&str]) -> Result<TrainOptions> {
        let all = ["submit-job", "train"].iter().chain(flags);
        match Cli::try_parse_from(all)?.command {
            Some(Command::Train(train)) => train.options(),
            _ => bail!("train is a command"),
        }
    }

    #[test]
    fn the_default_forest_is_that_of_the_original_system() {
        let (options, default) = (train(&[]).unwrap(), TrainOptions::default());
        assert_eq!(options.params, default.params);
        assert_eq!(options.features, default.features);
        assert_eq!(options.features.names().len(), 9);
        assert_eq!(options.histogram_bytes, default.histogram_bytes);
        assert_eq!(options.indices_bytes, default.indices_bytes);
    }

    #[test]
    fn features_are_added_and_removed_by_name() {
        let options = train(&["--without", "dep_delay", "--with", "crs_dep"]).unwrap();
        let names = options.features.names();
        assert!(!names.contains("dep_delay") && names.contains("crs_dep"), "{names:?}");
        assert_eq!(options.params.get().features_per_node, 3);
        let all = TrainOptions::default().features;
        let without: Vec<&str> = all.names().into_iter().flat_map(|n| ["--without", n]).collect();
        let error = train(&without).unwrap_err().to_string();
        assert_eq!(error, "--without leaves no feature");
    }

    #[test]
    fn a_flag_out_of_range_is_named() {
        let error = train(&["--trees", "0"]).unwrap_err().to_string();
        assert_eq!(error, "--trees is 0, not within 1 and 1000");
    }

    #[test]
    fn a_master_is_this_process_or_a_scheduler() {
        for (text, master) in [
            ("local", Master::Local(None)),
            ("local[*]", Master::Local(None)),
            ("local[3]", Master::Local(Some(3))),
            ("df://localhost:20050", Master::Cluster("localhost:20050".into())),
        ] {
            assert_eq!(text.parse::<Master>().unwrap(), master);
        }
        for text in ["yarn", "local[0]", "local[x]", "df://localhost", "df://:1", "df://h:p"] {
            let error = text.parse::<Master>().unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn settings_of_the_command_line_go_before_those_of_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tarmac.conf");
        std::fs::write(&path, "# ours\na.b=1\n\nc.d y\n").unwrap();
        let file = path.to_str().unwrap();
        let parse = |file: &str| {
            Cli::try_parse_from(["submit-job", "--properties-file", file, "--conf", "a.b=2", "sql"])
        };
        let expected = [("a.b", "1"), ("c.d", "y"), ("a.b", "2")];
        let settings = parse(file).unwrap().settings().unwrap();
        assert!(settings.iter().map(|(k, v)| (k.as_str(), v.as_str())).eq(expected));
        // it may be a part of a secret
        std::fs::write(&path, "a.b=1\nnonsense\n").unwrap();
        let error = format!("{:#}", parse(file).unwrap().settings().unwrap_err());
        assert!(error.contains("tarmac.conf:2") && !error.contains("nonsense"), "{error}");
    }
}
