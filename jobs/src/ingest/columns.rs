//! The columns of the relation `raw_flights`, and what raw files call them. A name is compared
//! without case, blanks and punctuation, so each spelling of a source stands here once.
//!
//! Sources: BTS on-time performance (`FlightDate`, `Reporting_Airline`, earlier `UniqueCarrier`),
//! its marketing carriers (`Operating_Airline`), the download form of TranStats (`FL_DATE`,
//! `OP_UNIQUE_CARRIER`), Data Expo 2009 and hflights (BTS's earlier names), Kaggle's flights of
//! 2015 (`AIRLINE`, `SCHEDULED_DEPARTURE`), nycflights13 (`sched_dep_time`), the features of the
//! original system (`FlightNum`), and our own names.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail, ensure};

/// A column of `raw_flights`: its name there, and what files call it, the preferred name first.
#[derive(Debug)]
pub struct Column {
    /// In `raw_flights`.
    pub name: &'static str,
    names: &'static [&'static str],
}

const fn column(name: &'static str, names: &'static [&'static str]) -> Column {
    Column { name, names }
}

/// Columns of `raw_flights` that hold values, in order.
pub const COLUMNS: [Column; 21] = [
    column("flight_date", &["FlightDate", "FL_DATE"]),
    column("year", &["Year"]),
    column("month", &["Month"]),
    column("day", &["DayofMonth", "Day"]),
    column(
        "carrier",
        &[
            "Reporting_Airline",
            "UniqueCarrier",
            "Operating_Airline",
            "OP_UNIQUE_CARRIER",
            "IATA_CODE_Reporting_Airline",
            "IATA_Code_Operating_Airline",
            "OP_CARRIER",
            "Carrier",
            // some hold names of airlines under AIRLINE, and codes under this
            "AIRLINE_CODE",
            "AIRLINE",
            "Marketing_Airline_Network",
            "IATA_Code_Marketing_Airline",
            "MKT_UNIQUE_CARRIER",
            "MKT_CARRIER",
        ],
    ),
    column(
        "flight_number",
        &[
            "Flight_Number_Reporting_Airline",
            "Flight_Number_Operating_Airline",
            "OP_CARRIER_FL_NUM",
            "FlightNum",
            "FlightNumber",
            "FL_NUM",
            "FL_NUMBER",
            "flight",
            "Flight_Number_Marketing_Airline",
            "MKT_CARRIER_FL_NUM",
        ],
    ),
    column("tail_number", &["Tail_Number", "TailNum"]),
    column("origin", &["Origin", "ORIGIN_AIRPORT"]),
    column("dest", &["Dest", "DESTINATION_AIRPORT", "Destination"]),
    column("crs_dep_time", &["CRSDepTime", "SCHEDULED_DEPARTURE", "sched_dep_time"]),
    column("dep_time", &["DepTime", "DEPARTURE_TIME"]),
    column("dep_delay", &["DepDelay", "DEPARTURE_DELAY"]),
    column("crs_arr_time", &["CRSArrTime", "SCHEDULED_ARRIVAL", "sched_arr_time"]),
    column("arr_time", &["ArrTime", "ARRIVAL_TIME"]),
    column("arr_delay", &["ArrDelay", "ARRIVAL_DELAY"]),
    column("cancelled", &["Cancelled"]),
    column("diverted", &["Diverted"]),
    column("air_time", &["AirTime"]),
    column("distance", &["Distance"]),
    // what only requests have
    column("uuid", &[]),
    column("asked_at", &["Timestamp"]),
];

/// Where a file holds each of [`COLUMNS`].
pub type Positions = [Option<usize>; COLUMNS.len()];

/// The place of a column in [`COLUMNS`].
pub fn index_of(name: &str) -> Option<usize> {
    COLUMNS.iter().position(|column| column.name == name)
}

/// What files call the columns.
#[derive(Debug, Clone)]
pub struct Names {
    /// For a name as it is compared: the column, and how much it is preferred, the least first.
    columns: HashMap<String, (usize, usize)>,
    given: Vec<(usize, String)>,
    /// Columns that were found, a bit each.
    seen: Arc<AtomicU32>,
}

impl Default for Names {
    fn default() -> Self {
        let mut columns = HashMap::new();
        for (i, column) in COLUMNS.iter().enumerate() {
            for (rank, name) in std::iter::once(&column.name).chain(column.names).enumerate() {
                columns.insert(compared(name), (i, rank));
            }
        }
        Self { columns, given: Vec::new(), seen: Arc::default() }
    }
}

/// A name without what writers differ in.
pub fn compared(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// The column `column=name,…` of the command line maps the rest.
impl FromStr for Names {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut names = Self::default();
        let mut given = Vec::new();
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            let (column, name) =
                part.split_once('=').with_context(|| format!("{part:?} is not COLUMN=NAME"))?;
            let column = column.trim();
            let Some(i) = index_of(column) else {
                let known: Vec<_> = COLUMNS.iter().map(|column| column.name).collect();
                bail!("there is no column {column:?}; there are {}", known.join(", "))
            };
            ensure!(!compared(name).is_empty(), "{part:?} names no column of the file");
            given.push((i, name.trim().to_owned()));
        }
        // it is what the person wants, whatever else the file holds
        names.columns.retain(|_, (of, _)| given.iter().all(|(i, _)| i != of));
        for (i, name) in &given {
            if let Some((other, _)) = names.columns.insert(compared(name), (*i, 0)) {
                bail!("{name} cannot be both {} and {}", COLUMNS[*i].name, COLUMNS[other].name);
            }
        }
        names.given = given;
        Ok(names)
    }
}

