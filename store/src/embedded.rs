//! Documents in SQLite: a table a collection, the document as JSON text.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use parking_lot::Mutex;
use rusqlite::types::Value as SqlValue;
use rusqlite::{Connection, Transaction, TransactionBehavior, params_from_iter};
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::{
    Document, Lease, OnConflict, Order, Query, Server, WRITTEN_AT, WriteError, document_id,
};

/// How long a writer waits for another one of the same file. An index over some millions of
/// documents takes as long as half of it.
const BUSY_WAIT: Duration = Duration::from_secs(30);

/// Pause between two indexes. A writer that waits looks every 100 ms whether it may, and is served
/// in no order.
const PAUSE_FOR_OTHERS: Duration = Duration::from_millis(250);

/// The time, as SQLite says it: milliseconds since 1970.
const NOW_MS: &str = "CAST(unixepoch('subsec') * 1000 AS INTEGER)";

/// Documents that are deleted at once: other writers wait meanwhile.
const DELETED_AT_ONCE: usize = 5_000;

/// Reads at the same time; more wait. Each has a connection and its cache.
const READERS_MAX: usize = 16;

/// Steps of SQLite's machine between two questions whether somebody still waits: some microseconds.
const STEPS_UNTIL_ASKED: i32 = 1_000;

/// Pages of the write-ahead log that are moved to the file together while a collection is made:
/// 64 MiB of 4 KiB each. Moved more often, a page that is filled further is written each time.
const PAGES_AT_ONCE: u32 = 16_384;

/// Rows of an index that are looked at to know how many its values have.
const ROWS_ANALYZED: u32 = 1_000;

/// An open SQLite file. What reads does not wait for what writes, and what makes a collection anew
/// not for what writes answers.
#[derive(Debug, Clone)]
pub struct Embedded {
    path: PathBuf,
    /// Writes what must be on the disk before it returns.
    writer: Arc<Mutex<Connection>>,
    /// Fills new collections; what puts them in place makes them durable.
    maker: Arc<Mutex<Connection>>,
    readers: Arc<Readers>,
}

#[derive(Debug)]
struct Readers {
    idle: Mutex<Vec<Reader>>,
    free: Arc<Semaphore>,
}

/// A connection that reads as long as somebody waits.
#[derive(Debug)]
struct Reader {
    connection: Connection,
    is_left: Arc<AtomicBool>,
}

