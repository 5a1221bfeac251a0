//! What people type and what they get: raw files from anywhere, statements that must not write,
//! output that is lost, data roots that are mistyped.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::setup::{http, repository, run, start_s3, submit_job, until};

const HEADER: &str =
    "FL_DATE,OP_CARRIER,OP_CARRIER_FL_NUM,ORIGIN,DEST,CRS_DEP_TIME,DEP_DELAY,ARR_DELAY,DISTANCE";
const COUNT: [&str; 3] = ["sql", "-c", "SELECT COUNT(*) AS n FROM flights"];

/// A month of flights of a carrier, one a day.
fn month(carrier: &str, month: u32) -> String {
    let days = (1..=28).map(|day| {
        format!("2019-{month:02}-{day:02},{carrier},{day},DEN,SEA,0600,5,{},1024\n", day - 10)
    });
    format!("{HEADER}\n{}", days.collect::<String>())
}

fn raw_file(directory: &Path, name: impl AsRef<OsStr>, text: &str) -> PathBuf {
    let path = directory.join(name.as_ref());
    std::fs::write(&path, text).unwrap();
    path
}

fn output(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (status.code(), text(&stdout), text(&stderr))
}

#[test]
fn raw_files_are_read_from_an_object_store() {
    let (_server, environment) = start_s3();
    let port: u16 = environment[0].1.rsplit(':').next().unwrap().parse().unwrap();
    for (name, text) in [
        ("raw/2019/jan.csv", month("AA", 1)),
        ("raw/2019/feb.csv", month("AA", 2)),
        ("raw/2019/_SUCCESS", "x".into()),
        ("raw/2019/readme.md", "x".into()),
        ("raw/2020/jan.csv", month("AA", 3)),
    ] {
        let put = format!(
            "PUT /lake/{name} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{text}",
            text.len()
        );
        assert!(http(port, &put).starts_with("HTTP/1.1 200"));
    }
    for (input, n_flights) in [
        ("s3://lake/raw/2019/jan.csv", 28),
        ("s3://lake/raw/2019/*.csv", 56),
        ("s3://lake/raw/*/jan.csv", 56),
        ("s3://lake/raw/2019", 56),
        ("s3://lake/raw/", 84),
    ] {
        let data = tempfile::tempdir().unwrap();
        let (code, _, told) =
            output(submit_job(data.path()).args(["ingest", input]).envs(environment.clone()));
        assert_eq!(code, Some(0), "{input}: {told}");
        assert!(told.contains(&format!("ingested {n_flights} flights")), "{input}: {told}");
        assert_eq!(told.contains("readme.md: its name"), !input.ends_with(".csv"), "{told}");
    }
    let data = tempfile::tempdir().unwrap();
    let (code, _, told) =
        output(submit_job(data.path()).args(["ingest", "s3://lake/no/*.csv"]).envs(environment));
    assert_eq!(code, Some(1));
    assert!(told.contains("s3://lake/no/*.csv: there is no such object"), "{told}");
}

#[test]
fn bad_rows_are_told_with_their_places() {
    let data = tempfile::tempdir().unwrap();
    let raw = tempfile::tempdir().unwrap();
    let text = month("AA", 1) + "2019-01-29,AA,29,DEN,SEA,0600,late,5,1024\n2019-01-30,AA\n";
    let file = raw_file(raw.path(), "jan.csv", &text);
    let ingest = ["ingest", file.to_str().unwrap()];
    let (code, _, told) = output(submit_job(data.path()).args(ingest));
    assert_eq!(code, Some(1));
    assert!(told.contains("2 of 30 rows are bad (6.67 %)"), "{told}");
    let places = [
        format!("{}, line 30: departure delay is not a number: late", file.display()),
        format!("{}, line 31: 2 fields instead of 9", file.display()),
    ];
    assert!(places.iter().all(|place| told.contains(place)), "{told}");
    // it would not help
    assert!(!told.contains("--resume"), "{told}");
    assert_eq!(told.matches("rows are bad").count(), 1, "said once: {told}");

    let (code, _, told) =
        output(submit_job(data.path()).args(ingest).args(["--rejects-max", "0.1"]));
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("2 rows rejected"), "{told}");
    assert!(places.iter().all(|place| told.contains(place)), "{told}");
    let rejects = run(submit_job(data.path()).arg("rejects"));
    assert!(places.iter().all(|place| rejects.contains(place)), "{rejects}");
    let (code, _, told) =
        output(submit_job(data.path()).args(["rejects", "20260101T000000000Z-1"]));
    assert_eq!(code, Some(1), "{told}");
}

