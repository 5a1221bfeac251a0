//! Training and serving see the same features of the same flight, bit for bit.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::compute::{cast, concat_batches};
use datafusion::arrow::datatypes::{DataType, Date32Type, FieldRef, Float64Type, Int32Type};
use datafusion::common::ScalarValue;
use datafusion::prelude::{SessionContext, col, lit};
use events::PredictionRequest;
use jobs::models::registry;
use jobs::sql;
use jobs::stream;
use jobs::stream::micro_batch;
use udf::encode::encoder::Kind;
use udf::functions::model::Models;
use udf::model::scorer::Scorer;
use uuid::Uuid;

use crate::setup::{memory_lake, rules, session, shipped, some_lake};

/// Flights that a request can describe: it must know the departure delay.
async fn register_departed(ctx: &SessionContext) {
    some_lake().await.register_flights(ctx).await.unwrap();
    let flights = ctx.table("flights").await.unwrap();
    let departed = flights.filter(col("dep_delay_minutes").is_not_null()).unwrap();
    ctx.deregister_table("flights").unwrap();
    ctx.register_table("flights", departed.into_view()).unwrap();
    sql::view(ctx, "features", sql::FEATURES, &[]).await.unwrap();
}

async fn one_batch(ctx: &SessionContext, query: &str) -> RecordBatch {
    let batches = ctx.sql(query).await.unwrap().collect().await.unwrap();
    concat_batches(&batches[0].schema(), &batches).unwrap()
}

/// A feature with its value for each flight, in the order of `flight_id`.
type Column = (String, Vec<Option<String>>);

/// All features of all flights: numbers as their bits, categories as text.
async fn bits(ctx: &SessionContext) -> Vec<Column> {
    let batch = one_batch(ctx, "SELECT features FROM features ORDER BY flight_id").await;
    let features = batch.column(0).as_struct();
    let column = |(field, column): (&FieldRef, &ArrayRef)| {
        let values = match Kind::of(field.data_type()).unwrap() {
            Kind::Numeric => {
                let numbers = cast(column, &DataType::Float64).unwrap();
                let numbers = numbers.as_primitive::<Float64Type>().iter();
                numbers.map(|n| n.map(|n| format!("{:016x}", n.to_bits()))).collect()
            }
            Kind::Categorical => {
                let texts = cast(column, &DataType::Utf8).unwrap();
                texts.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
            }
        };
        (field.name().clone(), values)
    };
    features.fields().iter().zip(features.columns()).map(column).collect()
}

fn check_equal(training: &[Column], serving: &[Column]) {
    assert_eq!(training.len(), serving.len());
    for ((name, training), (same_name, serving)) in training.iter().zip(serving) {
        assert_eq!((name, training.len()), (same_name, serving.len()));
        let differing = training.iter().zip(serving).position(|(t, s)| t != s);
        if let Some(row) = differing {
            let (t, s) = (&training[row], &serving[row]);
            panic!("{name} of flight {row}: {t:?} in training, {s:?} in serving");
        }
    }
}

/// The flights as requests that went over the wire, in the order of `flight_id`.
async fn requests(ctx: &SessionContext, knows_distance: bool) -> Vec<PredictionRequest> {
    let flights = one_batch(ctx, "SELECT * FROM flights ORDER BY flight_id").await;
    let text = |name: &str| cast(flights.column_by_name(name).unwrap(), &DataType::Utf8).unwrap();
    let number = |name: &str| flights.column_by_name(name).unwrap().as_primitive::<Float64Type>();
    let clock = |name: &str, row: usize| {
        let minutes = flights.column_by_name(name).unwrap().as_primitive::<Int32Type>();
        minutes.is_valid(row).then(|| minutes.value(row) / 60 * 100 + minutes.value(row) % 60)
    };
    let dates = flights.column_by_name("flight_date").unwrap().as_primitive::<Date32Type>();
    let [carrier, number_of, origin, dest] =
        ["carrier", "flight_number", "origin", "dest"].map(text);
    let request = |row: usize| PredictionRequest {
        dep_delay: number("dep_delay_minutes").value(row),
        carrier: carrier.as_string::<i32>().value(row).to_owned(),
        flight_date: dates.value_as_date(row).unwrap(),
        dest: dest.as_string::<i32>().value(row).to_owned(),
        origin: origin.as_string::<i32>().value(row).to_owned(),
        flight_num: Some(number_of.as_string::<i32>().value(row).to_owned()),
        distance: knows_distance.then(|| number("distance_miles").value(row)),
        crs_dep_time: clock("crs_dep_minutes", row),
        crs_arr_time: clock("crs_arr_minutes", row),
        timestamp: None,
        uuid: Uuid::from_u128(row as u128),
    };
    let sent = (0..flights.num_rows()).map(|row| request(row).encode());
    sent.map(|bytes| PredictionRequest::decode(&bytes).unwrap()).collect()
}

