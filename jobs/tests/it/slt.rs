//! Runs `sql/tests/*.slt`: each step over rows that are written out in its file.
//!
//! Beside SQL these files may say `CREATE VIEW name AS :step parameter=value …`, which makes the
//! step `sql/<step>.sql` the relation `name`; they know a tiny model, `tiny`, and `unpacked`, which
//! shows packed counters.

use std::path::PathBuf;
use std::sync::Arc;

use datafusion::arrow::array::{AsArray, StringArray};
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use datafusion::prelude::SessionContext;
use jobs::sql::{STEPS, Step};
use sqllogictest::{
    DB, DBOutput, DefaultColumnType, Runner, default_normalizer, default_validator,
    strict_column_validator,
};
use udf::encode::encoder::Encoding;
use udf::functions::indices::FeatureIndices;
use udf::functions::load::Load;
use udf::functions::model::Models;
use udf::model::artefact::{
    FORMAT, FeatureSpec, ForestParams, LeftIndices, Metrics, Model, Node, Rows, Split, Tree,
};
use udf::model::scorer::Scorer;
use udf::train::counters::Packed;
use udf::train::histogram::{self, TreeHistogram};
use udf::train::pass::{OpenNode, Pass};

use crate::setup::{is_update, repository, session};

/// Where the steps are, each with the directory of their tests.
const DIRECTORIES: [(&str, &str); 2] = [("sql", "sql/tests"), ("sql/pages", "sql/tests/pages")];

#[tokio::test(flavor = "multi_thread")]
async fn every_step_does_what_its_file_of_tests_says() {
    let mut failures = Vec::new();
    for file in DIRECTORIES.iter().flat_map(|(_, tests)| files(tests, "slt")) {
        if is_update() {
            let (validator, normalizer) = (default_validator, default_normalizer);
            Runner::new(|| async { Ok(Engine::new()) })
                .update_test_file(&file, " ", validator, normalizer, strict_column_validator)
                .await
                .unwrap();
        }
        let mut runner = Runner::new(|| async { Ok(Engine::new()) });
        runner.with_column_validator(strict_column_validator);
        if let Err(error) = runner.run_file_async(&file).await {
            failures.push(error.to_string());
        }
    }
    assert!(failures.is_empty(), "UPDATE=1 writes what is now\n{}", failures.join("\n"));
}

#[test]
fn every_step_has_a_header_and_tests_and_is_used() {
    let steps = DIRECTORIES.iter().flat_map(|(steps, tests)| {
        files(steps, "sql").into_iter().map(move |file| (steps, tests, file))
    });
    for (directory, tests, file) in steps {
        let name = file.file_name().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        let header: Vec<&str> = text.lines().take(3).collect();
        for (line, want) in header.iter().zip(["-- reads: ", "-- makes: ", "-- grain: "]) {
            assert!(line.starts_with(want), "{name}: {line:?} should start with {want:?}");
        }
        let tests = repository().join(tests).join(name).with_extension("slt");
        assert!(tests.is_file(), "{name} has no {}", tests.display());
        let is_used = STEPS.iter().any(|step| step.file == format!("{directory}/{name}"));
        assert!(is_used, "{name} is not among the steps of jobs/src/sql.rs");
    }
    for (steps, tests) in DIRECTORIES {
        assert_eq!(files(steps, "sql").len(), files(tests, "slt").len(), "{steps}");
    }
}

fn files(directory: &str, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(repository().join(directory)).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == extension));
    files.sort();
    assert!(!files.is_empty(), "{directory} holds no .{extension}");
    files
}

/// The engine as `sqllogictest` sees it.
struct Engine {
    ctx: SessionContext,
}

/// Counters as people read them: the sums of all partitions.
fn unpacked(arguments: &[ColumnarValue]) -> datafusion::error::Result<ColumnarValue> {
    let all = ColumnarValue::values_to_arrays(arguments)?;
    let of_row = |row| {
        let parts = histogram::packed_parts(all[0].as_list(), row);
        let mut parts: Vec<Packed<'_>> = parts.iter().map(|part| Packed::new(part)).collect();
        let mut sums = Vec::new();
        while parts[0].clone().end().is_err() {
            let mut sum = [0];
            parts.iter_mut().for_each(|part| part.add_to(&mut sum).unwrap());
            sums.extend(sum);
        }
        format!("{sums:?}")
    };
    let texts: StringArray = (0..all[0].len()).map(of_row).map(Some).collect();
    Ok(ColumnarValue::Array(Arc::new(texts)))
}

/// Any error, as a text.
#[derive(Debug)]
struct Failed(String);

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

impl DB for Engine {
    type Error = Failed;
    type ColumnType = DefaultColumnType;

    fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failed> {
        let handle = tokio::runtime::Handle::current();
        let running = tokio::task::block_in_place(|| handle.block_on(self.execute(sql)));
        running.map_err(|error| Failed(format!("{error:#}")))
    }
}

