//! Traces: what a process does and when, sent by OTLP to a collector such as that of Jaeger.
//!
//! What is worth a span is one of `tracing`, with the target [`SPAN`]. Nobody asks for these where
//! traces are off, which is the default, and then they cost nothing. A trace goes from one process
//! to the next in a header, by the recommendation of the W3C (Trace Context, level 1).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanId, Status, TraceContextExt, TraceId, TracerProvider};
use opentelemetry::{Context, Key, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, SpanData, SpanExporter as Exporter,
};
use tonic::transport::{ClientTlsConfig, Endpoint};
use tracing::level_filters::LevelFilter;
use tracing::{Level, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::registry::LookupSpan;

/// The target of spans that are for traces.
pub const SPAN: &str = "trace";
/// The header that a trace goes on by.
pub const HEADER: &str = "traceparent";
/// Longest header that is looked at, in bytes. The one of the recommendation has 55.
const HEADER_BYTES_MAX: usize = 128;
/// Spans that wait to be sent; more are lost. Those of a micro-batch end together.
const QUEUE_SPANS: usize = 32_768;
/// How long the end of a process may wait for its last spans to be taken.
const END_WAIT: Duration = Duration::from_secs(2);
/// How long the collector may take to be reached, and to take a batch of spans.
const SEND_WAIT: Duration = Duration::from_secs(5);

/// Whether spans are sent.
static IS_ON: AtomicBool = AtomicBool::new(false);

/// The spans of this process on their way to a collector.
pub struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// Sends spans to the collector at `endpoint`, such as `http://127.0.0.1:4317`, by OTLP over
    /// gRPC, as those of the service `tarmac-` and `role`. The SDK reads its variables for
    /// sampling, headers, and the name and attributes of the service. Call it within the runtime.
    ///
    /// Errors when the endpoint is no address. One that does not answer is none: spans are lost,
    /// and the log says so.
    pub fn to(endpoint: &str, role: &str) -> Result<Self> {
        let exporter = exporter(endpoint);
        let exporter = exporter.context("traces cannot be sent to the address of the collector")?;
        let resource =
            || Resource::builder().with_attribute(KeyValue::new("service.version", crate::VERSION));
        // the environment may have another name for it
        let named = resource().build().get(&Key::from_static_str("service.name"));
        let is_named = named.is_some_and(|name| !name.as_str().starts_with("unknown_service"));
        let resource = match is_named {
            true => resource(),
            false => resource().with_service_name(format!("tarmac-{role}")),
        };
        let queue = BatchConfigBuilder::default().with_max_queue_size(QUEUE_SPANS).build();
        let queue = BatchSpanProcessor::builder(Told { exporter, is_lost: AtomicBool::new(false) })
            .with_batch_config(queue)
            .build();
        let provider = SdkTracerProvider::builder()
            .with_resource(resource.build())
            .with_span_processor(queue)
            .build();
        IS_ON.store(true, Ordering::Relaxed);
        Ok(Self { provider })
    }

    /// What turns spans of the target [`SPAN`] into those of traces; what is logged as a warning or
    /// an error within one becomes an event of it.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let is_ours = FilterFn::new(|metadata| match metadata.is_span() {
            true => metadata.target() == SPAN,
            false => *metadata.level() <= Level::WARN,
        });
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("tarmac"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(is_ours.with_max_level_hint(LevelFilter::INFO))
    }

    /// Sends what has ended; no longer than a moment.
    pub fn end(self) {
        // whether it was lost has been said
        _ = self.provider.shutdown_with_timeout(END_WAIT);
    }
}

/// The exporter's own channel has no bound on the time that a connection takes.
fn exporter(endpoint: &str) -> Result<SpanExporter> {
    let mut channel = Endpoint::from_shared(endpoint.to_owned())?;
    if endpoint.starts_with("https:") {
        channel = channel.tls_config(ClientTlsConfig::new().with_enabled_roots())?;
    }
    let channel = channel.connect_timeout(SEND_WAIT).timeout(SEND_WAIT).connect_lazy();
    Ok(SpanExporter::builder()
        .with_tonic()
        .with_channel(channel)
        .with_timeout(SEND_WAIT)
        .build()?)
}

/// Whether spans are sent; where they are not, nothing need be made of what they would show.
pub fn is_on() -> bool {
    IS_ON.load(Ordering::Relaxed)
}

/// What goes on from `span` in another process: the value of [`HEADER`]. None where it is in no
/// trace.
pub fn traceparent(span: &Span) -> Option<String> {
    if !is_on() {
        return None;
    }
    let mut headers = HashMap::new();
    TraceContextPropagator::new().inject_context(&span.context(), &mut headers);
    headers.remove(HEADER)
}

/// What the [`HEADER`] of a message or a request may say of a trace; none where traces are off.
pub fn of_header(value: Option<&[u8]>) -> Option<&str> {
    let value = value.filter(|value| is_on() && value.len() <= HEADER_BYTES_MAX)?;
    std::str::from_utf8(value).ok()
}

/// Makes `span` go on from where another process was. A header that says nothing is ignored.
pub fn go_on(span: &Span, traceparent: &str) {
    let headers = HashMap::from([(HEADER.to_owned(), traceparent.to_owned())]);
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &headers);
    if context.span().span_context().is_valid() {
        // errs only for a span that has begun already or is not wanted
        _ = span.set_parent(context);
    }
}

/// Notes in `span` that something has happened now.
pub fn note(span: &Span, what: &'static str) {
    span.add_event(what, Vec::new());
}

/// Says that what `span` is of has failed.
pub fn fail(span: &Span, why: &str) {
    span.set_status(Status::error(why.to_owned()));
}

/// The trace and the span that this is called in.
pub fn current() -> Option<(TraceId, SpanId)> {
    let context = Context::current();
    let span = context.span().span_context().clone();
    span.is_valid().then(|| (span.trace_id(), span.span_id()))
}

/// Says when spans are lost, and when they are not any more.
#[derive(Debug)]
struct Told {
    exporter: SpanExporter,
    is_lost: AtomicBool,
}

impl Exporter for Told {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let sent = self.exporter.export(batch).await;
        match (&sent, self.is_lost.swap(sent.is_err(), Ordering::Relaxed)) {
            (Err(error), false) => tracing::warn!(%error, "traces are lost: nobody takes them"),
            (Ok(()), true) => tracing::warn!("traces are taken again"),
            _ => {}
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
