//! What a person can choose of a training run.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use datafusion::arrow::datatypes::Fields;
use linfa::ParamGuard;
use udf::model::artefact::ForestParams;
use udf::train::fit::{ForestFit, ValidForestParams};

use crate::train::gate::Gate;

/// The features of the original system.
const ORIGINAL: [&str; 9] = [
    "dep_delay",
    "distance",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "carrier",
    "origin",
    "dest",
    "route",
];

/// How a model is trained.
#[derive(Debug, Clone)]
pub struct TrainOptions {
    /// How the forest is grown.
    pub params: ValidForestParams,
    /// What the model may use.
    pub features: FeatureChoice,
    /// Whether it becomes the champion.
    pub gate: Gate,
    /// Memory for the counters of one pass, in bytes, over all partitions.
    pub histogram_bytes: usize,
    /// Memory for the indices of the rows, in bytes; more are written under the data root.
    pub indices_bytes: u64,
}

impl Default for TrainOptions {
    fn default() -> Self {
        let params = ForestFit::new(ForestParams::default()).check();
        Self {
            params: params.expect("the defaults are in range"),
            features: FeatureChoice::default(),
            gate: Gate::default(),
            histogram_bytes: 256 * 1024 * 1024,
            indices_bytes: 2048 * 1024 * 1024,
        }
    }
}

/// Which of the features of `sql/30_features.sql` a model may use: those of the original system,
/// with some and without others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FeatureChoice {
    /// Used as well.
    pub with: Vec<String>,
    /// Not used.
    pub without: Vec<String>,
}

impl FeatureChoice {
    /// The names that are chosen, whether there are such features or not.
    pub fn names(&self) -> BTreeSet<&str> {
        let with = self.with.iter().map(String::as_str);
        let mut names: BTreeSet<&str> = ORIGINAL.into_iter().chain(with).collect();
        self.without.iter().for_each(|name| _ = names.remove(name.as_str()));
        names
    }

    /// Those of `all` that are chosen, in their order. Errors name what was chosen by name and that
    /// there is not.
    pub fn among(&self, all: &Fields) -> Result<Vec<String>> {
        let names: Vec<&String> = all.iter().map(|field| field.name()).collect();
        for name in self.with.iter().chain(&self.without) {
            ensure!(names.contains(&name), "there is no feature {name:?}; there are {names:?}");
        }
        let chosen = self.names();
        Ok(names.into_iter().filter(|name| chosen.contains(name.as_str())).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::{DataType, Field};

    use super::*;

    #[test]
    fn features_are_chosen_in_the_order_of_the_step_and_typing_errors_are_named() {
        let all = ["crs_dep", "route", "dest", "origin", "carrier", "day_of_year", "day_of_week"];
        let all = all.into_iter().chain(["day_of_month", "distance", "dep_delay", "crs_arr"]);
        let all: Vec<String> = all.map(str::to_owned).collect();
        let fields = all.iter().map(|name| Field::new(name, DataType::Float64, true)).collect();
        let choice = |with: &[&str], without: &[&str]| {
            let owned = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
            FeatureChoice { with: owned(with), without: owned(without) }.among(&fields)
        };
        assert_eq!(choice(&[], &[]).unwrap(), all[1..10]);
        let fewer = choice(&["crs_dep", "carrier"], &["dep_delay", "distance"]).unwrap();
        assert_eq!(fewer, all[..8]);
        // a default that the step makes no more is none
        let route =
            Fields::from_iter(fields.iter().filter(|field| field.name() == "route").cloned());
        assert_eq!(FeatureChoice::default().among(&route).unwrap(), ["route"]);
        for (with, without) in [("crs_depp", "route"), ("", "route"), ("crs_arr", "colour")] {
            let error = choice(&[with], &[without]).unwrap_err().to_string();
            assert!(error.starts_with("there is no feature"), "{error}");
            assert!(error.contains("\"crs_arr\""), "it lists what there is: {error}");
        }
    }
}
