//! What is old goes, what is in use stays: in the store, and under the data root.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime};

use mongodb::bson::{DateTime, doc};

use crate::setup::{DEADLINE, POLL, REJECTED, Stream, World, request, run, submit_job, uuid};

const OFFSETS: &str = "stream_offsets";
const DAY: Duration = Duration::from_secs(24 * 3600);

fn days_ago(n: u32) -> SystemTime {
    #[expect(clippy::disallowed_methods, reason = "servers and files have the real time")]
    let now = SystemTime::now();
    now - DAY * n
}

/// Lets a document have been written so many days ago.
async fn make_older(world: &World, collection: &str, id: &str, n_days: u32) {
    let before = DateTime::from_system_time(days_ago(n_days));
    let set = doc! { "$set": { "WrittenAt": before } };
    let documents = world.collection(collection).await;
    documents.update_one(doc! { "_id": id }, set).upsert(true).await.unwrap();
}

async fn written_at(world: &World, collection: &str, id: &str) -> Option<SystemTime> {
    let found = world.collection(collection).await.find_one(doc! { "_id": id }).await.unwrap();
    Some(found?.get_datetime("WrittenAt").unwrap().to_system_time())
}

async fn wait_until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(POLL).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, waiting).await.is_ok(), "{what}");
}

#[tokio::test]
async fn old_documents_go_and_those_that_are_in_use_stay() {
    let world = World::start().await;
    world.learn_little();
    world.make_topic(1).await;
    let keep = ["--keep-answers", "10d", "--keep-rejections", "forever"];
    let stream = Stream::start(&world, "stream", &keep);
    world.ask(0..4).await;
    let mut malformed = request(4, "UA", "EWR", "IAH", 0.0);
    malformed["DepDelay"] = "late".into();
    world.send(malformed.to_string().as_bytes()).await;
    for number in 0..4 {
        world.answer(number).await;
    }
    let rejected = async || written_at(&world, REJECTED, &uuid(4)).await.is_some();
    wait_until("it is rejected", rejected).await;
    let ours = world.documents_of(OFFSETS, doc! {}).await[0].get_str("_id").unwrap().to_owned();

    let old = [
        ("flight_delay_classification_response", uuid(0)),
        ("flight_delay_classification_response", uuid(1)),
        ("replayed_dead_letters", "topic/0/1/x".into()),
        ("prediction_tasks", format!("2013-01-01/{}", uuid(0))),
        ("prediction_results", format!("2013-01-01/{}", uuid(0))),
        (OFFSETS, "gone/topic/0".into()),
        ("stream_status", "gone/0".into()),
    ];
    for (collection, id) in &old {
        make_older(&world, collection, id, 91).await;
    }
    make_older(&world, REJECTED, &uuid(4), 5_000).await;
    // both groups wrote theirs before they were too old; one is still at it, with nothing to do
    make_older(&world, OFFSETS, "still-there/topic/0", 29).await;
    for (collection, id) in &old {
        let gone = async || written_at(&world, collection, id).await.is_none();
        wait_until(&format!("{id} goes from {collection}"), gone).await;
    }
    // once for what was published last, and from then on for nothing
    for _ in 0..2 {
        make_older(&world, OFFSETS, &ours, 29).await;
        let is_young = async || written_at(&world, OFFSETS, &ours).await.unwrap() > days_ago(1);
        wait_until("an idle stream keeps its offsets", is_young).await;
    }
    assert!(written_at(&world, OFFSETS, "still-there/topic/0").await.unwrap() < days_ago(28));
    assert!(written_at(&world, REJECTED, &uuid(4)).await.is_some(), "it is kept for ever");
    let left = world.answers().await;
    assert!(left.keys().eq([uuid(2), uuid(3)].iter()), "{left:?}");

    // offsets that went all the same cost work, and no answer
    world.collection(OFFSETS).await.delete_one(doc! { "_id": &ours }).await.unwrap();
    world.ask(5..6).await;
    world.answer(5).await;
    let after = world.answers().await;
    for (id, answer) in &left {
        assert_eq!(after.get(id), Some(answer), "{id}");
    }
    stream.process.end_cleanly("the stream");
}

#[tokio::test]
async fn requests_that_outlive_their_answers_are_warned_of() {
    let world = World::start().await;
    world.learn_little();
    let keep = ["--trigger", "available-now", "--keep-answers"];
    for (number, with, is_warned) in [
        (0, [("retention.ms", "864000000"), ("cleanup.policy", "delete")], true),
        (1, [("retention.ms", "-1"), ("cleanup.policy", "delete")], true),
        (2, [("retention.ms", "60000"), ("cleanup.policy", "compact")], true),
        (3, [("retention.ms", "60000"), ("cleanup.policy", "delete")], false),
    ] {
        let topic = format!("requests-{number}");
        world.make_topic_with(&topic, 1, &with).await;
        let topic = ["--request-topic", &topic];
        let mut job = world.stream(&keep);
        let told = job.arg("9d").args(topic).output().unwrap();
        let told = String::from_utf8_lossy(&told.stderr).into_owned();
        assert_eq!(told.contains("requests are kept longer"), is_warned, "{told}");
        let mut job = world.stream(&keep);
        let told = job.arg("forever").args(topic).output().unwrap();
        let told = String::from_utf8_lossy(&told.stderr).into_owned();
        assert!(!told.contains("requests are kept longer"), "{told}");
    }
}

fn set_age(path: &Path, n_days: u32) {
    let file = File::options().append(true).open(path).unwrap();
    file.set_modified(days_ago(n_days)).unwrap();
}

#[test]
fn what_the_data_root_does_not_need_any_more_is_said_and_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let fixture = "data/fixtures/bts_new.csv";
    let gc = |arguments: &[&str]| {
        run(submit_job(data).arg("gc").args(["--keep-models", "80d"]).args(arguments))
    };
    for seed in ["1", "2"] {
        run(submit_job(data).args(["ingest", "--rejects-max", "0.5", fixture]));
        run(submit_job(data).args(["train", "--trees", "1", "--force", "--seed", seed]));
    }
    let files = |place: &str| -> Vec<_> {
        // a directory goes with the last that was in it
        let found = std::fs::read_dir(data.join(place)).into_iter().flatten();
        let mut found: Vec<_> = found.map(|entry| entry.unwrap().path()).collect();
        found.sort();
        found
    };
    let unused = data.join("models").join("a".repeat(64) + ".json");
    std::fs::write(&unused, "{}").unwrap();
    let before = (files("jobs"), files("models"), files("flights"));
    let nothing = gc(&[]);
    assert_eq!(nothing, "", "nothing is old");
    for path in files("models") {
        set_age(&path, 100);
    }
    let dry = gc(&["--dry-run"]);
    assert_eq!(dry.lines().count(), 1, "{dry}");
    assert!(dry.contains(&format!("model {}", "a".repeat(64))), "{dry}");
    assert_eq!((files("jobs"), files("models"), files("flights")), before);
    assert_eq!(gc(&["--dry-run", "--keep", "aaaa"]), "");
    assert_eq!(gc(&[]), dry);
    assert!(!unused.exists());
    let gone = gc(&["--keep-jobs", "0s"]);
    assert_eq!(gone.lines().filter(|line| line.contains("  job ")).count(), 4, "{gone}");
    assert_eq!(files("jobs"), Vec::<std::path::PathBuf>::new());
    assert_eq!((files("models").len(), files("flights")), (before.1.len() - 1, before.2));
    run(submit_job(data).args(["models", "list"]));
    run(submit_job(data).args(["models", "rollback"]));
}
