//! Many programs on one data root at once, on a disk and in an object store: nothing is doubled,
//! lost or half seen, and one that was suspended changes nothing.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::setup::{Process, run, send_signal, start_s3, submit_job, until};

const HEADER: &str =
    "FL_DATE,OP_CARRIER,OP_CARRIER_FL_NUM,ORIGIN,DEST,CRS_DEP_TIME,DEP_DELAY,ARR_DELAY,DISTANCE";
/// Flights, months, distances, and flights whose airports have no distance.
const NUMBERS: &str = "SELECT concat_ws(' ', count(*), count(DISTINCT month),
    (SELECT count(*) FROM distances), count(*) FILTER (WHERE d.origin IS NULL)) AS numbers
    FROM flights f LEFT JOIN distances d ON f.origin = d.origin AND f.dest = d.dest";

/// A file with flights of one month to an airport that is the month's own.
fn month(directory: &Path, month: u32, n_days: u32) -> String {
    let days = (1..=n_days).map(|day| {
        format!("2019-{month:02}-{day:02},AA,{day},DEN,M{month:02},0600,5,{},1024\n", day - 1)
    });
    let path = directory.join(format!("month-{month}-{n_days}.csv"));
    std::fs::write(&path, format!("{HEADER}\n{}", days.collect::<String>())).unwrap();
    path.display().to_string()
}

fn start(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What it said, and its exit code.
fn end(child: Child) -> (Option<i32>, String) {
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn what_is_ingested_at_once_is_there_and_whoever_reads_sees_all_of_it_or_nothing() {
    let (_server, environment) = start_s3();
    let files = tempfile::tempdir().unwrap();
    let disk = tempfile::tempdir().unwrap();
    for root in [disk.path(), Path::new("s3://lake/many")] {
        let job = |arguments: &[&str]| {
            let mut job = submit_job(root);
            job.args(arguments).envs(environment.clone());
            job
        };
        let ingest = |file: &str| start(&mut job(&["ingest", file]));
        let all = (1..5).map(|number| ingest(&month(files.path(), number, 28)));
        let all: Vec<Child> = all.collect();
        let said: Vec<_> = all.into_iter().map(end).collect();
        assert!(said.iter().all(|(code, _)| *code == Some(0)), "{said:?}");
        assert!(said.iter().any(|(_, said)| said.contains("waiting for job ")), "{said:?}");
        let numbers = run(&mut job(&["sql", "-c", NUMBERS]));
        assert!(numbers.contains("112 4 4 0"), "{numbers}");

        // the same month, more of it and less of it
        let (more, less) = (month(files.path(), 1, 28), month(files.path(), 1, 27));
        let mut seen = Vec::new();
        for file in [&less, &more, &less] {
            let mut ingesting = Process(ingest(file));
            while ingesting.0.try_wait().unwrap().is_none() {
                seen.push(run(&mut job(&["sql", "-c", NUMBERS])));
            }
            assert!(ingesting.0.wait().unwrap().success());
        }
        let is_whole =
            |numbers: &String| numbers.contains("112 4 4 0") || numbers.contains("111 4 4 0");
        assert!(seen.len() > 3 && seen.iter().all(is_whole), "{seen:?}");
    }
}

#[test]
fn an_ingestion_that_was_suspended_past_its_lease_replaces_nothing() {
    let data = tempfile::tempdir().unwrap();
    let files = tempfile::tempdir().unwrap();
    let job = |arguments: &[&str]| {
        let mut job = submit_job(data.path());
        job.args(arguments);
        job
    };
    // long enough to be suspended with its lease
    let late = start(&mut job(&["ingest", "data/nycflights13/flights.parquet"]));
    let pid = late.id().to_string();
    until("it has the lease", || data.path().join("leases/0000000001.json").exists().then_some(()));
    send_signal(&pid, "STOP");
    let other = month(files.path(), 3, 28);
    let (code, said) = end(start(&mut job(&["ingest", &other])));
    assert!(code == Some(0) && said.contains("is silent; its lease is taken over"), "{said}");
    send_signal(&pid, "CONT");
    let (code, said) = end(late);
    assert!(code == Some(1) && said.contains("nothing was replaced: run it again"), "{said}");
    let numbers = run(&mut job(&["sql", "-c", NUMBERS]));
    assert!(numbers.contains("28 1 1 0"), "{numbers}");
}

#[test]
fn a_job_that_is_cancelled_keeps_nobody_waiting() {
    let data = tempfile::tempdir().unwrap();
    let mut ingest = submit_job(data.path());
    let job = start(ingest.args(["ingest", "data/nycflights13/flights.parquet"]));
    until("it has the lease", || data.path().join("leases/0000000001.json").exists().then_some(()));
    send_signal(&job.id().to_string(), "INT");
    assert_eq!(end(job).0, Some(130));
    let held = std::fs::read_to_string(data.path().join("leases/0000000001.json")).unwrap();
    assert!(held.contains(r#""ended":true"#), "{held}");
}

#[test]
fn a_shell_sees_what_others_ingest_meanwhile() {
    let data = tempfile::tempdir().unwrap();
    let files = tempfile::tempdir().unwrap();
    let ingest = |number| {
        run(submit_job(data.path()).args(["ingest", &month(files.path(), number, 28)]));
    };
    ingest(1);
    let mut shell = submit_job(data.path());
    shell.arg("sql").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut shell = Process(shell.spawn().unwrap());
    let mut statements = shell.0.stdin.take().unwrap();
    let mut lines = BufReader::new(shell.0.stdout.take().unwrap()).lines();
    for (number, numbers) in [(2, "28 1 1 0"), (3, "56 2 2 0"), (4, "84 3 3 0")] {
        writeln!(statements, "{};", NUMBERS.replace('\n', " ")).unwrap();
        lines.find(|line| line.as_ref().unwrap().contains(numbers)).expect(numbers).unwrap();
        ingest(number);
    }
    drop(statements);
    assert!(shell.0.wait().unwrap().success());
}
