//! The model: a forest with everything that is needed to score, as one immutable JSON document
//! named by its SHA-256. [`Model::parse`] refuses what is damaged; [`Model::probabilities`] is the
//! plain evaluation that every faster one must equal bit for bit.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::N_CLASSES;
use crate::encode::encoder::{Encoding, Kind};
use crate::model::calibration::calibrated;
use crate::model::drift::ReferenceDistribution;
use crate::model::holdout::{HoldOut, Rule};

/// Version of the artefact's format. A change that an older reader would misread raises it. Those
/// from 1 on are read.
pub const FORMAT: u32 = 2;
/// Largest artefact that is read, in bytes.
pub const MODEL_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Deepest tree: its nodes are numbered in 16 bits. A level needs a pass over the rows anyway.
pub const DEPTH_MAX: u32 = 14;
/// Lowest temperature.
pub const TEMPERATURE_MIN: f64 = 0.25;
/// Highest temperature.
pub const TEMPERATURE_MAX: f64 = 4.0;
/// Most trees.
pub const TREES_MAX: usize = 1_000;

/// A trained forest and what it was trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// [`FORMAT`].
    pub format: u32,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// How it was trained.
    pub params: ForestParams,
    /// SHA-256 of the SQL that made its features and labels.
    pub sql_sha256: String,
    /// Rows it was trained and evaluated on.
    pub rows: Rows,
    /// What those rows were, in their values: a hash of all of them, whatever their order and
    /// files. Empty in models of format 1.
    #[serde(default)]
    pub data: String,
    /// The days that it was trained on; models of format 1 do not say.
    #[serde(default)]
    pub days: Option<Days>,
    /// Its measures on the held-out rows.
    pub holdout: Metrics,
    /// What it looks at.
    pub features: Vec<FeatureSpec>,
    /// Share of the decrease of impurity that each feature brought; sums to 1, or all 0.
    pub importances: Vec<f64>,
    /// What its training rows were like, to notice when flights drift away from them. Models made
    /// before this was kept have none.
    #[serde(rename = "sample", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<ReferenceDistribution>,
    /// What makes it as sure as it is right; see [`calibration`](super::calibration). 1 changes
    /// nothing.
    #[serde(default = "one")]
    pub temperature: f64,
    /// The trees.
    pub trees: Vec<Tree>,
}

fn one() -> f64 {
    1.0
}

/// How a forest is grown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForestParams {
    /// Number of trees.
    pub n_trees: usize,
    /// Number of splits from a root to its deepest leaf.
    pub depth: u32,
    /// Bins of a numeric feature at most.
    pub n_bins: usize,
    /// Rows that each side of a split must hold at least, counted as often as they were drawn.
    pub min_rows_per_leaf: u64,
    /// Features that a node may choose from.
    pub features_per_node: usize,
    /// Rows that a category must have in a node for its class shares to count: they are mixed with
    /// as many rows of the node's, and rarer categories go where most rows go. 0: each counts.
    #[serde(default)]
    pub min_rows_per_category: u64,
    /// What is drawn for a tree.
    #[serde(default)]
    pub bootstrap: Bootstrap,
    /// The flights that are held out of training.
    pub holdout: HoldOut,
    /// Seed of all random choices.
    pub seed: u64,
}

/// What is drawn with replacement for a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bootstrap {
    /// Flights.
    #[default]
    Flight,
    /// Whole days, where there are [enough](ForestParams::draws_days): what a tree has not seen is
    /// then as new to it as a day to come, so that the forest can be calibrated by it.
    Day,
}

/// Days below which flights are drawn even so.
const DAYS_MIN: u64 = 30;

impl ForestParams {
    /// The forest of the original system; √9 = 3 features a node.
    pub fn original() -> Self {
        Self {
            n_trees: 20,
            depth: 5,
            n_bins: 256,
            min_rows_per_leaf: 1,
            features_per_node: 3,
            min_rows_per_category: 0,
            bootstrap: Bootstrap::Flight,
            holdout: HoldOut::by(Rule::Days(5)),
            seed: 1,
        }
    }

