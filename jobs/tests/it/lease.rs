//! Many jobs on one data root: one changes it at a time, none while others read, and one that was
//! suspended past its lease changes nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jobs::gc::{Ages, find};
use jobs::ingest::ingest;
use jobs::ingest::options::{IngestOptions, Months};
use jobs::lake::Lake;
use jobs::lease::{Lease, Reading, Swap, read_again, read_unpinned, release};
use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};

use crate::setup::{local_lake, memory_lake, rows, session};

/// What both distances and flights of a root say of their numbers.
const NUMBERS: &str = "SELECT COUNT(*) AS n_flights, COUNT(DISTINCT flight_id) AS n_ids,
    COUNT(DISTINCT month) AS n_months,
    (SELECT COUNT(*) FROM distances) AS n_distances,
    (SELECT COUNT(DISTINCT origin || dest) FROM distances) AS n_pairs FROM flights";

async fn numbers(lake: &Lake) -> String {
    let ctx = session(2);
    lake.register_flights(&ctx).await.unwrap();
    rows(&ctx, NUMBERS).await
}

/// A file of flights of one month, each between two airports of its own.
fn month(directory: &Path, number: u32, n_flights: u32) -> PathBuf {
    let path = directory.join(format!("month{number}.csv"));
    let mut text = "Year,Month,DayofMonth,Reporting_Airline,Flight_Number_Reporting_Airline,\
                    Origin,Dest,CRSDepTime,DepDelay,ArrDelay,Distance,Cancelled,Diverted\n"
        .to_owned();
    for i in 0..n_flights {
        let name = |letter: char| format!("{letter}{}{}", number % 10, (b'A' + i as u8) as char);
        let (origin, dest) = (name('O'), name('D'));
        text += &format!("2019,{number},1,UA,{i},{origin},{dest},1200,0,0,100,0,0\n");
    }
    fs::write(&path, text).unwrap();
    path
}

/// An ingestion, and what it said.
async fn tell(lake: &Lake, files: &[PathBuf], run: &str, months: Months) -> Vec<String> {
    let said = Mutex::new(Vec::new());
    // whoever comes first, the other one's flights are there already
    let is_append = matches!(months, Months::Append);
    let options = IngestOptions { months, distinct: is_append, ..IngestOptions::default() };
    let on_progress = |progress| said.lock().push(format!("{progress:?}"));
    ingest(&session(2), lake, files, run, &options, &on_progress).await.unwrap();
    said.into_inner()
}

const PATIENCE: Duration = Duration::from_secs(60);
const REPLACE: Months = Months::Replace { shrinking: false };

/// A process of its own, which stands still unless it is driven.
fn process() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_arrives_at_once_is_there_as_if_one_came_after_the_other() {
    let files = tempfile::tempdir().unwrap();
    let (_directory, local) = local_lake();
    for lake in [local, memory_lake()] {
        let all: Vec<PathBuf> = (1..5).map(|number| month(files.path(), number, 7)).collect();
        let all: Vec<_> = all.into_iter().enumerate().collect();
        let runs = all.iter().map(async |(i, file)| {
            tell(&lake, std::slice::from_ref(file), &format!("run{i}"), REPLACE).await
        });
        let said = futures::future::join_all(runs).await.concat().join("\n");
        assert!(said.contains("waiting for job run"), "{said}");
        let numbers = numbers(&lake).await;
        assert!(
            numbers.contains("| 28        | 28    | 4        | 28          | 28 "),
            "{numbers}"
        );
        // and the same month of all
        let (one, two) = (month(files.path(), 7, 3), month(files.path(), 8, 4));
        let both = [one, two];
        let first = tell(&lake, &both, "all", Months::Append);
        let second = tell(&lake, &both[..1], "one", REPLACE);
        tokio::join!(first, second);
        let numbers = self::numbers(&lake).await;
        assert!(
            numbers.contains("| 35        | 35    | 6        | 35          | 35 "),
            "{numbers}"
        );
        assert_eq!(lake.list("staging/").await.unwrap(), Vec::<String>::new());
    }
}

