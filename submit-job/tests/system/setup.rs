//! What the tests start from: programs and servers as processes, on ports of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cluster::remote::ClusterSize;
use cluster::session;
use cluster::tls::Tls;
use datafusion::prelude::SessionContext;
use mongodb::bson::{Document, doc};
use mongodb::options::{ClientOptions, ReadConcern};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Headers, Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Value, json};

use crate::servers::{Kafka, MongoSet};

pub const REQUESTS: &str = "flight_delay_classification_request";
pub const ANSWERS: &str = "flight_delay_classification_response";
pub const REJECTED: &str = "flight_delay_classification_rejected";
pub const DEAD_LETTERS: &str = "flight_delay_classification_request.dlq";
/// How long anything may take on a busy machine before the test says that it does not happen.
pub const DEADLINE: Duration = Duration::from_secs(240);
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
    pub fn pid(&self) -> String {
        self.0.id().to_string()
    }

    pub fn start(command: &mut Command) -> Self {
        command.env("OWNER_PID", std::process::id().to_string()).stdin(Stdio::null());
        Self(command.spawn().unwrap())
    }

    /// Sends SIGTERM and waits for a clean end.
    pub fn end_cleanly(mut self, what: &str) {
        let pid = self.0.id().to_string();
        send_signal(&pid, "TERM");
        let status = until(what, || self.0.try_wait().unwrap());
        assert!(status.success(), "{what} ended with {status}");
    }
}

