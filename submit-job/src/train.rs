//! `submit-job train`: flights to a model.

use anyhow::{Result, ensure};
use clap::Args;
use jobs::models::registry;
use jobs::progress::Progress;
use jobs::train::options::{FeatureChoice, TrainOptions};
use jobs::train::report::Report;
use jobs::train::train;
use linfa::ParamGuard;
use serde_json::{Value, json};
use udf::model::artefact::ForestParams;
use udf::train::fit::ForestFit;

use crate::context::JobContext;
use crate::progress::{print, say};

/// Bytes of a unit of memory on the command line.
const MIB: usize = 1024 * 1024;

/// Arguments of `train`.
#[derive(Debug, Args)]
pub struct Train {
    /// Number of trees
    #[arg(long, default_value_t = ForestParams::default().n_trees)]
    pub trees: usize,
    /// Splits from a root to its deepest leaf
    #[arg(long, default_value_t = ForestParams::default().depth)]
    pub depth: u32,
    /// Bins of a numeric feature at most
    #[arg(long, default_value_t = ForestParams::default().n_bins)]
    pub bins: usize,
    /// Rows that each side of a split holds at least
    #[arg(long, default_value_t = ForestParams::default().min_rows_per_leaf)]
    pub min_rows_per_leaf: u64,
    /// Features that a node may choose from [default: square root of their number]
    #[arg(long)]
    pub features_per_node: Option<usize>,
    /// Share of the flights that are held out
    #[arg(long, default_value_t = ForestParams::default().holdout)]
    pub holdout: f64,
    /// Seed of all random choices
    #[arg(long, default_value_t = ForestParams::default().seed)]
    pub seed: u64,
    /// Feature that the model must not look at; may be repeated
    #[arg(long, value_name = "FEATURE")]
    pub without: Vec<String>,
    /// Optional feature that the model may look at; may be repeated
    #[arg(long, value_name = "FEATURE")]
    pub with: Vec<String>,
    /// Memory for the counters of one pass over the rows, in MiB
    #[arg(long, default_value_t = TrainOptions::default().histogram_bytes / MIB)]
    pub histogram_memory: usize,
    /// Memory for the indices, in MiB; more are written under the data root
    #[arg(long, default_value_t = TrainOptions::default().indices_bytes / MIB as u64)]
    pub codes_memory: u64,
    /// Print one line of JSON instead of the report
    #[arg(long)]
    pub json: bool,
}

impl Train {
    /// The options, checked; errors name the flag.
    pub fn options(&self) -> Result<TrainOptions> {
        let features = FeatureChoice { with: self.with.clone(), without: self.without.clone() };
        let n_features = features.names().len();
        ensure!(n_features > 0, "--without leaves no feature");
        let default_per_node = (n_features as f64).sqrt().round() as usize;
        let params = ForestParams {
            n_trees: self.trees,
            depth: self.depth,
            n_bins: self.bins,
            min_rows_per_leaf: self.min_rows_per_leaf,
            features_per_node: self.features_per_node.unwrap_or(default_per_node),
            holdout: self.holdout,
            seed: self.seed,
        };
        let params = ForestFit::new(params).check().map_err(|e| anyhow::anyhow!("--{e}"))?;
        Ok(TrainOptions {
            params,
            features,
            histogram_bytes: self.histogram_memory.saturating_mul(MIB),
            indices_bytes: self.codes_memory.saturating_mul(MIB as u64),
        })
    }
}

/// Trains a model.
pub async fn run_train(opened: &JobContext, options: &TrainOptions) -> Result<Report> {
    let JobContext { ctx, lake, id, shown, remote } = opened;
    let mut options = options.clone();
    if remote.is_some() {
        // the memory of this process is not that of the executors
        options.indices_bytes = 0;
    }
    let show = |progress: Progress| shown.show(progress);
    let report = train(ctx, lake, id, &options, &show).await;
    shown.clear();
    report
}

/// Trains a model and prints its report.
pub async fn run_train_command(opened: &JobContext, args: &Train) -> Result<Value> {
    let report = run_train(opened, &args.options()?).await?;
    let result = train_json(&report);
    if args.json {
        print(&result.to_string())?;
    } else {
        print(&report.to_text())?;
        let url = opened.lake.url(&registry::report_of(&report.version));
        say(&format!("champion is now {}; report with plots: {url}", report.version));
    }
    Ok(result)
}

fn train_json(report: &Report) -> Value {
    json!({
        "model": report.version,
        "fit_seconds": report.fit_seconds(),
        "job_seconds": report.job_seconds(),
        "train_rows": report.model.rows.training,
        "holdout_rows": report.model.rows.holdout,
        "holdout_accuracy": report.forest.metrics.accuracy,
        "holdout_log_loss": report.forest.metrics.log_loss,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        train: Train,
    }

    fn train(flags: &[&str]) -> Result<TrainOptions> {
        Line::try_parse_from(["train"].iter().chain(flags))?.train.options()
    }

    #[test]
    fn the_default_forest_is_that_of_the_original_system() {
        let (options, default) = (train(&[]).unwrap(), TrainOptions::default());
        assert_eq!(options.params, default.params);
        assert_eq!(options.features, default.features);
        assert_eq!(options.features.names().len(), 9);
        assert_eq!(options.histogram_bytes, default.histogram_bytes);
        assert_eq!(options.indices_bytes, default.indices_bytes);
    }

    #[test]
    fn features_are_added_and_removed_by_name() {
        let options = train(&["--without", "dep_delay", "--with", "crs_dep"]).unwrap();
        let names = options.features.names();
        assert!(!names.contains("dep_delay") && names.contains("crs_dep"), "{names:?}");
        assert_eq!(options.params.get().features_per_node, 3);
        let all = TrainOptions::default().features;
        let without: Vec<&str> = all.names().into_iter().flat_map(|n| ["--without", n]).collect();
        let error = train(&without).unwrap_err().to_string();
        assert_eq!(error, "--without leaves no feature");
    }

    #[test]
    fn a_flag_out_of_range_is_named() {
        let error = train(&["--trees", "0"]).unwrap_err().to_string();
        assert_eq!(error, "--trees is 0, not within 1 and 1000");
    }
}
