//! A cluster whose programs show each other certificates: it works, and without one nobody is let
//! in.

use std::path::Path;
use std::process::Command;

use crate::setup::{Cluster, run, submit_job, trained, until};

const FIXTURE: &str = "data/fixtures/bts_new.csv";

/// Makes an authority and a certificate for this machine, as PEM files, with OpenSSL.
pub fn make_certificates(directory: &Path) {
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).current_dir(directory).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let with_key = |rest: &[&str]| openssl(&[&["req"], &key[..], rest].concat());
    with_key(&[
        "-x509",
        "-days",
        "2",
        "-subj",
        "/CN=test authority",
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
    ]);
    with_key(&["-subj", "/CN=tarmac", "-keyout", "key.pem", "-out", "request.pem"]);
    std::fs::write(directory.join("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost").unwrap();
    openssl(&[
        "x509",
        "-req",
        "-in",
        "request.pem",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-days",
        "2",
        "-extfile",
        "names",
        "-out",
        "cert.pem",
    ]);
}

#[test]
fn with_certificates_the_cluster_works_and_without_one_nobody_is_let_in() {
    let directory = tempfile::tempdir().unwrap();
    make_certificates(directory.path());
    let file = |name: &str| directory.path().join(name).display().to_string();
    let environment = [
        ("TARMAC_TLS_CA", file("ca.pem")),
        ("TARMAC_TLS_CERT", file("cert.pem")),
        ("TARMAC_TLS_KEY", file("key.pem")),
    ];
    let cluster = Cluster::start_with_tls(2, &environment);
    let data = tempfile::tempdir().unwrap();
    until("the cluster is ready", || {
        let mut job = cluster.job(data.path());
        let output = job.args(["sql", "-c", "SELECT 1"]).output().unwrap();
        output.status.success().then_some(())
    });
    run(cluster.job(data.path()).args(["ingest", "--rejects-max", "0.5", FIXTURE]));
    let on_cluster = trained(&mut cluster.job(data.path()), &["--trees", "3"]);
    let in_process = trained(&mut submit_job(data.path()), &["--trees", "3"]);
    assert_eq!(on_cluster["model"], in_process["model"]);

    // the same question, of somebody whose certificates are others
    let others = tempfile::tempdir().unwrap();
    make_certificates(others.path());
    let other = |name: &str| others.path().join(name).display().to_string();
    let ask = |removed: &[&str], set: &[(&str, String)]| {
        let mut stranger = cluster.job(data.path());
        stranger.args(["sql", "-c", "SELECT 1"]);
        for name in removed {
            stranger.env_remove(name);
        }
        let output = stranger.envs(set.iter().cloned()).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && output.stdout.is_empty(), "{told}");
        told
    };
    let names = environment.each_ref().map(|(name, _)| *name);
    let [ca, cert, key] = names;
    let told = ask(&[ca], &[]);
    assert!(told.contains("--tls-ca, --tls-cert and --tls-key go together"), "{told}");
    let told = ask(&names, &[]);
    assert!(told.contains("scheduler at http://127.0.0.1:") && told.contains("HTTP"), "{told}");
    // of another authority: the scheduler hangs up
    let told = ask(&[], &[(cert, other("cert.pem")), (key, other("key.pem"))]);
    let is_refused = told.contains("/api/executors): client error (");
    assert!(is_refused && told.contains("scheduler at https://127.0.0.1:"), "{told}");
    // and a scheduler of another authority is not told anything
    let told = ask(&[], &[(ca, other("ca.pem"))]);
    assert!(told.contains("invalid peer certificate"), "{told}");
}
