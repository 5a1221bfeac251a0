//! Documents: JSON objects in named collections, kept in MongoDB or in SQLite.
//!
//! A document is named by its string `_id`. Entities are replaced ([`Store::upsert`]). Answers are
//! written once ([`Store::write_once`]: the first writer wins, a repetition changes nothing), by a
//! stream together with how far it is ([`Store::commit`]), so that what dies between the two cannot
//! part them. This crate must not know what a document means.
//!
//! ```
//! use serde_json::json;
//! use store::Store;
//!
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("documents.sqlite");
//! # let runtime = tokio::runtime::Runtime::new()?;
//! # runtime.block_on(async {
//! let store = Store::embedded(&path)?;
//! for text in ["first", "second"] {
//!     store.write_once("answers", &[json!({ "_id": "1", "text": text })]).await?;
//! }
//! let answer = store.get("answers", "1").await?;
//! assert_eq!(answer.unwrap()["text"], "first");
//! # anyhow::Ok(())
//! # })?;
//! # anyhow::Ok(())
//! ```

mod document;
mod embedded;
mod mongo;
mod mongo_commands;
mod mongo_errors;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

pub use document::Document;
use embedded::Embedded;
use mongo::Mongo;

/// Documents sent to the database in one command. Large enough to hide the round trip.
const DOCUMENTS_PER_COMMAND: usize = 1_000;
/// Bytes of documents, about, that are sent in one command. MongoDB takes 16 MiB, and BSON with
/// its field names of arrays can be larger than JSON.
const BYTES_PER_COMMAND: usize = 8 * 1024 * 1024;

/// No `_id` is larger.
const ID_LAST: &str = "\u{10ffff}";

/// What the name of a collection that is being made ends with.
const NEXT_SUFFIX: &str = "_next";

/// Field that says when a document was written last: a date in MongoDB, as its indexes that delete
/// want it, milliseconds since 1970 in SQLite. Readers of the database see it; who reads through
/// [`Store`] does not. Documents of a [`Replacement`] have none.
const WRITTEN_AT: &str = "WrittenAt";

/// Where documents are kept. Cheap to clone: clones share connections.
#[derive(Debug, Clone)]
pub enum Store {
    /// A MongoDB server or replica set.
    Mongo(Mongo),
    /// A SQLite file, for a first look without a server.
    Embedded(Embedded),
}

/// Documents whose fields are as said, in order.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Fields and the values they must equal.
    pub equal: Vec<(String, Value)>,
    /// Fields and the smallest and largest value that they may have.
    pub between: Vec<(String, Value, Value)>,
    /// Fields to sort by, the weightiest first; `_id` decides ties.
    pub sort: Vec<(String, Order)>,
    /// Documents to pass over.
    pub skip: u32,
    /// Documents to return, or to count, at most.
    pub limit: u32,
    /// How long MongoDB may look; half a minute when nothing is said. SQLite stops as soon as
    /// nobody waits any more.
    pub patience: Option<Duration>,
}

/// The order of a field's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The smallest first; documents without the field before all others.
    Ascending,
    /// The largest first.
    Descending,
}

/// A collection that is made anew: filled out of sight, then put in the place of what was there.
#[derive(Debug)]
pub struct Replacement<'a> {
    store: &'a Store,
    collection: &'a str,
    next: String,
    n_documents: u64,
}

/// What a process holds of a log that several may work off: the right to say how far it is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Names the log.
    pub id: String,
    /// The fencing token, raised each time that the lease is acquired. Who holds an older one
    /// writes nothing any more.
    pub epoch: i64,
    /// Offset of the first message that is not done.
    pub next: i64,
    /// Offset of the first message whose answer may not be published; at most `next`.
    pub published: i64,
    /// Distinguishes this log from another one under the same name. It is kept beside the offsets,
    /// and is for the owner of the log to understand.
    pub log: Option<Value>,
}

impl Lease {
    /// What a document of offsets says, without acquiring it: its epoch holds until somebody does.
    pub fn of(document: &Value) -> Result<Self> {
        let id = document_id(document)?;
        let number = |name: &str| {
            document[name].as_i64().with_context(|| format!("{id} has no number {name}"))
        };
        let log = Some(document["log"].clone()).filter(|log| !log.is_null());
        let (epoch, next, published) = (number("epoch")?, number("next")?, number("published")?);
        Ok(Self { id: id.to_owned(), epoch, next, published, log })
    }
}

