//! What the stream promises, at the places where it could be broken: each step of a micro-batch's
//! commit, a change of hands, a server that is away, what could not be read.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::time::Instant;

use mongodb::bson::doc;
use serde_json::Value;

use crate::setup::{
    ANSWERS, DEAD_LETTERS, DEADLINE, POLL, Process, REQUESTS, Stream, World, get, run, send_signal,
    submit_job, until, uuid,
};

/// Offset of the first message that the store does not count as done.
async fn next(world: &World) -> i64 {
    let offsets = world.documents_of("stream_offsets", doc! {}).await;
    offsets.first().map_or(0, |offsets| offsets.get_i64("next").unwrap())
}

/// Every record of the response topic is what the store has, and every answer is there.
async fn check_topic(world: &World) {
    let answers = world.answers().await;
    let mut told = BTreeMap::new();
    for (value, _) in world.read_all(ANSWERS) {
        let record: Value = serde_json::from_slice(&value).unwrap();
        let uuid = record["UUID"].as_str().unwrap().to_owned();
        let stored: Value =
            mongodb::bson::deserialize_from_document(answers[&uuid].clone()).unwrap();
        assert_eq!(record, stored, "what the topic tells is what the store has");
        *told.entry(uuid).or_insert(0) += 1;
    }
    assert!(told.keys().eq(answers.keys()), "{} of {} are told", told.len(), answers.len());
}

#[tokio::test]
async fn a_job_that_dies_at_any_step_leaves_each_request_answered_once() {
    let world = World::start().await;
    let models = world.learn_little();
    world.make_topic(1).await;
    let bounded = ["--trigger", "available-now"];
    // how many of the micro-batch's answers are in the store, and in the topic, when it has died
    for (i, (step, stored, told)) in
        [("scored", 0, 0), ("stored", 20, 0), ("published", 20, 20)].into_iter().enumerate()
    {
        let first = 100 * (1 + i as u32);
        let before = world.answers().await;
        let n_told = world.read_all(ANSWERS).len();
        world.ask(first..first + 20).await;
        world.send(format!("nonsense {step}").as_bytes()).await;
        let died = world.stream(&bounded).args(["--crash-at", step]).status().unwrap();
        assert_eq!(died.signal(), Some(6), "{step}: {died}");

        let seen = world.answers().await;
        assert_eq!(seen.len() - before.len(), stored, "{step}");
        assert_eq!(world.read_all(ANSWERS).len() - n_told, told, "{step}");
        // whoever goes on has another model, so that an answer that changes is seen
        run(submit_job(&world.data()).args(["models", "promote", &models[(i + 1) % 2]]));
        run(&mut world.stream(&bounded));
        let after = world.answers().await;
        assert_eq!(after.len() - before.len(), 20, "{step}");
        for (uuid, document) in seen {
            assert_eq!(after[&uuid], document, "{step}: it has changed");
        }
        assert_eq!(next(&world).await, 21 * (1 + i as i64), "{step}");
        check_topic(&world).await;
    }
    let mut letters: Vec<Vec<u8>> =
        world.read_all(DEAD_LETTERS).into_iter().map(|letter| letter.0).collect();
    letters.dedup();
    assert_eq!(
        letters,
        [b"nonsense scored".to_vec(), b"nonsense stored".into(), b"nonsense published".into()]
    );
}

#[tokio::test]
async fn a_job_that_dies_inside_its_transaction_leaves_nothing_of_it() {
    let world = World::start().await;
    world.learn_little();
    world.make_topic(1).await;
    world.ask(0..20).await;
    // the offsets are moved, the answers are about to be written
    die_at_insert(&world, "alwaysOn".into(), || async {}).await;
    assert_eq!((world.answers().await.len(), next(&world).await), (0, 0));
    // in micro-batches that follow each other at once
    run(&mut world.stream(&["--trigger", "available-now", "--max-rows", "3"]));
    assert_eq!((world.answers().await.len(), next(&world).await), (20, 20));
    let offsets = &world.documents_of("stream_offsets", doc! {}).await[0];
    assert_eq!(offsets.get_i64("published").unwrap(), 20);
    check_topic(&world).await;
}

