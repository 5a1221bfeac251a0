//! Flights as messages, to be asked about and landed once more.

use anyhow::{Context, Result};
use chrono::NaiveDate;
use datafusion::common::ScalarValue;
use datafusion::prelude::{SessionContext, col, lit};
use futures::TryStreamExt;
use serde_json::Value;

use crate::lake::Lake;
use crate::publish::documents;

/// What a message calls the columns of flights: those of a request, and of an arrival.
const FIELDS: [(&str, &str); 9] = [
    ("flight_date", "FlightDate"),
    ("carrier", "Carrier"),
    ("flight_number", "FlightNum"),
    ("origin", "Origin"),
    ("dest", "Dest"),
    ("dep_delay_minutes", "DepDelay"),
    ("arr_delay_minutes", "ArrDelay"),
    ("cancelled", "Cancelled"),
    ("diverted", "Diverted"),
];

/// The first `n_max` flights that left on `day` and arrived, in the order of their schedule: each
/// is an [`Arrival`](events::Arrival), and with a UUID a request as well.
pub async fn flights_of(
    ctx: &SessionContext,
    lake: &Lake,
    day: NaiveDate,
    n_max: usize,
) -> Result<Vec<Value>> {
    lake.register_table(ctx, "flights", "flights/", &["year", "month"]).await?;
    let of_day = col("flight_date").eq(lit(ScalarValue::Date32(Some(day.to_epoch_days()))));
    let is_known =
        col("dep_delay_minutes").is_not_null().and(col("arr_delay_minutes").is_not_null());
    let order = ["crs_dep_minutes", "flight_id"].map(|name| col(name).sort(true, false));
    let rows = ctx.table("flights").await?.filter(of_day.and(is_known))?.sort(order.to_vec())?;
    let fields = FIELDS.map(|(column, field)| col(column).alias(field));
    let rows = rows.limit(0, Some(n_max))?.select(fields)?;
    let batches: Vec<_> = rows.execute_stream().await?.try_collect().await.context("flights")?;
    let messages: Result<Vec<_>> = batches.iter().map(documents).collect();
    Ok(messages?.into_iter().flatten().collect())
}
