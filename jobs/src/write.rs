//! Rows → Parquet under the data root, each row once.
//!
//! On a cluster a task that died is run again, and what its first run had written stays. So what is
//! there is counted against what the query says that it wrote, and written again when they differ.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::{Int64Type, UInt64Type};
use datafusion::common::config::TableParquetOptions;
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use datafusion::prelude::{DataFrame, SessionContext, lit};
use tracing::{Instrument, info_span};

use crate::lake::Lake;

/// Times that rows are written at most.
const ATTEMPTS_MAX: u32 = 3;
/// The relation under which what was written is counted.
const WRITTEN: &str = "written";

/// Rows that go to a place of their own.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The directory, relative to the data root; what is there is deleted first.
    pub directory: &'a str,
    /// Columns of integers whose values name directories.
    pub partitions: &'a [&'a str],
}

/// Level of compression with zstd.
const ZSTD_LEVEL: i32 = 3;

/// How tables are written: small, because they are kept.
pub fn parquet() -> TableParquetOptions {
    let mut parquet = TableParquetOptions::default();
    parquet.global.compression = Some(format!("zstd({ZSTD_LEVEL})"));
    parquet
}

/// The same for a file that is written without a query, in groups of so many rows.
pub(crate) fn file_properties(group_rows: usize) -> Result<WriterPropertiesBuilder> {
    let compression = Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?);
    let properties = WriterProperties::builder().set_compression(compression);
    Ok(properties.set_max_row_group_row_count(Some(group_rows)))
}

/// Writes the rows of all `frames`, side by side; returns their number.
pub async fn write(
    ctx: &SessionContext,
    lake: &Lake,
    frames: &[DataFrame],
    place: Place<'_>,
    parquet: &TableParquetOptions,
) -> Result<u64> {
    let span = info_span!(target: telemetry::SPAN, "write", tarmac.directory = place.directory);
    write_whole(ctx, lake, frames, place, parquet).instrument(span).await
}

/// As often as it takes until what is there is what was written.
async fn write_whole(
    ctx: &SessionContext,
    lake: &Lake,
    frames: &[DataFrame],
    place: Place<'_>,
    parquet: &TableParquetOptions,
) -> Result<u64> {
    let Place { directory, partitions } = place;
    let url = lake.url(directory);
    for attempt in 1..=ATTEMPTS_MAX {
        lake.delete_below(directory).await?;
        let writing = frames.iter().map(|frame| {
            let partitions = partitions.iter().map(|p| (*p).to_owned()).collect();
            let options = DataFrameWriteOptions::new().with_partition_by(partitions);
            frame.clone().write_parquet(&url, options, Some(parquet.clone()))
        });
        let written = futures::future::try_join_all(writing).await.with_context(|| url.clone())?;
        let n_written: u64 = written.iter().flatten().map(rows_said).sum();
        let n_there = rows_there(ctx, lake, place).await?;
        if n_written == n_there {
            if let (0, true, Some(frame)) = (n_there, partitions.is_empty(), frames.first()) {
                put_empty(lake, directory, frame).await?;
            }
            return Ok(n_there);
        }
        tracing::warn!(url, n_written, n_there, attempt, "rows are there twice, written again");
    }
    bail!("{url} does not hold what was written, {ATTEMPTS_MAX} times in a row")
}

/// Writes a file without rows: a table that nobody wrote a row of has columns all the same.
async fn put_empty(lake: &Lake, directory: &str, frame: &DataFrame) -> Result<()> {
    let schema = Arc::clone(frame.schema().inner());
    let writer = ArrowWriter::try_new(Vec::new(), schema, None)?;
    lake.put(&format!("{directory}empty.parquet"), writer.into_inner()?).await
}

fn rows_said(batch: &RecordBatch) -> u64 {
    batch.column(0).as_primitive::<UInt64Type>().values().iter().sum()
}

/// Number of rows in the files, by their footers.
async fn rows_there(ctx: &SessionContext, lake: &Lake, place: Place<'_>) -> Result<u64> {
    if lake.list(place.directory).await?.is_empty() {
        return Ok(0);
    }
    lake.register_table(ctx, WRITTEN, place.directory, place.partitions).await?;
    let counted = ctx.table(WRITTEN).await?.aggregate(vec![], vec![count(lit(1))])?;
    let counted = counted.collect().await;
    ctx.deregister_table(WRITTEN)?;
    let counted = counted?;
    let n_rows = counted.iter().flat_map(|b| b.column(0).as_primitive::<Int64Type>().values());
    Ok(n_rows.sum::<i64>().unsigned_abs())
}
