//! What a forest must beat, on the same held-out flights: a lookup on the departure delay alone,
//! and multinomial logistic regression (`linfa-logistic`) with numbers standardised and frequent
//! categories as indicators; and, on the same rows, what the forest loses without each feature.

use std::panic::resume_unwind;
use std::sync::Arc;

use anyhow::{Context, Result};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StructArray};
use datafusion::arrow::compute::{cast, concat_batches};
use datafusion::arrow::datatypes::{DataType, Float64Type, UInt8Type};
use datafusion::prelude::SessionContext;
use events::N_CLASSES;
use linfa::Dataset;
use linfa::traits::Fit;
use linfa_logistic::MultiLogisticRegression;
use ndarray::{Array1, Array2};
use udf::encode::encoder::Encoding;
use udf::model::artefact::{FeatureSpec, Model, Rows};
use udf::model::calibration::log_loss_billionths;
use udf::model::scorer::Scorer;
use udf::train::sampling::hash;

use crate::models::evaluation::{Evaluation, Tally};
use crate::sql;
use crate::train::training::share;

/// Flights that the baselines learn from, about: they are kept in memory as 64-bit numbers. More
/// of them lower the log loss by 0.001.
const TRAINING_ROWS: u64 = 30_000;
/// Held-out flights that they are evaluated on, about.
const HOLDOUT_ROWS: u64 = 100_000;
/// Held-out flights that features are permuted over.
const PERMUTED_ROWS: usize = 20_000;
/// Categories of a feature that get an indicator, the most frequent ones.
const INDICATORS: usize = 16;
/// Standard deviations that a number may be away from its mean. `linfa-logistic` 0.8 takes the
/// logarithms of all rows relative to the largest score of any of them and cuts them off at 1e-15:
/// one flight that is a day late would make most others worthless, and the optimiser stop.
const DEVIATIONS: f64 = 4.0;
/// Steps of the optimiser at most; more change nothing.
const STEPS: u64 = 60;
/// Gradient of the sum over all rows, for each of them, at which the optimiser has arrived.
const GRADIENT: f64 = 1e-4;
/// Weight of the squared coefficients.
const RIDGE: f64 = 1.0;
/// Flights of the base rates that are mixed into each entry of the lookup.
const PRIOR: f64 = 1.0;
/// The feature of the lookup.
const DELAY: &str = "dep_delay";

/// What was found on the sample.
#[derive(Debug, Clone, Default)]
pub struct Baselines {
    /// The lookup; `None` when the delay is not a feature.
    pub lookup: Option<Evaluation>,
    /// The regression; `None` when a side of the sample is empty or of one class.
    pub logistic: Option<Evaluation>,
    /// How much the forest's log loss rises when the values of a feature are dealt anew among the
    /// flights, for each of its features; empty when nothing is held out.
    pub permutation: Vec<f64>,
}

/// The sample.
struct Sample {
    labels: Vec<u8>,
    features: StructArray,
    /// Rows that the baselines learn from.
    training: Vec<usize>,
    holdout: Vec<usize>,
}

/// Trains and evaluates the baselines for a forest that was grown on some of `training`.
pub async fn evaluate(ctx: &SessionContext, forest: Arc<Scorer>, rows: Rows) -> Result<Baselines> {
    let shares = [
        ("training_share", share(TRAINING_ROWS, rows.training)?),
        ("holdout_share", share(HOLDOUT_ROWS, rows.holdout)?),
    ];
    let rows = sql::collect(ctx, sql::BASELINE_ROWS, &shares).await?;
    let Some(first) = rows.first() else { return Ok(Baselines::default()) };
    let rows = concat_batches(&first.schema(), &rows)?;
    // seconds of work, during which the job can be cancelled
    tokio::task::spawn_blocking(move || on_sample(&rows, &forest)).await?
}

fn on_sample(rows: &RecordBatch, forest: &Scorer) -> Result<Baselines> {
    let labels = rows.column(0).as_primitive::<UInt8Type>().values().to_vec();
    let is_holdout = rows.column(1).as_boolean();
    let side = |held_out: bool| -> Vec<usize> {
        (0..labels.len()).filter(|&row| is_holdout.value(row) == held_out).collect()
    };
    let (training, holdout) = (side(false), side(true));
    let features = rows.column(2).as_struct().clone();
    let sample = Sample { labels, features, training, holdout };
    let model = forest.model();
    if sample.holdout.is_empty() {
        return Ok(Baselines::default());
    }
    let indices = forest.encoder().encode(&sample.features)?;
    // both take a while on one core
    let (logistic, permutation) = std::thread::scope(|scope| {
        let permuting = scope.spawn(|| permutation(&sample, forest, &indices));
        let logistic = logistic(&sample, &model.features);
        (logistic, permuting.join().unwrap_or_else(|panic| resume_unwind(panic)))
    });
    let lookup = lookup(&sample, model, &indices);
    Ok(Baselines { lookup, logistic: logistic?, permutation })
}

impl Sample {
    fn evaluation(&self, of: impl Fn(usize) -> [f64; N_CLASSES]) -> Evaluation {
        let mut tally = Tally::default();
        for (i, &row) in self.holdout.iter().enumerate() {
            tally.add(usize::from(self.labels[row]), &of(i), 1);
        }
        tally.evaluation()
    }
}

