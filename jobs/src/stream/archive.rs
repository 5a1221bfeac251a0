//! Answers → Parquet under the data root, apart from the stream's own way: what is archived is what
//! the store has, of the messages up to where the store says that the stream is.
//!
//! ```text
//! archive/group=tarmac-stream/topic=…/partition=0/0000-00000000000000000000.parquet
//! ```
//!
//! A file is of a range of offsets of one partition. Its name says which log of the partition that
//! is, counted from 0, and where the range begins; where it ends, and what its last message was,
//! stands in the file. A name is written once: of two processes that archive the same range one is
//! first, and the other goes on behind what that wrote. So each message is archived once, whatever
//! dies, and nothing else need be remembered.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::arrow::json::ReaderBuilder;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_reader::ArrowReaderMetadata;
use datafusion::parquet::file::metadata::KeyValue;
use datafusion::prelude::{DataFrame, SessionContext};
use events::{ANSWERS, Answer, PredictionRequest, STREAM_OFFSETS};
use serde::{Deserialize, Serialize};
use store::{Lease, Store};

use crate::lake::Lake;
use crate::sql;
use crate::stream::Options;
use crate::stream::micro_batch::Message;
use crate::stream::request_log::{
    Inspector, LastRecord, LogMark, Verdict, compare, offset_to_inspect,
};
use crate::stream::topic::TopicReader;
use crate::write::file_properties;
use crate::zones::UTC;

/// Messages of a file at most.
const FILE_MESSAGES_MAX: usize = 100_000;
/// Rows of a group: they wait in memory for the others.
const GROUP_ROWS: usize = 16 * 1024;
/// Bytes of a file from which the next one begins.
const FILE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Largest file that is read, to see where it ends.
const READ_BYTES_MAX: usize = 2 * FILE_BYTES_MAX;
/// Attempts in a row in which another process was faster.
const ATTEMPTS_MAX: usize = 100;
/// Under which name a file says where it ends.
const END: &str = "tarmac.end";

/// What is archived, and where.
pub struct Archive {
    lake: Lake,
    store: Store,
    ctx: SessionContext,
    properties: Vec<(String, String)>,
    group: String,
    topic: String,
    inspector: Inspector,
    /// Where the archives of partitions end, as far as it is known.
    ends: BTreeMap<i32, End>,
    /// The cluster; librdkafka's answer is memory that is never freed, so it is asked once.
    here: Option<LogMark>,
}

/// Where the archive of a partition ends.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct End {
    /// Counts the logs that the partition has had.
    log: u32,
    /// Offset of the first message that is not archived.
    next: i64,
    /// What tells the log from another one.
    mark: Option<LogMark>,
}

/// What was archived at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Archived {
    /// Files.
    pub n_files: u64,
    /// Answers in them.
    pub n_answers: u64,
    /// Requests without one: the store has deleted it, or it cannot be read.
    pub n_missing: u64,
}

/// What became of an attempt.
enum Attempt {
    /// All is archived that was answered.
    Done,
    /// Another process has archived some of it.
    Behind,
}

impl Archive {
    /// Of the answers of a stream with these options.
    ///
    /// Errors when its group cannot name a directory.
    pub fn new(
        lake: &Lake,
        store: &Store,
        ctx: &SessionContext,
        options: &Options,
    ) -> Result<Self> {
        let Options { group, topics, properties, .. } = options;
        let topic = &topics.requests;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        ensure!(
            group.bytes().all(is_plain),
            "the archive of group {group:?} cannot be named: letters, digits, ., - and _ can be"
        );
        Ok(Self {
            lake: lake.clone(),
            store: store.clone(),
            ctx: ctx.clone(),
            properties: properties.clone(),
            group: group.clone(),
            topic: topic.clone(),
            // what is not there proves nothing: a false alarm archives a log twice
            inspector: Inspector::new(properties, topic, false),
            ends: BTreeMap::new(),
            here: None,
        })
    }