impl Names {
    /// The column that a file calls `name`, and how much the name is preferred, the least first.
    pub fn find(&self, name: &str) -> Option<(usize, usize)> {
        let found = self.columns.get(&compared(name)).copied();
        if let Some((i, _)) = found {
            self.seen.fetch_or(1 << i, Ordering::Relaxed);
        }
        found
    }

    /// What a person has named and no file has; files were read before.
    pub fn not_found(&self) -> Vec<&str> {
        let seen = self.seen.load(Ordering::Relaxed);
        let unseen = self.given.iter().filter(|(i, _)| seen & (1 << i) == 0);
        unseen.map(|(_, name)| name.as_str()).collect()
    }

    /// Where `header` holds each of [`COLUMNS`].
    pub fn positions<'a>(&self, header: impl IntoIterator<Item = &'a str>) -> Positions {
        let mut found: [Option<(usize, usize)>; COLUMNS.len()] = [None; COLUMNS.len()];
        for (position, name) in header.into_iter().enumerate() {
            if let Some((i, rank)) = self.find(name)
                && found[i].is_none_or(|(best, _)| rank < best)
            {
                found[i] = Some((rank, position));
            }
        }
        found.map(|found| found.map(|(_, position)| position))
    }
}

/// Why columns make no flights, given which of [`COLUMNS`] are there; `None` when they do.
pub fn lacks(is_there: impl Fn(usize) -> bool) -> Option<String> {
    let has = |name: &str| index_of(name).is_some_and(&is_there);
    let mut lacks = String::new();
    if !has("flight_date") && !["year", "month", "day"].into_iter().all(has) {
        lacks.push_str("flight date (FlightDate, or Year, Month and DayofMonth)");
    }
    for (name, what) in [
        ("carrier", "carrier (Reporting_Airline)"),
        ("origin", "origin (Origin)"),
        ("dest", "destination (Dest)"),
    ] {
        if !has(name) {
            _ = write!(lacks, "{}{what}", if lacks.is_empty() { "" } else { ", no " });
        }
    }
    (!lacks.is_empty()).then_some(lacks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(names: &Names, header: &str) -> Vec<(&'static str, usize)> {
        let positions = names.positions(header.split(','));
        let found = COLUMNS.iter().zip(positions);
        found.filter_map(|(column, position)| Some((column.name, position?))).collect()
    }

    #[test]
    fn every_name_stands_for_one_column() {
        let n_names: usize = COLUMNS
            .iter()
            .map(|column| {
                let names = std::iter::once(&column.name).chain(column.names);
                names.map(|name| compared(name)).collect::<std::collections::HashSet<_>>().len()
            })
            .sum();
        assert_eq!(Names::default().columns.len(), n_names);
    }

    #[test]
    fn names_are_compared_without_case_blanks_and_punctuation() {
        let names = Names::default();
        let all = [("flight_date", 0), ("carrier", 1), ("origin", 2), ("dest", 3)];
        for header in [
            "FlightDate,Reporting_Airline,Origin,Dest",
            "FLIGHT_DATE,reporting airline, ORIGIN ,dest",
            "fl-date,OP_UNIQUE_CARRIER,origin_airport,\u{feff}Destination",
        ] {
            assert_eq!(found(&names, header), all, "{header}");
        }
    }

    #[test]
    fn the_preferred_name_wins_wherever_it_stands() {
        let names = Names::default();
        assert_eq!(found(&names, "Carrier,UniqueCarrier"), [("carrier", 1)]);
        assert_eq!(found(&names, "UniqueCarrier,Carrier"), [("carrier", 0)]);
        assert_eq!(found(&names, "AIRLINE,AIRLINE_CODE"), [("carrier", 1)]);
        // of two alike the first
        assert_eq!(found(&names, "Origin,ORIGIN"), [("origin", 0)]);
    }

    #[test]
    fn a_person_maps_what_is_called_otherwise() {
        let names: Names = "carrier=Operator, dest=TO".parse().unwrap();
        assert_eq!(found(&names, "AIRLINE,operator,to"), [("carrier", 1), ("dest", 2)]);
        for (text, want) in [
            ("carrier", "\"carrier\" is not COLUMN=NAME"),
            ("airline=X", "there is no column \"airline\"; there are flight_date, year"),
            ("carrier= ", "names no column"),
            ("arr_delay=DepDelay", "DepDelay cannot be both arr_delay and dep_delay"),
        ] {
            let error = text.parse::<Names>().unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }

    #[test]
    fn what_is_lacking_is_said() {
        let lacks = |header: &str| {
            let positions = Names::default().positions(header.split(','));
            lacks(|i| positions[i].is_some())
        };
        assert_eq!(lacks("FL_DATE,Carrier,Origin,Dest"), None);
        assert_eq!(lacks("Year,Month,Day,Carrier,Origin,Dest"), None);
        assert_eq!(
            lacks("Year,Month,Carrier,Origin").unwrap(),
            "flight date (FlightDate, or Year, Month and DayofMonth), no destination (Dest)"
        );
    }
}