#[tokio::test]
async fn a_job_that_dies_between_two_transactions_has_stored_partitions_whole() {
    let world = World::start().await;
    world.learn_little();
    world.make_topic(2).await;
    world.ask_evenly(1_000).await;
    // one of the two is let through
    die_at_insert(&world, doc! { "skip": 1 }.into(), || async {
        let started = Instant::now();
        while world.answers().await.is_empty() {
            assert!(started.elapsed() < DEADLINE, "nothing is stored");
            tokio::time::sleep(POLL).await;
        }
    })
    .await;
    let answers = world.answers().await;
    let stored = async || -> Vec<i64> {
        let mut next = world.documents_of("stream_offsets", doc! {}).await;
        next.sort_by_key(|offsets| offsets.get_str("_id").unwrap().to_owned());
        next.iter().map(|offsets| offsets.get_i64("next").unwrap()).collect()
    };
    let whole = stored().await.iter().position(|next| *next == 500).unwrap() as u32;
    let of_whole: BTreeSet<String> = (0..1_000).filter(|n| n % 2 == whole).map(uuid).collect();
    assert!(of_whole.iter().eq(answers.keys()), "{} are stored of {whole}", answers.len());
    assert_eq!(stored().await.iter().sum::<i64>(), 500);
    run(&mut world.stream(&["--trigger", "available-now"]));
    assert_eq!((world.answers().await.len(), stored().await), (1_000, vec![500, 500]));
    check_topic(&world).await;
}

#[tokio::test]
async fn of_two_transactions_the_one_that_failed_is_tried_again() {
    let world = World::start().await;
    world.learn_little();
    world.make_topic(2).await;
    world.ask_evenly(1_000).await;
    let fail = doc! {
        "configureFailPoint": "failCommand", "mode": { "times": 1 },
        "data": { "failCommands": ["insert"], "errorCode": 112 },
    };
    world.mongo.admin(0).await.run_command(fail).await.unwrap();
    let log = world.catch_up(&[]);
    assert_eq!(log.matches("trying again").count(), 1, "{log}");
    assert!(log.contains("stream ended messages=1000 answered=1000 repeated=0"), "{log}");
    assert_eq!(world.answers().await.len(), 1_000);
    check_topic(&world).await;
}

/// Starts a job whose inserts do not return, those that `mode` means, and kills it after `before`.
async fn die_at_insert<F: Future<Output = ()>>(
    world: &World,
    mode: mongodb::bson::Bson,
    before: impl FnOnce() -> F,
) {
    let admin = world.mongo.admin(0).await;
    let hang = doc! { "failCommands": ["insert"], "blockConnection": true, "blockTimeMS": 10_000 };
    let fail = |mode: mongodb::bson::Bson| {
        doc! {
            "configureFailPoint": "failCommand", "mode": mode, "data": hang.clone(),
        }
    };
    admin.run_command(fail(mode)).await.unwrap();
    let job = Process::start(&mut world.stream(&["--trigger", "available-now"]));
    let reached = doc! {
        "waitForFailPoint": "failCommand", "timesEntered": 1,
        "maxTimeMS": DEADLINE.as_millis() as i64,
    };
    admin.run_command(reached).await.unwrap();
    before().await;
    // a Process is killed when it is dropped
    drop(job);
    admin.run_command(fail("off".into())).await.unwrap();
}

#[tokio::test]
async fn a_job_that_was_away_changes_nothing_and_comes_back() {
    let world = World::start().await;
    let models = world.learn_little();
    world.make_topic(2).await;
    // the first has read them, and has not answered yet
    let first = Stream::start(&world, "first", &["--trigger", "interval:15s"]);
    first.wait_for("assigned", |n| n == 2.0);
    // some are answered by the one that will be away
    world.ask(100..110).await;
    for number in 100..110 {
        world.answer(number).await;
    }
    let stopped = world.answers().await;
    world.ask(0..30).await;
    first.wait_for("window_rows", |n| n == 30.0);
    send_signal(&first.process.pid(), "STOP");
    assert_eq!((stopped.len(), world.answers().await.len()), (10, 10));
    run(submit_job(&world.data()).args(["models", "promote", &models[1]]));
    let second = Stream::start(&world, "second", &["--trigger", "interval:200ms"]);
    until("the others' answers", || second.meter("messages_total").filter(|n| *n > 0.0));
    let mut seen = BTreeMap::new();
    let started = Instant::now();
    while seen.len() < 40 {
        assert!(started.elapsed() < DEADLINE, "{} of 40 are answered", seen.len());
        tokio::time::sleep(POLL).await;
        seen = world.answers().await;
    }
    send_signal(&first.process.pid(), "CONT");
    first.wait_for("rebalances_total{event=\"lost\"}", |n| n >= 1.0);
    assert!(first.log().contains("partitions lost: another member may have them already"));
    // both are at work again
    first.wait_for("assigned", |n| n == 1.0);
    second.wait_for("assigned", |n| n == 1.0);
    world.ask(30..60).await;
    for number in 30..60 {
        world.answer(number).await;
    }
    let after = world.answers().await;
    assert!(seen.iter().all(|(uuid, document)| after[uuid] == *document));
    assert!(stopped.iter().all(|(uuid, document)| after[uuid] == *document));
    first.process.end_cleanly("the first");
    second.process.end_cleanly("the second");
    check_topic(&world).await;
}

