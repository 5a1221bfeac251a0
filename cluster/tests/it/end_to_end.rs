//! The whole way through a real Kafka broker and a real mongod, with the programs as processes,
//! and the page in a real browser.

#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mongodb::bson::{Document, doc};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};

const REQUESTS: &str = "flight_delay_classification_request";
const ANSWERS: &str = "flight_delay_classification_response";
const DEAD_LETTERS: &str = "flight_delay_classification_request.dlq";
/// How long anything may take on a busy machine before the test says that it does not happen.
const DEADLINE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(50);

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// The directory that `tests/servers/install.sh` filled.
#[expect(clippy::disallowed_methods, reason = "a test is told where its servers are")]
fn servers() -> PathBuf {
    let directory = std::env::var_os("TARMAC_TEST_SERVERS")
        .map_or_else(|| repository().join("target/servers"), PathBuf::from);
    let installed = directory.join("mongod").exists() && directory.join("kafka/libs").exists();
    assert!(installed, "the test servers are not installed; run ./test.sh");
    directory
}

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    fn start(command: &mut Command) -> Self {
        command.env("OWNER_PID", std::process::id().to_string()).stdin(Stdio::null());
        Self(command.spawn().unwrap())
    }

    /// Sends SIGTERM and waits for a clean end.
    fn end_cleanly(mut self, what: &str) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let status = until(what, || self.0.try_wait().unwrap());
        assert!(status.success(), "{what} ended with {status}");
    }
}

fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(started.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
        std::thread::sleep(POLL);
    }
}

