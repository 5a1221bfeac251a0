//! `distances`: how far airports are from each other, by the flights between them and by what
//! people import, which takes precedence.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::{DataType, Float64Type};
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{LogicalPlanBuilder, cast};
use datafusion::prelude::{DataFrame, SessionContext, col, lit};
use events::{DISTANCE_MILES_MAX, is_code};
use serde::Deserialize;

use crate::ingest::lines::{LINE_BYTES_MAX, read_line};
use crate::lake::Lake;
use crate::lease::{self, Swap};
use crate::progress::OnProgress;
use crate::sql;
use crate::write::{Place, parquet, write};

/// Where imported distances are kept, so that the next ingestion knows them.
const IMPORTED: &str = "imported_distances/";
/// Pairs of airports at most; there are some thousand airports with scheduled flights.
const PAIRS_MAX: usize = 1_000_000;

/// How often a long job looks for other distances. A look lists a few objects.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long it may take.
const LOOK_WAIT: Duration = Duration::from_secs(5);

/// Miles by (origin, destination).
type Pairs = BTreeMap<(String, String), f64>;

/// What was imported.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Imported {
    /// Pairs of airports that were not imported before.
    pub n_new: u64,
    /// Pairs that have another distance now.
    pub n_updated: u64,
    /// Pairs that were as they are.
    pub n_same: u64,
    /// What is wrong with the lines that were left out, each with its number.
    pub bad: Vec<String>,
}

/// A line of the file, named as the original system's `origin_dest_distances.jsonl`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Line {
    #[serde(alias = "origin")]
    origin: String,
    #[serde(alias = "dest")]
    dest: String,
    #[serde(alias = "distance", alias = "distance_miles")]
    distance: f64,
}

/// Imports the distances of a file of JSON Lines, adds them to those that were imported before, and
/// makes `distances` anew. Lines that cannot be used are left out, and told.
///
/// Errors when no line can be used; then nothing is changed.
pub async fn import(
    ctx: &SessionContext,
    lake: &Lake,
    run: &str,
    file: &Path,
    on_progress: OnProgress<'_>,
) -> Result<Imported> {
    let path = file.to_owned();
    let read = tokio::task::spawn_blocking(move || read(&path)).await?;
    let (pairs, bad) = read.with_context(|| file.display().to_string())?;
    let first = bad.first().map_or("it is empty", String::as_str);
    ensure!(!pairs.is_empty(), "{}: there is no distance in it: {first}", file.display());
    lake.register(ctx);
    lease::change(lake, run, on_progress, async |staging, epoch| {
        let mut all = imported(ctx, lake).await?;
        let mut imported = Imported { bad, ..Imported::default() };
        for (pair, miles) in pairs {
            match all.insert(pair, miles) {
                None => imported.n_new += 1,
                Some(before) if before == miles => imported.n_same += 1,
                Some(_) => imported.n_updated += 1,
            }
        }
        let mut made = Swap::default();
        register_pairs(ctx, "imported_distances", &all)?;
        let rows = ctx.table("imported_distances").await?;
        let staged = format!("{staging}imported/");
        write(ctx, lake, &[rows], Place { directory: &staged, partitions: &[] }, &parquet())
            .await?;
        made.deletes.extend(lake.list(IMPORTED).await?);
        made.moves.extend(lease::moves(lake, run, epoch, &staged, IMPORTED).await?);
        match lake.holds_table("flights/").await? {
            true => lake.register_table(ctx, "flights", "flights/", &["year", "month"]).await?,
            false => register_pairs(ctx, "flights", &Pairs::new())?,
        }
        make(ctx, lake, run, (staging, epoch), &mut made).await?;
        Ok((imported, made))
    })
    .await
}

/// Makes `distances` anew of `flights` and `imported_distances`, which are registered, in what is
/// staged by a job with a lease of this epoch.
pub(crate) async fn make(
    ctx: &SessionContext,
    lake: &Lake,
    run: &str,
    (staging, epoch): (&str, u64),
    made: &mut Swap,
) -> Result<()> {
    let rows = sql::plan(ctx, sql::DISTANCES, &[]).await?;
    let staged = format!("{staging}distances/");
    write(ctx, lake, &[rows], Place { directory: &staged, partitions: &[] }, &parquet()).await?;
    made.deletes.extend(lake.list("distances/").await?);
    made.moves.extend(lease::moves(lake, run, epoch, &staged, "distances/").await?);
    Ok(())
}

/// Registers `imported_distances`, which may be empty.
pub(crate) async fn register_imported(ctx: &SessionContext, lake: &Lake) -> Result<()> {
    match lake.holds_table(IMPORTED).await? {
        true => lake.register_table(ctx, "imported_distances", IMPORTED, &[]).await,
        false => register_pairs(ctx, "imported_distances", &Pairs::new()),
    }
}

/// What was imported so far.
async fn imported(ctx: &SessionContext, lake: &Lake) -> Result<Pairs> {
    register_imported(ctx, lake).await?;
    let text = |name: &str| cast(col(name), DataType::Utf8).alias(name);
    let columns = vec![text("origin"), text("dest"), col("distance_miles")];
    let rows = ctx.table("imported_distances").await?.select(columns)?.collect().await?;
    let mut pairs = Pairs::new();
    for batch in &rows {
        let texts = |i: usize| batch.column(i).as_string::<i32>();
        let miles = batch.column(2).as_primitive::<Float64Type>().values();
        for (row, miles) in miles.iter().enumerate() {
            let pair = (texts(0).value(row).to_owned(), texts(1).value(row).to_owned());
            pairs.insert(pair, *miles);
        }
    }
    Ok(pairs)
}

