//! Rows that were refused: `rejects/<run>/` holds file, line and reason of each.

use std::fmt;

use anyhow::Result;
use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type, UInt64Type};
use datafusion::prelude::{SessionContext, col};

use crate::lake::Lake;
use crate::sql;

/// Characters of a reason that are shown.
const REASON_CHARS_MAX: usize = 200;

/// A row that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// Where it is.
    pub file: String,
    /// Its line there.
    pub line: u64,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // what stands in a file must not steer a terminal, or fill it
        let reason: String = self.reason.chars().take(REASON_CHARS_MAX).collect();
        let more = if reason.len() < self.reason.len() { "…" } else { "" };
        let reason = reason.replace(char::is_control, "�");
        write!(f, "{}, line {}: {reason}{more}", self.file, self.line)
    }
}

/// A kind of bad rows, with its first row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectKind {
    /// Rows of this kind.
    pub n_rows: u64,
    /// One of them.
    pub example: Reject,
}

impl fmt::Display for RejectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { n_rows, example } = self;
        write!(f, "{n_rows} such as {example}")
    }
}

/// Where the bad rows of a run are.
pub fn rejects_of(run: &str) -> String {
    format!("rejects/{run}/")
}

/// The kinds of bad rows of a run, at most `n_kinds`, the commonest first.
pub async fn reject_kinds(
    ctx: &SessionContext,
    lake: &Lake,
    run: &str,
    n_kinds: usize,
) -> Result<Vec<RejectKind>> {
    lake.register_table(ctx, "rejects", &rejects_of(run), &[]).await?;
    let mut found = Vec::new();
    for batch in sql::collect(ctx, sql::REJECT_KINDS, &[]).await? {
        let n_rows = batch.column(3).as_primitive::<Int64Type>();
        let examples = examples(&batch)?.into_iter().zip(n_rows.values());
        found.extend(examples.map(|(example, n)| RejectKind { n_rows: n.unsigned_abs(), example }));
    }
    found.truncate(n_kinds);
    Ok(found)
}

/// The bad rows of a run by file and line, at most `n_rows`.
pub async fn rejects(
    ctx: &SessionContext,
    lake: &Lake,
    run: &str,
    n_rows: usize,
) -> Result<Vec<Reject>> {
    lake.register_table(ctx, "rejects", &rejects_of(run), &[]).await?;
    let by_place = vec![col("file").sort(true, true), col("line").sort(true, true)];
    let rows = ctx.table("rejects").await?;
    let rows = rows.select_columns(&["file", "line", "reject_reason"])?;
    let rows = rows.sort(by_place)?.limit(0, Some(n_rows))?.collect().await?;
    Ok(rows.iter().map(examples).collect::<Result<Vec<_>>>()?.concat())
}

/// The rows of a batch whose columns begin with file, line and reason.
fn examples(batch: &RecordBatch) -> Result<Vec<Reject>> {
    let files = cast(batch.column(0), &DataType::Utf8View)?;
    let lines = batch.column(1).as_primitive::<UInt64Type>();
    let reasons = cast(batch.column(2), &DataType::Utf8View)?;
    let (files, reasons) = (files.as_string_view(), reasons.as_string_view());
    let row = |row: usize| Reject {
        file: files.value(row).to_owned(),
        line: lines.value(row),
        reason: reasons.value(row).to_owned(),
    };
    Ok((0..lines.len()).map(row).collect())
}
