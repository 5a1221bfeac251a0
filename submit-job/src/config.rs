//! What programs read of their surroundings, once, at their start: arguments, environment, clock
//! and signals.

use std::ffi::OsString;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use cluster::settings::Setting;

use crate::config_file::ConfigFile;

/// What an object store's driver reads: the variables with these beginnings.
const STORE_VARIABLES: [&str; 3] = ["AWS_", "GOOGLE_", "AZURE_"];

/// Beginning of the variables that are ours.
const PREFIX: &str = "TARMAC_";
/// The variable by which programs of all kinds are told where traces go.
pub const OTLP_VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// Beginning of the variables that are properties of librdkafka, the rest in capitals with `_`.
pub const KAFKA_PREFIX: &str = "TARMAC_KAFKA_CONF_";

/// The surroundings of a program.
#[derive(Clone)]
pub struct Environment {
    /// The command line, without the program.
    pub arguments: Vec<OsString>,
    /// Who started it.
    pub user: String,
    /// What object stores need, named in lower case: `AWS_REGION` becomes `aws_region`.
    pub store_options: Vec<Setting>,
    /// Properties of Kafka's clients: `TARMAC_KAFKA_CONF_SASL_PASSWORD` becomes `sasl.password`.
    pub kafka_properties: Vec<Setting>,
    /// The file of options.
    pub file: ConfigFile,
    /// Variables that options are set by; they may hold secrets.
    pub variables: Vec<Setting>,
    /// Where the SQL shell keeps its history, when there is a home directory.
    pub shell_history: Option<PathBuf>,
}

impl Environment {
    /// Reads them.
    #[expect(clippy::disallowed_methods, reason = "a program reads its surroundings here, once")]
    pub fn read() -> Self {
        // what is not UTF-8 is none of ours
        let variables = || {
            let pairs = std::env::vars_os();
            pairs.filter_map(|(name, value)| {
                Some((name.into_string().ok()?, value.into_string().ok()?))
            })
        };
        let is_for_stores = |name: &str| STORE_VARIABLES.iter().any(|s| name.starts_with(s));
        Self {
            arguments: std::env::args_os().skip(1).collect(),
            user: std::env::var("USER").unwrap_or_else(|_| "unknown".into()),
            store_options: variables()
                .filter(|(name, _)| is_for_stores(name))
                .map(|(name, value)| (name.to_ascii_lowercase(), value))
                .collect(),
            kafka_properties: variables()
                .filter_map(|(name, value)| {
                    let name = name.strip_prefix(KAFKA_PREFIX)?.to_ascii_lowercase();
                    Some((name.replace('_', "."), value))
                })
                .collect(),
            file: ConfigFile::default(),
            variables: variables()
                .filter(|(name, _)| name.starts_with(PREFIX) || name == OTLP_VARIABLE)
                .collect(),
            shell_history: std::env::var_os("HOME")
                .map(|home| PathBuf::from(home).join(".tarmac_sql_history")),
        }
    }

    /// With the file of options, and what it says of object stores.
    pub fn with(mut self, file: ConfigFile) -> Self {
        let of_file = file.table("object-store").iter();
        let is_said = |name: &str| self.store_options.iter().any(|(said, _)| said == name);
        let unsaid = of_file.filter(|(name, _)| !is_said(name)).cloned();
        self.store_options = unsaid.chain(self.store_options.iter().cloned()).collect();
        self.file = file;
        self
    }
}

/// The clock.
#[expect(clippy::disallowed_methods, reason = "the clock of the program")]
pub fn now() -> DateTime<Utc> {
    Utc::now()
}

/// Done at the first Ctrl-C or SIGTERM after the call, also when it is not waited for yet.
pub fn signal() -> impl Future<Output = ()> + Send + 'static {
    use tokio::signal::unix::{SignalKind, signal};
    let (interrupt, terminate) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    async {
        let (Ok(mut interrupt), Ok(mut terminate)) = (interrupt, terminate) else {
            tracing::error!("signals cannot be waited for; the program ends at once on one");
            return std::future::pending().await;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}
