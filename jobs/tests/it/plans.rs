//! The plans of the main queries, so that a change of one is seen.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::datasource::MemTable;
use datafusion::physical_plan::displayable;
use datafusion::prelude::{DataFrame, SessionContext};
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

use crate::setup::{check_golden, session, shipped, some_lake};

async fn physical(frame: DataFrame) -> String {
    let plan = frame.create_physical_plan().await.unwrap();
    displayable(plan.as_ref()).indent(false).to_string()
}

/// Plans a step; what differs from run to run is masked.
async fn plan(ctx: &SessionContext, step: Step, params: &[(&str, ScalarValue)]) -> String {
    let plan = physical(sql::plan(ctx, step, params).await.unwrap()).await;
    let masked = plan.lines().map(|line| match line.split_once("file_groups={") {
        Some((before, after)) => {
            let (_, after) = after.split_once("]]}").unwrap();
            format!("{before}file_groups=…{after}")
        }
        None => line.to_owned(),
    });
    masked.collect::<Vec<_>>().join("\n")
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
async fn a_micro_batch_is_scored_in_one_partition_and_encoded_once() {
    let ctx = session(1);
    stream::prepare(&ctx, &shipped().await.lake).await.unwrap();
    let plan = micro_batch::Plan::new(&ctx).await.unwrap();
    let plan = plan.to_string();
    assert_eq!(plan.matches("model_indices(").count(), 1, "{plan}");
    check_golden("plan_of_70_answers.txt", &plan);
}
