//! `distances`: how far airports are from each other, by the flights between them and by what
//! people import, which takes precedence.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use datafusion::arrow::array::{ArrayRef, AsArray, Float64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Float64Type};
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{LogicalPlanBuilder, cast};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::prelude::{DataFrame, SessionContext, col, lit};
use events::{DISTANCE_MILES_MAX, flight_code, is_code};

use crate::ingest::columns::compared;
use crate::ingest::json::{Object, parse_object, text_of};
use crate::ingest::lines::read_line;
use crate::lake::Lake;
use crate::lease::{self, Swap};
use crate::progress::OnProgress;
use crate::sql;
use crate::write::{Place, parquet, write};

/// Where imported distances are kept, so that the next ingestion knows them.
const IMPORTED: &str = "imported_distances/";
/// Pairs of airports at most; there are some thousand airports with scheduled flights.
const PAIRS_MAX: usize = 1_000_000;
/// Bad lines that are told at most, and characters of each.
const BAD_MAX: usize = 10;
const REASON_CHARS_MAX: usize = 200;

/// How often a long job looks for other distances. A look lists a few objects.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long it may take, and how long none is taken after one that failed.
const LOOK_WAIT: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// The columns of distances.
const COLUMNS: [&str; 3] = ["origin", "dest", "distance_miles"];

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
    /// Lines that were left out.
    pub n_bad: u64,
    /// What is wrong with the first of them, each with its number.
    pub bad: Vec<String>,
}

