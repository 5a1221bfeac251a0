//! The plans of the main queries, so that a change of one is seen.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::Int64Type;
use datafusion::common::ScalarValue;
use datafusion::datasource::MemTable;
use datafusion::physical_plan::display::DisplayableExecutionPlan;
use datafusion::physical_plan::{collect, displayable};
use datafusion::prelude::{DataFrame, SessionContext};
use jobs::ingest::ingest;
use jobs::ingest::options::IngestOptions;
use jobs::lake::Lake;
use jobs::models::registry;
use jobs::sql::{self, Step};
use jobs::stream;
use jobs::stream::micro_batch;
use jobs::train::training::register_training;
use udf::encode::encoder::Encoding;
use udf::functions::indices::FeatureIndices;
use udf::functions::load::Load;
use udf::model::artefact::FeatureSpec;
use udf::model::holdout::HoldOut;
use udf::train::histogram::TreeHistogram;
use udf::train::split::Growth;

use crate::setup::{check_golden, memory_lake, session, shipped, some_lake};

async fn physical(frame: DataFrame) -> String {
    let plan = frame.create_physical_plan().await.unwrap();
    displayable(plan.as_ref()).indent(false).to_string()
}

/// Plans a step; what differs from run to run is masked.
async fn plan(ctx: &SessionContext, step: Step, params: &[(&str, ScalarValue)]) -> String {
    masked(&physical(sql::plan(ctx, step, params).await.unwrap()).await)
}

/// A plan without the names of files.
fn masked(plan: &str) -> String {
    let masked = plan.lines().map(|line| match line.split_once("file_groups={") {
        Some((before, after)) => {
            let (_, after) = after.split_once("]]}").unwrap();
            format!("{before}file_groups=…{after}")
        }
        None => line.to_owned(),
    });
    masked.collect::<Vec<_>>().join("\n")
}

