//! `flights` × a model → predictions as Parquet, and a model against the held-out flights.

use std::sync::Arc;

use anyhow::Result;
use datafusion::prelude::SessionContext;
use udf::model::scorer::Scorer;

use crate::lake::Lake;
use crate::models::evaluation::Evaluated;
use crate::models::registry;
use crate::progress::{OnProgress, stage};
use crate::sql;
use crate::train::training::{self, register_training};
use crate::write::{Place, parquet, write};

/// The model that jobs use: the one whose version begins so, or the champion.
pub async fn open_model(lake: &Lake, version: Option<&str>) -> Result<Arc<Scorer>> {
    let model = match version {
        Some(start) => registry::load_to_score(lake, &registry::find(lake, start).await?).await?,
        None => registry::champion_to_score(lake).await?,
    };
    Ok(Arc::new(model))
}

/// Scores all flights by `sql/60_predictions.sql` into `predictions/<run>/`; returns their number
/// and the URL.
pub async fn score(
    ctx: &SessionContext,
    lake: &Lake,
    run: &str,
    model: Arc<Scorer>,
    on_progress: OnProgress<'_>,
) -> Result<(u64, String)> {
    lake.register_flights(ctx).await?;
    sql::view(ctx, "features", sql::FEATURES, &[]).await?;
    let model = registry::register_one(ctx, &model);
    let directory = format!("predictions/{run}/");
    let scoring = async {
        let rows = sql::plan(ctx, sql::PREDICTIONS, &[model]).await?;
        let place = Place { directory: &directory, partitions: &[] };
        write(ctx, lake, &[rows], place, &parquet()).await
    };
    let n_rows = stage(on_progress, "scoring flights by sql/60_predictions.sql", scoring).await?;
    Ok((n_rows, lake.url(&directory)))
}

/// Evaluates a model on the flights that its training held out.
pub async fn evaluate(
    ctx: &SessionContext,
    lake: &Lake,
    model: Arc<Scorer>,
    on_progress: OnProgress<'_>,
) -> Result<Evaluated> {
    lake.register_flights(ctx).await?;
    let of_model = model.model();
    register_training(ctx, &of_model.params.holdout, &of_model.feature_names()).await?;
    let evaluating = training::evaluate(ctx, &model);
    stage(on_progress, "evaluating it by sql/50_evaluation.sql", evaluating).await
}
