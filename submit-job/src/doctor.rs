//! `submit-job doctor`: whether everything is as it must be here, and what to do where it is not.
//!
//! It looks at what the options name, as a job would use it. In MongoDB it leaves two empty
//! collections, elsewhere nothing.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, Utc};
use clap::{Args, Command};
use cluster::remote::{self, Remote};
use jobs::lake::Lake;
use jobs::stream::kafka::{RECORD_BYTES_MAX, TopicFacts, codecs_that_are_missing, examine};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};
use serde::Serialize;
use serde_json::json;
use store::{Document, Query, Store};

use crate::config::{Environment, now};
use crate::config_show::unknown_variables;
use crate::context::{Master, SessionArgs, run_name};
use crate::driver::without_user;
use crate::progress::print;
use crate::servers::{KafkaClientArgs, StoreArgs, TopicArgs};

/// Where what is written to look whether it can be stands.
const PLACE: &str = "doctor";
/// Clocks may differ by this: leases, expiry and the age of documents are told by them.
const SKEW_MAX: Duration = Duration::from_secs(5);
/// Nothing of this program is older.
const BUILT_AFTER: &str = "2026-01-01T00:00:00Z";
/// Open files of a process below which a busy server runs out.
const OPEN_FILES_MIN: u64 = 4_096;
/// Bytes that a disk has left below which a job is likely to fill it.
const DISK_BYTES_MIN: u64 = 1024 * 1024 * 1024;
/// Requests stay on their topic at least as long as a weekend without anybody.
const KEPT_MIN: Duration = Duration::from_secs(3 * 24 * 3600);

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Kafka brokers, host:port with commas between [default: Kafka is not looked at]
    #[arg(long, env = "TARMAC_KAFKA")]
    pub kafka: Option<String>,
    /// How they are spoken to.
    #[command(flatten)]
    pub client: KafkaClientArgs,
    /// The topics.
    #[command(flatten)]
    pub names: TopicArgs,
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Directory for results and spilled rows
    #[arg(long, env = "TARMAC_WORK", default_value = "tarmac-work")]
    pub work: PathBuf,
    /// Print what was found as JSON
    #[arg(long)]
    pub json: bool,
}

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it must be.
    Ok,
    /// It works, and something should be known.
    Warning,
    /// A job will fail, or break a promise.
    Wrong,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub of: &'static str,
    /// How it is.
    pub state: State,
    /// What was seen.
    pub seen: String,
    /// What to do, unless it is as it must be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// What was found so far.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn ok(&mut self, of: &'static str, seen: impl Into<String>) {
        self.0.push(Finding { of, state: State::Ok, seen: seen.into(), advice: None });
    }

    fn warning(&mut self, of: &'static str, seen: impl Into<String>, advice: impl Into<String>) {
        let (seen, advice) = (seen.into(), Some(advice.into()));
        self.0.push(Finding { of, state: State::Warning, seen, advice });
    }

    fn wrong(&mut self, of: &'static str, seen: impl Into<String>, advice: impl Into<String>) {
        let (seen, advice) = (seen.into(), Some(advice.into()));
        self.0.push(Finding { of, state: State::Wrong, seen, advice });
    }

    /// Takes an error for what was seen.
    fn failed(&mut self, of: &'static str, error: &anyhow::Error, advice: &str) {
        self.wrong(of, format!("{error:#}"), advice);
    }
}

