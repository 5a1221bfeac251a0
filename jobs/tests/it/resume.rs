//! A training run that dies is gone on with, makes the same bytes, and never mixes two trainings.

use std::sync::Mutex;

use jobs::lake::Lake;
use jobs::progress::Progress;
use jobs::train::options::TrainOptions;
use jobs::train::train;
use tokio::sync::Notify;
use udf::model::artefact::{Bootstrap, ForestParams};

use crate::setup::{fixture, ingest_all, local_lake, options, session, some_flights, with_params};

/// Trains until `n_levels` are grown, and dies there.
async fn die_after(lake: &Lake, options: &TrainOptions, n_levels: u32) {
    let reached = Notify::new();
    let on_progress = |progress: Progress| {
        if matches!(progress, Progress::Level { done, .. } if done == n_levels) {
            reached.notify_one();
        }
    };
    let ctx = session(2);
    tokio::select! {
        biased;
        () = reached.notified() => {}
        trained = train(&ctx, lake, "run", options, &on_progress) => {
            panic!("it did not die: {:?}", trained.map(|report| report.version))
        }
    }
}

/// Trains to the end; returns the model's version and what the run told of itself.
async fn go_on(lake: &Lake, options: &TrainOptions) -> (String, Vec<Progress>) {
    let told = Mutex::new(Vec::new());
    let on_progress = |progress: Progress| told.lock().unwrap().push(progress);
    let report = train(&session(2), lake, "run", options, &on_progress).await.unwrap();
    (report.version, told.into_inner().unwrap())
}

async fn lake_with_flights() -> (tempfile::TempDir, Lake) {
    let (directory, lake) = local_lake();
    ingest_all(&lake, &[some_flights(directory.path(), true).await], "first").await;
    (directory, lake)
}

#[tokio::test]
async fn a_run_that_died_goes_on_at_its_level_and_makes_the_same_bytes() {
    let (_directory, lake) = lake_with_flights().await;
    let days = ForestParams { bootstrap: Bootstrap::Day, ..options(3).params.get().clone() };
    let in_memory = with_params(days);
    let on_disk = TrainOptions { indices_bytes: 0, ..in_memory.clone() };
    let (expected, told) = go_on(&lake, &in_memory).await;
    let level = |done| Progress::Level { n_trees: 3, done, total: 5 };
    assert!(told.contains(&level(0)));
    for options in [&in_memory, &on_disk] {
        die_after(&lake, options, 3).await;
        assert!(!lake.list("training/run/").await.unwrap().is_empty());
        let (version, told) = go_on(&lake, options).await;
        assert_eq!(version, expected);
        assert!(!told.contains(&level(0)) && told.contains(&level(3)), "{told:?}");
        assert_eq!(lake.list("training/run/").await.unwrap(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_run_does_not_go_on_with_other_options_or_flights() {
    let (_directory, lake) = lake_with_flights().await;
    let first = options(3);
    die_after(&lake, &first, 2).await;
    let other = with_params(ForestParams { seed: 9, ..first.params.get().clone() });
    let error = train(&session(2), &lake, "run", &other, &|_| {}).await.unwrap_err().to_string();
    assert_eq!(error, "run cannot be resumed: its options are others; start it again");

    ingest_all(&lake, &[fixture("bts_new.csv")], "more").await;
    let error = train(&session(2), &lake, "run", &first, &|_| {}).await.unwrap_err().to_string();
    let want = "run cannot be resumed: the flights have changed since it began; start it again";
    assert_eq!(error, want);
}

#[tokio::test]
async fn a_checkpoint_that_is_damaged_or_of_an_earlier_version_is_named() {
    let (_directory, lake) = lake_with_flights().await;
    for text in ["{\"growth\":", "{\"sql_sha256\":\"\",\"codes_are_written\":true}"] {
        lake.put("training/run/checkpoint.json", text.into()).await.unwrap();
        let error = train(&session(2), &lake, "run", &options(1), &|_| {}).await.unwrap_err();
        let error = format!("{error:#}");
        assert!(error.starts_with("run cannot be resumed: file://"), "{error}");
        let why = "training/run/checkpoint.json: damaged or of another version; start it again";
        assert!(error.contains(why), "{error}");
    }
}
