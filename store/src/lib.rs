//! Documents: JSON objects in named collections, kept in MongoDB or in SQLite.
//!
//! A document is named by its string `_id`. Answers are written once ([`Store::write_once`]: the
//! first writer wins, a repetition changes nothing); entities are replaced ([`Store::upsert`]).
//! This crate must not know what a document means.

mod embedded;
mod mongo;

use std::path::Path;

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use embedded::Embedded;
use mongo::Mongo;

/// Documents sent to the database in one command. Large enough to hide the round trip, small
/// enough that a command stays below MongoDB's 48 MB message even at 16 KiB a document.
const DOCUMENTS_PER_COMMAND: usize = 1_000;

/// Where documents are kept. Cheap to clone: clones share connections.
#[derive(Debug, Clone)]
pub enum Store {
    /// A MongoDB server or replica set.
    Mongo(Mongo),
    /// A SQLite file, for a first look without a server.
    Embedded(Embedded),
}

/// What [`Store::find`] returns: documents whose fields equal the given values, in order.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Fields and the values they must equal.
    pub equal: Vec<(String, Value)>,
    /// Field to sort by, ascending; `_id` decides ties.
    pub sort: Option<String>,
    /// Documents to pass over.
    pub skip: u32,
    /// Documents to return at most.
    pub limit: u32,
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
    pub async fn write_once(&self, collection: &str, documents: &[Value]) -> Result<()> {
        self.write(collection, documents, OnConflict::Keep).await
    }

    /// Writes each document, in place of the one with the same `_id`.
    pub async fn upsert(&self, collection: &str, documents: &[Value]) -> Result<()> {
        self.write(collection, documents, OnConflict::Replace).await
    }

    async fn write(&self, collection: &str, documents: &[Value], how: OnConflict) -> Result<()> {
        check_name(collection)?;
        for document in documents {
            document_id(document)?;
        }
        for chunk in documents.chunks(DOCUMENTS_PER_COMMAND) {
            match self {
                Self::Mongo(mongo) => mongo.write(collection, chunk, how).await?,
                Self::Embedded(embedded) => embedded.write(collection, chunk, how).await?,
            }
        }
        Ok(())
    }

    /// The document named `id`, if there is one.
    pub async fn get(&self, collection: &str, id: &str) -> Result<Option<Value>> {
        let by_id =
            Query { equal: vec![("_id".into(), Value::from(id))], limit: 1, ..Query::default() };
        Ok(self.find(collection, &by_id).await?.pop())
    }

    /// The documents that `query` describes. A collection that does not exist is empty.
    pub async fn find(&self, collection: &str, query: &Query) -> Result<Vec<Value>> {
        check_name(collection)?;
        for field in query.equal.iter().map(|(field, _)| field).chain(&query.sort) {
            check_name(field)?;
        }
        for (field, value) in &query.equal {
            // an object would be read as an operator by MongoDB
            ensure!(!value.is_object() && !value.is_array(), "{field} must equal a plain value");
        }
        match self {
            Self::Mongo(mongo) => mongo.find(collection, query).await,
            Self::Embedded(embedded) => embedded.find(collection, query).await,
        }
    }

    /// Number of documents in a collection.
    pub async fn count(&self, collection: &str) -> Result<u64> {
        check_name(collection)?;
        match self {
            Self::Mongo(mongo) => mongo.count(collection).await,
            Self::Embedded(embedded) => embedded.count(collection).await,
        }
    }
}

/// What to do with a document whose `_id` is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnConflict {
    Keep,
    Replace,
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
