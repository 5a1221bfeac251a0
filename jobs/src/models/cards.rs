//! Saved models → the collection `models`: what pages show of each, without its trees.

use anyhow::Result;
use events::{CalibrationBin, Importance, ModelCard};
use udf::model::artefact::Model;

use crate::lake::Lake;
use crate::models::evaluation::{Bin, Evaluation};
use crate::models::promotion::{self, Promotion};
use crate::models::registry;

/// Largest card or evaluation that is read, in bytes; one has some hundred numbers.
const CARD_BYTES_MAX: usize = 64 * 1024;
/// Models that are shown, the latest champions first.
const MODELS_MAX: usize = 50;

fn card_of(version: &str) -> String {
    format!("models/{version}.card.json")
}

/// Keeps what the pages show of a model, so that its trees need not be read for it.
pub async fn save(lake: &Lake, card: &ModelCard) -> Result<()> {
    lake.put(&card_of(&card.version), serde_json::to_vec(card)?).await
}

/// The calibration bins of an evaluation.
pub fn bins(evaluation: &Evaluation) -> Vec<CalibrationBin> {
    let bin = |bin: &Bin| CalibrationBin {
        flights: bin.n_rows,
        right: bin.n_right,
        mean_confidence: bin.confidence_billionths as f64 / 1e9 / bin.n_rows.max(1) as f64,
    };
    evaluation.calibration.iter().map(bin).collect()
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
        let kept = lake.get(&card_of(&version), CARD_BYTES_MAX).await?;
        // what cannot be read is as if it was not kept
        let kept = kept.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let card = match kept {
            Some(card) => card,
            None => match of_artefact(lake, &version).await? {
                Some(card) => card,
                None => continue,
            },
        };
        // it may have been promoted since
        let decisions = promotion::decisions(lake, &version).await?;
        let decision = decisions.first().map_or(String::new(), Promotion::sentence);
        cards.push(ModelCard { role: role.to_owned(), rank: i as u64, decision, ..card });
    }
    Ok(cards)
}

/// The card of a model that has none: those of format 1 have their evaluation apart. `None` when
/// the artefact cannot be read; `submit-job models list` says why.
async fn of_artefact(lake: &Lake, version: &str) -> Result<Option<ModelCard>> {
    let Ok(scorer) = registry::load(lake, version).await else { return Ok(None) };
    let name = format!("models/{version}.evaluation.json");
    let kept = lake.get(&name, CARD_BYTES_MAX).await?;
    let kept = kept.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let (confusion, calibration) = kept.unwrap_or_default();
    Ok(Some(ModelCard { confusion, calibration, ..card(version, scorer.model()) }))
}

/// What an artefact says of itself.
pub fn card(version: &str, model: &Model) -> ModelCard {
    let mut importances: Vec<Importance> = model
        .features
        .iter()
        .zip(&model.importances)
        .map(|(spec, &share)| Importance { feature: spec.name.clone(), share, permuted: None })
        .collect();
    importances.sort_by(|a, b| b.share.total_cmp(&a.share));
    ModelCard {
        version: version.to_owned(),
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
        uncalibrated: Vec::new(),
        calibration_error: model.holdout.calibration_error,
        held_out_by: model.params.holdout.to_string(),
        compared: Vec::new(),
        decision: String::new(),
    }
}
