//! `submit-job import-distances`: how far airports are from each other, to the data root and the
//! store.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use jobs::distances::{Imported, import};
use jobs::lease::while_reading;
use jobs::publish::publish_distances;
use serde_json::{Value, json};
use store::Store;

use crate::context::JobContext;
use crate::progress::say;
use crate::servers::StoreArgs;

/// Arguments of `import-distances`.
#[derive(Debug, Args)]
pub struct ImportDistances {
    /// JSON Lines of Origin, Dest and Distance in miles; without it the distances are those of the
    /// flights and of earlier imports
    pub file: Option<PathBuf>,
    /// Forget what was imported before
    #[arg(long, requires = "file")]
    pub replace: bool,
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Imports what a file says, and publishes all distances.
pub async fn run_import_distances(
    opened: &JobContext,
    store: &Store,
    args: &ImportDistances,
) -> Result<Value> {
    let JobContext { ctx, lake, id, shown, .. } = opened;
    let show = |progress| shown.show(progress);
    let imported = match &args.file {
        Some(file) => import(ctx, lake, id, (file, args.replace), &show).await,
        None => Ok(Imported::default()),
    };
    shown.clear();
    let Imported { n_new, n_updated, n_same, n_bad, bad } = imported?;
    if args.file.is_some() {
        say(&format!(
            "{n_new} distances imported, {n_updated} updated, {n_same} as they were, {n_bad} failed"
        ));
    }
    bad.iter().for_each(|why| say(&format!("  {why}")));
    if let more @ 1.. = n_bad - bad.len() as u64 {
        say(&format!("  and {more} more lines"));
    }
    let n_published = while_reading(lake, id, &show, publish_distances(ctx, lake, store)).await?;
    say(&format!("{n_published} distances are in {}", store.describe()));
    // what could be imported is; that some could not must not pass unseen
    ensure!(n_bad == 0, "{n_bad} lines were not imported");
    Ok(json!({
        "imported": n_new,
        "updated": n_updated,
        "same": n_same,
        "published": n_published,
    }))
}
