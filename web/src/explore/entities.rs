//! Airlines, airplanes, airports and flights as `submit-job publish` leaves them in the store, and
//! how they are read. The steps of the same names under `sql/` say what the fields mean.

use anyhow::Result;
use chrono::NaiveDate;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use store::{Order, Query, Store};

/// Flights and how punctual they were.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Punctuality {
    pub(crate) flights: u64,
    pub(crate) cancelled: u64,
    /// Those whose delay at arrival is known; the two that follow are of these.
    pub(crate) arrived: u64,
    /// Less than 15 minutes late.
    pub(crate) on_time: u64,
    /// From 30 minutes late.
    pub(crate) very_late: u64,
    /// Minutes, negative when early.
    pub(crate) mean_dep_delay: Option<f64>,
    /// Minutes, negative when early.
    pub(crate) mean_arr_delay: Option<f64>,
}

impl Punctuality {
    /// Share of the flights that arrived less than 15 minutes late; NaN when none arrived.
    pub(crate) fn on_time_share(&self) -> f64 {
        self.on_time as f64 / self.arrived as f64
    }

    /// Share of the flights that arrived 30 minutes late or later; NaN when none arrived.
    pub(crate) fn very_late_share(&self) -> f64 {
        self.very_late as f64 / self.arrived as f64
    }

    /// Share of the flights that did not go.
    pub(crate) fn cancelled_share(&self) -> f64 {
        self.cancelled as f64 / self.flights as f64
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Airline {
    #[serde(rename = "_id")]
    pub(crate) code: String,
    pub(crate) name: String,
    pub(crate) airplanes: u64,
    pub(crate) routes: u64,
    #[serde(flatten)]
    pub(crate) punctuality: Punctuality,
}

/// Tail numbers that flew for a carrier.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Fleet {
    pub(crate) tail_nums: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Airplane {
    pub(crate) tail_num: String,
    pub(crate) carrier: String,
    pub(crate) manufacturer: Option<String>,
    pub(crate) model: Option<String>,
    pub(crate) manufacturer_year: Option<i32>,
    #[serde(rename = "Type")]
    pub(crate) kind: Option<String>,
    pub(crate) engine: Option<String>,
    pub(crate) engines: Option<u32>,
    pub(crate) seats: Option<u32>,
    pub(crate) flights: u64,
    pub(crate) miles: Option<f64>,
    pub(crate) first_flight: NaiveDate,
    pub(crate) last_flight: NaiveDate,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Manufacturer {
    #[serde(rename = "_id")]
    pub(crate) name: String,
    pub(crate) airplanes: u64,
    /// Of the airplanes whose manufacturer is known.
    pub(crate) share: f64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Airport {
    #[serde(rename = "_id")]
    pub(crate) code: String,
    pub(crate) name: String,
    pub(crate) latitude: Option<f64>,
    pub(crate) longitude: Option<f64>,
    pub(crate) departures: u64,
    pub(crate) arrivals: u64,
    #[serde(flatten)]
    pub(crate) punctuality: Punctuality,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Route {
    pub(crate) origin: String,
    pub(crate) dest: String,
    /// Miles.
    pub(crate) distance: Option<f64>,
    pub(crate) carriers: u64,
    #[serde(flatten)]
    pub(crate) punctuality: Punctuality,
}

/// A route as one carrier flies it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct CarrierRoute {
    pub(crate) carrier: String,
    pub(crate) origin: String,
    pub(crate) dest: String,
    #[serde(flatten)]
    pub(crate) punctuality: Punctuality,
}

/// A month, week or hour.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Period {
    #[serde(rename = "_id")]
    pub(crate) name: String,
    #[serde(flatten)]
    pub(crate) punctuality: Punctuality,
}

/// One flight. Clocks are local, `HH:MM`; delays are minutes.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Flight {
    pub(crate) flight_date: NaiveDate,
    pub(crate) carrier: String,
    pub(crate) flight_num: Option<String>,
    pub(crate) tail_num: Option<String>,
    pub(crate) origin: String,
    pub(crate) dest: String,
    #[serde(rename = "CRSDepTime")]
    pub(crate) crs_dep_time: Option<String>,
    pub(crate) dep_time: Option<String>,
    #[serde(rename = "CRSArrTime")]
    pub(crate) crs_arr_time: Option<String>,
    pub(crate) arr_time: Option<String>,
    pub(crate) dep_delay: Option<f64>,
    pub(crate) arr_delay: Option<f64>,
    /// Miles.
    pub(crate) distance: Option<f64>,
    /// Minutes in the air.
    pub(crate) air_time: Option<f64>,
    pub(crate) cancelled: bool,
    pub(crate) diverted: bool,
}

/// The documents that a query describes. One that is not as this version writes it is left out, and
/// the log says so: it is no reason to show nothing.
pub(crate) async fn find<T: DeserializeOwned>(
    store: &Store,
    collection: &str,
    query: &Query,
) -> Result<Vec<T>> {
    let documents = store.find(collection, query).await?;
    let read = |document| {
        serde_json::from_value(document)
            .inspect_err(|error| tracing::warn!(collection, %error, "a document cannot be read"))
            .ok()
    };
    Ok(documents.into_iter().filter_map(read).collect())
}

/// The document named `id`.
pub(crate) async fn get<T: DeserializeOwned>(
    store: &Store,
    collection: &str,
    id: &str,
) -> Result<Option<T>> {
    Ok(find(store, collection, &equal(&[("_id", id)], 1)).await?.pop())
}

/// At most `limit` documents whose fields have these values.
pub(crate) fn equal(fields: &[(&str, &str)], limit: u32) -> Query {
    let equal = fields.iter().map(|(field, value)| ((*field).to_owned(), Value::from(*value)));
    Query { equal: equal.collect(), limit, ..Query::default() }
}

/// The same, those with the most flights first.
pub(crate) fn busiest(fields: &[(&str, &str)], limit: u32) -> Query {
    Query { sort: vec![("Flights".into(), Order::Descending)], ..equal(fields, limit) }
}

/// A code as it is kept; `None` for what cannot be one.
pub(crate) fn code(text: &str) -> Option<String> {
    let code = events::flight_code(text)?;
    events::is_code(&code).then(|| code.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_letters_and_digits() {
        assert_eq!(code(" n14228").as_deref(), Some("N14228"));
        assert_eq!(code("pa (1)").as_deref(), Some("PA (1)"));
        for text in ["", " ", "$ne", "../..", "ABCDEFGHI", "Zürich", "<b>", "{\"$ne\":\"\"}"] {
            assert_eq!(code(text), None, "{text}");
        }
    }
}
