//! `flights` → the collections that pages are made of, each by the step of its name.

mod documents;

use anyhow::{Context, Result};
use datafusion::prelude::{SessionContext, ident};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use store::{Query, Store};
use tracing::Instrument;

use crate::lake::Lake;
use crate::models::cards;
use crate::progress::{OnProgress, Progress};
pub(crate) use crate::publish::documents::documents;
use crate::references::REFERENCES;
use crate::sql::{self, Step};

/// Another one whenever documents are made otherwise than before by the same steps.
const FORMAT: &str = "1";

/// A collection and what its documents are found by.
#[derive(Clone, Copy)]
struct Collection {
    name: &'static str,
    step: Step,
    /// Fields that are searched by, with those that are sorted by after them.
    indexes: &'static [&'static [&'static str]],
    /// Fields of which no two documents have the same.
    unique: &'static [&'static str],
}

const fn small(name: &'static str, step: Step) -> Collection {
    Collection { name, step, indexes: &[], unique: &[] }
}

const DISTANCES: Collection = Collection {
    unique: &["Origin", "Dest"],
    ..small(events::ORIGIN_DEST_DISTANCES, sql::ORIGIN_DEST_DISTANCES)
};

const COLLECTIONS: [Collection; 12] = [
    small(events::AIRLINES, sql::AIRLINES),
    Collection {
        indexes: &[&["Carrier", "_id"], &["Manufacturer", "_id"], &["Model", "_id"]],
        ..small(events::AIRPLANES, sql::AIRPLANES)
    },
    small(events::AIRPLANES_PER_CARRIER, sql::AIRPLANES_PER_CARRIER),
    small(events::MANUFACTURERS, sql::MANUFACTURERS),
    Collection { indexes: &[&["Flights"]], ..small(events::AIRPORTS, sql::AIRPORTS) },
    DISTANCES,
    Collection {
        indexes: &[&["Flights"], &["Origin", "Flights"], &["Dest", "Flights"]],
        ..small(events::ROUTES, sql::ROUTES)
    },
    Collection {
        indexes: &[&["Carrier", "Flights"], &["Origin", "Dest", "Flights"]],
        ..small(events::CARRIER_ROUTES, sql::CARRIER_ROUTES)
    },
    small(events::FLIGHTS_BY_MONTH, sql::FLIGHTS_BY_MONTH),
    small(events::DELAYS_BY_WEEK, sql::DELAYS_BY_WEEK),
    small(events::DELAYS_BY_HOUR, sql::DELAYS_BY_HOUR),
    Collection {
        indexes: &[
            &["FlightDate", "CRSDepTime", "_id"],
            &["Carrier", "FlightDate", "CRSDepTime", "_id"],
            &["FlightNum", "FlightDate", "CRSDepTime", "_id"],
            &["TailNum", "FlightDate", "CRSDepTime", "_id"],
            &["Origin", "Dest", "FlightDate", "CRSDepTime", "_id"],
            &["Carrier", "Origin", "FlightDate", "CRSDepTime", "_id"],
            &["Carrier", "Dest", "FlightDate", "CRSDepTime", "_id"],
            &["Origin", "FlightDate", "CRSDepTime", "_id"],
            &["Dest", "FlightDate", "CRSDepTime", "_id"],
        ],
        ..small(events::ON_TIME_PERFORMANCE, sql::ON_TIME_PERFORMANCE)
    },
];

/// A collection that is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Its name.
    pub collection: &'static str,
    /// Documents in it.
    pub n_documents: u64,
    /// Whether it was made now; otherwise it had been made from the same before.
    pub is_new: bool,
}

/// What a collection was made from, as it is kept in [`events::PUBLICATIONS`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Publication {
    made_from: String,
    documents: u64,
}

