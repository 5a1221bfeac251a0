//! The promise of the stream under random faults: whatever dies, each acknowledged request has one
//! answer, which never changes, or is a dead letter.
//!
//! Requests come in every codec, some twice in different spellings, some in transactions that are
//! aborted; partitions are added, and halfway the topic is made again under the jobs.
//!
//! The faults, their order and their times follow from a seed, which is printed. `bench/torture.sh`
//! runs more of them, through the variable `TARMAC_TORTURE`; `set=0` is a MongoDB by itself, and
//! `mongods=0` the embedded store.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::DateTime;
use cluster::session;
use events::{PredictionRequest, STREAM_OFFSETS};
use futures::TryStreamExt;
use jobs::lake::Lake;
use jobs::models::registry;
use jobs::stream;
use jobs::stream::micro_batch::{self, Message, Rules, score};
use jobs::stream::request_log::LogMark;
use mongodb::bson::{self, Document, doc};
use mongodb::{ClientSession, Collection};
use rdkafka::admin::{AdminOptions, NewPartitions};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, FutureProducer, FutureRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;
use store::{Lease, Query, Store};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use udf::functions::model::Models;
use udf::train::sampling::hash;

use crate::dice::Dice;
use crate::setup::{
    ANSWERS, DEAD_LETTERS, DEADLINE, POLL, REJECTED, REQUESTS, Stream, World, request, run,
    send_signal, submit_job, undated, until, uuid,
};

/// Of the topic as it is made; one is added at a time.
const PARTITIONS: i32 = 4;
const PARTITIONS_MAX: usize = 7;
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
/// One in so many requests is sent again, in other words.
const REPEATED: u32 = 17;
/// Numbers of requests in transactions that are aborted begin here.
const ABORTED: u32 = 10_000_000;
/// Until what must come in the end is said not to come.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a request may take to be acknowledged before it is sent again.
const DELIVERY_WAIT: Duration = Duration::from_secs(15);
/// One in so many requests is none.
const MALFORMED: u32 = 10;

/// What is done.
struct Plan {
    seed: u64,
    n_faults: u32,
    n_requests: u32,
    per_second: u32,
    n_jobs: usize,
    n_mongods: usize,
    is_set: bool,
}

#[expect(clippy::disallowed_methods, reason = "a longer run is asked for by the environment")]
fn plan() -> Plan {
    let mut plan = Plan {
        seed: std::process::id().into(),
        n_faults: 24,
        n_requests: 6_000,
        per_second: 120,
        n_jobs: 2,
        n_mongods: 3,
        is_set: true,
    };
    let told = std::env::var("TARMAC_TORTURE").unwrap_or_default();
    for setting in told.split_whitespace() {
        let (name, value) = setting.split_once('=').expect("name=value");
        let number: u32 = value.parse().expect("a number");
        match name {
            "seed" => plan.seed = number.into(),
            "faults" => plan.n_faults = number,
            "requests" => plan.n_requests = number,
            "rate" => plan.per_second = number,
            "jobs" => plan.n_jobs = number as usize,
            "mongods" => plan.n_mongods = number as usize,
            "set" => plan.is_set = number != 0,
            _ => panic!("TARMAC_TORTURE has no {name}"),
        }
    }
    plan
}

/// What was sent and acknowledged, and what was seen of it.
#[derive(Default)]
struct Record {
    /// Numbers of good requests that Kafka has acknowledged, in that order.
    asked: Vec<u32>,
    /// Numbers of malformed messages that Kafka has acknowledged.
    malformed: Vec<u32>,
    /// Answers as they were seen first, by UUID.
    seen: BTreeMap<String, Value>,
    /// What must not be.
    breaches: Vec<String>,
}

type Shared = Arc<Mutex<Record>>;

fn is_malformed(number: u32) -> bool {
    number % MALFORMED == MALFORMED - 1
}

