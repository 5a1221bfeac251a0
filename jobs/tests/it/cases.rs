//! Raw flights in forms that people have: `data/fixtures/cases/`. Each is read right, or refused
//! with the reason; nothing is changed in silence.

use std::path::PathBuf;

use jobs::ingest::options::{IngestOptions, Months};
use jobs::ingest::{Ingested, ingest};
use jobs::lake::Lake;
use jobs::progress::Progress;
use parking_lot::Mutex;

use crate::setup::{fixture, local_lake, rows, session};

/// What is said: the notices, and what was passed over or went wrong.
struct Tried {
    lake: Lake,
    _directory: tempfile::TempDir,
    said: Vec<String>,
    ended: Result<Ingested, String>,
}

fn inputs(names: &[&str]) -> Vec<PathBuf> {
    names.iter().map(|name| fixture("cases").join(name)).collect()
}

async fn ingest_into(lake: &Lake, names: &[&str], run: &str, options: &IngestOptions) -> Tried {
    let said = Mutex::new(Vec::new());
    let on_progress = |progress: Progress| {
        if let Progress::Notice(text) = progress {
            said.lock().push(text);
        }
    };
    let ended = ingest(&session(2), lake, &inputs(names), run, options, &on_progress).await;
    let mut said = said.into_inner();
    if let Ok(ingested) = &ended {
        let passed_over = ingested.passed_over.iter();
        said.extend(passed_over.map(|file| format!("{}: {}", file.name, file.reason)));
    }
    let ended = ended.map_err(|error| format!("{error:#}"));
    Tried { lake: lake.clone(), _directory: tempfile::tempdir().unwrap(), said, ended }
}

/// Ingests into a data root of its own.
async fn try_case(names: &[&str], options: &IngestOptions) -> Tried {
    let (directory, lake) = local_lake();
    Tried { _directory: directory, ..ingest_into(&lake, names, "tried", options).await }
}

async fn query(lake: &Lake, query: &str) -> String {
    let ctx = session(2);
    lake.register_flights(&ctx).await.unwrap();
    rows(&ctx, query).await
}

/// What the made-up March of 2019 holds: flights, cancelled ones, dates, tails, times.
const FACTS: &str = "SELECT COUNT(*) AS n, COUNT(*) FILTER (WHERE cancelled) AS cancelled, \
    MIN(flight_date) AS first, MAX(flight_date) AS last, COUNT(tail_number) AS tails, \
    COUNT(dep_minutes) AS dep, COUNT(arr_delay_minutes) AS delays, \
    SUM(crs_dep_minutes) AS crs_dep, SUM(arr_delay_minutes) AS late, MIN(flight_number) AS number, \
    SUM(flight_id % 1000003) AS ids FROM flights";

