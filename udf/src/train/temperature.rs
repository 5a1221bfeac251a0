//! The temperature of a forest ([`calibration`](crate::model::calibration)), from what its trees
//! say of rows that they were not grown from.
//!
//! Each row is left out of about a third of the trees; their mean is as good as an answer to a new
//! row. The temperature is the one for which the sum of the log losses, in whole millionths, is
//! least, so it is the same for any order of rows. The sum has one lowest point only.

use crate::N_CLASSES;
use crate::model::artefact::{FeatureSpec, TEMPERATURE_MAX, TEMPERATURE_MIN, Tree};
use crate::model::calibration::{exp, ln, log_loss_billionths};
use crate::model::flat::{BLOCK_ROWS, FlatForest};
use crate::train::sampling::{TREES_PER_HASH, bootstrap_weight, group_seed, row_hash};

/// Rows below which a forest is left as it is.
const ROWS_MIN: usize = 1_000;
/// Powers are tried in steps of one in so many.
const STEPS: u32 = 256;

/// Rows that a forest was grown from, or a sample of them.
#[derive(Debug, Clone, Copy)]
pub struct GrownFrom<'a> {
    /// The seed of the bootstrap.
    pub seed: u64,
    /// What was drawn for the trees: the key of each row.
    pub keys: &'a [i64],
    /// Class of each row.
    pub labels: &'a [u8],
    /// An index for each feature and row, those of a row together.
    pub indices: &'a [u16],
}

/// The temperature of a forest; 1 where it has no splits or the rows are too few.
pub fn temperature(trees: &[Tree], features: &[FeatureSpec], rows: GrownFrom<'_>) -> f64 {
    let answers = out_of_bag(&FlatForest::new(trees, features), features.len(), rows);
    if answers.len() < ROWS_MIN || trees.iter().all(|tree| tree.nodes.len() == 1) {
        return 1.0;
    }
    // as `calibrated` does, with the logarithms taken once
    let logarithms = |(probabilities, label): ([f64; N_CLASSES], u8)| {
        let highest = probabilities.iter().copied().fold(0.0, f64::max);
        (probabilities.map(|p| ln(p) - ln(highest)), usize::from(label))
    };
    let answers: Vec<_> = answers.into_iter().map(logarithms).collect();
    let loss = |power: u32| -> i64 {
        let power = f64::from(power) / f64::from(STEPS);
        let of_row = |(logarithms, label): &([f64; N_CLASSES], usize)| {
            let powers = logarithms.map(|logarithm| exp(logarithm * power));
            let sum = powers.iter().fold(0.0, |sum, power| sum + power);
            log_loss_billionths(powers[*label] / sum) / 1_000
        };
        answers.iter().map(of_row).sum()
    };
    let power = lowest(step(TEMPERATURE_MAX), step(TEMPERATURE_MIN), loss);
    f64::from(STEPS) / f64::from(power)
}

fn step(temperature: f64) -> u32 {
    (f64::from(STEPS) / temperature) as u32
}

/// Where a function that falls and then rises is lowest.
fn lowest(from: u32, to: u32, f: impl Fn(u32) -> i64) -> u32 {
    let (mut from, mut to) = (from, to);
    while from < to {
        let middle = from.midpoint(to);
        match f(middle) <= f(middle + 1) {
            true => to = middle,
            false => from = middle + 1,
        }
    }
    from
}

