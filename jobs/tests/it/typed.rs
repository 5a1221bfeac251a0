//! The rows that are typed without SQL are those that SQL makes: every case, and made-up tables of
//! all layouts with whatever may stand in them, read in blocks of several sizes and without.

use std::path::{Path, PathBuf};

use jobs::ingest::ingest;
use jobs::ingest::options::IngestOptions;
use jobs::progress::Progress;
use udf::train::sampling::mix;

use crate::setup::{fixture, local_lake, rows, session};

/// All that an ingestion makes and says, as text.
async fn outcome(input: &Path, block_bytes: usize) -> String {
    let (_directory, lake) = local_lake();
    let options = IngestOptions {
        rejects_max: 1.0,
        repeats_max: 1.0,
        block_bytes,
        ..IngestOptions::default()
    };
    let ctx = session(2);
    let ended = ingest(&ctx, &lake, &[input.to_owned()], "run", &options, &|_| {}).await;
    let mut said = match ended {
        Ok(ingested) => {
            let said = format!("{ingested:?}");
            said.replace(&lake.root().to_string(), "")
        }
        Err(error) => return format!("{error:#}").replace(&lake.root().to_string(), ""),
    };
    lake.register_flights(&ctx).await.unwrap();
    let columns: Vec<String> = (1..=20).map(|i| i.to_string()).collect();
    let query = format!("SELECT * FROM flights ORDER BY {}", columns.join(", "));
    said.push_str(&rows(&ctx, &query).await);
    if lake.holds_table("rejects/run/").await.unwrap() {
        lake.register_table(&ctx, "rejects", "rejects/run/", &[]).await.unwrap();
        said.push_str(&rows(&ctx, "SELECT * FROM rejects ORDER BY file, line").await);
    }
    said
}

/// The first line in which two texts differ.
fn difference(left: &str, right: &str) -> String {
    let pairs = left.lines().zip(right.lines());
    let differ = pairs.into_iter().find(|(left, right)| left != right);
    match differ {
        Some((left, right)) => format!("{left}\n{right}"),
        None => format!("{} and {} lines", left.lines().count(), right.lines().count()),
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[tokio::test(flavor = "multi_thread")]
async fn every_case_is_the_same_with_and_without_sql() {
    let mut inputs: Vec<PathBuf> =
        entries(&fixture("cases")).into_iter().filter(|path| path.is_dir()).collect();
    inputs.extend(entries(&fixture("")).into_iter().filter(|path| path.is_file()));
    assert!(inputs.len() > 30, "they are found");
    for input in inputs {
        let want = outcome(&input, 0).await;
        for block_bytes in [700, 4 << 20] {
            let found = outcome(&input, block_bytes).await;
            let told = || difference(&want, &found);
            assert!(want == found, "{} in {block_bytes}: {}", input.display(), told());
        }
    }
}

/// Numbers without end, the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (mix(self.0) % n as u64) as usize
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.roll(choices.len())]
    }
}

/// Plain values, and others.
type Pool = (&'static [&'static str], &'static [&'static str]);
const DATES: Pool = (
    &["2019-03-04", "2019-03-31", "2019-02-28", "2020-02-29"],
    &[
        "",
        "NA",
        "3/4/2019",
        "3/4/2019 12:00:00 AM",
        "2019-03-04 23:30:00",
        "20190304",
        "2019-3-4",
        "04-MAR-2019",
        "2019-02-30",
        "2019-13-01",
        "soon",
        "1551657600",
        "2019-03-04T00:00:00-08:00",
        " 2019-03-04",
        "0019-03-04",
        "10000-01-01",
    ],
);
const TIMES: Pool = (
    &["0515", "515", "1345", "0000", "2359", "5", "", "2400"],
    &[
        "515.0", "2410", "2460", "5:15", "05:15:00", "1345.5", "-5", "NA", "x", "99999", "0x10",
        "+515",
    ],
);
const NUMBERS: Pool = (
    &["0", "-3", "12.00", "7.5", "432.00", "", "NA", "0.1", "-0.00"],
    &[
        "1e3",
        "NaN",
        "inf",
        "-inf",
        "1e10",
        ".5",
        "5.",
        "+7",
        "1,5",
        "12345678901234567",
        "0.1234567890123456",
        "x",
        " 7",
        "--7",
        "\u{2212}7",
    ],
);
const CODES: Pool = (
    &["AA", "UA", "9E", "DFW", "N001AA", "PA (1)"],
    &["", "aa", " UA", "NA", "$ne", "TOOLONGCODE", "A A", "É1", "null", "--"],
);

