//! What a job runs in: where, with which settings, over which data root.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use chrono::{DateTime, Utc};
use clap::Args;
use cluster::remote::Remote;
use cluster::session;
use cluster::settings::{Setting, setting, settings_of};
use cluster::tls::TlsArgs;
use datafusion::prelude::SessionContext;
use jobs::lake::Lake;

use crate::progress::Shown;

/// Where jobs run, and with what.
#[derive(Debug, Clone, Args)]
pub struct SessionArgs {
    /// Data root: a directory, or the URL of an object store such as s3://bucket/prefix
    #[arg(long, env = "TARMAC_DATA", default_value = "tarmac-data", global = true)]
    pub data: String,
    /// Where jobs run.
    #[arg(long, env = "TARMAC_MASTER", global = true, help = MASTER_HELP)]
    pub master: Option<Master>,
    /// Setting of the engine, such as datafusion.execution.batch_size=4096; may be repeated
    #[arg(long, value_name = "KEY=VALUE", global = true, value_parser = setting)]
    pub conf: Vec<Setting>,
    /// File with settings, KEY=VALUE or KEY VALUE a line; --conf takes precedence
    #[arg(long, value_name = "FILE", env = "TARMAC_PROPERTIES", global = true)]
    pub properties_file: Option<PathBuf>,
    /// Settings of the engine in the file of options.
    #[arg(skip)]
    pub conf_of_file: Vec<Setting>,
    /// Memory of this process for joins, groups and sorts, in MiB; beyond it they spill or fail. On
    /// a cluster only for what cannot be sent to it
    #[arg(long, env = "TARMAC_MEMORY", default_value_t = 2048, global = true)]
    pub memory: usize,
    /// TLS.
    #[command(flatten)]
    pub tls: TlsArgs,
}

/// Not in a comment, where its brackets would be a link.
const MASTER_HELP: &str =
    "Where jobs run: local, local[THREADS] or df://HOST:PORT [default: local]";

impl SessionArgs {
    /// Where jobs run: in this process unless something else was said.
    pub fn master(&self) -> Master {
        self.master.clone().unwrap_or(Master::Local(None))
    }

    /// The settings of the file of options, then those of the file of settings, then those of the
    /// command line; later ones take precedence.
    pub fn settings(&self) -> Result<Vec<Setting>> {
        let mut settings = self.conf_of_file.clone();
        if let Some(path) = &self.properties_file {
            settings.extend(settings_of(path)?);
        }
        settings.extend(self.conf.iter().cloned());
        Ok(settings)
    }
}

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

/// What a job needs, as the command line says.
pub struct JobContext {
    /// The session.
    pub ctx: SessionContext,
    /// The data root.
    pub lake: Lake,
    /// The scheduler, when the session's queries run on a cluster.
    pub remote: Option<Remote>,
    /// The job's id; names the run's own directories.
    pub id: String,
    /// The terminal.
    pub shown: Arc<Shown>,
}

/// Opens the session and the data root for the job `id`, which people know by `name`.
pub async fn open(
    args: &SessionArgs,
    master: &Master,
    name: &str,
    id: &str,
    store_options: &[Setting],
) -> Result<JobContext> {
    let settings = args.settings()?;
    let memory = args.memory.saturating_mul(1024 * 1024);
    let (ctx, remote) = match master {
        Master::Local(n_threads) => {
            let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
            let n_threads = n_threads.unwrap_or(n_cores);
            (session::in_process(n_threads, memory, store_options, &settings)?, None)
        }
        Master::Cluster(address) => {
            let tls = args.tls.load()?;
            let remote = Remote::new(address, &tls, id)?;
            let size = remote.size().await?;
            let (url, job) = (format!("df://{address}"), format!("{name} {id}"));
            let (options, settings) = (store_options, &settings);
            let ctx =
                session::on_cluster(&url, &tls, &job, size, memory, options, settings).await?;
            (ctx, Some(remote))
        }
    };
    let lake = Lake::open(&args.data, store_options)?;
    lake.register(&ctx);
    Ok(JobContext { ctx, lake, remote, id: id.to_owned(), shown: Arc::default() })
}

/// A name for a run's own directories, sortable by time.
pub fn run_name(now: DateTime<Utc>) -> String {
    format!("{}-{}", now.format("%Y%m%dT%H%M%S%3fZ"), std::process::id())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        session: SessionArgs,
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
    fn settings_of_the_command_line_take_precedence_over_those_of_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tarmac.conf");
        std::fs::write(&path, "# ours\na.b=1\n\nc.d y\n").unwrap();
        let file = path.to_str().unwrap();
        let parse = |file: &str| {
            Line::try_parse_from(["submit-job", "--properties-file", file, "--conf", "a.b=2"])
        };
        let expected = [("a.b", "1"), ("c.d", "y"), ("a.b", "2")];
        let settings = parse(file).unwrap().session.settings().unwrap();
        assert!(settings.iter().map(|(k, v)| (k.as_str(), v.as_str())).eq(expected));
        // it may be a part of a secret
        std::fs::write(&path, "a.b=1\nnonsense\n").unwrap();
        let error = format!("{:#}", parse(file).unwrap().session.settings().unwrap_err());
        assert!(error.contains("tarmac.conf:2") && !error.contains("nonsense"), "{error}");
    }
}