fn good(number: u32) -> Value {
    let carriers = ["UA", "AA", "DL", "ZZ"];
    let places = ["EWR", "IAH", "JFK", "LAX", "ATL", "SFO", "ORD"];
    let place = |n: u32| places[(n % places.len() as u32) as usize];
    let delay = f64::from(number % 211) - 30.0;
    let carrier = carriers[(number % 4) as usize];
    request(number, carrier, place(number), place(1 + number / 7), delay)
}

/// A message that cannot be read, in one of four ways.
fn malformed(number: u32) -> Vec<u8> {
    let mut message = good(number);
    match number / MALFORMED % 4 {
        0 => return format!("nonsense {number}").into_bytes(),
        1 => message["DepDelay"] = "late".into(),
        2 => _ = message.as_object_mut().unwrap().remove("UUID"),
        _ => message["Padding"] = "x".repeat(70_000).into(),
    }
    message.to_string().into_bytes()
}

fn message(number: u32) -> Vec<u8> {
    if is_malformed(number) { malformed(number) } else { good(number).to_string().into_bytes() }
}

/// What is sent under the UUID of a good request: it, and for some the same in another spelling,
/// with another delay, so that it is seen which one is answered.
fn spellings(number: u32) -> Vec<Vec<u8>> {
    let mut all = vec![message(number)];
    if number.is_multiple_of(REPEATED) && !is_malformed(number) {
        let mut again = good(number);
        again["UUID"] = format!("urn:uuid:{}", uuid(number).to_uppercase()).into();
        again["DepDelay"] = 77.0.into();
        all.push(again.to_string().into_bytes());
    }
    all
}

/// Whether the sender of a malformed message is known.
fn has_sender(number: u32) -> bool {
    number / MALFORMED % 4 % 2 == 1
}

/// The producers of a program that asks, one a codec.
struct Askers {
    brokers: String,
    producers: [Mutex<FutureProducer>; CODECS.len()],
}

impl Askers {
    fn new(brokers: String) -> Self {
        let producers = CODECS.map(|codec| Mutex::new(Self::producer(&brokers, codec)));
        Self { brokers, producers }
    }

    fn producer(brokers: &str, codec: &str) -> FutureProducer {
        ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("enable.idempotence", "true")
            .set("compression.codec", codec)
            .set("linger.ms", "20")
            .set("message.timeout.ms", DELIVERY_WAIT.as_millis().to_string())
            .create()
            .unwrap()
    }

    /// Whether Kafka has acknowledged it in the end. After the death of a broker librdkafka's
    /// producer may deliver nothing any more, for good: another one asks again, as its users do.
    async fn ask(&self, codec: usize, key: &str, value: &[u8]) -> bool {
        for _ in 0..PATIENCE.as_secs() / DELIVERY_WAIT.as_secs() {
            let producer = self.producers[codec].lock().unwrap().clone();
            let record = FutureRecord::to(REQUESTS).key(key).payload(value);
            if producer.send(record, DELIVERY_WAIT).await.is_ok() {
                return true;
            }
            self.replace(codec, &producer);
            tokio::time::sleep(POLL * 20).await;
        }
        false
    }

    /// Replaces a producer that has failed, unless another one is there already.
    fn replace(&self, codec: usize, failed: &FutureProducer) {
        let mut current = self.producers[codec].lock().unwrap();
        if current.client().native_ptr() == failed.client().native_ptr() {
            *current = Self::producer(&self.brokers, CODECS[codec]);
        }
    }
}

/// Sends the requests of these numbers at the set rate, and notes which of them Kafka acknowledges.
async fn produce(brokers: String, numbers: std::ops::Range<u32>, per_second: u32, record: &Shared) {
    let askers = Arc::new(Askers::new(brokers));
    let mut tick = tokio::time::interval(Duration::from_secs(1) / per_second);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sends = JoinSet::new();
    for number in numbers {
        tick.tick().await;
        let (askers, record) = (Arc::clone(&askers), Arc::clone(record));
        sends.spawn(async move {
            let (key, codec) = (uuid(number), number as usize % CODECS.len());
            for (i, value) in spellings(number).iter().enumerate() {
                if askers.ask(codec, &key, value).await && i == 0 {
                    let mut record = record.lock().unwrap();
                    match is_malformed(number) {
                        true => record.malformed.push(number),
                        false => record.asked.push(number),
                    }
                }
            }
        });
        while sends.try_join_next().is_some() {}
    }
    sends.join_all().await;
}

