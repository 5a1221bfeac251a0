//! The form: text as it was typed becomes a [`PredictionRequest`], or a message for each field
//! that is wrong. What a valid request is, is decided by `events`; this module only says it to
//! people.

use std::borrow::Cow;
use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Utc};
use events::{BadRequest, Prediction, PredictionRequest};
use serde::Deserialize;
use uuid::Uuid;

/// Field → what is wrong with it, a sentence.
pub(crate) type Errors = BTreeMap<&'static str, String>;

/// Departure delay of the example that an empty form shows, in minutes.
const EXAMPLE_DELAY: &str = "15";
/// Fields that a person fills in, hence messages there can be at once.
const N_FIELDS: usize = 7;

/// The fields as they were typed. A missing field is an empty one.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
#[expect(non_snake_case, reason = "field names are the interface of the original system")]
pub(crate) struct FormInput {
    pub(crate) DepDelay: String,
    pub(crate) Carrier: String,
    pub(crate) FlightDate: String,
    pub(crate) Origin: String,
    pub(crate) Dest: String,
    pub(crate) FlightNum: String,
    pub(crate) Distance: String,
}

impl FormInput {
    /// What a fresh form holds, so that it can be sent as it is.
    pub(crate) fn example(today: NaiveDate) -> Self {
        Self {
            DepDelay: EXAMPLE_DELAY.into(),
            Carrier: "UA".into(),
            FlightDate: today.to_string(),
            Origin: "EWR".into(),
            Dest: "IAH".into(),
            ..Self::default()
        }
    }

    /// What was typed for a request that has been answered.
    pub(crate) fn of(prediction: &Prediction) -> Self {
        Self {
            DepDelay: prediction.DepDelay.to_string(),
            Carrier: prediction.Carrier.clone(),
            FlightDate: prediction.FlightDate.to_string(),
            Origin: prediction.Origin.clone(),
            Dest: prediction.Dest.clone(),
            FlightNum: prediction.FlightNum.clone().unwrap_or_default(),
            // left to be looked up: the next question may be about another route
            Distance: String::new(),
        }
    }

    /// The text of a field by its name; unknown names are empty.
    pub(crate) fn get(&self, field: &str) -> &str {
        match field {
            "DepDelay" => &self.DepDelay,
            "Carrier" => &self.Carrier,
            "FlightDate" => &self.FlightDate,
            "Origin" => &self.Origin,
            "Dest" => &self.Dest,
            "FlightNum" => &self.FlightNum,
            "Distance" => &self.Distance,
            _ => "",
        }
    }
}

/// Reads the form. `uuid` names the request, `now` is when it was asked.
///
/// Errors hold a message for every field that is wrong, not only for the first.
pub(crate) fn parse(
    typed: &FormInput,
    now: DateTime<Utc>,
    uuid: Uuid,
) -> Result<PredictionRequest, Errors> {
    let mut errors = Errors::new();
    let mut request = PredictionRequest {
        DepDelay: note(&mut errors, "DepDelay", number(&typed.DepDelay)),
        Carrier: note(&mut errors, "Carrier", code(&typed.Carrier)),
        FlightDate: note(&mut errors, "FlightDate", date(&typed.FlightDate)),
        Dest: note(&mut errors, "Dest", code(&typed.Dest)),
        Origin: note(&mut errors, "Origin", code(&typed.Origin)),
        FlightNum: given(&typed.FlightNum).map(str::to_ascii_uppercase),
        Distance: given(&typed.Distance).map(|t| note(&mut errors, "Distance", number(t))),
        CRSDepTime: None,
        CRSArrTime: None,
        Timestamp: Some(PredictionRequest::timestamp(now)),
        UUID: uuid,
    };
    check(&mut request, &mut errors);
    if errors.is_empty() { Ok(request) } else { Err(errors) }
}

/// Adds what [`PredictionRequest::check`] finds. It stops at the first bad field; each round puts
/// a valid value there and asks again, so that every bad field is named.
fn check(request: &mut PredictionRequest, errors: &mut Errors) {
    for _ in 0..N_FIELDS {
        let Err(BadRequest::OutOfRange { field, reason }) = request.check() else { return };
        errors.entry(field).or_insert_with(|| message(field, &reason));
        match field {
            "DepDelay" => request.DepDelay = 0.0,
            "Carrier" => request.Carrier = "X".into(),
            "Origin" => request.Origin = "X".into(),
            "Dest" => request.Dest = "X".into(),
            "FlightNum" => request.FlightNum = None,
            "Distance" => request.Distance = None,
            // a rule for a field that the form does not have: named once, then no further round
            _ => return,
        }
    }
}

/// The value, or its default with the message noted; the default never leaves [`parse`].
fn note<T: Default>(errors: &mut Errors, field: &'static str, value: Result<T, &'static str>) -> T {
    value.unwrap_or_else(|wrong| {
        errors.insert(field, message(field, wrong));
        T::default()
    })
}

