//! Raw files to flights: what is read, what is refused, what is replaced.

use std::path::{Path, PathBuf};

use datafusion::arrow::array::AsArray;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, UInt64Type};
use jobs::ingest::options::{IngestOptions, Months};
use jobs::ingest::{Ingested, ingest};
use jobs::lake::Lake;

use crate::setup::{
    check_golden, fixture, ingest_all, local_lake, memory_lake, repository, rows, session, shipped,
};

/// All columns, in an order that does not depend on files.
const ALL: &str = "SELECT flight_date, carrier, flight_number, tail_number, origin, dest, \
    crs_dep_minutes AS crs_dep, crs_dep_utc, dep_minutes AS dep, dep_delay_minutes AS dep_delay, \
    crs_arr_minutes AS crs_arr, arr_minutes AS arr, arr_delay_minutes AS arr_delay, \
    air_time_minutes AS air_time, distance_miles AS distance, cancelled, diverted, year, month, \
    flight_id \
    FROM flights ORDER BY flight_date, carrier, flight_number, crs_dep_minutes, flight_id";

async fn flights(lake: &Lake, query: &str) -> String {
    let ctx = session(2);
    lake.register_flights(&ctx).await.unwrap();
    rows(&ctx, query).await
}

async fn flights_of(file: &str) -> String {
    let (_directory, lake) = local_lake();
    ingest_all(&lake, &[fixture(file)], "first").await;
    flights(&lake, ALL).await
}

async fn n_flights(lake: &Lake) -> String {
    let query = "SELECT year, month, COUNT(*) AS n_rows, COUNT(DISTINCT flight_id) AS n_flights \
        FROM flights GROUP BY year, month ORDER BY year, month";
    flights(lake, query).await
}

/// Ingests and allows a share of bad rows.
async fn try_ingest(lake: &Lake, inputs: &[PathBuf], rejects_max: f64) -> Result<Ingested, String> {
    let options = IngestOptions { rejects_max, ..IngestOptions::default() };
    let ingested = ingest(&session(2), lake, inputs, "tried", &options, &|_| {}).await;
    assert_eq!(lake.list("staging/").await.unwrap(), Vec::<String>::new(), "staging is left");
    ingested.map_err(|error| format!("{error:#}"))
}

/// Line and reason of each refused row; all are of `file`.
async fn rejects(lake: &Lake, file: &Path) -> Vec<(u64, String)> {
    let ctx = session(1);
    lake.register_table(&ctx, "rejects", "rejects/tried/", &[]).await.unwrap();
    let frame = ctx.sql("SELECT file, line, reject_reason FROM rejects ORDER BY line").await;
    let mut rejects = Vec::new();
    for batch in frame.unwrap().collect().await.unwrap() {
        let text = |i: usize| cast(batch.column(i), &DataType::Utf8).unwrap();
        let (files, reasons) = (text(0), text(2));
        for row in 0..batch.num_rows() {
            assert_eq!(files.as_string::<i32>().value(row), file.display().to_string());
            let line = batch.column(1).as_primitive::<UInt64Type>().value(row);
            rejects.push((line, reasons.as_string::<i32>().value(row).to_owned()));
        }
    }
    rejects
}

#[tokio::test]
async fn each_layout_becomes_the_same_columns() {
    for file in ["bts_new.csv", "bts_old.csv", "nycflights13.csv", "features.jsonl"] {
        check_golden(&format!("flights_of_{file}.txt"), &flights_of(file).await);
    }
}

