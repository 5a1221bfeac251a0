//! How well a model does: the rows of `sql/50_evaluation.sql` as measures.
//!
//! Everything that is counted is a whole number, so measures are the same for any order of rows.

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{Int32Type, Int64Type};
use events::N_CLASSES;
use udf::model::artefact::{Metrics, most_probable};
use udf::model::calibration::log_loss_billionths;

/// Calibration bins: tenths of the predicted class's probability.
pub const N_BINS: usize = 10;
/// Bins of equal numbers of flights, of which the expected calibration error is made.
const N_EQUAL_BINS: usize = 15;
/// Confidences are counted in steps of one in so many.
const N_STEPS: usize = 1_000;

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

/// What `sql/50_evaluation.sql` says of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluated {
    /// On all held-out flights.
    pub all: Evaluation,
    /// On those after the last day of the training, where there are any.
    pub future: Option<Evaluation>,
    /// On all, with the probabilities before calibration.
    pub uncalibrated: Evaluation,
    /// Its days, in order.
    pub days: Vec<OfDay>,
}

/// A model on the held-out flights of a day.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OfDay {
    /// Days since 1970-01-01.
    pub day: i32,
    /// Flights.
    pub n_rows: u64,
    /// Log loss, summed.
    pub log_loss: f64,
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

impl Bin {
    fn add(&mut self, other: Self) {
        self.n_rows += other.n_rows;
        self.n_right += other.n_right;
        self.confidence_billionths += other.confidence_billionths;
    }
}

/// What an evaluation is counted from.
#[derive(Debug, Clone)]
pub struct Tally {
    confusion: [[u64; N_CLASSES]; N_CLASSES],
    log_loss_billionths: u64,
    /// By the predicted class's probability.
    by_confidence: Vec<Bin>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            confusion: [[0; N_CLASSES]; N_CLASSES],
            log_loss_billionths: 0,
            by_confidence: vec![Bin::default(); N_STEPS],
        }
    }
}

impl Tally {
    /// Counts `n_rows` flights of a class that got these probabilities.
    pub fn add(&mut self, label: usize, probabilities: &[f64; N_CLASSES], n_rows: u64) {
        let predicted = most_probable(probabilities);
        let confidence = probabilities[predicted];
        let step = ((confidence * N_STEPS as f64) as usize).min(N_STEPS - 1);
        let confidence = (confidence * 1e9).round() as u64;
        let log_loss = log_loss_billionths(probabilities[label]).unsigned_abs();
        self.count(
            [label, predicted],
            step,
            n_rows,
            [confidence, log_loss].map(|sum| n_rows * sum),
        );
    }

    /// Counts rows of a label and prediction; the sums of their confidences and log losses are in
    /// billionths.
    pub(crate) fn count(
        &mut self,
        [label, predicted]: [usize; 2],
        step: usize,
        n_rows: u64,
        [confidence_billionths, log_loss_billionths]: [u64; 2],
    ) {
        let n_right = if label == predicted { n_rows } else { 0 };
        self.confusion[label][predicted] += n_rows;
        self.by_confidence[step].add(Bin { n_rows, n_right, confidence_billionths });
        self.log_loss_billionths += log_loss_billionths;
    }

    fn merge(&mut self, other: &Self) {
        self.log_loss_billionths += other.log_loss_billionths;
        let rows = self.confusion.iter_mut().flatten().zip(other.confusion.iter().flatten());
        rows.for_each(|(n, more)| *n += more);
        let bins = self.by_confidence.iter_mut().zip(&other.by_confidence);
        bins.for_each(|(bin, more)| bin.add(*more));
    }

    /// The measures.
    pub fn evaluation(&self) -> Evaluation {
        let confusion = self.confusion;
        let n_rows: u64 = confusion.iter().flatten().sum();
        let mut calibration = [Bin::default(); N_BINS];
        for (step, bin) in self.by_confidence.iter().enumerate() {
            calibration[step * N_BINS / N_STEPS].add(*bin);
        }
        let classes = std::array::from_fn(|class| class_metrics(&confusion, class));
        let mut metrics = Metrics::default();
        if n_rows > 0 {
            let n_right: u64 = (0..N_CLASSES).map(|class| confusion[class][class]).sum();
            metrics.accuracy = ratio(n_right, n_rows);
            metrics.log_loss = self.log_loss_billionths as f64 / 1e9 / n_rows as f64;
            metrics.calibration_error = Some(calibration_error(&self.by_confidence, n_rows));
        }
        for class in &classes {
            let weight = ratio(class.n_rows, n_rows.max(1));
            let weighted = |measure: f64| if measure.is_nan() { 0.0 } else { weight * measure };
            metrics.precision += weighted(class.precision);
            metrics.recall += weighted(class.recall);
            metrics.f1 += weighted(class.f1);
        }
        Evaluation { confusion, metrics, classes, calibration }
    }
}

