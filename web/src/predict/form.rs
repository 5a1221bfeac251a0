//! The form: text as it was typed becomes a [`PredictionRequest`], or a message for each field
//! that is wrong. What a valid request is, is decided by `events`; this module only says it to
//! people.

use std::borrow::Cow;
use std::collections::BTreeMap;

use chrono::{DateTime, Datelike, NaiveDate, Utc};
use events::{BadRequest, Prediction, PredictionRequest};
use serde::Deserialize;
use uuid::Uuid;

use crate::layout::page::url_text;
use crate::predict::choices::{Choice, Choices};

/// Field → what is wrong with it, a sentence.
pub(crate) type Errors = BTreeMap<&'static str, String>;

/// Departure delay of the example that an empty form shows, in minutes.
const EXAMPLE_DELAY: &str = "15";
/// Fields that a person fills in, hence messages there can be at once.
const N_FIELDS: usize = 7;
/// Their names, as forms and addresses have them.
const FIELDS: [&str; N_FIELDS] =
    ["Origin", "Dest", "Carrier", "FlightDate", "DepDelay", "FlightNum", "Distance"];
/// The year in which the records of flights begin.
const FIRST_YEAR: i32 = 1987;
/// Letters of an airport's code; carriers have two. What is longer is a name.
const CODE_LETTERS: usize = 3;
/// Letters from which a name is looked for by its beginning.
const NAME_LETTERS_MIN: usize = 3;

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

    /// The fields that are filled in, as an address has them.
    pub(crate) fn query(&self) -> String {
        let fields = FIELDS.iter().map(|field| (field, self.get(field)));
        let fields = fields.filter(|(_, text)| !text.is_empty());
        let fields: Vec<_> =
            fields.map(|(field, text)| format!("{field}={}", url_text(text))).collect();
        fields.join("&")
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

/// Reads the form. `uuid` names the request, `now` is when it was asked; `choices` are the names
/// that stand for codes.
///
/// Errors hold a message for every field that is wrong, not only for the first.
pub(crate) fn parse(
    typed: &FormInput,
    choices: &Choices,
    now: DateTime<Utc>,
    uuid: Uuid,
) -> Result<PredictionRequest, Errors> {
    let mut errors = Errors::new();
    let carrier = note(&mut errors, "Carrier", code(&typed.carrier, &choices.airlines));
    let flight_num = given(&typed.flight_num)
        .map(|text| note(&mut errors, "FlightNum", flight_number(text, &carrier)));
    let mut request = PredictionRequest {
        dep_delay: note(&mut errors, "DepDelay", number(&typed.dep_delay)),
        carrier,
        flight_date: note(&mut errors, "FlightDate", date(&typed.flight_date, now)),
        dest: note(&mut errors, "Dest", code(&typed.dest, &choices.airports)),
        origin: note(&mut errors, "Origin", code(&typed.origin, &choices.airports)),
        flight_num,
        distance: given(&typed.distance).map(|t| note(&mut errors, "Distance", number(t))),
        crs_dep_time: None,
        crs_arr_time: None,
        timestamp: Some(PredictionRequest::timestamp(now)),
        uuid,
    };
    if !request.origin.is_empty() && request.origin == request.dest {
        let wrong = "is the airport that the flight leaves from";
        errors.insert("Dest", message("Dest", wrong));
    }
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
fn note<T: Default>(
    errors: &mut Errors,
    field: &'static str,
    value: Result<T, impl AsRef<str>>,
) -> T {
    value.unwrap_or_else(|wrong| {
        errors.insert(field, message(field, wrong.as_ref()));
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

/// The code that a text is, or that the list has for the name that it is.
fn code(text: &str, list: &[Choice]) -> Result<String, Cow<'static, str>> {
    let text = given(text).ok_or("is missing")?;
    if let Some(choice) = list.iter().find(|choice| choice.code.eq_ignore_ascii_case(text)) {
        return Ok(choice.code.clone());
    }
    let name = text.to_lowercase();
    let n_letters = name.chars().count();
    let named = |choice: &&Choice| choice.name.to_lowercase().starts_with(&name);
    let named: Vec<&Choice> = match n_letters {
        NAME_LETTERS_MIN.. => list.iter().filter(named).collect(),
        _ => Vec::new(),
    };
    match named[..] {
        [only] => Ok(only.code.clone()),
        [first, second, ..] if n_letters > CODE_LETTERS => {
            let (a, b) = (&first.code, &second.code);
            Err(format!("can be {a} ({}), {b} ({}) or others", first.name, second.name).into())
        }
        [] if n_letters > CODE_LETTERS && !list.is_empty() && text.chars().all(is_of_name) => {
            Err("is not a code or a name that is known here".into())
        }
        _ => Ok(events::flight_code(text).ok_or("is missing")?.into_owned()),
    }
}

/// Whether names are written with it; other signs are told of otherwise.
fn is_of_name(sign: char) -> bool {
    sign.is_alphabetic() || matches!(sign, ' ' | '-' | '.' | '\'' | '’' | '/')
}

/// The number of a flight of `carrier`, without the carrier that tickets write before it.
fn flight_number(text: &str, carrier: &str) -> Result<String, &'static str> {
    let number: String = text.to_ascii_uppercase().split_whitespace().collect();
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match number.strip_prefix(carrier) {
        Some(rest) if !carrier.is_empty() && is_digits(rest) => Ok(rest.to_owned()),
        _ if number.starts_with(|c: char| c.is_ascii_alphabetic())
            && number.get(2..).is_some_and(is_digits) =>
        {
            Err("begins with another carrier than the one above")
        }
        // tail numbers may have one
        _ if number.contains('-') => Err("must be 1 to 8 letters or digits"),
        _ => Ok(number),
    }
}

fn number(text: &str) -> Result<f64, &'static str> {
    let text = given(text).ok_or("is missing")?;
    // what a phone's keyboard or a copied table may hold for a minus sign
    let number = text.replace('−', "-").parse::<f64>().map_err(|_| "is not a number")?;
    if number.is_finite() { Ok(number) } else { Err("is not a number") }
}

fn date(text: &str, now: DateTime<Utc>) -> Result<NaiveDate, &'static str> {
    let text = given(text).ok_or("is missing")?;
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d");
    let date = date.map_err(|_| "is not a day of the calendar")?;
    match date.year() {
        ..FIRST_YEAR => Err("is before 1987, when the records of flights begin"),
        year if year > now.year() + 1 => Err("is later than next year"),
        _ => Ok(date),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> FormInput {
        FormInput::example(NaiveDate::from_ymd_opt(2016, 12, 25).unwrap())
    }

    fn read(typed: &FormInput) -> Result<PredictionRequest, Errors> {
        let choice = |(code, name): (&str, &str)| Choice { code: code.into(), name: name.into() };
        let airports = [
            ("EWR", "Newark Liberty Intl"),
            ("IAH", "Houston Intercontinental"),
            ("HOU", "Houston Hobby"),
            ("ORD", "Chicago Ohare Intl"),
        ];
        let choices = Choices {
            airlines: [("UA", "United Air Lines Inc."), ("AA", "American Airlines Inc.")]
                .map(choice)
                .to_vec(),
            airports: airports.map(choice).to_vec(),
        };
        parse(typed, &choices, "2016-12-01T00:00:00Z".parse().unwrap(), Uuid::nil())
    }

    #[test]
    fn the_example_is_a_valid_request() {
        let request = read(&good()).unwrap();
        assert_eq!(request.dep_delay, 15.0);
        assert_eq!(request.flight_date.to_string(), "2016-12-25");
        assert_eq!(request.flight_num, None);
        assert_eq!(request.distance, None);
        assert_eq!(request.timestamp.as_deref(), Some("2016-12-01T00:00:00.000Z"));
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
    fn names_of_places_and_numbers_as_on_tickets_are_understood() {
        for (origin, dest, carrier, number, want) in [
            ("Newark", "Houston Hob", "united air", "UA1545", ("EWR", "HOU", "UA", "1545")),
            ("newark liberty intl", "ord", "American", "aa 7", ("EWR", "ORD", "AA", "7")),
            // a code that is not in the list may be one of elsewhere
            ("TXL", "IAH", "LH", "LH 402", ("TXL", "IAH", "LH", "402")),
            ("EWR", "IAH", "9E", "9E3821", ("EWR", "IAH", "9E", "3821")),
            ("EWR", "IAH", "UA", "1545P", ("EWR", "IAH", "UA", "1545P")),
        ] {
            let typed = FormInput {
                origin: origin.into(),
                dest: dest.into(),
                carrier: carrier.into(),
                flight_num: number.into(),
                ..good()
            };
            let request = read(&typed).unwrap_or_else(|errors| panic!("{typed:?}: {errors:?}"));
            let number = request.flight_num.as_deref().unwrap();
            let found = (&*request.origin, &*request.dest, &*request.carrier, number);
            assert_eq!(found, want);
        }
    }

    #[test]
    fn a_question_is_in_its_address() {
        let typed = FormInput { flight_num: "a&b ?".into(), ..good() };
        let query = "Origin=EWR&Dest=IAH&Carrier=UA&FlightDate=2016-12-25&DepDelay=15&FlightNum=";
        assert!(typed.query().starts_with(query), "{}", typed.query());
        assert!(!typed.query()[query.len()..].contains(['&', ' ', '?']), "{}", typed.query());
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
            ("FlightDate", "1986-12-31", "Date is before 1987"),
            ("FlightDate", "2018-01-01", "Date is later than next year"),
            ("Dest", "ewr", "Destination is the airport that the flight leaves from"),
            ("Dest", "Houston", "Destination can be IAH (Houston Intercontinental), HOU"),
            ("Dest", "Springfield", "Destination is not a code or a name that is known"),
            ("Carrier", "Pan American", "Carrier is not a code or a name that is known"),
            ("FlightNum", "DL1545", "Flight number begins with another carrier"),
            ("Origin", "<script>", "Origin must be"),
            ("Origin", "ABCDEFGH9", "Origin must be"),
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
