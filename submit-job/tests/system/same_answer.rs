//! Each batch job, in one process and on a scheduler with two executors: the same rows, the same
//! bytes.

use std::path::Path;

use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::common::ScalarValue;
use datafusion::prelude::SessionContext;
use jobs::lake::Lake;
use jobs::sql;
use serde_json::Value;
use udf::encode::encoder::Encoding;
use udf::functions::load::Load;
use udf::model::artefact::ForestParams;
use udf::train::histogram::TreeHistogram;
use udf::train::split::Growth;

use crate::setup::{Cluster, repository, run, start_s3, submit_job, trained};

const FLIGHTS: &str = "data/nycflights13/flights.parquet";

/// What is asked of both data roots; each answer has an order.
const QUESTIONS: &str = "
    SELECT carrier, COUNT(*) AS n, SUM(arr_delay_minutes) AS late, MIN(flight_id) AS first
    FROM flights GROUP BY carrier ORDER BY carrier;
    SELECT year, month, COUNT(*) AS n, COUNT(tail_number) AS tails
    FROM flights GROUP BY year, month ORDER BY year, month;
    SELECT * FROM distances ORDER BY origin, dest;
    SELECT * FROM training WHERE row_key % 5000 = 7 ORDER BY row_key;
    SELECT label, COUNT(DISTINCT features['route']) AS routes
    FROM training GROUP BY label ORDER BY label;
    SELECT row_key,
      predict_delay('champion', features) AS answer
    FROM training WHERE row_key % 5000 = 7 ORDER BY row_key;";

/// Joins of every kind between small and large relations, grouped and not: on a cluster a row must
/// not be lost or counted by two tasks.
fn joins() -> String {
    let large = "(SELECT flight_id, origin, dest, distance_miles AS miles FROM flights)";
    let small = "(SELECT origin, dest, distance_miles AS miles FROM distances WHERE dest < 'M')";
    let tiny = "(SELECT origin, dest, miles FROM (VALUES ('EWR', 'IAH', 1400.0), \
                ('XXX', 'YYY', 1.0), ('JFK', 'LAX', NULL)) AS pairs(origin, dest, miles))";
    let on = ["a.origin = b.origin AND a.dest = b.dest", "a.miles > b.miles * 3"];
    let mut statements = String::new();
    for kind in ["INNER", "LEFT", "RIGHT", "FULL", "LEFT SEMI", "LEFT ANTI"] {
        for (a, b) in [(large, small), (small, large), (small, tiny), (tiny, small), (tiny, tiny)] {
            // a condition that is no equality compares all pairs: not for the large relation
            let n_conditions = if a == large || b == large { 1 } else { 2 };
            for on in &on[..n_conditions] {
                let from = format!("FROM {a} AS a {kind} JOIN {b} AS b ON {on}");
                statements += &format!("SELECT COUNT(*) AS n {from};\n");
                statements += &format!(
                    "SELECT a.origin, COUNT(*) AS n, COUNT(a.miles) AS known {from} \
                     GROUP BY a.origin ORDER BY a.origin NULLS LAST;\n"
                );
            }
        }
    }
    for (a, b) in [(large, tiny), (tiny, large), (small, tiny)] {
        let keys = format!("SELECT dest FROM {b} AS b");
        statements += &format!("SELECT COUNT(*) AS n FROM {a} AS a CROSS JOIN {tiny} AS b;\n");
        statements += &format!("SELECT COUNT(*) AS n FROM {a} AS a WHERE dest IN ({keys});\n");
        statements += &format!("SELECT COUNT(*) AS n FROM {a} AS a WHERE dest NOT IN ({keys});\n");
    }
    statements
}

#[test]
fn joins_of_every_kind_give_the_same_rows_in_process_and_on_a_cluster() {
    let cluster = Cluster::start(2, &[]);
    // flights enough for several tasks, and so few that a plan has a single one
    for file in [FLIGHTS, "data/fixtures/bts_new.csv"] {
        let data = tempfile::tempdir().unwrap();
        run(submit_job(data.path()).args(["ingest", "--rejects-max", "0.5", file]));
        let ask = |job: std::process::Command| run({ job }.args(["sql", "-c", &joins()]));
        let (here, there) = (ask(submit_job(data.path())), ask(cluster.job(data.path())));
        for (n, (here, there)) in here.lines().zip(there.lines()).enumerate() {
            assert_eq!(here, there, "{file}: line {n} of the answers to\n{}", joins());
        }
        assert_eq!(here, there, "{file}");
    }
}

