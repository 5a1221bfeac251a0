//! What the first version left behind (`data/fixtures/first_version`, made by
//! `data/fixtures/make_first_version.sh`) is read, and gone on with.

use std::net::TcpStream;
use std::path::Path;

use serde_json::Value;
use store::{Query, Store};

use super::setup::*;

/// Requests that the first version answered.
const ANSWERED: u32 = 5;
/// What it read: one was no request.
const MESSAGES: u32 = 6;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}

/// A request as the first version got it.
fn asked(number: u32, delay: u32) -> Value {
    let mut asked = request(number, "UA", "EWR", "IAH", f64::from(delay));
    asked["Distance"] = 1400.0.into();
    asked
}

#[tokio::test]
async fn what_the_first_version_left_is_gone_on_with() {
    let world = World::start_as(0, true).await;
    copy(&repository().join("data/fixtures/first_version"), &world.data());
    let job = |words: &[&str]| run(submit_job(&world.data()).args(words));
    let read = async |collection: &str| {
        let store = Store::embedded(&world.data().join("store.sqlite")).unwrap();
        store.find(collection, &Query { limit: 100, ..Query::default() }).await.unwrap()
    };
    let before = read(ANSWERS).await;
    assert_eq!(before.len(), ANSWERED as usize);

    let counted = job(&["sql", "-c", "SELECT COUNT(*), COUNT(carrier) FROM flights"]);
    assert_eq!(counted.matches("| 10 ").count(), 2, "{counted}");
    let models = job(&["models", "list"]);
    let model = before[0]["ModelVersion"].as_str().unwrap();
    assert!(models.contains(&model[..12]) && models.contains("champion"), "{models}");
    assert!(job(&["--list"]).contains("train"));

    // the topic as it was then, and two requests behind
    world.make_topic(1).await;
    for _ in 0..MESSAGES {
        world.send(b"answered long ago").await;
    }
    for (number, delay) in [(7, 9), (8, 45)] {
        world.send(asked(number, delay).to_string().as_bytes()).await;
    }
    let log = world.catch_up(&[]);
    assert!(log.contains("offsets={0: 6}"), "{log}");
    let after = read(ANSWERS).await;
    let of = |number: u32| {
        let is_it = |answer: &&Value| answer["UUID"] == uuid(number).as_str();
        after.iter().find(is_it).unwrap()
    };
    assert_eq!(after.len(), before.len() + 2);
    for answer in &before {
        assert!(after.contains(answer), "{answer}");
    }
    // the model says what it said
    for (then, now) in [(1, 7), (5, 8)] {
        for field in ["Prediction", "Probabilities", "ModelVersion"] {
            assert_eq!(of(then)[field], of(now)[field], "{field} of {then}");
        }
    }

    let port = free_port();
    let mut web = world.with_servers("web");
    let web = Process::start(web.args(["--listen", &format!("127.0.0.1:{port}")]));
    until("the web server listens", || TcpStream::connect(("127.0.0.1", port)).ok());
    let id = uuid(1);
    let path = format!("/flights/delays/predict/classify_realtime/response/{id}");
    assert_eq!(json_of(&get(port, &path))["prediction"]["UUID"], id.as_str());
    for path in [format!("/flights/delays/predict_kafka?id={id}"), "/airlines".into()] {
        let page = get(port, &path);
        assert!(page.starts_with("HTTP/1.1 200"), "{path}: {page}");
    }
    let rejected = get(port, &path.replace(&id, &uuid(6)));
    assert_eq!(json_of(&rejected)["status"], "REJECTED", "{rejected}");
    web.end_cleanly("the web server");

    job(&["ingest", "--rejects-max", "0.5", "data/fixtures/bts_new.csv"]);
    job(&["train", "--preset", "original", "--trees", "3", "--force"]);
    job(&["publish"]);
    let counted = job(&["sql", "-c", "SELECT COUNT(crs_dep_utc) > 0 AS has FROM flights"]);
    assert!(counted.contains("true"), "{counted}");
    let models = job(&["models", "list"]);
    assert!(models.contains(&model[..12]), "{models}");
}
