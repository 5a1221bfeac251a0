//! The hot loops on one core, for the default forest and the original's: counting a row into a
//! tree's histogram, scoring a row, saying what moved it.
//! `cargo bench --profile dev --workspace --bench kernels`; prints nanoseconds a row.

use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::arrow::array::{
    Array, ArrayRef, Float64Array, Int32Array, Int64Array, StringViewArray, StructArray, UInt8Array,
};
use datafusion::arrow::datatypes::Field;
use udf::encode::encoder::{DistinctValues, Encoding, FeatureEncoder, index_array};
use udf::model::artefact::{FORMAT, FeatureSpec, ForestParams, Metrics, Model, Rows};
use udf::model::scorer::Scorer;
use udf::train::histogram::count_rows;
use udf::train::sampling::hash;
use udf::train::split::Growth;

const N_ROWS: usize = 200_000;
const BATCH_ROWS: usize = 8192;
const CARRIERS: u64 = 16;
const AIRPORTS: u64 = 105;

fn random(row: usize, what: u64) -> u64 {
    hash(&[row as u64, what])
}

/// A number below `n`; the small ones are frequent, as delays, carriers and airports are.
fn skewed(row: usize, what: u64, n: u64) -> u64 {
    let share = (random(row, what) >> 11) as f64 / (1_u64 << 53) as f64;
    (share.powi(3) * n as f64) as u64
}

/// The struct of features, with the cardinalities of New York in 2013. A route has one distance.
fn features() -> StructArray {
    let numbers = |number: &dyn Fn(usize) -> u64| -> ArrayRef {
        Arc::new((0..N_ROWS).map(|row| Some(number(row) as f64 - 20.0)).collect::<Float64Array>())
    };
    let days = |what: u64, n: u64| -> ArrayRef {
        let day = |row| (random(row, what) % n) as i32 + 1;
        Arc::new((0..N_ROWS).map(day).map(Some).collect::<Int32Array>())
    };
    let texts = |text: &dyn Fn(usize) -> String| -> ArrayRef {
        Arc::new((0..N_ROWS).map(|row| Some(text(row))).collect::<StringViewArray>())
    };
    let code = |row, what, n| format!("{:03}", skewed(row, what, n));
    let route = |row| (skewed(row, 6, 3), skewed(row, 7, AIRPORTS));
    let columns: [(&str, ArrayRef); 9] = [
        ("dep_delay", numbers(&|row| skewed(row, 0, 400))),
        ("distance", numbers(&|row| hash(&[route(row).0, route(row).1]) % 2500)),
        ("day_of_month", days(2, 31)),
        ("day_of_week", days(3, 7)),
        ("day_of_year", days(4, 365)),
        ("carrier", texts(&|row| code(row, 5, CARRIERS))),
        ("origin", texts(&|row| code(row, 6, 3))),
        ("dest", texts(&|row| code(row, 7, AIRPORTS))),
        ("route", texts(&|row| format!("{:03}-{:03}", route(row).0, route(row).1))),
    ];
    let field = |(name, column): (&str, ArrayRef)| {
        (Arc::new(Field::new(name, column.data_type().clone(), true)), column)
    };
    StructArray::from(columns.map(field).to_vec())
}

fn specs() -> Vec<FeatureSpec> {
    let bins = |n: u32| {
        let values = (0..n).map(|v| (f64::from(v) - 20.0, 1)).collect();
        Encoding::from_values(DistinctValues::Numeric(values), 256)
    };
    let categories = |values: Vec<String>| Encoding::Categorical(values);
    let threes = |n: u64| (0..n).map(|i| format!("{i:03}")).collect::<Vec<_>>();
    let routes = threes(3)
        .into_iter()
        .flat_map(|o| threes(AIRPORTS).into_iter().map(move |d| format!("{o}-{d}")));
    [
        ("dep_delay", bins(400)),
        ("distance", bins(2500)),
        ("day_of_month", bins(52)),
        ("day_of_week", bins(28)),
        ("day_of_year", bins(386)),
        ("carrier", categories(threes(CARRIERS))),
        ("origin", categories(threes(3))),
        ("dest", categories(threes(AIRPORTS))),
        ("route", categories(routes.collect())),
    ]
    .map(|(name, encoding)| FeatureSpec { name: name.into(), encoding })
    .to_vec()
}