    /// Archives what was answered of these partitions since the last time; what could be archived
    /// is, whatever errors.
    pub async fn add(&mut self, partitions: &[i32]) -> (Archived, Result<()>) {
        // what others archive meanwhile is not known here
        self.ends.retain(|partition, _| partitions.contains(partition));
        let (mut archived, mut failed) = (Archived::default(), Ok(()));
        for partition in partitions {
            let added = self.add_partition(*partition, &mut archived).await;
            if added.is_err() {
                self.ends.remove(partition);
            }
            failed = failed.and(added.with_context(|| format!("partition {partition}")));
        }
        (archived, failed)
    }

    /// The same of all partitions of the topic, whoever has them.
    pub async fn add_all(&mut self) -> (Archived, Result<()>) {
        match TopicReader::open(&self.properties, &self.topic).await {
            Ok(reader) => self.add(&reader.partitions()).await,
            Err(error) => (Archived::default(), Err(error)),
        }
    }

    async fn add_partition(&mut self, partition: i32, archived: &mut Archived) -> Result<()> {
        for _ in 0..ATTEMPTS_MAX {
            match self.attempt(partition, archived).await? {
                Attempt::Done => return Ok(()),
                Attempt::Behind => self.ends.remove(&partition),
            };
        }
        bail!("other processes archive the same again and again")
    }

    async fn attempt(&mut self, partition: i32, archived: &mut Archived) -> Result<Attempt> {
        let Some(lease) = self.lease(partition).await? else { return Ok(Attempt::Done) };
        let mut end = match self.ends.get(&partition) {
            Some(end) => end.clone(),
            None => self.end(partition).await?,
        };
        // of a log that is no more the stream itself will say where it goes on
        let Some((here, last)) = self.log_of(partition, &lease).await? else {
            return Ok(Attempt::Done);
        };
        if end.next > 0 && self.log_of(partition, &self.as_lease(&end)?).await?.is_none() {
            end = End { log: end.log + 1, ..End::default() };
        }
        if end.next >= lease.next {
            self.ends.insert(partition, end);
            return Ok(Attempt::Done);
        }
        let range = (partition, end.next, lease.next);
        let mut reader = TopicReader::of_range(&self.properties, &self.topic, range).await?;
        let columns = self.columns().await?;
        let mut file = File::create(&columns)?;
        loop {
            let messages = reader.read().await?;
            if let Some(last) = messages.last() {
                self.write(&messages, &mut file).await?;
                end.mark = Some(LogMark { last: Some(LastRecord::of(last)), ..here.clone() });
                file.next = last.offset + 1;
            }
            let is_over = messages.is_empty();
            if !is_over && !file.is_full() {
                continue;
            }
            let is_read = last.is_none_or(|last| last < file.next.max(end.next));
            ensure!(!is_over || is_read, "{}/{partition} was not read to its end", self.topic);
            if is_over {
                // what was deleted from the topic, or is no message, is done too
                file.next = lease.next;
                end.mark = LogMark::of(&lease)?;
            }
            // nor has the log become another one meanwhile
            if self.log_of(partition, &lease).await?.is_none() {
                return Ok(Attempt::Done);
            }
            let full = std::mem::replace(&mut file, File::create(&columns)?);
            if !self.put(partition, &mut end, full, archived).await? {
                return Ok(Attempt::Behind);
            }
            self.ends.insert(partition, end.clone());
            if is_over || end.next >= lease.next {
                return Ok(Attempt::Done);
            }
        }
    }

    /// How far the stream is.
    async fn lease(&self, partition: i32) -> Result<Option<Lease>> {
        let id = format!("{}/{}/{partition}", self.group, self.topic);
        let document = self.store.get(STREAM_OFFSETS, &id).await?;
        document.as_ref().map(Lease::of).transpose()
    }

    fn as_lease(&self, end: &End) -> Result<Lease> {
        let log = end.mark.as_ref().map(LogMark::to_value).transpose()?;
        let id = format!("archive of {}/{}", self.group, self.topic);
        Ok(Lease { id, epoch: 0, next: end.next, published: end.next, log })
    }