/// How far confidence is from the share of right predictions: the mean over bins of equal numbers
/// of flights, in order of confidence.
fn calibration_error(by_confidence: &[Bin], n_rows: u64) -> f64 {
    let per_bin = n_rows as f64 / N_EQUAL_BINS as f64;
    let (mut error, mut gap, mut room) = (0.0, 0.0, per_bin);
    for step in by_confidence.iter().filter(|step| step.n_rows > 0) {
        let n = step.n_rows as f64;
        let gap_of_row = (step.confidence_billionths as f64 / 1e9 - step.n_right as f64) / n;
        // the flights of a step may be in several bins
        let mut left = n;
        while left > room {
            error += (gap + room * gap_of_row).abs();
            left -= room;
            (gap, room) = (0.0, per_bin);
        }
        gap += left * gap_of_row;
        room -= left;
    }
    (error + gap.abs()) / n_rows as f64
}

fn class_metrics(confusion: &[[u64; N_CLASSES]; N_CLASSES], class: usize) -> ClassMetrics {
    let n_right = confusion[class][class];
    let n_rows: u64 = confusion[class].iter().sum();
    let n_predicted: u64 = confusion.iter().map(|row| row[class]).sum();
    ClassMetrics {
        n_rows,
        precision: ratio(n_right, n_predicted),
        recall: ratio(n_right, n_rows),
        f1: ratio(2 * n_right, n_rows + n_predicted),
    }
}

/// NaN where there is nothing.
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
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

    /// What always predicting the most frequent class gives; its probabilities are the shares.
    pub fn majority(shares_of: &Self) -> Self {
        let shares = shares_of.class_shares();
        let mut tally = Tally::default();
        for (label, row) in shares_of.confusion.iter().enumerate() {
            tally.add(label, &shares, row.iter().sum());
        }
        tally.evaluation()
    }
}