/// Looks at everything and prints what it found; whether nothing is wrong. `root` is the command
/// line.
pub async fn run_doctor(
    args: &Doctor,
    session: &SessionArgs,
    root: &Command,
    around: &Environment,
) -> Result<bool> {
    let mut found = Findings::default();
    options(&mut found, root, around);
    let lake = Lake::open(&session.data, &around.store_options);
    match &lake {
        Ok(lake) => data_root(&mut found, lake).await,
        Err(error) => found.failed("data root", error, "give --data a directory or a URL"),
    }
    if let Some(brokers) = &args.kafka {
        kafka(&mut found, args, brokers, around).await;
    }
    if let Ok(lake) = &lake {
        let file = lake.local_path("store.sqlite").filter(|_| args.store.is_embedded());
        if file.is_some_and(|file| !file.exists()) {
            found.ok("store", "embedded SQLite, which the first job makes");
        } else {
            match args.store.open(lake, around).await {
                Ok(store) => documents(&mut found, &store).await,
                Err(error) => found.failed(
                    "store",
                    &error,
                    "start it, or name it: TARMAC_MONGO or --mongo-file; the user needs the role \
                 readWrite on the database",
                ),
            }
        }
    }
    if let Some(Master::Cluster(address)) = &session.master {
        cluster(&mut found, address, session).await;
    }
    machine(&mut found, args, &lake.ok(), session.memory);
    let n_wrong = found.0.iter().filter(|finding| finding.state == State::Wrong).count();
    print(&if args.json { serde_json::to_string_pretty(&found.0)? } else { text(&found.0) })?;
    Ok(n_wrong == 0)
}

fn text(found: &[Finding]) -> String {
    let mut lines = Vec::new();
    for Finding { of, state, seen, advice } in found {
        let state = match state {
            State::Ok => "ok",
            State::Warning => "warning",
            State::Wrong => "WRONG",
        };
        lines.push(format!("{state:<8} {of:<14} {seen}"));
        lines.extend(advice.as_ref().map(|advice| format!("{:23} {advice}", "->")));
    }
    let count = |state: State| found.iter().filter(|finding| finding.state == state).count();
    let (n_wrong, n_warnings) = (count(State::Wrong), count(State::Warning));
    lines.push(match (n_wrong, n_warnings) {
        (0, 0) => "all is as it must be".to_owned(),
        _ => format!("wrong: {n_wrong}, warnings: {n_warnings}"),
    });
    lines.join("\n")
}

/// The file of options and the variables.
fn options(found: &mut Findings, root: &Command, around: &Environment) {
    use std::os::unix::fs::PermissionsExt;
    const OF: &str = "options";
    let path = &around.file.path;
    if let Ok(file) = std::fs::metadata(path) {
        let is_open = file.permissions().mode() & 0o077 != 0;
        let path = path.display();
        match is_open && around.file.has_secrets() {
            true => found.warning(
                OF,
                format!("{path} holds secrets, and others than its owner can read it"),
                format!("chmod 600 {path}"),
            ),
            false => found.ok(OF, format!("{path} is read")),
        }
    }
    for (name, nearest) in unknown_variables(root, around) {
        let advice = nearest.map_or("unset it".to_owned(), |nearest| format!("{nearest}?"));
        found.warning(OF, format!("no option is set by the variable {name}"), advice);
    }
}

/// Whether the data root can be written and read, and lets one of two writers win.
async fn data_root(found: &mut Findings, lake: &Lake) {
    const OF: &str = "data root";
    let (name, root) = (format!("{PLACE}/{}", run_name(now())), lake.root().to_string());
    let root = without_user(&root);
    let made = missing_directories(lake);
    let tried = async {
        lake.create()?;
        let is_new = lake.create_object(&name, b"1".to_vec()).await?;
        ensure!(is_new, "{name} is there already");
        let is_refused = !lake.create_object(&name, b"2".to_vec()).await?;
        let bytes = lake.get(&name, 16).await?.context("what was written is not there")?;
        let objects = lake.objects(PLACE).await?;
        let object = objects.into_iter().find(|object| object.name == name);
        let written = object.context("what was written is not listed")?.written;
        Ok::<_, anyhow::Error>((is_refused && bytes == b"1", written))
    };
    let tried = tried.await;
    // on a disk by hand: the store would delete the directories above too, once they are empty
    let deleted = match lake.local_path(&name) {
        Some(path) => remove(&path, &made),
        None => lake.delete_if_there(&name).await,
    };
    match (tried, deleted) {
        (Ok((true, written)), Ok(())) => {
            found.ok(OF, format!("{root}: written, read, listed, deleted; the first writer wins"));
            clock(found, OF, written);
        }
        (Ok((false, _)), _) => found.wrong(
            OF,
            format!("{root} lets a second writer take the place of the first one"),
            "jobs that run at the same time would spoil each other's work: use a store that obeys \
             If-None-Match, as Amazon's, Google's, MinIO's and RustFS's do",
        ),
        (Err(error), _) | (_, Err(error)) => found.failed(
            OF,
            &error,
            "a job writes, reads, lists and deletes there: look at the address, AWS_ENDPOINT_URL, \
             the credentials and their rights",
        ),
    }
}

