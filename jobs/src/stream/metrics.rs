//! What a stream shows of itself: counters, gauges and histograms for Prometheus.

use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, Utc};
use events::BadRequest;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};
use udf::model::scorer::Scorer;

use crate::stream::health::Health;
use crate::stream::outcomes::Outcomes;

/// Bounds of durations, in seconds: from an answer on arrival to a store that was away.
const SECONDS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $name:ident: $type:ident $(by $label:literal)?,)+) => {
        /// The metrics of one stream.
        pub struct Metrics {
            registry: Registry,
            /// What readiness and status are made of: nothing is read back out of the registry.
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
                let metrics = Self { registry, health: Health::default(), $($name,)+ };
                metrics.begin();
                Ok(metrics)
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
    /// Micro-batches with messages.
    windows_total: IntCounter,
    /// Time from a full micro-batch to its answers being published.
    window_seconds: Histogram,
    /// Time that parts of it took, by phase: score and encode, beside the phases of those before;
    /// wait (for these two), dead_letters, store, count, publish, send.
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
    /// Answers in files of the archive.
    archived_total: IntCounter,
    /// Times that nothing could be archived; it is tried again.
    archive_failures_total: IntCounter,
    /// Messages of the micro-batch that is being filled.
    window_rows: IntGauge,
    /// Messages that wait to become a micro-batch.
    queue_rows: IntGauge,
    /// Bytes that wait to become a micro-batch.
    queue_bytes: IntGauge,
    /// Whether partitions are paused, because the queue is full.
    paused: IntGauge,
    /// Partitions that are assigned to us.
    assigned: IntGauge,
    /// Rebalances, by what they did: assigned, revoked, lost.
    rebalances_total: IntCounterVec by "event",
    /// Micro-batches that were dropped because another process had acquired a partition.
    fenced_total: IntCounter,
    /// 1 for the model that serves.
    model: IntGaugeVec by "version",
    /// When the model that serves was saved, in seconds since 1970.
    model_saved_timestamp_seconds: IntGaugeVec by "version",
    /// End of the last day of flights that it was trained on, in seconds since 1970.
    model_last_flight_timestamp_seconds: IntGaugeVec by "version",
    /// Mean log loss of a model on the flights that its training held out.
    holdout_log_loss: GaugeVec by "version",
    /// Mean log loss of its answers about the last seven days whose flights have arrived.
    live_log_loss: GaugeVec by "version",
    /// Flights that this is of.
    live_flights: IntGaugeVec by "version",
    /// Champions that were refused: damaged, missing, or trained on features that are gone.
    models_refused_total: IntCounter,
    /// Rows that champion and challenger scored, by whether they agree.
    shadow_rows_total: IntCounterVec by "agrees",
    /// Classes that the challenger predicted.
    shadow_predictions_total: IntCounterVec by "class",
    /// Classes that were predicted.
    predictions_total: IntCounterVec by "class",
    /// Population stability index against the reference distribution; above 0.25 flights differ.
    drift_psi: GaugeVec by "feature",
    /// Rows that the drift is computed from, older ones counting less.
    drift_rows: Gauge,
}

impl Metrics {
    /// Shows 0 of what has not happened yet: the first time of all is a rise too.
    fn begin(&self) {
        for kind in BadRequest::KINDS {
            self.dead_letters_total.with_label_values(&[kind]);
        }
        for what in ["assigned", "revoked", "lost"] {
            self.rebalances_total.with_label_values(&[what]);
        }
    }

    /// The metrics in the text format of Prometheus.
    pub fn to_text(&self) -> Result<String> {
        Ok(TextEncoder::new().encode_to_string(&self.registry.gather())?)
    }

    /// Notes how long a phase took.
    pub fn phase(&self, name: &str, took: Duration) {
        self.phase_seconds.with_label_values(&[name]).observe(took.as_secs_f64());
    }

    /// A partition has so many messages that are not answered.
    pub(crate) fn set_lag(&self, partition: i32, n_messages: i64) {
        self.lag.with_label_values(&[partition.to_string()]).set(n_messages);
        self.health.set_lag(partition, n_messages);
    }

    /// No partition is ours any more: what others have now is not our lag.
    pub(crate) fn forget_partitions(&self) {
        self.lag.reset();
        self.behind_transactions.reset();
        self.health.forget_partitions();
    }

    /// The group has assigned, revoked or lost partitions; `n_assigned` are ours now.
    pub(crate) fn rebalanced(&self, what: &str, n_assigned: usize) {
        self.rebalances_total.with_label_values(&[what]).inc();
        self.assigned.set(n_assigned as i64);
        self.forget_partitions();
        self.health.rebalanced();
    }

    /// Another model serves: what is known of the drift was against the one before.
    pub(crate) fn set_model(&self, champion: &Scorer, saved: Option<DateTime<Utc>>) {
        const DAY_SECONDS: i64 = 24 * 60 * 60;
        let (version, model) = (champion.version(), champion.model());
        self.model.reset();
        self.model.with_label_values(&[version]).set(1);
        let last_flight = model.days.map(|days| (i64::from(days.last) + 1) * DAY_SECONDS);
        for (gauge, time) in [
            (&self.model_saved_timestamp_seconds, saved.map(|saved| saved.timestamp())),
            (&self.model_last_flight_timestamp_seconds, last_flight),
        ] {
            gauge.reset();
            // what is not known is not said
            if let Some(time) = time {
                gauge.with_label_values(&[version]).set(time);
            }
        }
        self.holdout_log_loss.reset();
        self.holdout_log_loss.with_label_values(&[version]).set(model.holdout.log_loss);
        self.drift_psi.reset();
        self.health.set_model(version);
    }

    /// How right answers were, by version of the model.
    pub fn set_outcomes(&self, outcomes: &Outcomes) {
        self.live_log_loss.reset();
        self.live_flights.reset();
        for (version, (n_flights, log_loss)) in outcomes {
            self.live_log_loss.with_label_values(&[version]).set(*log_loss);
            self.live_flights.with_label_values(&[version]).set(n_flights.cast_signed());
        }
    }

    /// The drift of a feature.
    pub(crate) fn set_drift(&self, feature: &str, psi: f64) {
        self.drift_psi.with_label_values(&[feature]).set(psi);
        self.health.set_drift(feature, psi);
    }

    /// Rows that drift is of.
    pub(crate) fn set_drift_rows(&self, n_rows: f64) {
        self.drift_rows.set(n_rows);
        self.health.set_drift_rows(n_rows as u64);
    }

    /// Whether a sink fails now.
    pub(crate) fn set_down(&self, sink: &'static str, is_down: bool) {
        self.sink_down.with_label_values(&[sink]).set(i64::from(is_down));
        self.health.set_down(sink, is_down);
    }
}

/// A metric of each type, by the name of the type.
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