/// A statement that reads predictions back.
fn read_back(url: &str) -> String {
    format!(
        "CREATE EXTERNAL TABLE predictions STORED AS PARQUET LOCATION '{url}';
         SELECT COUNT(*) AS n, SUM(prediction) AS total FROM predictions;
         SELECT * FROM predictions WHERE flight_id % 5000 = 7 ORDER BY flight_id;"
    )
}

/// What a job wrote into its record.
fn result_of(data: &Path, environment: &[(&'static str, String)], command: &str) -> Value {
    let environment = || environment.iter().cloned();
    let listed = run(submit_job(data).arg("--list").envs(environment()));
    let line = listed.lines().find(|line| line.contains(&format!(" {command} "))).unwrap();
    let id = line.split_whitespace().next().unwrap();
    let record = run(submit_job(data).args(["--status", id]).envs(environment()));
    let record: Value = serde_json::from_str(&record).unwrap();
    assert_eq!(record["state"], "succeeded");
    record["result"].clone()
}

#[test]
fn every_batch_job_gives_the_same_in_process_and_on_a_cluster_over_s3() {
    let (_server, environment) = start_s3();
    let cluster = Cluster::start(2, &environment);
    let (local, remote) = (tempfile::tempdir().unwrap(), Path::new("s3://lake/same"));
    let (local, fixtures) = (local.path(), "data/fixtures/bts_new.csv");
    for job in [submit_job(local), cluster.job(remote)] {
        run({ job }.args(["ingest", "--rejects-max", "0.5", FLIGHTS, fixtures]));
    }
    let in_process = trained(&mut submit_job(local), &[]);
    let on_cluster = trained(&mut cluster.job(remote), &[]);
    assert_eq!(in_process["model"], on_cluster["model"], "the bytes of the model");
    assert_eq!(in_process["holdout_log_loss"], on_cluster["holdout_log_loss"]);
    // another one is compared with it
    let second = ["--preset", "original", "--trees", "2"];
    let in_process = trained(&mut submit_job(local), &second);
    let on_cluster = trained(&mut cluster.job(remote), &second);
    assert_eq!(in_process["decision"], on_cluster["decision"]);
    assert!(in_process["decision"].as_str().unwrap().contains("log loss"), "{in_process}");

    let ask = |job: std::process::Command, text: &str| run({ job }.args(["sql", "-c", text]));
    let (here, there) = (ask(submit_job(local), QUESTIONS), ask(cluster.job(remote), QUESTIONS));
    assert_eq!(here, there);
    assert!(here.lines().count() > 300, "{here}");

    let evaluated = |job: std::process::Command| run({ job }.arg("evaluate"));
    assert_eq!(evaluated(submit_job(local)), evaluated(cluster.job(remote)));

    run(submit_job(local).arg("score"));
    run(cluster.job(remote).arg("score"));
    let (here, there) = (result_of(local, &[], "score"), result_of(remote, &environment, "score"));
    assert_eq!(here["rows"], there["rows"]);
    let here = ask(submit_job(local), &read_back(here["predictions"].as_str().unwrap()));
    let there = ask(cluster.job(remote), &read_back(there["predictions"].as_str().unwrap()));
    assert_eq!(here, there);
    assert!(here.lines().count() > 50, "{here}");

    let batch = ["predict", FLIGHTS, "--day", "2013-12-31", "--only", "score"];
    run(submit_job(local).args(batch));
    run(cluster.job(remote).args(batch));
    let (here, there) =
        (result_of(local, &[], "predict"), result_of(remote, &environment, "predict"));
    assert_eq!([&here["predicted"], &here["cancelled"]], [328_521, 8_255]);
    assert_eq!(
        [&here["predicted"], &here["cancelled"]],
        [&there["predicted"], &there["cancelled"]]
    );
    let read_batch = |result: &Value| {
        format!(
            "CREATE EXTERNAL TABLE batch STORED AS PARQUET LOCATION '{}';
             SELECT uuid, line, prediction, probabilities, unseen, features FROM batch
             WHERE line % 5000 = 7 ORDER BY line;",
            result["predictions"].as_str().unwrap()
        )
    };
    let here = ask(submit_job(local), &read_batch(&here));
    assert_eq!(here, ask(cluster.job(remote), &read_batch(&there)));
    assert!(here.lines().count() > 50, "{here}");
    assert!(!cluster.logs().contains("the-secret"), "a secret is in a log");
}

#[test]
fn what_pages_need_is_published_from_a_cluster_too() {
    let cluster = Cluster::start(1, &[]);
    let data = tempfile::tempdir().unwrap();
    run(submit_job(data.path()).args(["ingest", FLIGHTS]));
    for job in [submit_job(data.path()), cluster.job(data.path())] {
        run({ job }.arg("publish"));
        let result = result_of(data.path(), &[], "publish");
        assert_eq!((&result["airlines"], &result["airports"]), (&16.into(), &107.into()));
    }
}

/// The stages that the scheduler makes of a step, without the names of files.
async fn staged_plan(
    ctx: &SessionContext,
    step: sql::Step,
    params: &[(&str, ScalarValue)],
) -> String {
    let plan = sql::plan(ctx, step, params).await.unwrap().explain(false, false).unwrap();
    let batches = plan.collect().await.unwrap();
    let text = pretty_format_batches(&batches).unwrap().to_string();
    let text = &text[text.find("| distributed_plan").unwrap()..];
    let lines = text.lines().filter_map(|line| {
        let line = line.trim_matches(['|', '+', '-']).trim_end();
        let line = line.strip_prefix(" distributed_plan | ").or(line.get(20..))?;
        let line = match line.split_once("file_groups={") {
            Some((before, rest)) => {
                let after = rest.split_once("]]}").map_or("", |(_, after)| after);
                format!("{before}file_groups=…{after}")
            }
            None => line.to_owned(),
        };
        Some(line.trim_end().to_owned() + "\n")
    });
    lines.collect()
}

/// Whether files of expected text are to be written instead of compared.
#[expect(clippy::disallowed_methods, reason = "the one switch of the tests, for people")]
fn is_update() -> bool {
    std::env::var_os("UPDATE").is_some()
}

#[tokio::test]
async fn partial_and_final_histograms_are_on_different_stages() {
    let cluster = Cluster::start(2, &[]);
    let data = tempfile::tempdir().unwrap();
    run(submit_job(data.path()).args(["ingest", FLIGHTS]));
    let ctx = cluster.session("plans", 2).await;
    let lake = Lake::open(data.path().to_str().unwrap(), &[]).unwrap();
    // the shape of the plan is that of any relation with these columns
    lake.register_flights(&ctx).await.unwrap();
    ctx.sql(&format!(
        "COPY (SELECT flight_id AS row_key, 16060 AS day, arrow_cast(1, 'UInt8') AS label,
           arrow_cast(arrow_cast('ab', 'Binary'), 'FixedSizeBinary(2)') AS indices
         FROM flights) TO '{}indices/' STORED AS PARQUET",
        lake.root()
    ))
    .await
    .unwrap()
    .collect()
    .await
    .unwrap();
    lake.register_table(&ctx, "indices", "indices/", &[]).await.unwrap();
    let indices = Encoding::Numeric(vec![0.5]);
    let params = ForestParams { n_trees: 1, features_per_node: 1, ..ForestParams::default() };
    let pass = Growth::new(&params, &[&indices]).next_pass(1 << 20).unwrap();
    ctx.register_udaf(TreeHistogram::new(Load::from(pass)).into_udaf());
    let by_day = [("by_day", ScalarValue::from(true))];
    let plan = staged_plan(&ctx, sql::HISTOGRAM, &by_day).await;
    let golden = repository().join("submit-job/tests/golden/stages_of_43_histogram.txt");
    if is_update() {
        std::fs::write(&golden, &plan).unwrap();
    }
    let expected = std::fs::read_to_string(&golden).unwrap();
    assert_eq!(plan, expected, "UPDATE=1 writes the golden file");
}
