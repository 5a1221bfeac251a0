//! The data root on an object store: the same bytes, on a cluster too, and clear words when it
//! cannot be reached.

use std::path::Path;

use serde_json::Value;

use crate::setup::{Cluster, Process, World, request, run, start_s3, submit_job, trained};

#[test]
fn a_data_root_on_an_object_store_holds_the_same_model() {
    let (_server, environment) = start_s3();
    let directory = tempfile::tempdir().unwrap();
    let trained = |root: &Path, seed: &str| -> Value {
        let flags = ["train", "--json", "--trees", "5", "--force", "--seed", seed];
        let report = run(submit_job(root).args(flags).envs(environment.clone()));
        serde_json::from_str(report.lines().last().unwrap()).unwrap()
    };
    let remote = Path::new("s3://lake/some/prefix");
    for root in [remote, directory.path()] {
        let flights = "data/nycflights13/flights.parquet";
        run(submit_job(root).args(["ingest", flights]).envs(environment.clone()));
    }
    let first = trained(remote, "1");
    assert_eq!(first["model"], trained(directory.path(), "1")["model"]);
    // the champion is replaced, and read back by the next job
    let second = trained(remote, "2");
    assert_ne!(first["model"], second["model"]);
    let ask = "SELECT DISTINCT predict_delay('champion', features)['model_version'] AS version
               FROM features";
    let answer = run(submit_job(remote).args(["sql", "-c", ask]).envs(environment.clone()));
    assert!(answer.contains(second["model"].as_str().unwrap()), "{answer}");
    let wrong = submit_job(Path::new("s3://no-such-bucket/x"))
        .args(["train"])
        .envs(environment.clone())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&wrong.stderr);
    assert!(!wrong.status.success() && said.contains("no-such-bucket"), "{said}");
    assert!(!said.contains("the-secret"), "{said}");
}

#[tokio::test]
async fn a_model_trained_on_a_cluster_over_s3_answers_the_stream() {
    let world = World::start().await;
    let (_server, environment) = start_s3();
    let cluster = Cluster::start(2, &environment);
    let remote = Path::new("s3://lake/stream");
    run(cluster.job(remote).args(["ingest", "data/nycflights13/flights.parquet"]));
    let model = trained(&mut cluster.job(remote), &["--trees", "5"])["model"].clone();
    drop(cluster);

    let mut stream = submit_job(remote);
    stream
        .args(["stream", "--kafka", &world.brokers, "--mongo", &world.mongo_url])
        .args(["--trigger", "interval:300ms"])
        .envs(environment.clone());
    let stream = Process::start(&mut stream);
    world.send(request(1, "UA", "EWR", "IAH", 200.0).to_string().as_bytes()).await;
    let answer = world.answer(1).await;
    assert_eq!(answer.get_i32("Prediction").unwrap(), 3);
    assert_eq!(answer.get_str("ModelVersion").unwrap(), model.as_str().unwrap());
    stream.end_cleanly("the stream");
}