/// Sends a signal, such as `STOP`.
pub fn send_signal(pid: &str, signal: &str) {
    let sent = Command::new("kill").args([&format!("-{signal}"), pid]).status().unwrap();
    assert!(sent.success(), "cannot send {signal} to {pid}");
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

/// A stream as a process, with its log and its metrics.
pub struct Stream {
    pub process: Process,
    pub port: u16,
    log: PathBuf,
}

impl Stream {
    pub fn start(world: &World, name: &str, arguments: &[&str]) -> Self {
        let port = free_port();
        // one that ends writes on while the one that follows it starts
        let log = world.directory.path().join(format!("{name}-{port}.log"));
        let file = std::fs::File::create(&log).unwrap();
        let mut command = world.stream(arguments);
        command.args(["--listen", &format!("127.0.0.1:{port}")]).stderr(file);
        Self { process: Process::start(&mut command), port, log }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// The value of a meter, such as `lag{partition="0"}`, once it is shown.
    pub fn meter(&self, name: &str) -> Option<f64> {
        TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        let metrics = get(self.port, "/metrics");
        let start = format!("tarmac_stream_{name} ");
        let line = metrics.lines().find(|line| line.starts_with(&start))?;
        Some(line[start.len()..].parse().unwrap())
    }

    /// Waits until a meter shows what is wanted.
    pub fn wait_for(&self, name: &str, is_wanted: impl Fn(f64) -> bool) {
        until(name, || self.meter(name).filter(|value| is_wanted(*value)));
    }
}

/// The servers and the programs of one test.
/// What a document says beside the time at which it was written last.
pub fn undated(mut document: Document) -> Document {
    document.remove("WrittenAt");
    document
}

pub struct World {
    pub kafka: Kafka,
    pub mongo: MongoSet,
    pub brokers: String,
    pub mongo_url: String,
    producer: FutureProducer,
    pub directory: tempfile::TempDir,
}

impl World {
    /// A broker, and a replica set of one.
    pub async fn start() -> Self {
        Self::start_as(1, true).await
    }

    /// A broker, and a replica set of so many, or as many servers by themselves; without any, jobs
    /// use the embedded store.
    pub async fn start_as(n_mongods: usize, is_set: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let kafka = Kafka::start(&directory.path().join("kafka"), None);
        let mongo = MongoSet::start_as(&directory.path().join("mongo"), n_mongods, None, is_set);
        kafka.wait(&[]);
        let mongo_url = match (n_mongods, is_set) {
            (0, _) => String::new(),
            (_, true) => {
                mongo.initiate().await;
                mongo.url()
            }
            (_, false) => mongo.direct_url(0),
        };
        let brokers = kafka.address();
        let producer = ClientConfig::new()
            .set("bootstrap.servers", &brokers)
            .set("message.max.bytes", "8000000")
            .create()
            .unwrap();
        Self { kafka, mongo, brokers, mongo_url, producer, directory }
    }

    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Trains two models on a few flights, in a moment; the first is the champion.
    pub fn learn_little(&self) -> [String; 2] {
        let fixture = "data/fixtures/bts_new.csv";
        run(submit_job(&self.data()).args(["ingest", "--rejects-max", "0.5", fixture]));
        let small = ["--preset", "original", "--trees", "3", "--seed"];
        let train = |seed| trained(&mut submit_job(&self.data()), &[&small[..], &[seed]].concat());
        let models = ["1", "2"].map(|seed| train(seed)["model"].as_str().unwrap().to_owned());
        run(submit_job(&self.data()).args(["models", "promote", &models[0]]));
        models
    }

    /// A topic of requests with so many partitions.
    pub async fn make_topic(&self, n_partitions: i32) {
        self.make_topic_with(REQUESTS, n_partitions, &[]).await;
    }

    /// A topic with so many partitions and these settings.
    pub async fn make_topic_with(&self, name: &str, n_partitions: i32, with: &[(&str, &str)]) {
        let mut topic = NewTopic::new(name, n_partitions, TopicReplication::Fixed(1));
        for (key, value) in with {
            topic = topic.set(key, value);
        }
        let started = Instant::now();
        loop {
            let made = self.admin().create_topics([&topic], &AdminOptions::new()).await.unwrap();
            match &made[0] {
                Ok(_) => return,
                // one that was just deleted is there for a moment
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, error)) => panic!("{name}: {error}"),
            }
            assert!(started.elapsed() < DEADLINE, "{name} is not made");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Deletes a topic; returns when the broker does not know it any more.
    pub async fn delete_topic(&self, name: &str) {
        let admin = self.admin();
        let deleted = admin.delete_topics(&[name], &AdminOptions::new()).await.unwrap();
        assert_eq!(deleted, [Ok(name.to_owned())]);
        until("a topic is gone", || {
            let all = admin.inner().fetch_metadata(None, DEADLINE).unwrap();
            all.topics().iter().all(|topic| topic.name() != name).then_some(())
        });
    }

    pub fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", &self.brokers).create().unwrap()
    }

    /// Starts a bounded stream and lets it work off what is there; its log.
    pub fn catch_up(&self, arguments: &[&str]) -> String {
        let mut stream = self.stream(&["--trigger", "available-now"]);
        let output = stream.args(arguments).output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "the stream ended with {}: {log}", output.status);
        log
    }

    /// Sends good requests of these numbers.
    pub async fn ask(&self, numbers: std::ops::Range<u32>) {
        let sends = numbers.map(async |number| {
            let delay = f64::from(number % 60);
            self.send(request(number, "UA", "EWR", "IAH", delay).to_string().as_bytes()).await;
        });
        futures::future::join_all(sends).await;
    }

    /// Sends so many good requests to two partitions in turn.
    pub async fn ask_evenly(&self, n: u32) {
        for number in 0..n {
            let request = request(number, "UA", "EWR", "IAH", 0.0).to_string();
            let record = FutureRecord::<(), _>::to(REQUESTS).payload(&request);
            let record = record.partition((number % 2) as i32);
            self.producer.send(record, DEADLINE).await.unwrap();
        }
    }

    /// The answers by UUID.
    pub async fn answers(&self) -> BTreeMap<String, Document> {
        let documents = self.documents(doc! {}).await.into_iter();
        documents.map(|document| (document.get_str("_id").unwrap().to_owned(), document)).collect()
    }

    /// The command of a stream that the group misses soon when it dies.
    pub fn stream(&self, arguments: &[&str]) -> Command {
        let mut stream = self.with_servers("stream");
        stream.args(["--kafka-conf", "session.timeout.ms=6000"]);
        stream.args(["--kafka-conf", "heartbeat.interval.ms=500"]).args(arguments);
        stream
    }

    pub fn with_servers(&self, command: &str) -> Command {
        let mut job = submit_job(&self.data());
        job.args([command, "--kafka", &self.brokers]);
        if !self.mongo_url.is_empty() {
            job.args(["--mongo", &self.mongo_url]);
        }
        job
    }

    pub async fn collection(&self, name: &str) -> mongodb::Collection<Document> {
        let mut options = ClientOptions::parse(&self.mongo_url).await.unwrap();
        // what only the primary has is not yet written
        options.read_concern = Some(ReadConcern::majority());
        let client = mongodb::Client::with_options(options).unwrap();
        client.database("agile_data_science").collection(name)
    }

    pub async fn documents(&self, filter: Document) -> Vec<Document> {
        self.documents_of(ANSWERS, filter).await
    }

    pub async fn documents_of(&self, collection: &str, filter: Document) -> Vec<Document> {
        use futures::TryStreamExt;
        let found = self.collection(collection).await.find(filter).await.unwrap();
        let found: Vec<Document> = found.try_collect().await.unwrap();
        found.into_iter().map(undated).collect()
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

    /// Sends lines with Apache's own producer, as its options say.
    pub fn produce(&self, topic: &str, options: &[&str], lines: &[String]) {
        let mut producer = Command::new("java")
            .args(["-cp", &format!("{}/*", servers().join("kafka/libs").display())])
            .args(["-Xmx256m", "-XX:TieredStopAtLevel=1", "org.apache.kafka.tools.ConsoleProducer"])
            .args(["--bootstrap-server", &self.brokers, "--topic", topic])
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        producer.stdin.take().unwrap().write_all((lines.join("\n") + "\n").as_bytes()).unwrap();
        let output = producer.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("ERROR"), "{options:?}: {said}");
    }

    /// Sends a message; returns when it is acknowledged.
    pub async fn send(&self, value: &[u8]) {
        self.send_with(value, OwnedHeaders::new()).await;
    }

    /// Sends a message with headers; returns when it is acknowledged.
    pub async fn send_with(&self, value: &[u8], headers: OwnedHeaders) {
        let record = FutureRecord::<[u8], [u8]>::to(REQUESTS).key(b"a key").payload(value);
        self.producer.send(record.headers(headers), DEADLINE).await.unwrap();
    }

    /// Reads a topic as soon as it has `n` messages: values, and headers as text.
    pub fn read(&self, topic: &str, n: usize) -> Vec<Kept> {
        until("the messages of a topic", || Some(self.read_all(topic)).filter(|all| all.len() >= n))
    }

    /// Number of partitions of a topic.
    pub fn n_partitions(&self, topic: &str) -> usize {
        let admin = self.admin();
        until("a topic tells its partitions", || {
            let metadata = admin.inner().fetch_metadata(Some(topic), DEADLINE).ok()?;
            Some(metadata.topics()[0].partitions().len()).filter(|n| *n > 0)
        })
    }

    /// For each partition of a topic that holds messages, the offset after the last of them.
    pub fn ends_of_messages(&self, topic: &str) -> BTreeMap<i32, i64> {
        let messages = self.read_messages(topic).into_iter();
        messages.map(|message| (message.partition(), message.offset() + 1)).collect()
    }

    /// Reads a topic from its beginning to where it ends now; nothing when there is none.
    pub fn read_all(&self, topic: &str) -> Vec<Kept> {
        let messages = self.read_all_with_keys(topic).into_iter();
        messages.map(|(_, kept)| kept).collect()
    }

    /// The same with the keys before the values.
    pub fn read_all_with_keys(&self, topic: &str) -> Vec<(Vec<u8>, Kept)> {
        let messages = self.read_messages(topic).into_iter().map(|message| {
            let headers = message.headers().into_iter().flat_map(|h| h.iter());
            let text =
                |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into();
            let headers = headers.map(|h| (h.key.to_owned(), text(h.value))).collect();
            let bytes = |bytes: Option<&[u8]>| bytes.unwrap_or_default().to_vec();
            (bytes(message.key()), (bytes(message.payload()), headers))
        });
        messages.collect()
    }

    fn read_messages(&self, topic: &str) -> Vec<OwnedMessage> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("group.id", "the test")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .create()
            .unwrap();
        let metadata = consumer.fetch_metadata(Some(topic), DEADLINE).unwrap();
        let mut list = TopicPartitionList::new();
        let mut unread = BTreeSet::new();
        for partition in metadata.topics()[0].partitions() {
            let (begin, end) = consumer.fetch_watermarks(topic, partition.id(), DEADLINE).unwrap();
            if begin < end {
                list.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
                unread.insert(partition.id());
            }
        }
        consumer.assign(&list).unwrap();
        let mut messages = Vec::new();
        while !unread.is_empty() {
            match consumer.poll(DEADLINE).expect("a message before the deadline") {
                Ok(message) => messages.push(message.detach()),
                // what is no message may stand at the end
                Err(KafkaError::PartitionEOF(partition)) => _ = unread.remove(&partition),
                Err(error) => panic!("{topic}: {error}"),
            }
        }
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
        let mut command = Command::new(env!("CARGO_BIN_EXE_submit-job"));
        self.configure(&mut command);
        Process::start(command.args(arguments))
    }

    /// Gives a command the arguments of an executor of this cluster.
    pub fn configure(&self, command: &mut Command) {
        let port = free_port();
        let log = self.directory.path().join(format!("executor-{port}.log"));
        command
            .args(["executor", "--scheduler", &format!("127.0.0.1:{}", self.port)])
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(["--cores", "1"])
            // a flag takes precedence; with certificates these two are not used
            .env("TARMAC_EXECUTOR_TASK_PORT", free_port().to_string())
            .env("TARMAC_HEARTBEAT", "1")
            .env("TARMAC_EXECUTOR_MEMORY", "256")
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

    /// A session of this process whose queries run on this cluster.
    pub async fn session(&self, job: &str, n_cores: usize) -> SessionContext {
        let url = format!("df://127.0.0.1:{}", self.port);
        let size = ClusterSize { n_cores, n_slots: 1 };
        session::on_cluster(&url, &Tls::default(), job, size, 256 << 20, &[], &[]).await.unwrap()
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
        Command::new(env!("CARGO_BIN_EXE_submit-job"))
            .args(["scheduler", "--listen", &format!("127.0.0.1:{port}")])
            .args(["--executor-timeout-seconds", "15", "--no-executors-grace-seconds", "15"])
            .args(["--client-timeout-seconds", "15", "--drain-seconds", "5"])
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