    /// Whether the trees of a forest over `n_days` days draw days.
    pub fn draws_days(&self, n_days: u64) -> bool {
        self.bootstrap == Bootstrap::Day && n_days >= DAYS_MIN
    }
}

impl Default for ForestParams {
    /// What did well on the training days of the shipped flights; see `bench/README.md`.
    fn default() -> Self {
        Self {
            n_trees: 50,
            depth: 12,
            min_rows_per_leaf: 20,
            features_per_node: 5,
            min_rows_per_category: 20,
            bootstrap: Bootstrap::Day,
            ..Self::original()
        }
    }
}

/// The days of training rows, as numbers of days since 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Days {
    /// The first.
    pub first: i32,
    /// The last.
    pub last: i32,
    /// How many there are.
    pub n: u64,
}

/// Numbers of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rows {
    /// Trained on.
    pub training: u64,
    /// Held out.
    pub holdout: u64,
}

/// Measures on held-out rows. Precision, recall and F1 are weighted by class.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// Share of rows predicted right.
    pub accuracy: f64,
    /// Weighted precision.
    pub precision: f64,
    /// Weighted recall.
    pub recall: f64,
    /// Weighted F1.
    pub f1: f64,
    /// Mean of -ln(probability given to the true class).
    pub log_loss: f64,
    /// Expected calibration error: how far the predicted class's probability is from the share of
    /// right predictions, over 15 bins of equal numbers of rows. Models of format 1 have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration_error: Option<f64>,
}

/// A feature as the model sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureSpec {
    /// Its name.
    pub name: String,
    /// How its values become indices.
    #[serde(rename = "codes")]
    pub encoding: Encoding,
}

/// A tree: nodes in breadth-first order, the root first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tree {
    /// The nodes.
    pub nodes: Vec<Node>,
}

/// A node with the rows it was grown from, counted per class as often as they were drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Rows per class.
    pub counts: [u64; N_CLASSES],
    /// How it splits; a leaf does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
}

/// A split of a node's rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// Position in the model's features.
    pub feature: usize,
    /// Indices that go left, the missing/unknown bin aside.
    #[serde(rename = "left_codes")]
    pub left_indices: LeftIndices,
    /// Whether the missing/unknown bin goes left.
    #[serde(rename = "reserved_left")]
    pub missing_left: bool,
    /// Position of the left child; the right one follows it.
    pub left: usize,
}

/// The indices that go left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum LeftIndices {
    /// 1 … this one.
    UpTo(u16),
    /// These, ascending.
    Among(Vec<u16>),
    /// All but these, ascending.
    Except(Vec<u16>),
}

impl Split {
    /// Whether an index goes left.
    pub fn goes_left(&self, index: u16) -> bool {
        match &self.left_indices {
            _ if index == 0 => self.missing_left,
            LeftIndices::UpTo(last) => index <= *last,
            LeftIndices::Among(indices) => indices.binary_search(&index).is_ok(),
            LeftIndices::Except(indices) => indices.binary_search(&index).is_err(),
        }
    }
}

impl Tree {
    /// Says what is wrong with a tree that was read from outside; `n_indices` are the numbers of
    /// indices of the features.
    pub(crate) fn check(&self, n_indices: &[usize]) -> Result<(), String> {
        let mut n_reached = 1;
        let mut depths = vec![0; self.nodes.len()];
        for (i, node) in self.nodes.iter().enumerate() {
            let Some(split) = &node.split else { continue };
            if split.left != n_reached || split.left <= i {
                return Err(format!("node {i}: children are not in breadth-first order"));
            }
            n_reached += 2;
            if depths[i] == DEPTH_MAX {
                return Err(format!("node {i}: a tree has more than {DEPTH_MAX} levels"));
            }
            let depth = depths[i] + 1;
            depths.iter_mut().skip(split.left).take(2).for_each(|of| *of = depth);
            let Some(&n_indices) = n_indices.get(split.feature) else {
                return Err(format!("node {i}: there is no feature {}", split.feature));
            };
            let fits = match &split.left_indices {
                LeftIndices::UpTo(last) => usize::from(*last) < n_indices,
                LeftIndices::Among(indices) | LeftIndices::Except(indices) => {
                    indices.windows(2).all(|w| w[0] < w[1])
                        && indices.first() != Some(&0)
                        && indices.last().is_none_or(|&c| usize::from(c) < n_indices)
                }
            };
            if !fits {
                return Err(format!("node {i}: indices do not fit feature {}", split.feature));
            }
        }
        if n_reached != self.nodes.len() {
            return Err(format!("{} nodes, of which {n_reached} are reached", self.nodes.len()));
        }
        Ok(())
    }

