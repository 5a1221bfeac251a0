//! What `bench/stream.sh` measures of a stream with: fills the topic, drains it, does nothing but
//! the writes, and asks at a set rate.
//!
//! `stream KAFKA MONGO initiate | fill N [PARTITIONS] | drain SUBMIT_JOB DATA N JOBS MONGOD_PID |
//! bare MONGOD_PID | ask RATE SECONDS | starve PID MONGOD_PID SECONDS`

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark for people")]
#![expect(clippy::disallowed_methods, reason = "it reads its arguments and the clock")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use events::{ANSWERS, DATABASE, PredictionRequest, REQUEST_TOPIC};
use futures::{StreamExt, TryStreamExt};
use mongodb::bson::{Document, RawArrayBuf, RawDocumentBuf, doc, rawdoc};
use mongodb::{Client, Database};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{FutureProducer, FutureRecord};
use tokio::process::{Child, Command};

const PARTITIONS: i32 = 4;
const PATIENCE: Duration = Duration::from_secs(600);
/// Documents of a command: as many as the stream writes in one.
const DOCUMENTS_PER_COMMAND: usize = 1_000;
/// Documents that the bare loop holds; they are read before the clock starts.
const DOCUMENTS_HELD: usize = 50_000;

#[tokio::main]
async fn main() {
    // cargo adds one
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [kafka, mongo, command @ ..] = &arguments[..] else {
        println!("see bench/stream.sh");
        return;
    };
    let database = async || Client::with_uri_str(mongo).await.unwrap().database(DATABASE);
    match command {
        ["initiate"] => initiate(mongo).await,
        ["fill", n] => fill(kafka, n.parse().unwrap(), PARTITIONS).await,
        ["fill", n, partitions] => {
            fill(kafka, n.parse().unwrap(), partitions.parse().unwrap()).await;
        }
        ["drain", submit_job, data, n, jobs, mongod] => {
            let servers = (*kafka, *mongo, *mongod);
            drain(servers, submit_job, data, n.parse().unwrap(), jobs.parse().unwrap()).await;
        }
        ["bare", mongod] => bare(&database().await, mongod).await,
        ["ask", rate, seconds] => {
            let (rate, seconds) = (rate.parse().unwrap(), seconds.parse().unwrap());
            ask(kafka, &database().await, rate, seconds).await;
        }
        ["starve", stream, mongod, seconds] => {
            let seconds: u64 = seconds.parse().unwrap();
            starve(kafka, &database().await, stream, mongod, seconds).await;
        }
        _ => panic!("no such command: {command:?}"),
    }
}

/// Makes the only member of the replica set its primary.
async fn initiate(mongo: &str) {
    let url = mongo.replace("?replicaSet=rs0", "?directConnection=true");
    let host = url.trim_start_matches("mongodb://").split('/').next().unwrap();
    let admin = Client::with_uri_str(&url).await.unwrap().database("admin");
    let set = doc! { "_id": "rs0", "members": [{ "_id": 0, "host": host }] };
    admin.run_command(doc! { "replSetInitiate": set }).await.unwrap();
}

fn producer(kafka: &str) -> FutureProducer {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", kafka)
        .set("queue.buffering.max.messages", "1000000")
        .set("linger.ms", "0");
    config.create().unwrap()
}

/// A request like those of the page, with a UUID of its own.
fn request(number: u64) -> PredictionRequest {
    let of = |list: &[&str], by: u64| list[(number / by) as usize % list.len()].to_owned();
    PredictionRequest {
        dep_delay: (number % 211) as f64 - 30.0,
        carrier: of(&["UA", "AA", "DL", "B6"], 1),
        flight_date: chrono::NaiveDate::from_yo_opt(2013, 1 + (number % 365) as u32).unwrap(),
        dest: of(&["IAH", "LAX", "SFO", "ORD", "ATL"], 4),
        flight_num: Some((number % 2_000).to_string()),
        origin: of(&["EWR", "JFK", "LGA"], 20),
        distance: None,
        crs_dep_time: None,
        crs_arr_time: None,
        timestamp: Some("2013-12-20T10:00:00.000Z".into()),
        uuid: PredictionRequest::new_id(chrono::Utc::now()),
    }
}

