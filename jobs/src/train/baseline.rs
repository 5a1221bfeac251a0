//! The baseline that a forest must beat: multinomial logistic regression (`linfa-logistic`) on a
//! sample of the same flights, numbers standardised and frequent categories as indicators.

use anyhow::{Context, Result};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::compute::{cast, concat_batches};
use datafusion::arrow::datatypes::{DataType, Float64Type, UInt8Type};
use datafusion::common::ScalarValue;
use datafusion::prelude::SessionContext;
use linfa::Dataset;
use linfa::traits::{Fit, Predict};
use linfa_logistic::MultiLogisticRegression;
use ndarray::{Array1, Array2};
use udf::encode::encoder::Encoding;
use udf::model::artefact::FeatureSpec;

use crate::models::evaluation::{Bin, Evaluation, N_BINS};
use crate::sql;

/// Rows of the sample, both sides of the hold-out together: they are kept in memory as 64-bit
/// numbers.
const ROWS: u64 = 30_000;
/// Rows of the sample that the regression learns from; more do not change its metrics.
const TRAINING_ROWS_MAX: usize = 3_000;
/// Categories of a feature that get an indicator, the most frequent ones.
const INDICATORS: usize = 16;
/// Steps of the optimiser at most.
const STEPS: u64 = 20;
/// Mean gradient of a row at which the optimiser has arrived.
const GRADIENT: f64 = 1e-3;
/// Weight of the squared coefficients.
const RIDGE: f64 = 1.0;

/// Trains and evaluates the baseline; `None` when a side of the sample is empty or of one class.
pub async fn evaluate(
    ctx: &SessionContext,
    specs: &[FeatureSpec],
    n_rows: u64,
) -> Result<Option<Evaluation>> {
    let share = (ROWS.saturating_mul(65_536) / n_rows.max(1)).clamp(1, 65_536);
    let share = ScalarValue::from(i64::try_from(share)?);
    let rows = sql::plan(ctx, sql::BASELINE_ROWS, &[("share", share)]).await?.collect().await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let rows = concat_batches(&first.schema(), &rows)?;
    let specs = specs.to_vec();
    // seconds of work, during which the job can be cancelled
    tokio::task::spawn_blocking(move || fit(&rows, &specs)).await?
}

/// Trains on the rows of `sql/51_baseline_rows.sql` that are not held out, evaluates on the others.
fn fit(rows: &RecordBatch, specs: &[FeatureSpec]) -> Result<Option<Evaluation>> {
    let labels = rows.column(0).as_primitive::<UInt8Type>().values().to_vec();
    let is_holdout = rows.column(1).as_boolean().clone();
    let features = rows.column(2).as_struct();
    let columns = specs.iter().map(|spec| {
        let column = features.column_by_name(&spec.name);
        Ok((column.context("the step has each feature")?, &spec.encoding))
    });
    let columns: Vec<(&ArrayRef, &Encoding)> = columns.collect::<Result<_>>()?;
    let side = |held_out: bool| -> Vec<usize> {
        (0..labels.len()).filter(|&row| is_holdout.value(row) == held_out).collect()
    };
    let (mut training, holdout) = (side(false), side(true));
    // rows come in the order of their hashes, so the first ones are a sample
    training.truncate(TRAINING_ROWS_MAX);
    let truth = |side: &[usize]| -> Vec<usize> {
        side.iter().map(|&row| usize::from(labels[row])).collect()
    };
    let classes = truth(&training);
    if holdout.is_empty() || classes.iter().all(|class| Some(class) == classes.first()) {
        return Ok(None);
    }
    let all = design_matrix(&columns, labels.len(), &training)?;
    let dataset = Dataset::new(all.select(ndarray::Axis(0), &training), Array1::from(classes));
    let regression = MultiLogisticRegression::default()
        .max_iterations(STEPS)
        .gradient_tolerance(GRADIENT * training.len() as f64)
        .alpha(RIDGE);
    let fitted = regression.fit(&dataset).context("logistic baseline")?;
    let unseen = all.select(ndarray::Axis(0), &holdout);
    let predicted = fitted.predict(&unseen);
    let probabilities = fitted.predict_probabilities(&unseen);
    let mut confusion = [[0; events::N_CLASSES]; events::N_CLASSES];
    let mut log_loss = 0.0;
    for (i, (&label, &class)) in truth(&holdout).iter().zip(&predicted).enumerate() {
        confusion[label][class] += 1;
        let known = fitted.classes().iter().position(|&c| c == label);
        log_loss -= known.map_or(0.0, |at| probabilities[(i, at)]).max(1e-15).ln();
    }
    Evaluation::new(confusion, log_loss, [Bin::default(); N_BINS]).map(Some)
}

/// A row a flight: each number standardised over the training rows (its mean where null), each
/// frequent category an indicator.
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
                    true => (column.value(row) - mean) / scale,
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
