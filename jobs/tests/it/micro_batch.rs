//! A micro-batch of messages: every request that names itself is answered, every bad one is kept.

use events::{Answer, Prediction, late};
use jobs::models::registry;
use jobs::stream;
use jobs::stream::micro_batch::{DeadLetter, Message, Plan, Rules, ScoredBatch, score};
use serde_json::{Value, json};
use store::Document;
use uuid::Uuid;

use crate::setup::{rules, session, shipped};

async fn plan() -> Plan {
    let ctx = session(1);
    stream::prepare(&ctx, &shipped().await.lake).await.unwrap();
    Plan::new(&ctx).await.unwrap()
}

async fn scored(messages: Vec<Message>) -> ScoredBatch {
    score(&plan().await, messages, rules()).await.unwrap()
}

/// A request with UUID number `id`; `changes` replace its fields, null removes one.
fn request(id: u128, changes: Value) -> Value {
    let mut request = json!({
        "DepDelay": 290.0, "Carrier": "AA", "FlightDate": "2016-12-25", "Dest": "SFO",
        "Origin": "ATL", "FlightNum": "1519", "Distance": 2139.0, "DayOfWeek": 6,
        "DayOfYear": 360, "DayOfMonth": 25, "Timestamp": "2016-12-20T09:59:59.000Z",
        "UUID": Uuid::from_u128(id).to_string(),
    });
    for (field, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => _ = request.as_object_mut().unwrap().remove(field),
            value => request[field] = value.clone(),
        }
    }
    request
}

fn message(offset: i64, value: impl Into<Vec<u8>>) -> Message {
    let (key, value) = (Some(b"key".to_vec()), Some(value.into()));
    Message { partition: 2, offset, key, value, ..Message::default() }
}