/// What a database says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Its version.
    pub version: String,
    /// Whether answers and offsets are written in one transaction.
    pub has_transactions: bool,
    /// Its clock, in milliseconds since 1970; SQLite's is this machine's.
    pub now_ms: Option<i64>,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Somebody else has acquired one of these logs. Throw the work away; acquire again before any
    /// more.
    #[error("another process has acquired {0}")]
    Fenced(String),
    /// The database refuses this, and will refuse it again. Do not repeat it.
    #[error(transparent)]
    Permanent(anyhow::Error),
    /// The database failed, and may or may not have written. Writing the same again is harmless.
    #[error(transparent)]
    Passing(anyhow::Error),
}

/// What is not known to be otherwise passes.
impl From<anyhow::Error> for WriteError {
    fn from(error: anyhow::Error) -> Self {
        error.downcast().unwrap_or_else(Self::Passing)
    }
}

impl Store {
    /// Connects to MongoDB at `url` (`mongodb://…`) and uses `database`.
    ///
    /// Errors when no server answers within ten seconds; the message names the hosts, never the
    /// password.
    pub async fn mongo(url: &str, database: &str) -> Result<Self> {
        Ok(Self::Mongo(Mongo::connect(url, database).await?))
    }

    /// Opens the SQLite file at `path`, creating it when it does not exist.
    pub fn embedded(path: &Path) -> Result<Self> {
        Ok(Self::Embedded(Embedded::open(path)?))
    }

    /// Says what the store is, without secrets.
    pub fn describe(&self) -> String {
        match self {
            Self::Mongo(mongo) => mongo.describe(),
            Self::Embedded(embedded) => embedded.describe(),
        }
    }

    /// Writes the documents whose `_id` is new and leaves the others as they are: a repetition
    /// is a no-op. Durable when it returns.
    pub async fn write_once(
        &self,
        collection: &str,
        documents: &[Value],
    ) -> Result<(), WriteError> {
        self.write(collection, documents, OnConflict::Keep).await
    }

    /// Writes each document, in place of the one with the same `_id`.
    pub async fn upsert(&self, collection: &str, documents: &[Value]) -> Result<(), WriteError> {
        self.write(collection, documents, OnConflict::Replace).await
    }

    async fn write(
        &self,
        collection: &str,
        documents: &[Value],
        how: OnConflict,
    ) -> Result<(), WriteError> {
        check_documents(collection, documents)?;
        for chunk in commands(documents, json_bytes) {
            match self {
                Self::Mongo(mongo) => mongo.write(collection, chunk, how).await?,
                Self::Embedded(embedded) => embedded.write(collection, chunk, how).await?,
            };
        }
        Ok(())
    }

    /// Fails while the database does not answer, or has no server that takes writes. Notices what
    /// has become of it: a replica set may come back as a server by itself, and the other way.
    pub async fn look(&self) -> Result<()> {
        match self {
            Self::Mongo(mongo) => mongo.look().await,
            Self::Embedded(embedded) => embedded.look().await,
        }
    }

    /// What the database is.
    pub async fn server(&self) -> Result<Server> {
        match self {
            Self::Mongo(mongo) => mongo.server().await,
            Self::Embedded(embedded) => embedded.server().await,
        }
    }

    /// Acquires the log `id` of `collection`, away from its holder. One that nobody has acquired
    /// before begins at offset 0.
    pub async fn acquire(&self, collection: &str, id: &str) -> Result<Lease, WriteError> {
        check_name(collection)?;
        match self {
            Self::Mongo(mongo) => mongo.acquire(collection, id).await,
            Self::Embedded(embedded) => embedded.acquire(collection, id).await,
        }
    }

    /// [Writes once](Self::write_once) `documents` and moves acquired logs to the offsets that
    /// `leases` say; returns the `_id`s of the documents that were there before.
    ///
    /// All or nothing, where the database has transactions, and only while all leases hold. A
    /// MongoDB server that is no replica set has none: it writes the documents first, so that a
    /// crash leaves work that will be repeated, never an offset without its documents.
    pub async fn commit(
        &self,
        collection: &str,
        documents: &[Document],
        offsets: &str,
        leases: &[Lease],
    ) -> Result<Vec<String>, WriteError> {
        check_name(offsets)?;
        check_name(collection)?;
        if leases.is_empty() {
            return Err(anyhow::anyhow!("there is no lease to commit by").into());
        }
        match self {
            Self::Mongo(mongo) => mongo.commit(collection, documents, offsets, leases).await,
            Self::Embedded(embedded) => {
                embedded.commit(collection, documents, offsets, leases).await
            }
        }
    }

    /// How many [commits](Self::commit) of different logs are done sooner together than one after
    /// the other.
    pub fn n_commits_together(&self) -> usize {
        match self {
            // a transaction, or a command, is of one thread of the server
            Self::Mongo(_) => 2,
            Self::Embedded(_) => 1,
        }
    }