    /// The log that is there, and the offset of the last message of a lease where that is there
    /// too; `None` when offsets are of another log.
    async fn log_of(
        &mut self,
        partition: i32,
        lease: &Lease,
    ) -> Result<Option<(LogMark, Option<i64>)>> {
        let mark = LogMark::of(lease)?;
        let offsets = BTreeMap::from([(partition, offset_to_inspect(lease, mark.as_ref()))]);
        let inspection = self.inspector.inspect(offsets, self.here.is_none()).await?;
        let here = self.here.get_or_insert(inspection.here).clone();
        let found = inspection.found.get(&partition);
        let found = found.context("a partition that was looked at")?;
        if compare(lease, mark.as_ref(), &here, found) == Verdict::Same {
            return Ok(Some((here, found.record.as_ref().map(|last| last.offset))));
        }
        self.here = None;
        Ok(None)
    }

    fn directory(&self, partition: i32) -> String {
        let Self { group, topic, .. } = self;
        format!("archive/group={group}/topic={topic}/partition={partition}/")
    }

    /// Where the archive of a partition ends, by its last file.
    async fn end(&self, partition: i32) -> Result<End> {
        let names = self.lake.list(&self.directory(partition)).await?;
        let Some(last) = names.iter().rfind(|name| is_of_archive(name)) else {
            return Ok(End::default());
        };
        let bytes = self.lake.get(last, READ_BYTES_MAX).await?;
        let read = || -> Result<End> {
            let bytes = Bytes::from(bytes.context("it is gone")?);
            let file = ArrowReaderMetadata::load(&bytes, Default::default())?;
            let said = file.metadata().file_metadata().key_value_metadata();
            let end = said.into_iter().flatten().find(|pair| pair.key == END);
            let end =
                end.and_then(|end| end.value.as_deref()).context("it does not say its end")?;
            Ok(serde_json::from_str(end)?)
        };
        let what = || format!("{}: nothing is archived behind it", self.lake.url(last));
        read().with_context(what)
    }

    /// Writes what was answered to some messages.
    async fn write(&self, messages: &[Message], file: &mut File) -> Result<()> {
        file.n_messages += messages.len();
        // a letter that cannot be read may name a request that has an answer
        let asked = messages.iter().filter_map(|message| {
            let value = message.value.as_deref()?;
            let request = PredictionRequest::decode_within(value, value.len()).ok()?;
            Some((request.uuid.to_string(), message))
        });
        let asked: Vec<(String, &Message)> = asked.collect();
        let uuids: Vec<String> = asked.iter().map(|(uuid, _)| uuid.clone()).collect();
        let answers = self.store.get_all(ANSWERS, &uuids).await?;
        let answers = answers.into_iter().filter_map(|document| {
            let uuid = document["_id"].as_str()?.to_owned();
            Some((uuid, serde_json::from_value(document).ok()?))
        });
        let answers: BTreeMap<String, Answer> = answers.collect();
        let rows = asked.iter().filter_map(|(uuid, message)| {
            let (request_offset, requested_at) = (message.offset, message.created_ms);
            Some(Row { request_offset, requested_at, answer: answers.get(uuid)? })
        });
        let rows: Vec<Row<'_>> = rows.collect();
        file.n_missing += (asked.len() - rows.len()) as u64;
        if rows.is_empty() {
            return Ok(());
        }
        let mut decoder = ReaderBuilder::new(answered()).build_decoder()?;
        decoder.serialize(&rows)?;
        let answered = decoder.flush()?.context("rows of answers")?;
        for kept in self.kept(answered).await?.collect().await? {
            file.writer.write(&kept)?;
        }
        file.n_answers += rows.len() as u64;
        Ok(())
    }

    /// Rows of [`answered`] as they are kept.
    async fn kept(&self, answered: RecordBatch) -> Result<DataFrame> {
        sql::register(&self.ctx, "answered", self.ctx.read_batch(answered)?)?;
        sql::plan(&self.ctx, sql::ARCHIVE, &[]).await
    }

