//! A micro-batch of messages → answers and dead letters. No Kafka, no store: the stream ties this
//! to both, and a test feeds it a `Vec`.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use chrono::{DateTime, Datelike, Utc};
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, ListArray, RecordBatch, StructArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::execution::{SessionStateBuilder, TaskContext};
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::{ExecutionPlan, collect, displayable};
use datafusion::prelude::SessionContext;
use events::{
    Answer, BadRequest, DelayClass, N_CLASSES, Prediction, PredictionRequest, Refusal, late,
    request_uuid,
};
use tokio::sync::Mutex;
use udf::functions::classes;
use uuid::Uuid;

use crate::sql;
use crate::stream::requests::Requests;

/// A message as it came from a topic.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// Partition of the request topic.
    pub partition: i32,
    /// Offset in the partition.
    pub offset: i64,
    /// When Kafka got it, in milliseconds since 1970.
    pub created_ms: Option<i64>,
    /// Key, unchanged.
    pub key: Option<Vec<u8>>,
    /// Value, unchanged; none when the message has none.
    pub value: Option<Vec<u8>>,
    /// Headers, unchanged, in order.
    pub headers: Headers,
}

/// Names and values of headers.
pub type Headers = Vec<(String, Option<Vec<u8>>)>;

impl Message {
    /// Bytes of key, value and headers.
    pub fn n_bytes(&self) -> usize {
        let value = |value: &Option<Vec<u8>>| value.as_ref().map_or(0, Vec::len);
        let headers = self.headers.iter().map(|(name, text)| name.len() + value(text));
        value(&self.key) + value(&self.value) + headers.sum::<usize>()
    }
}

/// A message that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The message.
    pub message: Message,
    /// The kind of fault, see [`BadRequest::kind`].
    pub kind: &'static str,
    /// Why; names the field.
    pub reason: String,
    /// The request that it is, where it says so.
    pub uuid: Option<Uuid>,
}

impl DeadLetter {
    /// The answer to its sender.
    pub fn rejection(&self) -> Option<Answer> {
        let refusal = |uuid| Refusal { uuid, reason: self.reason.clone() };
        self.uuid.map(refusal).map(Answer::Rejected)
    }
}

/// What decides whether a message is scored.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// The present.
    pub now: DateTime<Utc>,
    /// Largest message that is read, in bytes.
    pub message_bytes_max: usize,
    /// Age beyond which a request is not scored any more, by its `Timestamp`; `None` is for ever.
    pub expire_after: Option<Duration>,
}

/// What became of a micro-batch.
#[derive(Debug, Default)]
pub struct ScoredBatch {
    /// One for each request that can be read.
    pub answers: Vec<Answer>,
    /// For each answer, the partition that its request came from.
    pub partitions: Vec<i32>,
    /// What cannot be read.
    pub dead_letters: Vec<DeadLetter>,
    /// The rows of `sql/70_answers.sql`: features and predictions of what was scored.
    pub rows: Vec<RecordBatch>,
    /// Requests whose UUID came before in the same micro-batch; the first one is answered.
    pub n_repeated: usize,
}

/// Scores a micro-batch. Errors are faults of the engine; a bad message never is one.
pub async fn score(plan: &Plan, messages: Vec<Message>, rules: Rules) -> Result<ScoredBatch> {
    let mut scored = ScoredBatch::default();
    let (mut requests, mut their_partitions) = (Vec::new(), Vec::new());
    let mut uuids = HashSet::new();
    for message in messages {
        let value = message.value.as_deref().unwrap_or_default();
        match PredictionRequest::decode_within(value, rules.message_bytes_max) {
            Ok(request) if !uuids.insert(request.uuid) => scored.n_repeated += 1,
            Ok(request) => match expired(&request, rules) {
                Some(refusal) => {
                    scored.answers.push(Answer::Expired(refusal));
                    scored.partitions.push(message.partition);
                }
                None => {
                    requests.push(request);
                    their_partitions.push(message.partition);
                }
            },
            Err(error) => reject(&mut scored, message, &error),
        }
    }
    if !requests.is_empty() {
        predict(plan, requests, rules.now, &mut scored).await?;
        scored.partitions.append(&mut their_partitions);
    }
    Ok(scored)
}