/// The directories of a local root that are not there, the innermost first.
fn missing_directories(lake: &Lake) -> Vec<PathBuf> {
    let Some(root) = lake.local_path("") else { return Vec::new() };
    root.ancestors().take_while(|path| !path.exists()).map(Path::to_owned).collect()
}

/// Deletes a file, its directory, and those that were made for it.
fn remove(file: &Path, made: &[PathBuf]) -> Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot delete {}", file.display()));
        }
        _ => {}
    }
    for directory in file.parent().into_iter().chain(made.iter().map(PathBuf::as_path)) {
        // one that others use meanwhile stays
        _ = std::fs::remove_dir(directory);
    }
    Ok(())
}

/// Whether another clock says the same as ours.
fn clock(found: &mut Findings, of: &'static str, theirs: DateTime<Utc>) {
    let skew = (now() - theirs).abs().to_std().unwrap_or_default();
    if skew > SKEW_MAX {
        found.warning(
            of,
            format!("its clock differs from this machine's by {} s", skew.as_secs()),
            "keep both in time, with chrony or systemd-timesyncd",
        );
    }
}

async fn kafka(found: &mut Findings, args: &Doctor, brokers: &str, around: &Environment) {
    const OF: &str = "Kafka";
    let (topics, dead_letters) = (&args.names, args.names.dead_letters());
    if let Err(error) = topics.topics() {
        found.failed(OF, &error, "give answers a topic of their own");
    }
    let names = [topics.request_topic.as_str(), topics.response_topic.as_str(), &dead_letters];
    let facts = match args.client.properties(brokers, around) {
        Ok(properties) => examine(&properties, &names).await,
        Err(error) => Err(error),
    };
    let facts = match facts {
        Ok(facts) => facts,
        Err(error) => {
            let advice = "look at --kafka; a broker must be reached by the names that it \
                          advertises (advertised.listeners), and by TLS and user where it asks";
            return found.failed(OF, &error, advice);
        }
    };
    let n_brokers = facts.first().map_or(0, |facts| facts.n_brokers);
    found.ok(OF, format!("{brokers}: {n_brokers} brokers"));
    for (name, facts) in names.iter().zip(&facts) {
        topic(found, name, facts, *name == topics.request_topic);
    }
    match codecs_that_are_missing() {
        Ok(missing) if missing.is_empty() => {
            found.ok(OF, "batches compressed by gzip, snappy, lz4 and zstd are read");
        }
        Ok(missing) => found.wrong(
            OF,
            format!("this program reads no batches compressed by {}", missing.join(", ")),
            "build it with rdkafka's features libz-static and zstd",
        ),
        Err(error) => found.failed(OF, &error, "this program's librdkafka is broken"),
    }
}