/// Says that nobody waits any more when it is dropped: with it the caller is gone.
struct Leave(Arc<AtomicBool>);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Embedded {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let open = || -> rusqlite::Result<(Connection, Connection)> {
            let (writer, maker) = (connect(path)?, connect(path)?);
            // write-ahead log: the web server reads while the streaming job writes
            writer.pragma_update(None, "journal_mode", "WAL")?;
            writer.pragma_update(None, "synchronous", "FULL")?;
            maker.pragma_update(None, "synchronous", "NORMAL")?;
            maker.pragma_update(None, "wal_autocheckpoint", PAGES_AT_ONCE)?;
            Ok((writer, maker))
        };
        let (writer, maker) = open().with_context(|| format!("cannot open {}", path.display()))?;
        let readers =
            Readers { idle: Mutex::default(), free: Arc::new(Semaphore::new(READERS_MAX)) };
        Ok(Self {
            path: path.to_owned(),
            writer: Arc::new(Mutex::new(writer)),
            maker: Arc::new(Mutex::new(maker)),
            readers: Arc::new(readers),
        })
    }

    pub(crate) fn describe(&self) -> String {
        format!("embedded SQLite at {}", self.path.display())
    }

    pub(crate) async fn look(&self) -> Result<()> {
        self.read(|connection| connection.execute_batch("SELECT 1")).await
    }

    pub(crate) async fn server(&self) -> Result<Server> {
        let version = rusqlite::version().to_owned();
        Ok(Server { version, has_transactions: true, now_ms: None })
    }

    /// Writes the documents; the `_id`s of those that were there before.
    pub(crate) async fn write(
        &self,
        collection: &str,
        documents: &[Value],
        how: OnConflict,
    ) -> Result<Vec<String>, WriteError> {
        let insert = Insert::new(collection, rows_of(documents)?, how, true);
        self.run(&self.writer, move |connection| insert.run(connection)).await
    }

    pub(crate) async fn acquire(&self, collection: &str, id: &str) -> Result<Lease, WriteError> {
        let (create, id) = (create_table(collection), id.to_owned());
        let lease = format!(
            "INSERT INTO \"{collection}\" (_id, document) \
             VALUES (?1, json_object('_id', ?1, 'epoch', 1, 'next', 0, 'published', 0, \
               '{WRITTEN_AT}', {NOW_MS})) \
             ON CONFLICT (_id) DO UPDATE SET \
               document = json_set(document, '$.epoch', json_extract(document, '$.epoch') + 1, \
                 '$.{WRITTEN_AT}', {NOW_MS}) \
             RETURNING json_set(document, '$._id', _id)"
        );
        let acquired = self.run(&self.writer, move |connection| {
            connection.execute_batch(&create)?;
            connection.query_row(&lease, [&id], |row| row.get::<_, String>(0))
        });
        Ok(Lease::of(&value(&acquired.await?)?)?)
    }

    pub(crate) async fn commit(
        &self,
        collection: &str,
        documents: &[Document],
        offsets: &str,
        leases: &[Lease],
    ) -> Result<Vec<String>, WriteError> {
        let rows = documents.iter().map(|d| (d.id.clone(), d.json.clone()));
        let insert = Insert::new(collection, rows.collect(), OnConflict::Keep, true);
        let create = create_table(offsets);
        let advance = format!(
            "UPDATE \"{offsets}\" \
             SET document = json_set(document, '$.next', ?3, '$.published', ?4, \
               '$.log', json(?5), '$.{WRITTEN_AT}', {NOW_MS}) \
             WHERE _id = ?1 AND json_extract(document, '$.epoch') = ?2"
        );
        let leases = leases.to_vec();
        let committed = self.run(&self.writer, move |connection| {
            let transaction = connection.transaction()?;
            transaction.execute_batch(&create)?;
            for lease in leases {
                let log = lease.log.as_ref().map_or("null".to_owned(), Value::to_string);
                let values = (&lease.id, lease.epoch, lease.next, lease.published, log);
                if transaction.execute(&advance, values)? == 0 {
                    return Ok(Err(WriteError::Fenced(lease.id)));
                }
            }
            let kept = insert.run_in(&transaction)?;
            transaction.commit()?;
            Ok(Ok(kept))
        });
        committed.await?
    }

    pub(crate) async fn find(&self, collection: &str, query: &Query) -> Result<Vec<Value>> {
        let (condition, values) = condition(query);
        let mut sql = format!("SELECT document FROM \"{collection}\" WHERE {condition} ORDER BY ");
        for (field, order) in &query.sort {
            let order = if *order == Order::Ascending { "ASC" } else { "DESC" };
            sql.push_str(&format!("{} {order}, ", column(field)));
        }
        sql.push_str(&format!("_id LIMIT {} OFFSET {}", query.limit, query.skip));
        self.documents(sql, values).await
    }

    pub(crate) async fn get_all(&self, collection: &str, ids: &[String]) -> Result<Vec<Value>> {
        let sql = format!(
            "SELECT document FROM \"{collection}\" \
             WHERE _id IN (SELECT value FROM json_each(?))"
        );
        let ids = serde_json::to_string(ids)?;
        self.documents(sql, vec![SqlValue::Text(ids)]).await
    }

    /// The documents that a query selects.
    async fn documents(&self, sql: String, values: Vec<SqlValue>) -> Result<Vec<Value>> {
        let texts = self.read(move |connection| {
            let mut statement = connection.prepare_cached(&sql)?;
            let rows = statement.query_map(params_from_iter(values), |row| row.get(0))?;
            rows.collect::<rusqlite::Result<Vec<String>>>()
        });
        texts.await?.iter().map(|text| value(text)).collect()
    }

    pub(crate) async fn count(&self, collection: &str, query: &Query) -> Result<u64> {
        let (condition, values) = condition(query);
        let sql = format!(
            "SELECT count(*) FROM \
             (SELECT 1 FROM \"{collection}\" WHERE {condition} LIMIT {})",
            query.limit
        );
        let counted = self.read(move |connection| {
            connection.query_row(&sql, params_from_iter(values), |row| row.get::<_, i64>(0))
        });
        Ok(counted.await?.unsigned_abs())
    }

    pub(crate) async fn delete(&self, collection: &str, query: &Query) -> Result<u64, WriteError> {
        let (condition, values) = condition(query);
        self.execute(&self.writer, create_table(collection)).await?;
        let delete = format!(
            "DELETE FROM \"{collection}\" WHERE _id IN \
             (SELECT _id FROM \"{collection}\" WHERE {condition} LIMIT {DELETED_AT_ONCE})"
        );
        let mut n_deleted = 0;
        loop {
            let (delete, values) = (delete.clone(), values.clone());
            let delete = move |connection: &mut Connection| {
                connection.execute(&delete, params_from_iter(values))
            };
            let n = self.run(&self.writer, delete).await?;
            n_deleted += n as u64;
            if n < DELETED_AT_ONCE {
                return Ok(n_deleted);
            }
        }
    }

    pub(crate) async fn begin_replacement(&self, next: &str) -> Result<()> {
        let create = format!("DROP TABLE IF EXISTS \"{next}\"; {}", create_table(next));
        Ok(self.execute(&self.maker, create).await?)
    }

    /// Inserts what is new; returns how many that were.
    pub(crate) async fn insert(&self, collection: &str, documents: &[Value]) -> Result<u64> {
        let insert = Insert::new(collection, rows_of(documents)?, OnConflict::Keep, false);
        let known = self.run(&self.maker, move |connection| insert.run(connection)).await?;
        Ok((documents.len() - known.len()) as u64)
    }

    pub(crate) async fn put_in_place(&self, next: &str, collection: &str) -> Result<()> {
        let replace = format!(
            "DROP TABLE IF EXISTS \"{collection}\"; \
             ALTER TABLE \"{next}\" RENAME TO \"{collection}\";"
        );
        // in the log all before it comes first, so it is on the disk with it
        let replaced = self.run(&self.writer, move |connection| {
            let transaction = connection.transaction()?;
            transaction.execute_batch(&replace)?;
            transaction.commit()
        });
        Ok(replaced.await?)
    }

    /// Makes an index in a transaction of its own, with a pause behind it in which others write.
    pub(crate) async fn index(
        &self,
        collection: &str,
        fields: &[&str],
        is_unique: bool,
    ) -> Result<()> {
        let columns: Vec<String> = fields.iter().map(|field| column(field)).collect();
        let (fields, columns) = (fields.join("_"), columns.join(", "));
        let collection = collection.to_owned();
        let create = move |connection: &mut Connection| {
            // an index keeps its name when its table gets another, so no two have one
            let nonce = "SELECT lower(hex(randomblob(8)))";
            let nonce: String = connection.query_row(nonce, [], |row| row.get(0))?;
            let unique = if is_unique { "UNIQUE" } else { "" };
            connection.execute_batch(&format!(
                "CREATE {unique} INDEX \"{collection}_{nonce}_by_{fields}\" \
                 ON \"{collection}\" ({columns})"
            ))
        };
        self.run(&self.maker, create).await?;
        tokio::time::sleep(PAUSE_FOR_OTHERS).await;
        Ok(())
    }

    /// Looks at how many rows the values of indexes have, so that the best one of several is taken.
    pub(crate) async fn analyze(&self, collection: &str) -> Result<()> {
        let analyze = format!("PRAGMA analysis_limit = {ROWS_ANALYZED}; ANALYZE \"{collection}\"");
        Ok(self.execute(&self.maker, analyze).await?)
    }

    pub(crate) async fn keep_for(&self, collection: &str, age: Option<Duration>) -> Result<()> {
        let (create, written_at) = (create_table(collection), column(WRITTEN_AT));
        let index = format!("\"{collection}_by_age\"");
        let Some(age) = age else {
            let forget = format!("DROP INDEX IF EXISTS {index}");
            return Ok(self.execute(&self.writer, forget).await?);
        };
        let prepare = format!(
            "{create}; CREATE INDEX IF NOT EXISTS {index} ON \"{collection}\" ({written_at}); \
             UPDATE \"{collection}\" \
             SET document = json_set(document, '$.{WRITTEN_AT}', {NOW_MS}) \
             WHERE {written_at} IS NULL"
        );
        self.execute(&self.writer, prepare).await?;
        let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let delete = format!(
            "DELETE FROM \"{collection}\" WHERE _id IN (SELECT _id FROM \"{collection}\" \
             WHERE {written_at} < {NOW_MS} - {age_ms} LIMIT {DELETED_AT_ONCE})"
        );
        loop {
            let delete = delete.clone();
            let delete = move |connection: &mut Connection| connection.execute(&delete, []);
            if self.run(&self.writer, delete).await? < DELETED_AT_ONCE {
                return Ok(());
            }
        }
    }

    /// Reads where blocking is allowed, beside all others; a table that is not there is empty. Ends
    /// early, on the database's side too, when nobody waits any more.
    async fn read<T: Default + Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let permit = Arc::clone(&self.readers.free).acquire_owned().await?;
        let idle = self.readers.idle.lock().pop();
        let path = self.path.clone();
        let reader = match idle {
            Some(reader) => reader,
            None => tokio::task::spawn_blocking(move || open_reader(&path)).await??,
        };
        reader.is_left.store(false, Ordering::Relaxed);
        let leave = Leave(Arc::clone(&reader.is_left));
        let reading = tokio::task::spawn_blocking(move || {
            let read = work(&reader.connection);
            // not before: a caller that has gone takes nothing back
            drop(permit);
            (reader, read)
        });
        let (reader, read) = reading.await?;
        drop(leave);
        let mut idle = self.readers.idle.lock();
        if idle.len() < READERS_MAX {
            idle.push(reader);
        }
        drop(idle);
        match read {
            Err(error) if error.to_string().starts_with("no such table") => Ok(T::default()),
            read => read.with_context(|| self.path.display().to_string()),
        }
    }

    /// Runs statements on one of the connections that write.
    async fn execute(
        &self,
        connection: &Arc<Mutex<Connection>>,
        sql: String,
    ) -> Result<(), WriteError> {
        self.run(connection, move |connection| connection.execute_batch(&sql)).await
    }

    /// Runs `work` where blocking is allowed, on one of the connections that write.
    async fn run<T: Send + 'static>(
        &self,
        connection: &Arc<Mutex<Connection>>,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, WriteError> {
        let connection = Arc::clone(connection);
        let done = tokio::task::spawn_blocking(move || {
            // SQLite rolls back what a panicking thread left open, so the connection stays good
            let mut connection = connection.lock();
            work(&mut connection)
        });
        let done = done.await.map_err(anyhow::Error::from)?;
        done.map_err(|error| {
            use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase, ReadOnly, TooBig};
            let code = error.sqlite_error_code();
            let error = anyhow::Error::from(error).context(self.path.display().to_string());
            match code {
                Some(DatabaseCorrupt | NotADatabase | ReadOnly | TooBig) => {
                    WriteError::Permanent(error)
                }
                _ => WriteError::Passing(error),
            }
        })
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_WAIT)?;
    // one that begins as a reader cannot wait: it fails when another has written meanwhile
    connection.set_transaction_behavior(TransactionBehavior::Immediate);
    Ok(connection)
}

