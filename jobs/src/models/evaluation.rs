//! How well a model does: the rows of `sql/50_evaluation.sql` as measures.
//!
//! Counts are exact; accuracy, precision, recall and F1 come from `linfa`'s confusion matrix.

use anyhow::{Context, Result};
use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::{Int32Type, Int64Type};
use events::N_CLASSES;
use linfa::metrics::{ConfusionMatrix, ToConfusionMatrix};
use ndarray::Array1;
use udf::model::artefact::Metrics;

/// Calibration bins: tenths of the predicted class's probability.
pub const N_BINS: usize = 10;

/// A model evaluated on held-out flights.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Flights by true class, then predicted class.
    pub confusion: [[u64; N_CLASSES]; N_CLASSES],
    /// The measures.
    pub metrics: Metrics,
    /// Metrics per class.
    pub classes: [ClassMetrics; N_CLASSES],
    /// Confidence against truth, by calibration bin.
    pub calibration: [Bin; N_BINS],
}

/// Measures of one class. NaN where nothing was predicted as, or is of, the class.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ClassMetrics {
    /// Flights of the class.
    pub n_rows: u64,
    /// Share of the predictions of this class that are right.
    pub precision: f64,
    /// Share of the flights of this class that are predicted as such.
    pub recall: f64,
    /// Harmonic mean of the two.
    pub f1: f64,
}

/// Flights whose predicted class had a probability in one bin.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Bin {
    /// Flights.
    pub n_rows: u64,
    /// Of these, predicted right.
    pub n_right: u64,
    /// Sum of the predicted class's probabilities, in billionths.
    pub confidence_billionths: u64,
}

impl Evaluation {
    /// Number of flights.
    pub fn n_rows(&self) -> u64 {
        self.confusion.iter().flatten().sum()
    }

    /// Flights by predicted class.
    pub fn predicted(&self) -> [u64; N_CLASSES] {
        std::array::from_fn(|class| self.confusion.iter().map(|row| row[class]).sum())
    }

    /// Share of each class among the flights.
    pub fn class_shares(&self) -> [f64; N_CLASSES] {
        let n_rows = self.n_rows().max(1) as f64;
        self.confusion.map(|row| row.iter().sum::<u64>() as f64 / n_rows)
    }

    /// From the rows of `sql/50_evaluation.sql`.
    pub fn from_batches(batches: &[RecordBatch]) -> Result<Self> {
        let mut confusion = [[0; N_CLASSES]; N_CLASSES];
        let mut calibration = [Bin::default(); N_BINS];
        let mut log_loss_billionths = 0;
        for batch in batches {
            let small = |i: usize| batch.column(i).as_primitive::<Int32Type>();
            let large = |i: usize| batch.column(i).as_primitive::<Int64Type>();
            for row in 0..batch.num_rows() {
                let index = |i: usize| small(i).value(row).unsigned_abs() as usize;
                let number = |i: usize| large(i).value(row).unsigned_abs();
                let (label, predicted) = (index(0), index(1));
                confusion[label][predicted] += number(3);
                let bin = &mut calibration[index(2)];
                bin.n_rows += number(3);
                bin.n_right += if label == predicted { number(3) } else { 0 };
                bin.confidence_billionths += number(4);
                log_loss_billionths += number(5);
            }
        }
        Self::new(confusion, log_loss_billionths as f64 / 1e9, calibration)
    }

    /// From counts and the sum of log losses.
    pub fn new(
        confusion: [[u64; N_CLASSES]; N_CLASSES],
        log_loss_sum: f64,
        calibration: [Bin; N_BINS],
    ) -> Result<Self> {
        let n_rows: u64 = confusion.iter().flatten().sum();
        let mut evaluation = Self {
            confusion,
            metrics: Metrics::default(),
            classes: [ClassMetrics::default(); N_CLASSES],
            calibration,
        };
        if n_rows == 0 {
            return Ok(evaluation);
        }
        let matrix = confusion_matrix(&confusion)?;
        let metrics = &mut evaluation.metrics;
        metrics.accuracy = f64::from(matrix.accuracy());
        metrics.log_loss = log_loss_sum / n_rows as f64;
        for (class, one) in classes_of(&confusion).into_iter().zip(matrix.split_one_vs_all()) {
            let n_of_class: u64 = confusion[class].iter().sum();
            let own = ClassMetrics {
                n_rows: n_of_class,
                precision: f64::from(one.precision()),
                recall: f64::from(one.recall()),
                f1: f64::from(one.f1_score()),
            };
            let weight = n_of_class as f64 / n_rows as f64;
            let weighted = |measure: f64| if measure.is_nan() { 0.0 } else { weight * measure };
            metrics.precision += weighted(own.precision);
            metrics.recall += weighted(own.recall);
            metrics.f1 += weighted(own.f1);
            evaluation.classes[class] = own;
        }
        Ok(evaluation)
    }

