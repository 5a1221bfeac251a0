//! Which model becomes the champion: not one that may be worse, and not on too little.

use std::sync::Arc;

use jobs::lake::Lake;
use jobs::models::promotion::{Decision, decisions, roll_back, settle};
use jobs::models::registry;
use jobs::train::gate::{Candidate, Gate, judge};
use jobs::train::options::TrainOptions;
use jobs::train::report::Report;
use jobs::train::train;
use udf::model::artefact::ForestParams;

use crate::setup::{ingest_all, memory_lake, repository, session, some_lake, with_params};

async fn trained(lake: &Lake, params: ForestParams, gate: Gate) -> Report {
    let options = TrainOptions { gate, ..with_params(params) };
    let run = format!("gate-{}", options.params.get().seed);
    train(&session(2), lake, &run, &options, &|_| {}).await.unwrap()
}

fn small(seed: u64, depth: u32) -> ForestParams {
    ForestParams { seed, depth, n_trees: 4, ..ForestParams::original() }
}

async fn champion(lake: &Lake) -> String {
    registry::champion_version(lake).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_model_that_may_be_worse_is_kept_and_the_champion_stays() {
    let lake = memory_lake();
    let flights = repository().join("data/nycflights13/flights.parquet");
    ingest_all(&lake, &[flights], "shipped").await;
    let first = trained(&lake, small(1, 5), Gate::IfBetter).await;
    assert_eq!(first.promotion.decision, Decision::First);

    // a stump of a forest is worse
    let worse = trained(&lake, small(2, 1), Gate::IfBetter).await;
    assert_eq!(worse.promotion.decision, Decision::Worse, "{}", worse.to_text());
    assert_eq!(champion(&lake).await, first.version);
    let comparison = worse.promotion.comparison.clone().unwrap();
    assert_eq!(comparison.champion, first.version);
    assert_eq!(comparison.rows, worse.forest.n_rows());
    let losses = [comparison.log_loss, comparison.champion_log_loss];
    let evaluated = [&worse, &first].map(|report| report.forest.metrics.log_loss);
    assert!(losses.iter().zip(evaluated).all(|(a, b)| (a - b).abs() < 1e-9), "{comparison:?}");
    let difference = comparison.log_loss - comparison.champion_log_loss;
    assert!((comparison.low..comparison.high).contains(&difference), "{comparison:?}");
    assert_eq!(decisions(&lake, &worse.version).await.unwrap()[0], worse.promotion);

    // it is kept, and whoever wants it has it, which is written down
    let kept = Arc::new(registry::load(&lake, &worse.version).await.unwrap());
    let ctx = session(2);
    lake.register_flights(&ctx).await.unwrap();
    let of_model = Candidate { version: &worse.version, scorer: &kept, evaluated: None };
    for (gate, decision) in [
        (Gate::IfBetter, Decision::Worse),
        (Gate::Never, Decision::NotAsked),
        (Gate::Force, Decision::Forced),
    ] {
        let (promotion, _) = judge(&ctx, &lake, "by-hand", of_model, gate).await.unwrap();
        settle(&lake, &worse.version, &promotion).await.unwrap();
        assert_eq!(promotion.decision, decision);
        // asked anew, it answers as it did after its training
        assert_eq!(promotion.comparison, worse.promotion.comparison);
        assert_eq!(champion(&lake).await == worse.version, decision.promotes());
        assert_eq!(decisions(&lake, &worse.version).await.unwrap()[0], promotion);
    }
    let (promotion, _) = judge(&ctx, &lake, "again", of_model, Gate::IfBetter).await.unwrap();
    assert_eq!(promotion.decision, Decision::IsChampion);
    settle(&lake, &worse.version, &promotion).await.unwrap();
    let kept = decisions(&lake, &worse.version).await.unwrap();
    assert_eq!((kept[0].decision, kept[0].job.as_str()), (Decision::Forced, "by-hand"));
    assert_eq!(kept.len(), 4, "nothing is forgotten: {kept:?}");
    assert_eq!(roll_back(&lake, "back", None, None).await.unwrap().1, first.version);
    let kept = decisions(&lake, &first.version).await.unwrap();
    let kept: Vec<Decision> = kept.iter().map(|kept| kept.decision).collect();
    assert_eq!(kept, [Decision::RolledBack, Decision::First]);

    // one that is as good, by another hold-out: the flights of days that both held out
    let holdout = "day:3".parse().unwrap();
    let better = trained(&lake, ForestParams { holdout, ..small(3, 5) }, Gate::IfBetter).await;
    assert_eq!(better.promotion.decision, Decision::NotWorse, "{}", better.to_text());
    let rows = better.promotion.comparison.unwrap().rows;
    assert!((15_000..30_000).contains(&rows), "a fifteenth of the days: {rows}");
    assert_eq!(better.rival.unwrap().candidate.n_rows(), rows);
    assert_eq!(champion(&lake).await, better.version);
}

#[tokio::test]
async fn on_few_flights_nothing_is_said_and_the_champion_stays() {
    let lake = memory_lake();
    let some = some_lake().await;
    for name in some.list("flights/").await.unwrap() {
        lake.put(&name, some.get(&name, usize::MAX).await.unwrap().unwrap()).await.unwrap();
    }
    for name in some.list("distances/").await.unwrap() {
        lake.put(&name, some.get(&name, usize::MAX).await.unwrap().unwrap()).await.unwrap();
    }
    let never = trained(&lake, small(1, 2), Gate::Never).await;
    assert_eq!(never.promotion.decision, Decision::NotAsked);
    assert_eq!(registry::champion_version(&lake).await.unwrap(), None);
    let first = trained(&lake, small(2, 2), Gate::IfBetter).await;
    let better = trained(&lake, small(3, 5), Gate::IfBetter).await;
    assert_eq!(better.promotion.decision, Decision::TooFewFlights, "{}", better.to_text());
    assert_eq!(champion(&lake).await, first.version);
    // nothing is held out by both
    let holdout = "since:2014-01-01".parse().unwrap();
    let other = trained(&lake, ForestParams { holdout, ..small(4, 5) }, Gate::IfBetter).await;
    assert_eq!(other.promotion.comparison.as_ref().unwrap().rows, 0);
    let sentence = other.promotion.sentence();
    assert!(sentence.starts_with("not champion: fewer than 5000 flights"), "{sentence}");
    assert_eq!(champion(&lake).await, first.version);
}