#[tokio::test(flavor = "multi_thread")]
async fn the_same_march_is_read_from_every_form() {
    let plain = try_case(&["15-header-only/full.csv"], &IngestOptions::default()).await;
    let expected = query(&plain.lake, FACTS).await;
    let mut wrong = Vec::new();
    for case in [
        "01-transtats-form",
        "02-us-dates",
        "03-kaggle-2015",
        "09b-kaggle-archive",
        "10a-null-word",
        "10b-null-word",
        "11c-directory-and-its-file",
        "13-macos-zip",
        "14-upper-case-ending/raw",
        "14-upper-case-ending/FLIGHTS.CSV",
        "20-semicolon",
        "23-latin1-city",
        "32-header-lacks-trailing-comma",
        "38-lower-case-names",
        "48-float-flight-numbers",
        "51-boolean-flags",
        "51c-true-false-csv",
        "53-local-midnight/march_spark_madrid.parquet",
        "57-time-of-day-type",
        "60-names-change-between-files/raw/2019_3.parquet",
        "62-upper-case-parquet",
    ] {
        let tried = try_case(&[case], &IngestOptions::default()).await;
        match &tried.ended {
            Ok(_) => {
                let found = query(&tried.lake, FACTS).await;
                if found != expected {
                    wrong.push(format!("{case}:\n{found}"));
                }
            }
            Err(error) => wrong.push(format!("{case}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "expected\n{expected}\n{}", wrong.join("\n"));
}

/// A case with its inputs, and the numbers of flights and of bad rows.
#[tokio::test(flavor = "multi_thread")]
async fn every_case_is_read() {
    let mut wrong = Vec::new();
    for (names, n_flights, n_rejects, n_months) in [
        (&["04-dataexpo-2009"][..], 200, 0, 1),
        (&["06-book-jsonl-gz-directory"], 200, 0, 1),
        (&["07-book-bts-jsonl"], 200, 0, 1),
        (&["08-nested-folders/raw"], 250, 0, 2),
        (&["08b-mixed-depth/raw"], 250, 0, 2),
        (
            &["11c-directory-and-its-file/raw", "11c-directory-and-its-file/raw/march.csv"],
            200,
            0,
            1,
        ),
        (&["12-stray-quote"], 2999, 1, 1),
        (&["18-json-nan"], 200, 0, 1),
        (&["22b-many-months-in-a-zip"], 180, 0, 3),
        (&["34-unique-carrier-suffix"], 400, 0, 1),
        (&["36-dst-and-tz"], 6, 0, 1),
        (&["60-names-change-between-files"], 250, 0, 2),
        (&["15-header-only"], 200, 0, 1),
        (&["16-zip-without-table"], 200, 0, 1),
    ] {
        match try_case(names, &IngestOptions::default()).await.ended {
            Ok(ingested) => {
                let found = (ingested.n_flights, ingested.n_rejects, ingested.months.len());
                if found != (n_flights, n_rejects, n_months) {
                    wrong.push(format!("{names:?}: {found:?}"));
                }
            }
            Err(error) => wrong.push(format!("{names:?}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_refused_with_its_cause() {
    let mut wrong = Vec::new();
    for (name, want) in [
        ("11-zip-beside-its-csv/raw", "200 of 400 flights are there already, or twice"),
        ("11b-same-file-twice/raw", "200 of 400 flights are there already, or twice"),
        ("15-header-only/march.csv", "march.csv: there are no rows in this file"),
        ("15b-no-bytes", "empty.csv: the file is empty"),
        (
            "16-zip-without-table/ONTIME.TD.201508.zip",
            "there are no flights in the archive; it holds readme.html, ONTIME.TD.201508.REL02.asc",
        ),
        ("17b-utf16", "flights.csv: its text is UTF-16; write it as UTF-8"),
        (
            "47-title-line",
            "its first line is no header: \"Own export of flights\"; line 2 is one, delete what is \
             before it",
        ),
        ("58-zero-rows", "flights.parquet: there are no rows in this file"),
    ] {
        match try_case(&[name], &IngestOptions::default()).await.ended {
            Ok(ingested) => wrong.push(format!("{name}: {ingested:?}")),
            Err(error) if !error.contains(want) => wrong.push(format!("{name}: {error}")),
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn what_lies_beside_flights_is_named_and_passed_over() {
    let tried = try_case(&["09b-kaggle-archive"], &IngestOptions::default()).await;
    let said = tried.said.join("\n");
    assert!(said.contains("archive.zip/airlines.csv: its columns make no flights"), "{said}");
    assert!(said.contains("archive.zip/airports.csv: "), "{said}");
    assert_eq!(tried.ended.unwrap().n_files, 1);
    // what programs leave beside tables goes without saying
    let tried = try_case(&["13-macos-zip"], &IngestOptions::default()).await;
    assert_eq!(tried.said, [""; 0]);
}

#[tokio::test]
async fn flights_that_come_twice_are_kept_once_on_demand() {
    let options = IngestOptions { distinct: true, ..IngestOptions::default() };
    for case in ["11-zip-beside-its-csv", "11b-same-file-twice"] {
        let tried = try_case(&[case], &options).await;
        let ingested = tried.ended.unwrap();
        assert_eq!((ingested.n_flights, ingested.n_repeats), (200, 200), "{case}");
        assert!(query(&tried.lake, FACTS).await.contains("| 200 "));
    }
    // or all of them
    let options = IngestOptions { repeats_max: 1.0, ..IngestOptions::default() };
    let tried = try_case(&["11b-same-file-twice"], &options).await;
    assert_eq!(tried.ended.unwrap().n_flights, 400);
    let said = tried.said.join("\n");
    assert!(said.contains("200 flights are there more than once, such as "), "{said}");
    assert!(said.contains("On_Time_2019_3 (1).csv, line "), "{said}");
}

#[tokio::test]
async fn a_month_that_is_replaced_is_told_before() {
    let (_directory, lake) = local_lake();
    let (first, second) = ("39-half-months/first_half.csv", "39-half-months/second_half.csv");
    let usual = IngestOptions::default();
    assert_eq!(ingest_into(&lake, &[first], "first", &usual).await.ended.unwrap().n_flights, 102);
    let tried = ingest_into(&lake, &[second], "second", &usual).await;
    assert_eq!(tried.said, ["replacing 102 flights of 2019-03 by 98"]);
    assert_eq!(tried.ended.unwrap().n_flights, 98);

    let append = IngestOptions { months: Months::Append, ..IngestOptions::default() };
    let tried = ingest_into(&lake, &[first], "third", &append).await;
    assert_eq!(tried.said, ["adding 102 to the 98 of 2019-03"]);
    assert_eq!(tried.ended.unwrap().n_flights, 102);
    assert!(query(&lake, FACTS).await.contains("| 200 "));
    // the same run again, which --resume does
    let error = ingest_into(&lake, &[first], "third", &append).await.ended.unwrap_err();
    assert!(error.contains("job third has added its flights already"), "{error}");
    // and a second time by mistake
    let error = ingest_into(&lake, &[first], "fourth", &append).await.ended.unwrap_err();
    assert!(error.contains("102 of 102 flights are there already"), "{error}");
    let options = IngestOptions { distinct: true, ..append };
    let ingested = ingest_into(&lake, &[first], "fifth", &options).await.ended.unwrap();
    assert_eq!((ingested.n_flights, ingested.n_repeats), (0, 102));
    assert!(query(&lake, FACTS).await.contains("| 200 "));
}

#[tokio::test]
async fn a_month_that_would_shrink_stays() {
    let (_directory, lake) = local_lake();
    let (full, half) = ("15-header-only/full.csv", "39-half-months/first_half.csv");
    let usual = IngestOptions::default();
    ingest_into(&lake, &[full], "first", &usual).await.ended.unwrap();
    let error = ingest_into(&lake, &[half], "second", &usual).await.ended.unwrap_err();
    let want = "2019-03 from 200 flights to 102 would shrink; nothing was replaced. --append adds";
    assert!(error.contains(want), "{error}");
    assert!(query(&lake, FACTS).await.contains("| 200 "));
    let options = IngestOptions { months: Months::Replace { shrinking: true }, ..usual };
    ingest_into(&lake, &[half], "third", &options).await.ended.unwrap();
    assert!(query(&lake, FACTS).await.contains("| 102 "));
}

#[tokio::test]
async fn march_stays_march() {
    let (_directory, lake) = local_lake();
    let usual = IngestOptions::default();
    ingest_into(&lake, &["53-local-midnight/february.csv"], "first", &usual).await.ended.unwrap();
    let march = ["53-local-midnight/march_spark_madrid.parquet"];
    let tried = ingest_into(&lake, &march, "second", &usual).await;
    assert_eq!(tried.ended.unwrap().months, [(2019, 3)]);
    let months = "SELECT month, COUNT(*) AS n FROM flights GROUP BY month ORDER BY month";
    let expected = "+-------+-----+\n| month | n   |\n+-------+-----+\n| 2     | 200 |\n| 3     | 200 |\n\
        +-------+-----+";
    assert_eq!(query(&lake, months).await, expected);
}

#[tokio::test]
async fn a_bts_file_as_json_keeps_what_it_says() {
    let tried = try_case(&["07-book-bts-jsonl"], &IngestOptions::default()).await;
    let facts = "SELECT COUNT(tail_number) > 150 AS tails, COUNT(dep_minutes) > 150 AS times, \
        COUNT(*) FILTER (WHERE cancelled) > 0 AS cancelled FROM flights";
    assert!(query(&tried.lake, facts).await.contains("| true  | true  | true      |"));
}

#[tokio::test]
async fn what_no_flight_has_is_said() {
    let tried = try_case(&["07-book-bts-jsonl"], &IngestOptions::default()).await;
    assert_eq!(tried.ended.unwrap().lacking, [""; 0]);
    let tried = try_files(&[("a.csv", table(",", "\n").as_bytes())], &Default::default()).await;
    let lacking = ["number", "scheduled arrival", "departure delay", "distance"];
    assert_eq!(tried.ended.unwrap().lacking, lacking);
}

#[tokio::test]
async fn what_programs_leave_in_the_data_root_is_passed_over() {
    let tried = try_case(&["07-book-bts-jsonl"], &IngestOptions::default()).await;
    let before = query(&tried.lake, FACTS).await;
    for name in ["_SUCCESS", "._0.parquet", ".0.parquet.crc", "_tmp/0.parquet"] {
        tried.lake.put(&format!("flights/year=2019/month=3/{name}"), b"x".to_vec()).await.unwrap();
    }
    assert_eq!(query(&tried.lake, FACTS).await, before);
}

#[tokio::test]
async fn a_clock_time_that_spring_skips_stays() {
    let tried = try_case(&["36-dst-and-tz"], &IngestOptions::default()).await;
    let times = "SELECT DISTINCT crs_dep_minutes, dep_minutes FROM flights";
    assert!(query(&tried.lake, times).await.contains("| 150             | 155         |"));
}

#[tokio::test]
async fn a_carrier_with_a_suffix_keeps_it() {
    let tried = try_case(&["34-unique-carrier-suffix"], &IngestOptions::default()).await;
    let carriers = "SELECT carrier FROM flights WHERE carrier LIKE 'PA%' GROUP BY carrier";
    assert!(query(&tried.lake, carriers).await.contains("| PA (1)  |"));
}

/// A header and two flights, as fields.
const FIELDS: [[&str; 8]; 3] = [
    ["FL_DATE", "OP_CARRIER", "TAIL_NUM", "ORIGIN", "DEST", "CRS_DEP_TIME", "ARR_DELAY", "REMARK"],
    ["2019-03-04", "AA", "N1", "DEN", "SEA", "0600", "-20", "x"],
    ["2019-03-05", "DL", "N2", "SEA", "DEN", "1300", "5", "y"],
];

fn table(separator: &str, line_end: &str) -> String {
    FIELDS.iter().map(|row| format!("{}{line_end}", row.join(separator))).collect()
}

/// The columns of [`FIELDS`] as they are kept.
const KEPT: &str = "SELECT flight_date, carrier, tail_number, origin, dest, crs_dep_minutes, \
    arr_delay_minutes FROM flights ORDER BY flight_date, carrier";

/// Ingests made-up files, by their names.
async fn try_files(files: &[(&str, &[u8])], options: &IngestOptions) -> Tried {
    let raw = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = raw.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    try_case(&[raw.path().to_str().unwrap()], options).await
}

/// A form, and files of it by their names.
type Form = (&'static str, Vec<(&'static str, Vec<u8>)>);

fn form(form: &'static str, name: &'static str, text: impl Into<Vec<u8>>) -> Form {
    (form, vec![(name, text.into())])
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gz, bytes).unwrap();
    gz.finish().unwrap()
}

/// The table of [`FIELDS`] in forms that tables have.
fn tables() -> Vec<Form> {
    let [header, first, second] = FIELDS.map(|row| row.join(","));
    let plain = table(",", "\n");
    let quoted = header.replace(',', "\",\"");
    let remark = first.replace(",x", ",\"so, \"\"x\"\"\nand y\"");
    vec![
        form("tabs", "a.tsv", table("\t", "\n")),
        form("bars", "a.txt", table("|", "\n")),
        form("lines of Windows", "a.csv", table(",", "\r\n")),
        form("lines of an old Mac", "a.csv", table(",", "\r")),
        form("lines of several systems", "a.csv", format!("{header}\n{first}\r{second}\r\n")),
        form("a line for Excel", "a.csv", format!("sep=;\r\n{}", table(";", "\r\n"))),
        form("rows of separators", "a.csv", format!("{plain},,,,,,,\n,,,,,,,\n")),
        form("a byte order mark", "a.csv", format!("\u{feff}{plain}")),
        form("a name that lies", "a.csv.gz", plain.clone()),
        form("packed twice", "a.csv.gz", gzipped(&gzipped(plain.as_bytes()))),
        form("blank lines", "a.csv", format!("\n{header}\n\n{first}\n\n{second}\n \n")),
        form("no last line end", "a.csv", plain.trim_end()),
        form("quotes", "a.csv", format!("\"{quoted}\"\n{first}\n{second}")),
        form("a remark of two lines", "a.csv", format!("{header}\n{remark}\n{second}\n")),
        form(
            "two remarks of two lines",
            "a.csv",
            format!("{header},NOTE\n{remark},\"a\nb\"\n{second},z\n"),
        ),
        form("a header in between", "a.csv", format!("{header}\n{first}\n{header}\n{second}\n")),
        form("fields without a name", "a.csv", format!("{header},,\n{first},,\n{second},,")),
    ]
}

/// The same as objects, and in several files.
fn objects_and_directories() -> Vec<Form> {
    let [header, first, second] = FIELDS.map(|row| row.join(","));
    let object = |row: &[&str; 8]| {
        let pairs = FIELDS[0].iter().zip(row).map(|(name, value)| format!("{name:?}:{value:?}"));
        format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
    };
    let objects = FIELDS[1..].iter().map(object).collect::<Vec<_>>();
    let pretty = objects.iter().map(|object| {
        let lines = object.replace('{', "{\n  ").replace(',', ",\n  ");
        lines.replace('}', "\n}")
    });
    let pretty = pretty.collect::<Vec<_>>();
    let over_lines = objects.join(",").replace(',', ",\n");
    let without_carrier = |row: [&str; 8]| [&row[..1], &row[2..]].concat().join(",");
    let of_carrier = |row| [without_carrier(FIELDS[0]), without_carrier(row)].join("\n").into();
    vec![
        form("lines of JSON", "a.jsonl", objects.join("\n")),
        form("lines of JSON with commas", "a.json", objects.join(",\n")),
        form("an array of JSON", "a.json", format!("[{}]", objects.join(","))),
        form("an array over lines", "a.json", format!("[\n{over_lines}\n]\n")),
        form("objects over lines", "a.json", pretty.join("\n")),
        form(
            "lines of JSON with nulls left out",
            "a.jsonl",
            format!("{{\"FL_DATE\":\"2019-03-04\"}}\n{}", objects.join("\n")),
        ),
        (
            "parts in a directory",
            vec![
                ("x.csv/part-00000", format!("{header}\n{first}").into()),
                ("x.csv/part-00001", format!("{header}\n{second}").into()),
                ("x.csv/_SUCCESS", Vec::new()),
                ("x.csv/.part-00000.crc", b"x".into()),
            ],
        ),
        (
            "values in names of directories",
            vec![
                ("OP_CARRIER=AA/a.csv", of_carrier(FIELDS[1])),
                ("OP_CARRIER=DL/a.csv", of_carrier(FIELDS[2])),
            ],
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_and_objects_are_read_however_they_are_written() {
    let plain = try_files(&[("a.csv", table(",", "\n").as_bytes())], &Default::default()).await;
    let expected = query(&plain.lake, KEPT).await;
    let want = "| 2019-03-05  | DL      | N2          | SEA    | DEN  | 780 ";
    assert!(expected.contains(want), "{expected}");
    let mut wrong = Vec::new();
    for (form, files) in tables().into_iter().chain(objects_and_directories()) {
        let files: Vec<(&str, &[u8])> = files.iter().map(|(n, b)| (*n, b.as_slice())).collect();
        // one form has a row without a carrier, which is a reject
        let options = IngestOptions { rejects_max: 0.4, ..Default::default() };
        let tried = try_files(&files, &options).await;
        match &tried.ended {
            Ok(_) if query(&tried.lake, KEPT).await == expected => {}
            Ok(_) => wrong.push(format!("{form}:\n{}", query(&tried.lake, KEPT).await)),
            Err(error) => wrong.push(format!("{form}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stray_quote_costs_its_line_only() {
    let header = FIELDS[0].join(",");
    let rows = |n: usize| (0..n).map(|i| format!("2019-03-04,AA,N{i},DEN,SEA,0600,-20,x"));
    let strays: [&[(usize, &str)]; 6] = [
        // it opens a field that no quote ends
        &[(3, "2019-03-04,AA,N3,DEN,SEA,0600,-20,\"x")],
        // two of them, in the same column, swallow what is between
        &[
            (3, "2019-03-04,AA,\"N3,DEN,SEA,0600,-20,x"),
            (9, "2019-03-04,AA,\"N9,DEN,SEA,0600,-20,x"),
        ],
        // the second ends well what the first began
        &[
            (3, "2019-03-04,AA,\"N3,DEN,SEA,0600,-20,x"),
            (5, "2019-03-04,AA,N5\",DEN,SEA,0600,-20,x"),
        ],
        // in the first field, and one that ends within its line
        &[(3, "\"2019-03-04,AA,N3,DEN,SEA,0600,-20,x")],
        &[(3, "2019-03-04,AA,\"N3,DEN\",SEA,0600,-20,x")],
        // in the first field, and the next line's
        &[
            (3, "\"2019-03-04,AA,N3,DEN,SEA,0600,-20,x"),
            (4, "2019-03-04\",AA,N4,DEN,SEA,0600,-20,x"),
        ],
    ];
    for stray in strays {
        let mut lines: Vec<String> = std::iter::once(header.clone()).chain(rows(100)).collect();
        for (line, text) in stray {
            lines[line - 1] = (*text).to_owned();
        }
        let options = IngestOptions { rejects_max: 0.02, repeats_max: 1.0, ..Default::default() };
        let tried = try_files(&[("a.csv", lines.join("\n").as_bytes())], &options).await;
        let ingested = tried.ended.unwrap();
        let n = ingested.n_flights + ingested.n_rejects;
        assert_eq!(n, 100, "{stray:?}: every line is a flight or a reject");
        assert!(ingested.n_rejects <= stray.len() as u64, "{stray:?}: {ingested:?}");
    }
}

#[tokio::test]
async fn what_is_not_read_is_said() {
    let good = table(",", "\n");
    let files: [(&str, &[u8]); 9] = [
        ("good.csv", good.as_bytes()),
        ("notes.md", b"# notes"),
        ("page.csv", b"<!DOCTYPE html><html></html>"),
        ("rows.csv", b"2019-03-04,AA,N1,DEN,SEA,0600\n2019-03-05,AA,N1,DEN,SEA,0600\n"),
        ("empty.csv", b""),
        ("wide.csv", b"F\0L\0_\0D\0A\0T\0E\0"),
        ("split.json", b"{\"columns\":[\"FL_DATE\"],\"data\":[[\"2019-03-04\"]]}"),
        ("sheet.csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"),
        (".hidden.csv", b"x"),
    ];
    let tried = try_files(&files, &IngestOptions::default()).await;
    let ingested = tried.ended.unwrap();
    assert_eq!((ingested.n_files, ingested.n_flights), (1, 2));
    for want in [
        "notes.md: its name ends in none of those of tables",
        "page.csv: it is a page of the web",
        "rows.csv: its first line looks like a row; the names of its columns are missing",
        "empty.csv: the file is empty",
        "wide.csv: its text is UTF-16",
        "sheet.csv: it is a workbook of Excel",
        "split.json: what stands under \"columns\" is no value",
    ] {
        assert!(tried.said.iter().any(|said| said.contains(want)), "{want}: {:?}", tried.said);
    }
    // and what the flights lack
    assert_eq!(tried.said.len(), 8, "{:?}", tried.said);
}

#[tokio::test]
async fn columns_are_named_by_a_person_where_they_are_called_otherwise() {
    let text = table(",", "\n").replace("OP_CARRIER", "WHO").replace("ORIGIN", "VON");
    let files: [(&str, &[u8]); 1] = [("a.csv", text.as_bytes())];
    let error = try_files(&files, &IngestOptions::default()).await.ended.unwrap_err();
    assert!(error.contains("there is no carrier (Reporting_Airline), no origin"), "{error}");
    assert!(error.contains("FL_DATE, WHO, TAIL_NUM, VON"), "{error}");
    let names = "carrier=who,origin=VON".parse().unwrap();
    let tried = try_files(&files, &IngestOptions { names, ..Default::default() }).await;
    assert_eq!(tried.ended.unwrap().n_flights, 2);
}

#[tokio::test]
async fn a_header_with_other_columns_in_between_is_used_from_there_on() {
    let mut text = table(",", "\n");
    text.push_str("DEST,ORIGIN,OP_CARRIER,FL_DATE\nDEN,SEA,UA,2019-03-06\n");
    let options = IngestOptions { rejects_max: 0.3, ..Default::default() };
    let tried = try_files(&[("a.csv", text.as_bytes())], &options).await;
    let ingested = tried.ended.unwrap();
    assert_eq!((ingested.n_flights, ingested.n_rejects), (3, 1));
    let found = query(&tried.lake, KEPT).await;
    assert!(found.contains("| 2019-03-06  | UA      |             | SEA    | DEN  |"), "{found}");
}

#[tokio::test]
async fn texts_in_latin_1_are_decoded_where_they_are_used() {
    let text = table(",", "\n").replace("N1", "N\u{c9}1").replace(",y", ",\u{e9}t\u{e9}");
    let latin_1: Vec<u8> = text.chars().map(|c| c as u8).collect();
    let tried = try_files(&[("a.csv", &latin_1)], &Default::default()).await;
    let ingested = tried.ended.unwrap();
    // it is decoded, and then no tail number
    assert_eq!((ingested.n_flights, ingested.n_odd_tails), (2, 1));
}

#[tokio::test]
async fn a_carrier_that_is_left_out_is_told_before() {
    let of = |carrier: &str| {
        let header = FIELDS[0].join(",");
        let rows = (1..=9).map(|i| format!("2019-03-0{i},{carrier},N1,DEN,SEA,0600,-20,x\n"));
        format!("{header}\n{}", rows.collect::<String>())
    };
    let raw = tempfile::tempdir().unwrap();
    let (_directory, lake) = local_lake();
    let mut said = Vec::new();
    for carrier in ["AA", "DL"] {
        let path = raw.path().join(format!("{carrier}.csv"));
        std::fs::write(&path, of(carrier)).unwrap();
        let usual = IngestOptions::default();
        let tried = ingest_into(&lake, &[path.to_str().unwrap()], carrier, &usual).await;
        said = tried.said;
        tried.ended.unwrap();
    }
    assert_eq!(said[1], "replacing 9 flights of 2019-03 by 9");
    assert!(said[2].starts_with("no flight of AA is left in 2019-03"), "{said:?}");
}

#[tokio::test]
async fn files_of_the_data_root_itself_are_not_ingested() {
    let (directory, lake) = local_lake();
    std::fs::write(directory.path().join("a.csv"), table(",", "\n")).unwrap();
    for run in ["first", "second"] {
        let tried =
            ingest_into(&lake, &[directory.path().to_str().unwrap()], run, &Default::default())
                .await;
        assert_eq!(tried.ended.unwrap().n_flights, 2);
        assert_eq!(
            tried.said.iter().any(|s| s.contains("is a part of the data root")),
            run == "second"
        );
    }
}

#[tokio::test]
async fn patterns_and_file_urls_name_files() {
    let raw = tempfile::tempdir().unwrap();
    let root = raw.path().to_str().unwrap();
    std::fs::write(raw.path().join("a b.csv"), table(",", "\n")).unwrap();
    let try_input = async |input: &str| {
        let (_directory, lake) = local_lake();
        let options = IngestOptions::default();
        ingest(&session(2), &lake, &[input.into()], "tried", &options, &|_| {}).await
    };
    for input in
        [format!("{root}/*.csv"), format!("file://{root}/a%20b.csv"), format!("file:{root}")]
    {
        assert_eq!(try_input(&input).await.unwrap().n_flights, 2, "{input}");
    }
    let error = try_input(&format!("{root}/*.json")).await.unwrap_err().to_string();
    assert!(error.contains("there is no file of such a name"), "{error}");
}

#[tokio::test]
async fn flights_of_a_data_root_are_no_raw_flights() {
    let tried = try_case(&["07-book-bts-jsonl"], &IngestOptions::default()).await;
    let exported = tempfile::tempdir().unwrap();
    let ctx = session(1);
    tried.lake.register_flights(&ctx).await.unwrap();
    let to = exported.path().join("flights.parquet");
    rows(&ctx, &format!("COPY flights TO '{}'", to.display())).await;
    let error = try_case(&[to.to_str().unwrap()], &Default::default()).await.ended.unwrap_err();
    assert!(error.contains("these are flights as a data root keeps them"), "{error}");
    // named as a file, or by a pattern
    let own = tried.lake.local_path("flights/year=2019/month=3/*.parquet").unwrap();
    let own = [own.to_str().unwrap()];
    let again = ingest_into(&tried.lake, &own, "again", &Default::default()).await;
    let error = again.ended.unwrap_err();
    assert!(error.contains("it is a part of the data root"), "{error}");
}

#[tokio::test]
async fn an_array_that_is_cut_off_is_refused() {
    let row = "{\"FL_DATE\":\"2019-03-04\",\"OP_CARRIER\":\"AA\",\"ORIGIN\":\"A\",\"DEST\":\"B\"}";
    for text in [format!("[{row},\n{row}"), format!("[{row},\n{}]", row.replace("AA\"", "AA"))] {
        let tried = try_files(&[("a.json", text.as_bytes())], &Default::default()).await;
        let error = tried.ended.unwrap_err();
        assert!(error.contains("line 2: the array does not end"), "{error}");
    }
}

#[tokio::test]
async fn flights_that_nothing_tells_apart_are_no_repeats() {
    let row = "2019-03-04,AA,DEN,SEA,5\n";
    let text = format!("FL_DATE,OP_CARRIER,ORIGIN,DEST,ARR_DELAY\n{}", row.repeat(20));
    for distinct in [false, true] {
        let options = IngestOptions { distinct, ..Default::default() };
        let ingested = try_files(&[("a.csv", text.as_bytes())], &options).await.ended.unwrap();
        assert_eq!((ingested.n_flights, ingested.n_repeats), (20, 0));
    }
}

#[tokio::test]
async fn a_month_that_shrinks_when_repeats_are_dropped_stays() {
    let (_directory, lake) = local_lake();
    let (full, half) = ("15-header-only/full.csv", "39-half-months/first_half.csv");
    ingest_into(&lake, &[full], "first", &Default::default()).await.ended.unwrap();
    let copy = tempfile::tempdir().unwrap();
    let copy = copy.path().join("copy.csv");
    std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
    std::fs::copy(fixture("cases").join(half), &copy).unwrap();
    let options = IngestOptions { distinct: true, ..Default::default() };
    let twice = [half, copy.to_str().unwrap()];
    let error = ingest_into(&lake, &twice, "second", &options).await.ended.unwrap_err();
    assert!(error.contains("2019-03 from 200 flights to 102 would shrink"), "{error}");
    assert!(query(&lake, FACTS).await.contains("| 200 "));
}

#[tokio::test]
async fn a_column_that_a_person_has_named_must_be_there() {
    let names = "dep_delay=Nope".parse().unwrap();
    let options = IngestOptions { names, ..Default::default() };
    let tried = try_files(&[("a.csv", table(",", "\n").as_bytes())], &options).await;
    assert_eq!(tried.ended.unwrap_err(), "no file has a column Nope");
}

#[tokio::test]
async fn what_begins_with_an_underscore_is_passed_over_and_said() {
    let text = table(",", "\n");
    let files: [(&str, &[u8]); 4] = [
        ("a.csv", text.as_bytes()),
        ("_b.csv", text.as_bytes()),
        ("_temporary/0/part-0", b"x"),
        ("_SUCCESS", b""),
    ];
    let tried = try_files(&files, &Default::default()).await;
    assert_eq!(tried.ended.unwrap().n_flights, 2);
    assert_eq!(tried.said.len(), 2, "{:?}", tried.said);
    assert!(tried.said[1].ends_with("_b.csv: its name begins with _, as those of markers do"));
}

#[tokio::test]
async fn decimal_commas_are_read_where_semicolons_separate() {
    let text = table(";", "\n").replace("-20", "-20,50");
    let tried = try_files(&[("a.csv", text.as_bytes())], &Default::default()).await;
    let found = query(&tried.lake, "SELECT MIN(arr_delay_minutes) AS min FROM flights").await;
    assert!(found.contains("| -20.5 |"), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingestion_that_cannot_write_ends() {
    let (directory, lake) = local_lake();
    // also for root, who may write everywhere
    std::fs::write(directory.path().join("staging"), "in the way").unwrap();
    let header = FIELDS[0].join(",");
    let rows = (0..300_000).map(|i| format!("2019-03-04,AA,N{i},DEN,SEA,0600,-20,x\n"));
    let raw = tempfile::tempdir().unwrap();
    let file = raw.path().join("a.csv");
    std::fs::write(&file, format!("{header}\n{}", rows.collect::<String>())).unwrap();
    let names = [file.to_str().unwrap()];
    let options = IngestOptions::default();
    let trying = ingest_into(&lake, &names, "tried", &options);
    let tried = tokio::time::timeout(std::time::Duration::from_secs(120), trying).await.unwrap();
    assert!(tried.ended.unwrap_err().contains("cannot write"), "the reason is said");
}
