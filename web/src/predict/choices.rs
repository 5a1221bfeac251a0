//! The lists of airlines and airports that forms offer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use events::{AIRLINES, AIRPORTS};
use parking_lot::Mutex;
use store::{Query, Store};

/// Entries of a list in the form. The world has about a thousand carriers and four thousand
/// airports with scheduled flights; a page may not grow beyond that.
const CHOICES_MAX: u32 = 5_000;

/// How long the lists are kept: what is published changes about once a day.
const CHOICES_KEPT: Duration = Duration::from_secs(10);

/// What can be chosen in a list: codes with their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) code: String,
    pub(crate) name: String,
}

/// The lists that the form offers; other codes may be typed.
#[derive(Debug, Default)]
pub(crate) struct Choices {
    pub(crate) airlines: Vec<Choice>,
    pub(crate) airports: Vec<Choice>,
}

/// The lists as they were read last, and when that was.
#[derive(Debug, Default)]
pub(crate) struct KeptChoices(Mutex<Option<(Instant, Arc<Choices>)>>);

impl KeptChoices {
    /// The lists of the form, kept for a while; empty ones when the store is away, because codes
    /// can be typed as well.
    pub(crate) async fn read(&self, store: &Store) -> Arc<Choices> {
        let kept = self.0.lock().clone();
        if let Some((_, choices)) = kept.filter(|(read, _)| read.elapsed() < CHOICES_KEPT) {
            return choices;
        }
        let (airlines, airports) = tokio::join!(list(store, AIRLINES), list(store, AIRPORTS));
        let choices = Arc::new(Choices { airlines, airports });
        if !choices.airlines.is_empty() {
            let kept = Some((Instant::now(), Arc::clone(&choices)));
            *self.0.lock() = kept;
        }
        choices
    }
}

async fn list(store: &Store, collection: &str) -> Vec<Choice> {
    let query = Query { limit: CHOICES_MAX, ..Query::default() };
    let documents = store.find(collection, &query).await.unwrap_or_else(|error| {
        tracing::error!(collection, "cannot read a list of the form: {error:#}");
        Vec::new()
    });
    let choice = |document: &serde_json::Value| {
        let text = |field| document.get(field)?.as_str().map(str::to_owned);
        Some(Choice { code: text("_id")?, name: text("Name").unwrap_or_default() })
    };
    documents.iter().filter_map(choice).collect()
}
