//! An arrival: what became of a flight, as an airline tells it, and how bytes become one.

use chrono::NaiveDate;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::request::{
    BadRequest, DELAY_MINUTES_MAX, REQUEST_BYTES_MAX, check_clock, check_code, check_range,
    clock_minutes, decode_object, flight_code, scalar_text,
};

/// Minutes before its schedule that a flight lands at most, where only two clock times are known:
/// those that differ by more are of the next day.
const EARLY_MINUTES_MAX: i32 = 4 * 60;
const DAY_MINUTES: i32 = 24 * 60;

/// What became of a flight. The same names as a request; other fields are passed over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Arrival {
    /// Carrier code.
    pub carrier: String,
    /// Local date of departure, `YYYY-MM-DD`.
    pub flight_date: NaiveDate,
    /// Flight number; text or a number.
    #[serde(deserialize_with = "flight_number")]
    pub flight_num: String,
    /// Origin airport code.
    pub origin: String,
    /// Destination airport code.
    pub dest: String,
    /// Departure delay in minutes, negative when early; else it is what two times say.
    #[serde(default, deserialize_with = "number")]
    pub dep_delay: Option<f64>,
    /// Arrival delay in minutes; else it is what two times say.
    #[serde(default, deserialize_with = "number")]
    pub arr_delay: Option<f64>,
    /// Scheduled local departure, `HHMM`.
    #[serde(rename = "CRSDepTime", default, deserialize_with = "clock")]
    pub crs_dep_time: Option<i32>,
    /// Actual local departure, `HHMM`.
    #[serde(default, deserialize_with = "clock")]
    pub dep_time: Option<i32>,
    /// Scheduled local arrival, `HHMM`.
    #[serde(rename = "CRSArrTime", default, deserialize_with = "clock")]
    pub crs_arr_time: Option<i32>,
    /// Actual local arrival, `HHMM`.
    #[serde(default, deserialize_with = "clock")]
    pub arr_time: Option<i32>,
    /// Whether it never left; also 0 or 1.
    #[serde(default, deserialize_with = "flag")]
    pub cancelled: bool,
    /// Whether it landed elsewhere; also 0 or 1.
    #[serde(default, deserialize_with = "flag")]
    pub diverted: bool,
}

impl Arrival {
    /// Decodes and checks one message of at most [`REQUEST_BYTES_MAX`] bytes. Never panics,
    /// whatever the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadRequest> {
        let mut arrival: Self = decode_object(bytes, REQUEST_BYTES_MAX)?;
        let Self { carrier, origin, dest, flight_num, .. } = &mut arrival;
        for code in [carrier, origin, dest, flight_num] {
            *code = flight_code(code).unwrap_or_default().into_owned();
        }
        check_code("Carrier", &arrival.carrier)?;
        check_code("Origin", &arrival.origin)?;
        check_code("Dest", &arrival.dest)?;
        check_code("FlightNum", &arrival.flight_num)?;
        for (field, delay) in [("DepDelay", arrival.dep_delay), ("ArrDelay", arrival.arr_delay)] {
            let delay = delay.unwrap_or_default();
            check_range(field, delay, -DELAY_MINUTES_MAX, DELAY_MINUTES_MAX)?;
        }
        check_clock("CRSDepTime", arrival.crs_dep_time)?;
        check_clock("DepTime", arrival.dep_time)?;
        check_clock("CRSArrTime", arrival.crs_arr_time)?;
        check_clock("ArrTime", arrival.arr_time)?;
        if arrival.delay_minutes().is_none() && !arrival.never_arrived() {
            let reason = "is missing; so is ArrTime or CRSArrTime, which would say it".to_owned();
            return Err(BadRequest::OutOfRange { field: "ArrDelay", reason });
        }
        Ok(arrival)
    }

    /// Whether it was cancelled or diverted.
    pub fn never_arrived(&self) -> bool {
        self.cancelled || self.diverted
    }

    /// Arrival delay in minutes: as it is said, else from 4 hours early to 20 hours late, whichever
    /// the two times mean; none where they are not there.
    pub fn delay_minutes(&self) -> Option<f64> {
        self.arr_delay.or_else(|| between(self.crs_arr_time, self.arr_time))
    }

    /// Departure delay in minutes, in the same way.
    pub fn dep_delay_minutes(&self) -> Option<f64> {
        self.dep_delay.or_else(|| between(self.crs_dep_time, self.dep_time))
    }
}

/// Minutes from a clock time to another one, which is at most 4 hours before it.
fn between(planned: Option<i32>, actual: Option<i32>) -> Option<f64> {
    let late = clock_minutes(actual?)? - clock_minutes(planned?)?;
    let late = (late + EARLY_MINUTES_MAX).rem_euclid(DAY_MINUTES) - EARLY_MINUTES_MAX;
    Some(f64::from(late))
}

/// A number, which may stand in a text; nothing is none.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let text = scalar_text(deserializer)?.filter(|text| !text.trim().is_empty());
    let Some(text) = text else { return Ok(None) };
    let explain = || D::Error::custom(format!("expected a number, not {text:?}"));
    text.trim().parse().map(Some).map_err(|_| explain())
}