#[test]
fn statements_do_not_change_what_jobs_have_made() {
    let data = tempfile::tempdir().unwrap();
    let raw = tempfile::tempdir().unwrap();
    let file = raw_file(raw.path(), "jan.csv", &month("AA", 1));
    run(submit_job(data.path()).args(["ingest", file.to_str().unwrap()]));
    let root = data.path().display();
    let before = run(submit_job(data.path()).args(COUNT));
    let other = raw.path().join("out");
    let (relative, other) = (format!("{root}/models/../flights/"), other.display());
    for statement in [
        "INSERT INTO flights SELECT * FROM flights".to_owned(),
        "INSERT OVERWRITE flights SELECT * FROM flights".to_owned(),
        "INSERT INTO distances SELECT * FROM distances".to_owned(),
        format!("COPY flights TO '{root}/flights/year=2019/month=1/x.parquet'"),
        format!("COPY flights TO 'file://{root}/flights/' STORED AS PARQUET"),
        format!("COPY flights TO 'FILE://{root}/flights/year=2019/month=1/x.parquet'"),
        format!("COPY flights TO '{relative}' STORED AS PARQUET"),
        format!("COPY flights TO '{root}/models/x.json'"),
        format!("EXPLAIN ANALYZE COPY flights TO '{root}/flights/x.parquet'"),
        format!(
            "CREATE EXTERNAL TABLE mine STORED AS PARQUET PARTITIONED BY (year, month) \
             LOCATION '{root}/flights/'; INSERT INTO mine SELECT * FROM flights"
        ),
    ] {
        let (code, _, told) = output(submit_job(data.path()).args(["sql", "-c", &statement]));
        assert_eq!(code, Some(1), "{statement}: {told}");
        assert!(told.contains("is a part of the data root, which statements only read"), "{told}");
    }
    let flights = data.path().join("flights/year=2019/month=1");
    let file = std::fs::read_dir(flights).unwrap().next().unwrap().unwrap().path();
    let append = format!(
        "CREATE UNBOUNDED EXTERNAL TABLE e (a INT) STORED AS CSV LOCATION '{}'; \
         INSERT INTO e VALUES (1)",
        file.display()
    );
    let (code, _, told) = output(submit_job(data.path()).args(["sql", "-c", &append]));
    assert_eq!((code, told.contains("is neither in memory nor files")), (Some(1), true), "{told}");
    assert_eq!(run(submit_job(data.path()).args(COUNT)), before);
    // elsewhere writing stays possible, in the root too
    for target in [format!("{other}/a.parquet"), format!("{root}/exports/a.parquet")] {
        let copy = format!("COPY flights TO '{target}'");
        run(submit_job(data.path()).args(["sql", "-c", &copy]));
        assert!(Path::new(&target).exists(), "{target}");
    }
    let table =
        "CREATE TABLE t AS SELECT 1 AS x; INSERT INTO t VALUES (2); SELECT SUM(x) AS s FROM t";
    assert!(run(submit_job(data.path()).args(["sql", "-c", table])).contains("| 3 |"));
}

#[test]
fn a_query_that_names_no_relation_does_not_look_at_the_flights() {
    let data = tempfile::tempdir().unwrap();
    let flights = data.path().join("flights/year=2019/month=1");
    std::fs::create_dir_all(&flights).unwrap();
    std::fs::write(flights.join("x.parquet"), "no Parquet").unwrap();
    let ask = |statement| output(submit_job(data.path()).args(["sql", "-c", statement]));
    let (code, said, told) = ask("SELECT 1 AS one; SELECT upper('a') AS letter");
    assert_eq!((code, said.contains("| one |"), said.contains("| A ")), (Some(0), true, true));
    assert_eq!(told, "");
    for statement in ["SELECT 1; SELECT COUNT(*) FROM flights", "SELECT predict_delay('x', 1)"] {
        let (code, _, told) = ask(statement);
        assert_eq!((code, told.contains("Parquet error")), (Some(1), true), "{told}");
    }
}

