//! The command line of the one program: its commands, and what they have in common.

use std::ffi::OsString;
use std::path::Path;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use cluster::executor::ExecutorArgs;
use cluster::local_cluster::ClusterArgs;
use cluster::scheduler::SchedulerArgs;
use cluster::settings::Setting;
use cluster::tls::TlsArgs;

use crate::config::OTLP_VARIABLE;
use crate::config_file::{ConfigFile, words_of};
use crate::config_show::Config;
use crate::context::{Master, SessionArgs};
use crate::demo::Demo;
use crate::distances::ImportDistances;
use crate::dlq::Dlq;
use crate::doctor::Doctor;
use crate::download::Download;
use crate::enrich::Enrich;
use crate::generate::{Completions, Man};
use crate::healthy::Healthy;
use crate::ingest::{Ingest, Rejects};
use crate::log::LogFormat;
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
    /// File with options [default: tarmac.toml in this directory, where there is one]
    #[arg(long, value_name = "FILE", env = "TARMAC_CONFIG", global = true)]
    #[arg(value_parser = clap::value_parser!(OsString))]
    pub config: Option<OsString>,
    /// How log lines, and what is said beside results, are written
    #[arg(long, value_name = "FORMAT", env = "TARMAC_LOG_FORMAT", global = true)]
    #[arg(value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Collector that traces are sent to, by OTLP over gRPC, such as http://127.0.0.1:4317
    #[arg(long, value_name = "URL", env = OTLP_VARIABLE, global = true)]
    pub otlp_endpoint: Option<String>,
    /// Id of the job instead of a new one, for programs that must know it before it begins
    #[arg(long, value_name = "ID", global = true)]
    pub job_id: Option<String>,
    /// What the command line itself says of options that all commands have.
    #[arg(skip)]
    pub given: Vec<Setting>,
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
    /// Look at what options are set to, and by what
    Config(Config),
    /// Look whether everything is as it must be here: servers, rights, versions, clock, limits
    Doctor(Doctor),
    /// Ask a program that runs whether it is well: exit code 0 or 1
    Healthy(Healthy),
    /// Print what completes commands and options in a shell
    Completions(Completions),
    /// Write pages for `man`
    Man(Man),
}

impl Cli {
    /// Reads the command line and the file of options. Ends the program when one is wrong, or says
    /// something that nobody would heed.
    pub fn read(arguments: &[OsString]) -> (Self, ConfigFile) {
        let line = || std::iter::once("submit-job".into()).chain(arguments.iter().cloned());
        // what is asked for help ends here; what is wrong is told below
        let asked = Self::command().ignore_errors(true).get_matches_from(line());
        // a variable that is empty names none
        let named = asked.get_one::<OsString>("config").filter(|name| !name.is_empty());
        let file = match words_of(&asked).as_slice() {
            // these have no use for it, and must do their work whatever it says
            ["healthy" | "completions" | "man", ..] | ["config", "example"] => {
                Ok(ConfigFile::default())
            }
            _ => ConfigFile::find(named.map(Path::new), &Self::configurable()),
        };
        let file = file.unwrap_or_else(|error| {
            Self::command().error(ErrorKind::InvalidValue, format!("{error:#}")).exit()
        });
        let (cli, matches) = Self::parse_with(line(), &file).unwrap_or_else(|error| error.exit());
        let options = file.options(&words_of(&matches));
        let is_in_file = |flag: &str| options.contains_key(flag.replace('_', "-").as_str());
        let checked = cli.check(|flag| source_of(&matches, flag), is_in_file);
        if let Err(message) = checked.and_then(|()| cli.check_tls()) {
            Self::command().error(ErrorKind::ArgumentConflict, message).exit()
        }
        (cli, file)
    }

    /// The command line as a file of options can set it: what an operator does by hand is hidden.
    pub fn configurable() -> clap::Command {
        Self::command().mut_subcommands(|below| {
            let is_by_hand = Administration::has_subcommand(below.get_name());
            below.hide(is_by_hand)
        })
    }

    /// The command line, with what the file says where it says nothing.
    pub fn parse_with<T: Into<OsString> + Clone>(
        line: impl IntoIterator<Item = T, IntoIter: Clone>,
        file: &ConfigFile,
    ) -> Result<(Self, ArgMatches), clap::Error> {
        let line = line.into_iter();
        let asked = Self::command().ignore_errors(true).try_get_matches_from(line.clone())?;
        let command = file.apply(Self::command(), &asked).map_err(|error| {
            Self::command().error(ErrorKind::ArgumentConflict, format!("{error:#}"))
        })?;
        let matches = command.try_get_matches_from(line)?;
        let mut cli = Self::from_arg_matches(&matches)?;
        cli.session.conf_of_file = file.table("conf").to_vec();
        let command = Self::command();
        let given = command.get_arguments().filter(|arg| {
            source_of(&matches, arg.get_id().as_str()) == Some(ValueSource::CommandLine)
        });
        cli.given = given
            .filter_map(|arg| {
                let value = matches.get_raw(arg.get_id().as_str())?.next()?;
                Some((arg.get_long()?.to_owned(), value.to_string_lossy().into_owned()))
            })
            .collect();
        Ok((cli, matches))
    }