    /// What always predicting the most frequent class gives; its probabilities are the shares.
    pub fn majority(shares_of: &Self) -> Result<Self> {
        let n_of_class = shares_of.confusion.map(|row| row.iter().sum::<u64>());
        let shares = shares_of.class_shares();
        let most = (0..N_CLASSES).rev().max_by_key(|&class| n_of_class[class]).unwrap_or(0);
        let mut confusion = [[0; N_CLASSES]; N_CLASSES];
        let mut log_loss = 0.0;
        for class in 0..N_CLASSES {
            confusion[class][most] = n_of_class[class];
            log_loss -= n_of_class[class] as f64 * shares[class].max(1e-15).ln();
        }
        Self::new(confusion, log_loss, [Bin::default(); N_BINS])
    }
}

/// `linfa` 0.8 takes rows for predictions where it counts and for truth where it divides, so its
/// precision is recall and the reverse; asked from the truth's side, each is what it says.
fn confusion_matrix(counts: &[[u64; N_CLASSES]; N_CLASSES]) -> Result<ConfusionMatrix<usize>> {
    let (mut predicted, mut truth) = (Vec::new(), Vec::new());
    for (label, row) in counts.iter().enumerate() {
        for (class, &n_rows) in row.iter().enumerate() {
            let n_rows = usize::try_from(n_rows)?;
            predicted.extend(std::iter::repeat_n(class, n_rows));
            truth.extend(std::iter::repeat_n(label, n_rows));
        }
    }
    Array1::from(truth)
        .confusion_matrix(&Array1::from(predicted))
        .context("cannot build the confusion matrix")
}

/// The classes of `linfa`'s matrix: those that occur, ascending; two of them, descending.
fn classes_of(counts: &[[u64; N_CLASSES]; N_CLASSES]) -> Vec<usize> {
    let occurs = |&class: &usize| (0..N_CLASSES).any(|i| counts[class][i] + counts[i][class] > 0);
    let mut classes: Vec<usize> = (0..N_CLASSES).filter(occurs).collect();
    if classes.len() == 2 {
        classes.reverse();
    }
    classes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(confusion: [[u64; 4]; 4], class: usize, precision: f64, recall: f64) {
        let e = Evaluation::new(confusion, 0.0, [Bin::default(); N_BINS]).unwrap();
        assert!((e.classes[class].precision - precision).abs() < 1e-6, "{:?}", e.classes);
        assert!((e.classes[class].recall - recall).abs() < 1e-6, "{:?}", e.classes);
    }

    #[test]
    fn precision_is_of_the_predicted_and_recall_of_the_true() {
        let confusion = [[8, 2, 0, 0], [4, 5, 1, 0], [0, 0, 3, 0], [0, 0, 0, 7]];
        check(confusion, 0, 8.0 / 12.0, 8.0 / 10.0);
        check(confusion, 1, 5.0 / 7.0, 5.0 / 10.0);
        check(confusion, 2, 3.0 / 4.0, 1.0);
    }

    #[test]
    fn classes_that_do_not_occur_leave_the_others_in_place() {
        let two = [[0; 4], [0, 6, 0, 2], [0; 4], [0, 1, 0, 3]];
        check(two, 1, 6.0 / 7.0, 6.0 / 8.0);
        check(two, 3, 3.0 / 5.0, 3.0 / 4.0);
        let one = [[0; 4], [0; 4], [0, 0, 5, 0], [0; 4]];
        check(one, 2, 1.0, 1.0);
    }

    #[test]
    fn the_majority_is_right_as_often_as_its_class_occurs() {
        let confusion = [[8, 2, 0, 0], [4, 5, 1, 0], [0, 0, 3, 0], [0, 0, 0, 7]];
        let forest = Evaluation::new(confusion, 0.0, [Bin::default(); N_BINS]).unwrap();
        let majority = Evaluation::majority(&forest).unwrap();
        assert!((majority.metrics.accuracy - 10.0 / 30.0).abs() < 1e-6);
        assert_eq!(majority.confusion[3], [7, 0, 0, 0]);
    }
}
