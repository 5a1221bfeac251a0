//! Batch prediction: requests in files and in the store, to Parquet and the collection of results.

use mongodb::bson::{self, Document, doc, serialize_to_document};
use serde_json::{Value, json};

use crate::setup::{Process, World, request, run, submit_job, uuid};

/// Runs `predict`; its exit code and what it says.
fn predict(world: &World, arguments: &[&str]) -> (i32, String) {
    let mut job = submit_job(&world.data());
    job.args(["predict", "--mongo", &world.mongo_url]);
    let output = job.args(arguments).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), said)
}

/// Three requests: an ordinary one, one that does not say how far it is, and one from an airport
/// that nobody flew from.
fn asked() -> [Value; 3] {
    let mut asked = [
        request(1, "AA", "DFW", "MEM", 20.0),
        request(2, "AA", "DFW", "MEM", -3.5),
        request(3, "AA", "XXX", "MEM", 290.0),
    ];
    asked[1]["Distance"] = json!(null);
    asked
}

/// What a stream answers, without what a batch does not say.
async fn answers_of_a_stream(world: &World) -> Vec<Value> {
    let _stream = Process::start(&mut world.stream(&["--trigger", "interval:300ms"]));
    let mut answers = Vec::new();
    for (asked, number) in asked().iter().zip(1..) {
        world.send(asked.to_string().as_bytes()).await;
        answers.push(comparable(world.answer(number).await));
    }
    answers
}

/// An answer without what is of the stream, and of how wide a number is.
fn comparable(mut answer: Document) -> Value {
    for field in ["_id", "AnsweredAt", "LateContributions"] {
        answer.remove(field);
    }
    bson::deserialize_from_document(answer).unwrap()
}

/// The results whose `_id` begins with `ids`.
async fn results_of(world: &World, ids: &str) -> Vec<Document> {
    let of_batch = doc! { "_id": { "$regex": format!("^{ids}") } };
    world.documents_of(events::PREDICTION_RESULTS, of_batch).await
}

#[tokio::test]
async fn requests_in_files_are_answered_as_a_stream_does() {
    let world = World::start().await;
    world.learn_little();
    let results = async |ids: &str| results_of(&world, ids).await;
    let want = answers_of_a_stream(&world).await;

    let mut lines = asked().map(|asked| asked.to_string()).to_vec();
    let bad = |field: &str, value: Value| {
        let mut bad = request(9, "AA", "DFW", "MEM", 1.0);
        bad[field] = value;
        bad.to_string()
    };
    lines.extend([
        bad("DepDelay", json!(null)),
        bad("DepDelay", json!(20_000)),
        bad("Carrier", json!("$ne")),
        bad("FlightDate", json!("2016-13-25")),
        bad("Distance", json!(1e6)),
        bad("UUID", json!("the first")),
        bad("Timestamp", json!("9".repeat(65))),
        "{".to_owned(),
    ]);
    let path = world.data().join("requests.jsonl");
    std::fs::write(&path, lines.join("\n")).unwrap();
    let file = path.to_str().unwrap();
    let day = ["--day", "2013-12-20"];
    let (code, said) = predict(&world, &[&[file], &day[..]].concat());
    assert!(code == 1 && said.contains("8 of 11 rows are bad"), "{said}");
    assert_eq!(results("").await, Vec::<Document>::new());
    let (code, said) = predict(&world, &[&[file, "--rejects-max", "0.8"], &day[..]].concat());
    assert!(code == 0 && said.contains("predicted 3 flights, which are in file:///"), "{said}");
    assert!(said.contains("8 rows rejected, see submit-job rejects"), "{said}");
    let rejects = run(submit_job(&world.data()).arg("rejects"));
    for (line, want) in rejects.lines().zip([
        "line 4: departure delay is missing",
        "line 5: departure delay is more than a week: 20000.0",
        "line 6: carrier is not a code: $ne",
        "line 7: flight date is missing or not a date: 2016-13-25",
        "line 8: distance is more than half the Earth's circumference: 1000000.0",
        "line 9: UUID is none: the first",
        "line 10: Timestamp has more than 64 bytes",
        "line 11: ",
    ]) {
        assert!(line.contains(want), "{want:?} is not in {line:?}");
    }
    assert_eq!(rejects.lines().count(), 8, "{rejects}");
    let found = results("2013-12-20/files/").await;
    let ids: Vec<&str> = found.iter().map(|result| result.get_str("_id").unwrap()).collect();
    assert_eq!(ids, [1, 2, 3].map(|number| format!("2013-12-20/files/{}", uuid(number))));
    assert_eq!(found.into_iter().map(comparable).collect::<Vec<_>>(), want);
}

