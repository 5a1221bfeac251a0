//! The promise of the stream under random faults: whatever dies, each acknowledged request has one
//! answer, which never changes, or is a dead letter.
//!
//! The faults, their order and their times follow from a seed, which is printed. `bench/torture.sh`
//! runs more of them, through the variable `TARMAC_TORTURE`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::DateTime;
use cluster::session;
use futures::TryStreamExt;
use jobs::lake::Lake;
use jobs::window::{self, Message, Rules, score};
use jobs::{models, stream};
use mongodb::Collection;
use mongodb::bson::{self, Document, doc};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use udf::chance::hash;
use udf::predict::Models;

use crate::setup::{
    ANSWERS, DEAD_LETTERS, DEADLINE, POLL, REQUESTS, Stream, World, request, run, send_signal,
    submit_job, until, uuid,
};

const PARTITIONS: i32 = 4;
/// Until what must come in the end is said not to come.
const PATIENCE: Duration = Duration::from_secs(120);
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
            _ => panic!("TARMAC_TORTURE has no {name}"),
        }
    }
    plan
}

/// Numbers that follow from a seed.
struct Dice {
    seed: u64,
    n_thrown: u64,
}

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.n_thrown += 1;
        hash(&[self.seed, self.n_thrown]) % n
    }

    fn ms(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(range.start + self.below(range.end - range.start))
    }
}

/// What was sent and acknowledged, and what was seen of it.
#[derive(Default)]
struct Record {
    /// Numbers of good requests that Kafka has acknowledged, in that order.
    asked: Vec<u32>,
    /// Numbers of malformed messages that Kafka has acknowledged.
    malformed: Vec<u32>,
    /// Answers as they were seen first, by UUID.
    seen: BTreeMap<String, Document>,
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

/// Sends all requests at the set rate, and notes which of them Kafka acknowledges.
async fn produce(brokers: String, plan: &Plan, record: &Shared) {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("message.timeout.ms", PATIENCE.as_millis().to_string())
        .create()
        .unwrap();
    let mut tick = tokio::time::interval(Duration::from_secs(1) / plan.per_second);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sends = JoinSet::new();
    for number in 0..plan.n_requests {
        tick.tick().await;
        let (producer, record) = (producer.clone(), Arc::clone(record));
        sends.spawn(async move {
            let (key, value) = (uuid(number), message(number));
            let sent = FutureRecord::to(REQUESTS).key(&key).payload(&value);
            if producer.send(sent, PATIENCE).await.is_ok() {
                let mut record = record.lock().unwrap();
                match is_malformed(number) {
                    true => record.malformed.push(number),
                    false => record.asked.push(number),
                }
            }
        });
        while sends.try_join_next().is_some() {}
    }
    sends.join_all().await;
}

/// Looks at answers all the time: none may change.
async fn watch(answers: Collection<Document>, record: Shared) {
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
        let Ok(found) = answers.find(doc! { "_id": { "$in": ids } }).await else { continue };
        let Ok(found) = found.try_collect::<Vec<_>>().await else { continue };
        see(&mut record.lock().unwrap(), found);
    }
}

