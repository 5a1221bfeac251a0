//! Where log lines go and how they are written, and where traces go.

use std::fmt;
use std::io::IsTerminal;

use anyhow::Result;
use clap::ValueEnum;
use telemetry::traces::{self, Traces};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{EnvFilter, FilterExt, filter_fn};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::progress;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// An object a line, for programs that collect them.
    Json,
}

/// Sends log lines of `level` and above to standard error, of other people's libraries warnings;
/// `RUST_LOG` takes precedence. As JSON, what is said to people is a line of the log too, and what
/// belongs to a trace names it. Spans go to `traces`.
pub fn log(level: &str, format: LogFormat, traces: Option<&Traces>) {
    // librdkafka repeats each failure to connect; what it means for us we say ourselves
    let mut default = "warn,rdkafka=off,librdkafka=off".to_owned();
    for ours in ["submit_job", "cluster", "jobs", "store", "web", "udf", "telemetry"] {
        default += &format!(",{ours}={level}");
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    // a line says nothing of the spans that it is in
    let is_line = filter_fn(|metadata| metadata.target() != telemetry::SPAN);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        LogFormat::Text => {
            let lines = lines.with_ansi(std::io::stderr().is_terminal());
            lines.with_filter(filter.and(is_line)).boxed()
        }
        LogFormat::Json => {
            let said = format!("{}=info", progress::SAID).parse();
            let filter = said.into_iter().fold(filter, EnvFilter::add_directive);
            let lines = lines.json().flatten_event(true).map_event_format(NamesTrace);
            lines.with_filter(filter.and(is_line)).boxed()
        }
    };
    tracing_subscriber::registry().with(lines).with(traces.map(Traces::layer)).init();
    if format == LogFormat::Json {
        progress::say_as_json();
    }
}

/// The lines of another format, objects, with the trace that they belong to.
struct NamesTrace<F>(F);

impl<S, N, F> FormatEvent<S, N> for NamesTrace<F>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some((trace, span)) = traces::current() else {
            return self.0.format_event(ctx, writer, event);
        };
        let mut line = String::new();
        self.0.format_event(ctx, Writer::new(&mut line), event)?;
        match line.strip_prefix('{') {
            Some(rest) => {
                write!(writer, "{{\"trace_id\":\"{trace}\",\"span_id\":\"{span}\",{rest}")
            }
            None => writer.write_str(&line),
        }
    }
}

/// Sends spans to `endpoint`, where one is given; `role` is what this process does.
pub fn traces(endpoint: Option<&str>, role: Option<&str>) -> Result<Option<Traces>> {
    // a variable that is empty names none
    let endpoint = endpoint.filter(|endpoint| !endpoint.is_empty());
    endpoint.zip(role).map(|(endpoint, role)| Traces::to(endpoint, role)).transpose()
}