impl Evaluated {
    /// From the rows of `sql/50_evaluation.sql`, in order.
    pub fn from_batches(batches: &[RecordBatch]) -> Self {
        let [mut past, mut future, mut uncalibrated] = [(); 3].map(|()| Tally::default());
        let mut days = Vec::new();
        for batch in batches {
            let small = |i: usize| batch.column(i).as_primitive::<Int32Type>();
            let large = |i: usize| batch.column(i).as_primitive::<Int64Type>();
            for row in 0..batch.num_rows() {
                let index = |i: usize| small(i).value(row).unsigned_abs() as usize;
                let number = |i: usize| large(i).value(row).unsigned_abs();
                // what the row is not grouped by is null
                if small(5).is_valid(row) {
                    let (day, log_loss) = (small(5).value(row), number(8) as f64 / 1e9);
                    days.push(OfDay { day, n_rows: number(6), log_loss });
                    continue;
                }
                let is_future = batch.column(2).as_boolean().value(row);
                let (tally, step, sums) = match (small(4).is_valid(row), is_future) {
                    (true, _) => (&mut uncalibrated, index(4), [number(9), number(10)]),
                    (false, true) => (&mut future, index(3), [number(7), number(8)]),
                    (false, false) => (&mut past, index(3), [number(7), number(8)]),
                };
                tally.count([index(0), index(1)], step.min(N_STEPS - 1), number(6), sums);
            }
        }
        let later = future.evaluation();
        past.merge(&future);
        Self {
            all: past.evaluation(),
            future: Some(later).filter(|later| later.n_rows() > 0),
            uncalibrated: uncalibrated.evaluation(),
            days,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An evaluation with this confusion, sure of everything.
    pub(crate) fn of_confusion(confusion: [[u64; 4]; 4]) -> Evaluation {
        let mut tally = Tally::default();
        for (label, row) in confusion.iter().enumerate() {
            for (predicted, &n_rows) in row.iter().enumerate() {
                let mut probabilities = [0.1; 4];
                probabilities[predicted] = 0.7;
                tally.add(label, &probabilities, n_rows);
            }
        }
        tally.evaluation()
    }

    fn check(confusion: [[u64; 4]; 4], class: usize, precision: f64, recall: f64) {
        let e = of_confusion(confusion);
        assert!((e.classes[class].precision - precision).abs() < 1e-12, "{:?}", e.classes);
        assert!((e.classes[class].recall - recall).abs() < 1e-12, "{:?}", e.classes);
        let f1 = 2.0 / (1.0 / precision + 1.0 / recall);
        assert!((e.classes[class].f1 - f1).abs() < 1e-12, "{:?}", e.classes);
    }

    #[test]
    fn precision_is_of_the_predicted_and_recall_of_the_true() {
        let confusion = [[8, 2, 0, 0], [4, 5, 1, 0], [0, 0, 3, 0], [0, 0, 0, 7]];
        check(confusion, 0, 8.0 / 12.0, 8.0 / 10.0);
        check(confusion, 1, 5.0 / 7.0, 5.0 / 10.0);
        check(confusion, 2, 3.0 / 4.0, 1.0);
        let metrics = of_confusion(confusion).metrics;
        assert_eq!(metrics.accuracy, 23.0 / 30.0);
        assert!((metrics.recall - metrics.accuracy).abs() < 1e-12, "{metrics:?}");
    }

    #[test]
    fn classes_that_do_not_occur_leave_the_others_in_place() {
        let two = [[0; 4], [0, 6, 0, 2], [0; 4], [0, 1, 0, 3]];
        check(two, 1, 6.0 / 7.0, 6.0 / 8.0);
        check(two, 3, 3.0 / 5.0, 3.0 / 4.0);
        let one = [[0; 4], [0; 4], [0, 0, 5, 0], [0; 4]];
        check(one, 2, 1.0, 1.0);
        assert!(of_confusion(one).classes[0].precision.is_nan());
        assert_eq!(of_confusion([[0; 4]; 4]).metrics, Metrics::default());
    }

    #[test]
    fn the_majority_is_right_as_often_as_its_class_occurs() {
        let confusion = [[8, 2, 0, 0], [4, 5, 1, 0], [0, 0, 3, 0], [0, 0, 0, 7]];
        let majority = Evaluation::majority(&of_confusion(confusion));
        assert!((majority.metrics.accuracy - 10.0 / 30.0).abs() < 1e-12);
        assert_eq!(majority.confusion[3], [7, 0, 0, 0]);
        // it knows the shares, and says them
        assert!(majority.metrics.calibration_error.unwrap() < 1e-9);
    }

    /// Flights that are all of class 0, or of class 1 where the model is wrong.
    fn calibration_error_of(flights: &[(f64, u64, u64)]) -> f64 {
        let mut tally = Tally::default();
        for &(confidence, n_right, n_wrong) in flights {
            let rest = (1.0 - confidence) / 3.0;
            let probabilities = [confidence, rest, rest, rest];
            tally.add(0, &probabilities, n_right);
            tally.add(1, &probabilities, n_wrong);
        }
        tally.evaluation().metrics.calibration_error.unwrap()
    }

    #[test]
    fn the_calibration_error_is_a_mean_over_bins_of_equal_numbers_of_flights() {
        assert!(calibration_error_of(&[(0.75, 75, 25)]) < 1e-9);
        assert!((calibration_error_of(&[(0.85, 75, 25)]) - 0.1).abs() < 1e-9);
        // too sure in one third, not sure enough in another: nothing is made up for
        let error = calibration_error_of(&[(0.4, 500, 500), (0.6, 600, 400), (0.9, 800, 200)]);
        assert!((error - 0.2 / 3.0).abs() < 1e-9, "{error}");
        // within a bin it is: all flights of both are in the lowest of 15
        let error = calibration_error_of(&[(0.4, 3, 0), (0.401, 0, 3), (0.9, 900 - 9, 93)]);
        let (low, high) = ((2.4_f64 + 0.003 - 3.0).abs(), (0.9 * 984.0 - 891.0_f64).abs());
        assert!((error - (low + high) / 990.0).abs() < 5e-3, "{error}");
    }
}
