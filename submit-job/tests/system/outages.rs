//! What a stream depends on goes away while there is nothing to do, comes back as something else, or
//! is set up in a way that cannot work: it says so, and goes on or ends, but never hangs.

use std::fs;
use std::time::{Duration, Instant};

use mongodb::bson::doc;

use crate::servers::Kafka;
use crate::setup::{
    ANSWERS, DEAD_LETTERS, REQUESTS, Stream, World, get, send_signal, submit_job, until,
};

fn until_ready(stream: &Stream) {
    until("it is ready", || {
        stream.meter("assigned").filter(|n| *n > 0.0)?;
        get(stream.port, "/readyz").ends_with("\r\n\r\nready\n").then_some(())
    });
}

/// Waits until it says that it is not ready, and why.
fn until_unready(stream: &Stream, why: &str) -> Duration {
    let started = Instant::now();
    until(why, || {
        let reply = get(stream.port, "/readyz");
        (reply.starts_with("HTTP/1.1 503") && reply.contains(why)).then_some(())
    });
    started.elapsed()
}

#[tokio::test]
async fn an_idle_stream_says_when_a_server_is_away_and_gives_up_as_told() {
    let mut world = World::start().await;
    world.learn_little();
    world.make_topic(1).await;
    let patient = Stream::start(&world, "patient", &["--trigger", "interval:200ms"]);
    let hasty = ["--trigger", "interval:200ms", "--group", "hasty", "--give-up-after", "10"];
    let mut hasty = Stream::start(&world, "hasty", &hasty);
    until_ready(&patient);
    until_ready(&hasty);

    // stopped, it takes connections and says nothing
    send_signal(&world.kafka.process.pid(), "STOP");
    let stopped = Instant::now();
    println!("unready after {:?}", until_unready(&patient, "Kafka does not answer"));
    let status = until("the hasty one ends", || hasty.process.0.try_wait().unwrap());
    println!("ended after {:?}", stopped.elapsed());
    let log = hasty.log();
    assert!(!status.success() && log.contains("given up: Kafka does not answer"), "{log}");
    send_signal(&world.kafka.process.pid(), "CONT");
    until_ready(&patient);

    world.mongo.processes.clear();
    println!("unready after {:?}", until_unready(&patient, "the store does not answer"));
    world.mongo.restart();
    until_ready(&patient);
    world.ask(0..3).await;
    world.answer(2).await;

    // MongoDB takes connections and says nothing, with a micro-batch under way
    send_signal(&world.mongo.processes[0].pid(), "STOP");
    world.ask(3..6).await;
    patient.wait_for("window_rows", |n| n > 0.0);
    let told = Instant::now();
    send_signal(&patient.process.pid(), "TERM");
    let mut process = patient.process;
    let status = until("it ends", || process.0.try_wait().unwrap());
    let took = told.elapsed();
    send_signal(&world.mongo.processes[0].pid(), "CONT");
    println!("ended after {took:?} with {status}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    world.catch_up(&[]);
    assert_eq!(world.answers().await.len(), 6);
}

#[tokio::test]
async fn topics_that_are_deleted_while_it_runs_are_made_again() {
    let world = World::start().await;
    world.learn_little();
    world.make_topic(1).await;
    let stream = Stream::start(&world, "s", &["--trigger", "interval:200ms"]);
    world.ask(0..5).await;
    world.send(b"nonsense").await;
    world.answer(4).await;
    world.read(DEAD_LETTERS, 1);
    world.read(ANSWERS, 5);
    for topic in [ANSWERS, DEAD_LETTERS] {
        world.delete_topic(topic).await;
    }
    world.send(b"more nonsense").await;
    world.ask(5..10).await;
    world.answer(9).await;
    assert_eq!(world.read(DEAD_LETTERS, 1)[0].0, b"more nonsense");
    assert_eq!(world.read(ANSWERS, 5).len(), 5);
    until_ready(&stream);
    stream.process.end_cleanly("the stream");
}

#[tokio::test]
async fn a_stream_that_slept_while_its_topic_was_made_again_reads_the_new_one() {
    let mut world = World::start().await;
    world.learn_little();
    world.make_topic(1).await;
    // each start of a broker raises the leader epoch, which begins anew with a topic
    for _ in 0..2 {
        world.kafka.crash();
        world.kafka.wait(&[]);
    }
    let stream = Stream::start(&world, "s", &["--trigger", "interval:200ms"]);
    world.ask(0..5).await;
    world.answer(4).await;
    send_signal(&stream.process.pid(), "STOP");
    world.delete_topic(REQUESTS).await;
    world.make_topic(1).await;
    // more than were read of the one before
    world.ask(5..12).await;
    send_signal(&stream.process.pid(), "CONT");
    world.answer(11).await;
    assert!(stream.log().contains("does not fetch what is there"), "{}", stream.log());
    until_ready(&stream);
    // the client that follows is an ordinary one
    world.ask(12..15).await;
    world.answer(14).await;
    stream.process.end_cleanly("the stream");
    assert_eq!(world.answers().await.len(), 15);
}

#[tokio::test]
async fn a_set_that_comes_back_as_a_server_by_itself_is_written_to() {
    let mut world = World::start().await;
    world.learn_little();
    world.make_topic(1).await;
    // a preference for what cannot take writes is none
    let set = format!("{}&readPreference=secondary", world.mongo_url);
    for url in [
        world.mongo.direct_url(0),
        set,
        world.mongo.direct_url(0).replace("?", "?readPreference=secondaryPreferred&"),
    ] {
        world.mongo_url = url;
        let log = world.catch_up(&[]);
        assert!(log.contains("in one transaction"), "{log}");
    }
    let plain = world.mongo.direct_url(0).replace("?directConnection=true", "");
    for (i, url) in [world.mongo.direct_url(0), plain].into_iter().enumerate() {
        let first = 100 * i as u32;
        world.mongo_url = url;
        let stream = Stream::start(&world, "s", &["--trigger", "interval:200ms"]);
        world.ask(first..first + 5).await;
        world.answer(first + 4).await;
        world.mongo.processes.clear();
        world.mongo.is_set = false;
        world.mongo.restart();
        world.ask(first + 5..first + 10).await;
        // the client of the test would look for a set
        let set = std::mem::replace(&mut world.mongo_url, world.mongo.direct_url(0));
        world.answer(first + 9).await;
        world.mongo_url = set;
        assert!(stream.log().contains("no replica set"), "{}", stream.log());
        stream.process.end_cleanly("the stream");
        world.mongo.processes.clear();
        world.mongo.is_set = true;
        world.mongo.restart();
        let admin = world.mongo.admin(0).await;
        let started = Instant::now();
        while !admin
            .run_command(doc! { "hello": 1 })
            .await
            .is_ok_and(|hello| hello.get_bool("isWritablePrimary").unwrap_or_default())
        {
            assert!(started.elapsed() < crate::setup::DEADLINE, "there is no primary");
            tokio::time::sleep(crate::setup::POLL).await;
        }
    }
}

#[tokio::test]
async fn what_cannot_work_is_refused_with_the_place_and_without_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let kafka = Kafka::start_advertised(&path("kafka"), "kafka.invalid:9092");
    kafka.wait(&[]);
    let data = path("data");
    let world_fixture = ["ingest", "--rejects-max", "0.5", "data/fixtures/bts_new.csv"];
    crate::setup::run(submit_job(&data).args(world_fixture));
    crate::setup::trained(&mut submit_job(&data), &["--trees", "3"]);
    let said = |arguments: &[&str]| {
        let mut command = submit_job(&data);
        let output = command.arg("stream").args(arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let address = kafka.address();
    let text = said(&["--kafka", &address, "--trigger", "once"]);
    assert!(text.contains("kafka.invalid:9092"), "{text}");
    let text = said(&["--kafka", "nowhere.invalid:9092", "--trigger", "once"]);
    assert!(text.contains("nowhere.invalid:9092"), "{text}");

    for topic in ["flight_delay_classification_request", DEAD_LETTERS] {
        let text = said(&["--kafka", &address, "--response-topic", topic]);
        assert!(text.contains("answers need one of their own"), "{text}");
    }
    for (name, lines, says) in [
        ("colon", "sasl.password:hunter2\nacks=0", "acks cannot be set"),
        ("many", "ssl.key.pem=-----BEGIN KEY-----\nhunter2hunter2\n-----END", "many:2"),
        ("word", "# mine\n\nhunter2", "word:3"),
        ("equals", "=hunter2", "equals:1"),
        (
            "padded",
            "ssl.key.pem=-----BEGIN KEY-----\nHunter2hunter2==\n-----END KEY-----",
            "padded:2",
        ),
        ("typo", "sasl.passwrod=hunter2", "knows no property sasl.passwrod"),
    ] {
        let file = path(name);
        fs::write(&file, lines).unwrap();
        let file = file.display().to_string();
        let text =
            said(&["--kafka", &address, "--kafka-properties", &file, "--kafka-conf", "acks=1"]);
        assert!(text.contains(says), "{name}: {text}");
        assert!(!text.to_lowercase().contains("hunter2"), "{name}: {text}");
    }
}