fn what_is_no_batch_is_an_error(world: &World, file: &str) {
    for (arguments, want) in [
        (&[file, "--batch", "prediction_tasks"][..], "no file is"),
        (&[file, "--batch", "../x"], "\"../x\" names no batch"),
        (&[file, "--only", "load"], "--only load reads no files"),
        (&[file, "--only", "fetch"], "--only fetch is for what was left on the pages"),
        (&["--batch", "late"], "which files?"),
        (&["--only", "load", "--batch", "late"], "of which --day?"),
        (
            &["--only", "load", "--batch", "late", "--day", "2001-01-01"],
            "there are no predictions of the batch late of 2001-01-01",
        ),
        (&["nothing.csv"], "nothing.csv: there is no such file"),
        (&[file, "--columns", "carrier=Operator"], "there is no carrier"),
        (&["README.md"], "README.md: "),
        (&[file, "--model", "none"], "none"),
    ] {
        let (code, said) = predict(world, arguments);
        assert!(code == 1 && said.contains(want), "{arguments:?}: {said}");
    }
}

#[tokio::test]
async fn a_batch_of_a_day_takes_the_place_of_the_one_before() {
    let world = World::start().await;
    world.learn_little();
    let results = async |ids: &str| results_of(&world, ids).await;
    let path = world.data().join("requests.jsonl");
    std::fs::write(&path, asked().map(|asked| asked.to_string()).join("\n")).unwrap();
    let (file, day) = (path.to_str().unwrap(), ["--day", "2013-12-20"]);
    assert_eq!(predict(&world, &[&[file], &day[..]].concat()).0, 0);
    assert_eq!(results("").await.len(), 3);

    // another file, in another layout, without names of its rows
    let (other, table) = (world.data().join("other.csv"), "When,Carrier,Origin,Dest,DepDelay\n");
    std::fs::write(&other, format!("{table}12/25/2016,aa,dfw,mem,20\n12/25/2016,aa,dfw,mem,20\n"))
        .unwrap();
    let other = [other.to_str().unwrap(), "--columns", "flight_date=When"];
    let (code, said) = predict(&world, &[&other, &day[..]].concat());
    assert!(code == 0 && said.contains("2 predictions of 2013-12-20 are in MongoDB"), "{said}");
    let found = results("2013-12-20/files/").await;
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[0].get("Probabilities"), found[1].get("Probabilities"));
    let names = [found[0].get_str("UUID").unwrap(), found[1].get_str("UUID").unwrap()];
    assert!(names[0] != names[1] && names.iter().all(|name| name.len() == 36), "{names:?}");
    let directory = "batch_predictions/batch=files/day=2013-12-20/";
    let read = format!(
        "CREATE EXTERNAL TABLE p STORED AS PARQUET LOCATION '{}'; SELECT line, uuid FROM p;",
        world.data().join(directory).display()
    );
    let rows = run(submit_job(&world.data()).args(["sql", "-c", &read]));
    assert!(names.iter().all(|name| rows.matches(name).count() == 1), "{rows}");
    // a batch beside it, and one of the next day
    let more = [&other[..], &day, &["--batch", "late"]].concat();
    assert_eq!(predict(&world, &more).0, 0);
    assert_eq!(predict(&world, &[&other[..], &["--day", "2013-12-21"]].concat()).0, 0);
    assert_eq!(results("2013-12-20/").await.len(), 4);
    assert_eq!(results("").await.len(), 6);
    assert_eq!(predict(&world, &[&other[..], &day].concat()).0, 0);
    assert_eq!(results("").await.len(), 6, "the same file makes the same results");

    // a run whose clock was wrong, and left a result
    let of_other = doc! { "_id": "2013-12-20/files/x", "AnsweredAt": "9999-01-01T00:00:00.000Z" };
    let collection = world.collection(events::PREDICTION_RESULTS).await;
    collection.insert_one(of_other).await.unwrap();
    let load = ["--only", "load", "--batch", "files"];
    assert_eq!(predict(&world, &[&load[..], &day].concat()).0, 0);
    assert_eq!(results("").await.len(), 6);
    // a flight that has not flown has no times; one that was cancelled never will
    let table = "FlightDate,Carrier,Origin,Dest,DepDelay,DepTime,Cancelled,UUID\n";
    let rows =
        ["5,,0,", "5,,1,", "6,,0,", "7,,0,"].map(|end| format!("2016-12-25,AA,DFW,MEM,{end}"));
    let named = format!("{}\n{}{}\n{}{}\n", rows[1], rows[2], uuid(7), rows[3], uuid(7));
    let flown = world.data().join("to_fly.csv");
    std::fs::write(&flown, format!("{table}{}\n{named}", rows[0])).unwrap();
    let flown = flown.to_str().unwrap();
    let (code, said) = predict(&world, &[&[flown], &day[..]].concat());
    assert!(code == 0 && said.contains("predicted 2 flights"), "{said}");
    assert!(
        said.contains("; 1 were cancelled or have not left; 1 have a UUID that came before"),
        "{said}"
    );
    let delays = results("2013-12-20/files/").await;
    let delays: Vec<f64> = delays.iter().map(|d| d.get_f64("DepDelay").unwrap()).collect();
    assert_eq!(delays.iter().sum::<f64>(), 11.0, "{delays:?}");
    std::fs::write(flown, format!("{table}{}\n", rows[1])).unwrap();
    let (code, said) = predict(&world, &[&[flown], &day[..]].concat());
    assert!(code == 1 && said.contains("all 1 flights were cancelled or have not left"), "{said}");
    assert_eq!(results("2013-12-20/files/").await.len(), 2);
    what_is_no_batch_is_an_error(&world, file);
}

