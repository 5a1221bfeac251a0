//! The messages that cross process boundaries, and the names they travel under.
//!
//! A [`PredictionRequest`] goes from the web page to the streaming job; an [`Answer`] comes back
//! through the response topic and the document store. An [`Arrival`] tells afterwards what became
//! of the flight. Field names are those of the system that Tarmac replaces, so that its clients and
//! dashboards go on working. This crate decides what a valid message is and must not know Kafka,
//! MongoDB or DataFusion.
//!
//! ```
//! use events::PredictionRequest;
//!
//! let message = br#"{"UUID": "0d7a4bd0-7b5e-4a10-9e0c-1f6d0b6a2f11", "Carrier": "aa",
//!     "FlightDate": "2016-12-25", "Origin": "ATL", "Dest": "SFO", "DepDelay": 15}"#;
//! let request = PredictionRequest::decode(message)?;
//! assert_eq!((request.carrier.as_str(), request.distance), ("AA", None));
//!
//! let error = PredictionRequest::decode(br#"{"DepDelay": "late"}"#).unwrap_err();
//! assert!(error.to_string().starts_with("DepDelay: "));
//! # Ok::<(), events::BadRequest>(())
//! ```

mod answer;
mod arrival;
mod model;
mod request;
mod sender;

pub use answer::{Answer, Contribution, DelayClass, N_CLASSES, Prediction, Refusal, late};
pub use arrival::Arrival;
pub use model::{
    AirlineProfile, CalibrationBin, Compared, Importance, LiveEvaluation, ModelCard, ModelFeatures,
    StreamStatus,
};
pub use request::{
    BadRequest, DELAY_MINUTES_MAX, DISTANCE_MILES_MAX, PredictionRequest, REASON_BYTES_MAX,
    REQUEST_BYTES_MAX, TIMESTAMP_BYTES_MAX, clock_minutes, flight_code, is_code, parse_uuid,
};
pub use sender::request_uuid;

/// Kafka topic that carries [`PredictionRequest`]s.
pub const REQUEST_TOPIC: &str = "flight_delay_classification_request";
/// Kafka topic that carries [`Answer`]s.
pub const RESPONSE_TOPIC: &str = "flight_delay_classification_response";
/// Kafka topic that carries [`Arrival`]s.
pub const ARRIVAL_TOPIC: &str = "flight_arrivals";
/// Suffix of the topic that keeps requests which cannot be scored, bytes unchanged.
pub const DLQ_SUFFIX: &str = ".dlq";
/// Database that holds all collections.
pub const DATABASE: &str = "agile_data_science";
/// Collection of [`Answer`]s, `_id` = UUID of the request. None ever changes.
pub const ANSWERS: &str = "flight_delay_classification_response";
/// Collection of [`Answer::Rejected`], `_id` = UUID of the request.
pub const REJECTIONS: &str = "flight_delay_classification_rejected";
/// Collection of how far each partition is answered, `_id` = `group/topic/partition`.
pub const STREAM_OFFSETS: &str = "stream_offsets";
/// Collection of the dead letters that were sent again, `_id` = `topic/partition/offset/digest` of
/// the message.
pub const REPLAYED_DEAD_LETTERS: &str = "replayed_dead_letters";
/// Collection of requests that are answered overnight, `_id` = [`task_id`].
pub const PREDICTION_TASKS: &str = "prediction_tasks";
/// Collection of their [`Answer`]s, under the same `_id`.
pub const PREDICTION_RESULTS: &str = "prediction_results";
/// Collection of [`Arrival`]s, `_id` = the flight and a digest of what was told of it.
pub const ARRIVALS: &str = "flight_arrivals";
/// Collection of messages that are no arrivals, with the reason.
pub const ARRIVAL_REJECTIONS: &str = "flight_arrivals_rejected";
/// Collection of [`LiveEvaluation`]s.
pub const LIVE_EVALUATIONS: &str = "live_evaluations";
/// Collection of [`ModelCard`]s.
pub const MODELS: &str = "models";
/// Collection of [`ModelFeatures`].
pub const MODEL_FEATURES: &str = "model_features";
/// What the other collections of the pages were made from, `_id` = the name of one.
pub const PUBLICATIONS: &str = "publications";
/// Collection of [`StreamStatus`].
pub const STREAM_STATUS: &str = "stream_status";
/// Collection of airlines, `_id` = carrier code, field `Name`, as `sql/pages/airlines.sql` makes
/// it; so are all that follow, each by the file of its name.
pub const AIRLINES: &str = "airlines";
/// Collection of [`AirlineProfile`]s, `_id` = carrier code.
pub const AIRLINE_PROFILES: &str = "airline_profiles";
/// Where pictures of airlines are: pages show none from elsewhere.
pub const LOGOS: &str = "https://upload.wikimedia.org/";
/// Collection of airplanes, `_id` = tail number.
pub const AIRPLANES: &str = "airplanes";
/// Collection of the tail numbers of each carrier, `_id` = carrier code.
pub const AIRPLANES_PER_CARRIER: &str = "airplanes_per_carrier";
/// Collection of airports, `_id` = airport code, field `Name`.
pub const AIRPORTS: &str = "airports";
/// Collection of the routes of each carrier, `_id` = `UA-EWR-IAH`.
pub const CARRIER_ROUTES: &str = "carrier_routes";
/// Collection of delays by hour of the scheduled departure, `_id` = `07`.
pub const DELAYS_BY_HOUR: &str = "delays_by_hour";
/// Collection of delays by week, `_id` = its Monday, `2013-01-07`.
pub const DELAYS_BY_WEEK: &str = "delays_by_week";
/// Collection of flights by month, `_id` = `2013-01`.
pub const FLIGHTS_BY_MONTH: &str = "flights_by_month";
/// Collection of the makers of airplanes, `_id` = name.
pub const MANUFACTURERS: &str = "manufacturers";
/// Collection of flights, `_id` = the flight's id.
pub const ON_TIME_PERFORMANCE: &str = "on_time_performance";
/// Collection of distances between airports, `_id` = `EWR-IAH`, unique by `Origin` and `Dest`.
pub const ORIGIN_DEST_DISTANCES: &str = "origin_dest_distances";
/// Collection of routes, `_id` = `EWR-IAH`.
pub const ROUTES: &str = "routes";

/// The `_id` of a task that was left on `day`: the tasks of a day stand together.
pub fn task_id(day: chrono::NaiveDate, uuid: uuid::Uuid) -> String {
    format!("{day}/{uuid}")
}

/// The smallest and the largest `_id` that a task of `day` may have.
pub fn task_ids(day: chrono::NaiveDate) -> (String, String) {
    (format!("{day}/"), format!("{day}/\u{10ffff}"))
}