    /// The leaf that indices fall to.
    pub fn leaf(&self, indices: &[u16]) -> &Node {
        let mut node = &self.nodes[0];
        // ends: children come after their parents
        while let Some(split) = &node.split {
            let side = usize::from(!split.goes_left(indices[split.feature]));
            node = &self.nodes[split.left + side];
        }
        node
    }
}

impl Node {
    /// Shares of the classes; equal shares where no row was counted.
    pub fn probabilities(&self) -> [f64; N_CLASSES] {
        let n: u64 = self.counts.iter().sum();
        match n {
            0 => [1.0 / N_CLASSES as f64; N_CLASSES],
            _ => self.counts.map(|count| count as f64 / n as f64),
        }
    }
}

/// Why bytes are not a model.
#[derive(Debug, thiserror::Error)]
pub enum BadModel {
    /// Larger than [`MODEL_BYTES_MAX`].
    #[error("{0} bytes exceed the limit of {MODEL_BYTES_MAX}")]
    TooLarge(usize),
    /// The content is not what the name says: damaged or replaced. Fetch it again.
    #[error("damaged: its SHA-256 is {found}, its name says {expected}")]
    Damaged {
        /// Digest of the bytes.
        found: String,
        /// Digest in the name.
        expected: String,
    },
    /// Written by another version of Tarmac. Train again, or use that version.
    #[error("format {0} is unknown; this program reads formats 1 to {FORMAT}")]
    UnknownFormat(u64),
    /// Not a model.
    #[error("not a model: {0}")]
    Malformed(String),
}

impl Model {
    /// The features that it uses, in the order of a row's indices.
    pub fn feature_names(&self) -> Vec<String> {
        self.features.iter().map(|spec| spec.name.clone()).collect()
    }

