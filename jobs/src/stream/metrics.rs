//! What a stream shows of itself: counters, gauges and histograms for Prometheus.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use events::StreamStatus;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::stream::health::Health;

/// Bounds of durations, in seconds: from an answer on arrival to a store that was away.
const SECONDS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $name:ident: $type:ident $(by $label:literal)?,)+) => {
        /// The metrics of one stream.
        pub struct Metrics {
            registry: Registry,
            /// Whether what the stream depends on answers.
            pub health: Health,
            $($(#[doc = $help])+ pub $name: $type,)+
        }

        impl Metrics {
            /// Metrics that show nothing yet.
            pub fn new() -> Result<Self> {
                let registry = Registry::new_custom(Some("tarmac_stream".into()), None)?;
                $(
                    let help = concat!($($help),+).trim();
                    let $name = make::$type(stringify!($name), help, &[$($label)?])?;
                    registry.register(Box::new($name.clone()))?;
                )+
                Ok(Self { registry, health: Health::default(), $($name,)+ })
            }
        }
    };
}

metrics! {
    /// Messages that were read and dealt with.
    messages_total: IntCounter,
    /// Answers in the store, by status; those that were there before are counted as repeated.
    answers_total: IntCounterVec by "status",
    /// Messages that were kept aside, by kind of fault.
    dead_letters_total: IntCounterVec by "reason",
    /// Windows with messages.
    windows_total: IntCounter,
    /// Time from a full window to its offsets being recorded.
    window_seconds: Histogram,
    /// The same by phase: score, dead_letters, store, publish.
    phase_seconds: HistogramVec by "phase",
    /// Time from Kafka's timestamp of a request to its answer being readable.
    latency_seconds: Histogram,
    /// Attempts that failed and are made again: at store, answers, dead_letters, log.
    sink_retries_total: IntCounterVec by "sink",
    /// Whether one of them is failing now.
    sink_down: IntGaugeVec by "sink",
    /// Messages of a partition that can be read and are not answered.
    lag: IntGaugeVec by "partition",
    /// Offsets of a partition that cannot be read before a transaction of their senders has ended.
    behind_transactions: IntGaugeVec by "partition",
    /// Offsets that Kafka had deleted before they were read.
    deleted_unread_total: IntCounter,
    /// Partitions that were read from their beginning, because their log had become another one.
    other_logs_total: IntCounter,
    /// Messages of the window that is being filled.
    window_rows: IntGauge,
    /// Messages that wait to become a window.
    queue_rows: IntGauge,
    /// Bytes that wait to become a window.
    queue_bytes: IntGauge,
    /// Whether partitions are paused, because the queue is full.
    paused: IntGauge,
    /// Partitions that are assigned to us.
    assigned: IntGauge,
    /// Decisions of the group: assigned, revoked, lost.
    rebalances: IntCounterVec by "event",
    /// Windows that were thrown away because another process had acquired a partition.
    fenced_total: IntCounter,
    /// 1 for the model that serves.
    model: IntGaugeVec by "version",
    /// Champions that were refused because they could not be read.
    models_refused_total: IntCounter,
    /// Rows that champion and challenger were asked about, by whether they agree.
    shadow_rows_total: IntCounterVec by "agrees",
    /// Classes that the challenger predicted.
    shadow_predictions_total: IntCounterVec by "class",
    /// Classes that were predicted.
    predictions_total: IntCounterVec by "class",
    /// Population stability index against the training sample; above 0.25 the flights are others.
    drift_psi: GaugeVec by "feature",
    /// Rows that the drift is computed from, older ones counting less.
    drift_rows: Gauge,
}

impl Metrics {
    /// The metrics in the text format of Prometheus.
    pub fn to_text(&self) -> Result<String> {
        Ok(TextEncoder::new().encode_to_string(&self.registry.gather())?)
    }

    /// Notes how long a phase took.
    pub fn phase(&self, name: &str, took: Duration) {
        self.phase_seconds.with_label_values(&[name]).observe(took.as_secs_f64());
    }

    /// What is told of a job of `group` that holds partitions; `before` is what was told `seconds`
    /// ago.
    pub fn status(
        &self,
        group: &str,
        at: String,
        before: Option<(&StreamStatus, f64)>,
    ) -> Option<StreamStatus> {
        let (mut lag, mut drift) = (BTreeMap::new(), BTreeMap::new());
        let mut version = None;
        for family in self.registry.gather() {
            for metric in family.get_metric() {
                let label = metric.get_label().first().map(|label| label.value().to_owned());
                let (Some(label), value) = (label, metric.get_gauge().value()) else { continue };
                match family.name() {
                    "tarmac_stream_lag" => _ = lag.insert(label.parse::<i32>().ok()?, value),
                    "tarmac_stream_drift_psi" => _ = drift.insert(label, value),
                    "tarmac_stream_model" => version = Some(label),
                    _ => {}
                }
            }
        }
        let (first_partition, _) = lag.first_key_value()?;
        let n_messages = self.messages_total.get();
        let rate = before.map_or(0.0, |(before, seconds)| {
            n_messages.saturating_sub(before.messages) as f64 / seconds
        });
        Some(StreamStatus {
            id: format!("{group}/{first_partition}"),
            at,
            model: version.unwrap_or_default(),
            messages: n_messages,
            messages_per_second: rate,
            lag: lag.values().sum::<f64>() as u64,
            drift,
        })
    }

    /// Why requests cannot be answered at the moment, if so.
    pub fn unready(&self) -> Option<String> {
        let is_down = |sink: &str| self.sink_down.with_label_values(&[sink]).get() > 0;
        if let Some(why) = self.health.unready() {
            return Some(why);
        }
        if self.rebalances.with_label_values(&["assigned"]).get() == 0 {
            return Some("the consumer group has not let us in".into());
        }
        if is_down("store") {
            return Some("the store does not take answers".into());
        }
        let is_mute = is_down("answers") || is_down("dead_letters");
        is_mute.then(|| "Kafka does not take records".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_tells_of_the_partitions_that_are_held() {
        let metrics = Metrics::new().unwrap();
        let status = |before| metrics.status("group", "now".into(), before);
        assert_eq!(status(None), None, "no partition, no status");
        let lag = |partition: &str, n| metrics.lag.with_label_values(&[partition]).set(n);
        lag("10", 3);
        lag("2", 4);
        metrics.model.with_label_values(&["abc"]).set(1);
        metrics.drift_psi.with_label_values(&["carrier"]).set(0.5);
        metrics.messages_total.inc_by(10);
        let first = status(None).unwrap();
        assert_eq!((first.id.as_str(), first.lag, first.model.as_str()), ("group/2", 7, "abc"));
        assert_eq!(first.drift["carrier"], 0.5);
        metrics.messages_total.inc_by(30);
        assert_eq!(status(Some((&first, 6.0))).unwrap().messages_per_second, 5.0);
        metrics.lag.reset();
        assert_eq!(status(None), None);
    }
}

/// A meter of each type, by the name of the type.
#[expect(non_snake_case, reason = "named after what they make")]
mod make {
    use super::*;

    type Made<T> = prometheus::Result<T>;

    pub(super) fn IntCounter(name: &str, help: &str, _: &[&str]) -> Made<IntCounter> {
        IntCounter::new(name, help)
    }

    pub(super) fn IntCounterVec(name: &str, help: &str, by: &[&str]) -> Made<IntCounterVec> {
        IntCounterVec::new(Opts::new(name, help), by)
    }

    pub(super) fn IntGauge(name: &str, help: &str, _: &[&str]) -> Made<IntGauge> {
        IntGauge::new(name, help)
    }

    pub(super) fn IntGaugeVec(name: &str, help: &str, by: &[&str]) -> Made<IntGaugeVec> {
        IntGaugeVec::new(Opts::new(name, help), by)
    }

    pub(super) fn Gauge(name: &str, help: &str, _: &[&str]) -> Made<Gauge> {
        Gauge::new(name, help)
    }

    pub(super) fn GaugeVec(name: &str, help: &str, by: &[&str]) -> Made<GaugeVec> {
        GaugeVec::new(Opts::new(name, help), by)
    }

    pub(super) fn Histogram(name: &str, help: &str, _: &[&str]) -> Made<Histogram> {
        Histogram::with_opts(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()))
    }

    pub(super) fn HistogramVec(name: &str, help: &str, by: &[&str]) -> Made<HistogramVec> {
        HistogramVec::new(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()), by)
    }
}
