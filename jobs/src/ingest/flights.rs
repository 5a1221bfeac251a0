//! Flights that were typed without SQL, on their way to Parquet: collected by month, each file
//! sorted by carrier, in bounded memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use anyhow::{Context, Result};
use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::compute::interleave_record_batch;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::Compression;
use datafusion::parquet::schema::types::ColumnPath;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::ingest::counted::Counted;
use crate::ingest::counted::Month;
use crate::ingest::typed::{Layout, Parsed, parse};
use crate::write::file_properties;

/// Bytes of flights in memory: those that wait for others of their month, and those that are being
/// encoded, which begins when half of that waits.
const FLIGHTS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Blocks that are typed at the same time at most; each has some megabytes.
const THREADS_MAX: usize = 16;
/// Rows of a group: those of a carrier are few, so that groups of others are not read.
pub(super) const GROUP_ROWS: usize = 64 * 1024;

/// A file of flights of one month.
pub struct Encoded {
    /// The month.
    pub month: Month,
    /// Parquet.
    pub bytes: Vec<u8>,
}

/// Takes files; it may wait.
pub type OnFile = Box<dyn FnMut(Encoded) -> Result<()> + Send>;

/// A block that is being typed; it is given back.
pub type Parsing = JoinHandle<Result<(Parsed, Vec<u8>)>>;

#[derive(Default)]
struct Waiting {
    batches: Vec<RecordBatch>,
    n_bytes: usize,
}

/// Flights that wait, and what is known of all.
pub struct Flights {
    threads: Handle,
    months: BTreeMap<Month, Waiting>,
    n_bytes: usize,
    /// Files that are being encoded, with the bytes of their flights.
    encoding: VecDeque<(usize, JoinHandle<Result<Encoded>>)>,
    n_threads: usize,
    on_file: OnFile,
    counted: Counted,
    block_bytes: usize,
    wanted: Option<i64>,
}

impl Flights {
    /// None yet; so many of `threads` type and encode them at the same time. With `wanted` only
    /// that flight is looked for, in the rows that are left to SQL.
    pub fn new(
        (threads, n_threads): (Handle, usize),
        on_file: OnFile,
        block_bytes: usize,
        wanted: Option<i64>,
    ) -> Self {
        Self {
            threads,
            months: BTreeMap::new(),
            n_bytes: 0,
            encoding: VecDeque::new(),
            n_threads: n_threads.clamp(1, THREADS_MAX),
            on_file,
            counted: Counted::default(),
            block_bytes,
            wanted,
        }
    }

    /// Blocks that are typed at the same time.
    pub fn n_threads(&self) -> usize {
        self.n_threads
    }

    /// Bytes of a table that are typed at a time.
    pub fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    /// Begins to type a block of a table.
    pub fn parse(&self, layout: &Arc<Layout>, block: Vec<u8>) -> Parsing {
        let (layout, wanted) = (Arc::clone(layout), self.wanted);
        self.threads.spawn_blocking(move || Ok((parse(&layout, &block, wanted)?, block)))
    }

    /// Waits for a block.
    pub fn wait(&self, parsing: Parsing) -> Result<(Parsed, Vec<u8>)> {
        self.threads.block_on(parsing)?
    }

    /// Adds flights of some months.
    pub fn add(&mut self, flights: BTreeMap<Month, RecordBatch>) -> Result<()> {
        for (month, batch) in flights {
            self.counted.add(month, &batch);
            let n_bytes = batch.get_array_memory_size();
            let waiting = self.months.entry(month).or_default();
            waiting.batches.push(batch);
            waiting.n_bytes += n_bytes;
            self.n_bytes += n_bytes;
        }
        while self.n_bytes > FLIGHTS_BYTES_MAX / 2 {
            let largest = self.months.iter().max_by_key(|(_, waiting)| waiting.n_bytes);
            let Some(month) = largest.map(|(month, _)| *month) else { break };
            self.encode(month)?;
        }
        Ok(())
    }

    /// Begins to encode what waits of a month, once there is room for it.
    fn encode(&mut self, month: Month) -> Result<()> {
        let Some(Waiting { batches, n_bytes }) = self.months.remove(&month) else { return Ok(()) };
        self.n_bytes -= n_bytes;
        let is_full = |flights: &Self| {
            let n_encoding: usize = flights.encoding.iter().map(|(n_bytes, _)| n_bytes).sum();
            let n_threads = flights.encoding.len();
            n_threads > 0
                && (n_threads >= flights.n_threads
                    || flights.n_bytes + n_bytes + n_encoding > FLIGHTS_BYTES_MAX)
        };
        while is_full(self) {
            self.give()?;
        }
        let encode = move || Ok(Encoded { month, bytes: encoded(batches)? });
        self.encoding.push_back((n_bytes, self.threads.spawn_blocking(encode)));
        Ok(())
    }

    /// Gives the file that is encoded first.
    fn give(&mut self) -> Result<()> {
        let Some((_, encoding)) = self.encoding.pop_front() else { return Ok(()) };
        (self.on_file)(self.threads.block_on(encoding)??)
    }

    /// Gives what waits; returns what is known of all flights.
    pub fn finish(mut self) -> Result<Counted> {
        while let Some(month) = self.months.keys().next().copied() {
            self.encode(month)?;
        }
        while !self.encoding.is_empty() {
            self.give()?;
        }
        Ok(self.counted)
    }
}

/// A file of flights, sorted by carrier: they are read by it, and its values compress each other.
fn encoded(batches: Vec<RecordBatch>) -> Result<Vec<u8>> {
    let schema = batches.first().context("flights")?.schema();
    let mut by_carrier: BTreeMap<&str, Vec<(usize, usize)>> = BTreeMap::new();
    for (i, batch) in batches.iter().enumerate() {
        let carriers = batch.column_by_name("carrier").context("carriers")?.as_string_view();
        for (row, carrier) in carriers.iter().enumerate() {
            by_carrier.entry(carrier.unwrap_or_default()).or_default().push((i, row));
        }
    }
    let order: Vec<(usize, usize)> = by_carrier.into_values().flatten().collect();
    let id = ColumnPath::from("flight_id");
    let properties = file_properties(GROUP_ROWS)?
        // no two are the same, and nothing compresses them
        .set_column_dictionary_enabled(id.clone(), false)
        .set_column_compression(id, Compression::UNCOMPRESSED)
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties))?;
    let batches: Vec<&RecordBatch> = batches.iter().collect();
    // a group at a time: sorted as a whole there would be two of each flight
    for rows in order.chunks(GROUP_ROWS) {
        writer.write(&interleave_record_batch(&batches, rows)?)?;
    }
    Ok(writer.into_inner()?)
}
