//! Statements of every kind in process, on a cluster and in DuckDB: the same rows, or one sentence
//! that says why not.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use cluster::client::sentence;
use cluster::session;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::prelude::SessionContext;
use jobs::lake::Lake;
use serde::Deserialize;
use serde_json::json;

use crate::setup::{Cluster, repository, run, servers, submit_job};
use crate::statements::{is_ordered, statement};

const FLIGHTS: &str = "data/nycflights13/flights.parquet";
/// Statements that are made from the grammar.
const N_STATEMENTS: u64 = 300;
/// How long a statement may run before it counts as one that never ends.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longest sentence that refuses a statement.
const SENTENCE_MAX: usize = 400;

/// Statements that were answered wrongly once, in process or on a cluster.
const ONCE_WRONG: [&str; 21] = [
    "SELECT COUNT(*) FROM (SELECT DISTINCT origin o, dest d, distance_miles x FROM flights) a \
     WHERE EXISTS (SELECT 1 FROM flights f WHERE f.distance_miles > a.x + 4500)",
    "SELECT 'all', COUNT(*) FROM flights UNION ALL \
     SELECT carrier, COUNT(*) FROM flights GROUP BY carrier",
    "SELECT 'one' AS a UNION ALL SELECT origin FROM flights GROUP BY origin",
    "SELECT COUNT(*) FROM flights WHERE FALSE UNION ALL SELECT COUNT(*) FROM flights",
    // a limit handed down below what makes rows distinct
    "SELECT DISTINCT k FROM (SELECT * FROM (SELECT carrier AS k FROM flights ORDER BY k LIMIT 7) \
     UNION ALL SELECT * FROM (SELECT carrier FROM flights WHERE carrier > 'AA' ORDER BY carrier \
     LIMIT 9) UNION ALL SELECT * FROM (VALUES ('A'), ('B'), ('C'), ('D'), ('A'))) \
     ORDER BY k LIMIT 10",
    "WITH s(x) AS (VALUES (0), (1), (2) ORDER BY 1 LIMIT 3) \
     SELECT DISTINCT x FROM (SELECT * FROM s UNION ALL SELECT * FROM s UNION ALL SELECT * FROM s) \
     ORDER BY x LIMIT 3",
    "SELECT x FROM (SELECT month AS x, flight_id FROM flights ORDER BY month, flight_id LIMIT 60000) \
     WHERE x % 2 = 0 ORDER BY x LIMIT 3",
    // a value that is constant on one side of an outer join, and null where that side is missing
    "SELECT b.carrier, a.k FROM (SELECT 'EWR' AS k, 1 AS y) a FULL JOIN (SELECT carrier, \
     arr_delay_minutes AS y FROM flights WHERE month = 2) b ON a.y > b.y ORDER BY a.k NULLS FIRST, \
     b.carrier LIMIT 5",
    // a condition on no column, below a count that has a row without any input
    "SELECT n FROM (SELECT COUNT(*) AS n, CAST(NULL AS BIGINT) AS y FROM flights) WHERE y > 1",
    "SELECT n FROM (SELECT COUNT(*) AS n FROM flights) \
     WHERE (SELECT MAX(month) FROM flights) > 1000",
    // an order of the side of a join that is repeated for each row of the other
    "SELECT a.g, b.x FROM (SELECT origin AS k, carrier AS g FROM flights ORDER BY k, g, flight_id \
     LIMIT 50) a JOIN (SELECT origin AS k, month AS x FROM flights ORDER BY k, flight_id LIMIT 40) b \
     ON a.k = b.k ORDER BY a.k, a.g, b.x LIMIT 30",
    // constants in grouping sets
    "SELECT k, g, COUNT(*) AS n FROM (SELECT 'all' AS k, 1 AS g FROM flights) GROUP BY CUBE (k, g) \
     ORDER BY k NULLS FIRST, g NULLS FIRST LIMIT 2",
    // sides of a join that are swapped in a branch of a union
    "SELECT k, COUNT(*) AS n FROM (SELECT b.k FROM distances AS a CROSS JOIN (SELECT k, x FROM \
     (SELECT origin AS k, CAST(FLOOR(distance_miles) AS BIGINT) AS x, flight_id FROM flights \
     WHERE month = 6 ORDER BY x, k, flight_id LIMIT 140 OFFSET 3) AS l EXCEPT SELECT 'EWR', 7) \
     AS b UNION ALL SELECT 'XXX') AS u GROUP BY k",
    // an order that is handed down past a limit, and a limit that skips some rows
    "SELECT x FROM (SELECT month AS x, flight_id FROM flights ORDER BY flight_id LIMIT 50 OFFSET 6) \
     ORDER BY x LIMIT 9",
    "SELECT SUM(flight_id % 1000) AS x FROM (SELECT * FROM (SELECT month AS k, flight_id \
     FROM flights ORDER BY month LIMIT 400000) ORDER BY k, flight_id LIMIT 5)",
    "SELECT COUNT(*) AS n FROM (SELECT DISTINCT k, g FROM (SELECT origin AS k, dest AS g \
     FROM distances ORDER BY g, k LIMIT 60 OFFSET 7) AS l EXCEPT SELECT 'EWR', 'XXX') AS e",
    // a condition that one branch of a union, or one side of a join, can be asked on its own
    "SELECT COUNT(*) AS c, SUM(n % 1000) AS n FROM (SELECT COUNT(*) AS n, 7 AS y FROM flights \
     UNION ALL SELECT flight_id AS n, month AS y FROM flights) AS u WHERE y > 9",
    "SELECT COUNT(*) AS c FROM (SELECT COUNT(*) AS n, 7 AS y FROM flights) AS a \
     JOIN (SELECT month FROM flights WHERE month = 2) AS b ON a.y > 9 OR a.y IS NULL",
    // an order and equal columns below grouping sets
    "SELECT k, g, COUNT(*) AS n FROM (SELECT origin AS k, carrier AS g FROM flights \
     ORDER BY k, g LIMIT 400000) GROUP BY GROUPING SETS ((k, g), (k)) ORDER BY k, g LIMIT 30",
    "SELECT p, q, COUNT(*) AS n FROM (SELECT a.k AS p, b.k AS q FROM (SELECT origin AS k \
     FROM flights WHERE month = 1) AS a JOIN (SELECT DISTINCT origin AS k FROM distances) AS b \
     ON a.k = b.k) AS j GROUP BY CUBE (p, q) ORDER BY p NULLS FIRST, q NULLS FIRST",
    // an order of the side that a merge repeats
    "SELECT k, x FROM (SELECT a.k, b.x FROM (SELECT origin AS k FROM flights \
     ORDER BY k NULLS FIRST, flight_id LIMIT 50) AS a JOIN (SELECT origin AS k, \
     CAST(EXTRACT(DAY FROM flight_date) AS BIGINT) AS x, flight_id FROM flights \
     ORDER BY k NULLS FIRST, x, flight_id LIMIT 30000) AS b ON a.k = b.k \
     ORDER BY a.k NULLS FIRST, b.x LIMIT 40000) AS j ORDER BY k, x DESC LIMIT 2",
];

