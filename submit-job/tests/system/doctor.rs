//! What the doctor finds, of real servers that are as they must be, and of others.

use std::process::Command;

use serde_json::Value;

use crate::setup::{
    ANSWERS, Cluster, DEAD_LETTERS, REQUESTS, World, free_port, run, start_s3, submit_job,
};

/// What is found, and the exit code.
fn examined(command: &mut Command) -> (Vec<Value>, i32) {
    let output = command.arg("--json").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let found = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"));
    (found, output.status.code().unwrap())
}

/// The findings of a thing that are not as they must be.
fn bad(found: &[Value], of: &str) -> Vec<String> {
    let bad = found.iter().filter(|one| one["of"] == of && one["state"] != "ok");
    bad.map(|one| {
        assert!(one["advice"].is_string(), "{one} says nothing about what to do");
        format!("{}: {}", one["state"].as_str().unwrap(), one["seen"].as_str().unwrap())
    })
    .collect()
}

#[tokio::test]
async fn servers_that_are_as_they_must_be_are_found_so_and_others_are_not() {
    let world = World::start().await;
    let large = &[("max.message.bytes", "3000000")][..];
    for topic in [REQUESTS, ANSWERS, DEAD_LETTERS] {
        world.make_topic_with(topic, 2, large).await;
    }
    let (found, code) = examined(&mut world.with_servers("doctor"));
    for of in ["Kafka", "store", "data root"] {
        assert_eq!(bad(&found, of), [""; 0], "{found:?}");
        assert!(found.iter().any(|one| one["of"] == of), "{found:?}");
    }
    assert_eq!(code, 0, "{found:?}");
    let left = world.collection("doctor").await.count_documents(Default::default()).await;
    assert_eq!(left.unwrap(), 0, "nothing is left behind");
    let root = world.data().join("doctor");
    assert!(root.read_dir().map_or(0, Iterator::count) == 0, "nothing is left behind");
    let text = run(&mut world.with_servers("doctor"));
    assert!(text.contains("ok       store") && text.contains("2 partitions"), "{text}");

    // topics that lose requests, or refuse what must get in
    world.delete_topic(REQUESTS).await;
    let settings = [("cleanup.policy", "compact"), ("max.message.bytes", "70000")];
    world.make_topic_with(REQUESTS, 1, &settings).await;
    world.delete_topic(ANSWERS).await;
    let (found, code) = examined(&mut world.with_servers("doctor"));
    let kafka = bad(&found, "Kafka");
    assert_eq!(code, 1, "{found:?}");
    assert!(kafka.iter().any(|said| said.starts_with("wrong") && said.contains("compacted")));
    assert!(kafka.iter().any(|said| said.contains("up to 70000 bytes")), "{kafka:?}");
    assert!(kafka.iter().any(|said| said.contains("there is no topic")), "{kafka:?}");
}

#[test]
fn nothing_is_left_behind_on_a_disk_and_nothing_is_taken_away() {
    let directory = tempfile::tempdir().unwrap();
    let (there, absent) = (directory.path().join("empty/root"), directory.path().join("a/b"));
    std::fs::create_dir_all(&there).unwrap();
    let doctor = |root: &std::path::Path, work: &str| {
        let mut doctor = Command::new(env!("CARGO_BIN_EXE_submit-job"));
        doctor.current_dir(&there).arg("--data").arg(root).args(["doctor", "--work", work]);
        examined(&mut doctor)
    };
    let (found, code) = doctor(&there, "work");
    assert_eq!(code, 0, "{found:?}");
    assert_eq!(there.read_dir().unwrap().count(), 0, "nothing is left behind");
    let (found, code) = doctor(&absent, "work");
    assert_eq!(code, 0, "{found:?}");
    assert!(!directory.path().join("a").exists(), "nothing is left behind");
    // a directory that is none
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    for place in [file.clone(), file.join("below")] {
        let (found, code) = doctor(&there, place.to_str().unwrap());
        assert_eq!(code, 1, "{found:?}");
        assert!(bad(&found, "machine").concat().contains("is no directory"), "{found:?}");
    }
    let (found, code) = doctor(&file, "work");
    assert!(code == 1 && !bad(&found, "data root").is_empty(), "{found:?}");
}

#[tokio::test]
async fn servers_that_are_not_there_are_named() {
    let data = tempfile::tempdir().unwrap();
    let (kafka, mongo, master) = (free_port(), free_port(), free_port());
    let mut doctor = submit_job(data.path());
    doctor.args(["doctor", "--kafka", &format!("127.0.0.1:{kafka}")]);
    doctor.args(["--mongo", &format!("mongodb://me:hunter2@127.0.0.1:{mongo}")]);
    doctor.args(["--master", &format!("df://127.0.0.1:{master}")]);
    // the password on the command line is refused too, so it is given as it should be
    doctor.env("TARMAC_GRUOP", "x");
    let (found, code) = examined(&mut doctor);
    assert_eq!(code, 1);
    let all: String = found.iter().map(ToString::to_string).collect();
    assert!(!all.contains("hunter2"), "{all}");
    assert!(bad(&found, "Kafka").concat().contains(&kafka.to_string()), "{all}");
    assert!(bad(&found, "store").concat().contains("TARMAC_MONGO"), "{all}");
    assert!(bad(&found, "cluster").concat().contains(&master.to_string()), "{all}");
    assert!(bad(&found, "options").concat().contains("TARMAC_GRUOP"), "{all}");
    let mut doctor = submit_job(data.path());
    doctor.arg("doctor").env("TARMAC_MONGO", format!("mongodb://127.0.0.1:{mongo}"));
    let (found, _) = examined(&mut doctor);
    assert!(bad(&found, "store").concat().contains(&mongo.to_string()), "{found:?}");
}

#[tokio::test]
async fn a_server_by_itself_a_bucket_and_a_cluster_are_examined() {
    let (_s3, environment) = start_s3();
    let world = World::start_as(1, false).await;
    let cluster = Cluster::start(2, &environment);
    let master = format!("df://127.0.0.1:{}", cluster.port);
    let doctor = |root: &str| {
        let mut doctor = submit_job(root.as_ref());
        doctor.args(["doctor", "--master", &master, "--mongo", &world.mongo_url]);
        doctor.envs(environment.iter().map(|(name, value)| (name, value)));
        doctor
    };
    let (found, code) = examined(&mut doctor("s3://lake/root"));
    assert_eq!(code, 0, "{found:?}");
    assert_eq!(bad(&found, "data root"), [""; 0]);
    assert_eq!(bad(&found, "cluster"), [""; 0]);
    let store = bad(&found, "store");
    assert!(store.len() == 1 && store[0].starts_with("warning"), "{store:?}");
    let (found, code) = examined(&mut doctor("s3://no-such-bucket/root"));
    assert_eq!(code, 1);
    let root = bad(&found, "data root").concat();
    assert!(root.contains("s3://no-such-bucket/root") && !root.contains("the-secret"), "{root}");
}
