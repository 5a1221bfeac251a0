//! An answer: the prediction for a request, or the reason why there is none.

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Number of classes of arrival delay.
pub const N_CLASSES: usize = 4;

/// A class of arrival delay; intervals are closed on the left. In documents and in models a class
/// is its number, 0 … 3. The one list of labels: model, report and pages use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "i32", into = "i32")]
pub enum DelayClass {
    /// More than 15 minutes before the scheduled arrival.
    Early,
    /// At most 15 minutes before it.
    SlightlyEarly,
    /// Less than 30 minutes after it.
    SlightlyLate,
    /// 30 minutes after it or more.
    VeryLate,
}

impl DelayClass {
    /// The classes in the order of their numbers.
    pub const ALL: [Self; N_CLASSES] =
        [Self::Early, Self::SlightlyEarly, Self::SlightlyLate, Self::VeryLate];

    /// Whether a flight of this class arrives late.
    pub fn is_late(self) -> bool {
        matches!(self, Self::SlightlyLate | Self::VeryLate)
    }

    /// Its number.
    pub fn index(self) -> usize {
        self as usize
    }

    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Early => "Early",
            Self::SlightlyEarly => "Slightly early",
            Self::SlightlyLate => "Slightly late",
            Self::VeryLate => "Very late",
        }
    }

    /// The interval of minutes that it stands for, for people.
    pub fn minutes(self) -> &'static str {
        match self {
            Self::Early => "15+ minutes early",
            Self::SlightlyEarly => "0–15 minutes early",
            Self::SlightlyLate => "0–30 minutes late",
            Self::VeryLate => "30+ minutes late",
        }
    }

    /// Name and minutes.
    pub fn title(self) -> String {
        format!("{} ({})", self.name(), self.minutes())
    }
}

impl From<DelayClass> for i32 {
    fn from(class: DelayClass) -> Self {
        class as Self
    }
}

impl TryFrom<i32> for DelayClass {
    type Error = String;

    fn try_from(number: i32) -> Result<Self, String> {
        let class = usize::try_from(number).ok().and_then(|index| Self::ALL.get(index));
        class.copied().ok_or_else(|| format!("{number} is not a class of delays, 0 to 3"))
    }
}

/// The part of a number for each class that is of arriving late.
pub fn late(of_classes: &[f64; N_CLASSES]) -> f64 {
    DelayClass::ALL.iter().filter(|class| class.is_late()).map(|c| of_classes[c.index()]).sum()
}

/// What became of a request; the response topic and the answers' collection hold these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum Answer {
    /// It was scored.
    Ok(Box<Prediction>),
    /// It cannot be scored. A later version may read what this one could not, so such an answer is
    /// kept apart from the others.
    Rejected(Refusal),
    /// It was not worth scoring any more when it was read: an answer like any other.
    Expired(Refusal),
}

impl Answer {
    /// The request that is answered.
    pub fn uuid(&self) -> Uuid {
        match self {
            Self::Ok(prediction) => prediction.uuid,
            Self::Rejected(refusal) | Self::Expired(refusal) => refusal.uuid,
        }
    }
}

/// A scored request. Dates are text, `YYYY-MM-DD`: a date has no time zone to shift it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Prediction {
    /// The request that is answered.
    #[serde(rename = "UUID")]
    pub uuid: Uuid,
    /// Origin airport code.
    pub origin: String,
    /// Destination airport code.
    pub dest: String,
    /// `ATL-SFO`.
    pub route: String,
    /// Carrier code.
    pub carrier: String,
    /// Flight number, where known.
    pub flight_num: Option<String>,
    /// Local date of departure.
    pub flight_date: NaiveDate,
    /// 1 (Monday) … 7 (Sunday).
    pub day_of_week: i32,
    /// 1 … 366.
    pub day_of_year: i32,
    /// 1 … 31.
    pub day_of_month: i32,
    /// Departure delay in minutes.
    pub dep_delay: f64,
    /// Distance in miles, from the request or the route; none when neither knows.
    pub distance: Option<f64>,
    /// When the request was made.
    pub timestamp: Option<String>,
    /// When it was scored, ISO 8601.
    pub answered_at: String,
    /// The most probable class.
    pub prediction: DelayClass,
    /// Probability of each class; sums to 1.
    pub probabilities: [f64; N_CLASSES],
    /// What each feature of the model, in the order of its [`ModelFeatures`](crate::ModelFeatures),
    /// added to the probability of arriving late, in ten-thousandths: with the model's base rate
    /// of that, these sum to it, but for their rounding. None in answers of before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub late_contributions: Vec<i32>,
    /// Answers of before said all by themselves: the share of each class among the flights that the
    /// model was trained on. No answer has this any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_rates: Option<[f64; N_CLASSES]>,
    /// And how each feature moved each class.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contributions: Vec<Contribution>,
    /// Fields whose value is missing or was never seen in training; they were scored in the
    /// missing/unknown bin.
    pub unseen: Vec<String>,
    /// SHA-256 of the model that answered, in hexadecimal.
    pub model_version: String,
}

/// How far a feature moved an answer of before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Contribution {
    /// Name of the feature in the model.
    pub feature: String,
    /// What it added to the probability of each class; sums to 0.
    pub changes: [f64; N_CLASSES],
}

/// A request that was not scored but named itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Refusal {
    /// The request that is answered.
    #[serde(rename = "UUID")]
    pub uuid: Uuid,
    /// Why; names the field.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A document as stores have held it since the first version.
    const ANSWER: &str = r#"{"UUID":"0d7a4bd0-7b5e-4a10-9e0c-1f6d0b6a2f11","status":"ok",
        "Origin":"ATL","Dest":"SFO","Route":"ATL-SFO","Carrier":"AA","FlightNum":"1519",
        "FlightDate":"2016-12-25","DayOfWeek":7,"DayOfYear":360,"DayOfMonth":25,"DepDelay":290.0,
        "Distance":2139.0,"Timestamp":null,"AnsweredAt":"2016-12-20T10:00:10.000Z","Prediction":3,
        "Probabilities":[0.0,0.1,0.2,0.7],"Unseen":["Origin"],"ModelVersion":"ab"}"#;

    #[test]
    fn a_document_keeps_its_fields() {
        let document: serde_json::Value = serde_json::from_str(ANSWER).unwrap();
        let answer: Answer = serde_json::from_str(ANSWER).unwrap();
        assert_eq!(serde_json::to_value(&answer).unwrap(), document);
        let Answer::Ok(prediction) = answer else { panic!("{answer:?}") };
        assert_eq!(prediction.prediction, DelayClass::VeryLate);
        for status in ["rejected", "expired"] {
            let uuid = "0d7a4bd0-7b5e-4a10-9e0c-1f6d0b6a2f11";
            let refusal = serde_json::json!({"UUID": uuid, "status": status, "Reason": "late"});
            let answer: Answer = serde_json::from_value(refusal.clone()).unwrap();
            assert_eq!(serde_json::to_value(answer).unwrap(), refusal);
        }
    }

    #[test]
    fn a_class_is_its_number() {
        for (class, number) in DelayClass::ALL.into_iter().zip(0..) {
            assert_eq!(DelayClass::try_from(number), Ok(class));
            assert_eq!((i32::from(class), class.index()), (number, number as usize));
        }
        let error = serde_json::from_str::<Answer>(&ANSWER.replace(":3,", ":4,")).unwrap_err();
        assert!(error.to_string().contains("4 is not a class of delays"), "{error}");
    }
}