fn see(record: &mut Record, found: Vec<Document>) {
    for document in found {
        let id = document.get_str("_id").unwrap().to_owned();
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
        let mut arguments = [["--trigger", "interval:200ms"], missed].concat();
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

    async fn do_harm(&mut self) {
        let job = self.dice.below(self.jobs.len() as u64) as usize;
        let member = self.dice.below(self.world.mongo.processes.len() as u64) as usize;
        let what = match self.dice.below(12) {
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
            _ => {
                let model = self.models[self.dice.below(2) as usize].clone();
                run(submit_job(&self.world.data()).args(["models", "promote", &model]));
                "change of the champion"
            }
        };
        *self.done.entry(what).or_default() += 1;
    }

    /// Ends all jobs, as a person would.
    fn end(self) -> World {
        for (i, mut job) in self.jobs.into_iter().enumerate() {
            for signal in ["CONT", "TERM"] {
                send_signal(&job.process.pid(), signal);
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
    const REASONS: [&str; 5] = [
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
fn lag(brokers: &str) -> Option<i64> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "tarmac-stream")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_range(REQUESTS, 0, PARTITIONS - 1);
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_answered_once_whatever_dies() {
    let plan = Arc::new(plan());
    println!(
        "TARMAC_TORTURE='seed={} faults={} requests={} rate={} jobs={} mongods={}'",
        plan.seed, plan.n_faults, plan.n_requests, plan.per_second, plan.n_jobs, plan.n_mongods
    );
    let world = World::start_with(plan.n_mongods).await;
    let models = world.learn_little();
    world.make_topic(PARTITIONS).await;
    let dice = Dice { seed: plan.seed, n_thrown: 0 };
    let (jobs, ending, done) = (Vec::new(), Vec::new(), BTreeMap::new());
    let mut victims = Victims { world, jobs, ending, models, dice, done };
    victims.jobs = (0..plan.n_jobs).map(|job| victims.start_job(job)).collect();
    let answers = victims.world.collection(ANSWERS).await;

    let record = Shared::default();
    let watcher = tokio::spawn(watch(answers.clone(), Arc::clone(&record)));
    let producing = {
        let (plan, record) = (Arc::clone(&plan), Arc::clone(&record));
        let brokers = victims.world.brokers.clone();
        tokio::spawn(async move { produce(brokers, &plan, &record).await })
    };
    // spread over the time that the requests take
    let mean_ms = u64::from(plan.n_requests) * 1000
        / u64::from(plan.per_second)
        / u64::from(plan.n_faults.max(1));
    for _ in 0..plan.n_faults {
        let pause = victims.dice.ms(0..2 * mean_ms + 1);
        tokio::time::sleep(pause).await;
        victims.do_harm().await;
        victims.supervise();
    }
    producing.await.unwrap();
    let asked = record.lock().unwrap().asked.clone();
    let brokers = victims.world.brokers.clone();
    let started = Instant::now();
    loop {
        let n_answers = answers.count_documents(doc! {}).await.unwrap_or_default();
        if n_answers >= asked.len() as u64 && lag(&brokers) == Some(0) {
            break;
        }
        victims.supervise();
        if started.elapsed() > PATIENCE {
            for job in victims.jobs.iter().chain(&victims.ending) {
                let log = job.log();
                let lines: Vec<&str> = log.lines().rev().take(30).collect();
                println!("{}", lines.into_iter().rev().collect::<Vec<_>>().join("\n"));
            }
            panic!("{n_answers} of {} are answered; lag {:?}", asked.len(), lag(&brokers));
        }
        tokio::time::sleep(POLL * 10).await;
    }
    watcher.abort();
    let done = std::mem::take(&mut victims.done);
    let world = victims.end();
    let mut record = std::mem::take(&mut *record.lock().unwrap());
    let counts = check(&world, &plan, &mut record).await;
    println!("faults: {done:?}\n{counts}");
    let breaches = &record.breaches;
    assert!(breaches.is_empty(), "{} breaches, the first: {}", breaches.len(), breaches[0]);
}

/// Holds what there is against what was sent; says how much there was of all.
async fn check(world: &World, plan: &Plan, record: &mut Record) -> String {
    let found = world.documents(doc! {}).await;
    let n_answers = found.len();
    see(record, found.clone());
    let breaches = &mut record.breaches;
    let stored: BTreeMap<String, Document> =
        found.into_iter().map(|d| (d.get_str("_id").unwrap().to_owned(), d)).collect();
    breaches.extend(
        record
            .asked
            .iter()
            .map(|number| uuid(*number))
            .filter_map(|id| (!stored.contains_key(&id)).then(|| format!("{id} has no answer"))),
    );
    // what was sent and not acknowledged may be answered or not
    let sent: BTreeMap<String, u32> =
        (0..plan.n_requests).filter(|n| !is_malformed(*n)).map(|n| (uuid(n), n)).collect();
    breaches.extend(
        stored
            .keys()
            .filter(|id| !sent.contains_key(*id))
            .map(|id| format!("{id} is answered, and was no request")),
    );
    check_answers(world, &sent, &stored, breaches).await;

    let mut told = BTreeSet::new();
    let records = world.read_all(ANSWERS);
    for (value, _) in &records {
        let answer: Value = serde_json::from_slice(value).unwrap();
        let id = answer["UUID"].as_str().unwrap().to_owned();
        let in_store = stored.get(&id).map(|d| bson::deserialize_from_document(d.clone()).unwrap());
        if in_store.as_ref() != Some(&answer) {
            breaches.push(format!("{id}: the topic says {answer}, the store {in_store:?}"));
        }
        told.insert(id);
    }
    breaches.extend(
        stored
            .keys()
            .filter(|id| !told.contains(*id))
            .map(|id| format!("{id} is not in the topic")),
    );

    let bad: BTreeSet<Vec<u8>> =
        (0..plan.n_requests).filter(|n| is_malformed(*n)).map(malformed).collect();
    let letters: Vec<Vec<u8>> = world.read_all(DEAD_LETTERS).into_iter().map(|l| l.0).collect();
    let kept: BTreeSet<&Vec<u8>> = letters.iter().collect();
    breaches.extend(
        kept.iter()
            .filter(|value| !bad.contains(**value))
            .map(|value| format!("{} is a dead letter", value.escape_ascii())),
    );
    breaches.extend(
        record
            .malformed
            .iter()
            .filter(|n| !kept.contains(&malformed(**n)))
            .map(|n| format!("message {n} is no dead letter")),
    );
    format!(
        "acknowledged: {} good, {} malformed of {}\n\
         answers: {n_answers} in the store, {} of them seen before the end; {} in the topic\n\
         dead letters: {}, of {} messages\nbreaches: {}",
        record.asked.len(),
        record.malformed.len(),
        plan.n_requests,
        record.seen.len(),
        records.len(),
        letters.len(),
        kept.len(),
        breaches.len()
    )
}

/// Each answer must be what the model that it names says.
async fn check_answers(
    world: &World,
    sent: &BTreeMap<String, u32>,
    stored: &BTreeMap<String, Document>,
    breaches: &mut Vec<String>,
) {
    let lake = Lake::open(world.data().to_str().unwrap(), &[]).unwrap();
    let ctx = session::in_process(1, 512 << 20, &[], &[]).unwrap();
    stream::prepare(&ctx, &lake).await.unwrap();
    let mut by_model: BTreeMap<&str, Vec<Message>> = BTreeMap::new();
    for (id, document) in stored {
        let Some(number) = sent.get(id) else { continue };
        let value = Some(message(*number));
        let version = document.get_str("ModelVersion").unwrap_or("none");
        by_model.entry(version).or_default().push(Message { value, ..Message::default() });
    }
    for (version, messages) in by_model {
        let scorer = Arc::new(models::load(&lake, version).await.unwrap());
        models::register(&ctx, Models::from([("champion".to_owned(), scorer)]));
        let plan = window::Plan::new(&ctx).await.unwrap();
        let now = DateTime::from_timestamp(0, 0).unwrap();
        let rules = Rules { now, message_bytes_max: events::REQUEST_BYTES_MAX, expire_after: None };
        for answer in score(&plan, messages, rules).await.unwrap().answers {
            let mut expected = serde_json::to_value(&answer).unwrap();
            let id = answer.uuid().to_string();
            let mut is: Value = bson::deserialize_from_document(stored[&id].clone()).unwrap();
            expected["_id"] = id.clone().into();
            (is["AnsweredAt"], expected["AnsweredAt"]) = (Value::Null, Value::Null);
            if is != expected {
                breaches.push(format!("{id} should be {expected}, is {is}"));
            }
        }
    }
}