/// A clock time as a whole number, which may have gone through a column of floats.
fn clock<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i32>, D::Error> {
    let Some(number) = number(deserializer)? else { return Ok(None) };
    let is_whole = number.fract() == 0.0 && number.abs() < 1e6;
    let explain = || D::Error::custom(format!("expected a clock time as HHMM, not {number}"));
    is_whole.then_some(Some(number as i32)).ok_or_else(explain)
}

fn flight_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(scalar_text(deserializer)?.unwrap_or_default())
}

/// A truth value; nothing and null are false.
fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let Some(text) = scalar_text(deserializer)? else { return Ok(false) };
    match (text.as_str(), text.parse::<f64>()) {
        ("true", _) | (_, Ok(1.0)) => Ok(true),
        ("false" | "", _) | (_, Ok(0.0)) => Ok(false),
        _ => Err(D::Error::custom(format!("expected true, false, 1 or 0, not {text:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(fields: &str) -> Result<Arrival, String> {
        let start = r#"{"Carrier":" ua","FlightDate":"2013-12-20","Origin":"ewr","Dest":"IAH""#;
        Arrival::decode(format!("{start},{fields}}}").as_bytes()).map_err(|e| e.to_string())
    }

    #[test]
    fn an_arrival_says_how_late_it_was_by_a_number_or_by_two_times() {
        let arrival = decode(r#""FlightNum":1545,"ArrDelay":-3.5,"DepDelay":2"#).unwrap();
        assert_eq!((arrival.carrier.as_str(), arrival.origin.as_str()), ("UA", "EWR"));
        assert_eq!((arrival.flight_num.as_str(), arrival.delay_minutes()), ("1545", Some(-3.5)));
        let text = serde_json::to_vec(&arrival).unwrap();
        assert_eq!(Arrival::decode(&text), Ok(arrival));
        // as tables of text and of floats have it
        let arrival = decode(
            r#""FlightNum":" 7x","DepTime":"0905","CRSDepTime":855.0,
                "ArrDelay":"31.00","ArrTime":"""#,
        )
        .unwrap();
        let delays = (arrival.dep_delay_minutes(), arrival.delay_minutes());
        assert_eq!((arrival.flight_num.as_str(), delays), ("7X", (Some(10.0), Some(31.0))));
        for (planned, actual, late) in
            [(819, 850, 31), (2350, 10, 20), (10, 2350, -20), (1200, 800, -240), (1200, 759, 1199)]
        {
            let times = format!(r#""FlightNum":"9","CRSArrTime":{planned},"ArrTime":{actual}"#);
            let minutes = decode(&times).unwrap().delay_minutes();
            assert_eq!(minutes, Some(f64::from(late)), "{planned} {actual}");
        }
    }

    #[test]
    fn what_never_arrived_has_no_delay() {
        for flags in [r#""Cancelled":1"#, r#""Diverted":true"#, r#""Cancelled":"1.00""#] {
            let arrival = decode(&format!(r#""FlightNum":"1",{flags}"#)).unwrap();
            assert_eq!((arrival.never_arrived(), arrival.delay_minutes()), (true, None));
        }
        let error = decode(r#""FlightNum":"1","Cancelled":"maybe""#).unwrap_err();
        assert!(error.starts_with("Cancelled: expected true, false, 1 or 0"), "{error}");
        assert!(!decode(r#""FlightNum":"1","ArrDelay":0,"Cancelled":0.00"#).unwrap().cancelled);
    }

    #[test]
    fn what_is_no_arrival_is_told_by_its_field() {
        for (fields, want) in [
            (r#""ArrDelay":1"#, "missing field `FlightNum`"),
            (r#""FlightNum":null,"ArrDelay":1"#, "FlightNum: must be 1 to 8"),
            (r#""FlightNum":"1""#, "ArrDelay: is missing; so is ArrTime or CRSArrTime"),
            (r#""FlightNum":"1","ArrTime":850"#, "ArrDelay: is missing"),
            (r#""FlightNum":"1","ArrTime":2460,"CRSArrTime":1"#, "ArrTime: 2460 is not a time"),
            (r#""FlightNum":"1","ArrDelay":20000"#, "ArrDelay: 20000 is not within"),
            (r#""FlightNum":"1","ArrDelay":"late""#, "ArrDelay: expected a number, not \"late\""),
            (r#""FlightNum":"1","ArrDelay":"NaN""#, "ArrDelay: NaN is not within"),
            (r#""FlightNum":"1","ArrTime":8.5,"CRSArrTime":1"#, "ArrTime: expected a clock time"),
            (r#""FlightNum":"1 2","ArrDelay":1"#, "FlightNum: must be 1 to 8"),
        ] {
            let error = decode(fields).unwrap_err();
            assert!(error.starts_with(want), "{fields}: {error}");
        }
        assert_eq!(Arrival::decode(b"[]").unwrap_err().to_string(), "message is not a JSON object");
    }
}
