//! `submit-job train`: flights to a model.

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use jobs::models::evaluation::Evaluation;
use jobs::models::registry;
use jobs::progress::Progress;
use jobs::train::gate::Gate;
use jobs::train::options::{FeatureChoice, TrainOptions};
use jobs::train::report::Report;
use jobs::train::train;
use linfa::ParamGuard;
use serde_json::{Value, json};
use udf::model::artefact::ForestParams;
use udf::model::holdout::HoldOut;
use udf::train::fit::ForestFit;

use crate::context::JobContext;
use crate::progress::{print, say};

/// Bytes of a unit of memory on the command line.
const MIB: usize = 1024 * 1024;

/// Where the settings of a forest begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// What did best on the training days of the shipped flights.
    Default,
    /// 20 trees of depth 5, as the original system's.
    Original,
}

/// Arguments of `train`.
#[derive(Debug, Args)]
pub struct Train {
    /// Where the settings of the forest begin: what did best, or the original system's
    #[arg(long, value_enum, default_value_t = Preset::Default)]
    pub preset: Preset,
    /// Number of trees [default: 50; original: 20]
    #[arg(long)]
    pub trees: Option<usize>,
    /// Splits from a root to its deepest leaf [default: 12; original: 5]
    #[arg(long)]
    pub depth: Option<u32>,
    /// Bins of a numeric feature at most [default: 256]
    #[arg(long)]
    pub bins: Option<usize>,
    /// Rows that each side of a split holds at least [default: 20; original: 1]
    #[arg(long)]
    pub min_rows_per_leaf: Option<u64>,
    /// Rows of a node that a category needs to be placed by them, and not by where most rows go
    /// [default: 20; original: 0]
    #[arg(long)]
    pub min_rows_per_category: Option<u64>,
    /// Features that a node may choose from [default: half of them; original: square root of their
    /// number]
    #[arg(long)]
    pub features_per_node: Option<usize>,
    /// Flights that are held out of training: flight (a fifth), flight:SHARE, day:N (every Nth day)
    /// or since:YYYY-MM-DD; several are joined by commas [default: day:5]
    #[arg(long, value_name = "RULE")]
    pub holdout_by: Option<HoldOut>,
    /// Seed of all random choices [default: 1]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Feature that the model must not look at; may be repeated
    #[arg(long, value_name = "FEATURE")]
    pub without: Vec<String>,
    /// Optional feature that the model may look at; may be repeated
    #[arg(long, value_name = "FEATURE")]
    pub with: Vec<String>,
    /// Keep the model, but do not make it the champion
    #[arg(long)]
    pub no_promote: bool,
    /// Make it the champion even if it may be worse than the one before; that is written down
    #[arg(long, conflicts_with = "no_promote")]
    pub force: bool,
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
        let (base, per_node) = match self.preset {
            Preset::Default => (ForestParams::default(), n_features.div_ceil(2)),
            Preset::Original => {
                (ForestParams::original(), (n_features as f64).sqrt().round() as usize)
            }
        };
        let params = ForestParams {
            n_trees: self.trees.unwrap_or(base.n_trees),
            depth: self.depth.unwrap_or(base.depth),
            n_bins: self.bins.unwrap_or(base.n_bins),
            min_rows_per_leaf: self.min_rows_per_leaf.unwrap_or(base.min_rows_per_leaf),
            features_per_node: self.features_per_node.unwrap_or(per_node),
            min_rows_per_category: self.min_rows_per_category.unwrap_or(base.min_rows_per_category),
            bootstrap: base.bootstrap,
            holdout: self.holdout_by.clone().unwrap_or(base.holdout),
            seed: self.seed.unwrap_or(base.seed),
        };
        let params = ForestFit::new(params).check().map_err(|e| anyhow::anyhow!("--{e}"))?;
        Ok(TrainOptions {
            params,
            features,
            gate: match (self.no_promote, self.force) {
                (true, _) => Gate::Never,
                (_, true) => Gate::Force,
                _ => Gate::IfBetter,
            },
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
        say(&format!("model {}; report with plots: {url}", report.version));
    }
    Ok(result)
}

fn train_json(report: &Report) -> Value {
    let measures = |evaluation: &Evaluation| {
        let (m, flights) = (evaluation.metrics, evaluation.n_rows());
        let (loss, error) = (m.log_loss, m.calibration_error);
        json!({
            "rows": flights,
            "accuracy": m.accuracy,
            "log_loss": loss,
            "calibration_error": error,
        })
    };
    let compared = report.compared();
    let compared = compared.iter().map(|of| (of.name.clone(), measures(of.evaluation)));
    let phases = report.phases.iter().map(|phase| {
        json!({
            "name": phase.name,
            "seconds": phase.seconds,
            "cpu_seconds": phase.cpu_seconds,
            "rows": phase.n_rows,
        })
    });
    json!({
        "model": report.version,
        "phases": phases.collect::<Vec<_>>(),
        "fit_seconds": report.fit_seconds(),
        "evaluated_seconds": report.evaluated_seconds(),
        "job_seconds": report.job_seconds(),
        "train_rows": report.model.rows.training,
        "holdout_rows": report.model.rows.holdout,
        "holdout_accuracy": report.forest.metrics.accuracy,
        "holdout_log_loss": report.forest.metrics.log_loss,
        "calibration_error": report.forest.metrics.calibration_error,
        "compared": compared.collect::<serde_json::Map<_, _>>(),
        "promoted": report.promotion.decision.promotes(),
        "decision": report.promotion.sentence(),
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
    fn both_presets_can_be_had_and_changed() {
        let original = train(&["--preset", "original"]).unwrap();
        assert_eq!(*original.params.get(), ForestParams::original());
        let changed = train(&["--preset", "original", "--depth", "7", "--holdout-by", "flight"]);
        let holdout = "flight".parse().unwrap();
        let want = ForestParams { depth: 7, holdout, ..ForestParams::original() };
        assert_eq!(*changed.unwrap().params.get(), want);
        let error = train(&["--holdout-by", "week:2"]).unwrap_err().to_string();
        assert!(error.contains("--holdout-by") && error.contains("since:YYYY-MM-DD"), "{error}");
        assert_eq!(train(&["--no-promote"]).unwrap().gate, Gate::Never);
        assert_eq!(train(&["--force"]).unwrap().gate, Gate::Force);
        train(&["--force", "--no-promote"]).unwrap_err();
    }

    #[test]
    fn the_defaults_are_those_of_the_library() {
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
        assert_eq!(options.params.get().features_per_node, 5);
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