async fn fill(kafka: &str, n: u64, n_partitions: i32) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", kafka).create().unwrap();
    let topic = NewTopic::new(REQUEST_TOPIC, n_partitions, TopicReplication::Fixed(1));
    admin.create_topics(&[topic], &AdminOptions::new()).await.unwrap();
    let producer = producer(kafka);
    let sends = futures::stream::iter(0..n).map(|number| {
        let (producer, request) = (producer.clone(), request(number));
        async move {
            let (key, value) = (request.uuid.to_string(), request.encode());
            let record = FutureRecord::to(REQUEST_TOPIC).key(&key).payload(&value);
            producer.send(record, PATIENCE).await.unwrap();
        }
    });
    sends.buffer_unordered(50_000).for_each(async |()| ()).await;
}

/// Has so many jobs of a group answer what there is; `servers` are Kafka, MongoDB and the process
/// of that.
async fn drain(servers: (&str, &str, &str), submit_job: &str, data: &str, n: u64, n_jobs: usize) {
    let (kafka, mongo, mongod) = servers;
    let (started, of_mongod) = (Instant::now(), cpu_of(mongod).unwrap());
    let jobs = (0..n_jobs).map(|_| {
        Command::new(submit_job)
            .args(["--data", data, "stream", "--kafka", kafka, "--trigger", "available-now"])
            .env("TARMAC_MONGO", mongo)
            .env("RUST_LOG", "warn")
            .spawn()
            .unwrap()
    });
    let jobs: Vec<Child> = jobs.collect();
    let seen = futures::future::join_all(jobs.into_iter().map(see_until_end)).await;
    let seconds = started.elapsed().as_secs_f64();
    let cpu: f64 = seen.iter().map(|of| of.cpu).sum();
    let us = |seconds: f64| 1e6 * seconds / n as f64;
    let memory = &seen[0].memory;
    let early = memory[memory.len() / 10];
    let (peak, last) = (memory.iter().max().unwrap(), memory.last().unwrap());
    println!(
        "drained requests {n} jobs {n_jobs} seconds {seconds:.1} per_second {:.0} cpu_us {:.1} \
         mongod_cpu_us {:.1} rss_mb at_a_tenth {early} peak {peak} end {last}",
        n as f64 / seconds,
        us(cpu),
        us(cpu_of(mongod).unwrap() - of_mongod),
    );
}

/// What was seen of a process.
struct Seen {
    /// Resident memory in MB, ten times a second.
    memory: Vec<u64>,
    /// User and system time in seconds.
    cpu: f64,
}

async fn see_until_end(mut process: Child) -> Seen {
    let pid = process.id().unwrap().to_string();
    let mut seen = Seen { memory: Vec::new(), cpu: 0.0 };
    while process.try_wait().unwrap().is_none() {
        seen.memory.extend(memory_of(&pid));
        // nothing of one that has ended
        seen.cpu = cpu_of(&pid).unwrap_or_default().max(seen.cpu);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(process.wait().await.unwrap().success());
    seen
}

/// User and system time of a process so far, in seconds.
fn cpu_of(pid: &str) -> Option<f64> {
    /// What the kernel counts in, everywhere.
    const TICKS_PER_SECOND: f64 = 100.0;
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // behind the name, which may hold spaces
    let mut fields = text.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
}

fn memory_of(pid: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? / 1024)
}