#[test]
fn output_that_is_lost_is_an_error() {
    let data = tempfile::tempdir().unwrap();
    let raw = tempfile::tempdir().unwrap();
    let file = raw_file(raw.path(), "jan.csv", &month("AA", 1));
    run(submit_job(data.path()).args(["ingest", file.to_str().unwrap()]));
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    for arguments in [&COUNT[..], &["train", "--json", "--trees", "2"], &["--list"]] {
        let mut command = submit_job(data.path());
        command.args(arguments).stdin(Stdio::null()).stdout(full());
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {told}");
        assert!(told.contains("cannot write the output: No space left on device"), "{told}");
    }
    // somebody who has seen enough is no error
    let mut command = submit_job(data.path());
    command.args(["sql", "-c", "SELECT * FROM flights CROSS JOIN flights AS more"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn what_a_job_prints_that_nobody_waits_for_is_kept() {
    let data = tempfile::tempdir().unwrap();
    let raw = tempfile::tempdir().unwrap();
    let file = raw_file(raw.path(), "jan.csv", &month("AA", 1));
    run(submit_job(data.path()).args(["ingest", file.to_str().unwrap()]));
    let (code, id, told) = output(submit_job(data.path()).args(COUNT).arg("--no-wait"));
    assert_eq!(code, Some(0), "{told}");
    let path = told.trim().strip_prefix("what it prints goes to ").unwrap();
    assert!(path.contains(id.trim()), "{told}");
    until("the answer is there", || {
        std::fs::read_to_string(path).ok().filter(|text| text.contains("| 28 |"))
    });
}

#[test]
fn names_that_are_not_utf_8_are_names() {
    let data = tempfile::tempdir().unwrap();
    let raw = tempfile::tempdir().unwrap();
    let file = raw_file(raw.path(), OsStr::from_bytes(b"caf\xe9.csv"), &month("AA", 1));
    let mut command = submit_job(data.path());
    command.arg("ingest").arg(&file).env("NOT_UTF_8", OsStr::from_bytes(b"\xff"));
    let (code, _, told) = output(&mut command);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("ingested 28 flights"), "{told}");
}

#[test]
fn a_data_root_that_is_mistyped_makes_no_directory() {
    let here = tempfile::tempdir().unwrap();
    let program = submit_job(Path::new("x")).get_program().to_owned();
    for (root, want) in [
        ("s3:/bucket/x", "it is neither a directory nor a URL, such as s3://bucket/prefix"),
        ("tarmac-dta", "there is no data root file://"),
        ("file:tarmac-dta", "there is no data root file://"),
        ("file:/nowhere/at/all", "there is no data root file:///nowhere/at/all/"),
    ] {
        let mut command = Command::new(&program);
        command.current_dir(here.path()).args(["--data", root, "train"]);
        let (code, _, told) = output(&mut command);
        assert_eq!(code, Some(1), "{root}: {told}");
        assert!(told.contains(want), "{root}: {told}");
    }
    // what only reads says what there is
    let mut command = Command::new(&program);
    let (code, printed, told) =
        output(command.current_dir(here.path()).args(["sql", "-c", "SELECT 1 AS one"]));
    assert_eq!((code, printed.contains("| 1 "),), (Some(0), true), "{told}");
    let (code, ..) = output(Command::new(&program).current_dir(here.path()).arg("--list"));
    assert_eq!(code, Some(0));
    assert_eq!(std::fs::read_dir(here.path()).unwrap().count(), 0, "nothing was made");
}

#[test]
fn statements_run_where_nothing_can_be_written() {
    let data = tempfile::tempdir().unwrap();
    let raw = tempfile::tempdir().unwrap();
    let file = raw_file(raw.path(), "jan.csv", &month("AA", 1));
    run(submit_job(data.path()).args(["ingest", file.to_str().unwrap()]));
    // also for root, who may write everywhere
    let jobs = data.path().join("jobs");
    std::fs::remove_dir_all(&jobs).unwrap();
    std::fs::write(&jobs, "in the way").unwrap();
    let (code, printed, told) = output(submit_job(data.path()).args(COUNT));
    assert_eq!(code, Some(0), "{told}");
    assert!(printed.contains("| 28 |"), "{printed}");
    assert_eq!(told.matches("this job leaves no record").count(), 1, "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
}

/// The names that carriers had one after the other are asked for as they stand in the file.
#[test]
fn the_shipped_cases_are_read_by_the_program_too() {
    let data = tempfile::tempdir().unwrap();
    let cases = repository().join("data/fixtures/cases");
    let case = cases.join("34-unique-carrier-suffix");
    run(submit_job(data.path()).arg("ingest").arg(&case));
    let carriers =
        "SELECT carrier, COUNT(*) AS n FROM flights WHERE carrier = 'PA (1)' GROUP BY carrier";
    let found = run(submit_job(data.path()).args(["sql", "-c", carriers]));
    assert!(found.contains("| PA (1)  |"), "{found}");
}
