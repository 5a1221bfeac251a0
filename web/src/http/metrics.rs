//! What the server shows of itself, for Prometheus.

use std::time::Duration;

use anyhow::Result;
use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

/// Bounds of durations, in seconds.
const SECONDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 30.0];

/// The metrics of one server.
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    seconds: Histogram,
    streams: IntGauge,
}

impl Metrics {
    pub(crate) fn new() -> Result<Self> {
        let registry = Registry::new_custom(Some("tarmac_web".into()), None)?;
        let requests = Opts::new("requests_total", "Requests that were answered, by status.");
        let requests = IntCounterVec::new(requests, &["status"])?;
        let help = "Time until a response began; event streams wait after that.";
        let seconds = HistogramOpts::new("request_seconds", help).buckets(SECONDS.to_vec());
        let seconds = Histogram::with_opts(seconds)?;
        let streams = IntGauge::new("streams_open", "Event streams that are open.")?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        registry.register(Box::new(streams.clone()))?;
        Ok(Self { registry, requests, seconds, streams })
    }

    pub(crate) fn answered(&self, status: u16, took: Duration) {
        self.requests.with_label_values(&[status.to_string()]).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// The metrics in the text format of Prometheus.
    pub(crate) fn to_text(&self, n_streams: usize) -> Result<String> {
        self.streams.set(n_streams as i64);
        Ok(TextEncoder::new().encode_to_string(&self.registry.gather())?)
    }
}