/// Rows, each value as text, sorted where the statement gives no order; or why there are none.
type Answer = Result<Vec<Vec<Option<String>>>, String>;

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum DuckAnswer {
    Rows(Vec<Vec<Option<String>>>),
    Error(String),
}

/// What DuckDB says to the statements, over the same files.
fn in_duckdb(root: &Path, statements: &[String]) -> Vec<Answer> {
    let script = repository().join("tests/servers/ask_duckdb.py");
    let mut python = Command::new("python3")
        .arg(script)
        .env("PYTHONPATH", servers().join("duckdb"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let asked = json!({ "root": root, "statements": statements }).to_string();
    python.stdin.take().unwrap().write_all(asked.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    let answers: Vec<DuckAnswer> = serde_json::from_slice(&output.stdout).unwrap();
    let answers = answers.into_iter().zip(statements).map(|(answer, statement)| match answer {
        DuckAnswer::Error(error) => Err(error),
        DuckAnswer::Rows(rows) => Ok(in_order(rows, statement)),
    });
    answers.collect()
}

/// Sorts the rows of a statement that does not order all its columns itself.
fn in_order(mut rows: Vec<Vec<Option<String>>>, statement: &str) -> Vec<Vec<Option<String>>> {
    if !is_ordered(statement) {
        rows.sort();
    }
    rows
}

async fn answer(ctx: &SessionContext, statement: &str) -> Answer {
    let collected = async { ctx.sql(statement).await?.collect().await };
    let collected = tokio::time::timeout(PATIENCE, collected).await;
    let batches = collected.map_err(|_| format!("no end within\n{PATIENCE:?}"))?;
    let mut rows = Vec::new();
    for batch in batches.map_err(|error| sentence(&error))? {
        let options = FormatOptions::default();
        let columns = batch.columns().iter();
        let columns: Vec<_> =
            columns.map(|c| (c, ArrayFormatter::try_new(c.as_ref(), &options).unwrap())).collect();
        rows.extend((0..batch.num_rows()).map(|row| {
            let text = |(array, text): &(&_, ArrayFormatter<'_>)| {
                let array: &datafusion::arrow::array::ArrayRef = array;
                array.is_valid(row).then(|| text.value(row).to_string())
            };
            columns.iter().map(text).collect::<Vec<_>>()
        }));
    }
    Ok(in_order(rows, statement))
}

/// Compares an answer with the right one: what is wrong with it, if anything.
fn fault(answer: &Answer, right: &[Vec<Option<String>>]) -> Option<String> {
    match answer {
        Ok(rows) if rows == right => None,
        Ok(rows) => {
            let lost = right.iter().find(|row| !rows.contains(row));
            let made = rows.iter().find(|row| !right.contains(row));
            let (n, n_right) = (rows.len(), right.len());
            Some(format!("{n} rows for {n_right}; without {lost:?}, with {made:?}"))
        }
        Err(error) if error.contains('\n') || error.len() > SENTENCE_MAX => {
            Some(format!("not refused in a sentence: {error}"))
        }
        Err(_) => None,
    }
}

/// Where the generated statements begin: another number makes others.
#[expect(clippy::disallowed_methods, reason = "a switch of the test, for people")]
fn seeds() -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first = number("TARMAC_FIRST_STATEMENT").unwrap_or(0);
    first..first + number("TARMAC_STATEMENTS").unwrap_or(N_STATEMENTS)
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_give_the_same_rows_in_process_on_a_cluster_and_in_duckdb() {
    let data = tempfile::tempdir().unwrap();
    run(submit_job(data.path()).args(["ingest", FLIGHTS]));
    let cluster = Cluster::start(2, &[]);
    let in_process = |n_partitions, settings: &[(String, String)]| {
        session::in_process(n_partitions, 512 << 20, &[], settings).unwrap()
    };
    let merging = [("datafusion.optimizer.prefer_hash_join".to_owned(), "false".to_owned())];
    let sessions = [
        ("in process", in_process(4, &[])),
        ("in one partition", in_process(1, &[])),
        ("by merging", in_process(4, &merging)),
        ("on the cluster", cluster.session("same", 4).await),
    ];
    let lake = Lake::open(data.path().to_str().unwrap(), &[]).unwrap();
    for (_, ctx) in &sessions {
        lake.register_flights(ctx).await.unwrap();
    }
    let written = ONCE_WRONG.map(str::to_owned).into_iter();
    let statements: Vec<_> = written.chain(seeds().map(statement)).collect();
    let right = in_duckdb(data.path(), &statements);
    let (mut faults, mut n_refused) = (Vec::new(), 0);
    for (n, (statement, right)) in statements.iter().zip(right).enumerate() {
        let right = right.unwrap_or_else(|error| panic!("DuckDB: {error}\n{statement}"));
        for (place, ctx) in &sessions {
            let answer = answer(ctx, statement).await;
            assert!(answer.is_ok() || n >= ONCE_WRONG.len(), "{place}: {answer:?}\n{statement}");
            n_refused += usize::from(answer.is_err());
            if let Some(fault) = fault(&answer, &right) {
                faults.push(format!("{n} {place}: {fault}\n{statement}\n"));
                eprintln!("{}", faults.last().unwrap());
            } else if let Err(error) = answer {
                eprintln!("{n} {place}: {error}\n{statement}\n");
            }
        }
    }
    let n = statements.len();
    eprintln!("{n_refused} of {n} statements are refused\n{}", cluster.logs());
    assert!(faults.is_empty(), "{} of {n} statements:\n{}", faults.len(), faults.join("\n"));
    assert!(n_refused * 50 <= n, "{n_refused} of {n} statements are refused");
}
