//! Documents in MongoDB, written in bulk and acknowledged by a majority.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::TryStreamExt;
use mongodb::bson::{self, Document, doc};
use mongodb::options::{Acknowledgment, ClientOptions, WriteConcern};
use mongodb::{Client, Collection, Database};
use serde_json::Value;

use crate::{OnConflict, Query, document_id};

/// How long to look for a server before saying that there is none.
const SERVER_WAIT: Duration = Duration::from_secs(10);

/// MongoDB's code for a second document under a unique key.
const DUPLICATE_KEY: i32 = 11000;

/// A connected MongoDB database.
#[derive(Debug, Clone)]
pub struct Mongo {
    hosts: String,
    database: Database,
}

impl Mongo {
    pub(crate) async fn connect(url: &str, database: &str) -> Result<Self> {
        // the URL may hold a password, and the parser's message may quote it
        let Ok(mut options) = ClientOptions::parse(url).await else {
            bail!("the MongoDB URL is not valid; it looks like mongodb://host:port");
        };
        options.server_selection_timeout = Some(SERVER_WAIT);
        options.app_name = Some("tarmac".into());
        let hosts: Vec<_> = options.hosts.iter().map(ToString::to_string).collect();
        let hosts = hosts.join(",");
        let client = Client::with_options(options)?;
        let database = client.database(database);
        database
            .run_command(doc! { "ping": 1 })
            .await
            .with_context(|| format!("no MongoDB answers at {hosts}"))?;
        Ok(Self { hosts, database })
    }

    pub(crate) fn describe(&self) -> String {
        format!("MongoDB at {}, database {}", self.hosts, self.database.name())
    }

    /// One unordered `update` command; the server applies what it can and names what it cannot.
    pub(crate) async fn write(
        &self,
        collection: &str,
        documents: &[Value],
        how: OnConflict,
    ) -> Result<()> {
        let mut updates = Vec::with_capacity(documents.len());
        for document in documents {
            let id = document_id(document)?;
            let document = bson::serialize_to_document(document)?;
            let change = match how {
                OnConflict::Keep => doc! { "$setOnInsert": document },
                OnConflict::Replace => document,
            };
            updates.push(doc! { "q": { "_id": id }, "u": change, "upsert": true });
        }
        let concern = WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build();
        let reply = self
            .database
            .run_command(doc! {
                "update": collection,
                "updates": updates,
                "ordered": false,
                "writeConcern": bson::serialize_to_bson(&concern)?,
            })
            .await
            .with_context(|| format!("writing {collection} to MongoDB at {}", self.hosts))?;
        if let Some(error) = reply.get("writeConcernError") {
            bail!("writing {collection} to MongoDB at {}: {error}", self.hosts);
        }
        let mut errors = reply.get_array("writeErrors").into_iter().flatten();
        // another writer was first: that is what Keep wants, and it makes Replace try again
        let lost_race = |e: &bson::Bson| how == OnConflict::Keep && code(e) == Some(DUPLICATE_KEY);
        if let Some(error) = errors.find(|e| !lost_race(e)) {
            bail!("writing {collection} to MongoDB at {}: {error}", self.hosts);
        }
        Ok(())
    }

    pub(crate) async fn find(&self, collection: &str, query: &Query) -> Result<Vec<Value>> {
        let mut filter = Document::new();
        for (field, value) in &query.equal {
            filter.insert(field, bson::serialize_to_bson(value)?);
        }
        let mut sort = Document::new();
        if let Some(field) = &query.sort {
            sort.insert(field, 1);
        }
        sort.insert("_id", 1);
        let found = self
            .documents(collection)
            .find(filter)
            .sort(sort)
            .skip(u64::from(query.skip))
            .limit(i64::from(query.limit))
            .await
            .with_context(|| format!("reading {collection} from MongoDB at {}", self.hosts))?;
        found
            .map_err(anyhow::Error::from)
            .and_then(|document| async move { Ok(bson::deserialize_from_document(document)?) })
            .try_collect()
            .await
    }

    pub(crate) async fn count(&self, collection: &str) -> Result<u64> {
        Ok(self.documents(collection).count_documents(doc! {}).await?)
    }

    fn documents(&self, collection: &str) -> Collection<Document> {
        self.database.collection(collection)
    }
}

fn code(error: &bson::Bson) -> Option<i32> {
    error.as_document()?.get_i32("code").ok()
}