/// Sends requests in transactions that are all aborted, as long as it is not told to stop.
fn abort_transactions(brokers: &str, is_over: &std::sync::atomic::AtomicBool) -> u32 {
    const BRIEF: Duration = Duration::from_secs(5);
    let mut n_sent = 0;
    while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("transactional.id", "torture")
            // what a broker that died leaves open is not left open for long
            .set("transaction.timeout.ms", "3000")
            .create()
            .unwrap();
        let mut go = producer.init_transactions(BRIEF);
        while go.is_ok() && !is_over.load(std::sync::atomic::Ordering::Relaxed) {
            let value = good(ABORTED + n_sent).to_string();
            let record = BaseRecord::<(), _>::to(REQUESTS).payload(&value);
            n_sent += 1;
            go = producer
                .begin_transaction()
                .and_then(|()| producer.send(record).map_err(|(error, _)| error))
                .and_then(|()| producer.flush(BRIEF))
                .and_then(|()| producer.abort_transaction(BRIEF));
            std::thread::sleep(POLL * 4);
        }
    }
    n_sent
}

/// Reads answers as others do.
enum Answers {
    /// Later reads see what earlier ones saw, whoever is the primary.
    Mongo(Collection<Document>, Box<ClientSession>),
    Embedded(Store),
}

impl Answers {
    async fn open(world: &World, plan: &Plan) -> Self {
        if plan.n_mongods == 0 {
            return Self::Embedded(embedded(world));
        }
        let answers = world.collection(ANSWERS).await;
        let session = answers.client().start_session().causal_consistency(true).await.unwrap();
        Self::Mongo(answers, Box::new(session))
    }

    /// Those of these ids; nothing while the server does not answer.
    async fn find(&mut self, ids: &[String]) -> Option<Vec<Value>> {
        match self {
            Self::Embedded(store) => store.get_all(ANSWERS, ids).await.ok(),
            Self::Mongo(answers, session) => {
                let found = answers.find(doc! { "_id": { "$in": ids } }).session(&mut **session);
                let mut found = found.await.ok()?;
                let found: Vec<Document> = found.stream(session).try_collect().await.ok()?;
                Some(found.into_iter().map(value_of).collect())
            }
        }
    }
}

fn embedded(world: &World) -> Store {
    Store::embedded(&world.data().join("store.sqlite")).unwrap()
}

fn value_of(document: Document) -> Value {
    bson::deserialize_from_document(undated(document)).unwrap()
}

/// All documents of a collection.
async fn all_of(world: &World, plan: &Plan, collection: &str) -> Vec<Value> {
    if plan.n_mongods > 0 {
        let found = world.documents_of(collection, doc! {}).await;
        return found.into_iter().map(value_of).collect();
    }
    let all = Query { limit: u32::MAX, ..Query::default() };
    embedded(world).find(collection, &all).await.unwrap()
}

fn id_of(document: &Value) -> String {
    document["_id"].as_str().unwrap().to_owned()
}

/// Looks at answers all the time: none may change, or go once it was there.
async fn watch(mut answers: Answers, record: Shared) {
    loop {
        tokio::time::sleep(POLL * 6).await;
        let ids: Vec<String> = {
            let record = record.lock().unwrap();
            let (n, latest) = (record.asked.len(), record.asked.iter().rev().take(300));
            let older = (0..100).map(|i| &record.asked[hash(&[i, n as u64]) as usize % n]);
            match n {
                0 => Vec::new(),
                _ => latest.chain(older).map(|number| uuid(*number)).collect(),
            }
        };
        // there is no primary at times
        let Some(found) = answers.find(&ids).await else { continue };
        let mut record = record.lock().unwrap();
        let there: BTreeSet<String> = found.iter().map(id_of).collect();
        let gone = ids.iter().filter(|id| record.seen.contains_key(*id) && !there.contains(*id));
        let gone: Vec<String> = gone.map(|id| format!("the answer {id} has vanished")).collect();
        record.breaches.extend(gone);
        see(&mut record, found);
    }
}