    /// Has documents of `collection` deleted that nobody has written for `age`; without an age they
    /// stay for ever. Documents that say nothing of their age count as written now.
    ///
    /// MongoDB does it by itself from then on, within about a minute; SQLite does it now, and again
    /// at each call.
    pub async fn keep_for(&self, collection: &str, age: Option<Duration>) -> Result<()> {
        check_name(collection)?;
        match self {
            Self::Mongo(mongo) => mongo.keep_for(collection, age).await,
            Self::Embedded(embedded) => embedded.keep_for(collection, age).await,
        }
    }

    /// The document named `id`, if there is one.
    pub async fn get(&self, collection: &str, id: &str) -> Result<Option<Value>> {
        let by_id =
            Query { equal: vec![("_id".into(), Value::from(id))], limit: 1, ..Query::default() };
        Ok(self.find(collection, &by_id).await?.pop())
    }

    /// The documents of these `_id`s that are there, in any order.
    pub async fn get_all(&self, collection: &str, ids: &[String]) -> Result<Vec<Value>> {
        check_name(collection)?;
        let mut found = Vec::with_capacity(ids.len());
        for chunk in ids.chunks(DOCUMENTS_PER_COMMAND) {
            found.extend(match self {
                Self::Mongo(mongo) => mongo.get_all(collection, chunk).await?,
                Self::Embedded(embedded) => embedded.get_all(collection, chunk).await?,
            });
        }
        Ok(found)
    }

    /// The documents that `query` describes. A collection that does not exist is empty.
    pub async fn find(&self, collection: &str, query: &Query) -> Result<Vec<Value>> {
        check_name(collection)?;
        query.check()?;
        match self {
            Self::Mongo(mongo) => mongo.find(collection, query).await,
            Self::Embedded(embedded) => embedded.find(collection, query).await,
        }
    }

    /// Gives all documents that `query` describes to `take`, as many at a time as its limit says,
    /// in the order of their `_id`s, which is the only one. Its bounds of `_id` make it cheap.
    /// Documents of other programs whose `_id` is no text are left out.
    pub async fn scan(
        &self,
        collection: &str,
        query: &Query,
        mut take: impl AsyncFnMut(Vec<Value>) -> Result<()>,
    ) -> Result<()> {
        ensure!(query.limit > 0, "a scan takes some documents at a time");
        let mut page = Query { sort: Vec::new(), skip: 0, ..query.clone() };
        let mut next = String::new();
        loop {
            page.between.clone_from(&query.between);
            page.between.push(("_id".to_owned(), next.into(), ID_LAST.into()));
            let documents = self.find(collection, &page).await?;
            let Some(last) = documents.last() else { return Ok(()) };
            // the smallest text after it
            next = format!("{}\0", document_id(last)?);
            let is_all = documents.len() < page.limit as usize;
            take(documents).await?;
            if is_all {
                return Ok(());
            }
        }
    }

    /// Number of documents that `query` describes, its `skip` aside; no further than its limit, so
    /// that counting is bounded too.
    pub async fn count(&self, collection: &str, query: &Query) -> Result<u64> {
        check_name(collection)?;
        query.check()?;
        match self {
            Self::Mongo(mongo) => mongo.count(collection, query).await,
            Self::Embedded(embedded) => embedded.count(collection, query).await,
        }
    }

    /// Deletes the documents that `query` describes, all of them, whatever it says of order and
    /// number; returns how many those were.
    pub async fn delete(&self, collection: &str, query: &Query) -> Result<u64, WriteError> {
        check_name(collection)?;
        query.check()?;
        match self {
            Self::Mongo(mongo) => mongo.delete(collection, query).await,
            Self::Embedded(embedded) => embedded.delete(collection, query).await,
        }
    }

    /// Begins to make a collection anew. Readers see the old one until
    /// [`finish`](Replacement::finish); one replacement of a collection at a time.
    pub async fn replace<'a>(&'a self, collection: &'a str) -> Result<Replacement<'a>> {
        check_name(collection)?;
        let next = format!("{collection}{NEXT_SUFFIX}");
        match self {
            Self::Mongo(mongo) => mongo.begin_replacement(&next).await?,
            Self::Embedded(embedded) => embedded.begin_replacement(&next).await?,
        }
        Ok(Replacement { store: self, collection, next, n_documents: 0 })
    }
}

