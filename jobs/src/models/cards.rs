//! Saved models → the collection `models`: what pages show of each, without its trees.

use anyhow::Result;
use events::{CalibrationBin, Importance, ModelCard};
use udf::model::artefact::Model;

use crate::lake::Lake;
use crate::models::evaluation::Evaluation;
use crate::models::registry;

/// Largest evaluation that is read, in bytes; one has some hundred numbers.
const EVALUATION_BYTES_MAX: usize = 64 * 1024;
/// Models that are shown, the latest champions first.
const MODELS_MAX: usize = 50;

fn evaluation_of(version: &str) -> String {
    format!("models/{version}.evaluation.json")
}

/// Keeps what the pages show of how a model was evaluated.
pub async fn save_evaluation(lake: &Lake, version: &str, evaluation: &Evaluation) -> Result<()> {
    let calibration = evaluation.calibration.iter().map(|bin| CalibrationBin {
        flights: bin.n_rows,
        right: bin.n_right,
        mean_confidence: bin.confidence_billionths as f64 / 1e9 / bin.n_rows.max(1) as f64,
    });
    let kept = (evaluation.confusion, calibration.collect::<Vec<_>>());
    lake.put(&evaluation_of(version), serde_json::to_vec(&kept)?).await
}

/// The cards of the saved models: the champion, those before it, then the others.
pub async fn cards(lake: &Lake) -> Result<Vec<ModelCard>> {
    let champions = registry::champions(lake).await?;
    let mut versions = registry::list(lake).await?;
    let rank = |version: &String| champions.iter().position(|champion| champion == version);
    versions.sort_by_key(|version| rank(version).unwrap_or(usize::MAX));
    let mut cards = Vec::new();
    for (i, version) in versions.into_iter().take(MODELS_MAX).enumerate() {
        let role = match rank(&version) {
            Some(0) => "champion",
            Some(_) => "before",
            None => "never champion",
        };
        // one that cannot be read is not shown; `submit-job models list` says why
        let Ok(scorer) = registry::load(lake, &version).await else { continue };
        let name = evaluation_of(&version);
        let kept = lake.get(&name, EVALUATION_BYTES_MAX).await?;
        // what cannot be read is as if it was not kept
        let kept = kept.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let (confusion, calibration) = kept.unwrap_or_default();
        cards.push(ModelCard {
            role: role.to_owned(),
            rank: i as u64,
            confusion,
            calibration,
            ..card(version, scorer.model())
        });
    }
    Ok(cards)
}

fn card(version: String, model: &Model) -> ModelCard {
    let mut importances: Vec<Importance> = model
        .features
        .iter()
        .zip(&model.importances)
        .map(|(spec, share)| Importance { feature: spec.name.clone(), share: *share })
        .collect();
    importances.sort_by(|a, b| b.share.total_cmp(&a.share));
    ModelCard {
        version,
        role: String::new(),
        rank: 0,
        trees: model.params.n_trees as u64,
        depth: model.params.depth.into(),
        training_rows: model.rows.training,
        holdout_rows: model.rows.holdout,
        accuracy: model.holdout.accuracy,
        precision: model.holdout.precision,
        recall: model.holdout.recall,
        f1: model.holdout.f1,
        log_loss: model.holdout.log_loss,
        base_rates: model.base_rates(),
        importances,
        confusion: Default::default(),
        calibration: Vec::new(),
    }
}
