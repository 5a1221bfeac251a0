//! What of the data root has outlived its use, and what has not.

use std::time::{Duration, SystemTime};

use chrono::{DateTime, TimeDelta, Utc};
use jobs::gc::{Ages, Garbage, delete, find};
use jobs::history::{Record, State};
use jobs::lake::Lake;
use jobs::models::registry::promote;
use serde_json::json;

use crate::setup::local_lake;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The time of files that are written in this test.
fn now() -> DateTime<Utc> {
    #[expect(clippy::disallowed_methods, reason = "files have the real time")]
    let now = SystemTime::now();
    now.into()
}

fn version(digit: &str) -> String {
    digit.repeat(64)
}

async fn put(lake: &Lake, name: &str, n_days: u32) {
    lake.put(name, b"{}".to_vec()).await.unwrap();
    make_older(lake, name, n_days);
}

fn make_older(lake: &Lake, name: &str, n_days: u32) {
    let path = lake.local_path(name).unwrap();
    let file = std::fs::File::options().append(true).open(path).unwrap();
    file.set_modified((now() - TimeDelta::days(n_days.into())).into()).unwrap();
}

async fn put_job(lake: &Lake, id: &str, state: State, argument: &str, model: &str, n_days: u32) {
    let then = now() - TimeDelta::days(n_days.into());
    let record = Record {
        id: id.into(),
        name: "a name".into(),
        command: "score".into(),
        arguments: vec!["score".into(), argument.into()],
        master: "local".into(),
        user: "somebody".into(),
        started: then,
        alive: then,
        ended: (state != State::Running).then_some(then),
        state,
        error: None,
        result: json!({ "model": model }),
    };
    record.put(lake).await.unwrap();
    make_older(lake, &format!("jobs/{id}.json"), n_days);
}

fn names(garbage: &[Garbage]) -> Vec<&str> {
    garbage.iter().map(|garbage| garbage.what.as_str()).collect()
}

#[tokio::test]
async fn what_is_old_and_not_named_goes_whole() {
    let (_directory, lake) = local_lake();
    for digit in ["1", "2", "3", "4", "5", "6", "7", "8"] {
        put(&lake, &format!("models/{}.json", version(digit)), 100).await;
    }
    for ending in ["html", "evaluation.json"] {
        put(&lake, &format!("models/{}.{ending}", version("7")), 100).await;
        put(&lake, &format!("models/{}.{ending}", version("9")), 100).await;
    }
    // one that is old, and one of whose files is not
    put(&lake, &format!("models/{}.html", version("8")), 1).await;
    promote(&lake, &version("1")).await.unwrap();
    promote(&lake, &version("2")).await.unwrap();
    make_older(&lake, "models/champion", 100);

    put_job(&lake, "young", State::Succeeded, "--all", &version("3"), 1).await;
    put_job(&lake, "running", State::Running, &format!("--model={}", &version("4")[..4]), "", 0)
        .await;
    make_older(&lake, "jobs/running.json", 100);
    put_job(&lake, "old", State::Failed, "--all", &version("7"), 100).await;
    put(&lake, "jobs/old.log", 100).await;
    put_job(&lake, "lost", State::Running, "--all", "", 100).await;
    put(&lake, "jobs/unreadable.json", 100).await;
    lake.put("jobs/broken.json", version("6").into_bytes()).await.unwrap();
    make_older(&lake, "jobs/broken.json", 100);
    for run in ["young", "running", "old", "lost", "of-a-demo"] {
        put(&lake, &format!("rejects/{run}/a.parquet"), 100).await;
        put(&lake, &format!("training/{run}/indices/0.bin"), 100).await;
        put(&lake, &format!("predictions/{run}/a.parquet"), 100).await;
    }
    for (day, age) in [("2013-12-19", 100), ("2013-12-20", 1)] {
        put(&lake, &format!("requests/prediction_tasks/{day}.jsonl"), age).await;
        put(&lake, &format!("batch_predictions/batch=files/day={day}/a.parquet"), age).await;
    }
    put(&lake, "staging/begun/raw/a", 100).await;
    put(&lake, "staging/begun/raw/b", 1).await;
    put(&lake, "flights/year=2013/month=1/a.parquet", 1000).await;

    let keep = [version("5")];
    let none = find(&lake, &Ages::default(), &keep, now()).await.unwrap();
    assert_eq!(names(&none), Vec::<&str>::new(), "without ages all stays");
    let ages = Ages { jobs: Some(DAY * 90), models: Some(DAY * 90), predictions: None };
    let garbage = find(&lake, &ages, &keep, now()).await.unwrap();
    let (seven, nine) = (format!("model {}", version("7")), format!("model {}", version("9")));
    let expected = [
        "job lost",
        "job old",
        "rejects of lost",
        "rejects of of-a-demo",
        "rejects of old",
        "training of lost",
        "training of of-a-demo",
        "training of old",
        &seven,
        &nine,
    ];
    assert_eq!(names(&garbage), expected);
    assert_eq!(garbage.iter().map(|garbage| garbage.objects.len()).sum::<usize>(), 14);
    let results = Ages { predictions: Some(DAY * 90), ..Ages::default() };
    let of_batches = [
        "batch_predictions of batch=files/day=2013-12-19",
        "requests of prediction_tasks/2013-12-19",
    ];
    let results = find(&lake, &results, &keep, now()).await.unwrap();
    assert_eq!(names(&results)[..2], of_batches);
    assert_eq!(results.len(), 5 + of_batches.len());

    // one that has become champion since it was found stays
    promote(&lake, &version("7")).await.unwrap();
    let before = lake.list("").await.unwrap().len();
    for garbage in &garbage {
        assert_eq!(delete(&lake, garbage).await.unwrap(), garbage.what != seven);
    }
    assert_eq!(lake.list("").await.unwrap().len(), before - 11);
    assert_eq!(names(&find(&lake, &ages, &keep, now()).await.unwrap()), Vec::<&str>::new());
}
