//! The command line of the one program: its commands, and what they have in common.

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use cluster::executor::ExecutorArgs;
use cluster::local_cluster::ClusterArgs;
use cluster::scheduler::SchedulerArgs;

use crate::context::{Master, SessionArgs};
use crate::demo::Demo;
use crate::distances::ImportDistances;
use crate::dlq::Dlq;
use crate::download::Download;
use crate::enrich::Enrich;
use crate::generate::{Completions, Man};
use crate::healthy::Healthy;
use crate::ingest::{Ingest, Rejects};
use crate::models::Models;
use crate::predict::Predict;
use crate::publish::Publish;
use crate::retention::Gc;
use crate::score::{Evaluate, ModelArgs};
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
    /// What the job is called in the history and, before its id, on the cluster
    #[arg(long, global = true, value_parser = job_name)]
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
    /// Id of the job instead of a new one, for programs that must know it before it begins
    #[arg(long, value_name = "ID", global = true)]
    pub job_id: Option<String>,
    /// What to do
    #[command(subcommand)]
    pub command: Option<Command>,
}

const ABOUT: &str = "Flight-delay prediction: ingest flights, train a model, answer requests";
/// What scripts can rely on.
const EXIT_CODES: &str = "Exit codes: 0 succeeded, 1 failed, 2 wrong usage, 3 no such job, \
4 still running, 5 lost (resume it), 130 cancelled.";

/// Longest name of a job.
const JOB_NAME_BYTES_MAX: usize = 100;

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
    /// Months of flights from the Bureau of Transportation Statistics, to the data root
    Download(Download),
    /// Raw files to flights
    Ingest(Ingest),
    /// Distances between airports, from a file or the flights, to the data root and the store
    ImportDistances(ImportDistances),
    /// Flights to a model
    Train(Train),
    /// Evaluate a model on the flights that its training held out, or by its answers
    Evaluate(Evaluate),
    /// Flights to predictions, as Parquet under the data root
    Score(ModelArgs),
    /// What pages are made of to the store: flights, airlines, airplanes, airports, delays, models
    Publish(Publish),
    /// What Wikipedia says of the airlines to the store
    Enrich(Enrich),
    /// Batch prediction: requests in files, or left on the pages, to Parquet and the store
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
    /// Look at the rows that an ingestion rejected, and why
    Rejects(Rejects),
    /// Look at models, promote one, go back to the one before
    Models(Models),
    /// Delete what has outlived its use under the data root: records of jobs, models
    Gc(Gc),
    /// Ask a program that runs whether it is well: exit code 0 or 1
    Healthy(Healthy),
    /// Print what completes commands and options in a shell
    Completions(Completions),
    /// Write pages for `man`
    Man(Man),
}

impl Cli {
    /// Reads the command line. Ends the program when it is wrong, or says something that nobody
    /// would heed.
    pub fn read() -> Self {
        let matches = Self::command().get_matches();
        let cli = Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        if let Err(message) = cli.check(|flag| source_of(&matches, flag)) {
            Self::command().error(ErrorKind::ArgumentConflict, message).exit()
        }
        cli
    }

    /// Refuses flags that a command knows and does not use, be it that all commands know them or
    /// that another flag is missing; `source` says where the value of each comes from. What the
    /// environment says is for all commands, and no error.
    fn check(&self, source: impl Fn(&str) -> Option<ValueSource>) -> Result<(), String> {
        use Service::{Cluster, Demo, Executor, Scheduler, Stream};
        let is_given = |flag: &str| source(flag) == Some(ValueSource::CommandLine);
        let is_set =
            |flag: &str| source(flag).is_some_and(|from| from != ValueSource::DefaultValue);
        let batch = match &self.command {
            Some(Command::Batch(job)) => Some(job),
            _ => None,
        };
        let service = match &self.command {
            Some(Command::Service(service)) => Some(service),
            _ => None,
        };
        let has_session = matches!(service, Some(Demo(_))) || batch.is_some_and(Batch::has_session);
        let is_shell = matches!(batch, Some(Batch::Sql(sql)) if sql.is_shell());
        let is_of_cluster = matches!(service, Some(Cluster(_) | Scheduler(_) | Executor(_)));
        let is_remote = matches!(self.session.master, Some(Master::Cluster(_)));
        let has_connection = is_of_cluster || has_session && is_remote;
        let leaves_record = batch.is_some() || self.resume.is_some();
        let has_mongo = is_set("mongo") || is_set("mongo_file");
        let is_offsets = matches!(service, Some(Stream(StreamArgs::Instead(_))));
        let no_command = "this command does not use it";
        let no_cluster = "the job runs in this process; --master names a cluster";
        let no_mongo = "SQLite under the data root has one database; --mongo names a server";
        let asks = "with certificates an executor asks for its tasks";
        let tls = (
            self.kill.is_some() || self.resume.is_some() || has_connection,
            match has_session {
                true => no_cluster,
                false => no_command,
            },
        );
        let uses = [
            ("data", !is_of_cluster, no_command),
            ("master", has_session || self.resume.is_some(), no_command),
            ("conf", has_session, no_command),
            ("properties_file", has_session, no_command),
            ("memory", has_session, no_command),
            ("tls_ca", tls.0, tls.1),
            ("tls_cert", tls.0, tls.1),
            ("tls_key", tls.0, tls.1),
            ("name", batch.is_some(), no_command),
            ("wait", leaves_record && !is_shell, no_command),
            ("no_wait", leaves_record && !is_shell, no_command),
            ("job_id", batch.is_some(), no_command),
            ("codes_memory", !is_remote, "on a cluster all indices are written"),
            ("database", has_mongo, no_mongo),
            ("response_topic", !is_offsets, no_command),
            ("task_port", self.session.tls.tls_ca.is_none(), asks),
            ("heartbeat_seconds", self.session.tls.tls_ca.is_none(), asks),
        ];
        for (flag, is_used, why) in uses {
            if is_given(flag) && !is_used {
                return Err(format!("--{}: {why}", flag.replace('_', "-")));
            }
        }
        let about = ["status", "kill", "list", "resume"].into_iter().find(|flag| is_given(flag));
        match about {
            Some(flag) if self.command.is_some() => {
                Err(format!("--{flag} stands without a command"))
            }
            _ => Ok(()),
        }
    }
}

