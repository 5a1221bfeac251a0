//! How answers turned out: arrivals from Kafka, flights that were ingested, and the champion that
//! is taken back.

use serde_json::{Value, json};

use crate::setup::{World, request, run, submit_job, trained};

const ARRIVALS: &str = "flight_arrivals";
const DAYS: [&str; 4] = ["--since", "2016-12-25", "--until", "2019-03-31"];

/// Runs `evaluate --live`; its exit code, what it prints, and what it says.
fn evaluate(world: &World, arguments: &[&str]) -> (i32, Value, String) {
    let mut job = world.with_servers("evaluate");
    let output = job.arg("--live").args(arguments).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let printed = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code().unwrap(), printed, said)
}

fn champion(world: &World) -> Value {
    serde_json::from_str(&run(submit_job(&world.data()).args(["models", "show"]))).unwrap()
}

/// Request `number`, about the flight of that number.
fn asked(number: u32, delay: f64) -> Value {
    let mut asked = request(number, "AA", "DFW", "MEM", delay);
    asked["FlightNum"] = json!(number.to_string());
    asked
}

/// What became of that flight.
fn arrived(number: u32, what: &Value) -> Value {
    let mut arrived = json!({
        "Carrier": "aa", "FlightDate": "2016-12-25", "Origin": "DFW", "Dest": "MEM",
        "FlightNum": number,
    });
    arrived.as_object_mut().unwrap().extend(what.as_object().unwrap().clone());
    arrived
}

/// Asks about ten flights, and one that was ingested.
async fn ask(world: &World) {
    for number in 1..=10 {
        world.send(asked(number, f64::from(number)).to_string().as_bytes()).await;
    }
    let mut ingested = asked(1519, 12.0);
    ingested["FlightDate"] = json!("2019-03-04");
    world.send(ingested.to_string().as_bytes()).await;
    world.catch_up(&[]);
}

/// What is told of them. Flight 1 twice, the last time it is right; of flight 7 nothing, and of one
/// that nobody asked about.
fn told() -> Vec<String> {
    let mut told = vec![arrived(1, &json!({ "ArrDelay": -30 }))];
    for number in 1..=4 {
        told.push(arrived(number, &json!({ "ArrDelay": 200, "DepDelay": number })));
    }
    told.extend([
        arrived(
            5,
            &json!({ "CRSArrTime": "2350", "ArrTime": 310.0, "CRSDepTime": 2355, "DepTime": 0 }),
        ),
        arrived(6, &json!({ "ArrDelay": 200, "DepDelay": 180 })),
        arrived(8, &json!({ "Cancelled": 1 })),
        arrived(9, &json!({ "Diverted": true })),
        arrived(77, &json!({ "ArrDelay": 0 })),
        arrived(10, &json!({ "ArrDelay": "soon" })),
        json!("landed"),
    ]);
    told.iter().map(Value::to_string).collect()
}