#[tokio::test]
async fn what_was_left_on_the_pages_is_fetched_scored_and_loaded() {
    let world = World::start().await;
    world.learn_little();
    let tasks = world.collection(events::PREDICTION_TASKS).await;
    let leave = async |mut task: Value, number| {
        task["_id"] = json!(format!("2013-12-20/{}", uuid(number)));
        tasks.insert_one(serialize_to_document(&task).unwrap()).await.unwrap();
    };
    for (task, number) in asked().into_iter().zip(1..) {
        leave(task, number).await;
    }
    let step = |step: &str| predict(&world, &["--day", "2013-12-20", "--only", step]);
    // steps that have nothing to do
    assert!(step("score").1.contains("nothing was fetched for 2013-12-20"));
    assert!(step("load").1.contains("there are no predictions of 2013-12-20"));
    for (name, want) in [
        ("fetch", "3 requests were left on 2013-12-20"),
        ("score", "predicted 3 flights"),
        ("load", "3 predictions of 2013-12-20 are in MongoDB"),
        // again
        ("load", "3 predictions of 2013-12-20 are in MongoDB"),
    ] {
        let (code, said) = step(name);
        assert!(code == 0 && said.contains(want), "{name}: {said}");
    }
    let results = async || world.documents_of(events::PREDICTION_RESULTS, doc! {}).await;
    let first = results().await;
    let ids: Vec<&str> = first.iter().map(|result| result.get_str("_id").unwrap()).collect();
    assert_eq!(ids, [1, 2, 3].map(|number| format!("2013-12-20/{}", uuid(number))));

    // one more, and one that cannot be read; whatever else stands in one, the others are answered
    let mut odd = request(4, "AA", "DFW", "MEM", 1.0);
    (odd["DepTime"], odd["CRSDepMinutes"]) = (json!("1000"), json!(5));
    leave(odd, 4).await;
    leave(json!({ "Carrier": "AA" }), 5).await;
    let (code, said) = predict(&world, &["--day", "2013-12-20"]);
    assert!(code == 0 && said.contains("5 requests were left"), "{said}");
    assert!(said.contains("1 of them cannot be read:"), "{said}");
    assert!(said.contains(&format!("/{}\": missing field `DepDelay`", uuid(5))), "{said}");
    assert!(said.contains("predicted 4 flights"), "{said}");
    let second = results().await;
    assert_eq!(second.len(), 4);
    let same = second.into_iter().take(3).map(comparable);
    assert!(same.eq(first.into_iter().map(comparable)));
}