#[tokio::test]
async fn a_store_that_is_away_is_waited_for_or_given_up_as_told() {
    let mut world = World::start().await;
    world.learn_little();
    world.make_topic(1).await;
    let stream = Stream::start(&world, "patient", &["--trigger", "interval:200ms"]);
    world.ask(0..5).await;
    world.answer(4).await;
    until("it is ready", || get(stream.port, "/readyz").ends_with("ready\n").then_some(()));
    assert!(get(stream.port, "/healthz").ends_with("ok\n"));

    world.mongo.processes.clear();
    world.ask(5..10).await;
    stream.wait_for("sink_retries_total{sink=\"store\"}", |n| n >= 2.0);
    let unready = get(stream.port, "/readyz");
    assert!(unready.starts_with("HTTP/1.1 503") && unready.contains("store"), "{unready}");
    let mut hasty = world.stream(&["--trigger", "available-now", "--group", "hasty"]);
    let hasty = hasty.args(["--give-up-after", "1"]).output().unwrap();
    let said = String::from_utf8_lossy(&hasty.stderr);
    assert!(!hasty.status.success() && said.contains("no MongoDB answers at"), "{said}");

    world.mongo.restart();
    world.answer(9).await;
    until("it is ready again", || get(stream.port, "/readyz").ends_with("ready\n").then_some(()));
    assert_eq!(world.read_all(DEAD_LETTERS), [], "a fault of the store is no fault of a message");
    stream.process.end_cleanly("the patient stream");

    // one that is told to end while it still looks for the store
    let mongod = world.mongo.processes[0].pid();
    send_signal(&mongod, "STOP");
    let starting = Process::start(&mut world.stream(&["--trigger", "interval:200ms"]));
    until("signals are listened to", || catches_sigterm(&starting.pid()).then_some(()));
    send_signal(&starting.pid(), "TERM");
    send_signal(&mongod, "CONT");
    starting.end_cleanly("the starting stream");
}

/// Whether a process has said what it does at a SIGTERM.
fn catches_sigterm(pid: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
    caught & 1 << (15 - 1) != 0
}

#[tokio::test]
async fn a_dead_letter_that_can_be_read_now_is_answered() {
    let world = World::start().await;
    world.learn_little();
    world.make_topic(1).await;
    let bounded = ["--trigger", "available-now"];
    world.send(b"nonsense").await;
    world.ask(1..3).await;
    run(world.stream(&bounded).args(["--message-bytes-max", "100"]));
    assert_eq!(world.answers().await.len(), 0);
    let rejected = world.documents_of("flight_delay_classification_rejected", doc! {}).await;
    assert_eq!(rejected.len(), 2);

    let dlq = |arguments: &[&str]| {
        let mut command = submit_job(&world.data());
        let (action, rest) = arguments.split_first().unwrap();
        run(command.args(["dlq", action, "--kafka", &world.brokers]).args(rest))
    };
    let listed = dlq(&["list"]);
    assert_eq!(listed.lines().count(), 4, "{listed}");
    let large = "reason LIKE '%exceeds the limit of 100%' AND source_offset >= 2";
    let listed = dlq(&["list", "--where", large]);
    assert_eq!(listed.lines().count(), 2, "{listed}");
    assert!(listed.contains("0/2") && listed.contains("exceeds"), "{listed}");
    let shown = dlq(&["show", "--where", "source_offset = 0"]);
    assert!(shown.contains("value: nonsense") && shown.contains("key: a key"), "{shown}");
    assert!(shown.contains("__connect.errors.connector.name: tarmac-stream"), "{shown}");

    let n_requests = || world.read_all(REQUESTS).len();
    dlq(&["replay", "--where", large]);
    run(&mut world.stream(&bounded));
    assert!(world.answers().await.keys().eq([&uuid(2)]));
    // what was sent is not sent again, unless told: what is answered stays, nonsense is nonsense
    let before = world.answers().await[&uuid(2)].clone();
    assert_eq!(dlq(&["replay", "--where", large]), "");
    assert_eq!(n_requests(), 4);
    dlq(&["replay", "--again"]);
    assert_eq!(n_requests(), 7);
    run(&mut world.stream(&bounded));
    let after = world.answers().await;
    assert!(after.keys().eq([&uuid(1), &uuid(2)]) && after[&uuid(2)] == before);
    assert_eq!(world.read_all(DEAD_LETTERS).len(), 4);

    let mut wrong = submit_job(&world.data());
    wrong.args(["dlq", "list", "--kafka", &world.brokers, "--where", "colour = 1"]);
    let wrong = wrong.output().unwrap();
    let said = String::from_utf8_lossy(&wrong.stderr);
    assert!(!wrong.status.success() && said.contains("--where colour = 1"), "{said}");
}