/// Imports the distances of a file of JSON Lines, adds them to those that were imported before, or
/// takes their place with `replace`, and makes `distances` anew. Lines that cannot be used are left
/// out, and told.
///
/// Errors when no line can be used; then nothing is changed.
pub async fn import(
    ctx: &SessionContext,
    lake: &Lake,
    run: &str,
    (file, replace): (&Path, bool),
    on_progress: OnProgress<'_>,
) -> Result<Imported> {
    let path = file.to_owned();
    let read = tokio::task::spawn_blocking(move || read(&path)).await?;
    let (pairs, mut imported) = read.with_context(|| file.display().to_string())?;
    let first = imported.bad.first().map_or("it is empty", String::as_str);
    ensure!(!pairs.is_empty(), "{}: there is no distance in it: {first}", file.display());
    lake.register(ctx);
    lease::change(lake, run, on_progress, async |staging, epoch| {
        let mut all = if replace { Pairs::new() } else { known(ctx, lake).await? };
        for (pair, miles) in pairs {
            match all.insert(pair, miles) {
                None => imported.n_new += 1,
                Some(before) if before == miles => imported.n_same += 1,
                Some(_) => imported.n_updated += 1,
            }
        }
        ensure!(
            all.len() <= PAIRS_MAX,
            "more than {PAIRS_MAX} pairs of airports; --replace forgets"
        );
        let mut made = Swap::default();
        let staged = format!("{staging}imported/");
        lake.put(&format!("{staged}0.parquet"), file_of(&all)?).await?;
        lake.register_table(ctx, "imported_distances", &staged, &[]).await?;
        made.deletes.extend(lake.list(IMPORTED).await?);
        made.moves.extend(lease::moves(lake, run, epoch, &staged, IMPORTED).await?);
        match lake.holds_table("flights/").await? {
            true => lake.register_table(ctx, "flights", "flights/", &["year", "month"]).await?,
            false => register_none(ctx, "flights")?,
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
        false => register_none(ctx, "imported_distances"),
    }
}

/// What was imported so far.
async fn known(ctx: &SessionContext, lake: &Lake) -> Result<Pairs> {
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

/// Makes a relation of distances that holds none, which a cluster can read too.
fn register_none(ctx: &SessionContext, table: &str) -> Result<()> {
    let types = vec![vec![lit(""), lit(""), lit(0.0)]];
    let columns = COLUMNS.into_iter().enumerate();
    let columns = columns.map(|(i, name)| col(format!("column{}", i + 1)).alias(name));
    let none = LogicalPlanBuilder::values(types)?.filter(lit(false))?.project(columns)?.build()?;
    sql::register(ctx, table, DataFrame::new(ctx.state(), none))
}

/// Distances as a Parquet file. Made here: as values of a plan a hundred thousand take seconds.
fn file_of(pairs: &Pairs) -> Result<Vec<u8>> {
    let origins = StringArray::from_iter_values(pairs.keys().map(|(origin, _)| origin));
    let dests = StringArray::from_iter_values(pairs.keys().map(|(_, dest)| dest));
    let miles = Float64Array::from_iter_values(pairs.values().copied());
    let columns: [ArrayRef; 3] = [Arc::new(origins), Arc::new(dests), Arc::new(miles)];
    let rows = RecordBatch::try_from_iter(COLUMNS.into_iter().zip(columns))?;
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), None)?;
    writer.write(&rows)?;
    Ok(writer.into_inner()?)
}

/// The distances of a file, and what is wrong with its other lines.
fn read(file: &Path) -> Result<(Pairs, Imported)> {
    let mut bytes = BufReader::new(File::open(file)?);
    let (mut pairs, mut imported, mut line) = (Pairs::new(), Imported::default(), Vec::new());
    let mut number = 0_u64;
    while read_line(&mut bytes, &mut line)? {
        number += 1;
        let text = line.strip_prefix(b"\xef\xbb\xbf").filter(|_| number == 1).unwrap_or(&line);
        // an array with an object a line is read as well
        let pair = match text.trim_ascii() {
            b"[" | b"]" => Ok(None),
            text => parse_object(text).and_then(|object| object.as_ref().map(pair_of).transpose()),
        };
        let added = pair.and_then(|pair| {
            let Some((pair, miles)) = pair else { return Ok(()) };
            let before = *pairs.entry(pair).or_insert(miles);
            let is_other = before != miles;
            if is_other { Err(format!("an earlier line says {before} miles")) } else { Ok(()) }
        });
        if let Err(why) = added {
            imported.n_bad += 1;
            if imported.bad.len() < BAD_MAX {
                let why: String = why.chars().take(REASON_CHARS_MAX).collect();
                imported.bad.push(format!("line {number}: {why}"));
            }
        }
        ensure!(pairs.len() <= PAIRS_MAX, "more than {PAIRS_MAX} pairs of airports");
    }
    Ok((pairs, imported))
}

/// The distance that a line says: `Origin`, `Dest` and `Distance`, as the original system's
/// `origin_dest_distances.jsonl`.
fn pair_of(object: &Object) -> Result<((String, String), f64), String> {
    let field = |name: &str| {
        let known = [name, if name == "distance" { "distancemiles" } else { name }];
        let found = object.iter().find(|(key, _)| known.contains(&&*compared(key)));
        found.and_then(|(_, value)| text_of(value)).ok_or_else(|| format!("there is no {name}"))
    };
    let code = |name: &str| {
        let text = field(name)?;
        let code = flight_code(&text).filter(|code| is_code(code)).map(|code| code.into_owned());
        code.ok_or_else(|| format!("{name} is no code of an airport: {text}"))
    };
    let (origin, dest) = (code("origin")?, code("dest")?);
    if origin == dest {
        return Err(format!("origin and dest are both {origin}"));
    }
    let text = field("distance")?;
    let miles = text.parse().ok().filter(|miles| *miles > 0.0 && *miles <= DISTANCE_MILES_MAX);
    let miles = miles.ok_or_else(|| {
        format!("distance is no number of miles above 0 and up to {DISTANCE_MILES_MAX}: {text}")
    })?;
    Ok(((origin, dest), miles))
}

/// `distances` in memory, for a long job that serves with them.
pub struct Served {
    lake: Lake,
    fingerprint: String,
    next_look: Instant,
    /// What was wrong at the last look, so that it is complained of once.
    complaint: Option<String>,
}

impl Served {
    /// Reads them.
    pub async fn load(ctx: &SessionContext, lake: &Lake) -> Result<Self> {
        // before they are read: what comes meanwhile is found by the next look
        let fingerprint = lake.fingerprint(&["distances/"]).await?;
        serve(ctx, lake).await?;
        Ok(Self {
            lake: lake.clone(),
            fingerprint,
            next_look: Instant::now() + LOOK_EVERY,
            complaint: None,
        })
    }

    /// Whether [`refresh`](Self::refresh) would look.
    pub fn is_due(&self) -> bool {
        Instant::now() >= self.next_look
    }

    /// Looks for others, once in a while; whether there were any, which are served now.
    pub async fn refresh(&mut self, ctx: &SessionContext) -> bool {
        if !self.is_due() {
            return false;
        }
        // a micro-batch waits for this: a store that hangs must not hold it up for long
        let looked = tokio::time::timeout(LOOK_WAIT, self.look(ctx)).await;
        let error = match looked {
            Ok(Ok(is_new)) => {
                self.next_look = Instant::now() + LOOK_EVERY;
                self.complaint = None;
                return is_new;
            }
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "the data root does not answer".to_owned(),
        };
        self.next_look = Instant::now() + LOOK_AGAIN;
        if self.complaint.as_ref() != Some(&error) {
            tracing::warn!(error, "distances cannot be looked at; the old ones serve");
            self.complaint = Some(error);
        }
        false
    }

    /// Takes others, whole; whether there were any.
    async fn look(&mut self, ctx: &SessionContext) -> Result<bool> {
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