#[tokio::test]
async fn answers_are_held_against_what_became_of_the_flights() {
    let world = World::start().await;
    let [first, _] = world.learn_little();
    world.make_topic(1).await;
    ask(&world).await;
    let (code, _, said) = evaluate(&world, &DAYS);
    assert!(code == 0 && said.contains("there is no topic flight_arrivals of arrivals"), "{said}");
    world.make_topic_with(ARRIVALS, 1, &[]).await;
    world.produce(ARRIVALS, &[], &told());

    let (code, printed, said) = evaluate(&world, &DAYS);
    assert_eq!(code, 0, "{said}");
    for want in [
        "12 messages came on flight_arrivals",
        "2 of them are no arrivals:",
        "flight_arrivals/0/10: ArrDelay: expected a number, not \"soon\"",
        "flight_arrivals/0/11: message is not a JSON object",
    ] {
        assert!(said.contains(want), "{want:?} is not in {said}");
    }
    let of = printed["days"][0].clone();
    for (field, want) in [
        ("Day", json!("2016-12-25")),
        ("Model", json!(first)),
        ("Answers", json!(10)),
        ("Known", json!(5)),
        ("Supposed", json!(1)),
        ("NeverArrived", json!(2)),
        ("Unmatched", json!(2)),
        ("Ambiguous", json!(0)),
    ] {
        assert_eq!(of[field], want, "{field}: {of}");
    }
    assert_eq!((&printed["unasked"], &printed["unread"]), (&json!(1), &json!(0)));
    // what was answered is what is judged
    let (mut loss, mut n_right) = (0.0, 0);
    for number in 1..=5 {
        let answer = world.answer(number).await;
        let shares = answer.get_array("Probabilities").unwrap();
        loss -= shares[3].as_f64().unwrap().max(1e-15).ln() / 5.0;
        n_right += i32::from(answer.get_i32("Prediction").unwrap() == 3);
    }
    assert!((of["LogLoss"].as_f64().unwrap() - loss).abs() < 1e-6, "{of}: {loss}");
    assert_eq!(of["Accuracy"], json!(f64::from(n_right) / 5.0));
    let (ingested, total) = (&printed["days"][1], &printed["models"][0]);
    assert_eq!((&ingested["Known"], &ingested["Answers"]), (&json!(1), &json!(1)), "{ingested}");
    assert_eq!((&total["Known"], &total["Answers"]), (&json!(6), &json!(11)), "{total}");

    // an answer without a number is not about the flight that landed first
    let mut unnumbered = asked(1, 1.0);
    unnumbered["FlightNum"] = json!(null);
    unnumbered["UUID"] = json!(crate::setup::uuid(99));
    world.send(unnumbered.to_string().as_bytes()).await;
    world.catch_up(&[]);
    let (_, printed, _) = evaluate(&world, &DAYS);
    let of = &printed["days"][0];
    assert_eq!((&of["Unmatched"], &of["Known"]), (&json!(3), &json!(5)), "{of}");

    // what came is not taken in twice, and what could not be read is kept
    let (_, again, said) = evaluate(&world, &DAYS);
    assert!(said.contains("0 messages came on flight_arrivals"), "{said}");
    assert_eq!(again, printed);
    let kept = world.documents_of(events::ARRIVAL_REJECTIONS, mongodb::bson::doc! {}).await;
    let kept: Vec<&str> = kept.iter().map(|kept| kept.get_str("Message").unwrap()).collect();
    assert_eq!(kept, [told()[10].as_str(), "\"landed\""]);
    let days = world.documents_of(events::LIVE_EVALUATIONS, mongodb::bson::doc! {}).await;
    assert_eq!(days.len(), 2, "{days:?}");

    // a topic of the same length under the same name is another one
    world.delete_topic(ARRIVALS).await;
    world.make_topic_with(ARRIVALS, 1, &[]).await;
    let all = (1..=12).map(|n| arrived(n, &json!({ "ArrDelay": 1, "DepDelay": n })).to_string());
    world.produce(ARRIVALS, &[], &all.collect::<Vec<_>>());
    let (_, printed, said) = evaluate(&world, &DAYS);
    assert!(said.contains("another log, read from its beginning: flight_arrivals/0: "), "{said}");
    assert_eq!(printed["days"][0]["Known"], json!(10), "{printed}");
}