#[tokio::test]
async fn both_namings_of_bts_give_the_same_typed_rows() {
    let query = "SELECT DATE_PART('day', flight_date) AS day, carrier, flight_number, \
        tail_number, origin, dest, crs_dep_minutes, dep_minutes, dep_delay_minutes, \
        crs_arr_minutes, arr_minutes, arr_delay_minutes, air_time_minutes, distance_miles, \
        cancelled, diverted FROM flights ORDER BY carrier, flight_number, crs_dep_minutes";
    let mut tables = Vec::new();
    for file in ["bts_new.csv", "bts_old.csv"] {
        let (_directory, lake) = local_lake();
        assert_eq!(ingest_all(&lake, &[fixture(file)], "first").await.n_flights, 10);
        tables.push(flights(&lake, query).await);
    }
    assert_eq!(tables[0], tables[1]);
}

#[tokio::test]
async fn compression_changes_nothing() {
    let plain = flights_of("features.jsonl").await;
    for end in ["gz", "bz2", "zip"] {
        assert_eq!(flights_of(&format!("features.jsonl.{end}")).await, plain, "{end}");
    }
}

#[tokio::test]
async fn bad_rows_of_a_table_are_kept_with_line_and_reason() {
    let (_directory, lake) = local_lake();
    let file = fixture("bad_rows.csv");
    let ingested = try_ingest(&lake, std::slice::from_ref(&file), 0.7).await.unwrap();
    assert_eq!((ingested.n_files, ingested.n_flights, ingested.n_rejects), (1, 3, 6));
    assert_eq!(ingested.months, [(2019, 3)]);
    assert_eq!(ingested.rejects, Some(lake.url("rejects/tried/")));
    let expected = [
        (3, "flight date is missing or not a date: 2019-13-45"),
        (5, "departure delay is not a number: late"),
        (6, "carrier is missing"),
        (7, "scheduled departure is not a time of day: 2561"),
        (8, "5 fields instead of 16"),
        (9, "distance is not a number of miles: -986.00"),
    ];
    assert_eq!(rejects(&lake, &file).await, expected.map(|(l, r)| (l, r.to_owned())));
    check_golden("flights_of_bad_rows.csv.txt", &flights(&lake, ALL).await);
}

#[tokio::test]
async fn bad_lines_of_json_are_kept_with_line_and_reason() {
    let (_directory, lake) = local_lake();
    let file = fixture("bad_rows.jsonl");
    let ingested = try_ingest(&lake, std::slice::from_ref(&file), 0.6).await.unwrap();
    assert_eq!((ingested.n_flights, ingested.n_rejects), (3, 4));
    let rejects = rejects(&lake, &file).await;
    assert_eq!(rejects.iter().map(|reject| reject.0).collect::<Vec<_>>(), [2, 4, 5, 6]);
    assert!(rejects[0].1.starts_with("not JSON: "), "{rejects:?}");
    assert_eq!(rejects[1].1, "not a JSON object");
    assert_eq!(rejects[2].1, "departure delay is not a number: early");
    assert_eq!(rejects[3].1, "carrier is missing");
    check_golden("flights_of_bad_rows.jsonl.txt", &flights(&lake, ALL).await);
}

#[tokio::test]
async fn more_bad_rows_than_allowed_replace_nothing() {
    let (_directory, lake) = local_lake();
    ingest_all(&lake, &[fixture("bts_new.csv")], "first").await;
    let before = (lake.list("flights/").await.unwrap(), flights(&lake, ALL).await);
    let error = try_ingest(&lake, &[fixture("bad_rows.csv")], 0.01).await.unwrap_err();
    let want = "6 of 9 rows are bad (66.67 %), more than the 1.00 % allowed; \
        nothing was replaced: 1 such as ";
    assert!(error.starts_with(want), "{error}");
    assert!(error.ends_with("rejects/tried/"), "{error}");
    assert_eq!(rejects(&lake, &fixture("bad_rows.csv")).await.len(), 6);
    assert_eq!((lake.list("flights/").await.unwrap(), flights(&lake, ALL).await), before);
}

