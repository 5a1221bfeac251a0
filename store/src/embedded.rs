//! Documents in SQLite: a table a collection, the document as JSON text.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use parking_lot::Mutex;
use rusqlite::types::Value as SqlValue;
use rusqlite::{Connection, Transaction, params_from_iter};
use serde_json::Value;

use crate::{Lease, OnConflict, Order, Query, WRITTEN_AT, WriteError, document_id};

/// How long a writer waits for another process that writes the same file.
const BUSY_WAIT: Duration = Duration::from_secs(10);

/// The time, as SQLite says it: milliseconds since 1970.
const NOW_MS: &str = "CAST(unixepoch('subsec') * 1000 AS INTEGER)";

/// Documents that are deleted at once: other writers wait meanwhile.
const DELETED_AT_ONCE: usize = 5_000;

/// An open SQLite file.
#[derive(Debug, Clone)]
pub struct Embedded {
    path: PathBuf,
    connection: Arc<Mutex<Connection>>,
}

impl Embedded {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let open = || -> rusqlite::Result<Connection> {
            let connection = Connection::open(path)?;
            connection.busy_timeout(BUSY_WAIT)?;
            // write-ahead log: the web server reads while the streaming job writes
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            Ok(connection)
        };
        let connection = open().with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self { path: path.to_owned(), connection: Arc::new(Mutex::new(connection)) })
    }

    pub(crate) fn describe(&self) -> String {
        format!("embedded SQLite at {}", self.path.display())
    }

    pub(crate) async fn look(&self) -> Result<()> {
        Ok(self.with_connection(|connection| connection.execute_batch("SELECT 1")).await?)
    }

    /// Writes the documents; the `_id`s of those that were there before.
    pub(crate) async fn write(
        &self,
        collection: &str,
        documents: &[Value],
        how: OnConflict,
    ) -> Result<Vec<String>, WriteError> {
        self.insert_all(Insert::new(collection, documents, how, true)?).await
    }

    async fn insert_all(&self, insert: Insert) -> Result<Vec<String>, WriteError> {
        self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            let kept = insert.run(&transaction)?;
            transaction.commit()?;
            Ok(kept)
        })
        .await
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
        let acquired = self.with_connection(move |connection| {
            connection.execute_batch(&create)?;
            connection.query_row(&lease, [&id], |row| row.get::<_, String>(0))
        });
        Ok(Lease::of(&value(&acquired.await?)?)?)
    }

    pub(crate) async fn commit(
        &self,
        collection: &str,
        documents: &[Value],
        offsets: &str,
        leases: &[Lease],
    ) -> Result<Vec<String>, WriteError> {
        let insert = Insert::new(collection, documents, OnConflict::Keep, true)?;
        let create = create_table(offsets);
        let advance = format!(
            "UPDATE \"{offsets}\" \
             SET document = json_set(document, '$.next', ?3, '$.published', ?4, \
               '$.log', json(?5), '$.{WRITTEN_AT}', {NOW_MS}) \
             WHERE _id = ?1 AND json_extract(document, '$.epoch') = ?2"
        );
        let leases = leases.to_vec();
        let committed = self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            transaction.execute_batch(&create)?;
            for lease in leases {
                let log = lease.log.as_ref().map_or("null".to_owned(), Value::to_string);
                let values = (&lease.id, lease.epoch, lease.next, lease.published, log);
                if transaction.execute(&advance, values)? == 0 {
                    return Ok(Err(WriteError::Fenced(lease.id)));
                }
            }
            let kept = insert.run(&transaction)?;
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
        self.read(collection, sql, values).await
    }

    pub(crate) async fn get_all(&self, collection: &str, ids: &[String]) -> Result<Vec<Value>> {
        let sql = format!(
            "SELECT document FROM \"{collection}\" \
             WHERE _id IN (SELECT value FROM json_each(?))"
        );
        let ids = serde_json::to_string(ids)?;
        self.read(collection, sql, vec![SqlValue::Text(ids)]).await
    }

    /// The documents that a query selects.
    async fn read(
        &self,
        collection: &str,
        sql: String,
        values: Vec<SqlValue>,
    ) -> Result<Vec<Value>> {
        let create = create_table(collection);
        let texts = self
            .with_connection(move |connection| {
                connection.execute_batch(&create)?;
                let mut statement = connection.prepare_cached(&sql)?;
                statement
                    .query_map(params_from_iter(values), |row| row.get::<_, String>(0))?
                    .collect::<rusqlite::Result<Vec<_>>>()
            })
            .await?;
        texts.iter().map(|text| value(text)).collect()
    }

    pub(crate) async fn count(&self, collection: &str, query: &Query) -> Result<u64> {
        let create = create_table(collection);
        let (condition, values) = condition(query);
        let sql = format!(
            "SELECT count(*) FROM \
             (SELECT 1 FROM \"{collection}\" WHERE {condition} LIMIT {})",
            query.limit
        );
        let counted = self.with_connection(move |connection| {
            connection.execute_batch(&create)?;
            connection.query_row(&sql, params_from_iter(values), |row| row.get::<_, i64>(0))
        });
        Ok(counted.await?.unsigned_abs())
    }

    pub(crate) async fn begin_replacement(&self, next: &str) -> Result<()> {
        let create = format!("DROP TABLE IF EXISTS \"{next}\"; {}", create_table(next));
        Ok(self.with_connection(move |connection| connection.execute_batch(&create)).await?)
    }

    /// Inserts what is new; returns how many that were.
    pub(crate) async fn insert(&self, collection: &str, documents: &[Value]) -> Result<u64> {
        let insert = Insert::new(collection, documents, OnConflict::Keep, false)?;
        let known = self.insert_all(insert).await?;
        Ok((documents.len() - known.len()) as u64)
    }

    pub(crate) async fn put_in_place(&self, next: &str, collection: &str) -> Result<()> {
        let replace = format!(
            "DROP TABLE IF EXISTS \"{collection}\"; \
             ALTER TABLE \"{next}\" RENAME TO \"{collection}\";"
        );
        let replaced = self.with_connection(move |connection| {
            let transaction = connection.transaction()?;
            transaction.execute_batch(&replace)?;
            transaction.commit()
        });
        Ok(replaced.await?)
    }

    /// Makes indexes, each in a transaction of its own: other writers wait for one at a time.
    pub(crate) async fn index(&self, collection: &str, indexes: &[&[&str]]) -> Result<()> {
        for fields in indexes {
            let columns: Vec<String> = fields.iter().map(|field| column(field)).collect();
            let create = format!(
                "CREATE INDEX IF NOT EXISTS \"{collection}_by_{}\" ON \"{collection}\" ({})",
                fields.join("_"),
                columns.join(", ")
            );
            self.with_connection(move |connection| connection.execute_batch(&create)).await?;
        }
        Ok(())
    }

    pub(crate) async fn keep_for(&self, collection: &str, age: Option<Duration>) -> Result<()> {
        let (create, written_at) = (create_table(collection), column(WRITTEN_AT));
        let index = format!("\"{collection}_by_age\"");
        let Some(age) = age else {
            let forget = format!("DROP INDEX IF EXISTS {index}");
            return Ok(self.with_connection(move |c| c.execute_batch(&forget)).await?);
        };
        let prepare = format!(
            "{create}; CREATE INDEX IF NOT EXISTS {index} ON \"{collection}\" ({written_at}); \
             UPDATE \"{collection}\" \
             SET document = json_set(document, '$.{WRITTEN_AT}', {NOW_MS}) \
             WHERE {written_at} IS NULL"
        );
        self.with_connection(move |connection| connection.execute_batch(&prepare)).await?;
        let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let delete = format!(
            "DELETE FROM \"{collection}\" WHERE _id IN (SELECT _id FROM \"{collection}\" \
             WHERE {written_at} < {NOW_MS} - {age_ms} LIMIT {DELETED_AT_ONCE})"
        );
        loop {
            let delete = delete.clone();
            let delete = move |connection: &mut Connection| connection.execute(&delete, []);
            if self.with_connection(delete).await? < DELETED_AT_ONCE {
                return Ok(());
            }
        }
    }

    /// Runs `work` where blocking is allowed.
    async fn with_connection<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, WriteError> {
        let connection = Arc::clone(&self.connection);
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

/// Rows to be inserted into the table of a collection.
struct Insert {
    create: String,
    insert: String,
    rows: Vec<(String, String)>,
}

impl Insert {
    fn new(collection: &str, documents: &[Value], how: OnConflict, is_dated: bool) -> Result<Self> {
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
        let rows = documents.iter().map(|d| Ok((document_id(d)?.to_owned(), d.to_string())));
        Ok(Self { create: create_table(collection), insert, rows: rows.collect::<Result<_>>()? })
    }

    /// Inserts them; the `_id`s of those that changed nothing.
    fn run(&self, transaction: &Transaction) -> rusqlite::Result<Vec<String>> {
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
