//! `submit-job score` and `submit-job evaluate`: a model over all flights, and over those that its
//! training held out; what became of answers is in [`live`](crate::live).

use std::time::Instant;

use anyhow::Result;
use clap::Args;
use jobs::lease::while_reading;
use jobs::models::evaluation::Evaluation;
use jobs::predict::score::{evaluate, open_model, score};
use serde_json::{Value, json};

use crate::context::JobContext;
use crate::live::LiveArgs;
use crate::progress::{print, say};

/// Arguments of `evaluate`.
#[derive(Debug, Args)]
pub struct Evaluate {
    /// Which model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// What is known since.
    #[command(flatten)]
    pub live: LiveArgs,
}

/// Which model.
#[derive(Debug, Args)]
pub struct ModelArgs {
    /// Version of the model [default: the champion]
    #[arg(long)]
    pub model: Option<String>,
}

/// Evaluates a model on the flights that its training held out, and prints its metrics as JSON.
pub async fn run_evaluate(opened: &JobContext, args: &ModelArgs) -> Result<Value> {
    let JobContext { ctx, lake, id, shown, .. } = opened;
    let model = open_model(lake, args.model.as_deref()).await?;
    let version = model.version().to_owned();
    let show = |progress| shown.show(progress);
    let evaluating = evaluate(ctx, lake, model, &show);
    let evaluated = while_reading(lake, id, &show, evaluating).await;
    shown.clear();
    let evaluated = evaluated?;
    let of = |evaluation: &Evaluation| {
        json!({
            "holdout_rows": evaluation.n_rows(),
            "metrics": evaluation.metrics,
            "confusion": evaluation.confusion,
        })
    };
    let mut result = of(&evaluated.all);
    result["model"] = json!(version);
    // after the last day of its training
    result["future_days"] = json!(evaluated.future.as_ref().map(of));
    print(&serde_json::to_string_pretty(&result)?)?;
    Ok(result)
}

/// Scores all flights.
pub async fn run_score(opened: &JobContext, args: &ModelArgs) -> Result<Value> {
    let JobContext { ctx, lake, id, shown, .. } = opened;
    let started = Instant::now();
    let model = open_model(lake, args.model.as_deref()).await?;
    let version = model.version().to_owned();
    let show = |progress| shown.show(progress);
    let scored = while_reading(lake, id, &show, score(ctx, lake, id, model, &show)).await;
    shown.clear();
    let (n_rows, url) = scored?;
    let seconds = started.elapsed().as_secs_f64();
    say(&format!("scored {n_rows} flights with {version} in {seconds:.1} s; they are in {url}"));
    Ok(json!({ "model": version, "rows": n_rows, "predictions": url }))
}
