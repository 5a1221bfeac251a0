//! The steps of the pipeline: the files under `sql/`, compiled in, and how to run one.

use anyhow::{Context, Result};
use datafusion::arrow::array::RecordBatch;
use datafusion::common::ScalarValue;
use datafusion::prelude::{DataFrame, SessionContext};
use sha2::{Digest, Sha256};
use tracing::{Instrument, Span, info_span};

/// A file under `sql/`.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Its path, for messages.
    pub file: &'static str,
    /// Its text: one statement.
    pub text: &'static str,
}

impl Step {
    /// What a trace shows of a query that runs it.
    pub(crate) fn span(self) -> Span {
        info_span!(target: telemetry::SPAN, "query", otel.name = self.file)
    }
}

macro_rules! steps {
    ($($(#[$doc:meta])* $name:ident = $file:literal;)*) => {
        $($(#[$doc])*
        pub const $name: Step =
            Step { file: $file, text: include_str!(concat!("../../", $file)) };)*
        /// All steps, in the order of the data.
        pub const STEPS: &[Step] = &[$($name),*];
    };
}

steps! {
    /// Raw rows to typed flights.
    FLIGHTS = "sql/10_flights.sql";
    /// What is wrong with raw rows.
    REJECT_KINDS = "sql/11_reject_kinds.sql";
    /// Flights that arrive twice.
    REPEATS = "sql/12_repeats.sql";
    /// Each of them once.
    DISTINCT = "sql/13_distinct.sql";
    /// Requests in files.
    REQUESTS = "sql/14_requests.sql";
    /// Those whose UUID comes for the first time.
    FIRST_REQUESTS = "sql/15_first_requests.sql";
    /// Names and places of airports.
    AIRPORT_NAMES = "sql/16_airport_names.sql";
    /// Names of airlines.
    AIRLINE_NAMES = "sql/17_airline_names.sql";
    /// Makes of airplanes.
    AIRPLANE_REGISTRY = "sql/18_airplane_registry.sql";
    /// Mean distance per pair of airports.
    DISTANCES = "sql/20_distances.sql";
    /// The only definition of every feature.
    FEATURES = "sql/30_features.sql";
    /// Label, hold-out and row key.
    TRAINING = "sql/40_training.sql";
    /// Distinct values of each feature.
    VALUES = "sql/41_values.sql";
    /// Features as indices.
    INDICES = "sql/42_indices.sql";
    /// One pass over the indices.
    HISTOGRAM = "sql/43_histogram.sql";
    /// A sample of them for the temperature.
    OUT_OF_BAG = "sql/44_out_of_bag.sql";
    /// A model against the held-out flights.
    EVALUATION = "sql/50_evaluation.sql";
    /// A sample for the baselines.
    BASELINE_ROWS = "sql/51_baseline_rows.sql";
    /// What became of the flights that answers are about.
    OUTCOMES = "sql/53_outcomes.sql";
    /// These answers by model and day.
    LIVE_EVALUATION = "sql/54_live_evaluation.sql";
    /// Arrivals without an answer.
    UNASKED = "sql/55_unasked.sql";
    /// Predictions of all flights.
    PREDICTIONS = "sql/60_predictions.sql";
    /// Predictions of requests in files.
    BATCH_PREDICTIONS = "sql/61_batch_predictions.sql";
    /// These as the store keeps them.
    PREDICTION_RESULTS = "sql/62_prediction_results.sql";
    /// What goes back to who asked.
    ANSWERS = "sql/70_answers.sql";
    /// These as the archive keeps them.
    ARCHIVE = "sql/71_archive.sql";
    /// Airlines that fly.
    AIRLINES = "sql/pages/airlines.sql";
    /// Airplanes that flew.
    AIRPLANES = "sql/pages/airplanes.sql";
    /// Tail numbers of each carrier.
    AIRPLANES_PER_CARRIER = "sql/pages/airplanes_per_carrier.sql";
    /// Airports that are flown to or from.
    AIRPORTS = "sql/pages/airports.sql";
    /// What each carrier flies.
    CARRIER_ROUTES = "sql/pages/carrier_routes.sql";
    /// Punctuality over the day.
    DELAYS_BY_HOUR = "sql/pages/delays_by_hour.sql";
    /// Punctuality over the year.
    DELAYS_BY_WEEK = "sql/pages/delays_by_week.sql";
    /// Flights of each month.
    FLIGHTS_BY_MONTH = "sql/pages/flights_by_month.sql";
    /// Who made the airplanes.
    MANUFACTURERS = "sql/pages/manufacturers.sql";
    /// Flights as they are searched for.
    ON_TIME_PERFORMANCE = "sql/pages/on_time_performance.sql";
    /// How far airports are from each other, as the original system keeps it.
    ORIGIN_DEST_DISTANCES = "sql/pages/origin_dest_distances.sql";
    /// Pairs of airports.
    ROUTES = "sql/pages/routes.sql";
}

/// SHA-256 of the steps that decide what a model is trained on, in hexadecimal.
pub fn training_sha256() -> String {
    let growing = [FEATURES, TRAINING, VALUES, INDICES, HISTOGRAM, OUT_OF_BAG];
    sha256(&[&growing[..], &[EVALUATION, DISTANCES]].concat())
}

/// SHA-256 of the steps that make flights, in hexadecimal.
pub fn ingestion_sha256() -> String {
    sha256(&[FLIGHTS, DISTANCES])
}

fn sha256(steps: &[Step]) -> String {
    let mut digest = Sha256::new();
    steps.iter().for_each(|step| digest.update(step.text));
    format!("{:x}", digest.finalize())
}

/// Plans a step over the relations of `ctx`, with its parameters bound.
pub async fn plan(
    ctx: &SessionContext,
    step: Step,
    params: &[(&str, ScalarValue)],
) -> Result<DataFrame> {
    let plan = async {
        let frame = ctx.sql(step.text).await?;
        let params: Vec<_> = params.iter().map(|(n, v)| (n.to_string(), v.clone())).collect();
        if params.is_empty() { Ok(frame) } else { frame.with_param_values(params) }
    };
    plan.await.with_context(|| step.file.to_owned())
}

/// Runs a step, the result of which fits into memory.
pub async fn collect(
    ctx: &SessionContext,
    step: Step,
    params: &[(&str, ScalarValue)],
) -> Result<Vec<RecordBatch>> {
    let running = async { Ok(plan(ctx, step, params).await?.collect().await?) };
    running.instrument(step.span()).await
}

/// Makes a step's result a relation named `name`, computed when it is read.
pub async fn view(
    ctx: &SessionContext,
    name: &str,
    step: Step,
    params: &[(&str, ScalarValue)],
) -> Result<()> {
    register(ctx, name, plan(ctx, step, params).await?)
}

/// Makes rows the relation `name`, in the place of one that is called so; computed when it is read.
pub fn register(ctx: &SessionContext, name: &str, rows: DataFrame) -> Result<()> {
    ctx.deregister_table(name)?;
    ctx.register_table(name, rows.into_view())?;
    Ok(())
}