fn open_reader(path: &Path) -> rusqlite::Result<Reader> {
    let connection = connect(path)?;
    connection.pragma_update(None, "query_only", true)?;
    let is_left = Arc::new(AtomicBool::new(false));
    // asked again and again, also by what has not begun when the caller leaves
    let looked_at = Arc::clone(&is_left);
    connection.progress_handler(STEPS_UNTIL_ASKED, Some(move || looked_at.load(Ordering::Relaxed)));
    Ok(Reader { connection, is_left })
}

/// Name and text of each document.
fn rows_of(documents: &[Value]) -> Result<Vec<(String, String)>> {
    documents.iter().map(|d| Ok((document_id(d)?.to_owned(), d.to_string()))).collect()
}

/// Rows to be inserted into the table of a collection.
struct Insert {
    create: String,
    insert: String,
    rows: Vec<(String, String)>,
}

impl Insert {
    fn new(collection: &str, rows: Vec<(String, String)>, how: OnConflict, is_dated: bool) -> Self {
        let conflict = match how {
            OnConflict::Keep => "NOTHING",
            OnConflict::Replace => "UPDATE SET document = excluded.document",
        };
        let document = match is_dated {
            true => format!("json_set(?2, '$.{WRITTEN_AT}', {NOW_MS})"),
            false => "?2".to_owned(),
        };
        let insert = format!(
            "INSERT INTO \"{collection}\" (_id, document) VALUES (?1, {document}) \
             ON CONFLICT (_id) DO {conflict}"
        );
        Self { create: create_table(collection), insert, rows }
    }

