//! Searches: what lists of many flights and airplanes read, in turns and no longer than they may.

use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::app::App;
use crate::explore::entities::find;
use crate::http::clients::Client;
use crate::layout::page::Failure;

/// Letters of a field's name that are shown.
const FIELD_SHOWN: usize = 40;
/// How long a search may read. One whose fields have an index takes milliseconds.
const SEARCH_WAIT_MAX: Duration = Duration::from_secs(2);
/// How long a search waits for its turn: that of the others of a client, and one more.
const TURN_WAIT_MAX: Duration = Duration::from_secs(10);

/// Of the fields of an address, the first that nothing is searched by, as a sentence: who asks for
/// what is not there must not take all for the answer.
pub(crate) fn unknown_field(given: &[(String, String)], known: &[&str]) -> Option<String> {
    let (name, _) = given.iter().find(|(name, _)| !known.contains(&name.as_str()))?;
    let name: String = name.chars().take(FIELD_SHOWN).collect();
    Some(format!("There is no field {name} to search by; there are {}.", known.join(", ")))
}

/// A page of what a search finds, with its number, from 1, and how many documents there are in all,
/// counted one further than the last page goes. Searches when it is this client's turn, and gives
/// up what takes too long.
pub(crate) async fn searched<T: DeserializeOwned>(
    app: &App,
    client: Client,
    collection: &str,
    query: store::Query,
    (page_rows, pages_max): (u32, u32),
    wanted: &str,
) -> Result<(u32, u64, Vec<T>), Failure> {
    let query = store::Query { patience: Some(SEARCH_WAIT_MAX), ..query };
    let search = async {
        let counted = store::Query { limit: page_rows * pages_max + 1, ..query.clone() };
        let n_found = app.store.count(collection, &counted).await?;
        let n_pages = n_found.div_ceil(page_rows.into()).clamp(1, pages_max.into()) as u32;
        let page = wanted.parse().unwrap_or(1).clamp(1, n_pages);
        if n_found == 0 {
            return anyhow::Ok((page, n_found, Vec::new()));
        }
        let query = store::Query { skip: (page - 1) * page_rows, limit: page_rows, ..query };
        Ok((page, n_found, find(&app.store, collection, &query).await?))
    };
    let _share = app.searchers.take(Some(client)).map_err(|_| Failure::Busy)?;
    let turn = timeout(TURN_WAIT_MAX, app.searches.acquire()).await;
    let _turn = turn.map_err(|_| Failure::Busy)?;
    Ok(timeout(SEARCH_WAIT_MAX, search).await.map_err(|_| Failure::TooLong)??)
}
