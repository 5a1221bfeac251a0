//! What moved an answer, and how far.
//!
//! On its way down a tree a row passes nodes, each with the class shares of the rows that it was
//! grown from. A step from a node to its child changes the shares; the change is put down to the
//! feature that the node splits by. Over a path the changes add up to the difference between leaf
//! and root, so over the forest they add up to the difference between the mean of the leaves and
//! the base rates (Saabas, "Interpreting random forests", 2014). Exact, and one walk a tree. What
//! [calibration](super::calibration) adds is shared out among the features by how much they moved.

use crate::N_CLASSES;
use crate::model::artefact::Model;
use crate::model::calibration::calibrate;

impl Model {
    /// Shares of the classes before anything is known of a row: the mean of the roots.
    pub fn base_rates(&self) -> [f64; N_CLASSES] {
        let roots = self.trees.iter().map(|tree| tree.nodes[0].probabilities());
        let sums = roots.fold([0.0; N_CLASSES], |sums, root| add(sums, root, 1.0));
        sums.map(|sum| sum / self.trees.len() as f64)
    }

    /// For each of [`Model::features`], how far it moves each class from its base rate.
    pub fn contributions(&self, indices: &[u16]) -> Vec<[f64; N_CLASSES]> {
        let mut changes = vec![[0.0; N_CLASSES]; self.features.len()];
        let mut leaves = [0.0; N_CLASSES];
        for tree in &self.trees {
            let mut node = &tree.nodes[0];
            let mut shares = node.probabilities();
            // ends: children come after their parents
            while let Some(split) = &node.split {
                let side = usize::from(!split.goes_left(indices[split.feature]));
                node = &tree.nodes[split.left + side];
                let before = std::mem::replace(&mut shares, node.probabilities());
                let change = &mut changes[split.feature];
                *change = add(*change, add(shares, before, -1.0), 1.0);
            }
            leaves = add(leaves, shares, 1.0);
        }
        contributions(&mut changes, &mut [leaves], self.trees.len(), self.temperature);
        changes
    }
}

/// Makes contributions of the changes of the class shares, as many a row as there are features, on
/// the way down all trees, and of the shares at the leaves, both summed over the trees: their
/// means, with the share of each feature in what calibration adds. `leaves` are the answers then.
pub(crate) fn contributions(
    changes: &mut [[f64; N_CLASSES]],
    leaves: &mut [[f64; N_CLASSES]],
    n_trees: usize,
    temperature: f64,
) {
    for numbers in [&mut *changes, &mut *leaves] {
        numbers.as_flattened_mut().iter_mut().for_each(|sum| *sum /= n_trees as f64);
    }
    let n_features = changes.len() / leaves.len();
    let means = leaves.to_vec();
    calibrate(leaves, temperature);
    for ((changes, mean), answer) in changes.chunks_exact_mut(n_features).zip(means).zip(leaves) {
        let added = add(*answer, mean, -1.0);
        let moved = |change: &[f64; N_CLASSES]| change.iter().map(|c| c.abs()).sum::<f64>();
        let all: f64 = changes.iter().map(moved).sum();
        if all > 0.0 {
            for change in changes {
                *change = add(*change, added, moved(change) / all);
            }
        }
    }
}

fn add(sums: [f64; N_CLASSES], shares: [f64; N_CLASSES], weight: f64) -> [f64; N_CLASSES] {
    std::array::from_fn(|class| sums[class] + weight * shares[class])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::artefact::tests::{example, random_model};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn base_rates_and_contributions_sum_to_the_answer(
            seed: u64,
            depth in 0..8_u32,
            numbers in proptest::collection::vec(any::<u16>(), 16),
        ) {
            let mut model = random_model(seed, depth);
            if model.trees.iter().any(|tree| tree.nodes.len() > 1) {
                model.temperature = [1.0, 0.8][usize::from(seed.is_multiple_of(2))];
            }
            let n_indices = model.features.iter().map(|spec| spec.encoding.n_indices());
            let indices: Vec<u16> =
                n_indices.zip(&numbers).map(|(n, number)| number % n as u16).collect();
            let mut sums = model.base_rates();
            for change in model.contributions(&indices) {
                sums = add(sums, change, 1.0);
                // what one class wins the others lose
                prop_assert!(change.iter().sum::<f64>().abs() < 1e-12);
            }
            for (sum, probability) in sums.iter().zip(model.probabilities(&indices)) {
                prop_assert!((sum - probability).abs() < 1e-12, "{} {}", sum, probability);
            }
        }
    }

    #[test]
    fn only_features_that_a_row_passes_get_something() {
        let mut model = example();
        for tree in &mut model.trees {
            tree.nodes.truncate(1);
            tree.nodes[0].split = None;
        }
        let indices = vec![1; model.features.len()];
        assert_eq!(model.contributions(&indices), vec![[0.0; N_CLASSES]; indices.len()]);
        assert_eq!(model.base_rates(), model.probabilities(&indices));
    }
}