/// What may stand in a column.
fn value(dice: &mut Dice, column: &str, is_odd: bool) -> String {
    let (plain, odd) = match column {
        "FlightDate" => DATES,
        "Year" => (
            &["2019"][..],
            &["19", "2019.0", "", "x", "02019", "-2019", "1999", "0019", "0000"][..],
        ),
        "Month" => (&["3", "03", "12"][..], &["13", "0", "", "3.0", "x", "003"][..]),
        "Day" => (&["4", "04", "31"][..], &["32", "0", "", "4.0", "x", "004"][..]),
        "CRSDepTime" | "DepTime" | "CRSArrTime" | "ArrTime" => TIMES,
        "DepDelay" | "ArrDelay" | "AirTime" | "Distance" => NUMBERS,
        "Cancelled" | "Diverted" => (
            &["0", "0.00", "0", "1.00", "1", ""][..],
            &["true", "F", "2", "x", "0.5", "False", "-0"][..],
        ),
        "FlightNum" => {
            (&["1", "1545", "0022", ""][..], &["1545.0", "12.5", "x y", "-", "1.0.0"][..])
        }
        "TailNum" => (
            &["N001AA", "N1", "", "NA", "UNKNOW", "000000", "-"][..],
            &["n1", "Unknown", "N 1", "É", "0", "TOOLONGTAIL"][..],
        ),
        _ => CODES,
    };
    dice.of(if is_odd { odd } else { plain }).to_owned()
}

