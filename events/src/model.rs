//! What is told of models, streams and airlines, beside the answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::N_CLASSES;

/// A saved model; a document of the collection `models`, `_id` = version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(non_snake_case, reason = "named like the fields of answers")]
pub struct ModelCard {
    /// SHA-256 of the artefact, in hexadecimal.
    #[serde(rename = "_id")]
    pub Version: String,
    /// `champion`, `before`, or `never champion`.
    pub Role: String,
    /// Place in the list, from 0, the champion.
    pub Rank: u64,
    /// Number of trees.
    pub Trees: u64,
    /// Splits from a root to its deepest leaf.
    pub Depth: u64,
    /// Flights that it was trained on.
    pub TrainingRows: u64,
    /// Flights that were held out; the measures that follow are of these.
    pub HoldoutRows: u64,
    /// Share of flights predicted right.
    pub Accuracy: f64,
    /// Weighted by class.
    pub Precision: f64,
    /// Weighted by class.
    pub Recall: f64,
    /// Weighted by class.
    pub F1: f64,
    /// Mean of -ln(probability given to the true class).
    pub LogLoss: f64,
    /// Share of each class among the flights that it was trained on.
    pub BaseRates: [f64; N_CLASSES],
    /// The most important feature first.
    pub Importances: Vec<Importance>,
    /// Held-out flights by true class, then predicted class; all 0 where it was not kept.
    pub Confusion: [[u64; N_CLASSES]; N_CLASSES],
    /// By tenths of the predicted class's probability; empty where it was not kept.
    pub Calibration: Vec<CalibrationBin>,
}

/// What a feature brought to a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(non_snake_case, reason = "named like the fields around it")]
pub struct Importance {
    /// Name of the feature.
    pub Feature: String,
    /// Its share of the decrease of impurity.
    pub Share: f64,
}

/// Flights whose predicted class had a probability in one tenth.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[expect(non_snake_case, reason = "named like the fields around it")]
pub struct CalibrationBin {
    /// Flights.
    pub Flights: u64,
    /// Of these, predicted right.
    pub Right: u64,
    /// Mean probability of the predicted class.
    pub MeanConfidence: f64,
}

/// What Wikipedia says of an airline; a document of the collection `airline_profiles`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(non_snake_case, reason = "named like the fields of answers")]
pub struct AirlineProfile {
    /// Carrier code.
    #[serde(rename = "_id")]
    pub Carrier: String,
    /// Title of the article.
    pub Title: String,
    /// Its first sentences.
    pub Summary: String,
    /// Where it is read.
    pub Page: String,
    /// Where its picture is, below [`LOGOS`](crate::LOGOS).
    pub Logo: Option<String>,
    /// The licence of the text.
    pub License: String,
    /// What was asked for it.
    pub Source: String,
    /// When, ISO 8601, UTC.
    pub FetchedAt: String,
}

/// How a stream is doing; a document of the collection `stream_status`. Written every few seconds
/// by each job of a group, under the first of its partitions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(non_snake_case, reason = "named like the fields of answers")]
pub struct StreamStatus {
    /// `group/partition`.
    #[serde(rename = "_id")]
    pub Id: String,
    /// When it was written, ISO 8601, UTC. An old one is of a job that has ended.
    pub At: String,
    /// Version of the model that serves.
    pub Model: String,
    /// Messages dealt with since the job began.
    pub Messages: u64,
    /// Messages a second since the status before.
    pub MessagesPerSecond: f64,
    /// Messages of its partitions that are not answered.
    pub Lag: u64,
    /// Population stability index against the training sample, by feature; above 0.25 the flights
    /// are others.
    pub Drift: BTreeMap<String, f64>,
}
