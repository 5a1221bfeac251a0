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
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct FormInput {
    pub(crate) dep_delay: String,
    pub(crate) carrier: String,
    pub(crate) flight_date: String,
    pub(crate) origin: String,
    pub(crate) dest: String,
    pub(crate) flight_num: String,
    pub(crate) distance: String,
}

impl FormInput {
    /// What a fresh form holds, so that it can be sent as it is.
    pub(crate) fn example(today: NaiveDate) -> Self {
        Self {
            dep_delay: EXAMPLE_DELAY.into(),
            carrier: "UA".into(),
            flight_date: today.to_string(),
            origin: "EWR".into(),
            dest: "IAH".into(),
            ..Self::default()
        }
    }

    /// What was typed for a request that has been answered.
    pub(crate) fn of(prediction: &Prediction) -> Self {
        Self {
            dep_delay: prediction.dep_delay.to_string(),
            carrier: prediction.carrier.clone(),
            flight_date: prediction.flight_date.to_string(),
            origin: prediction.origin.clone(),
            dest: prediction.dest.clone(),
            flight_num: prediction.flight_num.clone().unwrap_or_default(),
            // left to be looked up: the next request may be about another route
            distance: String::new(),
        }
    }

    /// The text of a field by its name; unknown names are empty.
    pub(crate) fn get(&self, field: &str) -> &str {
        match field {
            "DepDelay" => &self.dep_delay,
            "Carrier" => &self.carrier,
            "FlightDate" => &self.flight_date,
            "Origin" => &self.origin,
            "Dest" => &self.dest,
            "FlightNum" => &self.flight_num,
            "Distance" => &self.distance,
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
        dep_delay: note(&mut errors, "DepDelay", number(&typed.dep_delay)),
        carrier: note(&mut errors, "Carrier", code(&typed.carrier)),
        flight_date: note(&mut errors, "FlightDate", date(&typed.flight_date)),
        dest: note(&mut errors, "Dest", code(&typed.dest)),
        origin: note(&mut errors, "Origin", code(&typed.origin)),
        flight_num: given(&typed.flight_num).map(str::to_ascii_uppercase),
        distance: given(&typed.distance).map(|t| note(&mut errors, "Distance", number(t))),
        crs_dep_time: None,
        crs_arr_time: None,
        timestamp: Some(PredictionRequest::timestamp(now)),
        uuid,
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
            "DepDelay" => request.dep_delay = 0.0,
            "Carrier" => request.carrier = "X".into(),
            "Origin" => request.origin = "X".into(),
            "Dest" => request.dest = "X".into(),
            "FlightNum" => request.flight_num = None,
            "Distance" => request.distance = None,
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
        assert_eq!(request.dep_delay, 15.0);
        assert_eq!(request.flight_date.to_string(), "2016-12-25");
        assert_eq!(request.flight_num, None);
        assert_eq!(request.distance, None);
        assert_eq!(request.timestamp.as_deref(), Some("1970-01-01T00:00:00.000Z"));
        assert_eq!(PredictionRequest::decode(&request.encode()).unwrap(), request);
    }

    #[test]
    fn spaces_lower_case_and_a_typographic_minus_are_understood() {
        let typed = FormInput {
            dep_delay: " −5.5 ".into(),
            carrier: " ua".into(),
            flight_num: " 1545 ".into(),
            distance: "1400".into(),
            ..good()
        };
        let request = read(&typed).unwrap();
        assert_eq!(request.dep_delay, -5.5);
        assert_eq!(request.carrier, "UA");
        assert_eq!(request.flight_num.as_deref(), Some("1545"));
        assert_eq!(request.distance, Some(1400.0));
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
                "DepDelay" => typed.dep_delay = text.into(),
                "Carrier" => typed.carrier = text.into(),
                "FlightDate" => typed.flight_date = text.into(),
                "Origin" => typed.origin = text.into(),
                "Dest" => typed.dest = text.into(),
                "FlightNum" => typed.flight_num = text.into(),
                _ => typed.distance = text.into(),
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
            FormInput { flight_num: "?".into(), distance: "?".into(), ..FormInput::default() };
        let errors = read(&typed).unwrap_err();
        let fields: Vec<_> = errors.keys().copied().collect();
        assert_eq!(
            fields,
            ["Carrier", "DepDelay", "Dest", "Distance", "FlightDate", "FlightNum", "Origin"]
        );
        assert!(errors["Carrier"].contains("is missing"));
    }
}