#[tokio::test]
async fn a_champion_that_does_badly_is_taken_back() {
    let world = World::start().await;
    let [first, second] = world.learn_little();
    let models = |arguments: &[&str]| run(submit_job(&world.data()).arg("models").args(arguments));
    models(&["promote", &second]);
    models(&["promote", &first]);
    world.make_topic(1).await;
    ask(&world).await;
    world.make_topic_with(ARRIVALS, 1, &[]).await;
    world.produce(ARRIVALS, &[], &told());
    let bounded =
        |bounds: &[&str]| evaluate(&world, &[&DAYS[..], &["--auto-rollback"], bounds].concat());

    // within its bound, or with too few answers to tell
    for bounds in [
        &["--log-loss-max", "100", "--answers-min", "6"][..],
        &["--log-loss-max", "0.001", "--answers-min", "7"],
        &["--log-loss-max", "0.001"],
        &["--drift-max", "0.001"],
    ] {
        let (code, printed, said) = bounded(bounds);
        assert!(code == 0 && printed["taken_back"].is_null(), "{bounds:?}: {said}");
        assert_eq!(champion(&world)["model"], json!(first), "{bounds:?}");
    }
    let (code, printed, said) = bounded(&["--log-loss-max", "0.001", "--answers-min", "6"]);
    let want = format!("champion is {second} again; {first} is not any more: live log loss ");
    assert!(code == 0 && said.contains(&want), "{said}");
    let back = (&printed["taken_back"], &printed["champion"]);
    assert_eq!(back, (&json!(first), &json!(second)));
    let shown = champion(&world);
    assert_eq!(shown["model"], json!(second));
    let mark = shown["decisions"][0].as_str().unwrap();
    let want = "champion again: the one after it was taken back: live log loss ";
    assert!(mark.starts_with(want) && mark.ends_with("of 6 answers is above 0.001"), "{mark}");
    let gone: Value = serde_json::from_str(&models(&["show", &first])).unwrap();
    let mark = gone["decisions"][0].as_str().unwrap();
    assert!(mark.starts_with("not champion any more: it was taken back: live log"), "{mark}");

    // the same bytes are not promoted again because they did well on flights of before
    let small = ["--preset", "original", "--trees", "3", "--seed", "1"];
    let again = trained(&mut submit_job(&world.data()), &small);
    assert_eq!((&again["model"], &again["promoted"]), (&json!(first), &json!(false)));
    let decision = again["decision"].as_str().unwrap();
    let want = "not champion: it was, and was taken back: live log loss ";
    assert!(decision.starts_with(want), "{decision}");

    // which has not answered yet, and has none before it
    let (code, printed, _) = bounded(&["--log-loss-max", "0.001", "--answers-min", "1"]);
    assert!(code == 0 && printed["taken_back"].is_null(), "{printed}");
    let mut status = json!({
        "_id": "tarmac-stream/0", "Model": second, "Messages": 5000, "MessagesPerSecond": 1.0,
        "Lag": 0, "Drift": { "carrier": 0.75, "day_of_year": 9.0, "prediction": 9.0 },
    });
    let statuses = world.collection(events::STREAM_STATUS).await;
    let now = submit_job::config::now();
    let long_ago = now - chrono::TimeDelta::minutes(6);
    for (n_rows, at, is_said) in [(499, now, false), (500, long_ago, false), (500, now, true)] {
        status["DriftRows"] = json!(n_rows);
        status["At"] = json!(events::PredictionRequest::timestamp(at));
        statuses.delete_many(mongodb::bson::doc! {}).await.unwrap();
        let document = mongodb::bson::serialize_to_document(&status).unwrap();
        statuses.insert_one(document).await.unwrap();
        let (_, _, said) = bounded(&["--drift-max", "0.5"]);
        let want = format!(
            "{second} stays the champion, because there was none before: carrier drifted by \
             0.7500 in tarmac-stream/0, above 0.5"
        );
        assert_eq!(said.contains(&want), is_said, "{said}");
    }
    let (_, _, said) = bounded(&["--drift-max", "0.8"]);
    assert!(!said.contains("stays the champion"), "{said}");

    // what it answered before it was the champion again does not count
    models(&["promote", &first]);
    let (_, printed, said) = bounded(&["--log-loss-max", "0.001", "--answers-min", "1"]);
    assert!(printed["taken_back"].is_null() && printed["models"][0]["Known"] == json!(6), "{said}");
}

#[test]
fn what_cannot_be_judged_is_refused_before_anything_is_done() {
    let data = tempfile::tempdir().unwrap();
    for (arguments, want) in [
        (&["--since", "2016-12-25"][..], "--live"),
        (&["--live", "--auto-rollback"], "only with --log-loss-max or --drift-max"),
        (&["--live", "--log-loss-max", "1"], "--auto-rollback"),
        (&["--live", "--auto-rollback", "--log-loss-max=-1"], "not a number above 0"),
        (&["--live", "--auto-rollback", "--drift-max", "NaN"], "not a number above 0"),
        (&["--live", "--since", "soon"], "not a day, YYYY-MM-DD"),
        (&["--live", "--model", "ab"], "cannot be used with"),
    ] {
        let mut job = submit_job(data.path());
        let output = job.arg("evaluate").args(arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && said.contains(want), "{arguments:?}: {said}");
    }
    for (arguments, want) in [
        (
            &["--since", "2016-12-26", "--until", "2016-12-25"][..],
            "--since 2016-12-26 is after --until 2016-12-25",
        ),
        (
            &["--arrival-topic", events::REQUEST_TOPIC],
            "is a topic of requests or answers, not of arrivals",
        ),
    ] {
        let mut job = submit_job(data.path());
        let output = job.args(["evaluate", "--live"]).args(arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && said.contains(want), "{said}");
    }
    // where there is nothing to judge, it says so
    let mut job = submit_job(data.path());
    let output = job.args(["evaluate", "--live"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let want = "--since and --until name other days";
    assert!(output.status.success() && said.contains(want), "{said}");
}
