//! What the tests start from: programs and servers as processes, on ports of their own.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mongodb::bson::{Document, doc};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};

pub const REQUESTS: &str = "flight_delay_classification_request";
pub const ANSWERS: &str = "flight_delay_classification_response";
pub const DEAD_LETTERS: &str = "flight_delay_classification_request.dlq";
/// How long anything may take on a busy machine before the test says that it does not happen.
pub const DEADLINE: Duration = Duration::from_secs(90);
pub const POLL: Duration = Duration::from_millis(50);

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// The directory that `tests/servers/install.sh` filled.
#[expect(clippy::disallowed_methods, reason = "a test is told where its servers are")]
pub fn servers() -> PathBuf {
    let directory = std::env::var_os("TARMAC_TEST_SERVERS")
        .map_or_else(|| repository().join("target/servers"), PathBuf::from);
    let installed = directory.join("mongod").exists() && directory.join("kafka/libs").exists();
    assert!(installed, "the test servers are not installed; run ./test.sh");
    directory
}

/// A process that ends with the test.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    pub fn start(command: &mut Command) -> Self {
        command.env("OWNER_PID", std::process::id().to_string()).stdin(Stdio::null());
        Self(command.spawn().unwrap())
    }

    /// Sends SIGTERM and waits for a clean end.
    pub fn end_cleanly(mut self, what: &str) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let status = until(what, || self.0.try_wait().unwrap());
        assert!(status.success(), "{what} ended with {status}");
    }
}

