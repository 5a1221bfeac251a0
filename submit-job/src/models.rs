//! `submit-job models`: what models there are, what they are like, and which one serves.

use std::sync::Arc;

use anyhow::{Result, ensure};
use clap::{Args, Subcommand};
use jobs::lake::Lake;
use jobs::lease::while_reading;
use jobs::models::promotion::{Decision, Promotion, decisions, roll_back, settle};
use jobs::models::registry;
use jobs::progress::Progress;
use jobs::train::gate::{Candidate, Gate, judge};
use serde_json::{Value, json};
use udf::model::artefact::Model;

use crate::context::JobContext;
use crate::progress::{print, say};

/// Characters of a version in lists: enough to name it.
const VERSION_SHOWN: usize = 12;

/// Arguments of `models`.
#[derive(Debug, Args)]
pub struct Models {
    /// What to do
    #[command(subcommand)]
    pub action: Action,
}

/// What to do with models. A model is named by its version or the beginning of it.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// All models, the champion first, then those that were champion before
    List,
    /// All that is known of a model but its trees, as JSON
    Show {
        /// Model [default: the champion]
        model: Option<String>,
    },
    /// Make a model the champion; streams take it within a second
    Promote {
        /// Model
        model: String,
        /// Only if it is no worse than the champion on the flights that both held out
        #[arg(long)]
        if_better: bool,
    },
    /// Make the champion before the present one the champion again
    Rollback,
    /// What is different between two models
    Diff {
        /// Model
        model: String,
        /// Model that it is compared with [default: the champion]
        other: Option<String>,
    },
}

impl Models {
    /// The model that is to be promoted if it is no worse than the champion.
    pub fn contender(&self) -> Option<&str> {
        match &self.action {
            Action::Promote { model, if_better: true } => Some(model),
            _ => None,
        }
    }
}

/// Promotes a saved model if it is no worse than the champion, and says what was decided.
pub async fn promote_if_better(opened: &JobContext, model: &str) -> Result<()> {
    let JobContext { ctx, lake, id, shown, .. } = opened;
    let version = registry::find(lake, model).await?;
    let candidate = Arc::new(registry::load_to_score(lake, &version).await?);
    let show = |progress: Progress| shown.show(progress);
    let judging = async {
        lake.register_flights(ctx).await?;
        let judged = Candidate { version: &version, scorer: &candidate, evaluated: None };
        judge(ctx, lake, id, judged, Gate::IfBetter).await
    };
    let judged = while_reading(lake, id, &show, judging).await;
    shown.clear();
    let (promotion, _) = judged?;
    settle(lake, &version, &promotion).await?;
    print(&format!("{version}: {}", promotion.sentence()))
}

/// Does it.
pub async fn run_models(lake: &Lake, args: &Models) -> Result<()> {
    match &args.action {
        Action::List => list(lake).await,
        Action::Show { model } => {
            let (version, model) = open(lake, model.as_deref()).await?;
            let mut shown = summary(&version, &model);
            let decided = decisions(lake, &version).await?;
            shown["decisions"] = decided.iter().map(Promotion::sentence).collect();
            print(&serde_json::to_string_pretty(&shown)?)?;
            Ok(())
        }
        Action::Promote { model, .. } => {
            let version = registry::find(lake, model).await?;
            // what cannot score must not serve
            registry::load_to_score(lake, &version).await?;
            if registry::champion_version(lake).await?.as_ref() == Some(&version) {
                say(&format!("{version} is the champion already"));
                return Ok(());
            }
            let promotion = Promotion::new(Decision::Forced, "models promote");
            settle(lake, &version, &promotion).await?;
            say(&format!("champion is now {version}"));
            Ok(())
        }
        Action::Rollback => {
            let (gone, back) = roll_back(lake, "models rollback", None, None).await?;
            say(&format!("champion is {back} again; {gone} is not any more"));
            Ok(())
        }
        Action::Diff { model, other } => {
            let (version, model) = open(lake, Some(model)).await?;
            let (other_version, other) = open(lake, other.as_deref()).await?;
            let (left, right) = (summary(&version, &model), summary(&other_version, &other));
            let mut lines = Vec::new();
            differences("", &left, &right, &mut lines);
            lines.iter().try_for_each(|line| print(line))?;
            Ok(())
        }
    }
}