impl Replacement<'_> {
    /// Adds documents; one whose `_id` is there already is left out.
    pub async fn add(&mut self, documents: &[Value]) -> Result<()> {
        check_documents(self.collection, documents)?;
        for chunk in commands(documents, json_bytes) {
            self.n_documents += match self.store {
                Store::Mongo(mongo) => mongo.insert(&self.next, chunk).await?,
                Store::Embedded(embedded) => embedded.insert(&self.next, chunk).await?,
            };
        }
        Ok(())
    }

    /// Puts the new collection in the place of the old one, all at once, with an index over the
    /// fields of each of `indexes`, and one over those of `unique`, if there are any, that refuses
    /// what is there already; returns its number of documents.
    pub async fn finish(self, indexes: &[&[&str]], unique: &[&str]) -> Result<u64> {
        let Self { store, collection, next, n_documents } = self;
        indexes.iter().copied().flatten().chain(unique).try_for_each(|field| check_name(field))?;
        let unique = Some((unique, true)).filter(|(fields, _)| !fields.is_empty());
        for (fields, is_unique) in indexes.iter().map(|fields| (*fields, false)).chain(unique) {
            match store {
                Store::Mongo(mongo) => mongo.index(&next, fields, is_unique).await?,
                Store::Embedded(embedded) => embedded.index(&next, fields, is_unique).await?,
            }
        }
        let all = Query { limit: u32::MAX, ..Query::default() };
        let found = store.count(&next, &all).await?;
        ensure!(found == n_documents, "another program is replacing {collection} too: try again");
        match store {
            Store::Mongo(mongo) => mongo.put_in_place(&next, collection).await?,
            Store::Embedded(embedded) => {
                embedded.put_in_place(&next, collection).await?;
                // what is known of a table is forgotten when it gets another name, so not before
                embedded.analyze(collection).await?;
            }
        }
        Ok(n_documents)
    }
}

impl Query {
    fn check(&self) -> Result<()> {
        let equal = self.equal.iter().map(|(field, value)| (field, value));
        let between =
            self.between.iter().flat_map(|(field, min, max)| [(field, min), (field, max)]);
        for (field, value) in equal.chain(between) {
            check_name(field)?;
            // an object would be read as an operator by MongoDB
            ensure!(!value.is_object() && !value.is_array(), "{field} must be a plain value");
        }
        self.sort.iter().try_for_each(|(field, _)| check_name(field))
    }
}

/// What to do with a document whose `_id` is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnConflict {
    Keep,
    Replace,
}

/// The documents in commands of bounded number and bytes, in order. One that is larger than the
/// bound has a command to itself.
fn commands<D>(documents: &[D], bytes_of: fn(&D) -> usize) -> impl Iterator<Item = &[D]> {
    let mut rest = documents;
    std::iter::from_fn(move || {
        let mut n_bytes = 0;
        let fits = |document: &&D| {
            n_bytes += bytes_of(document);
            n_bytes <= BYTES_PER_COMMAND
        };
        let n = rest.iter().take(DOCUMENTS_PER_COMMAND).take_while(fits).count();
        let (command, after) = rest.split_at(n.max(1).min(rest.len()));
        rest = after;
        (!command.is_empty()).then_some(command)
    })
}

/// About the bytes of a document as JSON, without writing it.
fn json_bytes(value: &Value) -> usize {
    /// Room for a number, a constant, or the signs around a field.
    const SCALAR_BYTES: usize = 16;
    match value {
        Value::String(text) => text.len() + SCALAR_BYTES,
        Value::Array(values) => values.iter().map(json_bytes).sum::<usize>() + SCALAR_BYTES,
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| name.len() + json_bytes(value);
            fields.iter().map(field).sum::<usize>() + SCALAR_BYTES
        }
        _ => SCALAR_BYTES,
    }
}

fn check_documents(collection: &str, documents: &[Value]) -> Result<()> {
    check_name(collection)?;
    documents.iter().try_for_each(|document| document_id(document).map(drop))
}

fn document_id(document: &Value) -> Result<&str> {
    match document.get("_id").and_then(Value::as_str) {
        Some(id) if !id.is_empty() => Ok(id),
        _ => bail!("a document needs a string _id: {document}"),
    }
}

/// Names go into commands as they are, so they may hold nothing but letters, digits and `_`.
fn check_name(name: &str) -> Result<()> {
    let valid = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    ensure!(valid, "{name:?} is not a name of a collection or field");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_bounded_in_order_and_leave_nothing_out() {
        let sizes = |documents: &[Value]| -> Vec<usize> {
            let found: Vec<&[Value]> = commands(documents, json_bytes).collect();
            assert_eq!(found.concat(), documents);
            found.iter().map(|command| command.len()).collect()
        };
        let document = |n_bytes: usize| serde_json::json!({"_id": "x".repeat(n_bytes)});
        assert_eq!(sizes(&vec![document(1); 2 * DOCUMENTS_PER_COMMAND + 1]), [1_000, 1_000, 1]);
        assert_eq!(sizes(&vec![document(BYTES_PER_COMMAND / 3); 5]), [2, 2, 1]);
        let large = [document(1), document(2 * BYTES_PER_COMMAND), document(1)];
        assert_eq!(sizes(&large), [1, 1, 1]);
        assert!(sizes(&[]).is_empty());
    }
}