impl Engine {
    fn new() -> Self {
        let ctx = session(2);
        let (model, pass) = (tiny_model(), root_pass());
        ctx.register_udf(FeatureIndices::new(Load::from(model.features.clone())).into());
        ctx.register_udaf(TreeHistogram::new(Load::from(pass)).into_udaf());
        ctx.register_udf(create_udf(
            "unpacked",
            vec![histogram::parts_type()],
            DataType::Utf8,
            Volatility::Immutable,
            Arc::new(unpacked),
        ));
        let scorer = Arc::new(Scorer::new(model, "version-of-tiny"));
        jobs::models::registry::register(&ctx, Models::from([("tiny".to_owned(), scorer)]));
        Self { ctx }
    }

    async fn execute(&self, sql: &str) -> anyhow::Result<DBOutput<DefaultColumnType>> {
        if let Some((create, step)) = sql.split_once(" AS :") {
            let name = create.strip_prefix("CREATE VIEW ").unwrap();
            let (step, params) = step_of(step);
            jobs::sql::view(&self.ctx, name, step, &params).await?;
            return Ok(DBOutput::StatementComplete(0));
        }
        let frame = self.ctx.sql(sql).await?;
        let types = frame.schema().fields().iter().map(|f| column_type(f.data_type())).collect();
        let batches = frame.collect().await?;
        if !sql.starts_with("SELECT") {
            return Ok(DBOutput::StatementComplete(0));
        }
        let mut rows = Vec::new();
        let options = FormatOptions::default().with_null("NULL");
        for batch in &batches {
            let columns: Vec<ArrayFormatter> = batch
                .columns()
                .iter()
                .map(|column| ArrayFormatter::try_new(column, &options))
                .collect::<Result<_, _>>()?;
            for row in 0..batch.num_rows() {
                rows.push(columns.iter().map(|column| column.value(row).to_string()).collect());
            }
        }
        Ok(DBOutput::Rows { types, rows })
    }
}

/// `40_training holdout=16384` as the step and its parameters.
fn step_of(text: &str) -> (Step, Vec<(&str, ScalarValue)>) {
    let mut words = text.split_whitespace();
    let file = format!("sql/{}.sql", words.next().unwrap());
    let step = STEPS.iter().find(|step| step.file == file);
    let params = words.map(|word| {
        let (name, value) = word.split_once('=').unwrap();
        let truth = value.parse::<bool>().map(ScalarValue::from);
        let number = value.parse::<i64>().map(ScalarValue::from);
        let number = number.or_else(|_| value.parse::<f64>().map(ScalarValue::from));
        (name, truth.or(number).unwrap_or_else(|_| ScalarValue::from(value)))
    });
    (*step.unwrap_or_else(|| panic!("there is no {file}")), params.collect())
}

fn column_type(of: &DataType) -> DefaultColumnType {
    match of {
        _ if of.is_integer() => DefaultColumnType::Integer,
        _ if of.is_floating() => DefaultColumnType::FloatingPoint,
        _ => DefaultColumnType::Text,
    }
}

/// Two features and two trees, with shares that are exact in binary:
///
/// ```text
/// tree 0: dep_delay ≤ 0 or null → 6 2 0 0 | dep_delay ≤ 30 → 0 2 5 1 | else → 0 0 1 7
/// tree 1: origin is ATL → 1 1 1 1 | else → 1 1 1 5
/// ```
fn tiny_model() -> Model {
    let feature = |name: &str, encoding| FeatureSpec { name: name.to_owned(), encoding };
    let leaf = |counts| Node { counts, split: None };
    let node = |counts, feature, left_indices, missing_left, left| {
        let split = Some(Split { feature, left_indices, missing_left, left });
        Node { counts, split }
    };
    let by_delay = vec![
        node([6, 4, 6, 8], 0, LeftIndices::UpTo(1), true, 1),
        leaf([6, 2, 0, 0]),
        node([0, 2, 6, 8], 0, LeftIndices::UpTo(2), false, 3),
        leaf([0, 2, 5, 1]),
        leaf([0, 0, 1, 7]),
    ];
    let by_origin = vec![
        node([2, 2, 2, 6], 1, LeftIndices::Among(vec![1]), false, 1),
        leaf([1, 1, 1, 1]),
        leaf([1, 1, 1, 5]),
    ];
    Model {
        format: FORMAT,
        classes: events::DelayClass::ALL.map(events::DelayClass::title).to_vec(),
        params: ForestParams::default(),
        sql_sha256: String::new(),
        rows: Rows::default(),
        data: String::new(),
        days: None,
        holdout: Metrics::default(),
        features: vec![
            feature("dep_delay", Encoding::Numeric(vec![0.0, 30.0])),
            feature("origin", Encoding::Categorical(vec!["ATL".into(), "JFK".into()])),
        ],
        reference: None,
        importances: vec![0.5, 0.5],
        temperature: 1.0,
        trees: vec![Tree { nodes: by_delay }, Tree { nodes: by_origin }],
    }
}

/// Counts the root of one tree, both features of the tiny model.
fn root_pass() -> Pass {
    let root = Node { counts: [0; udf::N_CLASSES], split: None };
    Pass {
        seed: 1,
        n_indices: tiny_model().features.iter().map(|spec| spec.encoding.n_indices()).collect(),
        trees: vec![Tree { nodes: vec![root] }],
        open: vec![OpenNode { tree: 0, node: 0, features: vec![0, 1] }],
    }
}