/// The model that `start` names, or the champion.
async fn open(lake: &Lake, start: Option<&str>) -> Result<(String, Model)> {
    let version = match start {
        Some(start) => registry::find(lake, start).await?,
        None => {
            let champion = registry::champion_version(lake).await?;
            ensure!(champion.is_some(), "there is no champion under {}", lake.root());
            champion.unwrap_or_default()
        }
    };
    let scorer = registry::load(lake, &version).await?;
    Ok((version, scorer.model().clone()))
}

async fn list(lake: &Lake) -> Result<()> {
    let champions = registry::champions(lake).await?;
    let mut versions = registry::list(lake).await?;
    let rank = |version: &String| champions.iter().position(|champion| champion == version);
    versions.sort_by_key(|version| rank(version).unwrap_or(usize::MAX));
    print("MODEL         ROLE      TREES  DEPTH  FEATURES  ROWS       ACCURACY  LOG LOSS")?;
    for version in versions {
        let shown = &version[..VERSION_SHOWN];
        let role = match rank(&version) {
            Some(0) => "champion",
            Some(_) => "before",
            None => "-",
        };
        match registry::load(lake, &version).await {
            Ok(scorer) => {
                let Model { params, features, rows, holdout, .. } = scorer.model();
                // where nothing was held out, there are no measures
                let measure = |measure: f64| match rows.holdout {
                    0 => "-".to_owned(),
                    _ => format!("{measure:.4}"),
                };
                print(&format!(
                    "{shown}  {role:8}  {:>5}  {:>5}  {:>8}  {:<9}  {:>8}  {:>8}",
                    params.n_trees,
                    params.depth,
                    features.len(),
                    rows.training,
                    measure(holdout.accuracy),
                    measure(holdout.log_loss)
                ))?;
            }
            Err(error) => print(&format!("{shown}  {role:8}  cannot be read: {error:#}"))?,
        }
    }
    Ok(())
}

/// What a person compares of a model: all but the trees and the bins.
fn summary(version: &str, model: &Model) -> Value {
    let features = model.features.iter().zip(&model.importances).map(|(spec, importance)| {
        let of = json!({ "codes": spec.encoding.n_indices(), "importance": importance });
        (spec.name.clone(), of)
    });
    json!({
        "model": version,
        "format": model.format,
        "params": model.params,
        "sql_sha256": model.sql_sha256,
        "rows": model.rows,
        "days": model.days,
        "data": model.data,
        "temperature": model.temperature,
        "holdout": model.holdout,
        "features": features.collect::<serde_json::Map<_, _>>(),
        "nodes": model.trees.iter().map(|tree| tree.nodes.len()).sum::<usize>(),
        "has_sample": model.reference.is_some(),
    })
}

/// A line for each value that is not the same: its path, and what it is in each.
fn differences(path: &str, left: &Value, right: &Value, lines: &mut Vec<String>) {
    match (left, right) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
            for key in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let value = |of: &serde_json::Map<String, Value>| of.get(key).cloned();
                let (a, b) = (value(a).unwrap_or_default(), value(b).unwrap_or_default());
                differences(&path, &a, &b, lines);
            }
        }
        _ if left != right => lines.push(format!("{path}: {left} | {right}")),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_told_by_its_path_and_what_is_the_same_is_not() {
        let left = json!({ "a": 1, "b": { "c": 2, "d": 3 }, "only": true });
        let right = json!({ "a": 1, "b": { "c": 5, "d": 3, "e": "x" } });
        let mut lines = Vec::new();
        differences("", &left, &right, &mut lines);
        assert_eq!(lines, ["b.c: 2 | 5", "b.e: null | \"x\"", "only: true | null"]);
    }
}