/// Why a request is not worth scoring any more, if so. One that does not say when it was asked
/// never expires.
fn expired(request: &PredictionRequest, rules: Rules) -> Option<Refusal> {
    let limit = rules.expire_after?;
    let age = rules.now.signed_duration_since(request.asked_at()?).to_std().ok()?;
    let reason = format!("Timestamp: {} s old, more than {}", age.as_secs(), limit.as_secs());
    let refusal = Refusal { uuid: request.uuid, reason };
    (age > limit).then_some(refusal)
}

fn reject(scored: &mut ScoredBatch, message: Message, error: &BadRequest) {
    let uuid = message.value.as_deref().and_then(request_uuid);
    let reason = error.reason();
    scored.dead_letters.push(DeadLetter { message, kind: error.kind(), reason, uuid });
}

/// Registers `flights`, to be filled with requests, and `features` made from it by the step that
/// training uses.
pub async fn register_features(ctx: &SessionContext) -> Result<Arc<Requests>> {
    let requests = Requests::register(ctx)?;
    sql::view(ctx, "features", sql::FEATURES, &[]).await?;
    Ok(requests)
}

/// How micro-batches are scored: by `sql/30_features.sql` and `sql/70_answers.sql`, planned once
/// for a model, because planning costs more than scoring some thousand rows.
pub struct Plan {
    /// Held while requests are scored: they have one place.
    turn: Mutex<()>,
    requests: Arc<Requests>,
    plan: Arc<dyn ExecutionPlan>,
    task: Arc<TaskContext>,
}

impl Plan {
    /// Plans over `distances` and the model named `champion`, which `ctx` knows.
    pub async fn new(ctx: &SessionContext) -> Result<Self> {
        let requests = register_features(ctx).await?;
        let model = ScalarValue::from("champion");
        let frame = sql::plan(ctx, sql::ANSWERS, &[("model", model)]).await?;
        let (state, plan) = frame.into_parts();
        // another default catalog would take the place of the one that holds our relations
        let mut config = state.config().clone().with_create_default_catalog_and_schema(false);
        // a join that tells its other side what to leave out remembers it from one run to the next
        config.options_mut().optimizer.enable_dynamic_filter_pushdown = false;
        let state = SessionStateBuilder::new_from_existing(state).with_config(config).build();
        let plan = state.create_physical_plan(&plan).await.context(sql::ANSWERS.file)?;
        Ok(Self { turn: Mutex::default(), requests, plan, task: state.task_ctx() })
    }

    async fn predict(&self, requests: &[PredictionRequest]) -> Result<Vec<RecordBatch>> {
        let _turn = self.turn.lock().await;
        self.requests.fill(requests)?;
        let plan = reset_plan_states(Arc::clone(&self.plan))?;
        Ok(collect(plan, Arc::clone(&self.task)).await?)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        displayable(self.plan.as_ref()).indent(false).fmt(f)
    }
}

async fn predict(
    plan: &Plan,
    requests: Vec<PredictionRequest>,
    now: DateTime<Utc>,
    scored: &mut ScoredBatch,
) -> Result<()> {
    scored.rows = plan.predict(&requests).await?;
    let answered_at = PredictionRequest::timestamp(now);
    let (mut n_answered, mut requests) = (0, requests.into_iter());
    for batch in &scored.rows {
        let ids = batch.column_by_name("flight_id").context("no flight_id")?;
        let mut rows = Vec::with_capacity(batch.num_rows());
        for (row, id) in ids.as_primitive::<Int64Type>().values().iter().enumerate() {
            // a route whose distance is there twice makes two rows
            if *id < n_answered {
                continue;
            }
            anyhow::ensure!(*id == n_answered, "a request was lost in scoring");
            n_answered += 1;
            rows.push((row, requests.next().context("a row of no request")?));
        }
        answer(batch, rows, &answered_at, &mut scored.answers)?;
    }
    anyhow::ensure!(requests.next().is_none(), "a request was lost in scoring");
    Ok(())
}

