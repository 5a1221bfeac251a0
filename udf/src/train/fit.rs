//! The forest as a `linfa` algorithm: `ForestFit::new(params).fit(&dataset)` over an in-memory
//! matrix, with the very code that grows it as query plans. Every column is numeric; targets are
//! the classes 0 … [`N_CLASSES`] - 1.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array, UInt8Array};
use datafusion::common::DataFusionError;
use linfa::ParamGuard;
use linfa::dataset::{AsSingleTargets, DatasetBase};
use linfa::traits::{Fit, PredictInplace};
use ndarray::{Array1, ArrayBase, Data, Ix2};

use crate::N_CLASSES;
use crate::encode::encoder::{CATEGORIES_MAX, DistinctValues, Encoding, index_array};
use crate::model::artefact::{
    DEPTH_MAX, ForestParams, TREES_MAX, Tree, most_probable, probabilities,
};
use crate::train::histogram::count_rows;
use crate::train::split::Growth;

/// Memory for the counters of a pass over a matrix, in bytes.
const HISTOGRAM_BYTES: usize = 256 * 1024 * 1024;

/// Why a forest cannot be grown.
#[derive(Debug, thiserror::Error)]
pub enum FitError {
    /// A parameter is out of range; the text names it and its range.
    #[error("{0}")]
    BadParam(String),
    /// A target is not one of the classes.
    #[error("row {row}: class {class} is not below {N_CLASSES}")]
    BadTarget {
        /// Row of the dataset.
        row: usize,
        /// What was found.
        class: usize,
    },
    /// `linfa` refused the dataset.
    #[error(transparent)]
    Linfa(#[from] linfa::Error),
    /// Counting failed.
    #[error(transparent)]
    Counting(#[from] DataFusionError),
}

/// [`ForestParams`] that were found to be in range.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidForestParams(ForestParams);

impl ValidForestParams {
    /// The parameters.
    pub fn get(&self) -> &ForestParams {
        &self.0
    }
}

/// The algorithm with parameters that are yet to be checked.
#[derive(Debug, Clone, PartialEq)]
pub struct ForestFit(ValidForestParams);

impl ForestFit {
    /// The algorithm with these parameters; `fit` and `check` say what is wrong with them.
    pub fn new(params: ForestParams) -> Self {
        Self(ValidForestParams(params))
    }
}

impl ParamGuard for ForestFit {
    type Checked = ValidForestParams;
    type Error = FitError;

    fn check_ref(&self) -> Result<&ValidForestParams, FitError> {
        let params = self.0.get();
        for (name, value, min, max) in [
            ("trees", params.n_trees as u64, 1, TREES_MAX as u64),
            ("depth", params.depth.into(), 1, DEPTH_MAX.into()),
            ("bins", params.n_bins as u64, 2, CATEGORIES_MAX as u64 - 1),
            ("min-rows-per-leaf", params.min_rows_per_leaf, 1, u32::MAX.into()),
            ("min-rows-per-category", params.min_rows_per_category, 0, u32::MAX.into()),
            ("features-per-node", params.features_per_node as u64, 1, CATEGORIES_MAX as u64),
        ] {
            if !(min..=max).contains(&value) {
                let text = format!("{name} is {value}, not within {min} and {max}");
                return Err(FitError::BadParam(text));
            }
        }
        Ok(&self.0)
    }

    fn check(self) -> Result<ValidForestParams, FitError> {
        self.check_ref()?;
        Ok(self.0)
    }
}

/// A forest grown over the columns of a matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct MatrixForest {
    encodings: Vec<Encoding>,
    trees: Vec<Tree>,
}

impl<D, T> Fit<ArrayBase<D, Ix2>, T, FitError> for ValidForestParams
where
    D: Data<Elem = f64>,
    T: AsSingleTargets<Elem = usize>,
{
    type Object = MatrixForest;

    fn fit(&self, dataset: &DatasetBase<ArrayBase<D, Ix2>, T>) -> Result<MatrixForest, FitError> {
        let records = dataset.records();
        let targets = dataset.as_single_targets();
        if let Some((row, &class)) = targets.iter().enumerate().find(|(_, c)| **c >= N_CLASSES) {
            return Err(FitError::BadTarget { row, class });
        }
        let column_encoding = |column: ndarray::ArrayView1<f64>| {
            let values = column.iter().filter(|v| !v.is_nan()).map(|&v| (v, 1)).collect();
            Encoding::from_values(DistinctValues::Numeric(merge_equal(values)), self.0.n_bins)
        };
        let encodings: Vec<Encoding> = records.columns().into_iter().map(column_encoding).collect();
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(0..records.nrows() as i64));
        let labels = targets.iter().map(|&class| class as u8);
        let labels: ArrayRef = Arc::new(UInt8Array::from_iter_values(labels));
        let rows = [keys, labels, encoded(records, &encodings)?];
        let mut growth = Growth::new(&self.0, &encodings.iter().collect::<Vec<_>>());
        while let Some(pass) = growth.next_pass(HISTOGRAM_BYTES) {
            let pass = Arc::new(pass);
            growth
                .split(&pass, &[count_rows(&pass, &rows)?])
                .map_err(|e| DataFusionError::External(e.into()))?;
        }
        Ok(MatrixForest { encodings, trees: growth.into_trees() })
    }
}