fn see(record: &mut Record, found: Vec<Value>) {
    for document in found {
        let id = id_of(&document);
        match record.seen.get(&id) {
            Some(before) if *before != document => {
                record.breaches.push(format!("an answer has changed: {before} to {document}"));
            }
            Some(_) => {}
            None => _ = record.seen.insert(id, document),
        }
    }
}

/// The programs that are tortured.
struct Victims {
    world: World,
    jobs: Vec<Stream>,
    /// Jobs that were told to end.
    ending: Vec<Stream>,
    models: [String; 2],
    dice: Dice,
    done: BTreeMap<&'static str, u32>,
}

impl Victims {
    /// The first one is a static member of the group: it comes back as the same.
    fn start_job(&self, job: usize) -> Stream {
        // one that is dead is missed soon, so that more can happen
        let missed = ["--kafka-conf", "session.timeout.ms=3000"];
        // small, so that one is scored while the answers of the one before are on their way
        let small = ["--max-rows", "20"];
        let mut arguments = [["--trigger", "interval:200ms"], missed, small].concat();
        if job == 0 {
            arguments.extend(["--kafka-conf", "group.instance.id=the-first"]);
        }
        Stream::start(&self.world, &format!("job-{job}"), &arguments)
    }

    /// Stops a process, and lets it go on after a while.
    fn pause(&mut self, pid: String, ms: std::ops::Range<u64>) {
        send_signal(&pid, "STOP");
        let pause = self.dice.ms(ms);
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            // it may have been killed meanwhile
            _ = Command::new("kill").args(["-CONT", &pid]).stderr(Stdio::null()).status();
        });
    }

    /// Starts again what has ended by itself, if it may have.
    fn supervise(&mut self) {
        for job in 0..self.jobs.len() {
            let Some(status) = self.jobs[job].process.0.try_wait().unwrap() else { continue };
            let log = self.jobs[job].log();
            assert!(may_end(&log), "job {job} ended by itself with {status}: {log}");
            self.jobs[job] = self.start_job(job);
            *self.done.entry("job that ended by itself").or_default() += 1;
        }
    }

    async fn step_down(&self) {
        for member in 0..self.world.mongo.processes.len() {
            let admin = self.world.mongo.admin(member).await;
            // whoever is not primary, or not there, refuses
            _ = admin.run_command(doc! { "replSetStepDown": 3, "force": true }).await;
        }
    }

    /// One partition more, up to a limit.
    async fn grow(&self) {
        let n = self.world.n_partitions(REQUESTS);
        if n < PARTITIONS_MAX {
            let more = NewPartitions::new(REQUESTS, n + 1);
            // a broker that was just killed does not
            _ = self.world.admin().create_partitions(&[more], &AdminOptions::new()).await;
        }
    }

    async fn do_harm(&mut self) {
        let job = self.dice.below(self.jobs.len() as u64) as usize;
        let n_mongods = self.world.mongo.processes.len() as u64;
        let member = self.dice.below(n_mongods.max(1)) as usize;
        let what = match self.dice.below(14) {
            9 | 10 if n_mongods == 0 => "nothing",
            0..3 => {
                self.jobs[job].process.0.kill().unwrap();
                self.jobs[job].process.0.wait().unwrap();
                self.jobs[job] = self.start_job(job);
                "kill -9 of a job"
            }
            3 | 4 => {
                // shorter and longer than the group waits
                self.pause(self.jobs[job].process.pid(), 500..12_000);
                "pause of a job"
            }
            5 => {
                send_signal(&self.jobs[job].process.pid(), "TERM");
                let again = self.start_job(job);
                self.ending.push(std::mem::replace(&mut self.jobs[job], again));
                "end of a job"
            }
            6 | 7 => {
                self.world.kafka.crash();
                "kill -9 of the broker"
            }
            8 => {
                self.pause(self.world.kafka.process.pid(), 200..4_000);
                "pause of the broker"
            }
            9 if self.dice.below(2) == 0 => {
                self.pause(self.world.mongo.processes[member].pid(), 200..4_000);
                "pause of a mongod"
            }
            9 => {
                self.world.mongo.crash(member);
                "kill -9 of a mongod"
            }
            10 => {
                self.step_down().await;
                "step down of the primary"
            }
            11 => {
                self.grow().await;
                "one partition more"
            }
            12 if self.dice.below(3) == 0 => {
                // until the group has long given up on it
                self.pause(self.jobs[job].process.pid(), 20_000..40_000);
                "long pause of a job"
            }
            _ => {
                let model = self.models[self.dice.below(2) as usize].clone();
                run(submit_job(&self.world.data()).args(["models", "promote", &model]));
                "change of the champion"
            }
        };
        *self.done.entry(what).or_default() += 1;
    }

    /// Ends all jobs, as a person would, and waits for those that were told before.
    fn end(self) -> World {
        for (i, mut job) in self.jobs.into_iter().chain(self.ending).enumerate() {
            for signal in ["CONT", "TERM"] {
                // one that was told before may be gone
                _ = Command::new("kill")
                    .args([&format!("-{signal}"), &job.process.pid()])
                    .stderr(Stdio::null())
                    .status();
            }
            let status = until("a job ends", || job.process.0.try_wait().unwrap());
            let log = job.log();
            assert!(status.success() || may_end(&log), "job {i} ended with {status}: {log}");
        }
        self.world
    }
}