    /// The artefact: the same bytes for the same model.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("a model holds plain finite values");
        bytes.push(b'\n');
        bytes
    }

    /// Reads an artefact whose name says its SHA-256.
    pub fn parse(bytes: &[u8], version: &str) -> Result<Self, BadModel> {
        if bytes.len() > MODEL_BYTES_MAX {
            return Err(BadModel::TooLarge(bytes.len()));
        }
        let found = version_of(bytes);
        if found != version {
            return Err(BadModel::Damaged { found, expected: version.to_owned() });
        }
        let malformed = |e: serde_json::Error| BadModel::Malformed(e.to_string());
        let format: FormatOnly = serde_json::from_slice(bytes).map_err(malformed)?;
        if !(1..=u64::from(FORMAT)).contains(&format.format) {
            return Err(BadModel::UnknownFormat(format.format));
        }
        let model: Self = serde_json::from_slice(bytes).map_err(malformed)?;
        model.check().map_err(BadModel::Malformed)?;
        Ok(model)
    }

    /// Probability of each class for indices in the order of [`Model::features`]: the mean of the
    /// leaves' class shares, summed in the order of the trees, [calibrated].
    pub fn probabilities(&self, indices: &[u16]) -> [f64; N_CLASSES] {
        calibrated(probabilities(&self.trees, indices), self.temperature)
    }

    /// Says what is wrong with a model that was read from outside.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.classes.len() != N_CLASSES {
            return Err(format!("{} classes instead of {N_CLASSES}", self.classes.len()));
        }
        if self.trees.is_empty() || self.trees.len() > TREES_MAX {
            return Err(format!("{} trees", self.trees.len()));
        }
        if self.features.is_empty() || self.importances.len() != self.features.len() {
            return Err("features and importances do not match".into());
        }
        if !(TEMPERATURE_MIN..=TEMPERATURE_MAX).contains(&self.temperature) {
            return Err(format!("a temperature of {}", self.temperature));
        }
        let mut names = BTreeSet::new();
        for FeatureSpec { name, encoding } in &self.features {
            encoding.check().map_err(|e| format!("feature {name:?}: {e}"))?;
            if !names.insert(name) {
                return Err(format!("feature {name:?} is listed twice"));
            }
        }
        let n_indices: Vec<usize> =
            self.features.iter().map(|spec| spec.encoding.n_indices()).collect();
        if let Some(reference) = &self.reference {
            reference.check(&n_indices)?;
        }
        for (i, tree) in self.trees.iter().enumerate() {
            let checked = tree.check(&n_indices).and_then(|()| self.check_kinds(tree));
            checked.map_err(|e| format!("tree {i}: {e}"))?;
        }
        Ok(())
    }

    /// Says whether a tree's splits are of the kinds of their features.
    fn check_kinds(&self, tree: &Tree) -> Result<(), String> {
        for (i, node) in tree.nodes.iter().enumerate() {
            let Some(split) = &node.split else { continue };
            let feature = &self.features[split.feature];
            let kind = match split.left_indices {
                LeftIndices::UpTo(_) => Kind::Numeric,
                LeftIndices::Among(_) | LeftIndices::Except(_) => Kind::Categorical,
            };
            if kind != feature.encoding.kind() {
                return Err(format!("node {i}: the split does not fit {:?}", feature.name));
            }
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct FormatOnly {
    format: u64,
}

/// See [`Model::probabilities`].
pub(crate) fn probabilities(trees: &[Tree], indices: &[u16]) -> [f64; N_CLASSES] {
    let mut sum = [0.0; N_CLASSES];
    for tree in trees {
        let leaf = tree.leaf(indices).probabilities();
        for (total, p) in sum.iter_mut().zip(leaf) {
            *total += p;
        }
    }
    sum.map(|total| total / trees.len() as f64)
}

/// The name of an artefact: the SHA-256 of its bytes in hexadecimal.
pub fn version_of(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// The most probable class; the lower one of equals.
#[inline]
pub fn most_probable(probabilities: &[f64; N_CLASSES]) -> usize {
    let (mut best, mut highest) = (0, probabilities[0]);
    for (class, &p) in probabilities.iter().enumerate().skip(1) {
        // selections, not branches: which class wins cannot be guessed
        let is_higher = p > highest;
        best = if is_higher { class } else { best };
        highest = if is_higher { p } else { highest };
    }
    best
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::train::sampling::hash;

    /// A small model with numeric and categorical splits.
    pub(crate) fn example() -> Model {
        random_model(1, 3)
    }

    /// A model whose every choice follows from `seed`.
    pub(crate) fn random_model(seed: u64, depth: u32) -> Model {
        let edges = |i: u64| {
            let n = hash(&[seed, i]) % 60;
            (0..n).map(|k| k as f64 * 7.3 - 40.0).collect()
        };
        let text = |t: &str| t.to_owned();
        let categories = || vec![text("A"), text("BC"), text("a-long-category"), text("AAA-BBB")];
        let spec = |(i, name): (usize, &str)| {
            let encoding = match i < 3 {
                true => Encoding::Numeric(edges(i as u64)),
                false => Encoding::Categorical(categories()),
            };
            FeatureSpec { name: text(name), encoding }
        };
        let names = ["dep_delay", "distance", "day_of_week", "carrier", "dest", "route"];
        let features: Vec<FeatureSpec> = names.into_iter().enumerate().map(spec).collect();
        // more trees than share their masks, or fewer
        let n_trees = if seed.is_multiple_of(2) { 27 } else { 5 };
        let trees: Vec<Tree> =
            (0..n_trees).map(|tree| random_tree(hash(&[seed, tree]), depth, &features)).collect();
        Model {
            format: FORMAT,
            classes: ["a", "b", "c", "d"].map(text).to_vec(),
            params: ForestParams::default(),
            sql_sha256: String::new(),
            rows: Rows::default(),
            data: String::new(),
            days: None,
            holdout: Metrics::default(),
            reference: None,
            importances: crate::train::split::importances(&trees, features.len()),
            features,
            temperature: 1.0,
            trees,
        }
    }

    /// Indices of rows, one a feature of the model.
    pub(crate) fn random_indices(model: &Model, n_rows: usize) -> Vec<u16> {
        let n_indices: Vec<u64> =
            model.features.iter().map(|spec| spec.encoding.n_indices() as u64).collect();
        let index = |i: usize| (hash(&[i as u64]) % n_indices[i % n_indices.len()]) as u16;
        (0..n_rows * n_indices.len()).map(index).collect()
    }

    pub(crate) fn random_tree(seed: u64, depth: u32, features: &[FeatureSpec]) -> Tree {
        let random = |i: usize, what: u64| hash(&[seed, i as u64, what]);
        let counts = |i: usize| [1, 2, 3, 4].map(|class| random(i, class) % 100);
        let mut nodes = vec![Node { counts: counts(0), split: None }];
        let mut levels = vec![0];
        let mut i = 0;
        while i < nodes.len() {
            if levels[i] < depth && !random(i, 5).is_multiple_of(4) {
                let feature = random(i, 6) as usize % features.len();
                let encoding = &features[feature].encoding;
                let left_indices = match encoding.kind() {
                    Kind::Numeric => {
                        LeftIndices::UpTo((random(i, 7) % encoding.n_indices() as u64) as u16)
                    }
                    Kind::Categorical => {
                        let some = (1..encoding.n_indices() as u16)
                            .filter(|c| random(i, 100 + u64::from(*c)).is_multiple_of(2))
                            .collect();
                        match random(i, 9).is_multiple_of(2) {
                            true => LeftIndices::Among(some),
                            false => LeftIndices::Except(some),
                        }
                    }
                };
                let missing_left = random(i, 8).is_multiple_of(2);
                let left = nodes.len();
                nodes[i].split = Some(Split { feature, left_indices, missing_left, left });
                for child in [left, left + 1] {
                    nodes.push(Node { counts: counts(child), split: None });
                    levels.push(levels[i] + 1);
                }
            }
            i += 1;
        }
        Tree { nodes }
    }

    #[test]
    fn an_artefact_is_read_as_it_was_written() {
        let bytes = example().to_bytes();
        assert_eq!(Model::parse(&bytes, &version_of(&bytes)).unwrap(), example());
    }

    #[test]
    fn what_is_wrong_with_an_artefact_is_said() {
        let good = String::from_utf8(example().to_bytes()).unwrap();
        let check = |bytes: &str, want: &str| {
            let error = Model::parse(bytes.as_bytes(), &version_of(bytes.as_bytes()));
            let error = error.unwrap_err().to_string();
            assert!(error.contains(want), "{error:?} should say {want:?}");
        };
        check(&good[..good.len() / 2], "not a model: EOF");
        check("{}", "missing field `format`");
        check(&good.replace("\"format\":2", "\"format\":3"), "format 3 is unknown");
        let cold = good.replace("\"temperature\":1.0", "\"temperature\":0.0");
        check(&cold, "a temperature of 0");
        let twice = good.replace("\"dep_delay\"", "\"carrier\"");
        check(&twice, "feature \"carrier\" is listed twice");
        check(&good.replace("\"trees\"", "\"tries\""), "unknown field `tries`");
        check(&good.replace("\"left\":3", "\"left\":0"), "not in breadth-first order");
        let deep = Model { trees: vec![random_tree(1, 15, &example().features)], ..example() };
        let deep = String::from_utf8(deep.to_bytes()).unwrap();
        check(&deep, "a tree has more than 14 levels");
        let damaged = good.replace("\"BC\"", "\"BD\"");
        let error = Model::parse(damaged.as_bytes(), &version_of(good.as_bytes())).unwrap_err();
        assert!(matches!(error, BadModel::Damaged { .. }), "{error}");
    }
}
