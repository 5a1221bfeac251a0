//! Flights to a model: the same bytes however it is run, a better model than the plain ones, and
//! artefacts that are refused when they are not what they say.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::prelude::SessionContext;
use jobs::lake::Lake;
use jobs::models::evaluation::Evaluation;
use jobs::models::registry::{self, RefreshOutcome};
use jobs::predict::score::{open_model, score};
use jobs::stream::micro_batch;
use jobs::train::options::TrainOptions;
use jobs::train::training::register_training;
use jobs::train::{train, up_to_date};
use sha2::{Digest, Sha256};
use udf::functions::model::Models;
use udf::model::artefact::{ForestParams, MODEL_BYTES_MAX, Model};
use udf::model::scorer::Scorer;

use crate::setup::{
    check_golden, fixture, ingest_all, local_lake, memory_lake, options, rows, session, shipped,
    some_flights, some_lake, with_params,
};

/// The artefact that training makes.
async fn artefact(lake: &Lake, n_partitions: usize, options: &TrainOptions) -> Vec<u8> {
    let report = train(&session(n_partitions), lake, "bytes", options, &|_| {}).await.unwrap();
    assert_eq!(lake.list("training/bytes/").await.unwrap(), Vec::<String>::new(), "codes are left");
    let name = format!("models/{}.json", report.version);
    lake.get(&name, MODEL_BYTES_MAX).await.unwrap().unwrap()
}

async fn refusal(lake: &Lake, version: &str) -> String {
    format!("{:#}", registry::load(lake, version).await.unwrap_err())
}

#[tokio::test]
async fn the_model_is_the_same_bytes_however_it_is_trained() {
    for params in [ForestParams::original(), ForestParams { depth: 7, ..ForestParams::default() }] {
        let options = with_params(ForestParams { n_trees: 6, ..params });
        the_bytes_are_the_same(&options).await;
    }
}

async fn the_bytes_are_the_same(options: &TrainOptions) {
    let lake = some_lake().await;
    let expected = artefact(lake, 1, options).await;
    for n_partitions in [2, 7] {
        let model = artefact(lake, n_partitions, options).await;
        assert!(model == expected, "{n_partitions} partitions");
    }
    let many_passes = TrainOptions { histogram_bytes: 0, ..options.clone() };
    assert!(artefact(lake, 2, &many_passes).await == expected, "a pass for each node");
    let on_disk = TrainOptions { indices_bytes: 0, ..options.clone() };
    assert!(artefact(lake, 2, &on_disk).await == expected, "codes under the data root");

    let directory = tempfile::tempdir().unwrap();
    let reversed = some_flights(directory.path(), false).await;
    let (_directory, lake) = local_lake();
    ingest_all(&lake, &[reversed], "reversed").await;
    assert!(artefact(&lake, 3, options).await == expected, "rows in reversed order");
    assert!(artefact(&lake, 2, &on_disk).await == expected, "codes in a directory");
}

#[tokio::test]
async fn another_seed_gives_another_forest_over_the_same_rows() {
    let lake = some_lake().await;
    let mut trees = Vec::new();
    for seed in [1, 2] {
        let params = ForestParams { seed, n_trees: 2, ..ForestParams::default() };
        let (run, options) = (format!("seed-{seed}"), with_params(params));
        let report = train(&session(2), lake, &run, &options, &|_| {}).await.unwrap();
        trees.push((report.model.rows, report.model.trees));
    }
    assert_eq!(trees[0].0, trees[1].0);
    assert_ne!(trees[0].1, trees[1].1);
}

#[tokio::test]
async fn an_artefact_is_named_by_its_hash_and_the_champion_names_it() {
    let shipped = shipped().await;
    let (lake, version) = (&shipped.lake, &shipped.report.version);
    let name = format!("models/{version}.json");
    let bytes = lake.get(&name, MODEL_BYTES_MAX).await.unwrap().unwrap();
    let digest = format!("{:x}", Sha256::digest(&bytes));
    assert_eq!(&digest, version);
    let champion = lake.get("models/champion", 1024).await.unwrap().unwrap();
    assert_eq!(String::from_utf8(champion).unwrap(), format!("{version}\n"));
    assert_eq!(registry::champion(lake).await.unwrap().unwrap().model(), &shipped.report.model);
    let report = lake.get(&registry::report_of(version), MODEL_BYTES_MAX).await.unwrap();
    assert!(report.is_some_and(|html| !html.is_empty()));
}