/// For each row that some trees were not grown from: the mean of what they say, and its class.
fn out_of_bag(
    forest: &FlatForest,
    n_features: usize,
    rows: GrownFrom<'_>,
) -> Vec<([f64; N_CLASSES], u8)> {
    let GrownFrom { seed, keys, labels, indices } = rows;
    let mut answers = Vec::with_capacity(keys.len());
    let blocks = keys.chunks(BLOCK_ROWS).zip(labels.chunks(BLOCK_ROWS));
    for ((keys, labels), indices) in blocks.zip(indices.chunks(BLOCK_ROWS * n_features)) {
        let mut sums = vec![([0.0; N_CLASSES], 0_u32); keys.len()];
        forest.leaves(indices, n_features, |tree, leaves| {
            let group = group_seed(seed, tree / TREES_PER_HASH);
            let lane = 16 * (tree % TREES_PER_HASH);
            for (((sum, n_trees), &key), &leaf) in sums.iter_mut().zip(keys).zip(leaves) {
                if bootstrap_weight((row_hash(key, group) >> lane) as u16) == 0 {
                    sum.iter_mut().zip(forest.shares(leaf)).for_each(|(sum, share)| *sum += share);
                    *n_trees += 1;
                }
            }
        });
        let means = sums.into_iter().zip(labels).filter(|((_, n_trees), _)| *n_trees > 0);
        answers.extend(
            means.map(|((sum, n_trees), &label)| (sum.map(|s| s / f64::from(n_trees)), label)),
        );
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::encoder::Encoding;
    use crate::model::artefact::{LeftIndices, Node, Split};
    use crate::train::sampling::hash;

    /// Trees that know one number, and say its classes in the given counts.
    fn forest(low: [u64; N_CLASSES], high: [u64; N_CLASSES]) -> (Vec<Tree>, Vec<FeatureSpec>) {
        let split =
            Split { feature: 0, left_indices: LeftIndices::UpTo(1), missing_left: true, left: 1 };
        let root = std::array::from_fn(|class| low[class] + high[class]);
        let leaf = |counts| Node { counts, split: None };
        let nodes = vec![Node { counts: root, split: Some(split) }, leaf(low), leaf(high)];
        let encoding = Encoding::Numeric(vec![0.0]);
        let specs = vec![FeatureSpec { name: "x".into(), encoding }];
        (vec![Tree { nodes }; 10], specs)
    }

    /// 4,000 rows, of which nine in ten are of class 0 when the number is low, of class 3 when not.
    fn fitted((trees, specs): (Vec<Tree>, Vec<FeatureSpec>), n_rows: u64, by_two: bool) -> f64 {
        let keys: Vec<i64> = (0..n_rows as i64).map(|row| row / (1 + i64::from(by_two))).collect();
        let indices: Vec<u16> = (0..n_rows).map(|row| (1 + row % 2) as u16).collect();
        let labels: Vec<u8> = (0..n_rows)
            .map(|row| {
                let is_usual = !hash(&[row]).is_multiple_of(10);
                if is_usual == row.is_multiple_of(2) { 0 } else { 3 }
            })
            .collect();
        let rows = GrownFrom { seed: 1, keys: &keys, labels: &labels, indices: &indices };
        temperature(&trees, &specs, rows)
    }

    #[test]
    fn a_timid_forest_is_made_surer_and_a_boastful_one_less_sure() {
        let right = fitted(forest([9, 0, 0, 1], [1, 0, 0, 9]), 4_000, false);
        assert!((right - 1.0).abs() < 0.1, "{right}");
        let timid = fitted(forest([3, 0, 0, 1], [1, 0, 0, 3]), 4_000, true);
        // 3 : 1 must become 9 : 1
        assert!((timid - 0.5).abs() < 0.04, "{timid}");
        let boastful = fitted(forest([81, 0, 0, 1], [1, 0, 0, 81]), 4_000, false);
        assert!((boastful - 2.0).abs() < 0.15, "{boastful}");
    }

    #[test]
    fn few_rows_and_a_forest_without_splits_leave_it_as_it_is() {
        let timid = || forest([3, 0, 0, 1], [1, 0, 0, 3]);
        assert_eq!(fitted(timid(), 900, false), 1.0);
        let (mut trees, specs) = timid();
        for tree in &mut trees {
            tree.nodes.truncate(1);
            tree.nodes[0].split = None;
        }
        assert_eq!(fitted((trees, specs), 4_000, false), 1.0);
    }
}
