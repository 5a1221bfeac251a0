//! The server as its clients see it: HTTP on a loopback port, an embedded store, and the real
//! Kafka protocol of librdkafka's mock cluster.

#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, Utc};
use events::{
    ANSWERS, Answer, DelayClass, Prediction, PredictionRequest, REQUEST_TOPIC, RESPONSE_TOPIC,
};
use futures::{StreamExt, stream};
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{DefaultProducerContext, FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde_json::{Value, json};
use store::Store;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

const ASK: &str = "/flights/delays/predict/classify_realtime";
const GOOD: &str = "DepDelay=15&Carrier=ua&FlightDate=2016-12-25&Origin=EWR&Dest=IAH&FlightNum=";
/// Until a test that waits for ever is called failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// A port that no broker listens on.
const NO_BROKER: &str = "127.0.0.1:1";

struct Server {
    address: SocketAddr,
    store: Store,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<()>>,
    _directory: TempDir,
}

async fn start(brokers: &str) -> Server {
    start_with(brokers, 300).await
}

async fn start_with(brokers: &str, requests_per_second: u32) -> Server {
    #[expect(clippy::disallowed_methods, reason = "the server under test has the real time")]
    start_at(brokers, requests_per_second, chrono::Utc::now).await
}

/// A clock that stands.
fn noon() -> DateTime<Utc> {
    "2016-12-01T12:00:00Z".parse().unwrap()
}

async fn start_at(brokers: &str, requests_per_second: u32, now: fn() -> DateTime<Utc>) -> Server {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::embedded(&directory.path().join("store.sqlite")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    // nothing is gained by waiting for a broker that is not there
    let delivery_ms = if brokers == NO_BROKER { "500" } else { "30000" };
    let config = web::Config {
        kafka: [("bootstrap.servers", brokers), ("message.timeout.ms", delivery_ms)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .to_vec(),
        request_topic: REQUEST_TOPIC.into(),
        response_topic: RESPONSE_TOPIC.into(),
        store: store.clone(),
        requests_per_second,
        proxies: vec!["127.0.0.2/32".parse().unwrap()],
        hosts: vec![],
        now,
    };
    let shutdown = async {
        let _ = stopped.await;
    };
    let serving = tokio::spawn(web::serve(listener, config, shutdown));
    Server { address, store, stop, serving, _directory: directory }
}

fn cluster() -> MockCluster<'static, DefaultProducerContext> {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(REQUEST_TOPIC, 1, 1).unwrap();
    cluster
}

/// One request on a connection of its own; the head is `METHOD path` and headers.
async fn open(address: SocketAddr, head: &str, body: &str) -> BufReader<TcpStream> {
    let mut connection = TcpStream::connect(address).await.unwrap();
    let (line, headers) = head.split_once('\n').unwrap_or((head, ""));
    let request = format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n{headers}\r\n{body}",
        body.len()
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    BufReader::new(connection)
}

async fn call(address: SocketAddr, head: &str, body: &str) -> String {
    let mut response = String::new();
    let mut connection = open(address, head, body).await;
    tokio::time::timeout(PATIENCE, connection.read_to_string(&mut response))
        .await
        .unwrap()
        .unwrap();
    response
}

fn json_of(response: &str) -> Value {
    serde_json::from_str(response.split_once("\r\n\r\n").unwrap().1).unwrap()
}

fn check(response: &str, wants: &[&str]) {
    for want in wants {
        assert!(response.contains(want), "{want:?} is not in:\n{response}");
    }
}

fn answer_to(request: &PredictionRequest) -> Answer {
    Answer::Ok(Box::new(Prediction {
        uuid: request.uuid,
        origin: request.origin.clone(),
        dest: request.dest.clone(),
        route: format!("{}-{}", request.origin, request.dest),
        carrier: request.carrier.clone(),
        flight_num: request.flight_num.clone(),
        flight_date: request.flight_date,
        day_of_week: 7,
        day_of_year: 360,
        day_of_month: 25,
        dep_delay: request.dep_delay,
        distance: None,
        timestamp: request.timestamp.clone(),
        answered_at: "2099-01-01T00:00:00.000Z".into(),
        prediction: DelayClass::SlightlyLate,
        probabilities: [0.1, 0.2, 0.6, 0.1],
        late_contributions: vec![],
        base_rates: None,
        contributions: vec![],
        unseen: vec![],
        model_version: "ab".repeat(32),
    }))
}

async fn first_request(brokers: &str) -> PredictionRequest {
    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "test")
        .create()
        .unwrap();
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(REQUEST_TOPIC, 0, Offset::Beginning).unwrap();
    consumer.assign(&partitions).unwrap();
    let message = tokio::time::timeout(PATIENCE, consumer.recv()).await.unwrap().unwrap();
    let request = PredictionRequest::decode(message.payload().unwrap()).unwrap();
    assert_eq!(message.key(), Some(request.uuid.to_string().as_bytes()));
    request
}

/// Sends the answer again and again, as an at-least-once topic may, until the stream has ended.
async fn answer_until_heard(
    brokers: &str,
    answer: &Answer,
    stream: &mut BufReader<TcpStream>,
) -> String {
    let producer: FutureProducer =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let payload = serde_json::to_vec(answer).unwrap();
    let sending = async {
        loop {
            let record = FutureRecord::<[u8], _>::to(RESPONSE_TOPIC).payload(&payload);
            producer.send(record, PATIENCE).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let mut text = String::new();
    tokio::select! {
        read = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut text)) => {
            read.unwrap().unwrap();
        }
        () = sending => {}
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_reaches_kafka_and_its_answer_the_open_stream() {
    let cluster = cluster();
    let brokers = cluster.bootstrap_servers();
    let server = start(&brokers).await;
    let asked = json_of(&call(server.address, &format!("POST {ASK}"), GOOD).await);
    let request = first_request(&brokers).await;
    assert_eq!(asked, json!({ "status": "OK", "id": request.uuid }));
    assert_eq!(request.carrier, "UA");

    let path = format!("GET {ASK}/response/{}", request.uuid);
    let state = json_of(&call(server.address, &path, "").await);
    assert_eq!(state, json!({ "status": "WAIT", "id": request.uuid }));

    // the topic is made after the server has started, as the streaming job does
    let mut stream = open(server.address, &format!("{path}/events"), "").await;
    cluster.create_topic(RESPONSE_TOPIC, 2, 1).unwrap();
    let text = answer_until_heard(&brokers, &answer_to(&request), &mut stream).await;
    check(&text, &["text/event-stream", "event: answer", "\"status\":\"OK\"", "Slightly late"]);
    assert_eq!(text.matches("event: ").count(), 1);
    server.stop.send(()).unwrap();
    server.serving.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_in_the_store_is_shown_without_kafka() {
    let server = start(NO_BROKER).await;
    let request = PredictionRequest {
        uuid: Uuid::from_u128(5),
        ..PredictionRequest::decode(
            br#"{"DepDelay":1,"Carrier":"UA","FlightDate":"2016-12-25","Dest":"IAH",
                "Origin":"EWR","UUID":"00000000-0000-0000-0000-000000000001"}"#,
        )
        .unwrap()
    };
    let mut document = serde_json::to_value(answer_to(&request)).unwrap();
    document["_id"] = json!(request.uuid);
    server.store.write_once(ANSWERS, &[document.clone()]).await.unwrap();
    // however its id is written
    let id = request.uuid;
    for spelling in [format!("urn:uuid:{id}"), format!("%7B{id}%7D"), id.simple().to_string()] {
        let path = format!("GET {ASK}/response/{}", spelling.to_uppercase());
        let found = json_of(&call(server.address, &path, "").await);
        assert_eq!((&found["status"], &found["id"]), (&json!("OK"), &json!(id)), "{spelling}");
    }

    let path = format!("GET {ASK}/response/{}", request.uuid);
    let state = json_of(&call(server.address, &path, "").await);
    assert_eq!(state["prediction"], document);
    let events = call(server.address, &format!("{path}/events"), "").await;
    check(&events, &["event: answer", "Slightly late"]);
    let page = format!("GET /flights/delays/predict_kafka?id={}", request.uuid);
    let page = call(server.address, &page, "").await;
    check(&page, &["200 OK", "data-card=\"result\"", "60.0 %", "abababababab</code>"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_kafka_does_not_acknowledge_is_not_accepted() {
    let server = start(NO_BROKER).await;
    let post = format!("POST {ASK}");
    let response = call(server.address, &post, GOOD).await;
    check(&response, &["503 Service Unavailable", "application/problem+json", "retry-after: 5"]);
    let problem = json_of(&response);
    assert_eq!((&problem["status"], &problem["type"]), (&json!(503), &json!("about:blank")));
    assert!(problem["detail"].as_str().unwrap().contains("did not acknowledge"), "{problem}");
    let failures = ["failures_total{of=\"kafka\"} 1", "failures_total{of=\"store\"} 0"];
    check(&call(server.address, "GET /metrics", "").await, &failures);
    let page = call(server.address, &format!("{post}\nAccept: text/html\r\n"), GOOD).await;
    check(&page, &["503", "role=\"alert\">Your question could not be sent", "value=\"ua\""]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_are_redirected_or_get_the_form_again() {
    let cluster = cluster();
    let server = start(&cluster.bootstrap_servers()).await;
    let post = format!("POST {ASK}\nAccept: text/html\r\n");
    let response = call(server.address, &post, GOOD).await;
    check(&response, &["303 See Other", "location: /flights/delays/predict_kafka?id="]);
    let bad = GOOD.replace("EWR", "%3Cscript%3E").replace("=15", "=abc");
    let response = call(server.address, &post, &bad).await;
    check(&response, &["422", "Origin must be", "is not a number", "&lt;script&gt;", "\"IAH\""]);
    let response = json_of(&call(server.address, &format!("POST {ASK}"), &bad).await);
    assert_eq!(response["status"], 422);
    assert_eq!(response["errors"].as_object().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_right_is_refused() {
    let cluster = cluster();
    let server = start(&cluster.bootstrap_servers()).await;
    let large = "x".repeat(17 * 1024);
    let form = "/flights/delays/predict_kafka";
    let post = format!("POST {ASK}");
    for (head, body, want) in [
        (format!("{post}\nSec-Fetch-Site: cross-site\r\n"), GOOD, "403 Forbidden"),
        (format!("{post}\nSec-Fetch-Site: same-site\r\n"), GOOD, "403 Forbidden"),
        (post.clone(), &large, "413 Payload Too Large"),
        (post, "DepDelay=1&DepDelay=2", "application/problem+json"),
        ("GET /nothing\nAccept: application/json\r\n".into(), "", "application/problem+json"),
        ("GET /airline/QQ\nAccept: application/json\r\n".into(), "", "\"status\":404"),
        ("GET /airline/QQ\nAccept: text/html\r\n".into(), "", "text/html"),
        ("PUT /airlines\nAccept: application/json\r\n".into(), "", "\"status\":405"),
        ("PUT /airlines\nAccept: application/json\r\n".into(), "", "allow: GET,HEAD"),
        ("GET /flights/search?page=1&page=2\nAccept: text/json\r\n".into(), "", "\"status\":400"),
        (format!("GET {ASK}/response/42"), "", "400 Bad Request"),
        (format!("GET {ASK}/response/42/events"), "", "400 Bad Request"),
        (format!("GET {form}?id=42"), "", "400 Bad Request"),
        ("GET /nothing".into(), "", "404 Not Found"),
        ("GET /static/nothing".into(), "", "404 Not Found"),
        ("GET /".into(), "", "Nothing is here yet"),
        ("GET /healthz".into(), "", "\r\n\r\nok"),
        (format!("GET {form}"), "", "form-action 'self'"),
        (format!("GET {form}"), "", "x-content-type-options: nosniff"),
        ("GET /static/predict.js".into(), "", "content-type: text/javascript"),
    ] {
        let response = call(server.address, &head, body).await;
        check(&response, &[want, "content-security-policy: default-src 'none'"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_form_offers_what_the_store_knows_and_pages_keep_their_assets() {
    let cluster = cluster();
    let server = start(&cluster.bootstrap_servers()).await;
    let airline = json!({ "_id": "UA", "Name": "United Air Lines" });
    server.store.upsert(events::AIRLINES, &[airline]).await.unwrap();
    let page = call(server.address, "GET /flights/delays/predict_kafka", "").await;
    check(&page, &["<option value=\"UA\">United Air Lines</option>", "cache-control: no-cache"]);
    let (_, rest) = page.split_once("href=\"/static/style.css?v=").unwrap();
    let (version, _) = rest.split_once('"').unwrap();
    let style = format!("GET /static/style.css?v={version}");
    check(&call(server.address, &style, "").await, &["immutable", "text/css"]);
    let old = call(server.address, "GET /static/style.css?v=old", "").await;
    check(&old, &["cache-control: no-cache"]);
}

/// An airline with its punctuality.
fn airline(code: &str, name: &str) -> Value {
    json!({
        "_id": code, "Name": name, "Airplanes": 2, "Routes": 3, "Flights": 100, "Cancelled": 1,
        "Arrived": 99, "OnTime": 66, "VeryLate": 11, "MeanDepDelay": 12.5, "MeanArrDelay": -3.25,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_wrote_is_shown_as_text_and_what_is_typed_is_only_looked_for() {
    let server = start(NO_BROKER).await;
    let hostile = airline("UA", "<script>alert(1)</script>");
    server.store.upsert(events::AIRLINES, &[hostile]).await.unwrap();
    let profile = json!({
        "_id": "UA", "Title": "<i>United</i>", "Summary": "</p><script>", "License": "CC BY-SA 4.0",
        "Page": "https://en.wikipedia.org/wiki/United_Airlines", "Logo": null, "Source": "x",
        "FetchedAt": "2026-01-02T00:00:00.000Z",
    });
    server.store.upsert(events::AIRLINE_PROFILES, &[profile]).await.unwrap();
    for path in ["/", "/airline/ua"] {
        let page = call(server.address, &format!("GET {path}"), "").await;
        check(&page, &["200 OK", "&lt;script&gt;", "66.7 %", "−3.2 min"]);
        assert_eq!(page.matches("<script").count(), 1, "only the page's own: {page}");
    }
    for (path, want) in [
        ("/airline/XX", "404 Not Found"),
        ("/airline/%7B%22$ne%22:%22%22%7D", "404 Not Found"),
        ("/airline/%FF%FE", "400 Bad Request"),
        ("/airplane/..%2F..%2Fetc%2Fpasswd", "404 Not Found"),
        ("/airplanes?Model=%7B%22$ne%22:%22%22%7D", "Nothing was found"),
        ("/airplanes?ManufacturerYear=old", "400 Bad Request"),
        ("/airplanes?page=-1&page=2", "400 Bad Request"),
        ("/flights/search?Origin=EWR&Carrier=%3Cscript%3E", "Airline: enter at most 8 letters"),
        ("/flights/search?Origin[$ne]=", "There is no field Origin[$ne] to search by"),
        ("/flights/search?%3Cscript%3E=1", "There is no field &lt;script&gt; to search by"),
        ("/flights/search?page=99999999999", "Nothing was found"),
        ("/flights/EWR/IAH/yesterday", "404 Not Found"),
        ("/on_time_performance?Carrier=UA", "404 Not Found"),
        ("/flights/delays/predict_batch/results/2013-02-30", "404 Not Found"),
        ("/flights/delays/predict_batch/results/2013-02-28", "Nothing was asked"),
    ] {
        let response = call(server.address, &format!("GET {path}"), "").await;
        check(&response, &[want, "content-security-policy", "text/html"]);
        assert_eq!(response.matches("<script").count(), 1, "{response}");
    }
    let long = format!("GET /flights/search?Origin={}", "x".repeat(5_000));
    check(&call(server.address, &long, "").await, &["414 URI Too Long"]);
    let other_site = format!("POST {ASK}\nOrigin: http://elsewhere.example\r\n");
    check(&call(server.address, &other_site, GOOD).await, &["403 Forbidden"]);
    let wrong = call(server.address, "DELETE /airlines", "").await;
    check(&wrong, &["405 Method Not Allowed", "allow: GET,HEAD", "text/html"]);
    check(&call(server.address, "GET /readyz", "").await, &["503", "Kafka does not answer"]);
    let example = call(server.address, "GET /api", "").await;
    check(&example, &["curl http://localhost/flights/delays/predict/classify_realtime/response"]);
    let process = ["process_resident_memory_bytes ", "process_open_fds ", "process_cpu_seconds"];
    check(&call(server.address, "GET /metrics", "").await, &process);
    let by_route = "requests_total{method=\"GET\",route=\"/airline/{carrier}\",status=\"404\"}";
    check(&call(server.address, "GET /metrics", "").await, &[by_route]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_is_sent_once_and_small() {
    let server = start(NO_BROKER).await;
    let airlines: Vec<Value> =
        (0..50).map(|i| airline(&format!("A{i}"), &format!("Airline {i}"))).collect();
    server.store.upsert(events::AIRLINES, &airlines).await.unwrap();
    let page = call(server.address, "GET /airlines", "").await;
    let tag = page.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
    let known = format!("GET /airlines\nIf-None-Match: {tag}\r\n");
    let again = call(server.address, &known, "").await;
    check(&again, &["304 Not Modified", tag]);
    assert!(again.ends_with("\r\n\r\n"), "{again}");
    let mut connection = open(server.address, "GET /airlines\nAccept-Encoding: gzip\r\n", "").await;
    let mut small = Vec::new();
    connection.read_to_end(&mut small).await.unwrap();
    assert!(String::from_utf8_lossy(&small).contains("content-encoding: gzip"));
    assert!(3 * small.len() < page.len(), "{} of {}", small.len(), page.len());

    // it is kept for a while, under its own address; what became of a question is not
    call(server.address, "GET /airlines?", "").await;
    server.store.upsert(events::AIRLINES, &[airline("A7", "Renamed")]).await.unwrap();
    assert!(!call(server.address, "GET /airlines?", "").await.contains("Renamed"));
    check(&call(server.address, "GET /airlines?&", "").await, &["Renamed"]);
    let id = Uuid::from_u128(6);
    let question = format!("GET /flights/delays/predict_kafka?id={id}");
    check(&call(server.address, &question, "").await, &["data-card=\"waiting\""]);
    let refused = json!({ "_id": id, "UUID": id, "status": "expired", "Reason": "Timestamp: old" });
    server.store.write_once(ANSWERS, &[refused]).await.unwrap();
    check(&call(server.address, &question, "").await, &["Timestamp: old"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_that_programs_are_told_of_is_there() {
    let server = start(NO_BROKER).await;
    let document = json_of(&call(server.address, "GET /openapi.json", "").await);
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 25, "{paths:?}");
    for (path, operations) in paths {
        let method = operations.as_object().unwrap().keys().next().unwrap().to_uppercase();
        let path = ["carrier", "tail", "code", "origin", "dest", "date", "day", "id"]
            .iter()
            .fold(path.clone(), |path, name| path.replace(&format!("{{{name}}}"), "UA"));
        let response = call(server.address, &format!("{method} {path}"), "").await;
        assert!(!response.contains("This page does not exist"), "{method} {path}\n{response}");
        assert!(!response.contains("405 Method"), "{method} {path}\n{response}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_watches_without_a_pause_sees_that_kafka_has_gone() {
    let cluster = cluster();
    let server = start(&cluster.bootstrap_servers()).await;
    let until = async |said: &str| {
        let said = async { while !call(server.address, "GET /readyz", "").await.contains(said) {} };
        tokio::time::timeout(PATIENCE, said).await.unwrap();
    };
    until("200 OK").await;
    check(&call(server.address, "GET /readyz", "").await, &["200 OK", "ready"]);
    drop(cluster);
    until("Kafka does not answer").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_too_much_is_told_so_in_their_own_way_and_watchers_are_not() {
    let server = start_with(NO_BROKER, 1).await;
    // at once: who takes a second for each is not refused
    let refused = async |question: &str| {
        let calls = (0..20).map(|_| call(server.address, question, ""));
        let replies = futures::future::join_all(calls).await;
        replies.into_iter().find(|reply| reply.contains("429")).expect("one is refused")
    };
    let program = format!("GET {ASK}/response/42");
    let (person, program) =
        tokio::join!(refused("GET /airlines\nAccept: text/html\r\n"), refused(&program));
    check(&person, &["429 Too Many Requests", "text/html"]);
    check(&program, &["429", "application/problem+json", "please wait"]);
    check(&call(server.address, "GET /healthz", "").await, &["200 OK"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_for_the_night_is_kept() {
    let server = start(NO_BROKER).await;
    let post = "POST /flights/delays/predict/classify";
    let asked = json_of(&call(server.address, post, GOOD).await);
    assert_eq!(asked["status"], "OK");
    let all = store::Query { limit: 10, ..store::Query::default() };
    let tasks = server.store.find(events::PREDICTION_TASKS, &all).await.unwrap();
    assert_eq!((tasks.len(), &tasks[0]["UUID"]), (1, &asked["id"]));
    let person = format!("{post}\nAccept: text/html\r\n");
    let response = call(server.address, &person, GOOD).await;
    check(&response, &["303 See Other", "location: /flights/delays/predict_batch/results/2"]);
    let path = response.lines().find_map(|line| line.strip_prefix("location: ")).unwrap();
    let page = call(server.address, &format!("GET {path}"), "").await;
    check(&page, &["2 questions left", "not yet", "EWR"]);
    let own = path.split_once("?id=").unwrap().1;
    assert!(tasks[0]["UUID"] != own, "the page begins with the own question");
    let bad = call(server.address, &person, &GOOD.replace("EWR", "%24ne")).await;
    check(&bad, &["422", "Predict overnight", "Origin must be"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_ends_open_streams() {
    let cluster = cluster();
    let server = start(&cluster.bootstrap_servers()).await;
    let head = format!("GET {ASK}/response/{}/events", Uuid::from_u128(9));
    let mut stream = open(server.address, &head, "").await;
    let mut status = String::new();
    stream.read_line(&mut status).await.unwrap();
    check(&status, &["200 OK"]);
    server.stop.send(()).unwrap();
    let mut rest = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut rest)).await.unwrap().unwrap();
    assert!(!rest.contains("event:"));
    tokio::time::timeout(PATIENCE, server.serving).await.unwrap().unwrap().unwrap();
}

/// The status of a response that begins with bytes as they are; none when the server closes.
async fn status_of(connection: &mut TcpStream, request: &str) -> Option<u16> {
    connection.write_all(request.as_bytes()).await.ok()?;
    let mut line = String::new();
    let mut connection = BufReader::new(connection);
    let reading = tokio::time::timeout(PATIENCE, connection.read_line(&mut line)).await.unwrap();
    reading.ok().and_then(|_| line.split(' ').nth(1)?.parse().ok())
}

/// A connection from another address of this machine.
async fn connect_from(source: &str, to: SocketAddr) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
    socket.connect(to).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_is_not_ours_another_protocol_and_large_heads_are_refused() {
    let server = start(NO_BROKER).await;
    let many = "X: y\r\n".repeat(200);
    let large = format!("X: {}\r\n", "y".repeat(64 * 1024));
    for (request, want) in [
        ("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned(), Some(421)),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(), Some(400)),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), Some(400)),
        ("GET / HTTP/1.0\r\n\r\n".to_owned(), Some(200)),
        // who watches a server asks by other names
        ("GET /healthz HTTP/1.1\r\nHost: web\r\n\r\n".to_owned(), Some(200)),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), None),
        (format!("GET / HTTP/1.1\r\nHost: localhost\r\n{many}\r\n"), Some(431)),
        (format!("GET / HTTP/1.1\r\nHost: localhost\r\n{large}\r\n"), Some(431)),
    ] {
        let mut connection = TcpStream::connect(server.address).await.unwrap();
        let shown = &request[..request.len().min(80)];
        assert_eq!(status_of(&mut connection, &request).await, want, "{shown:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_say_nothing_or_half_are_closed() {
    let server = start(NO_BROKER).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let mut half = TcpStream::connect(server.address).await.unwrap();
    half.write_all(b"GET / HTTP/1.1\r\nHost: loc").await.unwrap();
    for connection in [&mut silent, &mut half] {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, connection.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "it is open after {PATIENCE:?}");
    }
    // those of one client are bounded too; the others are closed at once
    let mut held = Vec::new();
    for _ in 0..300 {
        held.push(TcpStream::connect(server.address).await.unwrap());
    }
    let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(status_of(held.last_mut().unwrap(), request).await, None);
    assert_eq!(status_of(held.first_mut().unwrap(), request).await, Some(200));
    let mut other = connect_from("127.0.0.3", server.address).await;
    assert_eq!(status_of(&mut other, request).await, Some(200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_on_which_nothing_is_read_is_closed() {
    let server = start_with(NO_BROKER, 1_000_000).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut connection = socket.connect(server.address).await.unwrap();
    let requests = "GET /static/style.css HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
    // it takes what it can answer, then nothing, then it is gone
    for _ in 0..10_000 {
        let sent = tokio::time::timeout(PATIENCE * 2, connection.write_all(requests.as_bytes()));
        if sent.await.expect("it is held").is_err() {
            return;
        }
    }
    panic!("it answers for ever");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_has_its_share_of_streams_and_questions_and_leaves_the_others_theirs() {
    let server = start_at(NO_BROKER, 1_000_000, noon).await;
    let events = format!("GET {ASK}/response/{}/events", Uuid::from_u128(9));
    let first_line = async |head: &str| {
        let mut connection = open(server.address, head, "").await;
        let mut line = String::new();
        tokio::time::timeout(PATIENCE, connection.read_line(&mut line)).await.unwrap().unwrap();
        (line, connection)
    };
    let mut streams = Vec::new();
    for _ in 0..20 {
        let (line, stream) = first_line(&events).await;
        check(&line, &["200"]);
        streams.push(stream);
    }
    let refused = call(server.address, &events, "").await;
    check(&refused, &["429 Too Many Requests", "retry-after: "]);
    let proxied = |client: &str| {
        format!("{events} HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {client}\r\n\r\n")
    };
    // what it says of itself changes nothing; a proxy of ours is believed
    let mut liar = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(status_of(&mut liar, &proxied("198.51.100.7")).await, Some(429));
    let mut proxy = connect_from("127.0.0.2", server.address).await;
    assert_eq!(status_of(&mut proxy, &proxied("198.51.100.7")).await, Some(200));
    let mut proxy = connect_from("127.0.0.2", server.address).await;
    assert_eq!(status_of(&mut proxy, &proxied("127.0.0.1")).await, Some(429));
    drop(streams);

    // bodies that do not come hold nothing
    let mut held = Vec::new();
    for _ in 0..200 {
        let mut connection = TcpStream::connect(server.address).await.unwrap();
        let head = format!("POST {ASK} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n");
        connection.write_all(head.as_bytes()).await.unwrap();
        held.push(connection);
    }
    check(&call(server.address, "GET /airlines", "").await, &["200 OK"]);
    let mut text = String::new();
    let mut refused = BufReader::new(held.pop().unwrap());
    tokio::time::timeout(PATIENCE, refused.read_line(&mut text)).await.unwrap().unwrap();
    check(&text, &["408"]);

    // all on one day, whatever the clock of the machine says
    let nightly = "POST /flights/delays/predict/classify";
    let responses: Vec<String> = stream::iter(0..1_100)
        .map(|_| call(server.address, nightly, GOOD))
        .buffer_unordered(20)
        .collect()
        .await;
    let n_taken = responses.iter().filter(|response| response.contains("200 OK")).count();
    assert_eq!(n_taken, 1_000);
    let refused = responses.iter().find(|response| !response.contains("200 OK")).unwrap();
    check(refused, &["429 Too Many Requests", "retry-after: ", "for a night"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clients_of_the_original_system_go_on_working() {
    let cluster = cluster();
    let brokers = cluster.bootstrap_servers();
    let server = start(&brokers).await;
    let address = server.address;
    // its script parses what it gets although jQuery has parsed what is JSON
    let script = format!("POST {ASK}\nX-Requested-With: XMLHttpRequest\r\nAccept: */*\r\n");
    let asked = call(address, &script, GOOD).await;
    check(&asked, &["200 OK", "content-type: text/html", "{\"id\":\"", "\"status\":\"OK\""]);
    check(&call(address, &format!("POST {ASK}"), GOOD).await, &["content-type: application/json"]);
    // curl -F sends parts
    let part = |name: &str, value: &str| {
        format!("--xyz\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let fields = [
        ("DepDelay", "15"),
        ("Carrier", "AA"),
        ("FlightDate", "2016-12-25"),
        ("Origin", "ATL"),
        ("Dest", "SFO"),
        ("FlightNum", "1519"),
    ];
    let body: String = fields.iter().map(|(name, value)| part(name, value)).collect();
    let in_parts = async |body: &str| {
        let head = format!(
            "POST {ASK} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\
             Content-Type: multipart/form-data; boundary=xyz\r\n\r\n{body}",
            body.len()
        );
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection.write_all(head.as_bytes()).await.unwrap();
        let mut response = String::new();
        connection.read_to_string(&mut response).await.unwrap();
        response
    };
    check(&in_parts(&format!("{body}--xyz--\r\n")).await, &["200 OK", "\"status\":\"OK\""]);
    let twice = format!("{body}{}--xyz--\r\n", part("Origin", "JFK"));
    check(&in_parts(&twice).await, &["400 Bad Request", "no valid form"]);
    check(&in_parts(&body).await, &["400 Bad Request", "no valid form"]);

    let maker = json!({ "_id": "BOEING", "Airplanes": 7, "Share": 0.5 });
    server.store.upsert(events::MANUFACTURERS, &[maker]).await.unwrap();
    let makers = json_of(&call(address, "GET /airplanes/chart/manufacturers.json", "").await);
    assert_eq!(makers["data"][0]["Manufacturer"], "BOEING", "{makers}");
    for (path, want) in [
        ("/airlines/", "location: /airlines\r\n"),
        ("/airplanes/?TailNum=N1", "location: /airplanes?TailNum=N1\r\n"),
        ("/flights/search/", "308 Permanent Redirect"),
        ("//elsewhere.example/", "404 Not Found"),
        ("/nothing", "404 Not Found"),
        ("/flights/search?Colour=red", "There is no field Colour to search by; there are Origin,"),
        ("/airplanes?Owner=UNITED", "There is no field Owner to search by; there are TailNum,"),
        ("/airplanes?TailNum=N1&page=2&exact=1", "200 OK"),
    ] {
        check(&call(address, &format!("GET {path}"), "").await, &[want]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_form_shows_what_was_asked_and_says_whether_it_was() {
    let cluster = cluster();
    let server = start(&cluster.bootstrap_servers()).await;
    let post = format!("POST {ASK}\nAccept: text/html\r\n");
    let asked = call(server.address, &post, &GOOD.replace("EWR", "LGA")).await;
    let (_, rest) = asked.split_once("location: ").unwrap();
    let (page, _) = rest.split_once("\r\n").unwrap();
    check(page, &["?id=", "&Origin=LGA&Dest=IAH&Carrier=ua&FlightDate=2016-12-25&DepDelay=15"]);
    let waiting = call(server.address, &format!("GET {page}"), "").await;
    check(&waiting, &["Kafka has your question", "value=\"LGA\"", "&amp;Origin=LGA&amp;"]);
    let nobodys = format!("GET /flights/delays/predict_kafka?id={}", Uuid::from_u128(3));
    let nobodys = call(server.address, &nobodys, "").await;
    check(&nobodys, &["no answer to this question yet", "data-card=\"waiting\""]);
}
