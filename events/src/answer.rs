//! An answer: the prediction for a request, or the reason why there is none.

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Number of classes of arrival delay.
pub const N_CLASSES: usize = 4;

/// A class of arrival delay, as people read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassLabel {
    /// Short name.
    pub name: &'static str,
    /// The interval of minutes it stands for.
    pub minutes: &'static str,
}

/// The classes of `Prediction`, 0 … 3. The one list of labels: model, report and pages use it.
pub const CLASS_LABELS: [ClassLabel; N_CLASSES] = [
    ClassLabel { name: "Early", minutes: "15+ minutes early" },
    ClassLabel { name: "Slightly early", minutes: "0–15 minutes early" },
    ClassLabel { name: "Slightly late", minutes: "0–30 minutes late" },
    ClassLabel { name: "Very late", minutes: "30+ minutes late" },
];

/// What became of a request; the response topic and the answers' collection hold these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    /// It was scored.
    Scored(Box<Prediction>),
    /// It was not scored.
    Refused(Refusal),
}

impl Answer {
    /// The request that is answered.
    pub fn uuid(&self) -> Uuid {
        match self {
            Self::Scored(prediction) => prediction.UUID,
            Self::Refused(refusal) => refusal.UUID,
        }
    }
}

/// The state of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Scored.
    Ok,
    /// Not scorable; `Reason` says why.
    Rejected,
    /// Not worth scoring any more when it was read.
    Expired,
}

/// A scored request. Dates are text, `YYYY-MM-DD`: a date has no time zone to shift it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(non_snake_case, reason = "field names are the interface of the original system")]
pub struct Prediction {
    /// The request that is answered.
    pub UUID: Uuid,
    /// [`Status::Ok`].
    pub status: Status,
    /// Origin airport code.
    pub Origin: String,
    /// Destination airport code.
    pub Dest: String,
    /// `ATL-SFO`.
    pub Route: String,
    /// Carrier code.
    pub Carrier: String,
    /// Flight number, where known.
    pub FlightNum: Option<String>,
    /// Local date of departure.
    pub FlightDate: NaiveDate,
    /// 1 (Monday) … 7 (Sunday).
    pub DayOfWeek: i32,
    /// 1 … 366.
    pub DayOfYear: i32,
    /// 1 … 31.
    pub DayOfMonth: i32,
    /// Departure delay in minutes.
    pub DepDelay: f64,
    /// Distance in miles, from the request or the route; none when neither knows.
    pub Distance: Option<f64>,
    /// When the question was asked.
    pub Timestamp: Option<String>,
    /// When it was scored, ISO 8601.
    pub AnsweredAt: String,
    /// Index into [`CLASS_LABELS`].
    pub Prediction: i32,
    /// Probability of each class; sums to 1.
    pub Probabilities: [f64; N_CLASSES],
    /// Share of each class among the flights that the model was trained on. Answers given before
    /// this was said have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub BaseRates: Option<[f64; N_CLASSES]>,
    /// What moved the answer: with the base rates these sum to the probabilities.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub Contributions: Vec<Contribution>,
    /// Fields whose value is missing or was never seen in training; they were scored in the
    /// missing/unknown bin.
    pub Unseen: Vec<String>,
    /// SHA-256 of the model that answered, in hexadecimal.
    pub ModelVersion: String,
}

/// How far a feature moved an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(non_snake_case, reason = "named like the fields around it")]
pub struct Contribution {
    /// Name of the feature in the model.
    pub Feature: String,
    /// What it added to the probability of each class; sums to 0.
    pub Changes: [f64; N_CLASSES],
}

/// A request that was not scored but named itself.
///
/// One that has expired is an answer like any other. One that was rejected may still be answered,
/// when a later version can read what this one could not, so it is kept apart from the answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(non_snake_case, reason = "field names are the interface of the original system")]
pub struct Refusal {
    /// The request that is answered.
    pub UUID: Uuid,
    /// [`Status::Rejected`] or [`Status::Expired`].
    pub status: Status,
    /// Why; names the field.
    pub Reason: String,
}