/// A table with these columns: mostly plain rows, and among them what people's files have.
fn table(dice: &mut Dice, columns: &[&str], separator: char, n_rows: usize) -> Vec<u8> {
    let end = dice.of(&["\n", "\n", "\r\n"]);
    let (is_quoted, odd_share) = (dice.roll(2) == 0, [0, 20, 60][dice.roll(3)]);
    let join = |fields: &[String]| fields.join(&separator.to_string());
    let names: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
    let mut text = join(&names).into_bytes();
    text.extend(end.bytes());
    for _ in 0..n_rows {
        let odd_one =
            if dice.roll(100) < odd_share { dice.roll(columns.len()) } else { usize::MAX };
        let mut fields: Vec<String> = columns
            .iter()
            .enumerate()
            .map(|(i, column)| {
                let value = value(dice, column, i == odd_one);
                let must = value.contains(separator);
                if must || is_quoted && i % 2 == 0 { format!("\"{value}\"") } else { value }
            })
            .collect();
        let junk = if odd_share > 0 { dice.roll(60) } else { usize::MAX };
        match junk {
            0 => fields.push(String::new()),
            1 => fields.push("more".to_owned()),
            2 => _ = fields.pop(),
            3 => fields[0] = "\"two\nlines\"".to_owned(),
            4 => fields[1] = "stray\"quote".to_owned(),
            5 => fields[0] = "\"open".to_owned(),
            6 => fields[1] = "\"dou\"\"ble\"".to_owned(),
            7 => fields = names.clone(),
            8 => fields = names.iter().rev().cloned().collect(),
            9 => fields = vec![String::new(); columns.len()],
            10 => fields = Vec::new(),
            11 => fields[0].push('\r'),
            12 => fields = vec!["x".repeat(70_000)],
            _ => {}
        }
        text.extend(join(&fields).bytes());
        if junk == 13 {
            text.push(0xe9);
        }
        text.extend(end.bytes());
    }
    if dice.roll(2) == 0 {
        text.truncate(text.len() - end.len());
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn made_up_tables_are_the_same_with_and_without_sql() {
    let directory = tempfile::tempdir().unwrap();
    let layouts: [(&[&str], char); 6] = [
        (
            &[
                "Year",
                "Month",
                "Day",
                "FlightDate",
                "Carrier",
                "TailNum",
                "FlightNum",
                "Origin",
                "Dest",
                "CRSDepTime",
                "DepTime",
                "DepDelay",
                "CRSArrTime",
                "ArrTime",
                "ArrDelay",
                "Cancelled",
                "Diverted",
                "AirTime",
                "Distance",
            ],
            ',',
        ),
        (&["FlightDate", "Carrier", "Origin", "Dest", "DepDelay", "ArrDelay"], ','),
        (
            &[
                "Year",
                "Month",
                "Day",
                "DepTime",
                "DepDelay",
                "ArrTime",
                "ArrDelay",
                "Carrier",
                "TailNum",
                "FlightNum",
                "Origin",
                "Dest",
                "AirTime",
                "Distance",
            ],
            '\t',
        ),
        (&["Carrier", "FlightDate", "Dest", "Origin", "CRSDepTime", "Cancelled"], ';'),
        (&["Origin", "Dest", "Carrier", "FlightDate", "DepTime", "ArrDelay", "Diverted"], '|'),
        // a feature file of the original system
        (&["ArrDelay", "Carrier", "DayOfYear", "DepDelay", "Dest", "FlightDate", "Origin"], ','),
    ];
    let mut dice = Dice(7);
    for round in 0..18 {
        let (columns, separator) = layouts[round % layouts.len()];
        let text = table(&mut dice, columns, separator, 150);
        let path = directory.path().join(format!("{round}.csv"));
        std::fs::write(&path, &text).unwrap();
        let want = outcome(&path, 0).await;
        for block_bytes in [300, 4 << 20] {
            let found = outcome(&path, block_bytes).await;
            let told = || difference(&want, &found);
            assert!(want == found, "table {round} in {block_bytes}: {}", told());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_looks_plain_is_the_same_with_and_without_sql() {
    let root = "flight_date,carrier,origin,dest,crs_dep_minutes,dep_delay_minutes\n";
    let row = "2019-03-04,AA,DFW,MEM,600,1\n";
    let header = "FlightDate,Carrier,Origin,Dest,Remark\n";
    let remark = |carrier: &str, n: usize| {
        let start = format!("2019-03-04,{carrier},DFW,MEM,");
        format!("{start}{}\n", "x".repeat(n - start.len()))
    };
    let directory = tempfile::tempdir().unwrap();
    for (path, text) in [
        // flights as a data root keeps them, also with a row that is left to SQL
        ("a.csv", format!("{root}{row}{row}")),
        ("b.csv", format!("{root}{row}{}", row.replace("AA", "aa"))),
        // lines that are as long as lines may be, and longer
        ("c.csv", format!("{header}{}{}", remark("AA", 65_535), remark("aa", 65_535))),
        ("d.csv", format!("{header}{}{}", remark("AA", 65_536), remark("aa", 65_536))),
        ("e.csv", format!("{header}{}{}", remark("AA", 70_000), remark("AA", 40))),
        ("f.csv", format!("{header}{}{}x\n", remark("AA", 5 << 20), remark("AA", 40))),
        // a day that stands in the path, and so does the rest
        (
            "year=2019/month=3/day=4/carrier=AA/origin=DFW/dest=MEM/g.csv",
            "FlightDate,DepDelay\n2019-03-04,5\n,\nNA,6\n\nFlightDate,DepDelay\n2019-03-04,7\n"
                .to_owned(),
        ),
        (
            "flight_date=2019-03-04/h.csv",
            "Carrier,Origin,Dest\nAA,DFW,MEM\nCARRIER,ORIGIN,DEST\n9E,DFW,MEM\n".to_owned(),
        ),
        // a year that SQL reads as a number
        (
            "i.csv",
            "Year,Month,Day,Carrier,Origin,Dest\n0019,3,4,AA,DFW,MEM\n2019,3,4,AA,DFW,MEM\n"
                .to_owned(),
        ),
    ] {
        let path = directory.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        let input = match path.parent() {
            Some(parent) if parent != directory.path() => {
                let first = path.strip_prefix(directory.path()).unwrap().iter().next().unwrap();
                directory.path().join(first)
            }
            _ => path.clone(),
        };
        let want = outcome(&input, 0).await;
        for block_bytes in [300, 4 << 20] {
            let found = outcome(&input, block_bytes).await;
            let told = || difference(&want, &found);
            assert!(want == found, "{} in {block_bytes}: {}", input.display(), told());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clean_rows_take_the_short_way() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("flights.csv");
    let rows_of_two = "2019-03-04,UA,DFW,MEM,12\n2019-03-04,AA,DFW,MEM,12\n".repeat(250);
    let header = "FlightDate,Carrier,FlightNum,Origin,Dest,DepDelay\n";
    let text = format!("{header}{}", rows_of_two.replace("A,DFW", "A,7,DFW"));
    std::fs::write(&path, text).unwrap();
    let (_directory, lake) = local_lake();
    let options = IngestOptions { repeats_max: 1.0, ..IngestOptions::default() };
    let said = parking_lot::Mutex::new(String::new());
    let on_progress = |progress: Progress| {
        if let Progress::Notice(text) = progress {
            said.lock().push_str(&text);
        }
    };
    ingest(&session(2), &lake, &[path], "run", &options, &on_progress).await.unwrap();
    // the places of what is there twice are found all the same
    let said = said.into_inner();
    assert!(said.contains("flights.csv, line 3; "), "{said}");
    assert!(said.contains("flights.csv, line 5)"), "{said}");
    let names = lake.list("flights/").await.unwrap();
    assert_eq!(names.len(), 1, "{names:?}");
    // by its sorted rows, as no other way writes them
    let ctx = session(1);
    lake.register_flights(&ctx).await.unwrap();
    let carriers = rows(&ctx, "SELECT carrier FROM flights LIMIT 251").await;
    assert_eq!((carriers.matches("AA").count(), carriers.matches("UA").count()), (250, 1));
}