    /// The columns of a file.
    async fn columns(&self) -> Result<SchemaRef> {
        let none = self.kept(RecordBatch::new_empty(answered())).await?;
        Ok(Arc::clone(none.schema().inner()))
    }

    /// Puts a file in its place, durably, and moves the end; `false` when another process was
    /// faster.
    async fn put(
        &self,
        partition: i32,
        end: &mut End,
        file: File,
        archived: &mut Archived,
    ) -> Result<bool> {
        let name = format!("{:04}-{:020}.parquet", end.log, end.next);
        end.next = file.next;
        let (n_answers, n_missing) = (file.n_answers, file.n_missing);
        let path = format!("{}{name}", self.directory(partition));
        if !self.lake.create_object(&path, file.finish(end)?).await? {
            return Ok(false);
        }
        self.lake.sync(&path).await?;
        archived.n_files += 1;
        archived.n_answers += n_answers;
        archived.n_missing += n_missing;
        Ok(true)
    }
}

/// Whether a file is named as those of an archive.
fn is_of_archive(path: &str) -> bool {
    let name = path.rsplit('/').next().and_then(|name| name.strip_suffix(".parquet"));
    let is_number =
        |text: &str, n: usize| text.len() == n && text.bytes().all(|byte| byte.is_ascii_digit());
    name.and_then(|name| name.split_once('-'))
        .is_some_and(|(log, offset)| is_number(log, 4) && is_number(offset, 20))
}

/// An answer and the message that asked.
#[derive(Serialize)]
struct Row<'a> {
    request_offset: i64,
    requested_at: Option<i64>,
    #[serde(flatten)]
    answer: &'a Answer,
}

/// The columns of [`Row`]s, under the names of the store's documents.
fn answered() -> SchemaRef {
    let list = |name: &str, of| {
        let of = Field::new_list_field(of, true);
        Field::new_list(name, of, true)
    };
    let column = |name: &str, of| Field::new(name, of, true);
    let text = |name: &str| column(name, DataType::Utf8);
    let instant = DataType::Timestamp(TimeUnit::Millisecond, Some(UTC.into()));
    let changes = list("Changes", DataType::Float64);
    let contribution = DataType::Struct(vec![text("Feature"), changes].into());
    Arc::new(Schema::new(vec![
        column("request_offset", DataType::Int64),
        column("requested_at", instant.clone()),
        text("UUID"),
        text("status"),
        text("Reason"),
        text("Timestamp"),
        column("AnsweredAt", instant),
        column("Prediction", DataType::Int32),
        list("Probabilities", DataType::Float64),
        list("LateContributions", DataType::Int32),
        list("BaseRates", DataType::Float64),
        list("Contributions", contribution),
        text("ModelVersion"),
        list("Unseen", DataType::Utf8),
        column("FlightDate", DataType::Date32),
        text("Carrier"),
        text("FlightNum"),
        text("Origin"),
        text("Dest"),
        column("DepDelay", DataType::Float64),
        column("Distance", DataType::Float64),
    ]))
}

/// A file that is being written, in memory.
struct File {
    writer: ArrowWriter<Vec<u8>>,
    n_messages: usize,
    n_answers: u64,
    n_missing: u64,
    /// Offset behind its last message.
    next: i64,
}

impl File {
    fn create(columns: &SchemaRef) -> Result<Self> {
        let properties = file_properties(GROUP_ROWS)?.build();
        let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(columns), Some(properties))?;
        Ok(Self { writer, n_messages: 0, n_answers: 0, n_missing: 0, next: 0 })
    }

    fn is_full(&self) -> bool {
        let n_bytes = self.writer.bytes_written() + self.writer.in_progress_size();
        self.n_messages >= FILE_MESSAGES_MAX || n_bytes >= FILE_BYTES_MAX
    }

    /// Its bytes, which say where the archive ends with it.
    fn finish(mut self, end: &End) -> Result<Vec<u8>> {
        let end = serde_json::to_string(end)?;
        self.writer.append_key_value_metadata(KeyValue::new(END.to_owned(), end));
        Ok(self.writer.into_inner()?)
    }
}
