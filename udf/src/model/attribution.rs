//! What moved an answer, and how far.
//!
//! On its way down a tree a row passes nodes, each with the class shares of the rows that it was
//! grown from. A step from a node to its child changes the shares; the change is put down to the
//! feature that the node splits by. Over a path the changes add up to the difference between leaf
//! and root, so over the forest they add up to the difference between the answer and the base
//! rates (Saabas, "Interpreting random forests", 2014). Exact, and one walk a tree.

use crate::N_CLASSES;
use crate::model::artefact::Model;

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
        for tree in &self.trees {
            let mut node = &tree.nodes[0];
            let mut shares = node.probabilities();
            // ends: children come after their parents
            while let Some(split) = &node.split {
                let side = usize::from(!split.goes_left(indices[split.feature]));
                node = &tree.nodes[split.left + side];
                let before = std::mem::replace(&mut shares, node.probabilities());
                let change = &mut changes[split.feature];
                *change = add(add(*change, shares, 1.0), before, -1.0);
            }
        }
        let n_trees = self.trees.len() as f64;
        changes.into_iter().map(|change| change.map(|sum| sum / n_trees)).collect()
    }
}

fn add(sums: [f64; N_CLASSES], shares: [f64; N_CLASSES], sign: f64) -> [f64; N_CLASSES] {
    std::array::from_fn(|class| sums[class] + sign * shares[class])
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
            let model = random_model(seed, depth);
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
