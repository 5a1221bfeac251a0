//! A window of messages → answers and dead letters. No Kafka, no store: the stream ties this to
//! both, and a test feeds it a `Vec`.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use anyhow::{Context, Result};
use chrono::{DateTime, Datelike, Utc};
use datafusion::arrow::array::{
    Array, AsArray, BooleanArray, Date32Array, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringViewArray, new_null_array,
};
use datafusion::arrow::datatypes::{
    DataType, Field, Float64Type, Int32Type, Int64Type, Schema, SchemaRef,
};
use datafusion::common::ScalarValue;
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use events::{Answer, BadRequest, Prediction, PredictionRequest, Rejection, Status, request_uuid};

use crate::sql;

/// A message as it came from a topic.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// Partition of the request topic.
    pub partition: i32,
    /// Offset in the partition.
    pub offset: i64,
    /// Key, unchanged.
    pub key: Option<Vec<u8>>,
    /// Value, unchanged; none when the message has none.
    pub value: Option<Vec<u8>>,
}

/// A message that cannot be scored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The message.
    pub message: Message,
    /// Why; names the field.
    pub reason: String,
}

/// What became of a window.
#[derive(Debug, Default)]
pub struct ScoredWindow {
    /// One for each request that names itself, rejections included.
    pub answers: Vec<Answer>,
    /// What could not be scored.
    pub dead_letters: Vec<DeadLetter>,
    /// Requests whose UUID came before in the same window; the first one is answered.
    pub n_repeated: usize,
}

/// Scores a window at the time `now`. `ctx` knows `distances` and a model named `champion`.
///
/// Errors are faults of the engine; a bad message never is one.
pub async fn score(
    ctx: &SessionContext,
    messages: Vec<Message>,
    now: DateTime<Utc>,
) -> Result<ScoredWindow> {
    let mut window = ScoredWindow::default();
    let mut requests = Vec::new();
    let mut uuids = HashSet::new();
    for message in messages {
        match PredictionRequest::decode(message.value.as_deref().unwrap_or_default()) {
            Ok(request) if uuids.insert(request.UUID) => requests.push(request),
            Ok(_) => window.n_repeated += 1,
            Err(error) => reject(&mut window, &mut uuids, message, &error),
        }
    }
    if !requests.is_empty() {
        let answers = predict(ctx, &requests, now).await?;
        window.answers.extend(answers);
    }
    Ok(window)
}

fn reject(
    window: &mut ScoredWindow,
    uuids: &mut HashSet<uuid::Uuid>,
    message: Message,
    error: &BadRequest,
) {
    let reason = error.to_string();
    let uuid = message.value.as_deref().and_then(request_uuid);
    if let Some(uuid) = uuid.filter(|uuid| uuids.insert(*uuid)) {
        let rejection = Rejection { UUID: uuid, status: Status::Rejected, Reason: reason.clone() };
        window.answers.push(Answer::Rejected(rejection));
    }
    window.dead_letters.push(DeadLetter { message, reason });
}

/// Makes `features` from the requests as `flights`, by the steps that training uses.
pub async fn register_features(ctx: &SessionContext, requests: &[PredictionRequest]) -> Result<()> {
    let batch = flights_of(requests)?;
    let table = MemTable::try_new(batch.schema(), vec![vec![batch]])?;
    ctx.deregister_table("flights")?;
    ctx.register_table("flights", Arc::new(table))?;
    sql::view(ctx, "features", sql::FEATURES, &[]).await
}

async fn predict(
    ctx: &SessionContext,
    requests: &[PredictionRequest],
    now: DateTime<Utc>,
) -> Result<Vec<Answer>> {
    register_features(ctx, requests).await?;
    let model = ScalarValue::from("champion");
    let scored = sql::plan(ctx, sql::PREDICTIONS, &[("model", model)]).await?.collect().await?;
    let answered_at = PredictionRequest::timestamp(now);
    let mut answers = BTreeMap::new();
    for batch in &scored {
        for (row, prediction) in predictions_of(batch, requests, &answered_at)? {
            answers.insert(row, Answer::Scored(Box::new(prediction)));
        }
    }
    anyhow::ensure!(answers.len() == requests.len(), "a request was lost in scoring");
    Ok(answers.into_values().collect())
}