fn main() {
    let (features, specs) = (features(), specs());
    let model = |trees| Model {
        format: FORMAT,
        classes: vec![String::new(); 4],
        params: ForestParams::default(),
        sql_sha256: String::new(),
        rows: Rows::default(),
        data: String::new(),
        days: None,
        holdout: Metrics::default(),
        reference: None,
        importances: vec![0.0; 9],
        features: specs.clone(),
        temperature: 0.8,
        trees,
    };
    let encoder = FeatureEncoder::new(specs.iter().map(|s| (s.name.as_str(), &s.encoding)));
    let indices = encoder.encode(&features).expect("fields fit the features");
    let labels = (0..N_ROWS).map(|row| {
        let noise = random(row, 99) % 300;
        ((u64::from(indices[row * 9]) + noise) / 139) as u8
    });
    let rows: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values((0..N_ROWS).map(|r| random(r, 98) as i64))),
        Arc::new(UInt8Array::from_iter_values(labels)),
        Arc::new(index_array(indices, 9).expect("nine indices a row")),
    ];
    let started = Instant::now();
    for first in (0..N_ROWS).step_by(BATCH_ROWS) {
        let n_rows = BATCH_ROWS.min(N_ROWS - first);
        encoder.encode(&features.slice(first, n_rows)).expect("fields fit the model");
    }
    report("indices", started.elapsed(), N_ROWS);
    for (preset, params) in [("_default", ForestParams::default()), ("", ForestParams::original())]
    {
        let encodings: Vec<&Encoding> = specs.iter().map(|spec| &spec.encoding).collect();
        let mut growth = Growth::new(&params, &encodings);
        let (mut counting, mut n_levels) = (Duration::ZERO, 0);
        while let Some(pass) = growth.next_pass(usize::MAX) {
            let mut counters = Vec::new();
            let once = || {
                let started = Instant::now();
                counters = count_rows(&pass, &rows).expect("rows fit the pass");
                started.elapsed()
            };
            counting += std::iter::repeat_with(once).take(5).min().unwrap_or_default();
            growth.split(&pass, &[counters]).expect("counters of the pass");
            n_levels += 1;
        }
        report(&format!("tree_histogram{preset}"), counting, N_ROWS * params.n_trees * n_levels);

        let trees = growth.into_trees();
        let n_leaves = trees.iter().flat_map(|tree| &tree.nodes).filter(|n| n.split.is_none());
        let size = format!(", {} trees of {} leaves", trees.len(), n_leaves.count() / trees.len());
        let scorer = Scorer::new(model(trees), "bench");
        // the first time is for the caches
        for _ in 0..2 {
            let started = Instant::now();
            for first in (0..N_ROWS).step_by(BATCH_ROWS) {
                let n_rows = BATCH_ROWS.min(N_ROWS - first);
                scorer.score(&features.slice(first, n_rows)).expect("fields fit the model");
            }
            report_with(&format!("predict_delay{preset}"), started.elapsed(), N_ROWS, &size);
        }
        let some = scorer.encoder().encode(&features.slice(0, BATCH_ROWS)).expect("fields fit");
        let started = Instant::now();
        std::hint::black_box(scorer.contributions(&some));
        report(&format!("contributions{preset}"), started.elapsed(), BATCH_ROWS);
    }
}

fn report(what: &str, took: Duration, n_rows: usize) {
    report_with(what, took, n_rows, "");
}

#[expect(clippy::print_stdout, reason = "a benchmark prints")]
fn report_with(what: &str, took: Duration, n_rows: usize, more: &str) {
    println!("{what} ns_per_row {:.2}{more}", took.as_nanos() as f64 / n_rows as f64);
}
