//! Drift: whether the rows that are scored are still like those that were trained on. The reference
//! distribution is the training rows counted in a few buckets of each feature; what is seen is
//! compared with it by the population stability index (PSI).
//!
//! PSI = Σ (seen - expected) ln(seen / expected) over the buckets, after Siddiqi, "Credit Risk
//! Scorecards" (2006): below 0.1 little has changed, above 0.25 much.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::N_CLASSES;
use crate::encode::encoder::{DistinctValues, Encoding};

/// Buckets of a feature at most, the one for missing and unknown values aside.
const BUCKETS_MAX: usize = 10;
/// Rows beyond which what was seen is halved: it shows the latest rows, not all since the start.
const ROWS_MAX: f64 = 20_000.0;
/// Added to each bucket, so that an empty one has a logarithm.
const PRIOR: f64 = 0.5;

/// Neighbouring indices of a feature that are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bucket {
    /// The last index of the bucket; the next one begins after it.
    #[serde(rename = "last_code")]
    pub last_index: u16,
    /// Training rows in the bucket.
    pub n_rows: u64,
}

/// What a model was trained on, as far as drift is concerned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceDistribution {
    /// Buckets of each feature of the model, in order; the first is the missing/unknown bin alone.
    pub features: Vec<Vec<Bucket>>,
    /// Held-out rows by the class that the model predicts.
    pub predicted: [u64; N_CLASSES],
}

/// Buckets of a feature with about equal numbers of rows, or its most frequent categories and the
/// rest. `n_rows` counts rows without a value too.
pub fn buckets(encoding: &Encoding, values: &DistinctValues, n_rows: u64) -> Vec<Bucket> {
    let counts = rows_of_indices(encoding, values);
    let counted: u64 = counts.iter().sum();
    let mut buckets = vec![Bucket { last_index: 0, n_rows: n_rows.saturating_sub(counted) }];
    let enough = match encoding {
        Encoding::Numeric(_) => counted.div_ceil(BUCKETS_MAX as u64),
        Encoding::Categorical(_) => 1,
    };
    let mut in_bucket = 0;
    for (index, count) in (1..=u16::MAX).zip(&counts[1..]) {
        in_bucket += count;
        let is_last = usize::from(index) + 1 == counts.len();
        if is_last || (in_bucket >= enough && buckets.len() < BUCKETS_MAX) {
            buckets.push(Bucket { last_index: index, n_rows: in_bucket });
            in_bucket = 0;
        }
    }
    buckets
}

/// Number of rows of each index.
fn rows_of_indices(encoding: &Encoding, values: &DistinctValues) -> Vec<u64> {
    let mut counts = vec![0; encoding.n_indices()];
    match (encoding, values) {
        (Encoding::Numeric(edges), DistinctValues::Numeric(values)) => {
            for (value, n_rows) in values {
                counts[1 + edges.partition_point(|edge| edge < value)] += n_rows;
            }
        }
        (Encoding::Categorical(categories), DistinctValues::Categorical(values)) => {
            let positions: HashMap<_, _> = categories.iter().zip(1..).collect();
            for (value, n_rows) in values {
                if let Some(&index) = positions.get(value) {
                    counts[index] += n_rows;
                }
            }
        }
        _ => {}
    }
    counts
}

impl ReferenceDistribution {
    /// Says what is wrong with a distribution that was read from outside; `n_indices` are the
    /// numbers of indices of the features.
    pub(crate) fn check(&self, n_indices: &[usize]) -> Result<(), String> {
        if self.features.len() != n_indices.len() {
            return Err("the reference and the features do not match".into());
        }
        for (buckets, n_indices) in self.features.iter().zip(n_indices) {
            let ascending = buckets.windows(2).all(|w| w[0].last_index < w[1].last_index);
            let fits = buckets.last().is_some_and(|b| usize::from(b.last_index) + 1 == *n_indices);
            if !ascending || !fits {
                return Err("the buckets of the reference do not fit the indices".into());
            }
        }
        Ok(())
    }
}

/// What was seen of late, beside the reference distribution.
#[derive(Debug, Clone)]
pub struct Drift {
    reference: ReferenceDistribution,
    seen: Vec<Vec<f64>>,
    predicted: [f64; N_CLASSES],
    n_rows: f64,
}

impl Drift {
    /// Nothing seen yet.
    pub fn new(reference: ReferenceDistribution) -> Self {
        let seen = reference.features.iter().map(|buckets| vec![0.0; buckets.len()]).collect();
        Self { reference, seen, predicted: [0.0; N_CLASSES], n_rows: 0.0 }
    }