#[tokio::test]
async fn the_forest_beats_the_majority_and_the_logistic_baseline() {
    let report = &shipped().await.report;
    let accuracy = report.forest.metrics.accuracy;
    assert!(accuracy >= 0.527, "{}", report.to_text());
    assert!(accuracy > report.majority.metrics.accuracy, "{}", report.to_text());
    let lookup = report.baselines.lookup.as_ref().unwrap();
    let logistic = report.baselines.logistic.as_ref().unwrap();
    let losses = [&report.forest, logistic, lookup, &report.majority].map(|e| e.metrics.log_loss);
    assert!(losses.is_sorted(), "{}", report.to_text());
    assert!(losses[0] < logistic.metrics.log_loss - 0.03, "{}", report.to_text());
    assert!(accuracy > logistic.metrics.accuracy, "{}", report.to_text());
    // all are judged on the same flights, and the forest is as sure as it is right
    assert_eq!(logistic.n_rows(), report.forest.n_rows());
    let error = |of: &Evaluation| of.metrics.calibration_error.unwrap();
    assert!(error(&report.forest) <= 0.01, "{}", report.to_text());
    assert!(error(&report.forest) < error(&report.uncalibrated), "{}", report.to_text());
    // usable are 327,346 flights; a fifth is held out
    assert_eq!(report.model.rows.training + report.model.rows.holdout, 327_346);
    assert!(report.model.rows.holdout.abs_diff(327_346 / 5) < 1_000, "{:?}", report.model.rows);
    assert_eq!(report.forest.n_rows(), report.model.rows.holdout);
}

#[tokio::test]
async fn a_model_is_up_to_date_until_options_or_flights_change() {
    let directory = tempfile::tempdir().unwrap();
    let (_directory, lake) = local_lake();
    ingest_all(&lake, &[some_flights(directory.path(), true).await], "first").await;
    let (ctx, options) = (session(2), options(2));
    assert!(up_to_date(&ctx, &lake, &options).await.unwrap().is_none(), "there is no champion");
    let report = train(&ctx, &lake, "run", &options, &|_| {}).await.unwrap();
    let found = up_to_date(&ctx, &lake, &options).await.unwrap().unwrap();
    assert_eq!(found.version(), report.version);

    let other = with_params(ForestParams { seed: 2, ..options.params.get().clone() });
    assert!(up_to_date(&ctx, &lake, &other).await.unwrap().is_none(), "another seed");
    let mut other = options.clone();
    other.features.without.push("dep_delay".into());
    assert!(up_to_date(&ctx, &lake, &other).await.unwrap().is_none(), "a feature less");
    // the same flights from other files, in another order
    ingest_all(&lake, &[some_flights(directory.path(), false).await], "again").await;
    let found = up_to_date(&ctx, &lake, &options).await.unwrap().unwrap();
    assert_eq!(found.version(), report.version);

    let corrected = corrected(directory.path()).await;
    ingest_all(&lake, &[corrected], "corrected").await;
    assert!(up_to_date(&ctx, &lake, &options).await.unwrap().is_none(), "as many, one corrected");
    let again = train(&ctx, &lake, "run", &options, &|_| {}).await.unwrap();
    assert_eq!(again.model.rows, report.model.rows);
    assert_ne!(again.model.data, report.model.data);
    assert_eq!(again.rival.unwrap().version, report.version);
}

/// Some of the shipped flights, those of one day a minute later.
async fn corrected(directory: &Path) -> PathBuf {
    let flights = some_flights(directory, true).await;
    let corrected = directory.join("corrected.parquet");
    let ctx = session(1);
    ctx.register_parquet("some", flights.to_str().unwrap(), Default::default()).await.unwrap();
    let query = "SELECT * EXCEPT (arr_delay), arr_delay + CASE WHEN day = 3 AND month = 3 AND
                 dep_delay IS NOT NULL THEN 1 ELSE 0 END AS arr_delay FROM some";
    let one_file = DataFrameWriteOptions::new().with_single_file_output(true);
    let rows = ctx.sql(query).await.unwrap();
    rows.write_parquet(corrected.to_str().unwrap(), one_file, None).await.unwrap();
    corrected
}

