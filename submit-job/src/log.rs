//! Where log lines go and how they are written, and where traces go.

use std::fmt;
use std::io::IsTerminal;

use anyhow::Result;
use clap::ValueEnum;
use telemetry::traces::{self, Traces};
use tracing::{Event, Subscriber};
use tracing_log::{AsLog, LogTracer};
use tracing_subscriber::filter::{EnvFilter, FilterExt, LevelFilter, filter_fn};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
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
    let subscriber = subscriber(filter, format, std::io::stderr, traces);
    tracing::subscriber::set_global_default(subscriber).expect("the log is made once");
    log::set_boxed_logger(Box::new(Records(LogTracer::new()))).expect("the log is made once");
    log::set_max_level(LevelFilter::current().as_log());
    if format == LogFormat::Json {
        progress::say_as_json();
    }
}

fn subscriber<W>(
    filter: EnvFilter,
    format: LogFormat,
    writer: W,
    traces: Option<&Traces>,
) -> impl Subscriber + Send + Sync + use<W>
where
    W: for<'line> MakeWriter<'line> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    // a line says nothing of the spans that it is in
    let is_line = filter_fn(|metadata| metadata.target() != telemetry::SPAN);
    // without a level of its own it hides the other filter's, and each line of each library, one
    // for every message of a topic among them, is made before it is thrown away
    let is_line = is_line.with_max_level_hint(LevelFilter::TRACE);
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
    tracing_subscriber::registry().with(lines).with(traces.map(Traces::layer))
}

/// The records of libraries that use the crate `log`, as lines.
struct Records(LogTracer);

impl log::Log for Records {
    /// Whether a record may become a line. The tracer would ask the filters, which remember their
    /// answer for the line that follows: without one, that is the next of this thread, which is
    /// lost where the answer was no. librdkafka is asked so for each client.
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0.log(record);
    }

    fn flush(&self) {
        self.0.flush();
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use log::Log;

    use super::*;

    #[test]
    fn no_line_is_lost_behind_what_none_comes_of() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let writer = Arc::new(file.reopen().unwrap());
        let filter = EnvFilter::new("warn,rdkafka=off");
        let subscriber = subscriber(filter, LogFormat::Text, writer, None);
        tracing::subscriber::with_default(subscriber, || {
            let records = Records(LogTracer::new());
            let off = log::Metadata::builder().level(log::Level::Warn).target("rdkafka").build();
            let record = log::Record::builder().metadata(off.clone()).build();
            for line in 0..3 {
                match line {
                    0 => _ = records.enabled(&off),
                    1 => records.log(&record),
                    _ => {}
                }
                tracing::warn!(line);
            }
        });
        let written = std::fs::read_to_string(file.path()).unwrap();
        assert_eq!(written.lines().count(), 3, "{written}");
        (0..3).for_each(|line| assert!(written.contains(&format!("line={line}")), "{written}"));
    }

    #[test]
    fn what_no_line_comes_of_is_not_made() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let filter = EnvFilter::new("warn,jobs=info");
            let subscriber = subscriber(filter, format, std::io::sink, None);
            assert_eq!(subscriber.max_level_hint(), Some(LevelFilter::INFO), "{format:?}");
        }
    }
}
