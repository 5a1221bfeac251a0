//! The command line of the one program: its commands, and what they have in common.

use clap::{Parser, Subcommand};
use cluster::executor::ExecutorArgs;
use cluster::local_cluster::ClusterArgs;
use cluster::scheduler::SchedulerArgs;

use crate::context::SessionArgs;
use crate::demo::Demo;
use crate::dlq::Dlq;
use crate::enrich::Enrich;
use crate::ingest::Ingest;
use crate::models::Models;
use crate::predict::Predict;
use crate::retention::Gc;
use crate::score::ModelArgs;
use crate::servers::StoreArgs;
use crate::sql::Sql;
use crate::stream::StreamArgs;
use crate::train::Train;
use crate::web::Web;

/// Flight-delay prediction: ingest flights, train a model, answer requests.
#[derive(Debug, Parser)]
#[command(version, about = ABOUT, arg_required_else_help = true)]
#[command(after_help = EXIT_CODES)]
pub struct Cli {
    /// Where jobs run.
    #[command(flatten)]
    pub session: SessionArgs,
    /// What the job is called in the history and on the cluster
    #[arg(long, global = true)]
    pub name: Option<String>,
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
    /// The id of the job, which --no-wait has printed already
    #[arg(long, hide = true, global = true)]
    pub job_id: Option<String>,
    /// What to do
    #[command(subcommand)]
    pub command: Option<Command>,
}

const ABOUT: &str = "Flight-delay prediction: ingest flights, train a model, answer requests";
/// What scripts can rely on.
const EXIT_CODES: &str = "Exit codes: 0 succeeded, 1 failed, 2 wrong usage, 3 no such job, \
4 still running, 5 lost (resume it), 130 cancelled.";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// A batch job.
    #[command(flatten)]
    Batch(Batch),
    /// A program that runs until it is stopped.
    #[command(flatten)]
    Service(Service),
    /// What an operator looks at and puts in order.
    #[command(flatten)]
    Administration(Administration),
}

/// Jobs that end by themselves. Each leaves a record in the data root, and can be left alone,
/// looked at, ended and resumed.
#[derive(Debug, Subcommand)]
pub enum Batch {
    /// Raw files to flights
    Ingest(Ingest),
    /// Flights to a model
    Train(Train),
    /// Evaluate a model on the flights that its training held out
    Evaluate(ModelArgs),
    /// Flights to predictions, as Parquet under the data root
    Score(ModelArgs),
    /// What pages are made of to the store: flights, airlines, airplanes, airports, delays, models
    Publish(StoreArgs),
    /// What Wikipedia says of the airlines to the store
    Enrich(Enrich),
    /// Batch prediction: answer the requests that were stored for the nightly batch
    Predict(Predict),
    /// SQL over flights, features and training, with predict_delay
    Sql(Sql),
}

/// Programs that run until they are stopped.
#[derive(Debug, Subcommand)]
pub enum Service {
    /// Everything on real flights in one process: ingest, train, serve, predict
    #[command(display_order = 0)]
    Demo(Demo),
    /// Answer the requests of a Kafka topic
    Stream(StreamArgs),
    /// Serve the web pages
    Web(Web),
    /// Start a scheduler and executors on this machine
    Cluster(ClusterArgs),
    /// Plan the queries of clients into tasks for executors
    Scheduler(SchedulerArgs),
    /// Run the tasks of a scheduler
    Executor(ExecutorArgs),
}

/// What an operator looks at and puts in order.
#[derive(Debug, Subcommand)]
pub enum Administration {
    /// Look at the messages that could not be read, and send them again
    Dlq(Dlq),
    /// Look at models, promote one, go back to the one before
    Models(Models),
    /// Delete what has outlived its use under the data root: records of jobs, models
    Gc(Gc),
}

impl Batch {
    /// The job's name in the history.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ingest(_) => "ingest",
            Self::Train(_) => "train",
            Self::Evaluate(_) => "evaluate",
            Self::Score(_) => "score",
            Self::Publish(_) => "publish",
            Self::Enrich(_) => "enrich",
            Self::Predict(_) => "predict",
            Self::Sql(_) => "sql",
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