/// A lease whose job has decided this swap, and stands still before it has carried it out.
async fn dead(lake: &Lake, job: &str, made: &Swap) {
    let held = format!(r#"{{"job":"{job}","by":"c/0","beat":7,"swaps":true,"ended":false}}"#);
    lake.put("leases/0000000001.json", held.into_bytes()).await.unwrap();
    let made = serde_json::to_vec(made).unwrap();
    lake.put("leases/0000000001.swap.json", made).await.unwrap();
}

/// Each of them waits until a job counts as gone, so they do it together.
#[test]
fn who_is_silent_for_too_long_counts_as_gone() {
    std::thread::scope(|scope| {
        scope.spawn(who_was_suspended_past_its_lease_changes_nothing);
        scope.spawn(a_swap_that_was_decided_is_carried_out_by_who_comes_next);
        scope.spawn(a_reader_that_was_suspended_learns_that_what_it_read_is_no_more);
        scope.spawn(what_was_decided_is_undone_when_a_staged_file_is_gone);
        scope.spawn(who_comes_while_files_are_put_in_place_waits_or_carries_it_out);
    });
}

fn who_was_suspended_past_its_lease_changes_nothing() {
    let (_directory, lake) = local_lake();
    let (sleeper, other) = (process(), process());
    let silent = |_| {};
    let lease = sleeper.block_on(async {
        lake.put("staging/late/0.parquet", b"late".to_vec()).await.unwrap();
        Lease::take(&lake, "late", &silent).await.unwrap()
    });
    let said = Mutex::new(Vec::new());
    other.block_on(async {
        let on_progress = |progress| said.lock().push(format!("{progress:?}"));
        let lease = Lease::take(&lake, "second", &on_progress).await.unwrap();
        lake.put("staging/second/0.parquet", b"second".to_vec()).await.unwrap();
        let moves = vec![("staging/second/0.parquet".into(), "flights/second.parquet".into())];
        lease.swap(&Swap { moves, deletes: vec![] }, &silent).await.unwrap();
    });
    let said = said.into_inner().join("\n");
    assert!(said.contains("waiting for job late, which changes the data root"), "{said}");
    assert!(said.contains("job late is silent; its lease is taken over"), "{said}");
    let late = sleeper.block_on(async {
        let moves = vec![("staging/late/0.parquet".into(), "flights/late.parquet".into())];
        let made = Swap { moves, deletes: vec!["flights/second.parquet".into()] };
        lease.swap(&made, &silent).await.unwrap_err().to_string()
    });
    assert!(late.contains("another one has taken over its lease; nothing was replaced"), "{late}");
    let there = other.block_on(lake.list("flights/")).unwrap();
    assert_eq!(there, ["flights/second.parquet"]);
}

fn a_swap_that_was_decided_is_carried_out_by_who_comes_next() {
    let (_directory, lake) = local_lake();
    process().block_on(async {
        for name in ["staging/dead/0.parquet", "flights/old.parquet", "flights/dead-1.parquet"] {
            lake.put(name, name.as_bytes().to_vec()).await.unwrap();
        }
        let moves = vec![
            // this one was moved before it died
            ("staging/dead/1.parquet".into(), "flights/dead-1.parquet".into()),
            ("staging/dead/0.parquet".into(), "flights/dead-0.parquet".into()),
        ];
        let made = Swap { moves, deletes: vec!["flights/old.parquet".into()] };
        // what it had not decided, and what another run of its name is staging
        for name in ["staging/dead/1/0.parquet", "staging/dead/2/0.parquet"] {
            lake.put(name, b"half".to_vec()).await.unwrap();
        }
        dead(&lake, "dead", &made).await;
        let lease = Lease::take(&lake, "next", &|_| {}).await.unwrap();
        assert_eq!(lake.list("staging/").await.unwrap(), ["staging/dead/2/0.parquet"]);
        let there = lake.list("flights/").await.unwrap();
        assert_eq!(there, ["flights/dead-0.parquet", "flights/dead-1.parquet"]);
        lease.end().await.unwrap();
    });
}

#[tokio::test]
async fn what_is_put_in_place_waits_for_who_reads() {
    let (_directory, lake) = local_lake();
    lake.put("flights/old.parquet", b"old".to_vec()).await.unwrap();
    lake.put("staging/w/0.parquet", b"new".to_vec()).await.unwrap();
    let reading = Reading::begin(&lake, "reader", &|_| {}).await.unwrap();
    let lease = Lease::take(&lake, "writer", &|_| {}).await.unwrap();
    let moves = vec![("staging/w/0.parquet".into(), "flights/new.parquet".into())];
    let made = Swap { moves, deletes: vec!["flights/old.parquet".into()] };
    let (told, mut waits) = tokio::sync::mpsc::unbounded_channel();
    let on_progress = move |progress| told.send(format!("{progress:?}")).unwrap();
    let swapping = lease.swap(&made, &on_progress);
    let ending = async {
        let said = tokio::time::timeout(PATIENCE, waits.recv()).await.unwrap().unwrap();
        assert!(said.contains("waiting for job reader, which reads the flights"), "{said}");
        // another one may come, as long as nothing is being put in place
        Reading::begin(&lake, "quick", &|_| {}).await.unwrap().end().await.unwrap();
        assert_eq!(lake.list("flights/").await.unwrap(), ["flights/old.parquet"]);
        reading.end().await.unwrap();
    };
    let (swapped, ()) = tokio::join!(swapping, ending);
    swapped.unwrap();
    assert_eq!(lake.list("flights/").await.unwrap(), ["flights/new.parquet"]);
    assert_eq!(lake.list("readers/").await.unwrap(), Vec::<String>::new());
}

fn a_reader_that_was_suspended_learns_that_what_it_read_is_no_more() {
    let (_directory, lake) = local_lake();
    let (sleeper, other) = (process(), process());
    let silent = |_| {};
    let reading = sleeper.block_on(async {
        lake.put("flights/old.parquet", b"old".to_vec()).await.unwrap();
        Reading::begin(&lake, "sleeper", &silent).await.unwrap()
    });
    other.block_on(async {
        let lease = Lease::take(&lake, "writer", &silent).await.unwrap();
        let deletes = vec!["flights/old.parquet".into()];
        lease.swap(&Swap { moves: vec![], deletes }, &silent).await.unwrap();
    });
    let error = sleeper.block_on(reading.end()).unwrap_err().to_string();
    assert!(error.contains("the flights were changed while this job read them"), "{error}");
}

fn who_comes_while_files_are_put_in_place_waits_or_carries_it_out() {
    let (_directory, lake) = local_lake();
    let said = Mutex::new(Vec::new());
    process().block_on(async {
        lake.put("flights/old.parquet", b"old".to_vec()).await.unwrap();
        let deletes = vec!["flights/old.parquet".to_owned()];
        dead(&lake, "writer", &Swap { moves: vec![], deletes }).await;
        let started = tokio::time::Instant::now();
        let on_progress = |progress| said.lock().push(format!("{progress:?}"));
        let reading = Reading::begin(&lake, "reader", &on_progress).await.unwrap();
        assert!(started.elapsed() > Duration::from_secs(30));
        assert_eq!(lake.list("flights/").await.unwrap(), Vec::<String>::new());
        reading.end().await.unwrap();
    });
    let said = said.into_inner().join("\n");
    assert!(said.contains("waiting for job writer, which changes the data root"), "{said}");
}

#[tokio::test]
async fn what_a_job_had_that_was_cancelled_is_given_back() {
    let (_directory, lake) = local_lake();
    drop(Reading::begin(&lake, "job", &|_| {}).await.unwrap());
    drop(Lease::take(&lake, "job", &|_| {}).await.unwrap());
    release(&lake, "job").await.unwrap();
    assert_eq!(lake.list("readers/").await.unwrap(), Vec::<String>::new());
    let waits = |progress| panic!("{progress:?}");
    Lease::take(&lake, "next", &waits).await.unwrap().end().await.unwrap();
}

fn what_was_decided_is_undone_when_a_staged_file_is_gone() {
    let (_directory, lake) = local_lake();
    process().block_on(async {
        for name in ["flights/old.parquet", "staging/dead/1/1.parquet"] {
            lake.put(name, b"x".to_vec()).await.unwrap();
        }
        let moves = ["1", "0"]
            .map(|i| (format!("staging/dead/1/{i}.parquet"), format!("flights/dead-{i}.parquet")));
        let made = Swap { moves: moves.into(), deletes: vec!["flights/old.parquet".into()] };
        dead(&lake, "dead", &made).await;
        // what it has staged stays, however old it is
        let ages = Ages { jobs: Some(Duration::ZERO), ..Ages::default() };
        let written = lake.objects("staging/").await.unwrap()[0].written;
        let later = written + chrono::TimeDelta::days(400);
        assert_eq!(find(&lake, &ages, &[], later).await.unwrap(), []);
        let said = Mutex::new(Vec::new());
        let on_progress = |progress| said.lock().push(format!("{progress:?}"));
        // who cannot write waits as well
        let read = read_unpinned(&lake, &on_progress, async { lake.list("flights/").await });
        assert_eq!(read.await.unwrap().unwrap().unwrap(), ["flights/old.parquet"]);
        assert!(said.lock().concat().contains("waiting for job dead"), "{:?}", said.lock());
        Lease::take(&lake, "next", &|_| {}).await.unwrap().end().await.unwrap();
        let left = find(&lake, &ages, &[], later).await.unwrap();
        assert_eq!(left, [], "it was moved, and undone");
    });
}

#[tokio::test]
async fn what_was_changed_while_somebody_read_who_cannot_write_is_noticed() {
    let (_directory, lake) = local_lake();
    lake.put("flights/old.parquet", b"old".to_vec()).await.unwrap();
    let work = async { lake.put("flights/new.parquet", b"new".to_vec()).await };
    assert!(read_unpinned(&lake, &|_| {}, work).await.unwrap().is_none());
    let n_reads = Mutex::new(0);
    let read = async || {
        *n_reads.lock() += 1;
        let n = *n_reads.lock();
        if n < 3 {
            lake.put(&format!("distances/{n}.parquet"), b"x".to_vec()).await?;
        }
        Ok(n)
    };
    assert_eq!(read_again(&lake, read).await.unwrap(), 3);
}

#[tokio::test]
async fn only_what_is_of_this_process_is_given_back() {
    let (_directory, lake) = local_lake();
    // the same job, run again elsewhere
    dead(&lake, "job", &Swap::default()).await;
    let pin = br#"{"job":"job","by":"d/0","beat":3,"swaps":false,"ended":false}"#.to_vec();
    lake.put("readers/job.json", pin).await.unwrap();
    release(&lake, "job").await.unwrap();
    assert_eq!(lake.list("readers/").await.unwrap().len(), 1);
    let held = lake.get("leases/0000000001.json", 1000).await.unwrap().unwrap();
    assert!(String::from_utf8(held).unwrap().contains(r#""ended":false"#));
}