#[tokio::test]
async fn a_model_that_is_not_what_its_name_says_is_refused() {
    let (directory, lake) = local_lake();
    let model = &shipped().await.report.model;
    let version = registry::save(&lake, model).await.unwrap();
    assert_eq!(registry::load(&lake, &version).await.unwrap().model(), model);

    let file = directory.path().join(format!("models/{version}.json"));
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let error = refusal(&lake, &version).await;
    assert!(error.contains(&format!("models/{version}.json: damaged: its SHA-256 is")), "{error}");

    std::fs::write(&file, &bytes[..middle]).unwrap();
    assert!(refusal(&lake, &version).await.contains("damaged"));
    let nobody = "0".repeat(64);
    let error = refusal(&lake, &nobody).await;
    assert!(error.starts_with("there is no model file://"), "{error}");
    assert!(error.ends_with(&format!("models/{nobody}.json")), "{error}");
}

#[tokio::test]
async fn a_champion_that_names_no_model_is_refused() {
    let (_directory, lake) = local_lake();
    assert!(registry::champion(&lake).await.unwrap().is_none());
    let hash = "a".repeat(64);
    for (text, want) in [
        ("rubbish", "models/champion does not name a model"),
        ("", "models/champion does not name a model"),
        (&"z".repeat(64), "models/champion does not name a model"),
        (&format!("../{}", "a".repeat(61)), "models/champion does not name a model"),
        (&"a".repeat(4_000), "4000 bytes exceed the limit of 3250"),
        (&hash, "there is no model"),
    ] {
        lake.put("models/champion", text.as_bytes().to_vec()).await.unwrap();
        let error = format!("{:#}", registry::champion(&lake).await.unwrap_err());
        assert!(error.contains(want), "{error:?} should say {want:?}");
    }
}