/// A session as the stream has it.
async fn serving() -> SessionContext {
    let ctx = session(1);
    let lake = some_lake().await;
    lake.register_table(&ctx, "distances", "distances/", &[]).await.unwrap();
    ctx
}

#[tokio::test]
async fn training_and_streaming_features_are_bit_equal() {
    let training = session(3);
    register_departed(&training).await;
    let expected = bits(&training).await;
    assert!(expected[0].1.len() > 4_000, "{} flights", expected[0].1.len());
    let streaming = serving().await;
    let requests = requests(&training, true).await;
    micro_batch::register_features(&streaming).await.unwrap().fill(&requests).unwrap();
    check_equal(&expected, &bits(&streaming).await);
}

#[tokio::test]
async fn a_distance_from_the_route_is_the_one_that_training_would_see() {
    let training = session(2);
    register_departed(&training).await;
    let requests = requests(&training, false).await;
    let flights = training.table("flights").await.unwrap();
    let unmeasured =
        flights.with_column("distance_miles", lit(ScalarValue::Float64(None))).unwrap();
    training.deregister_table("flights").unwrap();
    training.register_table("flights", unmeasured.into_view()).unwrap();
    sql::view(&training, "features", sql::FEATURES, &[]).await.unwrap();
    let expected = bits(&training).await;
    let (_, distances) = expected.iter().find(|(name, _)| name == "distance").unwrap();
    assert!(distances.iter().all(Option::is_some), "every pair has a distance");

    let streaming = serving().await;
    micro_batch::register_features(&streaming).await.unwrap().fill(&requests).unwrap();
    check_equal(&expected, &bits(&streaming).await);
}

#[tokio::test]
async fn features_do_not_know_when_a_flight_arrived() {
    let ctx = session(2);
    register_departed(&ctx).await;
    let expected = bits(&ctx).await;
    let mut flights = ctx.table("flights").await.unwrap();
    for (column, value) in [
        ("arr_delay_minutes", ScalarValue::Float64(None)),
        ("arr_minutes", ScalarValue::Int32(None)),
        ("air_time_minutes", ScalarValue::Float64(None)),
        ("cancelled", ScalarValue::Boolean(Some(true))),
        ("diverted", ScalarValue::Boolean(None)),
    ] {
        flights = flights.with_column(column, lit(value)).unwrap();
    }
    ctx.deregister_table("flights").unwrap();
    ctx.register_table("flights", flights.into_view()).unwrap();
    sql::view(&ctx, "features", sql::FEATURES, &[]).await.unwrap();
    check_equal(&expected, &bits(&ctx).await);
}

#[tokio::test]
async fn training_and_streaming_predictions_are_bit_equal() {
    let training = session(3);
    register_departed(&training).await;
    let model = shipped().await.report.model.clone();
    let scorer = Arc::new(Scorer::new(model, shipped().await.report.version.clone()));
    let streaming = serving().await;
    for ctx in [&training, &streaming] {
        let models = Models::from([("champion".to_owned(), Arc::clone(&scorer))]);
        registry::register(ctx, models);
    }
    let requests = requests(&training, true).await;
    let messages = requests.iter().map(|request| micro_batch::Message {
        value: Some(request.encode()),
        ..micro_batch::Message::default()
    });
    let plan = micro_batch::Plan::new(&streaming).await.unwrap();
    let scored = micro_batch::score(&plan, messages.collect(), rules()).await.unwrap();
    assert!(scored.dead_letters.is_empty() && scored.answers.len() == requests.len());

    let params = [("model", ScalarValue::from("champion"))];
    let predictions = sql::plan(&training, sql::PREDICTIONS, &params).await.unwrap();
    let mut answers = scored.answers.iter();
    for batch in predictions.collect().await.unwrap() {
        let class = batch.column_by_name("prediction").unwrap().as_primitive::<Int32Type>();
        let shares = batch.column_by_name("probabilities").unwrap().as_fixed_size_list();
        for row in 0..batch.num_rows() {
            let Some(events::Answer::Ok(answer)) = answers.next() else {
                panic!("a flight has no answer")
            };
            let shares = shares.value(row);
            let shares = shares.as_primitive::<Float64Type>().values();
            assert_eq!(i32::from(answer.prediction), class.value(row));
            let bits = |shares: &[f64]| shares.iter().map(|p| p.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&answer.probabilities), bits(shares));
        }
    }
    assert!(answers.next().is_none());
}

#[tokio::test]
async fn the_stream_loads_the_champion_and_the_distances() {
    let shipped = shipped().await;
    let ctx = session(1);
    let prepared = stream::prepare(&ctx, &shipped.lake).await.unwrap();
    assert_eq!(prepared.serving.champion().version(), shipped.report.version);
    assert!(ctx.table("distances").await.unwrap().count().await.unwrap() > 200);
    let error = stream::prepare(&ctx, &memory_lake()).await.err().unwrap().to_string();
    let want = "there is no champion under memory:///lake/; `submit-job train` makes one";
    assert_eq!(error, want);
}