/// A port below the ephemeral range, so that no outgoing connection takes it meanwhile.
fn free_port() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 20_000 + (std::process::id() % 10_000) as u16;
    loop {
        let port = start + NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn submit_job(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_submit-job"));
    command.arg("--data").arg(data).current_dir(repository());
    command
}

/// Runs a command to its end; its standard output.
fn run(command: &mut Command) -> String {
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{command:?} ended with {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn http(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply
}

fn get(port: u16, path: &str) -> String {
    http(port, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
}

fn post(port: u16, path: &str, body: &str) -> String {
    http(
        port,
        &format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    )
}

fn json_of(reply: &str) -> Value {
    let body = reply.split("\r\n\r\n").nth(1).unwrap();
    serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {reply}"))
}

fn uuid(number: u32) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

fn request(number: u32, carrier: &str, origin: &str, dest: &str, delay: f64) -> Value {
    json!({
        "DepDelay": delay, "Carrier": carrier, "FlightDate": "2016-12-25", "Dest": dest,
        "FlightNum": "1519", "Origin": origin, "Distance": 2139.0, "DayOfYear": 360,
        "DayOfMonth": 25, "DayOfWeek": 6, "Timestamp": "2016-12-20T10:00:00.000Z",
        "UUID": uuid(number),
    })
}

/// The value and the headers of a message.
type Kept = (Vec<u8>, Vec<(String, String)>);

/// The servers and the programs of one test.
struct World {
    _kafka: Process,
    _mongod: Process,
    brokers: String,
    mongo_url: String,
    directory: tempfile::TempDir,
}

impl World {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let scripts = repository().join("tests/servers");
        let (kafka, controller, mongo) = (free_port(), free_port(), free_port());
        let kafka_process = Process::start(
            Command::new(scripts.join("kafka.sh"))
                .arg(servers().join("kafka/libs"))
                .arg(directory.path().join("kafka"))
                .args([kafka.to_string(), controller.to_string()])
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
        );
        let mongod_process = Process::start(
            Command::new(scripts.join("mongod.sh"))
                .arg(servers().join("mongod"))
                .arg(directory.path().join("mongo"))
                .arg(mongo.to_string())
                .stdout(Stdio::null()),
        );
        let brokers = format!("127.0.0.1:{kafka}");
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", &brokers).create().unwrap();
        until("Kafka answers", || consumer.fetch_metadata(None, Duration::from_secs(1)).ok());
        until("mongod answers", || TcpStream::connect(("127.0.0.1", mongo)).ok());
        Self {
            _kafka: kafka_process,
            _mongod: mongod_process,
            brokers,
            mongo_url: format!("mongodb://127.0.0.1:{mongo}"),
            directory,
        }
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn with_servers(&self, command: &str) -> Command {
        let mut job = submit_job(&self.data());
        job.args([command, "--kafka", &self.brokers, "--mongo", &self.mongo_url]);
        job
    }

    async fn documents(&self, filter: Document) -> Vec<Document> {
        use futures::TryStreamExt;
        let client = mongodb::Client::with_uri_str(&self.mongo_url).await.unwrap();
        let answers = client.database("agile_data_science").collection::<Document>(ANSWERS);
        answers.find(filter).await.unwrap().try_collect().await.unwrap()
    }

    /// Waits for the answer to a request.
    async fn answer(&self, number: u32) -> Document {
        let started = Instant::now();
        loop {
            if let Some(found) = self.documents(doc! { "_id": uuid(number) }).await.pop() {
                return found;
            }
            assert!(started.elapsed() < DEADLINE, "no answer to request {number}");
            tokio::time::sleep(POLL).await;
        }
    }

    async fn send(&self, value: &[u8]) {
        let producer: FutureProducer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("message.max.bytes", "8000000")
            .create()
            .unwrap();
        let record = FutureRecord::<[u8], [u8]>::to(REQUESTS).key(b"a key").payload(value);
        producer.send(record, DEADLINE).await.unwrap();
    }

    /// Reads `n` messages of a topic from its beginning: values, and headers as text.
    fn read(&self, topic: &str, n: usize) -> Vec<Kept> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("group.id", "the test")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .create()
            .unwrap();
        consumer.subscribe(&[topic]).unwrap();
        let mut messages = Vec::new();
        until("the messages of a topic", || {
            if let Some(Ok(message)) = consumer.poll(POLL) {
                let headers = message.headers().into_iter().flat_map(|h| h.iter());
                let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap()).into();
                let headers = headers.map(|h| (h.key.to_owned(), text(h.value))).collect();
                messages.push((message.payload().unwrap_or_default().to_vec(), headers));
            }
            (messages.len() >= n).then_some(())
        });
        messages
    }
}

/// Ingests the shipped flights, trains, and publishes to MongoDB.
fn learn(world: &World) {
    run(submit_job(&world.data()).args(["ingest", "data/nycflights13/flights.parquet"]));
    let report = run(submit_job(&world.data()).args(["train", "--json"]));
    let report: Value = serde_json::from_str(report.lines().last().unwrap()).unwrap();
    assert!(report["holdout_accuracy"].as_f64().unwrap() >= 0.527, "{report}");
    run(submit_job(&world.data()).args(["publish", "--mongo", &world.mongo_url]));
    let counted = run(submit_job(&world.data()).args([
        "sql",
        "-c",
        "SELECT count(*) AS n, count(DISTINCT origin) AS origins FROM flights",
    ]));
    assert!(counted.contains("336776") && counted.contains("| 3 "), "{counted}");
}

async fn good_requests_are_answered(world: &World) {
    for (number, carrier, origin, dest, delay, classes) in [
        (1, "AA", "ATL", "SFO", 290.0, 3..=3),
        (2, "AA", "ATL", "SFO", 5.0, 1..=2),
        (3, "UA", "EWR", "IAH", -20.0, 0..=1),
    ] {
        let request = request(number, carrier, origin, dest, delay);
        world.send(request.to_string().as_bytes()).await;
        let answer = world.answer(number).await;
        let class = answer.get_i64("Prediction").unwrap();
        assert!(classes.contains(&class), "{answer}");
        assert_eq!(answer.get_str("status").unwrap(), "ok");
        assert_eq!(answer.get_str("FlightDate").unwrap(), "2016-12-25");
        assert_eq!(answer.get_i64("DayOfWeek").unwrap(), 7, "a Sunday, whatever the message says");
        let shares: f64 =
            answer.get_array("Probabilities").unwrap().iter().map(|p| p.as_f64().unwrap()).sum();
        assert!((shares - 1.0).abs() < 1e-9);
    }
}

async fn an_unknown_airport_is_answered_and_flagged(world: &World) {
    world.send(request(4, "UA", "ZZZ", "IAH", 0.0).to_string().as_bytes()).await;
    let answer = world.answer(4).await;
    let unseen: Vec<_> =
        answer.get_array("Unseen").unwrap().iter().filter_map(|u| u.as_str()).collect();
    assert_eq!(unseen, ["Origin", "Route"]);
}

async fn bad_messages_are_kept_and_the_next_good_one_is_answered(world: &World) {
    let mut wrong_type = request(5, "UA", "EWR", "IAH", 0.0);
    wrong_type["DepDelay"] = json!("late");
    let mut no_uuid = request(6, "UA", "EWR", "IAH", 0.0);
    no_uuid.as_object_mut().unwrap().remove("UUID");
    let mut large = request(7, "UA", "EWR", "IAH", 0.0);
    large["Padding"] = json!("x".repeat(2_000_000));
    let bad: Vec<(Vec<u8>, &str)> = vec![
        (b"{\"DepDelay\": 5, ".to_vec(), "EOF while parsing"),
        (wrong_type.to_string().into_bytes(), "DepDelay: invalid type: string"),
        (large.to_string().into_bytes(), "exceeds the limit"),
        (no_uuid.to_string().into_bytes(), "missing field `UUID`"),
    ];
    for (value, _) in &bad {
        world.send(value).await;
    }
    world.send(request(8, "UA", "EWR", "IAH", 0.0).to_string().as_bytes()).await;
    assert_eq!(world.answer(8).await.get_str("status").unwrap(), "ok");
    let rejected = world.answer(5).await;
    assert_eq!(rejected.get_str("status").unwrap(), "rejected");
    assert!(rejected.get_str("Reason").unwrap().starts_with("DepDelay: invalid type"));
    for ((value, reason), (kept, headers)) in bad.iter().zip(world.read(DEAD_LETTERS, bad.len())) {
        assert!(kept == *value, "the bytes of a dead letter are unchanged");
        let header = |name: &str| {
            headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()).unwrap()
        };
        assert_eq!(header("__connect.errors.topic"), REQUESTS);
        assert_eq!(header("__connect.errors.partition"), "0");
        assert!(header("__connect.errors.offset").parse::<i64>().is_ok());
        assert!(header("__connect.errors.exception.message").contains(reason), "{headers:?}");
    }
}

fn the_web_server_asks_and_answers(port: u16) {
    let ask = "/flights/delays/predict/classify_realtime";
    let form = "DepDelay=290&Carrier=UA&FlightDate=2013-12-20&Origin=EWR&Dest=IAH&FlightNum=1545";
    let asked = json_of(&post(port, ask, form));
    assert_eq!(asked["status"], "OK");
    let id = asked["id"].as_str().unwrap();
    let answer = until("the web server's answer", || {
        let answer = json_of(&get(port, &format!("{ask}/response/{id}")));
        (answer["status"] != "WAIT").then_some(answer)
    });
    assert_eq!(answer["prediction"]["Prediction"], 3, "{answer}");
    assert_eq!(answer["prediction"]["Distance"], 1400.0, "looked up from the route");
    let refused =
        post(port, ask, "DepDelay=soon&Carrier=UA&FlightDate=2013-12-20&Origin=&Dest=IAH");
    assert!(refused.starts_with("HTTP/1.1 422"), "{refused}");
    assert!(json_of(&refused)["errors"]["DepDelay"].is_string());
}

fn the_page_works_in_a_browser(port: u16) {
    let screenshots = repository().join("target/screenshots");
    run(Command::new("node")
        .arg(repository().join("web/tests/page.mjs"))
        .arg(format!("http://127.0.0.1:{port}"))
        .arg(screenshots)
        .env("PLAYWRIGHT_MODULES", servers())
        .env("CHROMIUM", servers().join("chromium")));
}

#[tokio::test]
async fn flights_become_answers_through_real_servers() {
    let world = World::start();
    learn(&world);
    let mut stream = world.with_servers("stream");
    let stream = Process::start(stream.args(["--trigger", "interval:300ms"]));
    let port = free_port();
    let mut web = world.with_servers("web");
    let web = Process::start(web.args(["--listen", &format!("127.0.0.1:{port}")]));
    until("the topics are made", || topics_exist(&world.brokers).then_some(()));
    good_requests_are_answered(&world).await;
    an_unknown_airport_is_answered_and_flagged(&world).await;
    bad_messages_are_kept_and_the_next_good_one_is_answered(&world).await;
    until("the web server listens", || TcpStream::connect(("127.0.0.1", port)).ok());
    the_web_server_asks_and_answers(port);
    the_page_works_in_a_browser(port);
    stream.end_cleanly("the stream");
    web.end_cleanly("the web server");
}

#[tokio::test]
async fn a_bounded_stream_answers_what_is_there_once_and_ends() {
    let world = World::start();
    learn(&world);
    make_topic(&world.brokers).await;
    for number in 100..150 {
        world.send(request(number, "UA", "EWR", "IAH", 0.0).to_string().as_bytes()).await;
    }
    let mut bounded = world.with_servers("stream");
    run(bounded.args(["--trigger", "available-now", "--max-rows", "20"]));
    assert_eq!(world.documents(doc! {}).await.len(), 50);
    assert_eq!(world.read(ANSWERS, 50).len(), 50);
    // another group reads all again: what is answered stays as it is
    let before = world.documents(doc! { "_id": uuid(100) }).await;
    let mut again = world.with_servers("stream");
    run(again.args(["--trigger", "once", "--group", "another"]));
    assert_eq!(world.documents(doc! {}).await.len(), 50);
    assert_eq!(world.documents(doc! { "_id": uuid(100) }).await, before);
    // nothing is left for the first group, so it ends at once
    let mut nothing = world.with_servers("stream");
    run(nothing.args(["--trigger", "available-now"]));
}

/// An S3 server with a bucket named `lake`, and the environment of its clients.
fn start_s3() -> (Process, Vec<(&'static str, String)>) {
    let port = free_port();
    let server = Process::start(
        Command::new(repository().join("tests/servers/s3.sh"))
            .arg(servers().join("s3"))
            .arg(port.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    );
    until("the S3 server listens", || TcpStream::connect(("127.0.0.1", port)).ok());
    let put = "PUT /lake HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\
               Connection: close\r\n\r\n";
    assert!(http(port, put).starts_with("HTTP/1.1 200"));
    let environment = vec![
        ("AWS_ENDPOINT", format!("http://127.0.0.1:{port}")),
        ("AWS_ALLOW_HTTP", "true".into()),
        ("AWS_REGION", "us-east-1".into()),
        ("AWS_ACCESS_KEY_ID", "the-test".into()),
        ("AWS_SECRET_ACCESS_KEY", "the-secret".into()),
    ];
    (server, environment)
}

#[test]
fn a_data_root_on_an_object_store_holds_the_same_model() {
    let (_server, environment) = start_s3();
    let directory = tempfile::tempdir().unwrap();
    let trained = |root: &Path, seed: &str| -> Value {
        let flags = ["train", "--json", "--trees", "5", "--seed", seed];
        let report = run(submit_job(root).args(flags).envs(environment.clone()));
        serde_json::from_str(report.lines().last().unwrap()).unwrap()
    };
    let remote = Path::new("s3://lake/some/prefix");
    for root in [remote, directory.path()] {
        let flights = "data/nycflights13/flights.parquet";
        run(submit_job(root).args(["ingest", flights]).envs(environment.clone()));
    }
    let first = trained(remote, "1");
    assert_eq!(first["model"], trained(directory.path(), "1")["model"]);
    // the champion is replaced, and read back by the next job
    let second = trained(remote, "2");
    assert_ne!(first["model"], second["model"]);
    let ask = "SELECT predict_delay('champion', 45.0, NULL, 1, 1, 1, 'UA', 'EWR', 'IAH', 'EWR-IAH',
               NULL, NULL)['model_version'] AS version";
    let answer = run(submit_job(remote).args(["sql", "-c", ask]).envs(environment.clone()));
    assert!(answer.contains(second["model"].as_str().unwrap()), "{answer}");
    let wrong = submit_job(Path::new("s3://no-such-bucket/x"))
        .args(["train"])
        .envs(environment.clone())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&wrong.stderr);
    assert!(!wrong.status.success() && said.contains("no-such-bucket"), "{said}");
    assert!(!said.contains("the-secret"), "{said}");
}

fn topics_exist(brokers: &str) -> bool {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let metadata = consumer.fetch_metadata(None, DEADLINE).unwrap();
    let names: Vec<&str> = metadata.topics().iter().map(|topic| topic.name()).collect();
    [REQUESTS, ANSWERS, DEAD_LETTERS].iter().all(|topic| names.contains(topic))
}

async fn make_topic(brokers: &str) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let topic = NewTopic::new(REQUESTS, 3, TopicReplication::Fixed(1));
    admin.create_topics(&[topic], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
}

#[test]
fn the_demo_answers_with_nothing_else_running() {
    let directory = tempfile::tempdir().unwrap();
    for what in ["trained in", "nothing changed: using model"] {
        let output = submit_job(directory.path())
            .args(["demo", "--once", "--listen", "127.0.0.1:0"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.contains(what), "{said}");
        assert!(said.contains("Very late (30+ minutes late)   answered in"), "{said}");
    }
}

#[test]
fn what_is_missing_is_said_in_one_line() {
    let directory = tempfile::tempdir().unwrap();
    for (args, says) in [
        (&["train"][..], "there are no flights under"),
        (&["ingest", "nowhere.csv"], "nowhere.csv: there is no such file"),
        (&["train", "--trees", "0"], "--trees is 0"),
        (&["train", "--without", "colour"], "there is no feature \"colour\""),
        (&["stream", "--kafka", "127.0.0.1:1"], "there is no champion under"),
        (&["publish", "--mongo", "mongodb://u:secret@127.0.0.1:1"], "no MongoDB answers at"),
    ] {
        let output = submit_job(directory.path()).args(args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(says), "{args:?}: {said}");
        assert!(!said.contains("secret") && !said.contains("stack backtrace"), "{said}");
    }
}
