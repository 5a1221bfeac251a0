//! Traces, as a collector gets them.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use rdkafka::message::{Header, OwnedHeaders};
use serde_json::Value;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::setup::*;

/// A span, and the service that it is of.
type Seen = (String, Span);

/// Keeps all spans that it is sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Seen>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of_resource in request.into_inner().resource_spans {
            let attributes = of_resource.resource.unwrap_or_default().attributes;
            let service = text_of(&attributes, "service.name");
            let spans = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.0.lock().extend(spans.map(|span| (service.clone(), span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Takes spans from now on; where.
    fn start(&self) -> String {
        let port = free_port();
        let service = TraceServiceServer::new(self.clone());
        let address = format!("127.0.0.1:{port}").parse().unwrap();
        tokio::spawn(Server::builder().add_service(service).serve(address));
        format!("http://127.0.0.1:{port}")
    }

    /// The first span of a service by its name, as soon as it is there.
    fn wait_for(&self, service: &str, name: &str) -> Span {
        let found = || {
            let seen = self.0.lock();
            let is_it = |(of, span): &&Seen| of == service && span.name == name;
            seen.iter().find(is_it).map(|(_, span)| span.clone())
        };
        until(&format!("a span {name:?} of {service}"), found)
    }

    /// The names of spans below one.
    fn below(&self, parent: &Span) -> Vec<String> {
        let seen = self.0.lock();
        let is_below = |span: &Span| span.parent_span_id == parent.span_id;
        seen.iter().filter(|(_, s)| is_below(s)).map(|(_, span)| span.name.clone()).collect()
    }
}

fn text_of(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    let value = found.and_then(|found| found.value.as_ref()).and_then(|v| v.value.clone());
    match value {
        Some(any_value::Value::StringValue(text)) => text,
        other => format!("{other:?}"),
    }
}

/// The lines of a log that are objects.
fn objects(log: &str) -> Vec<BTreeMap<String, Value>> {
    log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_followed_from_the_form_to_the_answer() {
    let collector = Collector::default();
    let endpoint = collector.start();
    let traced = ["--otlp-endpoint", &endpoint, "--log-format", "json"];
    let world = World::start().await;
    world.learn_little();
    world.make_topic(1).await;
    world.make_topic_with(ANSWERS, 1, &[]).await;
    let interval = ["--trigger", "interval:300ms"];
    let stream = Stream::start(&world, "traced", &[&interval[..], &traced].concat());
    let port = free_port();
    let mut web = world.with_servers("web");
    let web = Process::start(web.args(["--listen", &format!("127.0.0.1:{port}")]).args(traced));
    until("the web server listens", || TcpStream::connect(("127.0.0.1", port)).ok());
    stream.wait_for("assigned", |n| n == 1.0);

    let asked = "DepDelay=15&Carrier=UA&FlightDate=2013-12-25&Origin=EWR&Dest=IAH";
    let route = "/flights/delays/predict/classify_realtime";
    // the page must hear of the answer, not find it
    send_signal(&stream.process.pid(), "STOP");
    let id = json_of(&post(port, route, asked))["id"].as_str().unwrap().to_owned();
    let path = format!("{route}/response/{id}/events");
    let page = std::thread::spawn(move || get(port, &path));
    until("the page waits", || {
        get(port, "/metrics").contains("tarmac_web_streams_open 1").then_some(())
    });
    send_signal(&stream.process.pid(), "CONT");
    let events = page.join().unwrap();
    assert!(events.contains("event: answer"), "{events}");

    let question = collector.wait_for("tarmac-web", &format!("POST {route}"));
    let send = collector.wait_for("tarmac-web", &format!("send {REQUESTS}"));
    let process = collector.wait_for("tarmac-stream", &format!("process {REQUESTS}"));
    assert!(question.parent_span_id.is_empty());
    for (above, below) in [(&question, &send), (&send, &process)] {
        assert_eq!(above.span_id, below.parent_span_id, "{} above {}", above.name, below.name);
        assert_eq!(above.trace_id, below.trace_id, "{} above {}", above.name, below.name);
        assert!(above.start_time_unix_nano <= below.start_time_unix_nano);
    }
    assert_eq!(text_of(&process.attributes, "tarmac.request.id"), id);
    let show = collector.wait_for("tarmac-web", "show the answer");
    assert_eq!(show.parent_span_id, process.span_id);

    // the micro-batch answers others too: it is a trace of its own
    let batch = collector.wait_for("tarmac-stream", "micro-batch");
    assert_eq!(process.links[0].span_id, batch.span_id);
    assert_ne!(batch.trace_id, question.trace_id);
    collector.wait_for("tarmac-stream", "publish");
    let mut steps = collector.below(&batch);
    steps.sort();
    assert_eq!(steps, ["dead_letters", "publish", "score", "store"]);

    // one that is kept aside has failed
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut bad = request(7, "UA", "EWR", "IAH", 0.0);
    bad["DepDelay"] = "late".into();
    world.send_with(bad.to_string().as_bytes(), header(traceparent)).await;
    // what is no trace begins none, and is answered all the same
    let good = request(8, "UA", "EWR", "IAH", 0.0).to_string();
    world.send_with(good.as_bytes(), header("00-nonsense")).await;
    world.answer(8).await;
    let failed = || {
        let seen = collector.0.lock();
        let is_it =
            |span: &Span| span.parent_span_id[..] == 0xb7ad_6b71_6920_3331_u64.to_be_bytes();
        seen.iter().map(|(_, span)| span.clone()).find(is_it)
    };
    let failed = until("the span of a bad request", failed);
    let status = failed.status.unwrap();
    assert_eq!(status.code, 2, "{status:?}");
    assert!(status.message.contains("DepDelay"), "{status:?}");

    // lines of the log name the trace that they are of
    let is_it = |line: &BTreeMap<String, Value>| {
        line.get("message").is_some_and(|message| message == "micro-batch")
    };
    let line = objects(&stream.log()).into_iter().find(is_it).unwrap();
    assert_eq!(line["trace_id"], hex(&batch.trace_id), "{line:?}");
    stream.process.end_cleanly("the stream");
    web.end_cleanly("the web server");
}

fn header(traceparent: &str) -> OwnedHeaders {
    OwnedHeaders::new().insert(Header { key: "traceparent", value: Some(traceparent) })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_shows_its_stages_and_queries_and_ends_without_a_collector_too() {
    let collector = Collector::default();
    let endpoint = collector.start();
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let job = |endpoint: &str, words: &[&str]| {
        let mut job = submit_job(&data);
        job.args(words).env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).output().unwrap()
    };
    let ingest = ["ingest", "--rejects-max", "0.5", "data/fixtures/bts_new.csv"];
    assert!(job(&endpoint, &ingest).status.success());
    let small = ["train", "--preset", "original", "--trees", "3"];
    assert!(job(&endpoint, &small).status.success());
    for (service, job, stage, query) in [
        ("tarmac-ingest", "ingest", "writing flights", None),
        (
            "tarmac-train",
            "train",
            "growing trees by sql/43_histogram.sql",
            Some("sql/43_histogram.sql"),
        ),
    ] {
        let job = collector.wait_for(service, job);
        let stage = collector.wait_for(service, stage);
        assert!(job.parent_span_id.is_empty());
        assert_eq!(stage.parent_span_id, job.span_id);
        if let Some(query) = query {
            assert_eq!(collector.wait_for(service, query).parent_span_id, stage.span_id);
        }
    }

    // nobody takes them: said once, and the job does what it should
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let trained = job(&nobody, &small);
    let said = String::from_utf8_lossy(&trained.stderr);
    assert!(trained.status.success(), "{said}");
    assert_eq!(said.matches("traces are lost").count(), 1, "{said}");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    assert!(job(&silent, &small).status.success());
    let refused = job("no address at all", &["models", "list"]);
    assert!(refused.status.success(), "what shows nothing in traces needs no collector");
    let refused = job("no address at all", &small);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("address of the collector"), "{said}");
}