/// The class shares of each bin of the delay.
fn lookup(sample: &Sample, model: &Model, indices: &[u16]) -> Option<Evaluation> {
    let at = model.features.iter().position(|spec| spec.name == DELAY)?;
    let bin = |row: usize| usize::from(indices[row * model.features.len() + at]);
    let mut counts = vec![[0.0; N_CLASSES]; model.features[at].encoding.n_indices()];
    let mut all = [0.0; N_CLASSES];
    for &row in &sample.training {
        let class = usize::from(sample.labels[row]);
        counts[bin(row)][class] += 1.0;
        all[class] += 1.0;
    }
    let share = |counts: &[f64; N_CLASSES], prior: &[f64; N_CLASSES]| -> [f64; N_CLASSES] {
        let n = counts.iter().sum::<f64>() + PRIOR;
        std::array::from_fn(|class| (counts[class] + PRIOR * prior[class]) / n)
    };
    let base_rates = share(&all, &[1.0 / N_CLASSES as f64; N_CLASSES]);
    Some(sample.evaluation(|i| share(&counts[bin(sample.holdout[i])], &base_rates)))
}

fn logistic(sample: &Sample, specs: &[FeatureSpec]) -> Result<Option<Evaluation>> {
    let classes: Vec<usize> =
        sample.training.iter().map(|&row| usize::from(sample.labels[row])).collect();
    if classes.iter().all(|class| Some(class) == classes.first()) {
        return Ok(None);
    }
    let columns = specs.iter().map(|spec| {
        let column = sample.features.column_by_name(&spec.name);
        Ok((column.context("the step has each feature")?, &spec.encoding))
    });
    let columns: Vec<(&ArrayRef, &Encoding)> = columns.collect::<Result<_>>()?;
    let all = design_matrix(&columns, sample.labels.len(), &sample.training)?;
    let of = |rows: &[usize]| all.select(ndarray::Axis(0), rows);
    let n_rows = classes.len() as f64;
    let dataset = Dataset::new(of(&sample.training), Array1::from(classes));
    let regression = MultiLogisticRegression::default()
        .max_iterations(STEPS)
        .gradient_tolerance(GRADIENT * n_rows)
        .alpha(RIDGE);
    let fitted = regression.fit(&dataset).context("logistic baseline")?;
    let answers = fitted.predict_probabilities(&of(&sample.holdout));
    Ok(Some(sample.evaluation(|i| {
        let mut probabilities = [0.0; N_CLASSES];
        for (&class, &p) in fitted.classes().iter().zip(answers.row(i)) {
            probabilities[class] = p;
        }
        probabilities
    })))
}

/// A row a flight: each number standardised over the training rows (its mean where null) and cut
/// off, each frequent category an indicator.
fn design_matrix(
    columns: &[(&ArrayRef, &Encoding)],
    n_rows: usize,
    training: &[usize],
) -> Result<Array2<f64>> {
    let mut matrix_columns: Vec<Vec<f64>> = Vec::new();
    for (column, encoding) in columns {
        match encoding {
            Encoding::Numeric(_) => {
                let column = cast(column, &DataType::Float64)?;
                let column = column.as_primitive::<Float64Type>();
                let known: Vec<f64> = training
                    .iter()
                    .filter(|&&row| column.is_valid(row))
                    .map(|&row| column.value(row))
                    .collect();
                let n_known = known.len().max(1) as f64;
                let mean = known.iter().sum::<f64>() / n_known;
                let variance = known.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n_known;
                let scale = if variance > 0.0 { variance.sqrt() } else { 1.0 };
                let standardised = (0..n_rows).map(|row| match column.is_valid(row) {
                    true => ((column.value(row) - mean) / scale).clamp(-DEVIATIONS, DEVIATIONS),
                    false => 0.0,
                });
                matrix_columns.push(standardised.collect());
            }
            Encoding::Categorical(categories) => {
                let column = cast(column, &DataType::Utf8)?;
                let column = column.as_string::<i32>();
                for category in categories.iter().take(INDICATORS) {
                    let is = |row| column.is_valid(row) && column.value(row) == category;
                    matrix_columns.push((0..n_rows).map(|row| f64::from(is(row))).collect());
                }
            }
        }
    }
    let shape = (n_rows, matrix_columns.len());
    Ok(Array2::from_shape_fn(shape, |(row, column)| matrix_columns[column][row]))
}

/// See [`Baselines::permutation`].
fn permutation(sample: &Sample, forest: &Scorer, all: &[u16]) -> Vec<f64> {
    let n_features = forest.model().features.len();
    let rows = &sample.holdout[..sample.holdout.len().min(PERMUTED_ROWS)];
    let of_rows: Vec<u16> =
        rows.iter().flat_map(|&row| &all[row * n_features..][..n_features]).copied().collect();
    let loss = |indices: &[u16]| -> f64 {
        let scores = forest.score_indices(indices);
        let losses = scores
            .probabilities
            .chunks_exact(N_CLASSES)
            .zip(rows)
            .map(|(p, &row)| log_loss_billionths(p[usize::from(sample.labels[row])]));
        losses.sum::<i64>() as f64 / 1e9 / rows.len() as f64
    };
    let as_they_are = loss(&of_rows);
    // an order of the rows that has nothing to do with them
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_unstable_by_key(|&row| hash(&[row as u64]));
    let without = |feature: usize| {
        let mut dealt = of_rows.clone();
        for (row, &other) in order.iter().enumerate() {
            dealt[row * n_features + feature] = of_rows[other * n_features + feature];
        }
        loss(&dealt) - as_they_are
    };
    (0..n_features).map(without).collect()
}