fn message(field: &str, wrong: &str) -> String {
    match field {
        "DepDelay" => format!("Departure delay {wrong}; enter minutes, such as 15 or -5."),
        "Carrier" => format!("Carrier {wrong}; enter its code, such as UA."),
        "FlightDate" => format!("Date {wrong}; enter it as year-month-day, such as 2016-12-25."),
        "Origin" => format!("Origin {wrong}; enter the airport's code, such as EWR."),
        "Dest" => format!("Destination {wrong}; enter the airport's code, such as IAH."),
        "FlightNum" => format!("Flight number {wrong}; leave it empty if you do not know it."),
        "Distance" => format!("Distance {wrong}; enter miles, or leave it empty."),
        _ => format!("{field} {wrong}."),
    }
}

fn given(text: &str) -> Option<&str> {
    let text = text.trim();
    (!text.is_empty()).then_some(text)
}

fn code(text: &str) -> Result<String, &'static str> {
    events::flight_code(text).map(Cow::into_owned).ok_or("is missing")
}

fn number(text: &str) -> Result<f64, &'static str> {
    let text = given(text).ok_or("is missing")?;
    // what a phone's keyboard or a copied table may hold for a minus sign
    let number = text.replace('−', "-").parse::<f64>().map_err(|_| "is not a number")?;
    if number.is_finite() { Ok(number) } else { Err("is not a number") }
}

fn date(text: &str) -> Result<NaiveDate, &'static str> {
    let text = given(text).ok_or("is missing")?;
    NaiveDate::parse_from_str(text, "%Y-%m-%d").map_err(|_| "is not a day of the calendar")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> FormInput {
        FormInput::example(NaiveDate::from_ymd_opt(2016, 12, 25).unwrap())
    }

    fn read(typed: &FormInput) -> Result<PredictionRequest, Errors> {
        parse(typed, DateTime::UNIX_EPOCH, Uuid::nil())
    }

    #[test]
    fn the_example_is_a_valid_request() {
        let request = read(&good()).unwrap();
        assert_eq!(request.DepDelay, 15.0);
        assert_eq!(request.FlightDate.to_string(), "2016-12-25");
        assert_eq!(request.FlightNum, None);
        assert_eq!(request.Distance, None);
        assert_eq!(request.Timestamp.as_deref(), Some("1970-01-01T00:00:00.000Z"));
        assert_eq!(PredictionRequest::decode(&request.encode()).unwrap(), request);
    }

    #[test]
    fn spaces_lower_case_and_a_typographic_minus_are_understood() {
        let typed = FormInput {
            DepDelay: " −5.5 ".into(),
            Carrier: " ua".into(),
            FlightNum: " 1545 ".into(),
            Distance: "1400".into(),
            ..good()
        };
        let request = read(&typed).unwrap();
        assert_eq!(request.DepDelay, -5.5);
        assert_eq!(request.Carrier, "UA");
        assert_eq!(request.FlightNum.as_deref(), Some("1545"));
        assert_eq!(request.Distance, Some(1400.0));
    }

    #[test]
    fn each_bad_field_has_a_message_of_its_own() {
        for (field, text, want) in [
            ("DepDelay", "", "Departure delay is missing"),
            ("DepDelay", "abc", "Departure delay is not a number"),
            ("DepDelay", "NaN", "Departure delay is not a number"),
            ("DepDelay", "1e6", "Departure delay 1000000 is not within"),
            ("Carrier", " ", "Carrier is missing"),
            ("Carrier", "U A", "Carrier must be 1 to 8 letters or digits"),
            ("FlightDate", "", "Date is missing"),
            ("FlightDate", "2015-02-29", "Date is not a day"),
            ("FlightDate", "25/12/2016", "Date is not a day"),
            ("Origin", "<script>", "Origin must be"),
            ("Origin", "ABCDEFGHI", "Origin must be"),
            ("Dest", "$ne", "Destination must be"),
            ("Dest", "", "Destination is missing"),
            ("FlightNum", "15-45", "Flight number must be"),
            ("Distance", "far", "Distance is not a number"),
            ("Distance", "-1", "Distance -1 is not within"),
        ] {
            let mut typed = good();
            match field {
                "DepDelay" => typed.DepDelay = text.into(),
                "Carrier" => typed.Carrier = text.into(),
                "FlightDate" => typed.FlightDate = text.into(),
                "Origin" => typed.Origin = text.into(),
                "Dest" => typed.Dest = text.into(),
                "FlightNum" => typed.FlightNum = text.into(),
                _ => typed.Distance = text.into(),
            }
            let errors = read(&typed).unwrap_err();
            assert_eq!(errors.len(), 1, "{field}={text:?}: {errors:?}");
            assert!(errors[field].starts_with(want), "{:?} should say {want:?}", errors[field]);
            assert_eq!(typed.get(field), text);
        }
    }

    #[test]
    fn all_bad_fields_are_named_at_once() {
        let typed =
            FormInput { FlightNum: "?".into(), Distance: "?".into(), ..FormInput::default() };
        let errors = read(&typed).unwrap_err();
        let fields: Vec<_> = errors.keys().copied().collect();
        assert_eq!(
            fields,
            ["Carrier", "DepDelay", "Dest", "Distance", "FlightDate", "FlightNum", "Origin"]
        );
        assert!(errors["Carrier"].contains("is missing"));
    }
}
