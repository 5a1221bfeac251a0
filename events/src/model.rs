//! Documents about models, streams and airlines.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use crate::N_CLASSES;

/// A saved model; a document of the collection `models`, `_id` = version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ModelCard {
    /// SHA-256 of the artefact, in hexadecimal.
    #[serde(rename = "_id")]
    pub version: String,
    /// `champion`, `before`, or `never champion`.
    pub role: String,
    /// Place in the list, from 0, the champion.
    pub rank: u64,
    /// Number of trees.
    pub trees: u64,
    /// Splits from a root to its deepest leaf.
    pub depth: u64,
    /// Flights that it was trained on.
    pub training_rows: u64,
    /// Flights that were held out; the measures that follow are of these.
    pub holdout_rows: u64,
    /// Share of flights predicted right.
    pub accuracy: f64,
    /// Weighted by class.
    pub precision: f64,
    /// Weighted by class.
    pub recall: f64,
    /// Weighted by class.
    pub f1: f64,
    /// Mean of -ln(probability given to the true class).
    pub log_loss: f64,
    /// Share of each class among the flights that it was trained on.
    pub base_rates: [f64; N_CLASSES],
    /// The most important feature first.
    pub importances: Vec<Importance>,
    /// Held-out flights by true class, then predicted class; all 0 where it was not kept.
    pub confusion: [[u64; N_CLASSES]; N_CLASSES],
    /// Calibration bins, by the predicted class's probability; empty where they were not kept.
    pub calibration: Vec<CalibrationBin>,
    /// The same before it was calibrated.
    #[serde(default)]
    pub uncalibrated: Vec<CalibrationBin>,
    /// How far the predicted class's probability is from the share of right predictions.
    #[serde(default)]
    pub calibration_error: Option<f64>,
    /// What flights were held out by: `day:5` is every fifth day.
    #[serde(default)]
    pub held_out_by: String,
    /// What it is compared with, itself first.
    #[serde(default)]
    pub compared: Vec<Compared>,
    /// Whether it became the champion, and why, as a sentence; empty where that was not kept.
    #[serde(default)]
    pub decision: String,
}

/// What the answers of a model do not repeat; a document of the collection `model_features`. It is
/// there before the first of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ModelFeatures {
    /// SHA-256 of the artefact, in hexadecimal.
    #[serde(rename = "_id")]
    pub version: String,
    /// Names of its features, in its order.
    pub features: Vec<String>,
    /// Share of each class among the flights that it was trained on.
    pub base_rates: [f64; N_CLASSES],
}

/// A model, or what a model must beat, on held-out flights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Compared {
    /// What it is.
    pub name: String,
    /// Flights.
    pub flights: u64,
    /// Share of flights predicted right.
    pub accuracy: f64,
    /// Mean of -ln(probability given to the true class).
    pub log_loss: f64,
    /// See [`ModelCard::calibration_error`].
    pub calibration_error: Option<f64>,
}

/// What a feature brought to a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Importance {
    /// Name of the feature.
    pub feature: String,
    /// Its share of the decrease of impurity.
    pub share: f64,
    /// How much log loss rises when its values are dealt anew among the flights.
    #[serde(default)]
    pub permuted: Option<f64>,
}

/// Flights whose predicted class had a probability in one calibration bin.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CalibrationBin {
    /// Flights.
    pub flights: u64,
    /// Of these, predicted right.
    pub right: u64,
    /// Mean probability of the predicted class.
    pub mean_confidence: f64,
}

/// What Wikipedia says of an airline; a document of the collection `airline_profiles`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AirlineProfile {
    /// Carrier code.
    #[serde(rename = "_id")]
    pub carrier: String,
    /// Title of the article.
    pub title: String,
    /// Its first sentences.
    pub summary: String,
    /// Where it is read.
    pub page: String,
    /// Where its picture is, below [`LOGOS`](crate::LOGOS).
    pub logo: Option<String>,
    /// The licence of the text.
    pub license: String,
    /// What was asked for it.
    pub source: String,
    /// When, ISO 8601, UTC.
    pub fetched_at: String,
}

/// How a stream is doing; a document of the collection `stream_status`. Written every few seconds
/// by each job of a group, under the first of its partitions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct StreamStatus {
    /// `group/partition`.
    #[serde(rename = "_id")]
    pub id: String,
    /// When it was written, ISO 8601, UTC. An old one is of a job that has ended.
    pub at: String,
    /// Version of the model that serves.
    pub model: String,
    /// Messages dealt with since the job began.
    pub messages: u64,
    /// Messages a second since the status before.
    pub messages_per_second: f64,
    /// Messages of its partitions that are not answered.
    pub lag: u64,
    /// Population stability index against the reference distribution, by feature; above 0.25 the
    /// flights are others.
    pub drift: BTreeMap<String, f64>,
    /// Latest flights that this is of, since the model serves.
    #[serde(default)]
    pub drift_rows: u64,
}

/// A model's answers of one day of flights against what became of them; a document of the
/// collection `live_evaluations`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct LiveEvaluation {
    /// `2013-12-20/` and the version of the model.
    #[serde(rename = "_id")]
    pub id: String,
    /// Local date of departure.
    pub day: NaiveDate,
    /// Version of the model that answered.
    pub model: String,
    /// All its answers about flights of the day.
    pub answers: u64,
    /// Answers whose flight has arrived: the measures are of these.
    pub known: u64,
    /// Answers about a departure delay that the flight did not have, as far as is known.
    pub supposed: u64,
    /// Answers whose flight was cancelled or diverted.
    pub never_arrived: u64,
    /// Answers of which it is not known which flight they are about.
    pub ambiguous: u64,
    /// Answers about a flight that nothing is known of.
    pub unmatched: u64,
    /// Share of the known ones that were right; none when none is known.
    pub accuracy: Option<f64>,
    /// Mean of -ln(probability given to the true class).
    pub log_loss: Option<f64>,
    /// See [`ModelCard::calibration_error`].
    pub calibration_error: Option<f64>,
}
