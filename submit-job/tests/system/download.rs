//! From a web server to flights: `download` and `ingest --new`, on disk and on an object store.

use std::io::{Cursor, Write};
use std::path::Path as FilePath;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::setup::{repository, start_s3, submit_job};

/// March 2019 as the server has it.
type Shared = Arc<Mutex<Vec<u8>>>;

async fn month(State(march): State<Shared>, Path(file): Path<String>) -> (StatusCode, Vec<u8>) {
    match file.as_str() {
        "On_Time_Reporting_Carrier_On_Time_Performance_1987_present_2019_3.zip" => {
            (StatusCode::OK, march.lock().unwrap().clone())
        }
        _ => (StatusCode::NOT_FOUND, Vec::new()),
    }
}

/// The rows of the fixture, the first `n` of them, in a zip archive.
fn march(n: usize) -> Vec<u8> {
    let table = std::fs::read_to_string(repository().join("data/fixtures/bts_new.csv")).unwrap();
    let of_march = table.lines().filter(|line| !line.contains("2019-04"));
    let lines: Vec<&str> = of_march.take(n + 1).collect();
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    archive.start_file("On_Time.csv", zip::write::SimpleFileOptions::default()).unwrap();
    archive.write_all(lines.join("\n").as_bytes()).unwrap();
    archive.finish().unwrap().into_inner()
}

#[tokio::test]
async fn what_is_downloaded_is_ingested_once() {
    let shelf = Shared::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/PREZIP", listener.local_addr().unwrap());
    let router = Router::new().route("/PREZIP/{file}", get(month));
    tokio::spawn(axum::serve(listener, router.with_state(Arc::clone(&shelf))).into_future());

    let directory = tempfile::tempdir().unwrap();
    let work = directory.path().join("work");
    let (_server, environment) = start_s3();
    for root in [directory.path(), FilePath::new("s3://lake/flights")] {
        let submit = async |arguments: &[&str]| {
            let mut job = tokio::process::Command::from(submit_job(root));
            job.envs(environment.clone()).env("TARMAC_BTS", &address).env("TARMAC_WORK", &work);
            let output = job.args(arguments).output().await.unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            (output.status.code().unwrap(), said + &String::from_utf8(output.stdout).unwrap())
        };
        *shelf.lock().unwrap() = march(2);
        let (code, said) = submit(&["download"]).await;
        assert!(code == 1 && said.contains("--from names the first month"), "{said}");
        let (code, said) = submit(&["download", "--from", "2019-3", "--to", "2019-13"]).await;
        assert!(code == 2 && said.contains("not a month as 2015-01"), "{said}");
        let (code, said) = submit(&["ingest", "--new"]).await;
        assert!(code == 0 && said.contains("nothing new was downloaded"), "{said}");

        let march_only = ["download", "--from", "2019-03", "--to", "2019-03"];
        let (code, said) = submit(&march_only).await;
        assert!(code == 0 && said.contains("downloaded 1 of 1 months"), "{said}");
        let (code, said) = submit(&march_only).await;
        assert!(
            code == 0 && said.contains("downloaded 0 of 1 months, 0.0 MB; 1 were there"),
            "{said}"
        );
        let (code, said) = submit(&["ingest", "--new"]).await;
        assert!(code == 0 && said.contains("ingested 2 flights of 1 month"), "{said}");
        let (code, said) = submit(&["ingest", "--new"]).await;
        assert!(code == 0 && said.contains("nothing new was downloaded"), "{said}");

        // it was corrected
        *shelf.lock().unwrap() = march(3);
        let (code, said) = submit(&[&march_only[..], &["--again"]].concat()).await;
        assert!(code == 0 && said.contains("downloaded 1 of 1 months"), "{said}");
        let (code, said) = submit(&["ingest", "--new"]).await;
        assert!(code == 0 && said.contains("ingested 3 flights of 1 month"), "{said}");

        // a month that is long over must be there
        let (code, said) = submit(&["download", "--from", "2019-03", "--to", "2019-04"]).await;
        assert!(code == 1 && said.contains("_2019_4.zip: there is no such file"), "{said}");
    }
}