pub fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
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
pub fn free_port() -> u16 {
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

pub fn submit_job(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_submit-job"));
    command.arg("--data").arg(data).current_dir(repository());
    command
}

/// Runs a command to its end; its standard output.
pub fn run(command: &mut Command) -> String {
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{command:?} ended with {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

pub fn http(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply
}

pub fn get(port: u16, path: &str) -> String {
    http(port, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
}

pub fn post(port: u16, path: &str, body: &str) -> String {
    http(
        port,
        &format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    )
}

pub fn json_of(reply: &str) -> Value {
    let body = reply.split("\r\n\r\n").nth(1).unwrap();
    serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {reply}"))
}

pub fn uuid(number: u32) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

pub fn request(number: u32, carrier: &str, origin: &str, dest: &str, delay: f64) -> Value {
    json!({
        "DepDelay": delay, "Carrier": carrier, "FlightDate": "2016-12-25", "Dest": dest,
        "FlightNum": "1519", "Origin": origin, "Distance": 2139.0, "DayOfYear": 360,
        "DayOfMonth": 25, "DayOfWeek": 6, "Timestamp": "2016-12-20T10:00:00.000Z",
        "UUID": uuid(number),
    })
}

/// The value and the headers of a message.
pub type Kept = (Vec<u8>, Vec<(String, String)>);

/// The servers and the programs of one test.
pub struct World {
    _kafka: Process,
    _mongod: Process,
    pub brokers: String,
    pub mongo_url: String,
    pub directory: tempfile::TempDir,
}

impl World {
    pub fn start() -> Self {
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

    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub fn with_servers(&self, command: &str) -> Command {
        let mut job = submit_job(&self.data());
        job.args([command, "--kafka", &self.brokers, "--mongo", &self.mongo_url]);
        job
    }

    pub async fn documents(&self, filter: Document) -> Vec<Document> {
        use futures::TryStreamExt;
        let client = mongodb::Client::with_uri_str(&self.mongo_url).await.unwrap();
        let answers = client.database("agile_data_science").collection::<Document>(ANSWERS);
        answers.find(filter).await.unwrap().try_collect().await.unwrap()
    }

    /// Waits for the answer to a request.
    pub async fn answer(&self, number: u32) -> Document {
        let started = Instant::now();
        loop {
            if let Some(found) = self.documents(doc! { "_id": uuid(number) }).await.pop() {
                return found;
            }
            assert!(started.elapsed() < DEADLINE, "no answer to request {number}");
            tokio::time::sleep(POLL).await;
        }
    }

    pub async fn send(&self, value: &[u8]) {
        let producer: FutureProducer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("message.max.bytes", "8000000")
            .create()
            .unwrap();
        let record = FutureRecord::<[u8], [u8]>::to(REQUESTS).key(b"a key").payload(value);
        producer.send(record, DEADLINE).await.unwrap();
    }

    /// Reads `n` messages of a topic from its beginning: values, and headers as text.
    pub fn read(&self, topic: &str, n: usize) -> Vec<Kept> {
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

/// An S3 server with a bucket named `lake`, and the environment of its clients.
pub fn start_s3() -> (Process, Vec<(&'static str, String)>) {
    start_s3_with(&[])
}

/// The same, with variables for the server.
pub fn start_s3_with(variables: &[(&str, &str)]) -> (Process, Vec<(&'static str, String)>) {
    let port = free_port();
    let server = Process::start(
        Command::new(repository().join("tests/servers/s3.sh"))
            .arg(servers().join("s3"))
            .arg(port.to_string())
            .envs(variables.iter().copied())
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

/// A scheduler and executors as processes, with short time-outs; they end with the test.
pub struct Cluster {
    pub scheduler: Process,
    pub executors: Vec<Process>,
    pub port: u16,
    pub directory: tempfile::TempDir,
    environment: Vec<(&'static str, String)>,
}

impl Cluster {
    pub fn start(n_executors: usize, environment: &[(&'static str, String)]) -> Self {
        let cluster = Self::start_with_tls(n_executors, environment);
        cluster.wait_for_executors(n_executors);
        cluster
    }

    /// Does not wait until it is ready: the REST interface is for those with a certificate.
    pub fn start_with_tls(n_executors: usize, environment: &[(&'static str, String)]) -> Self {
        let port = free_port();
        let directory = tempfile::tempdir().unwrap();
        let scheduler = start_scheduler(port, directory.path(), environment);
        let environment = environment.to_vec();
        let mut cluster = Self { scheduler, executors: Vec::new(), port, directory, environment };
        for _ in 0..n_executors {
            let executor = cluster.start_executor(&[]);
            cluster.executors.push(executor);
        }
        cluster
    }

    /// An executor with a core, and more arguments.
    pub fn start_executor(&self, arguments: &[&str]) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_executor"));
        self.configure(&mut command);
        Process::start(command.args(arguments))
    }

    /// Gives a command the arguments of an executor of this cluster.
    pub fn configure(&self, command: &mut Command) {
        let port = free_port();
        let log = self.directory.path().join(format!("executor-{port}.log"));
        command
            .args(["--scheduler", &format!("127.0.0.1:{}", self.port)])
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(["--task-port", &free_port().to_string()])
            .args(["--cores", "1", "--heartbeat-seconds", "1", "--executor-memory", "256"])
            .args([Path::new("--work"), &self.directory.path().join("work")])
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(log).unwrap());
    }

    pub fn wait_for_executors(&self, n: usize) {
        until("the executors are registered", || {
            TcpStream::connect(("127.0.0.1", self.port)).ok()?;
            let executors = json_of(&get(self.port, "/api/executors"));
            (executors.as_array()?.len() == n).then_some(())
        });
    }

    /// Starts the scheduler again, on the same port.
    pub fn restart_scheduler(&mut self) {
        self.scheduler = start_scheduler(self.port, self.directory.path(), &self.environment);
    }

    /// `submit-job` on this cluster.
    pub fn job(&self, data: &Path) -> Command {
        let mut command = submit_job(data);
        command
            .args(["--master", &format!("df://127.0.0.1:{}", self.port)])
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Number of queries that wait or run.
    pub fn n_running(&self) -> usize {
        let jobs = json_of(&get(self.port, "/api/jobs"));
        let is_running =
            |job: &&Value| matches!(job["status"].as_str(), Some("Running" | "Queued"));
        jobs.as_array().unwrap().iter().filter(is_running).count()
    }

    /// What the executors and the scheduler have logged.
    pub fn logs(&self) -> String {
        let entries = std::fs::read_dir(self.directory.path()).unwrap();
        let logs = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
        logs.map(|path| std::fs::read_to_string(path).unwrap()).collect()
    }
}

fn start_scheduler(port: u16, logs: &Path, environment: &[(&'static str, String)]) -> Process {
    let log = std::fs::File::options().create(true).append(true).open(logs.join("scheduler.log"));
    Process::start(
        Command::new(env!("CARGO_BIN_EXE_scheduler"))
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(["--executor-timeout-seconds", "5", "--no-executors-grace-seconds", "5"])
            .args(["--client-timeout-seconds", "5", "--drain-seconds", "5"])
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::null())
            .stderr(log.unwrap()),
    )
}

/// The JSON that `train --json` prints last.
pub fn trained(command: &mut Command, flags: &[&str]) -> Value {
    let report = run(command.args(["train", "--json"]).args(flags));
    serde_json::from_str(report.lines().last().unwrap()).unwrap()
}

/// The id of the latest job of a data root.
pub fn latest_job(data: &Path) -> String {
    let listed = run(submit_job(data).arg("--list"));
    listed.lines().nth(1).unwrap().split_whitespace().next().unwrap().to_owned()
}