#[tokio::test]
async fn flights_that_nobody_can_learn_from_are_said_to_be_so() {
    let lake = memory_lake();
    let error = train(&session(2), &lake, "run", &options(1), &|_| {}).await.unwrap_err();
    let error = format!("{error:#}");
    assert!(error.starts_with("there are no flights under memory:///lake/flights/"), "{error}");
    assert!(error.contains("`submit-job ingest` makes them"), "{error}");

    let directory = tempfile::tempdir().unwrap();
    let cancelled = directory.path().join("cancelled.csv");
    let text = std::fs::read_to_string(fixture("nycflights13.csv")).unwrap();
    let lines = text.lines().filter(|line| line.starts_with("year") || line.contains("NA,NA"));
    std::fs::write(&cancelled, lines.map(|l| format!("{l}\n")).collect::<String>()).unwrap();
    let ingested = ingest_all(&lake, &[cancelled], "first").await;
    assert!(ingested.n_flights > 0);
    let error = train(&session(2), &lake, "run", &options(1), &|_| {}).await.unwrap_err();
    let error = error.to_string();
    let want = "there is nothing to train on: no flight has a departure and an arrival delay and \
                is not held out by day:5; --holdout-by holds out others";
    assert_eq!(error, want);
    assert_eq!(lake.list("models/").await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_handful_of_flights_is_enough_to_train_on() {
    let lake = memory_lake();
    ingest_all(&lake, &[fixture("bts_new.csv")], "first").await;
    let report = train(&session(2), &lake, "run", &options(2), &|_| {}).await.unwrap();
    assert_eq!(report.model.rows.training + report.model.rows.holdout, 7);
    registry::champion(&lake).await.unwrap().unwrap();
}

/// A struct of features as SQL, of these and of what is usual.
fn features(delay: &str, distance: &str, carrier: &str, origin: &str) -> String {
    format!(
        "named_struct('dep_delay', {delay}, 'distance', {distance}, 'day_of_month', 25, \
         'day_of_week', 7, 'day_of_year', 359, 'carrier', {carrier}, 'origin', {origin}, \
         'dest', 'LAX', 'route', 'JFK-LAX', 'of_no_model', NULL)"
    )
}

/// Asks the shipped model about a flight whose features are given as SQL.
async fn asked(model: Model, features: &str) -> String {
    let ctx: SessionContext = session(1);
    let scorer = Arc::new(Scorer::new(model, "shipped"));
    registry::register(&ctx, Models::from([("champion".to_owned(), scorer)]));
    let query = format!(
        "SELECT answer['prediction'] BETWEEN 0 AND 3 AS is_class, \
         ROUND(answer['probabilities'][1] + answer['probabilities'][2] \
         + answer['probabilities'][3] + answer['probabilities'][4], 12) AS total, unseen \
         FROM (SELECT predict_delay('champion', {features}) AS answer, \
         unseen_features('champion', {features}) AS unseen)"
    );
    rows(&ctx, &query).await
}

#[tokio::test]
async fn null_and_unseen_values_are_scored_and_said() {
    let model = &shipped().await.report.model;
    for (delay, distance, carrier, origin, unseen) in [
        ("12", "2475", "'AA'", "'JFK'", "[]"),
        ("12", "2475", "'ZZ'", "'JFK'", "[carrier]"),
        ("12", "NULL", "'AA'", "NULL", "[distance, origin]"),
        ("1e9", "-5", "'AA'", "'JFK'", "[]"),
    ] {
        let features = features(delay, distance, carrier, origin);
        let table = asked(model.clone(), &features).await;
        let row = table.lines().nth(3).unwrap();
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells, ["true", "1.0", unseen], "{features}");
    }
}

/// What a model is asked wrongly, and what the person is told before a row is read.
#[tokio::test]
async fn features_that_do_not_fit_the_model_are_named() {
    let ctx = session(1);
    let model = &shipped().await.report.model;
    let scorer = |version: &str| Arc::new(Scorer::new(model.clone(), version));
    let models = [("champion".to_owned(), scorer("1")), ("other".to_owned(), scorer("2"))];
    registry::register(&ctx, Models::from(models));
    let good = features("12", "2475", "'AA'", "'JFK'");
    let indices = format!("model_indices('champion', {good})");
    for (asked, want) in [
        (format!("'nobody', {good}"), "there is no model \"nobody\"; there are [\"champion\", "),
        (format!("NULL, {good}"), "the model is named by a text"),
        (format!("'champion', {}", good.replace("'origin'", "'orign'")), "no feature \"origin\""),
        (format!("'champion', {}", good.replace("2475", "'far'")), "feature \"distance\" is Utf8"),
        (format!("'champion', {}", good.replace("'AA'", "17")), "feature \"carrier\" is Int64"),
        ("'champion', 12".to_owned(), "takes the struct of features, not Int64"),
        (format!("'other', {indices}"), "the indices are not of this model"),
    ] {
        let query = format!("SELECT predict_delay({asked})");
        let error = ctx.sql(&query).await.err().unwrap_or_else(|| panic!("{query} is planned"));
        assert!(error.to_string().contains(want), "{error} should say {want:?}");
    }
    let both =
        format!("SELECT predict_delay('champion', {indices}) = predict_delay('champion', {good})");
    assert!(rows(&ctx, &both).await.contains("true"), "indices stand for the features");
}

#[tokio::test]
async fn a_flight_stays_on_its_side_of_the_hold_out() {
    let lake = some_lake().await;
    let ctx = session(2);
    lake.register_flights(&ctx).await.unwrap();
    for (name, holdout) in [("fifth", "flight:0.2"), ("half", "flight:0.5")] {
        let holdout = holdout.parse().unwrap();
        register_training(&ctx, &holdout, &["carrier".to_owned()]).await.unwrap();
        let held_out = ctx.sql("SELECT row_key FROM training WHERE is_holdout").await.unwrap();
        ctx.register_table(name, held_out.into_view()).unwrap();
    }
    let lost = ctx.sql("SELECT row_key FROM fifth EXCEPT SELECT row_key FROM half").await.unwrap();
    assert_eq!(lost.count().await.unwrap(), 0, "a larger hold-out holds the smaller one");
    let (fifth, half) = (ctx.table("fifth").await.unwrap(), ctx.table("half").await.unwrap());
    assert!(0 < fifth.clone().count().await.unwrap());
    assert!(fifth.count().await.unwrap() < half.count().await.unwrap());
}

#[tokio::test]
async fn a_new_champion_serves_and_a_broken_one_does_not() {
    let (directory, lake) = local_lake();
    let first = shipped().await.report.model.clone();
    let (mut second, mut third) = (first.clone(), first.clone());
    second.params.seed += 1;
    third.params.seed += 2;
    let first = registry::save(&lake, &first).await.unwrap();
    registry::promote(&lake, &first).await.unwrap();
    let ctx = session(1);
    let mut serving = registry::Serving::load(&ctx, &lake).await.unwrap();

    let second = registry::save(&lake, &second).await.unwrap();
    serving.look(&ctx).await;
    assert_eq!(serving.champion().version(), first, "it is saved, not promoted");
    for (broken, looked) in [
        ("not a version".to_owned(), RefreshOutcome::Same),
        ("f".repeat(64), RefreshOutcome::Refused),
    ] {
        lake.put("models/champion", broken.into_bytes()).await.unwrap();
        assert_eq!(serving.look(&ctx).await, looked);
        assert_eq!(serving.look(&ctx).await, RefreshOutcome::Same, "it is complained of once");
        assert_eq!(serving.champion().version(), first);
    }
    // what cannot be read at the moment is read as soon as it can be
    let third = registry::save(&lake, &third).await.unwrap();
    let path = directory.path().join(format!("models/{third}.json"));
    let good = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    // a link to itself cannot be followed
    std::os::unix::fs::symlink(&path, &path).unwrap();
    registry::promote(&lake, &third).await.unwrap();
    for _ in 0..2 {
        assert_eq!(
            serving.look(&ctx).await,
            RefreshOutcome::Same,
            "an error that may pass is no damage"
        );
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(serving.look(&ctx).await, RefreshOutcome::Refused, "it is not there");
    assert_eq!(serving.look(&ctx).await, RefreshOutcome::Same, "it is complained of once");
    std::fs::write(&path, &good).unwrap();
    assert_eq!(serving.look(&ctx).await, RefreshOutcome::Replaced, "it came");
    // what is damaged is looked at again when it is promoted again
    let path = directory.path().join(format!("models/{second}.json"));
    let good = std::fs::read(&path).unwrap();
    std::fs::write(&path, &good[..good.len() / 2]).unwrap();
    registry::promote(&lake, &second).await.unwrap();
    assert_eq!(serving.look(&ctx).await, RefreshOutcome::Refused);
    std::fs::write(&path, &good).unwrap();
    assert_eq!(serving.look(&ctx).await, RefreshOutcome::Same);
    registry::promote(&lake, &second).await.unwrap();
    assert_eq!(serving.look(&ctx).await, RefreshOutcome::Replaced);
    assert_eq!(serving.champion().version(), second);
    let features = features("1.0", "1.0", "'AA'", "'JFK'");
    let asked = format!("SELECT predict_delay('champion', {features})['model_version'] AS version");
    assert!(rows(&ctx, &asked).await.contains(&second));
}

#[tokio::test]
async fn a_champion_of_a_feature_that_is_gone_does_not_serve_and_is_no_hindrance() {
    let (_directory, lake) = local_lake();
    let first = registry::save(&lake, &shipped().await.report.model).await.unwrap();
    registry::promote(&lake, &first).await.unwrap();
    let ctx = session(1);
    shipped().await.lake.register_table(&ctx, "distances", "distances/", &[]).await.unwrap();
    let mut serving = registry::Serving::load(&ctx, &lake).await.unwrap();
    micro_batch::Plan::new(&ctx).await.unwrap();

    let mut other = shipped().await.report.model.clone();
    other.features[5].name = "gone".into();
    let other = registry::save(&lake, &other).await.unwrap();
    registry::promote(&lake, &other).await.unwrap();
    assert_eq!(serving.look(&ctx).await, RefreshOutcome::Refused);
    assert_eq!(serving.champion().version(), first);
    micro_batch::Plan::new(&ctx).await.unwrap();
    // nor does it begin to serve, as champion, as shadow or for a batch, or come back
    let gone = "there is no feature \"gone\" in the struct";
    let fresh = registry::Serving::load(&session(1), &lake).await.map(|_| ());
    let shadow = registry::load_to_score(&lake, &other).await.map(|_| ());
    let batch = open_model(&lake, None).await.map(|_| ());
    registry::promote(&lake, &first).await.unwrap();
    let back = registry::roll_back(&lake, None).await.map(|_| ());
    for refused in [fresh, shadow, batch, back] {
        let error = format!("{:#}", refused.unwrap_err());
        assert!(error.starts_with(&lake.url("models/")) && error.contains(gone), "{error}");
    }
    registry::promote(&lake, &other).await.unwrap();

    ingest_all(&lake, &[fixture("bts_new.csv")], "first").await;
    let mut options = options(1);
    options.features.with.push("colour".into());
    let error = train(&session(2), &lake, "typo", &options, &|_| {}).await.unwrap_err();
    assert!(error.to_string().starts_with("there is no feature \"colour\"; there are"), "{error}");
    options.features.with.clear();
    let report = train(&session(2), &lake, "run", &options, &|_| {}).await.unwrap();
    assert!(report.rival.is_none(), "it cannot be evaluated");

    // the same where a number has become a text
    let mut of_text = shipped().await.report.model.clone();
    of_text.features[5].name = "crs_dep".into();
    registry::promote(&lake, &registry::save(&lake, &of_text).await.unwrap()).await.unwrap();
    let report = train(&session(2), &lake, "run", &options, &|_| {}).await.unwrap();
    assert!(report.rival.is_none(), "it cannot be evaluated");
    assert_ne!(registry::champion(&lake).await.unwrap().unwrap().version(), other);
}

#[tokio::test]
async fn the_champion_before_comes_back_once_for_each_promotion() {
    let (_directory, lake) = local_lake();
    let mut versions = Vec::new();
    for seed in 1..=3 {
        let mut model = shipped().await.report.model.clone();
        model.params.seed = seed;
        versions.push(registry::save(&lake, &model).await.unwrap());
    }
    let error = registry::roll_back(&lake, None).await.unwrap_err().to_string();
    assert!(error.contains("names no champion before"), "{error}");
    // promoting again what was champion before does not make two of it
    for version in [0, 1, 0, 2] {
        registry::promote(&lake, &versions[version]).await.unwrap();
    }
    let history = [&versions[2], &versions[0], &versions[1]];
    assert!(registry::champions(&lake).await.unwrap().iter().eq(history));
    let (gone, back) = registry::roll_back(&lake, None).await.unwrap();
    assert_eq!((&gone, &back), (history[0], history[1]));
    registry::roll_back(&lake, None).await.unwrap();
    registry::roll_back(&lake, None).await.unwrap_err();
    assert_eq!(registry::champion_version(&lake).await.unwrap().as_ref(), Some(history[2]));
    assert_eq!(registry::find(&lake, &versions[0][..10]).await.unwrap(), versions[0]);
    let error = registry::find(&lake, "zz").await.unwrap_err().to_string();
    assert!(error.starts_with("there is no model zz under"), "{error}");
    let error = registry::find(&lake, "").await.unwrap_err().to_string();
    assert_eq!(error, "more than one model begins with ");
}

/// A model that was made on 2026-11-27 by format 1, with `train --trees 2 --depth 3 --with crs_dep
/// --with crs_arr` on the shipped flights.
const OLD_MODEL: &str = "604345f993c1b6166a6b2db1aa69c68129ebe470502fd035abd5c5e4075d703d";

#[tokio::test]
async fn a_model_that_was_made_once_scores_the_same_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let (_directory, lake) = local_lake();
    ingest_all(&lake, &[some_flights(directory.path(), true).await], "old").await;
    let bytes = std::fs::read(fixture(&format!("models/{OLD_MODEL}.json"))).unwrap();
    lake.put(&format!("models/{OLD_MODEL}.json"), bytes).await.unwrap();
    let ctx = session(2);
    let model = open_model(&lake, Some(OLD_MODEL)).await.unwrap();
    score(&ctx, &lake, "old", model, &|_| {}).await.unwrap();
    lake.register_table(&ctx, "predictions", "predictions/old/", &[]).await.unwrap();
    let scored = "SELECT flight_id, prediction, probabilities, model_version FROM predictions
                  ORDER BY flight_id LIMIT 40";
    check_golden("predictions_of_an_old_model.txt", &rows(&ctx, scored).await);
}