/// Reads the rows of `sql/6_predictions.sql`, each with the position of its request.
fn predictions_of(
    batch: &RecordBatch,
    requests: &[PredictionRequest],
    answered_at: &str,
) -> Result<Vec<(usize, Prediction)>> {
    let column = |name: &str| batch.column_by_name(name).with_context(|| format!("no {name}"));
    let ids = column("flight_id")?.as_primitive::<Int64Type>();
    let prediction = column("prediction")?.as_primitive::<Int32Type>();
    let probabilities = column("probabilities")?.as_fixed_size_list();
    let version = column("model_version")?.as_string_view();
    let unseen = column("unseen")?.as_list::<i32>();
    let distance = column("distance_miles")?.as_primitive::<Float64Type>();
    let mut predictions = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let position = usize::try_from(ids.value(row))?;
        let request = requests.get(position).context("a flight that nobody asked for")?;
        let shares = probabilities.value(row);
        let shares = shares.as_primitive::<Float64Type>().values();
        let fields = unseen.value(row);
        let fields = fields.as_string::<i32>().iter().flatten().map(str::to_owned);
        let date = request.FlightDate;
        predictions.push((
            position,
            Prediction {
                UUID: request.UUID,
                status: Status::Ok,
                Origin: request.Origin.clone(),
                Dest: request.Dest.clone(),
                Route: format!("{}-{}", request.Origin, request.Dest),
                Carrier: request.Carrier.clone(),
                FlightNum: request.FlightNum.clone(),
                FlightDate: date,
                DayOfWeek: date.weekday().number_from_monday() as i32,
                DayOfYear: date.ordinal() as i32,
                DayOfMonth: date.day() as i32,
                DepDelay: request.DepDelay,
                Distance: distance.is_valid(row).then(|| distance.value(row)),
                Timestamp: request.Timestamp.clone(),
                AnsweredAt: answered_at.to_owned(),
                Prediction: prediction.value(row),
                Probabilities: shares.as_ref().try_into().context("four probabilities")?,
                Unseen: fields.collect(),
                ModelVersion: version.value(row).to_owned(),
            },
        ));
    }
    Ok(predictions)
}

/// The requests as the relation `flights`; `flight_id` is the position of the request.
fn flights_of(requests: &[PredictionRequest]) -> Result<RecordBatch> {
    let texts = |of: fn(&PredictionRequest) -> Option<&str>| -> Arc<dyn Array> {
        Arc::new(requests.iter().map(of).collect::<StringViewArray>())
    };
    let minutes = |of: fn(&PredictionRequest) -> Option<i32>| -> Arc<dyn Array> {
        let minutes = |hhmm: i32| hhmm / 100 % 24 * 60 + hhmm % 100;
        Arc::new(requests.iter().map(|r| of(r).map(minutes)).collect::<Int32Array>())
    };
    let days = requests.iter().map(|r| {
        let epoch = chrono::NaiveDate::default();
        r.FlightDate.signed_duration_since(epoch).num_days() as i32
    });
    let n_rows = requests.len();
    let columns: Vec<Arc<dyn Array>> = vec![
        Arc::new(Int64Array::from_iter_values(0..n_rows as i64)),
        Arc::new(Date32Array::from_iter_values(days)),
        texts(|r| Some(&r.Carrier)),
        texts(|r| r.FlightNum.as_deref()),
        texts(|r| Some(&r.Origin)),
        texts(|r| Some(&r.Dest)),
        minutes(|r| r.CRSDepTime),
        Arc::new(Float64Array::from_iter_values(requests.iter().map(|r| r.DepDelay))),
        minutes(|r| r.CRSArrTime),
        new_null_array(&DataType::Float64, n_rows),
        Arc::new(requests.iter().map(|r| r.Distance).collect::<Float64Array>()),
        Arc::new(BooleanArray::from(vec![false; n_rows])),
        Arc::new(BooleanArray::from(vec![false; n_rows])),
    ];
    Ok(RecordBatch::try_new(flights_schema(), columns)?)
}

/// The columns of `flights` that features are made of.
fn flights_schema() -> SchemaRef {
    let field = |name: &str, of: DataType| Field::new(name, of, true);
    Arc::new(Schema::new(vec![
        field("flight_id", DataType::Int64),
        field("flight_date", DataType::Date32),
        field("carrier", DataType::Utf8View),
        field("flight_number", DataType::Utf8View),
        field("origin", DataType::Utf8View),
        field("dest", DataType::Utf8View),
        field("crs_dep_minutes", DataType::Int32),
        field("dep_delay_minutes", DataType::Float64),
        field("crs_arr_minutes", DataType::Int32),
        field("arr_delay_minutes", DataType::Float64),
        field("distance_miles", DataType::Float64),
        field("cancelled", DataType::Boolean),
        field("diverted", DataType::Boolean),
    ]))
}