/// Whether a job may have ended by itself, by its log: it could not start, because what it needs
/// was away for too long, or it is the static member whose place the one that it follows took once
/// more before that ended.
fn may_end(log: &str) -> bool {
    const REASONS: [&str; 6] = [
        // what it was to write to was away
        "told to end; the next job does it",
        "no MongoDB answers",
        "does not let us in",
        "no Kafka broker",
        "cannot create topic",
        "FencedInstanceId",
    ];
    let last = log.lines().last().unwrap_or_default();
    REASONS.iter().any(|reason| last.contains(reason))
}

/// How far the group is said to be behind, over all partitions; nothing while the broker that was
/// killed last is still starting.
fn lag(brokers: &str, n_partitions: usize) -> Option<i64> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "tarmac-stream")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_range(REQUESTS, 0, n_partitions as i32 - 1);
    let committed = consumer.committed_offsets(list, DEADLINE).ok()?;
    let lag = committed.elements().into_iter().map(|element| {
        let (_, end) = consumer.fetch_watermarks(REQUESTS, element.partition(), DEADLINE).ok()?;
        match element.offset() {
            Offset::Offset(offset) => Some(end - offset),
            _ => Some(end),
        }
    });
    lag.sum()
}

/// Waits until all that was asked is answered, and all that is malformed is a dead letter.
async fn wait_for_answers(victims: &mut Victims, plan: &Plan, record: &Shared) {
    let started = Instant::now();
    let mut answers = Answers::open(&victims.world, plan).await;
    loop {
        let (asked, malformed) = {
            let record = record.lock().unwrap();
            let asked: Vec<String> = record.asked.iter().map(|number| uuid(*number)).collect();
            (asked, record.malformed.clone())
        };
        let n_answers = answers.find(&asked).await.map_or(0, |found| found.len());
        let is_kept = || {
            let kept: BTreeSet<Vec<u8>> =
                victims.world.read_all(DEAD_LETTERS).into_iter().map(|letter| letter.0).collect();
            malformed.iter().all(|number| kept.contains(&message(*number)))
        };
        if n_answers >= asked.len() && is_kept() {
            return;
        }
        victims.supervise();
        if started.elapsed() > PATIENCE {
            let logs = victims.jobs.iter().chain(&victims.ending).map(|job| {
                let log = job.log();
                let lines: Vec<&str> = log.lines().rev().take(30).collect();
                lines.into_iter().rev().collect::<Vec<_>>().join("\n")
            });
            let logs: Vec<String> = logs.collect();
            panic!("{n_answers} of {} are answered\n{}", asked.len(), logs.join("\n\n"));
        }
        tokio::time::sleep(POLL * 10).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_answered_once_whatever_dies() {
    let plan = Arc::new(plan());
    println!(
        "TARMAC_TORTURE='seed={} faults={} requests={} rate={} jobs={} mongods={} set={}'",
        plan.seed,
        plan.n_faults,
        plan.n_requests,
        plan.per_second,
        plan.n_jobs,
        plan.n_mongods,
        u32::from(plan.is_set)
    );
    let world = World::start_as(plan.n_mongods, plan.is_set).await;
    let models = world.learn_little();
    world.make_topic(PARTITIONS).await;
    let dice = Dice::new(plan.seed);
    let (jobs, ending, done) = (Vec::new(), Vec::new(), BTreeMap::new());
    let mut victims = Victims { world, jobs, ending, models, dice, done };
    victims.jobs = (0..plan.n_jobs).map(|job| victims.start_job(job)).collect();

    let record = Shared::default();
    let watcher =
        tokio::spawn(watch(Answers::open(&victims.world, &plan).await, Arc::clone(&record)));
    let half = plan.n_requests / 2;
    // spread over the time that the requests take
    let mean_ms = u64::from(plan.n_requests) * 1000
        / u64::from(plan.per_second)
        / u64::from(plan.n_faults.max(1));
    let mut n_aborted = 0;
    for numbers in [0..half, half..plan.n_requests] {
        let brokers = victims.world.brokers.clone();
        let is_over = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let aborting = {
            let (brokers, is_over) = (brokers.clone(), Arc::clone(&is_over));
            tokio::task::spawn_blocking(move || abort_transactions(&brokers, &is_over))
        };
        let producing = {
            let (plan, record) = (Arc::clone(&plan), Arc::clone(&record));
            let numbers = numbers.clone();
            tokio::spawn(async move { produce(brokers, numbers, plan.per_second, &record).await })
        };
        for _ in 0..plan.n_faults / 2 {
            let pause = victims.dice.ms(0..2 * mean_ms + 1);
            tokio::time::sleep(pause).await;
            victims.do_harm().await;
            victims.supervise();
        }
        producing.await.unwrap();
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        n_aborted += aborting.await.unwrap();
        wait_for_answers(&mut victims, &plan, &record).await;
        if numbers.start == 0 {
            // under the jobs, which have read all that was there
            victims.world.delete_topic(REQUESTS).await;
            victims.world.make_topic(PARTITIONS).await;
        }
    }
    let (brokers, n) = (victims.world.brokers.clone(), victims.world.n_partitions(REQUESTS));
    until("the group knows how far the jobs are", || {
        victims.supervise();
        // marks of aborted transactions may follow what was read last
        lag(&brokers, n).filter(|lag| *lag <= 2 * i64::from(n_aborted)).map(drop)
    });
    watcher.abort();
    let done = std::mem::take(&mut victims.done);
    let world = victims.end();
    let mut record = std::mem::take(&mut *record.lock().unwrap());
    let counts = check(&world, &plan, &mut record).await;
    println!("faults: {done:?}\naborted transactions: {n_aborted}\n{counts}");
    let breaches = &record.breaches;
    assert!(breaches.is_empty(), "{} breaches, the first: {}", breaches.len(), breaches[0]);
    let n_acknowledged = record.asked.len() + record.malformed.len();
    assert!(n_acknowledged * 2 > plan.n_requests as usize, "only {n_acknowledged} acknowledged");
}

/// Holds what there is against what was sent; says how much there was of all.
async fn check(world: &World, plan: &Plan, record: &mut Record) -> String {
    let found = all_of(world, plan, ANSWERS).await;
    let n_answers = found.len();
    see(record, found.clone());
    let breaches = &mut record.breaches;
    let stored: BTreeMap<String, Value> = found.into_iter().map(|d| (id_of(&d), d)).collect();
    let asked = record.asked.iter().map(|number| uuid(*number));
    breaches.extend(
        asked.filter_map(|id| (!stored.contains_key(&id)).then(|| format!("{id} has no answer"))),
    );
    // what was sent and not acknowledged may be answered or not
    let sent: BTreeMap<String, u32> =
        (0..plan.n_requests).filter(|n| !is_malformed(*n)).map(|n| (uuid(n), n)).collect();
    let of_nobody = stored.keys().filter(|id| !sent.contains_key(*id));
    breaches.extend(of_nobody.map(|id| format!("{id} is answered, and was no request")));
    check_answers(world, &sent, &stored, breaches).await;

    let mut told = BTreeSet::new();
    let records = world.read_all(ANSWERS);
    for (value, _) in &records {
        let answer: Value = serde_json::from_slice(value).unwrap();
        let id = answer["UUID"].as_str().unwrap().to_owned();
        let in_store = stored.get(&id);
        if in_store != Some(&answer) {
            breaches.push(format!("{id}: the topic says {answer}, the store {in_store:?}"));
        }
        told.insert(id);
    }
    let untold = stored.keys().filter(|id| !told.contains(*id));
    breaches.extend(untold.map(|id| format!("{id} is not in the topic")));

    let n_letters = check_letters(world, plan, &record.malformed, breaches);
    check_rejections(&all_of(world, plan, REJECTED).await, plan, &record.malformed, breaches);
    check_offsets(world, &all_of(world, plan, STREAM_OFFSETS).await, breaches);
    format!(
        "acknowledged: {} good, {} malformed of {}\n\
         answers: {n_answers} in the store, {} of them seen before the end; {} in the topic\n\
         dead letters: {n_letters}\nbreaches: {}",
        record.asked.len(),
        record.malformed.len(),
        plan.n_requests,
        record.seen.len(),
        records.len(),
        breaches.len()
    )
}

/// Each dead letter is what was sent, under its key, with the reason and a place of its own, and
/// each malformed message is one.
fn check_letters(
    world: &World,
    plan: &Plan,
    acknowledged: &[u32],
    breaches: &mut Vec<String>,
) -> usize {
    let bad: BTreeMap<Vec<u8>, u32> = (0..plan.n_requests)
        .filter(|number| is_malformed(*number))
        .map(|number| (malformed(number), number))
        .collect();
    let mut places: BTreeMap<(String, String, String), &Vec<u8>> = BTreeMap::new();
    let mut kept = BTreeSet::new();
    let letters = world.read_all_with_keys(DEAD_LETTERS);
    for (key, (value, headers)) in &letters {
        let Some(number) = bad.get(value) else {
            breaches.push(format!("{} is a dead letter", value.escape_ascii()));
            continue;
        };
        kept.insert(*number);
        let header = |name: &str| {
            let found = headers.iter().rfind(|(key, _)| key == name);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let reason = PredictionRequest::decode(value).unwrap_err().reason();
        let said = header("__connect.errors.exception.message");
        if said != reason || *key != uuid(*number).into_bytes() {
            breaches.push(format!("letter {number} says {said:?} under {}", key.escape_ascii()));
        }
        if header("__connect.errors.topic") != REQUESTS {
            breaches.push(format!("letter {number} came from nowhere"));
        }
        // the same place in the two logs is told apart by the time
        let [partition, offset, time] =
            ["__connect.errors.partition", "__connect.errors.offset", "tarmac.source.timestamp"]
                .map(header);
        if partition.parse::<i32>().is_err() || offset.parse::<i64>().is_err() {
            breaches.push(format!("letter {number} has the place {partition}/{offset}"));
        }
        if *places.entry((partition, offset, time)).or_insert(value) != value {
            breaches.push(format!("letter {number} has the place of another one"));
        }
    }
    let missing = acknowledged.iter().filter(|number| !kept.contains(number));
    breaches.extend(missing.map(|number| format!("message {number} is no dead letter")));
    letters.len()
}

/// Whoever sent a malformed message with a UUID finds the reason, and nobody else anything.
fn check_rejections(
    found: &[Value],
    plan: &Plan,
    acknowledged: &[u32],
    breaches: &mut Vec<String>,
) {
    let possible: BTreeMap<String, u32> = (0..plan.n_requests)
        .filter(|number| is_malformed(*number) && has_sender(*number))
        .map(|number| (uuid(number), number))
        .collect();
    let mut told = BTreeSet::new();
    for document in found {
        let Some(number) = possible.get(&id_of(document)) else {
            breaches.push(format!("{document} is a rejection"));
            continue;
        };
        told.insert(*number);
        let reason = PredictionRequest::decode(&malformed(*number)).unwrap_err().reason();
        if document["Reason"] != *reason || document["status"] != "rejected" {
            breaches.push(format!("rejection {number} says {document}"));
        }
    }
    let untold =
        acknowledged.iter().filter(|number| has_sender(**number) && !told.contains(number));
    breaches.extend(untold.map(|number| format!("the sender of {number} is not told")));
}

/// What is stored of each partition is where its last request ends.
fn check_offsets(world: &World, stored: &[Value], breaches: &mut Vec<String>) {
    let mut leases: BTreeMap<String, Lease> =
        stored.iter().map(|d| (id_of(d), Lease::of(d).unwrap())).collect();
    for (partition, end) in world.ends_of_messages(REQUESTS) {
        let id = format!("tarmac-stream/{REQUESTS}/{partition}");
        let Some(lease) = leases.remove(&id) else {
            breaches.push(format!("{id} has no offsets"));
            continue;
        };
        let last = LogMark::of(&lease).unwrap().and_then(|mark| mark.last);
        let last = last.map_or(0, |last| last.offset + 1);
        if lease.next != end || lease.published != end || last != end {
            breaches.push(format!("{lease:?} should be at {end}"));
        }
    }
}

/// Each answer must be what the model that it names says of one of the requests with its UUID.
async fn check_answers(
    world: &World,
    sent: &BTreeMap<String, u32>,
    stored: &BTreeMap<String, Value>,
    breaches: &mut Vec<String>,
) {
    let lake = Lake::open(world.data().to_str().unwrap(), &[]).unwrap();
    let ctx = session::in_process(1, 512 << 20, &[], &[]).unwrap();
    stream::prepare(&ctx, &lake).await.unwrap();
    let mut by_model: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for (id, document) in stored {
        let Some(number) = sent.get(id) else { continue };
        let version = document["ModelVersion"].as_str().unwrap_or("none");
        by_model.entry(version).or_default().push(*number);
    }
    for (version, numbers) in by_model {
        let scorer = Arc::new(registry::load(&lake, version).await.unwrap());
        registry::register(&ctx, Models::from([("champion".to_owned(), scorer)]));
        let plan = micro_batch::Plan::new(&ctx).await.unwrap();
        let now = DateTime::from_timestamp(0, 0).unwrap();
        let rules = Rules { now, message_bytes_max: events::REQUEST_BYTES_MAX, expire_after: None };
        let mut expected: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        // the first and the second spelling apart: of two in one micro-batch the first is answered
        for which in 0..2 {
            let spelling = |number: &u32| spellings(*number).into_iter().nth(which);
            let messages = numbers
                .iter()
                .filter_map(spelling)
                .map(|value| Message { value: Some(value), ..Message::default() });
            let scored = score(&plan, messages.collect(), rules).await.unwrap();
            for answer in scored.answers {
                let id = answer.uuid().to_string();
                let mut expects = serde_json::to_value(&answer).unwrap();
                (expects["_id"], expects["AnsweredAt"]) = (id.clone().into(), Value::Null);
                expected.entry(id).or_default().push(expects);
            }
        }
        for (id, expected) in expected {
            let mut is = stored[&id].clone();
            is["AnsweredAt"] = Value::Null;
            if !expected.contains(&is) {
                breaches.push(format!("{id} should be one of {expected:?}, is {is}"));
            }
        }
    }
}