    /// Counts rows: the indices of each, those of a row together, and the class predicted for it.
    pub fn count(&mut self, indices: &[u16], classes: &[i32]) {
        let n_features = self.seen.len();
        for (row, class) in indices.chunks_exact(n_features).zip(classes) {
            for ((index, buckets), seen) in
                row.iter().zip(&self.reference.features).zip(&mut self.seen)
            {
                let bucket = buckets.partition_point(|bucket| bucket.last_index < *index);
                seen[bucket.min(buckets.len() - 1)] += 1.0;
            }
            if let Some(n) = usize::try_from(*class).ok().and_then(|i| self.predicted.get_mut(i)) {
                *n += 1.0;
            }
            self.n_rows += 1.0;
        }
        while self.n_rows > ROWS_MAX {
            self.seen.iter_mut().flatten().for_each(|n| *n /= 2.0);
            self.predicted.iter_mut().for_each(|n| *n /= 2.0);
            self.n_rows /= 2.0;
        }
    }

    /// Rows that [`psi`](Self::psi) is computed from, older ones counting less.
    pub fn n_rows(&self) -> f64 {
        self.n_rows
    }

    /// The index of each feature of the model, in order, and that of the predicted classes.
    pub fn psi(&self) -> (Vec<f64>, f64) {
        let features = self.reference.features.iter().zip(&self.seen).map(|(buckets, seen)| {
            let expected: Vec<f64> = buckets.iter().map(|bucket| bucket.n_rows as f64).collect();
            psi(&expected, seen)
        });
        let expected = self.reference.predicted.map(|n| n as f64);
        (features.collect(), psi(&expected, &self.predicted))
    }
}

/// Population stability index of numbers of rows by bucket.
pub fn psi(expected: &[f64], seen: &[f64]) -> f64 {
    let total = |counts: &[f64]| counts.iter().map(|n| n + PRIOR).sum::<f64>();
    let (n_expected, n_seen) = (total(expected), total(seen));
    let term = |(e, s): (&f64, &f64)| {
        let (e, s) = ((e + PRIOR) / n_expected, (s + PRIOR) / n_seen);
        (s - e) * (s / e).ln()
    };
    expected.iter().zip(seen).map(term).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_is_that_of_the_definition() {
        // (0.2 - 0.5) ln(0.2 / 0.5) + (0.8 - 0.5) ln(0.8 / 0.5), as good as without the prior
        let found = psi(&[5e6, 5e6], &[2e6, 8e6]);
        assert!((found - 0.415_888).abs() < 1e-4, "{found}");
        assert_eq!(psi(&[3.0, 7.0], &[3.0, 7.0]), 0.0);
        assert!(psi(&[0.0, 10.0], &[10.0, 0.0]).is_finite());
    }

    #[test]
    fn groups_hold_every_row_once() {
        let numbers: Vec<(f64, u64)> = (0..100).map(|i| (f64::from(i), 1 + i as u64 % 3)).collect();
        let n_valued: u64 = numbers.iter().map(|v| v.1).sum();
        let values = DistinctValues::Numeric(numbers);
        let encoding = Encoding::from_values(values.clone(), 64);
        let found = buckets(&encoding, &values, n_valued + 7);
        assert_eq!(found[0], Bucket { last_index: 0, n_rows: 7 });
        assert_eq!(found.iter().map(|g| g.n_rows).sum::<u64>(), n_valued + 7);
        assert!(found.len() <= 1 + BUCKETS_MAX && found.len() > 7, "{found:?}");
        let reference = ReferenceDistribution { features: vec![found], predicted: [1; N_CLASSES] };
        reference.check(&[encoding.n_indices()]).unwrap();

        let names: Vec<(String, u64)> = (0..30).map(|i| (format!("A{i}"), 100 - i)).collect();
        let values = DistinctValues::Categorical(names);
        let encoding = Encoding::from_values(values.clone(), 64);
        let found = buckets(&encoding, &values, 2565);
        assert_eq!(found[1], Bucket { last_index: 1, n_rows: 100 });
        assert_eq!(found.last().unwrap().last_index, 30);
        assert_eq!(found.iter().map(|g| g.n_rows).sum::<u64>(), 2565);
        assert!(
            ReferenceDistribution { features: vec![found], predicted: [1; 4] }
                .check(&[30])
                .is_err()
        );
    }

    #[test]
    fn flights_like_those_trained_on_do_not_drift_and_others_do() {
        let of = |last_index, n_rows| Bucket { last_index, n_rows };
        let buckets = vec![of(0, 0), of(1, 500), of(2, 300), of(9, 200)];
        let reference =
            ReferenceDistribution { features: vec![buckets], predicted: [250; N_CLASSES] };
        let classes: Vec<i32> = (0..1000).map(|i| i % 4).collect();
        let alike: Vec<u16> = (0..1000)
            .map(|i| match i % 10 {
                0..5 => 1,
                5..8 => 2,
                _ => 5,
            })
            .collect();
        let mut drift = Drift::new(reference.clone());
        for _ in 0..50 {
            drift.count(&alike, &classes);
        }
        assert!(drift.n_rows() <= ROWS_MAX);
        let (features, predicted) = drift.psi();
        assert!(features[0] < 0.01 && predicted < 0.01, "{features:?} {predicted}");

        let mut drift = Drift::new(reference);
        drift.count(&vec![0; 1000], &vec![3; 1000]);
        let (features, predicted) = drift.psi();
        assert!(features[0] > 1.0 && predicted > 1.0, "{features:?} {predicted}");
    }
}