async fn prediction(changes: Value) -> Prediction {
    let batch = scored(vec![message(0, request(7, changes).to_string())]).await;
    assert!(batch.dead_letters.is_empty(), "{:?}", batch.dead_letters);
    match batch.answers.into_iter().next() {
        Some(Answer::Ok(prediction)) => *prediction,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_prediction_carries_its_request_and_the_model() {
    let answer = prediction(json!({"Carrier": "aa"})).await;
    assert_eq!(answer.uuid, Uuid::from_u128(7));
    assert_eq!((answer.carrier.as_str(), answer.route.as_str()), ("AA", "ATL-SFO"));
    // what the client says of the day is not read: 25 December 2016 was a Sunday
    assert_eq!((answer.day_of_week, answer.day_of_year, answer.day_of_month), (7, 360, 25));
    assert_eq!((answer.dep_delay, answer.distance), (290.0, Some(2139.0)));
    assert_eq!(answer.flight_num.as_deref(), Some("1519"));
    assert_eq!(answer.timestamp.as_deref(), Some("2016-12-20T09:59:59.000Z"));
    assert_eq!(answer.answered_at, "2016-12-20T10:00:00.000Z");
    assert_eq!(answer.model_version, shipped().await.report.version);
    let total: f64 = answer.probabilities.iter().sum();
    assert!((total - 1.0).abs() < 1e-9, "{:?}", answer.probabilities);
    let most = answer.probabilities.iter().copied().fold(0.0, f64::max);
    let class = answer.prediction.index();
    assert_eq!(answer.probabilities[class], most);
    // what moved it, but for rounding
    let model = registry::champion(&shipped().await.lake).await.unwrap().unwrap();
    let n_features = model.model().features.len();
    assert_eq!(answer.late_contributions.len(), n_features);
    let changes: i32 = answer.late_contributions.iter().sum();
    let sum = late(&model.model().base_rates()) + f64::from(changes) / 1e4;
    let (want, error) = (late(&answer.probabilities), 0.5e-4 * n_features as f64);
    assert!((sum - want).abs() <= error, "{sum} is not {want}");
    assert!(answer.late_contributions.iter().any(|change| *change > 1_000), "290 minutes late");
    assert!(answer.base_rates.is_none() && answer.contributions.is_empty());
}

/// Two thirds are the fields of the original system, the model's name and the two times.
const DOCUMENT_BYTES_MAX: usize = 660;

#[tokio::test]
async fn the_document_of_an_answer_is_small() {
    let known = json!({"Origin": "JFK", "Dest": "LAX"});
    let answer = Answer::Ok(Box::new(prediction(known).await));
    let document = Document::new(answer.uuid().to_string(), &answer).unwrap();
    assert!(document.n_bytes() <= DOCUMENT_BYTES_MAX, "{}", document.n_bytes());
}

#[tokio::test]
async fn delays_mean_what_they_should() {
    for (changes, classes) in [
        (json!({"DepDelay": 290}), vec![3]),
        (json!({"DepDelay": 5}), vec![1, 2]),
        (json!({"Origin": "JFK", "Dest": "LAX", "Distance": null, "DepDelay": -20}), vec![0, 1]),
        (json!({"Origin": "EWR", "Dest": "ORD", "Distance": null, "DepDelay": 120}), vec![3]),
    ] {
        let answer = prediction(changes.clone()).await;
        assert!(classes.contains(&i32::from(answer.prediction)), "{changes}: {answer:?}");
    }
}

#[tokio::test]
async fn what_the_model_has_never_seen_is_said() {
    // all flights that it was trained on leave from New York
    let answer = prediction(json!({})).await;
    assert_eq!(answer.unseen, ["Origin", "Route"]);
    let answer = prediction(json!({"Dest": "ZZZ", "Carrier": "ZZ", "Distance": null})).await;
    assert_eq!(answer.unseen, ["Distance", "Carrier", "Origin", "Dest", "Route"]);
    assert_eq!(answer.distance, None);
    let answer = prediction(json!({"Origin": "JFK", "Dest": "LAX"})).await;
    assert_eq!(answer.unseen, Vec::<String>::new());
}

#[tokio::test]
async fn a_distance_comes_from_the_request_or_else_from_the_route() {
    let known = json!({"Origin": "JFK", "Dest": "LAX", "Distance": null});
    assert_eq!(prediction(known).await.distance, Some(2475.0));
    let given = json!({"Origin": "JFK", "Dest": "LAX", "Distance": 2500});
    assert_eq!(prediction(given).await.distance, Some(2500.0));
}

#[tokio::test]
async fn one_micro_batch_of_everything_answers_what_names_itself_and_keeps_the_rest() {
    let good = |id| request(id, json!({})).to_string();
    let messages = vec![
        message(10, good(1)),
        message(11, "{\"DepDelay\": 2"),
        message(12, request(2, json!({"DepDelay": "late"})).to_string()),
        message(13, vec![b'x'; 2 * 1024 * 1024]),
        message(14, request(3, json!({"UUID": null})).to_string()),
        Message { value: None, ..message(15, "") },
        message(16, request(1, json!({"DepDelay": 5})).to_string()),
        message(17, request(4, json!({"Origin": "$ne"})).to_string()),
        message(18, vec![0xff, 0xfe]),
        message(19, good(5)),
        message(20, request(6, json!({"UUID": "no uuid"})).to_string()),
    ];
    let batch = scored(messages.clone()).await;

    assert_eq!(batch.n_repeated, 1);
    let answers: Vec<(u128, f64)> = batch
        .answers
        .iter()
        .map(|answer| match answer {
            Answer::Ok(prediction) => (prediction.uuid.as_u128(), prediction.dep_delay),
            other => panic!("{other:?}"),
        })
        .collect();
    // the first of two is answered
    assert_eq!(answers, [(1, 290.0), (5, 290.0)]);
    // what could not be read is no answer: it may be read later
    let reason = "Origin: must be 1 to 8 letters or digits";
    let told: Vec<(u128, String)> = batch
        .dead_letters
        .iter()
        .filter_map(DeadLetter::rejection)
        .map(|answer| match answer {
            Answer::Rejected(refusal) => (refusal.uuid.as_u128(), refusal.reason),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].0 == 2 && told[0].1.starts_with("DepDelay: invalid type: string"), "{told:?}");
    assert_eq!(told[1], (4, reason.to_owned()));

    let letters: Vec<(i64, &str)> = batch
        .dead_letters
        .iter()
        .map(|letter| (letter.message.offset, letter.reason.as_str()))
        .collect();
    let expected = [
        (11, "EOF while parsing"),
        (12, "DepDelay: invalid type: string \"late\""),
        (13, "message of 2097152 bytes exceeds the limit of 65536"),
        (14, "missing field `UUID`"),
        (15, "message is not a JSON object"),
        (17, reason),
        (18, "message is not UTF-8 at byte 0"),
        (20, "UUID: "),
    ];
    assert_eq!(letters.len(), expected.len(), "{letters:?}");
    for ((offset, reason), (want_offset, want)) in letters.iter().zip(expected) {
        assert_eq!(*offset, want_offset);
        assert!(reason.contains(want), "{reason:?} should say {want:?}");
    }
    for letter in &batch.dead_letters {
        assert!(messages.contains(&letter.message), "{}", letter.message.offset);
    }
}

#[tokio::test]
async fn a_micro_batch_of_nothing_and_a_micro_batch_of_bad_messages_are_scored_too() {
    let batch = scored(Vec::new()).await;
    assert!(batch.answers.is_empty() && batch.dead_letters.is_empty());
    let batch = scored(vec![message(0, "nonsense")]).await;
    assert!(batch.answers.is_empty() && batch.dead_letters.len() == 1);
}

#[tokio::test]
async fn a_micro_batch_of_thousands_is_answered_in_the_order_of_its_messages() {
    let messages: Vec<Message> = (0..20_000)
        .map(|i| message(i, request(i as u128, json!({"DepDelay": i % 700})).to_string()))
        .collect();
    let batch = scored(messages).await;
    let ids = batch.answers.iter().map(|answer| answer.uuid().as_u128());
    assert!(ids.eq(0..20_000));
}

#[tokio::test]
async fn a_route_that_is_there_twice_makes_no_second_answer() {
    let ctx = session(1);
    stream::prepare(&ctx, &shipped().await.lake).await.unwrap();
    let once = ctx.table("distances").await.unwrap();
    let twice = once.clone().union(once).unwrap().cache().await.unwrap();
    ctx.deregister_table("distances").unwrap();
    ctx.register_table("distances", twice.into_view()).unwrap();
    let plan = Plan::new(&ctx).await.unwrap();
    let known = json!({"Origin": "JFK", "Dest": "LAX", "Distance": null});
    let messages = (0..20).map(|i| message(i, request(i as u128, known.clone()).to_string()));
    let batch = score(&plan, messages.collect(), rules()).await.unwrap();
    assert!(batch.rows.iter().map(|rows| rows.num_rows()).sum::<usize>() > 20, "two a request");
    let ids = batch.answers.iter().map(|answer| answer.uuid().as_u128());
    assert!(ids.eq(0..20));
}

#[tokio::test]
async fn a_micro_batch_leaves_nothing_behind_for_the_next_one() {
    let plan = plan().await;
    let mut answers = Vec::new();
    for id in [1, 2, 1] {
        let one = vec![message(0, request(id, json!({"DepDelay": id as f64})).to_string())];
        let mut batch = score(&plan, one, rules()).await.unwrap();
        assert_eq!((batch.answers.len(), batch.n_repeated), (1, 0));
        answers.push(batch.answers.remove(0));
    }
    assert_eq!(answers[0], answers[2]);
    assert_ne!(answers[0], answers[1]);
}

#[tokio::test]
async fn a_request_older_than_the_limit_expires_and_one_without_a_time_does_not() {
    // NOW is 10:00:00
    let at =
        |id, time: Value| message(id, request(id as u128, json!({"Timestamp": time})).to_string());
    let messages = vec![
        at(1, json!("2016-12-20T09:59:30.000Z")),
        at(2, json!("2016-12-20T09:59:29.999Z")),
        at(3, json!(null)),
        at(4, json!("yesterday")),
        at(5, json!("2016-12-20T11:00:00+02:00")),
        at(6, json!("2016-12-20T10:05:00.000Z")),
    ];
    let expire_after = Some(std::time::Duration::from_secs(30));
    let rules = Rules { expire_after, ..rules() };
    let batch = score(&plan().await, messages, rules).await.unwrap();
    let mut expired = Vec::new();
    for answer in &batch.answers {
        if let Answer::Expired(refusal) = answer {
            expired.push((refusal.uuid.as_u128(), refusal.reason.as_str()));
        }
    }
    assert_eq!(batch.answers.len(), 6);
    let reasons =
        [(2, "Timestamp: 30 s old, more than 30"), (5, "Timestamp: 3600 s old, more than 30")];
    assert_eq!(expired, reasons);
    assert!(batch.dead_letters.is_empty());
}

#[tokio::test]
async fn a_micro_batch_of_any_bytes_accounts_for_every_message() {
    // what is good among it is damaged by a hash of its place, so that each run has the same
    let noise = |i: u64, n: u64| udf::train::sampling::hash(&[i, n]);
    let messages: Vec<Message> = (0..10_000_u64)
        .map(|i| {
            let mut bytes = request(u128::from(i), json!({})).to_string().into_bytes();
            for change in 0..noise(i, 0) % 4 {
                let at = noise(i, 1 + change) as usize % bytes.len();
                match noise(i, 10 + change) % 3 {
                    0 => bytes[at] = noise(i, 20 + change) as u8,
                    1 => bytes.truncate(at.max(1)),
                    _ => bytes.insert(at, noise(i, 30 + change) as u8),
                }
            }
            message(i as i64, bytes)
        })
        .collect();
    let batch = scored(messages).await;
    let n_letters = batch.dead_letters.len();
    assert_eq!(batch.answers.len() + n_letters + batch.n_repeated, 10_000);
    assert!(n_letters > 3_000 && batch.answers.len() > 2_500, "{n_letters}");
}

#[tokio::test]
async fn micro_batches_are_planned_again_for_another_champion() {
    let ctx = session(1);
    stream::prepare(&ctx, &shipped().await.lake).await.unwrap();
    let mut answers = Vec::new();
    for _ in 0..3 {
        let plan = Plan::new(&ctx).await.unwrap();
        let one = vec![message(0, request(1, json!({})).to_string())];
        answers.push(score(&plan, one, rules()).await.unwrap().answers);
    }
    assert!(answers[0].len() == 1 && answers[0] == answers[1] && answers[1] == answers[2]);
}