/// Answers requests, each by its row of `sql/70_answers.sql`.
fn answer(
    batch: &RecordBatch,
    requests: Vec<(usize, PredictionRequest)>,
    answered_at: &str,
    answers: &mut Vec<Answer>,
) -> Result<()> {
    let column = |name: &str| batch.column_by_name(name).with_context(|| format!("no {name}"));
    let field = |of: &str, name: &str| -> Result<&ArrayRef> {
        let field = column(of)?.as_struct().column_by_name(name);
        field.with_context(|| format!("no {name} in {of}"))
    };
    let prediction = field("answer", "prediction")?.as_primitive::<Int32Type>().values();
    let probabilities = classes::numbers(field("answer", "probabilities")?)?;
    let version = field("answer", "model_version")?.as_string_view();
    let contributions = field("reasons", "contributions")?.as_list::<i32>();
    let changes = contributions.values().as_struct().column_by_name("changes");
    let changes = classes::numbers(changes.context("no changes in contributions")?)?;
    let unseen = column("unseen")?.as_list::<i32>();
    let distances = distances_of(column("features")?.as_struct())?;
    for (row, request) in requests {
        let date = request.flight_date;
        let offsets = contributions.value_offsets();
        let changes = &changes[offsets[row] as usize..offsets[row + 1] as usize];
        let distance = distances.as_ref().filter(|miles| miles.is_valid(row));
        answers.push(Answer::Ok(Box::new(Prediction {
            uuid: request.uuid,
            route: format!("{}-{}", request.origin, request.dest),
            origin: request.origin,
            dest: request.dest,
            carrier: request.carrier,
            flight_num: request.flight_num,
            flight_date: date,
            day_of_week: date.weekday().number_from_monday() as i32,
            day_of_year: date.ordinal() as i32,
            day_of_month: date.day() as i32,
            dep_delay: request.dep_delay,
            distance: distance.map(|miles| miles.value(row)).or(request.distance),
            timestamp: request.timestamp,
            answered_at: answered_at.to_owned(),
            prediction: DelayClass::try_from(prediction[row]).map_err(anyhow::Error::msg)?,
            probabilities: probabilities[row],
            late_contributions: changes.iter().map(ten_thousandths).collect(),
            base_rates: None,
            contributions: Vec::new(),
            unseen: fields_of(unseen, row),
            model_version: version.value(row).to_owned(),
        })));
    }
    Ok(())
}

/// The fields of a request that a row's unseen features come from.
fn fields_of(unseen: &ListArray, row: usize) -> Vec<String> {
    // most have none
    if unseen.value_length(row) == 0 {
        return Vec::new();
    }
    let features = unseen.value(row);
    features.as_string::<i32>().iter().flatten().map(|name| field_of(name).to_owned()).collect()
}

/// What a feature added to the probability of arriving late.
fn ten_thousandths(changes: &[f64; N_CLASSES]) -> i32 {
    (late(changes) * 1e4).round() as i32
}

/// The feature `distance` in miles, of whatever type the step makes it; `None` when it makes none.
pub(crate) fn distances_of(features: &StructArray) -> Result<Option<Float64Array>> {
    let Some(distances) = features.column_by_name("distance") else { return Ok(None) };
    let miles = cast(distances, &DataType::Float64).context("distance in features")?;
    Ok(Some(miles.as_primitive::<Float64Type>().clone()))
}

/// The field of a request that a feature comes from, which is what a person can change. A feature
/// that is not listed is shown by its own name.
pub(crate) fn field_of(feature: &str) -> &str {
    match feature {
        "dep_delay" => "DepDelay",
        "distance" => "Distance",
        "day_of_month" | "day_of_week" | "day_of_year" => "FlightDate",
        "carrier" => "Carrier",
        "origin" => "Origin",
        "dest" => "Dest",
        "route" => "Route",
        "crs_dep" => "CRSDepTime",
        "crs_arr" => "CRSArrTime",
        _ => feature,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{Int32Array, StringArray};
    use datafusion::arrow::datatypes::Field;

    use super::*;

    #[test]
    fn a_distance_may_be_of_any_type_or_not_be_a_feature() {
        let features = |name: &str, values: ArrayRef| {
            let field = Field::new(name, values.data_type().clone(), true);
            distances_of(&StructArray::from(vec![(Arc::new(field), values)])).unwrap()
        };
        let miles = Some(Float64Array::from(vec![Some(187.0), None]));
        assert_eq!(features("distance", Arc::new(Int32Array::from(vec![Some(187), None]))), miles);
        assert_eq!(features("distance", Arc::new(StringArray::from(vec!["187", "?"]))), miles);
        assert_eq!(features("route", Arc::new(StringArray::from(vec!["BOS-JFK", "?"]))), None);
    }
}