/// What must be so of a topic, and what should.
fn topic(found: &mut Findings, name: &str, facts: &TopicFacts, is_of_requests: bool) {
    const OF: &str = "Kafka";
    if facts.n_partitions == 0 {
        let advice = "a stream makes it, that of requests with as many partitions as --partitions";
        return found.warning(OF, format!("there is no topic {name}"), advice);
    }
    let n_found = found.0.len();
    if facts.n_leaderless > 0 {
        let seen = format!("{name}: {} partitions have no leader", facts.n_leaderless);
        found.wrong(OF, seen, "its brokers are down: start them");
    }
    if facts.n_replicas < 2 && facts.n_brokers > 1 {
        let seen = format!("{name}: a partition has one copy, on one of {}", facts.n_brokers);
        found.warning(OF, seen, "what was accepted is lost with that broker: replicate it");
    }
    if let Some(config) = &facts.config {
        if !config.is_whole && is_of_requests {
            let seen = format!("{name} is compacted: requests with the same key are lost");
            found.wrong(OF, seen, "set its cleanup.policy to delete");
        }
        if config.bytes_max.is_some_and(|bytes| bytes < RECORD_BYTES_MAX) {
            let bytes = config.bytes_max.unwrap_or_default();
            let seen = format!("{name} takes messages up to {bytes} bytes");
            let advice = format!(
                "a topic that is made by us takes {RECORD_BYTES_MAX}: what is larger is refused to \
                 its sender instead of kept as a dead letter"
            );
            found.warning(OF, seen, advice);
        }
        if is_of_requests && config.kept.is_some_and(|kept| kept < KEPT_MIN) {
            let hours = config.kept.unwrap_or_default().as_secs() / 3600;
            let seen = format!("{name} keeps requests for {hours} hours");
            found.warning(OF, seen, "a stream that is away longer loses them: raise retention.ms");
        }
        let (n, min) = (facts.n_replicas, config.replicas_min.unwrap_or(1));
        if min > n {
            let seen = format!("{name}: {min} copies must have a message, and there are {n}");
            found.wrong(
                OF,
                seen,
                "nothing can be written: lower min.insync.replicas, or replicate",
            );
        }
    }
    if found.0.len() == n_found {
        let (parts, copies) = (facts.n_partitions, facts.n_replicas);
        found.ok(OF, format!("{name}: {parts} partitions, {copies} copies of each"));
    }
}

/// Whether the store is what answers need, and lets this user do what jobs do.
async fn documents(found: &mut Findings, store: &Store) {
    const OF: &str = "store";
    let server = match store.server().await {
        Ok(server) => server,
        Err(error) => return found.failed(OF, &error, "the database must answer"),
    };
    let told = format!("{}, version {}", store.describe(), server.version);
    match server.has_transactions {
        true => found.ok(OF, told),
        false => found.warning(
            OF,
            told,
            "answers and offsets are not written at once: after a crash some are computed twice. \
             Make it a replica set of one: mongod --replSet, then rs.initiate()",
        ),
    }
    if let Some(theirs) = server.now_ms.and_then(DateTime::from_timestamp_millis) {
        clock(found, OF, theirs);
    }
    let id = run_name(now());
    let only_ours = Query { equal: vec![("_id".into(), json!(id))], limit: 1, ..Query::default() };
    let leases = format!("{PLACE}_offsets");
    let tried = async {
        let document = json!({ "_id": id });
        store.write_once(PLACE, std::slice::from_ref(&document)).await?;
        let lease = store.acquire(&leases, &id).await?;
        let committed = [Document::try_from(&document)?];
        store.commit(PLACE, &committed, &leases, &[lease]).await?;
        store.keep_for(PLACE, Some(Duration::from_secs(24 * 3600))).await?;
        let read = store.get(PLACE, &id).await?;
        ensure!(read.is_some(), "what was written is not there");
        Ok::<_, anyhow::Error>(())
    };
    let tried = tried.await;
    let mut deleted = Ok(());
    for collection in [PLACE, &leases] {
        if let Err(error) = store.delete(collection, &only_ours).await {
            deleted = Err(anyhow::Error::from(error));
        }
    }
    match tried.and(deleted) {
        Ok(()) => found.ok(OF, "written, committed, indexed, read and deleted"),
        Err(error) => found.failed(
            OF,
            &error,
            "jobs write, commit, index, read and delete: the user needs the role readWrite on the \
             database, and most members of the replica set must be there",
        ),
    }
}

