//! A real Kafka broker and real MongoDB servers, as processes that may be killed and come back on
//! the same ports with what they had.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mongodb::bson::{Document, doc};
use mongodb::{Client, Database};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::setup::{DEADLINE, POLL, Process, free_port, repository, servers, until};

/// Silence after which the members of a set elect another primary.
const ELECTION_MS: i32 = 2_000;

/// A broker. With `tls`, a directory with certificates, clients come over TLS as a user.
pub struct Kafka {
    pub process: Process,
    directory: PathBuf,
    ports: [u16; 2],
    tls: Option<PathBuf>,
}

impl Kafka {
    /// One that tells its clients to go to `advertised`. Does not wait until it answers.
    pub fn start_advertised(directory: &Path, advertised: &str) -> Self {
        let ports = [free_port(), free_port()];
        let mut command = Self::command(directory, ports, None);
        let process = Process::start(command.env("ADVERTISED", advertised));
        Self { process, directory: directory.to_owned(), ports, tls: None }
    }

    /// Does not wait until it answers.
    pub fn start(directory: &Path, tls: Option<&Path>) -> Self {
        let (directory, tls) = (directory.to_owned(), tls.map(Path::to_owned));
        let ports = [free_port(), free_port()];
        let process = Self::run(&directory, ports, tls.as_deref());
        Self { process, directory, ports, tls }
    }

    fn run(directory: &Path, ports: [u16; 2], tls: Option<&Path>) -> Process {
        Process::start(&mut Self::command(directory, ports, tls))
    }

    fn command(directory: &Path, ports: [u16; 2], tls: Option<&Path>) -> Command {
        let mut command = Command::new(repository().join("tests/servers/kafka.sh"));
        command
            .arg(servers().join("kafka/libs"))
            .arg(directory)
            .args(ports.map(|port| port.to_string()))
            .args(tls)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[0])
    }

    /// Waits until it answers to a client with these properties.
    pub fn wait(&self, properties: &[(&str, &str)]) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.address());
        for (name, value) in properties {
            config.set(*name, *value);
        }
        let consumer: BaseConsumer = config.create().unwrap();
        until("Kafka answers", || consumer.fetch_metadata(None, Duration::from_secs(1)).ok());
    }

    /// `kill -9`, then the same broker again.
    pub fn crash(&mut self) {
        self.process.0.kill().unwrap();
        self.process.0.wait().unwrap();
        self.process = Self::run(&self.directory, self.ports, self.tls.as_deref());
    }
}

/// The members of a replica set. With `tls`, a directory with certificates, clients come over TLS
/// as a user.
pub struct MongoSet {
    pub processes: Vec<Process>,
    ports: Vec<u16>,
    directory: PathBuf,
    tls: Option<PathBuf>,
    /// Whether they start as members of a set; else each is a server by itself.
    pub is_set: bool,
}

impl MongoSet {
    /// Does not wait until they answer.
    pub fn start(directory: &Path, n_members: usize, tls: Option<&Path>) -> Self {
        Self::start_as(directory, n_members, tls, true)
    }

    /// The same, as members of a set or as servers by themselves.
    pub fn start_as(directory: &Path, n_members: usize, tls: Option<&Path>, is_set: bool) -> Self {
        let ports: Vec<u16> = (0..n_members).map(|_| free_port()).collect();
        let (directory, tls) = (directory.to_owned(), tls.map(Path::to_owned));
        let mut set = Self { processes: Vec::new(), ports, directory, tls, is_set };
        set.restart();
        set
    }

    fn run(&self, member: usize) -> Process {
        let mut command = Command::new(repository().join("tests/servers/mongod.sh"));
        let directory = self.directory.join(member.to_string());
        command
            .arg(servers().join("mongod"))
            .arg(directory)
            .arg(self.ports[member].to_string())
            .args(self.is_set.then_some("replset"))
            .args(&self.tls)
            .stdout(Stdio::null());
        Process::start(&mut command)
    }

    pub fn url(&self) -> String {
        let hosts: Vec<_> = self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        format!("mongodb://{}/?replicaSet=rs0", hosts.join(","))
    }

    /// The URL of one member by itself.
    pub fn direct_url(&self, member: usize) -> String {
        format!("mongodb://127.0.0.1:{}/?directConnection=true", self.ports[member])
    }

    /// Waits until they answer, makes them a set and waits for its primary.
    pub async fn initiate(&self) {
        for port in &self.ports {
            until("mongod answers", || TcpStream::connect(("127.0.0.1", *port)).ok());
        }
        let members = self.ports.iter().zip(0..);
        let configured: Vec<Document> = members
            .map(|(port, i)| doc! { "_id": i, "host": format!("127.0.0.1:{port}") })
            .collect();
        let settings = doc! { "electionTimeoutMillis": ELECTION_MS };
        let set = doc! { "_id": "rs0", "members": configured, "settings": settings };
        let mut members = Vec::new();
        for member in 0..self.ports.len() {
            members.push(self.admin(member).await);
        }
        members[0].run_command(doc! { "replSetInitiate": set }).await.unwrap();
        let started = Instant::now();
        // a member may be known as the primary before it takes writes
        let is_primary = async |member: &Database| {
            let hello = member.run_command(doc! { "hello": 1 }).await.unwrap();
            hello.get_bool("isWritablePrimary").unwrap_or_default()
        };
        while !futures::future::join_all(members.iter().map(is_primary)).await.contains(&true) {
            assert!(started.elapsed() < DEADLINE, "no member becomes primary");
            tokio::time::sleep(POLL).await;
        }
    }

    /// The admin database of one member.
    pub async fn admin(&self, member: usize) -> Database {
        let mut url = self.direct_url(member);
        if let Some(tls) = &self.tls {
            url += &tls_options(tls);
        }
        Client::with_uri_str(url).await.unwrap().database("admin")
    }

    /// `kill -9`, then the same server again.
    pub fn crash(&mut self, member: usize) {
        let process = &mut self.processes[member].0;
        process.kill().unwrap();
        process.wait().unwrap();
        self.processes[member] = self.run(member);
    }

    /// The servers again, after `processes` was cleared.
    pub fn restart(&mut self) {
        self.processes = (0..self.ports.len()).map(|member| self.run(member)).collect();
    }
}

/// What a MongoDB URL says so that the client trusts these certificates.
pub fn tls_options(tls: &Path) -> String {
    format!("&tls=true&tlsCAFile={}", tls.join("ca.pem").display())
}