    /// Refuses flags that a command knows and does not use, be it that all commands know them or
    /// that another flag is missing; `source` says where the value of each comes from. What the
    /// environment says is for all commands, and no error.
    fn check(
        &self,
        source: impl Fn(&str) -> Option<ValueSource>,
        is_in_file: impl Fn(&str) -> bool,
    ) -> Result<(), String> {
        use Service::{Cluster, Demo, Executor, Scheduler, Stream};
        let is_given = |flag: &str| source(flag) == Some(ValueSource::CommandLine);
        let is_set = |flag: &str| {
            let is_said = source(flag).is_some_and(|from| from != ValueSource::DefaultValue);
            is_said || source(flag).is_some() && is_in_file(flag)
        };
        let batch = match &self.command {
            Some(Command::Batch(job)) => Some(job),
            _ => None,
        };
        let service = match &self.command {
            Some(Command::Service(service)) => Some(service),
            _ => None,
        };
        let has_session = matches!(service, Some(Demo(_))) || batch.is_some_and(Batch::has_session);
        let looks_at_options = self.command.as_ref().is_some_and(Command::looks_at_options);
        let is_shell = matches!(batch, Some(Batch::Sql(sql)) if sql.is_shell());
        let is_of_cluster = matches!(service, Some(Cluster(_) | Scheduler(_) | Executor(_)));
        let is_remote = matches!(self.session.master, Some(Master::Cluster(_)));
        let has_connection = is_of_cluster || (has_session || looks_at_options) && is_remote;
        let leaves_record = batch.is_some() || self.resume.is_some();
        let has_mongo = is_set("mongo") || is_set("mongo_file");
        let is_offsets = matches!(service, Some(Stream(StreamArgs::Instead(_))));
        let no_command = "this command does not use it";
        let no_cluster = "the job runs in this process; --master names a cluster";
        let no_mongo = "SQLite under the data root has one database; --mongo names a server";
        let asks = "with certificates an executor asks for its tasks";
        let has_bound = is_set("log_loss_max") || is_set("drift_max");
        let tls = (
            self.kill.is_some() || self.resume.is_some() || has_connection,
            match has_session {
                true => no_cluster,
                false => no_command,
            },
        );
        let uses = [
            ("data", !is_of_cluster, no_command),
            ("master", has_session || looks_at_options || self.resume.is_some(), no_command),
            ("conf", has_session, no_command),
            ("properties_file", has_session, no_command),
            ("memory", has_session || looks_at_options, no_command),
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
            ("archive_every", is_set("archive"), "only with --archive"),
            ("auto_rollback", has_bound, "only with --log-loss-max or --drift-max"),
        ];
        for (flag, is_used, why) in uses {
            if is_given(flag) && !is_used {
                return Err(format!("--{}: {why}", flag.replace('_', "-")));
            }
        }
        self.check_about(is_given)
    }
}

impl Cli {
    /// What this process does, in a word, for those who collect traces of several; none where it
    /// does nothing that they show.
    pub fn role(&self) -> Option<&'static str> {
        match &self.command {
            Some(Command::Batch(job)) => Some(job.name()),
            Some(Command::Service(service)) => Some(service.name()),
            Some(Command::Administration(_)) | None => None,
        }
    }

    /// What programs that this one starts are told too.
    pub fn for_children(&self) -> Vec<OsString> {
        let format = self.log_format.to_possible_value().map(|value| value.get_name().to_owned());
        let format = format.map(|name| ["--log-format".into(), name.into()]);
        let file = self.config.clone().map(|path| ["--config".into(), path]);
        let traces = self.otlp_endpoint.clone();
        let traces = traces.map(|endpoint| ["--otlp-endpoint".into(), endpoint.into()]);
        format.into_iter().chain(file).chain(traces).flatten().collect()
    }

    /// Refuses a command beside what is asked about jobs.
    fn check_about(&self, is_given: impl Fn(&str) -> bool) -> Result<(), String> {
        let about = ["status", "kill", "list", "resume"].into_iter().find(|flag| is_given(flag));
        match about {
            Some(flag) if self.command.is_some() => {
                Err(format!("--{flag} stands without a command"))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a part of what a connection with certificates needs: it would be one without.
    fn check_tls(&self) -> Result<(), String> {
        let TlsArgs { tls_ca, tls_cert, tls_key } = &self.session.tls;
        match [tls_ca, tls_cert, tls_key].iter().filter(|path| path.is_some()).count() {
            0 | 3 => Ok(()),
            _ => Err("--tls-ca, --tls-cert and --tls-key go together".to_owned()),
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

impl Command {
    /// Whether it looks at what options say of sessions, and opens none.
    fn looks_at_options(&self) -> bool {
        use Administration::{Config, Doctor};
        matches!(self, Self::Administration(Doctor(_) | Config(_)))
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

impl Service {
    fn name(&self) -> &'static str {
        match self {
            Self::Demo(_) => "demo",
            Self::Stream(_) => "stream",
            Self::Web(_) => "web",
            Self::Cluster(_) => "cluster",
            Self::Scheduler(_) => "scheduler",
            Self::Executor(_) => "executor",
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
            let said =
                cli.check(|flag| source_of(&matches, flag), |_| false).err().unwrap_or_default();
            let is_right =
                if refused.is_empty() { said.is_empty() } else { said.starts_with(refused) };
            assert!(is_right, "{line}: {said:?}");
        }
    }
}