#[tokio::test]
async fn just_the_allowed_share_of_bad_rows_is_allowed() {
    let (_directory, lake) = local_lake();
    try_ingest(&lake, &[fixture("bad_rows.csv")], 6.0 / 9.0).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_read_is_named_with_the_reason() {
    let (directory, lake) = local_lake();
    let written = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    for (input, want) in [
        (
            fixture("not_flights.csv"),
            "its columns make no flights: there is no flight date (FlightDate, or Year, Month and \
             DayofMonth), no carrier (Reporting_Airline), no origin (Origin), no destination (Dest); \
             the columns are station, observed_at, temperature_c, wind_speed_kn; --columns says \
             which is which",
        ),
        (fixture("no_such.csv"), "there is no such file"),
        (written("notes.txt", b"x"), "there is no comma, semicolon, tab or bar in its first line"),
        (written("empty.jsonl", b""), "the file is empty"),
        (written("text.jsonl", b"x\n"), "there is no comma"),
        (written("weather.jsonl", b"{\"a\":1}\n"), "the columns are a;"),
        (written("bad.jsonl", b"{x\n"), "nothing in it is a row; line 1: not JSON"),
        (written("broken.csv.gz", b"\x1f\x8bx"), "gz"),
        (written("broken.zip", b"PK\x03\x04x"), "cannot open the archive: invalid Zip archive"),
        (written("broken.parquet", b"PAR1x"), "arquet"),
    ] {
        let error = try_ingest(&lake, std::slice::from_ref(&input), 1.0).await.unwrap_err();
        assert!(error.contains(&input.display().to_string()), "{error:?} should name the file");
        assert!(error.contains(want), "{error:?} should say {want:?}");
    }
    assert_eq!(lake.list("flights/").await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_directory_is_read_for_its_readable_files() {
    let (directory, lake) = local_lake();
    let raw = directory.path().join("to_read");
    std::fs::create_dir(&raw).unwrap();
    let error = try_ingest(&lake, std::slice::from_ref(&raw), 0.0).await.unwrap_err();
    assert!(error.contains("there are no files in it"), "{error}");
    for file in ["bts_old.csv", "features.jsonl.gz", "make_fixtures.py"] {
        std::fs::copy(fixture(file), raw.join(file)).unwrap();
    }
    let ingested = try_ingest(&lake, &[raw], 0.0).await.unwrap();
    assert_eq!((ingested.n_files, ingested.n_flights), (2, 17));
    assert_eq!(ingested.months, [(2015, 7), (2015, 12)]);
}

#[tokio::test]
async fn only_the_months_that_are_read_are_replaced() {
    let (directory, lake) = local_lake();
    ingest_all(&lake, &[fixture("bts_new.csv"), fixture("bts_old.csv")], "first").await;
    let december = lake.list("flights/year=2015/").await.unwrap();
    assert_eq!(december.len(), 1, "{december:?}");
    let before = n_flights(&lake).await;

    // the same again: the rows do not double
    ingest_all(&lake, &[fixture("bts_new.csv")], "second").await;
    assert_eq!(n_flights(&lake).await, before);

    // March again, with less
    let text = std::fs::read_to_string(fixture("bts_new.csv")).unwrap();
    let fewer = directory.path().join("fewer.csv");
    std::fs::write(&fewer, text.lines().take(4).map(|l| format!("{l}\n")).collect::<String>())
        .unwrap();
    let months = Months::Replace { shrinking: true };
    let options = IngestOptions { months, ..IngestOptions::default() };
    let ingested = ingest(&session(2), &lake, &[fewer], "third", &options, &|_| {}).await.unwrap();
    assert_eq!((ingested.n_flights, ingested.months), (3, vec![(2019, 3)]));
    assert_eq!(lake.list("flights/year=2015/").await.unwrap(), december);
    check_golden("months_after_march_was_replaced.txt", &n_flights(&lake).await);
    assert_eq!(lake.list("staging/").await.unwrap(), Vec::<String>::new());

    // distances are of the flights that are there now, and once
    let query = "SELECT COUNT(*) AS n_rows, COUNT(DISTINCT origin || dest) AS n_pairs \
        FROM distances WHERE origin <> 'ORD' OR dest <> 'nowhere'";
    let pairs = "SELECT COUNT(DISTINCT origin || dest) AS n_rows, \
        COUNT(DISTINCT origin || dest) AS n_pairs FROM flights WHERE distance_miles IS NOT NULL";
    assert_eq!(flights(&lake, query).await, flights(&lake, pairs).await);
}

#[tokio::test]
async fn a_run_that_is_repeated_under_its_name_loses_nothing() {
    let (_directory, lake) = local_lake();
    ingest_all(&lake, &[fixture("bts_new.csv")], "first").await;
    let before = n_flights(&lake).await;
    ingest_all(&lake, &[fixture("bts_new.csv")], "first").await;
    assert_eq!(n_flights(&lake).await, before);
}

#[tokio::test]
async fn an_object_store_holds_the_same_as_a_directory() {
    let lake = memory_lake();
    for run in ["first", "second"] {
        ingest_all(&lake, &[fixture("bts_new.csv"), fixture("features.jsonl")], run).await;
        assert_eq!(lake.list("staging/").await.unwrap(), Vec::<String>::new());
    }
    let (_directory, local) = local_lake();
    ingest_all(&local, &[fixture("bts_new.csv"), fixture("features.jsonl")], "first").await;
    assert_eq!(flights(&lake, ALL).await, flights(&local, ALL).await);
}

#[tokio::test]
async fn all_shipped_flights_are_read_and_none_is_refused() {
    let shipped = shipped().await;
    let ingested = &shipped.ingested;
    assert_eq!((ingested.n_flights, ingested.n_rejects), (336_776, 0));
    assert_eq!(ingested.months, Vec::from_iter((1..=12).map(|month| (2013, month))));
    let query = "SELECT COUNT(*) AS n_rows, COUNT(DISTINCT flight_id) AS n_flights, \
        COUNT(*) FILTER (WHERE cancelled) AS n_cancelled, \
        COUNT(*) FILTER (WHERE diverted) AS n_diverted, \
        COUNT(*) FILTER (WHERE arr_delay_minutes IS NOT NULL AND dep_delay_minutes IS NOT NULL) \
        AS n_usable, COUNT(DISTINCT carrier) AS n_carriers, COUNT(DISTINCT dest) AS n_dests \
        FROM flights";
    check_golden("shipped_flights.txt", &flights(&shipped.lake, query).await);
}

#[tokio::test]
async fn scheduled_departures_are_the_instants_that_the_source_says() {
    let ctx = session(2);
    shipped().await.lake.register_flights(&ctx).await.unwrap();
    let source = repository().join("data/nycflights13/flights.parquet");
    ctx.register_parquet("source", source.to_str().unwrap(), Default::default()).await.unwrap();
    let query = "WITH ours AS (
            SELECT origin, flight_date, crs_dep_minutes / 60 AS hour, \
                CAST(DATE_TRUNC('hour', crs_dep_utc) AS BIGINT) / 1000000 AS instant FROM flights
        ), theirs AS (
            SELECT origin, MAKE_DATE(year, month, day) AS flight_date, hour, \
                CAST(time_hour AS BIGINT) / 1000 AS instant FROM source
        )
        SELECT (SELECT COUNT(DISTINCT instant) FROM ours) AS n_instants, \
            (SELECT COUNT(*) FROM (SELECT * FROM ours EXCEPT SELECT * FROM theirs)) AS others, \
            (SELECT COUNT(*) FROM (SELECT * FROM theirs EXCEPT SELECT * FROM ours)) AS missing";
    let expected = "\
+------------+--------+---------+
| n_instants | others | missing |
+------------+--------+---------+
| 6936       | 0      | 0       |
+------------+--------+---------+";
    assert_eq!(rows(&ctx, query).await, expected);
}