#[tokio::test]
async fn a_champion_is_replaced_and_a_challenger_is_only_counted() {
    let world = World::start().await;
    let models = world.learn_little();
    world.make_topic(1).await;
    let shadow = &models[1][..12];
    let stream = Stream::start(&world, "s", &["--trigger", "interval:100ms", "--shadow", shadow]);
    world.ask(0..10).await;
    let version = world.answer(9).await.get_str("ModelVersion").unwrap().to_owned();
    assert_eq!(version, models[0]);
    let agreed = |answer| format!("shadow_rows_total{{agrees=\"{answer}\"}}");
    until("the challenger is counted", || {
        let n = ["yes", "no"].map(|answer| stream.meter(&agreed(answer)).unwrap_or(0.0));
        (n.iter().sum::<f64>() == 10.0).then_some(())
    });
    assert_eq!(stream.meter(&format!("model{{version=\"{version}\"}}")), Some(1.0));
    stream.wait_for("lag{partition=\"0\"}", |lag| lag == 0.0);
    assert!(stream.meter("drift_psi{feature=\"origin\"}").unwrap() > 0.0);
    assert_eq!(stream.meter("drift_rows"), Some(10.0));
    assert_eq!(stream.meter("latency_seconds_count"), Some(10.0));
    assert_eq!(stream.meter("phase_seconds_count{phase=\"store\"}"), stream.meter("windows_total"));

    // a broken artefact is refused, and the old one stays
    let broken = "0".repeat(64);
    let path = world.data().join("models");
    std::fs::write(path.join(format!("{broken}.json")), "{}").unwrap();
    std::fs::write(path.join("champion"), format!("{broken}\n{version}\n")).unwrap();
    let mut number = 10;
    while stream.meter("models_refused_total") != Some(1.0) {
        world.ask(number..number + 1).await;
        let answer = world.answer(number).await;
        assert_eq!(answer.get_str("ModelVersion").unwrap(), version);
        number += 1;
    }
    assert!(stream.log().contains("champion is refused"));
    let mut promoted = submit_job(&world.data());
    let promoted = promoted.args(["models", "promote", &broken]).output().unwrap();
    assert!(!promoted.status.success(), "what cannot be read is not promoted");

    run(submit_job(&world.data()).args(["models", "promote", &models[1]]));
    until("the new champion serves", || {
        stream.meter(&format!("model{{version=\"{}\"}}", models[1])).or_else(|| {
            // it is looked for when there is a micro-batch
            futures::executor::block_on(world.ask(number..number + 1));
            number += 1;
            None
        })
    });
    let listed = run(submit_job(&world.data()).args(["models", "list"]));
    assert!(listed.lines().nth(1).unwrap().starts_with(&models[1][..12]), "{listed}");
    assert!(listed.contains("champion") && listed.contains("cannot be read"), "{listed}");
    let shown = run(submit_job(&world.data()).args(["models", "show", &models[0][..12]]));
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown["model"], &shown["params"]["seed"]), (&Value::from(&*models[0]), &1.into()));
    let diff = run(submit_job(&world.data()).args(["models", "diff", &models[0]]));
    assert!(diff.contains("params.seed: 1 | 2"), "{diff}");
    stream.process.end_cleanly("the stream");
}