impl<D: Data<Elem = f64>> PredictInplace<ArrayBase<D, Ix2>, Array1<usize>> for MatrixForest {
    fn predict_inplace<'a>(&'a self, x: &'a ArrayBase<D, Ix2>, y: &mut Array1<usize>) {
        assert_eq!(x.ncols(), self.encodings.len(), "a column for each that was trained on");
        for (row, class) in x.rows().into_iter().zip(y.iter_mut()) {
            let indices: Vec<u16> =
                row.iter().zip(&self.encodings).map(|(v, e)| e.index_of_number(Some(*v))).collect();
            *class = most_probable(&probabilities(&self.trees, &indices));
        }
    }

    fn default_target(&self, x: &ArrayBase<D, Ix2>) -> Array1<usize> {
        Array1::zeros(x.nrows())
    }
}

fn merge_equal(mut values: Vec<(f64, u64)>) -> Vec<(f64, u64)> {
    values.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    values.dedup_by(|next, kept| {
        let equal = next.0 == kept.0;
        kept.1 += u64::from(equal) * next.1;
        equal
    });
    values
}

fn encoded<D: Data<Elem = f64>>(
    records: &ArrayBase<D, Ix2>,
    encodings: &[Encoding],
) -> Result<ArrayRef, FitError> {
    let values = records.rows().into_iter().flat_map(|row| {
        let row: Vec<u16> =
            row.iter().zip(encodings).map(|(v, e)| e.index_of_number(Some(*v))).collect();
        row
    });
    Ok(Arc::new(index_array(values.collect(), encodings.len())?))
}

#[cfg(test)]
mod tests {
    use linfa::Dataset;
    use linfa::traits::Predict;
    use ndarray::Array2;

    use super::*;
    use crate::train::sampling::hash;

    /// Two columns of noise around a third that decides the class.
    fn dataset(n_rows: usize) -> Dataset<f64, usize, ndarray::Ix1> {
        let random = |row: usize, column: usize| (hash(&[row as u64, column as u64]) % 1000) as f64;
        let records = Array2::from_shape_fn((n_rows, 3), |(row, column)| random(row, column));
        let targets = Array1::from_shape_fn(n_rows, |row| records[(row, 1)] as usize / 250);
        Dataset::new(records, targets)
    }

    #[test]
    fn a_forest_learns_what_decides_the_class() {
        let params = ForestParams { features_per_node: 2, ..ForestParams::original() };
        let forest = ForestFit::new(params).fit(&dataset(4_000)).unwrap();
        let unseen = dataset(6_000);
        let predicted = forest.predict(unseen.records());
        let right = predicted.iter().zip(unseen.targets()).skip(4_000).filter(|(p, t)| p == t);
        assert!(right.count() > 1_900);
    }

    #[test]
    fn a_parameter_out_of_range_is_named() {
        let bad = |params: ForestParams| ForestFit::new(params).check().unwrap_err().to_string();
        let default = ForestParams::default;
        assert!(bad(ForestParams { n_trees: 0, ..default() }).starts_with("trees is 0"));
        assert!(bad(ForestParams { depth: 15, ..default() }).starts_with("depth is 15"));
        assert!(bad(ForestParams { n_bins: 1, ..default() }).starts_with("bins is 1"));
    }

    #[test]
    fn a_target_that_is_no_class_is_named() {
        let dataset = Dataset::new(Array2::zeros((2, 1)), Array1::from(vec![0, 4]));
        let error = ForestFit::new(ForestParams::default()).fit(&dataset).unwrap_err();
        assert_eq!(error.to_string(), "row 1: class 4 is not below 4");
    }
}
