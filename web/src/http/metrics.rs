//! What the server shows of itself, for Prometheus.

use std::time::Duration;

use anyhow::Result;
use axum::http::{Method, StatusCode};
use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};
use telemetry::ProcessMetrics;

/// Bounds of durations, in seconds.
const SECONDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 30.0];

/// The metrics of one server.
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    seconds: Histogram,
    streams: IntGauge,
    failures: IntCounterVec,
    process: ProcessMetrics,
}

/// Put on a response by what could not do its work, for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failed {
    /// Kafka did not take a question.
    Kafka,
    /// The database could not be read or written.
    Store,
}

impl Metrics {
    pub(crate) fn new() -> Result<Self> {
        let registry = Registry::new_custom(Some("tarmac_web".into()), None)?;
        let help = "Requests that were answered, by route, method and status.";
        let requests = Opts::new("requests_total", help);
        let requests = IntCounterVec::new(requests, &["route", "method", "status"])?;
        let help = "Time until a response began; event streams wait after that.";
        let seconds = HistogramOpts::new("request_seconds", help).buckets(SECONDS.to_vec());
        let seconds = Histogram::with_opts(seconds)?;
        let streams = IntGauge::new("streams_open", "Event streams that are open.")?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        registry.register(Box::new(streams.clone()))?;
        let help = "Requests that failed by what is behind the server.";
        let failures = IntCounterVec::new(Opts::new("failures_total", help), &["of"])?;
        for of in [Failed::Kafka, Failed::Store] {
            // none yet is a number too
            failures.with_label_values(&[of.name()]);
        }
        registry.register(Box::new(failures.clone()))?;
        let process = ProcessMetrics::new("web")?;
        Ok(Self { registry, requests, seconds, streams, failures, process })
    }

    pub(crate) fn answered(
        &self,
        route: &str,
        method: &Method,
        status: StatusCode,
        took: Duration,
    ) {
        let method = known_method(method);
        self.requests.with_label_values(&[route, method, status.as_str()]).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn failed(&self, of: Failed) {
        self.failures.with_label_values(&[of.name()]).inc();
    }

    /// The metrics in the text format of Prometheus.
    pub(crate) fn to_text(&self, n_streams: usize) -> Result<String> {
        self.streams.set(n_streams as i64);
        let ours = TextEncoder::new().encode_to_string(&self.registry.gather())?;
        Ok(ours + &self.process.to_text()?)
    }
}

/// The name of a method that has routes; a client may make up others.
pub(crate) fn known_method(method: &Method) -> &str {
    let is_known = [Method::GET, Method::HEAD, Method::POST].contains(method);
    if is_known { method.as_str() } else { "other" }
}

impl Failed {
    fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Store => "store",
        }
    }
}
