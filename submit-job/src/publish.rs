//! `submit-job publish`: what pages are made of, to the store.

use std::time::Instant;

use anyhow::Result;
use clap::Args;
use jobs::lease::while_reading;
use jobs::publish::publish;
use serde_json::Value;
use store::Store;

use crate::context::JobContext;
use crate::progress::say;
use crate::servers::StoreArgs;

/// Arguments of `publish`.
#[derive(Debug, Args)]
pub struct Publish {
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Make the collections too whose flights have not changed
    #[arg(long)]
    pub again: bool,
}

/// Publishes what pages need: what has changed, or all of it `again`.
pub async fn run_publish(opened: &JobContext, store: &Store, again: bool) -> Result<Value> {
    let JobContext { ctx, lake, id, shown, .. } = opened;
    say(&format!("publishing to {}", store.describe()));
    let started = Instant::now();
    let show = |progress| shown.show(progress);
    let publishing = publish(ctx, lake, store, again, &show);
    let published = while_reading(lake, id, &show, publishing).await;
    shown.clear();
    let published = published?;
    let n_documents: u64 = published.iter().map(|published| published.n_documents).sum();
    let n_old = published.iter().filter(|published| !published.is_new).count();
    let unchanged = match n_old {
        0 => String::new(),
        n => format!("; {n} of them had not changed"),
    };
    let seconds = started.elapsed().as_secs_f64();
    say(&format!(
        "published {n_documents} documents in {} collections in {seconds:.1} s{unchanged}",
        published.len()
    ));
    let numbers =
        published.into_iter().map(|p| (p.collection.to_owned(), Value::from(p.n_documents)));
    Ok(numbers.collect())
}