/// Makes the collections anew whose flights or steps have changed, or all of them `again`.
/// Idempotent; each one is replaced as a whole, so that what has gone is gone and no reader sees
/// half of it.
pub async fn publish(
    ctx: &SessionContext,
    lake: &Lake,
    store: &Store,
    again: bool,
    on_progress: OnProgress<'_>,
) -> Result<Vec<Published>> {
    lake.register_flights(ctx).await?;
    let made_from = made_from(ctx, lake).await?;
    sql::view(ctx, "airplanes", sql::AIRPLANES, &[]).await?;
    let mut published = Vec::new();
    for collection in &COLLECTIONS {
        let known = match again {
            true => None,
            false => unchanged(store, collection.name, &made_from).await?,
        };
        let n_documents = match known {
            Some(n_documents) => n_documents,
            None => make(ctx, store, collection, &made_from).await?,
        };
        let is_new = known.is_none();
        published.push(Published { collection: collection.name, n_documents, is_new });
        on_progress(Progress::Published { collection: collection.name, n_documents });
    }
    let cards = cards::cards(lake).await?;
    let cards = cards.iter().map(serde_json::to_value).collect::<serde_json::Result<Vec<_>>>()?;
    let mut replacement = store.replace(events::MODELS).await?;
    replacement.add(&cards).await?;
    let n_documents = replacement.finish(&[], &[]).await?;
    on_progress(Progress::Published { collection: events::MODELS, n_documents });
    published.push(Published { collection: events::MODELS, n_documents, is_new: true });
    Ok(published)
}

/// Makes the collection of distances anew; returns its number of documents.
pub async fn publish_distances(ctx: &SessionContext, lake: &Lake, store: &Store) -> Result<u64> {
    lake.register_table(ctx, "distances", "distances/", &[]).await?;
    make(ctx, store, &DISTANCES, &made_from(ctx, lake).await?).await
}

/// Makes known what pages say beside flights; returns a digest of all that they are made from.
async fn made_from(ctx: &SessionContext, lake: &Lake) -> Result<String> {
    let mut digest = Sha256::new();
    digest.update(FORMAT);
    digest.update(lake.fingerprint(&["flights/", "distances/"]).await?);
    for Collection { name, step, indexes, unique } in COLLECTIONS {
        digest.update(format!("{name} {indexes:?} {unique:?} {}", step.text));
    }
    for reference in REFERENCES {
        digest.update(reference.register(ctx, lake).await?);
    }
    Ok(format!("{:x}", digest.finalize()))
}

/// The number of documents of a collection that was made from the same and is still there.
async fn unchanged(store: &Store, collection: &str, made_from: &str) -> Result<Option<u64>> {
    let Some(document) = store.get(events::PUBLICATIONS, collection).await? else {
        return Ok(None);
    };
    let all = Query { limit: u32::MAX, ..Query::default() };
    // one that a later version wrote says nothing
    let known = serde_json::from_value(document).ok();
    let known = known.filter(|known: &Publication| known.made_from == made_from);
    let Some(known) = known else { return Ok(None) };
    let n_documents = store.count(collection, &all).await?;
    Ok(Some(known.documents).filter(|known| *known == n_documents))
}

/// Makes a collection, in the order of its `_id`s: databases keep it so, and what comes in order is
/// appended.
async fn make(
    ctx: &SessionContext,
    store: &Store,
    collection: &Collection,
    made_from: &str,
) -> Result<u64> {
    let Collection { name, step, indexes, unique } = *collection;
    // until it is made it was made from nothing, whatever becomes of this process
    remember(store, name, "", 0).await?;
    let documents_of_step = sql::plan(ctx, step, &[]).await?;
    let in_order = documents_of_step.sort(vec![ident("_id").sort(true, false)])?;
    let writing = async {
        let mut batches = in_order.execute_stream().await?;
        let mut replacement = store.replace(name).await?;
        while let Some(batch) = batches.try_next().await.context(step.file)? {
            replacement.add(&documents(&batch)?).await?;
        }
        replacement.finish(indexes, unique).await
    };
    let n_documents = writing.instrument(step.span()).await?;
    remember(store, name, made_from, n_documents).await?;
    Ok(n_documents)
}

/// Keeps what a collection was made from.
async fn remember(store: &Store, name: &str, made_from: &str, documents: u64) -> Result<()> {
    let publication = Publication { made_from: made_from.to_owned(), documents };
    let mut publication = serde_json::to_value(publication)?;
    publication["_id"] = name.into();
    Ok(store.upsert(events::PUBLICATIONS, &[publication]).await?)
}