/// Flights of March of three carriers, more than a group of rows holds, and one of April.
/// One of them is there twice, unless they are to be `distinct`.
async fn lake_of_two_months(directory: &Path, distinct: bool) -> Lake {
    const ROWS: usize = 40_000;
    let mut csv =
        "FlightDate,Carrier,FlightNum,Origin,Dest,CRSDepTime,DepDelay,ArrDelay\n".to_owned();
    // as they come in a month's file: the carriers mixed
    for row in 0..ROWS {
        for carrier in ["WN", "AA", "UA"] {
            let (day, hour, minute) = (row % 31 + 1, row % 24, row % 60);
            let flight = format!("2013-03-{day:02},{carrier},{row},EWR,IAH,{hour:02}{minute:02}");
            writeln!(csv, "{flight},2,11").unwrap();
        }
    }
    csv.push_str("2013-03-01,WN,0,EWR,IAH,0000,2,11\n2013-04-01,WN,1,EWR,IAH,0515,2,11\n");
    let file = directory.join("flights.csv");
    std::fs::write(&file, csv).unwrap();
    let lake = memory_lake();
    let options = IngestOptions { distinct, ..IngestOptions::default() };
    ingest(&session(2), &lake, &[file], "first", &options, &|_| {}).await.unwrap();
    lake
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_month_and_the_carriers_that_are_asked_for_are_read() {
    for (distinct, n_flights) in [(false, 40_001), (true, 40_000)] {
        let (directory, ctx) = (tempfile::tempdir().unwrap(), session(1));
        let lake = lake_of_two_months(directory.path(), distinct).await;
        lake.register_flights(&ctx).await.unwrap();
        let query = "SELECT COUNT(*), AVG(arr_delay_minutes) FROM flights \
            WHERE year = 2013 AND month = 3 AND carrier = 'WN'";
        let frame = ctx.sql(query).await.unwrap();
        let plan = frame.create_physical_plan().await.unwrap();
        let text = displayable(plan.as_ref()).indent(false).to_string();
        let files = text.matches(".parquet").count();
        assert!(text.contains("/year=2013/month=3/") && files == 1, "{text}");
        if !distinct {
            check_golden("plan_of_a_month_and_carrier.txt", &masked(&text));
        }
        let rows = collect(Arc::clone(&plan), ctx.task_ctx()).await.unwrap();
        assert_eq!(rows[0].column(0).as_primitive::<Int64Type>().value(0), n_flights);
        // one group of rows is of AA and UA, the other of UA and WN
        let metrics = DisplayableExecutionPlan::with_metrics(plan.as_ref()).indent(true);
        let (metrics, pruned) =
            (metrics.to_string(), "row_groups_pruned_statistics=2 total → 1 matched");
        assert!(metrics.contains(pruned), "distinct {distinct}: {metrics}");
    }
}

fn specs() -> Vec<FeatureSpec> {
    let feature = |name: &str, encoding| FeatureSpec { name: name.to_owned(), encoding };
    vec![
        feature("dep_delay", Encoding::Numeric(vec![0.0, 30.0])),
        feature("origin", Encoding::Categorical(vec!["EWR".into(), "JFK".into()])),
    ]
}

/// The names of the features.
fn used() -> Vec<String> {
    specs().into_iter().map(|spec| spec.name).collect()
}

/// The functions of the first pass.
fn register_functions(ctx: &SessionContext) {
    let specs = specs();
    let encodings: Vec<&Encoding> = specs.iter().map(|spec| &spec.encoding).collect();
    let pass = Growth::new(&Default::default(), &encodings).next_pass(usize::MAX).unwrap();
    ctx.register_udaf(TreeHistogram::new(Load::from(pass)).into_udaf());
    ctx.register_udf(FeatureIndices::new(Load::from(specs)).into());
}

fn every_fifth_day() -> HoldOut {
    "day:5".parse().unwrap()
}

#[tokio::test]
async fn a_pass_counts_in_every_partition_and_merges_once() {
    let ctx = session(2);
    register_functions(&ctx);
    some_lake().await.register_flights(&ctx).await.unwrap();
    register_training(&ctx, &every_fifth_day(), &used()).await.unwrap();
    let indices = sql::plan(&ctx, sql::INDICES, &[]).await.unwrap();
    let schema = Arc::clone(indices.schema().inner());
    let partitions = vec![Vec::new(), Vec::new()];
    ctx.register_table("indices", Arc::new(MemTable::try_new(schema, partitions).unwrap()))
        .unwrap();
    let by_day = [("by_day", ScalarValue::from(false))];
    let plan = plan(&ctx, sql::HISTOGRAM, &by_day).await;
    assert!(plan.contains("AggregateExec: mode=Final,"), "{plan}");
    assert!(plan.contains("AggregateExec: mode=Partial,"), "{plan}");
    check_golden("plan_of_43_histogram.txt", &plan);
}

#[tokio::test]
async fn indices_are_made_in_one_scan_of_the_columns_that_are_used() {
    let ctx = session(2);
    register_functions(&ctx);
    some_lake().await.register_flights(&ctx).await.unwrap();
    register_training(&ctx, &every_fifth_day(), &used()).await.unwrap();
    let plan = plan(&ctx, sql::INDICES, &[]).await;
    assert_eq!(plan.matches("file_groups=").count(), 2, "flights and distances\n{plan}");
    check_golden("plan_of_42_indices.txt", &plan);
}

#[tokio::test]
async fn distinct_values_are_counted_in_one_scan_of_the_columns_that_are_used() {
    let ctx = session(2);
    some_lake().await.register_flights(&ctx).await.unwrap();
    register_training(&ctx, &every_fifth_day(), &used()).await.unwrap();
    let plan = plan(&ctx, sql::VALUES, &[]).await;
    assert!(!plan.contains("crs_arr_minutes"), "{plan}");
    check_golden("plan_of_41_values.txt", &plan);
}

#[tokio::test]
async fn a_model_is_asked_once_about_each_held_out_flight() {
    let ctx = session(2);
    let lake = &shipped().await.lake;
    lake.register_flights(&ctx).await.unwrap();
    let champion = Arc::new(registry::champion(lake).await.unwrap().unwrap());
    let model = champion.model();
    register_training(&ctx, &model.params.holdout, &model.feature_names()).await.unwrap();
    let params = [
        registry::register_one(&ctx, &champion),
        ("last_day", ScalarValue::from(0)),
        ("temperature", ScalarValue::from(model.temperature)),
    ];
    let plan = plan(&ctx, sql::EVALUATION, &params).await;
    for function in ["predict_delay(", "uncalibrated("] {
        assert_eq!(plan.matches(function).count(), 1, "{plan}");
    }
}

#[tokio::test]
async fn a_micro_batch_is_scored_in_one_partition_and_encoded_once() {
    let ctx = session(1);
    stream::prepare(&ctx, &shipped().await.lake).await.unwrap();
    let plan = micro_batch::Plan::new(&ctx).await.unwrap();
    let plan = plan.to_string();
    assert_eq!(plan.matches("model_indices(").count(), 1, "{plan}");
    check_golden("plan_of_70_answers.txt", &plan);
}
