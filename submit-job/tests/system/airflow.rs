//! The schedules for Airflow: that they import, and how their tasks follow their jobs.

use std::process::Command;

use crate::setup::{repository, run, servers};

#[test]
fn the_schedules_import_and_their_tasks_follow_their_jobs() {
    let tests = repository().join("jobs/airflow/test_dags.py");
    run(Command::new("python3").arg(tests).env("PYTHONPATH", servers().join("airflow")));
}