    /// Inserts them in a transaction of their own; the `_id`s of those that changed nothing.
    fn run(&self, connection: &mut Connection) -> rusqlite::Result<Vec<String>> {
        let transaction = connection.transaction()?;
        let kept = self.run_in(&transaction)?;
        transaction.commit()?;
        Ok(kept)
    }

    fn run_in(&self, transaction: &Transaction) -> rusqlite::Result<Vec<String>> {
        transaction.execute_batch(&self.create)?;
        let mut statement = transaction.prepare_cached(&self.insert)?;
        let mut kept = Vec::new();
        for (id, document) in &self.rows {
            if statement.execute((id, document))? == 0 {
                kept.push(id.clone());
            }
        }
        Ok(kept)
    }
}

/// A document as it was written.
fn value(text: &str) -> Result<Value> {
    let mut value: Value = serde_json::from_str(text).context("a stored document is not JSON")?;
    if let Some(fields) = value.as_object_mut() {
        fields.remove(WRITTEN_AT);
    }
    Ok(value)
}

fn create_table(collection: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS \"{collection}\" \
         (_id TEXT PRIMARY KEY, document TEXT NOT NULL) WITHOUT ROWID"
    )
}

/// The condition of a query, with the values for its question marks.
fn condition(query: &Query) -> (String, Vec<SqlValue>) {
    let mut condition = "TRUE".to_owned();
    let mut values = Vec::new();
    for (field, value) in &query.equal {
        condition.push_str(&format!(" AND {} = ?", column(field)));
        values.push(sql_value(value));
    }
    for (field, min, max) in &query.between {
        condition.push_str(&format!(" AND {} BETWEEN ? AND ?", column(field)));
        values.extend([sql_value(min), sql_value(max)]);
    }
    (condition, values)
}