/// Makes pairs a relation. As values in the plan, not as a table in this process's memory, which a
/// cluster cannot read.
fn register_pairs(ctx: &SessionContext, table: &str, pairs: &Pairs) -> Result<()> {
    let row = |((origin, dest), miles): (&(String, String), &f64)| {
        vec![lit(origin.as_str()), lit(dest.as_str()), lit(*miles)]
    };
    let mut rows: Vec<_> = pairs.iter().map(row).collect();
    let is_empty = rows.is_empty();
    if is_empty {
        // for the types of its columns
        rows.push(vec![lit(""), lit(""), lit(0.0)]);
    }
    let names = ["origin", "dest", "distance_miles"].into_iter().enumerate();
    let columns = names.map(|(i, name)| col(format!("column{}", i + 1)).alias(name));
    let values = LogicalPlanBuilder::values(rows)?.filter(lit(!is_empty))?;
    let values = values.project(columns)?.build()?;
    ctx.deregister_table(table)?;
    ctx.register_table(table, DataFrame::new(ctx.state(), values).into_view())?;
    Ok(())
}

/// The distances of a file, and what is wrong with its other lines.
fn read(file: &Path) -> Result<(Pairs, Vec<String>)> {
    let mut bytes = BufReader::new(File::open(file)?);
    let (mut pairs, mut bad, mut line) = (Pairs::new(), Vec::new(), Vec::new());
    let mut number = 0_u64;
    while read_line(&mut bytes, &mut line)? {
        number += 1;
        let text = line.trim_ascii();
        if text.is_empty() {
            continue;
        }
        let text =
            if number == 1 { text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text) } else { text };
        let added =
            pair_of(text).and_then(|(pair, miles)| match *pairs.entry(pair).or_insert(miles) {
                before if before != miles => Err(format!("an earlier line says {before} miles")),
                _ => Ok(()),
            });
        if let Err(why) = added {
            bad.push(format!("line {number}: {why}"));
        }
        ensure!(
            pairs.len() + bad.len() <= PAIRS_MAX,
            "more than {PAIRS_MAX} lines are no list of distances"
        );
    }
    Ok((pairs, bad))
}

fn pair_of(text: &[u8]) -> Result<((String, String), f64), String> {
    if text.len() > LINE_BYTES_MAX {
        return Err(format!("longer than {LINE_BYTES_MAX} bytes"));
    }
    let Line { origin, dest, distance } = serde_json::from_slice(text).map_err(|error| {
        let said = error.to_string();
        // of the line that we name
        said.split(" at line ").next().unwrap_or_default().to_owned()
    })?;
    let [origin, dest] = [origin, dest].map(|code| code.trim().to_ascii_uppercase());
    for (name, code) in [("Origin", &origin), ("Dest", &dest)] {
        if !is_code(code) {
            return Err(format!("{name}: {code:?} is no code of an airport"));
        }
    }
    if origin == dest {
        return Err(format!("Origin and Dest are both {origin}"));
    }
    if !(distance > 0.0 && distance <= DISTANCE_MILES_MAX) {
        return Err(format!("Distance: {distance} is not above 0 and up to {DISTANCE_MILES_MAX}"));
    }
    Ok(((origin, dest), distance))
}

/// `distances` in memory, for a long job that serves with them.
pub struct Served {
    lake: Lake,
    fingerprint: String,
    looked: Instant,
    /// What was wrong at the last look, so that it is complained of once.
    complaint: Option<String>,
}

impl Served {
    /// Reads them.
    pub async fn load(ctx: &SessionContext, lake: &Lake) -> Result<Self> {
        // before they are read: what comes meanwhile is found by the next look
        let fingerprint = lake.fingerprint(&["distances/"]).await?;
        serve(ctx, lake).await?;
        Ok(Self { lake: lake.clone(), fingerprint, looked: Instant::now(), complaint: None })
    }

    /// Looks for others, once in a while; whether there were any, which are served now.
    pub async fn refresh(&mut self, ctx: &SessionContext) -> bool {
        if self.looked.elapsed() < LOOK_EVERY {
            return false;
        }
        self.looked = Instant::now();
        // a micro-batch waits for this: a store that hangs must not hold it up for long
        let looked = tokio::time::timeout(LOOK_WAIT, self.look(ctx)).await;
        let error = match looked {
            Ok(Ok(is_new)) => {
                self.complaint = None;
                return is_new;
            }
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "the data root does not answer".to_owned(),
        };
        if self.complaint.as_ref() != Some(&error) {
            tracing::warn!(error, "distances cannot be looked at; the old ones serve");
            self.complaint = Some(error);
        }
        false
    }

    /// Takes others, whole; whether there were any.
    pub async fn look(&mut self, ctx: &SessionContext) -> Result<bool> {
        let found = self.lake.fingerprint(&["distances/"]).await?;
        if found == self.fingerprint {
            return Ok(false);
        }
        serve(ctx, &self.lake).await?;
        self.fingerprint = found;
        tracing::info!("distances are replaced");
        Ok(true)
    }
}

async fn serve(ctx: &SessionContext, lake: &Lake) -> Result<()> {
    let read = async || {
        let there = "distances_there";
        lake.register_table(ctx, there, "distances/", &[]).await?;
        let rows = ctx.table(there).await?;
        let schema = Arc::clone(rows.schema().inner());
        let table = MemTable::try_new(schema, vec![rows.collect().await?])?;
        ctx.deregister_table(there)?;
        Ok(table)
    };
    let table = lease::read_again(lake, read).await?;
    ctx.deregister_table("distances")?;
    ctx.register_table("distances", Arc::new(table))?;
    Ok(())
}