/// Where the value of a flag comes from, of the command or of those above it.
fn source_of(matches: &ArgMatches, flag: &str) -> Option<ValueSource> {
    let below = matches.subcommand().and_then(|(_, command)| source_of(command, flag));
    let is_known = matches.try_contains_id(flag).is_ok();
    below.or_else(|| is_known.then(|| matches.value_source(flag)).flatten())
}

/// A name that people read: not empty, short, on one line.
fn job_name(text: &str) -> Result<String, String> {
    let is_fit = !text.trim().is_empty() && !text.chars().any(char::is_control);
    match is_fit && text.len() <= JOB_NAME_BYTES_MAX {
        true => Ok(text.to_owned()),
        false => Err(format!("not 1 to {JOB_NAME_BYTES_MAX} bytes on one line")),
    }
}

impl Batch {
    /// Whether it runs queries of a session of its own, which may be on a cluster. The others ask
    /// the store, in this process.
    pub fn has_session(&self) -> bool {
        !matches!(self, Self::Download(_) | Self::Enrich(_))
    }

    /// The job's name in the history.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Download(_) => "download",
            Self::Ingest(_) => "ingest",
            Self::ImportDistances(_) => "import-distances",
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
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_flag_that_a_command_does_not_use_is_refused() {
        let tls = "--tls-ca a --tls-cert b --tls-key c";
        let on_cluster = "--master df://h:1";
        for (line, refused) in [
            ("web --kafka h:1 --master local", "--master"),
            ("web --kafka h:1 --memory 10", "--memory"),
            ("stream --kafka h:1 --conf a.b=1", "--conf"),
            ("enrich --master local", "--master"),
            ("predict --name x", ""),
            ("models list --name x", "--name"),
            ("cluster --data x", "--data"),
            (&format!("cluster {tls}"), ""),
            (&format!("train {tls}"), "--tls-ca"),
            (&format!("train {on_cluster} {tls}"), ""),
            (&format!("train {on_cluster} --memory 10"), ""),
            (&format!("scheduler {on_cluster}"), "--master"),
            ("sql --no-wait", "--no-wait"),
            ("sql -c x --no-wait", ""),
            ("train --memory 10 --conf a.b=1 --name x --wait --data d", ""),
            (&format!("--kill x {tls}"), ""),
            ("--resume x --master local", ""),
            ("--resume x --no-wait", ""),
            ("--resume x --job-id y", "--job-id"),
            ("--status x --no-wait", "--no-wait"),
            ("train --job-id x --no-wait", ""),
            ("--status x --master local", "--master"),
            ("--list --name x", "--name"),
            ("--list train", "--list"),
            (&format!("--list {tls}"), "--tls-ca"),
            (&format!("--status x {tls}"), "--tls-ca"),
            ("train --codes-memory 9", ""),
            (&format!("train {on_cluster} --codes-memory 9"), "--codes-memory"),
            ("publish --database x", "--database"),
            ("publish --mongo mongodb://h --database x", ""),
            // the data root is that of an installation, and scripts name it to all that is not of a
            // cluster
            ("web --kafka h:1 --mongo-file f --data x", ""),
            ("stream --kafka h:1 --response-topic x", ""),
            ("stream offsets show --kafka h:1 --response-topic x", "--response-topic"),
            ("dlq list --kafka h:1 --data x", ""),
            ("executor --task-port 9 --heartbeat-seconds 2", ""),
            (&format!("executor --task-port 9 {tls}"), "--task-port"),
            (&format!("executor --heartbeat-seconds 2 {tls}"), "--heartbeat-seconds"),
        ] {
            let words = ["submit-job"].into_iter().chain(line.split(' '));
            let matches = Cli::command().try_get_matches_from(words).unwrap();
            let cli = Cli::from_arg_matches(&matches).unwrap();
            let said = cli.check(|flag| source_of(&matches, flag)).err().unwrap_or_default();
            let is_right =
                if refused.is_empty() { said.is_empty() } else { said.starts_with(refused) };
            assert!(is_right, "{line}: {said:?}");
        }
    }
}