fn column(field: &str) -> String {
    if field == "_id" { "_id".into() } else { format!("json_extract(document, '$.{field}')") }
}

fn sql_value(value: &Value) -> SqlValue {
    match value {
        Value::Bool(b) => SqlValue::Integer((*b).into()),
        Value::Number(n) => match n.as_i64() {
            Some(i) => SqlValue::Integer(i),
            None => SqlValue::Real(n.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(s) => SqlValue::Text(s.clone()),
        _ => SqlValue::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads for ever.
    const ENDLESS: &str =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";

    #[tokio::test]
    async fn a_read_that_nobody_waits_for_ends_and_hinders_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let store = Embedded::open(&directory.path().join("a.sqlite")).unwrap();
        let endless = || store.read(|c| c.query_row(ENDLESS, [], |row| row.get::<_, i64>(0)));
        for _ in 0..3 {
            // all of them at once, and given up
            let reading = futures::future::join_all((0..READERS_MAX).map(|_| endless()));
            let given_up = tokio::time::timeout(Duration::from_millis(200), reading).await;
            assert!(given_up.is_err());
            // one more has its turn
            let read = store.read(|c| c.query_row("SELECT 7", [], |row| row.get::<_, i64>(0)));
            let read = tokio::time::timeout(Duration::from_secs(60), read).await;
            assert_eq!(read.unwrap().unwrap(), 7);
        }
        let document = [serde_json::json!({"_id": "1"})];
        assert!(store.write("a", &document, OnConflict::Keep).await.unwrap().is_empty());
    }
}