async fn cluster(found: &mut Findings, address: &str, session: &SessionArgs) {
    const OF: &str = "cluster";
    let asked = async {
        let remote = Remote::new(address, &session.tls.load()?, PLACE)?;
        Ok::<_, anyhow::Error>((remote.version().await?, remote.size().await))
    };
    match asked.await {
        Ok((version, _)) if version != remote::VERSION => found.wrong(
            OF,
            format!("the scheduler is of Ballista {version}, this program of {}", remote::VERSION),
            "scheduler, executors and clients must be the same release: replace the older ones",
        ),
        Ok((version, Ok(size))) => {
            found.ok(OF, format!("{address}: Ballista {version}, {} tasks at a time", size.n_cores))
        }
        Ok((_, Err(error))) => found.failed(
            OF,
            &error,
            "start executors: submit-job executor --scheduler; the scheduler's log says which it \
             refused, and why",
        ),
        Err(error) => found.failed(
            OF,
            &error,
            "look at --master, and whether both ends have certificates, or none",
        ),
    }
}

/// Clock, limits, memory and disks of this machine.
fn machine(found: &mut Findings, args: &Doctor, lake: &Option<Lake>, memory_mib: usize) {
    const OF: &str = "machine";
    let built = BUILT_AFTER.parse().unwrap_or(DateTime::<Utc>::MIN_UTC);
    match now() {
        at if at < built => found.wrong(OF, format!("the clock says {at}"), "set it"),
        at => found.ok(OF, format!("the clock says {}", at.format("%Y-%m-%d %H:%M:%S UTC"))),
    }
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, _)) if soft >= OPEN_FILES_MIN => found.ok(OF, format!("{soft} open files")),
        Ok((soft, hard)) => found.warning(
            OF,
            format!("{soft} open files a process, {hard} at most"),
            format!("connections and files may need {OPEN_FILES_MIN}: ulimit -n, or LimitNOFILE="),
        ),
        Err(error) => found.warning(OF, format!("open files: {error}"), "look at ulimit -n"),
    }
    let has_mib = cluster::memory::share_mib(1);
    match memory_mib as u64 > has_mib {
        true => found.warning(
            OF,
            format!("--memory is {memory_mib} MiB, most of what is here is {has_mib} MiB"),
            format!("--memory {has_mib}: beyond its memory a job spills instead of being killed"),
        ),
        false => found.ok(OF, format!("memory for --memory {memory_mib} MiB is there")),
    }
    let root = lake.as_ref().and_then(|lake| lake.local_path(""));
    let places = [("the data root", root), ("--work", Some(args.work.clone()))];
    let temporary = ("temporary files", Some(std::env::temp_dir()));
    for (what, path) in places.into_iter().chain([temporary]) {
        let Some(path) = path else { continue };
        match free_bytes(&path) {
            Ok(free) if free < DISK_BYTES_MIN / 16 => found.wrong(
                OF,
                format!("{} MiB are free for {what}, {}", free >> 20, path.display()),
                "make room, or choose another disk",
            ),
            Ok(free) if free < DISK_BYTES_MIN => found.warning(
                OF,
                format!("{} MiB are free for {what}, {}", free >> 20, path.display()),
                "make room, or choose another disk",
            ),
            Ok(free) => found.ok(OF, format!("{} GiB are free for {what}", free >> 30)),
            Err(error) => found.failed(OF, &error, "choose a directory on a disk that is there"),
        }
    }
}

/// What the disk of a directory has left for us, or of the nearest one above that is there, which
/// must be one that we may write to.
fn free_bytes(path: &Path) -> Result<u64> {
    let path = std::path::absolute(path).with_context(|| path.display().to_string())?;
    let there = path.ancestors().find(|path| path.exists()).unwrap_or(&path);
    ensure!(there.is_dir(), "{} is no directory", there.display());
    access(there, AccessFlags::W_OK | AccessFlags::X_OK)
        .with_context(|| format!("cannot write to {}", there.display()))?;
    let disk = statvfs(there).with_context(|| there.display().to_string())?;
    Ok(disk.blocks_available() * disk.fragment_size())
}
