//! Searches: what lists of many flights and airplanes read, in turns and no longer than they may.

use std::time::Duration;

use tokio::time::timeout;

use crate::app::App;
use crate::http::clients::Client;
use crate::layout::page::Failure;

/// Letters of a field's name that are shown.
const FIELD_SHOWN: usize = 40;
/// How long a search may read. One whose fields have an index takes milliseconds.
pub(crate) const SEARCH_WAIT_MAX: Duration = Duration::from_secs(2);
/// How long a search waits for its turn: that of the others of a client, and one more.
const TURN_WAIT_MAX: Duration = Duration::from_secs(10);

/// Of the fields of an address, the first that nothing is searched by, as a sentence: who asks for
/// what is not there must not take all for the answer.
pub(crate) fn unknown_field(given: &[(String, String)], known: &[&str]) -> Option<String> {
    let (name, _) = given.iter().find(|(name, _)| !known.contains(&name.as_str()))?;
    let name: String = name.chars().take(FIELD_SHOWN).collect();
    Some(format!("There is no field {name} to search by; there are {}.", known.join(", ")))
}

/// Searches when it is this client's turn, and gives up what takes too long.
pub(crate) async fn searching<T>(
    app: &App,
    client: Client,
    search: impl Future<Output = anyhow::Result<T>>,
) -> Result<T, Failure> {
    let _share = app.searchers.take(Some(client)).map_err(|_| Failure::Busy)?;
    let turn = timeout(TURN_WAIT_MAX, app.searches.acquire()).await;
    let _turn = turn.map_err(|_| Failure::Busy)?;
    let found = timeout(SEARCH_WAIT_MAX, search).await.map_err(|_| Failure::TooLong)?;
    Ok(found?)
}

/// The page that is wanted, from 1, and how many documents there are, counted one further than the
/// last page goes.
pub(crate) async fn pages(
    app: &App,
    collection: &str,
    query: &store::Query,
    page_rows: u32,
    pages_max: u32,
    wanted: &str,
) -> anyhow::Result<(u32, u64)> {
    let counted = store::Query { limit: page_rows * pages_max + 1, ..query.clone() };
    let n_found = app.store.count(collection, &counted).await?;
    let n_pages = n_found.div_ceil(page_rows.into()).clamp(1, pages_max.into()) as u32;
    Ok((wanted.parse().unwrap_or(1).clamp(1, n_pages), n_found))
}
