//! `submit-job publish`: what pages are made of, to the store.

use std::time::Instant;

use anyhow::Result;
use jobs::publish::publish;
use serde_json::Value;
use store::Store;

use crate::context::JobContext;
use crate::progress::say;

/// Publishes what pages need.
pub async fn run_publish(opened: &JobContext, store: &Store) -> Result<Value> {
    let JobContext { ctx, lake, shown, .. } = opened;
    say(&format!("publishing to {}", store.describe()));
    let started = Instant::now();
    let published = publish(ctx, lake, store, &|progress| shown.show(progress)).await;
    shown.clear();
    let published = published?;
    let n_documents: u64 = published.iter().map(|(_, n)| n).sum();
    let seconds = started.elapsed().as_secs_f64();
    say(&format!(
        "published {n_documents} documents in {} collections in {seconds:.1} s",
        published.len()
    ));
    Ok(published.into_iter().map(|(name, n)| (name.to_owned(), Value::from(n))).collect())
}