/// Stops mongod for a while, under as many requests as Kafka takes, and looks at the memory of a
/// stream; then waits until it has answered them.
async fn starve(kafka: &str, database: &Database, stream: &str, mongod: &str, seconds: u64) {
    let signal = async |signal: &str| {
        let sent = Command::new("kill").args([signal, mongod]).status().await.unwrap();
        assert!(sent.success());
    };
    let answers = database.collection::<Document>(ANSWERS);
    let before = answers.estimated_document_count().await.unwrap();
    let at_first = memory_of(stream).unwrap();
    signal("-STOP").await;
    let started = Instant::now();
    let (mut n, mut peak) = (0, at_first);
    while started.elapsed() < Duration::from_secs(seconds) {
        fill(kafka, 10_000, PARTITIONS).await;
        n += 10_000;
        peak = peak.max(memory_of(stream).unwrap());
    }
    let at_last = memory_of(stream).unwrap();
    signal("-CONT").await;
    while answers.estimated_document_count().await.unwrap() < before + n {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!(
        "starved seconds {seconds} requests {n} rss_mb before {at_first} during_peak {peak} \
         during_last {at_last} after {}; all answered after {:.1} s",
        memory_of(stream).unwrap(),
        started.elapsed().as_secs_f64()
    );
}

/// The same documents inserted again elsewhere, with the same concern, without anything around
/// them: what MongoDB itself can do here.
async fn bare(database: &Database, mongod: &str) {
    let answers = database.collection::<RawDocumentBuf>(ANSWERS);
    let durably = rawdoc! { "w": "majority", "j": true };
    let (mut n, mut seconds, mut n_bytes) = (0, 0.0, 0);
    let (mut cpu, mut of_mongod) = (0.0, 0.0);
    let this = std::process::id().to_string();
    // in the order in which they came
    let found = answers.find(doc! {}).sort(doc! { "$natural": 1 }).await.unwrap();
    let mut pages = found.try_chunks(DOCUMENTS_HELD);
    while let Some(documents) = pages.try_next().await.unwrap() {
        n += documents.len();
        n_bytes += documents.iter().map(|document| document.as_bytes().len()).sum::<usize>();
        let (started, before) = (Instant::now(), (cpu_of(&this), cpu_of(mongod)));
        for chunk in documents.chunks(DOCUMENTS_PER_COMMAND) {
            let mut inserted = RawArrayBuf::new();
            chunk.iter().for_each(|document| inserted.push(document.clone()));
            let command = rawdoc! {
                "insert": "bare", "documents": inserted, "writeConcern": durably.clone(),
            };
            let reply = database.run_raw_command(command).await.unwrap();
            assert!(reply.get("writeErrors").is_none());
        }
        seconds += started.elapsed().as_secs_f64();
        cpu += cpu_of(&this).unwrap() - before.0.unwrap();
        of_mongod += cpu_of(mongod).unwrap() - before.1.unwrap();
    }
    let us = |seconds: f64| 1e6 * seconds / n as f64;
    println!(
        "bare documents {n} of_bytes {} seconds {seconds:.1} per_second {:.0} cpu_us {:.1} \
         mongod_cpu_us {:.1}",
        n_bytes / n,
        n as f64 / seconds,
        us(cpu),
        us(of_mongod),
    );
}

/// Asks at a rate, and notes when each answer can be read: when a change stream, which tells what
/// a majority has, tells of it.
async fn ask(kafka: &str, database: &Database, rate: u32, seconds: u32) {
    let answers = database.collection::<Document>(ANSWERS);
    let mut changes = answers.watch().await.unwrap();
    let asked: Arc<Mutex<HashMap<String, Instant>>> = Arc::default();
    let n = (rate * seconds) as usize;
    let producing = {
        let (asked, producer) = (Arc::clone(&asked), producer(kafka));
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_secs(1) / rate);
            for number in 0..n as u64 {
                tick.tick().await;
                let request = request(number);
                let (key, value) = (request.uuid.to_string(), request.encode());
                asked.lock().unwrap().insert(key.clone(), Instant::now());
                let producer = producer.clone();
                tokio::spawn(async move {
                    let record = FutureRecord::to(REQUEST_TOPIC).key(&key).payload(&value);
                    producer.send(record, PATIENCE).await.unwrap();
                });
            }
        })
    };
    let mut latencies = Vec::with_capacity(n);
    while latencies.len() < n {
        let change = changes.next().await.unwrap().unwrap();
        let id = change.document_key.unwrap().get_str("_id").unwrap().to_owned();
        if let Some(at) = asked.lock().unwrap().remove(&id) {
            latencies.push(at.elapsed().as_secs_f64() * 1e3);
        }
    }
    producing.await.unwrap();
    latencies.sort_by(f64::total_cmp);
    let at = |share: f64| latencies[((n - 1) as f64 * share) as usize];
    println!(
        "asked rate {rate} requests {n} ms p50 {:.1} p90 {:.1} p99 {:.1} max {:.1}",
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
}
