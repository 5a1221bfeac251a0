//! `training` → `indices`: what the passes over the rows read, made once a run.
//!
//! In memory when it fits, else as Parquet under the data root, as always on a cluster. A file is
//! written by one task from its first row to its last, so the months of the flights are dealt out
//! and each part is encoded and written on its own, side by side; no row crosses the network.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use datafusion::common::config::TableParquetOptions;
use datafusion::datasource::MemTable;
use datafusion::prelude::{DataFrame, Expr, SessionContext, col, lit};
use tracing::Instrument;
use udf::functions::indices::FeatureIndices;
use udf::functions::load::Load;
use udf::model::holdout::HoldOut;

use crate::deal::deal;
use crate::lake::Lake;
use crate::sql;
use crate::train::checkpoint::{Checkpoint, indices_path};
use crate::train::training::register_training;
use crate::write::{Place, write};

/// Rows of the smallest part of a file that is read on its own: small, so that the parts spread
/// evenly over the cores; large, so that beginning one costs little.
const GROUP_ROWS: usize = 256 * 1024;

/// Makes the relation `indices` of the training run of `at`.
pub async fn materialise(
    ctx: &SessionContext,
    lake: &Lake,
    run: &str,
    at: &mut Checkpoint,
    bytes_max: u64,
) -> Result<()> {
    ctx.register_udf(FeatureIndices::new(Load::from(at.specs.clone())).into());
    let written = indices_path(run);
    if !at.indices_are_written {
        let key_and_day = size_of::<i64>() + size_of::<i32>();
        let bytes_per_row = key_and_day + size_of::<u8>() + at.specs.len() * size_of::<u16>();
        if at.n_training * bytes_per_row as u64 <= bytes_max {
            let indices = sql::plan(ctx, sql::INDICES, &[]).await?;
            let schema = Arc::clone(indices.schema().inner());
            let rows = indices.collect_partitioned().instrument(sql::INDICES.span()).await?;
            let table = MemTable::try_new(schema, rows)?;
            ctx.deregister_table("indices")?;
            ctx.register_table("indices", Arc::new(table))?;
            return Ok(());
        }
        let used: Vec<String> = at.specs.iter().map(|spec| spec.name.clone()).collect();
        let parts = parts(ctx, lake, &at.growth.params().holdout, &used).await?;
        let place = Place { directory: &written, partitions: &[] };
        write(ctx, lake, &parts, place, &parquet()).await?;
        at.indices_are_written = true;
        at.save(lake, run).await?;
    }
    lake.register_table(ctx, "indices", &written, &[]).await
}

/// The indices of the flights in parts, one a core, each of whole months and made by one task.
async fn parts(
    ctx: &SessionContext,
    lake: &Lake,
    holdout: &HoldOut,
    used: &[String],
) -> Result<Vec<DataFrame>> {
    let n_parts = ctx.state().config().target_partitions();
    let mut parts = Vec::new();
    for months in deal(months(lake).await?, n_parts) {
        let is_in = months
            .into_iter()
            .map(|(year, month)| col("year").eq(lit(year)).and(col("month").eq(lit(month))));
        let Some(is_in) = is_in.reduce(Expr::or) else { continue };
        // the steps are planned over the part under the name of the whole
        let part = ctx.table("flights").await?.filter(is_in)?.into_view();
        ctx.deregister_table("flights")?;
        ctx.register_table("flights", part)?;
        register_training(ctx, holdout, used).await?;
        let (mut state, plan) = sql::plan(ctx, sql::INDICES, &[]).await?.into_parts();
        state.config_mut().options_mut().execution.target_partitions = 1;
        parts.push(DataFrame::new(state, plan));
        lake.register_flights(ctx).await?;
    }
    register_training(ctx, holdout, used).await?;
    Ok(parts)
}

/// The months of the flights, with the bytes of their files.
async fn months(lake: &Lake) -> Result<BTreeMap<(i32, i32), u64>> {
    let mut months = BTreeMap::new();
    for (name, size) in lake.sizes("flights/").await? {
        let number = |key: &str| -> Option<i32> {
            name.split('/').find_map(|part| part.strip_prefix(key)?.parse().ok())
        };
        let month = number("year=").zip(number("month="));
        let month = month.with_context(|| format!("{} is not in a month", lake.url(&name)))?;
        *months.entry(month).or_default() += size;
    }
    Ok(months)
}

/// How indices are written: they are read as a whole, over and over, and then deleted.
fn parquet() -> TableParquetOptions {
    let mut parquet = TableParquetOptions::default();
    parquet.global.compression = Some("uncompressed".into());
    parquet.global.dictionary_enabled = Some(false);
    parquet.global.statistics_enabled = Some("none".into());
    parquet.global.max_row_group_size = GROUP_ROWS;
    parquet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_are_dealt_evenly_and_none_is_lost() {
        let months: BTreeMap<_, _> = (1..=12).map(|m| ((2013, m), 100 + m as u64)).collect();
        for n in [1, 2, 5, 12, 40] {
            let parts = deal(months.clone(), n);
            assert_eq!(parts.len(), n.min(12));
            let mut all: Vec<_> = parts.iter().flatten().copied().collect();
            all.sort();
            assert!(all.iter().eq(months.keys()), "{n} parts");
            let sizes = parts.iter().map(|part| part.iter().map(|month| months[month]).sum());
            let sizes: Vec<u64> = sizes.collect();
            let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
            assert!(most - least <= 112, "{sizes:?}");
        }
    }
}
