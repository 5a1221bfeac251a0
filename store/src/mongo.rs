//! Documents in MongoDB, written in bulk and acknowledged by a majority.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use futures::TryStreamExt;
use mongodb::bson::{self, Document, cstr, doc};
use mongodb::error::ErrorKind;
use mongodb::options::IndexOptions;
use mongodb::options::{
    Acknowledgment, ClientOptions, ReadConcern, ReadPreference, ReturnDocument, SelectionCriteria,
    TransactionOptions, WriteConcern,
};
use mongodb::{Client, Collection, Cursor, Database, IndexModel};
use parking_lot::RwLock;
use serde_json::Value;

use crate::mongo_commands::{decoded, ids_of, insert_command, kept, move_command, update_command};
use crate::mongo_errors::{code, code_of, explain, fault, write_fault};
use crate::{Lease, OnConflict, Order, Query, Server, WRITTEN_AT, WriteError, commands};

/// How long to look for a server before saying that there is none.
const SERVER_WAIT: Duration = Duration::from_secs(10);

/// How long a look may take before the client is replaced: shorter than the client looks itself.
const LOOK_WAIT: Duration = Duration::from_secs(4);

/// How long to wait for the server's word on what it is, after a commit that failed.
const HELLO_WAIT: Duration = Duration::from_secs(2);

/// How long the server may search for documents: the caller has given up by then.
const READ_WAIT: Duration = Duration::from_secs(30);

/// MongoDB's code for a second document under a unique key.
const DUPLICATE_KEY: i32 = 11000;
/// Its code for an index that is there with another age.
const INDEX_OPTIONS_CONFLICT: i32 = 85;
/// Its codes for a collection, or an index, that is not there.
const NOT_FOUND: [i32; 2] = [26, 27];

/// The index by which a collection forgets.
const AGE_INDEX: &str = "tarmac_age";

/// How a transaction writes documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Write {
    /// None of them may be there.
    Insert,
    /// Those that are there stay.
    Upsert,
}

/// Whether a server is of a replica set, or a router before some.
fn is_set(hello: &Document) -> bool {
    hello.contains_key("setName") || hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid")
}

/// A connected MongoDB database.
#[derive(Debug, Clone)]
pub struct Mongo {
    hosts: String,
    database: String,
    options: Arc<ClientOptions>,
    client: Arc<RwLock<Client>>,
    /// Whether it is a replica set or behind a router; a server by itself has no transactions.
    has_transactions: Arc<AtomicBool>,
}

impl Mongo {
    pub(crate) async fn connect(url: &str, database: &str) -> Result<Self> {
        // the URL may hold a password, and the parser's message may quote it
        let Ok(mut options) = ClientOptions::parse(url).await else {
            bail!("the MongoDB URL is not valid; it looks like mongodb://host:port");
        };
        options.server_selection_timeout = Some(SERVER_WAIT);
        options.app_name = Some("tarmac".into());
        // what was read once is never undone by a change of the primary
        options.read_concern = Some(ReadConcern::majority());
        options.write_concern = Some(durably());
        // what was just written is read, and commands of ours write: whatever the URL prefers, only
        // the primary can do that
        options.selection_criteria = Some(primary());
        let hosts: Vec<_> = options.hosts.iter().map(ToString::to_string).collect();
        let mongo = Self {
            hosts: hosts.join(","),
            database: database.to_owned(),
            client: Arc::new(RwLock::new(Client::with_options(options.clone())?)),
            options: Arc::new(options),
            has_transactions: Arc::default(),
        };
        mongo.say_hello().await.map_err(|error| {
            anyhow!("no MongoDB answers at {}: {}", mongo.hosts, explain(&error))
        })?;
        // says nothing without the right to it
        let list = doc! { "listCollections": 1, "nameOnly": true };
        mongo.database().run_command(list).await.map_err(|error| {
            anyhow!("MongoDB at {} does not let us in: {}", mongo.hosts, explain(&error))
        })?;
        Ok(mongo)
    }

    fn client(&self) -> Client {
        self.client.read().clone()
    }

    fn database(&self) -> Database {
        self.client().database(&self.database)
    }

    /// Asks the primary what it is.
    async fn say_hello(&self) -> mongodb::error::Result<()> {
        let hello = self.database().run_command(doc! { "hello": 1 }).await?;
        let has_transactions = is_set(&hello);
        if self.has_transactions.swap(has_transactions, Ordering::Relaxed) != has_transactions {
            tracing::info!("{}", self.describe());
        }
        Ok(())
    }

    pub(crate) async fn look(&self) -> Result<()> {
        let said = match tokio::time::timeout(LOOK_WAIT, self.say_hello()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) if !matches!(*error.kind, ErrorKind::ServerSelection { .. }) => {
                bail!("MongoDB at {}: {}", self.hosts, explain(&error))
            }
            Ok(Err(error)) => explain(&error),
            Err(_) => format!("no server is found within {} s", LOOK_WAIT.as_secs()),
        };
        // a client strikes members off that are none of its set any more, for good
        let fresh = Client::with_options(ClientOptions::clone(&self.options))?;
        *self.client.write() = fresh;
        bail!("MongoDB at {}: {said}", self.hosts)
    }

    pub(crate) async fn server(&self) -> Result<Server> {
        let asked = async {
            let (database, command) = (self.database(), doc! { "hello": 1 });
            let hello = database.run_command(command).await?;
            let build = database.run_command(doc! { "buildInfo": 1 }).await?;
            Ok::<_, mongodb::error::Error>((hello, build))
        };
        let (hello, build) =
            asked.await.map_err(|e| anyhow!("MongoDB at {}: {}", self.hosts, explain(&e)))?;
        Ok(Server {
            version: build.get_str("version").unwrap_or("unknown").to_owned(),
            has_transactions: is_set(&hello),
            now_ms: hello.get_datetime("localTime").ok().map(|at| at.timestamp_millis()),
        })
    }

    pub(crate) fn describe(&self) -> String {
        let how = match self.has_transactions.load(Ordering::Relaxed) {
            true => "answers and offsets in one transaction",
            false => "no replica set: answers first, then offsets",
        };
        format!("MongoDB at {}, database {}, {how}", self.hosts, self.database)
    }

    /// Writes the documents in one command; the `_id`s of those that were there before.
    pub(crate) async fn write(
        &self,
        collection: &str,
        documents: &[Value],
        how: OnConflict,
    ) -> Result<Vec<String>, WriteError> {
        let encoded = documents.iter().map(|d| Ok(bson::serialize_to_document(d)?));
        self.update(collection, encoded.collect::<Result<_>>()?, how).await
    }

    async fn update(
        &self,
        collection: &str,
        documents: Vec<Document>,
        how: OnConflict,
    ) -> Result<Vec<String>, WriteError> {
        let ids = ids_of(&documents)?;
        let mut command = update_command(collection, documents, how)?;
        let durably =
            bson::serialize_to_raw_document_buf(&durably()).map_err(anyhow::Error::from)?;
        command.append(cstr!("writeConcern"), durably);
        let reply = self.database().run_raw_command(command).await;
        let reply = reply.map_err(|error| fault(self.writing(collection), &error))?;
        // another writer was first: that is what Keep wants, and it makes Replace try again
        let lost_race = |e: &bson::Bson| how == OnConflict::Keep && code(e) == Some(DUPLICATE_KEY);
        self.check_reply(collection, &reply, lost_race)?;
        Ok(kept(ids, &reply)?)
    }

    pub(crate) async fn acquire(&self, collection: &str, id: &str) -> Result<Lease, WriteError> {
        let nothing_done = doc! { "next": 0_i64, "published": 0_i64 };
        let acquired = self
            .documents(collection)
            .find_one_and_update(
                doc! { "_id": id },
                doc! {
                    "$inc": { "epoch": 1_i64 },
                    "$set": { WRITTEN_AT: bson::DateTime::now() },
                    "$setOnInsert": nothing_done,
                },
            )
            .upsert(true)
            .return_document(ReturnDocument::After)
            .await
            .map_err(|error| fault(format!("acquiring {id} in MongoDB at {}", self.hosts), &error))?
            .context("an upsert left no document")?;
        Ok(Lease::of(&value(acquired)?)?)
    }

    pub(crate) async fn commit(
        &self,
        collection: &str,
        documents: &[crate::Document],
        offsets: &str,
        leases: &[Lease],
    ) -> Result<Vec<String>, WriteError> {
        if self.has_transactions.load(Ordering::Relaxed) {
            let committed = self.commit_at_once(collection, documents, offsets, leases).await;
            if let Err(WriteError::Permanent(_) | WriteError::Passing(_)) = committed {
                // it may be a server by itself by now, which knows no transactions; while none
                // answers nothing is known
                _ = tokio::time::timeout(HELLO_WAIT, self.say_hello()).await;
            }
            return committed;
        }
        let mut kept = Vec::new();
        for chunk in commands(documents, crate::Document::n_bytes) {
            kept.extend(self.update(collection, decoded(chunk)?, OnConflict::Keep).await?);
        }
        let mut command = move_command(offsets, leases)?;
        let durably = bson::serialize_to_bson(&durably()).map_err(anyhow::Error::from)?;
        command.insert("writeConcern", durably);
        check_moved(leases, self.database().run_command(command).await)?;
        Ok(kept)
    }

    async fn commit_at_once(
        &self,
        collection: &str,
        documents: &[crate::Document],
        offsets: &str,
        leases: &[Lease],
    ) -> Result<Vec<String>, WriteError> {
        // an insert costs a fifth of an upsert, and documents are there before only when a
        // micro-batch is read again
        let inserted = self.transact(collection, documents, offsets, leases, Write::Insert);
        if let Some(kept) = inserted.await? {
            return Ok(kept);
        }
        let kept = self.transact(collection, documents, offsets, leases, Write::Upsert).await?;
        Ok(kept.context("an upsert found no place")?)
    }

    /// Writes documents and offsets in one transaction, or nothing; `None` when a document was
    /// there before and must not be.
    async fn transact(
        &self,
        collection: &str,
        documents: &[crate::Document],
        offsets: &str,
        leases: &[Lease],
        how: Write,
    ) -> Result<Option<Vec<String>>, WriteError> {
        let database = self.database();
        let began = async {
            let mut session = database.client().start_session().await?;
            let options = TransactionOptions::builder()
                .read_concern(ReadConcern::snapshot())
                .write_concern(durably())
                .selection_criteria(primary())
                .build();
            session.start_transaction().with_options(options).await?;
            mongodb::error::Result::Ok(session)
        };
        let beginning = || format!("a transaction in MongoDB at {}", self.hosts);
        let mut session = began.await.map_err(|error| fault(beginning(), &error))?;
        let written = async {
            // the offsets first: a lease that was lost costs no document
            let moving = database.run_command(move_command(offsets, leases)?);
            check_moved(leases, moving.session(&mut session).await)?;
            let mut all_kept = Vec::new();
            for chunk in commands(documents, crate::Document::n_bytes) {
                let command = match how {
                    Write::Insert => {
                        let encoded = chunk.iter().map(|document| document.bson.as_ref());
                        insert_command(collection, encoded, Some(bson::DateTime::now()))?
                    }
                    Write::Upsert => update_command(collection, decoded(chunk)?, OnConflict::Keep)?,
                };
                let reply = database.run_raw_command(command).session(&mut session).await;
                let reply = reply.map_err(|error| fault(self.writing(collection), &error))?;
                let errors = || reply.get_array("writeErrors").into_iter().flatten();
                if how == Write::Insert && errors().any(|e| code(e) == Some(DUPLICATE_KEY)) {
                    return Ok(None);
                }
                self.check_reply(collection, &reply, |_| false)?;
                if how == Write::Upsert {
                    let ids = chunk.iter().map(|document| document.id.clone());
                    all_kept.extend(kept(ids.collect(), &reply)?);
                }
            }
            Ok(Some(all_kept))
        };
        let written = written.await;
        if let Ok(Some(_)) = written {
            let committed = session.commit_transaction().await;
            let committing = || format!("committing to MongoDB at {}", self.hosts);
            committed.map_err(|error| fault(committing(), &error))?;
        } else {
            // the server forgets it by itself too, later
            _ = session.abort_transaction().await;
        }
        written
    }

    fn writing(&self, collection: &str) -> String {
        format!("writing {collection} to MongoDB at {}", self.hosts)
    }

    fn check_reply(
        &self,
        collection: &str,
        reply: &Document,
        is_harmless: impl Fn(&bson::Bson) -> bool,
    ) -> Result<(), WriteError> {
        let mut errors = reply.get_array("writeErrors").into_iter().flatten();
        let error = errors.find(|error| !is_harmless(error));
        match reply.get("writeConcernError").or(error) {
            Some(error) => Err(write_fault(self.writing(collection), error)),
            None => Ok(()),
        }
    }

    pub(crate) async fn find(&self, collection: &str, query: &Query) -> Result<Vec<Value>> {
        if query.limit == 0 {
            // no limit, to MongoDB
            return Ok(Vec::new());
        }
        let mut sort = Document::new();
        for (field, order) in &query.sort {
            sort.insert(field, if *order == Order::Ascending { 1 } else { -1 });
        }
        sort.entry("_id".to_owned()).or_insert(bson::Bson::Int32(1));
        let documents = self.documents(collection);
        let found = documents.find(filter(query)?).sort(sort);
        let found = found.skip(u64::from(query.skip)).limit(i64::from(query.limit));
        let found = found.max_time(query.patience.unwrap_or(READ_WAIT));
        self.read(collection, found).await
    }

    pub(crate) async fn get_all(&self, collection: &str, ids: &[String]) -> Result<Vec<Value>> {
        let documents = self.documents(collection);
        self.read(collection, documents.find(doc! { "_id": { "$in": ids } })).await
    }

    async fn read(
        &self,
        collection: &str,
        found: impl IntoFuture<Output = mongodb::error::Result<Cursor<Document>>>,
    ) -> Result<Vec<Value>> {
        let reading = |error| {
            let what = format!("reading {collection} from MongoDB at {}", self.hosts);
            anyhow::Error::from(fault(what, &error))
        };
        let found = found.await.map_err(reading)?;
        found
            .map_err(reading)
            .and_then(|document| async move { value(document) })
            .try_collect()
            .await
    }

    pub(crate) async fn count(&self, collection: &str, query: &Query) -> Result<u64> {
        if query.limit == 0 {
            // no limit, to MongoDB
            return Ok(0);
        }
        let documents = self.documents(collection);
        let counting = documents.count_documents(filter(query)?).limit(u64::from(query.limit));
        let counting = counting.max_time(query.patience.unwrap_or(READ_WAIT));
        let what = || format!("counting {collection} in MongoDB at {}", self.hosts);
        Ok(counting.await.map_err(|error| fault(what(), &error))?)
    }

    pub(crate) async fn delete(&self, collection: &str, query: &Query) -> Result<u64, WriteError> {
        let what = || format!("deleting from {collection} in MongoDB at {}", self.hosts);
        let documents = self.documents(collection);
        let deleted = documents.delete_many(filter(query)?).write_concern(durably()).await;
        Ok(deleted.map_err(|error| fault(what(), &error))?.deleted_count)
    }

    pub(crate) async fn begin_replacement(&self, next: &str) -> Result<()> {
        let making = |error| fault(format!("making {next} in MongoDB at {}", self.hosts), &error);
        self.documents(next).drop().await.map_err(making)?;
        // so that it is there to be renamed when nothing is added
        Ok(self.database().create_collection(next).await.map_err(making)?)
    }

    /// Inserts what is new; returns how many that were.
    pub(crate) async fn insert(&self, collection: &str, documents: &[Value]) -> Result<u64> {
        let encoded = documents.iter().map(bson::serialize_to_raw_document_buf);
        let encoded = encoded.collect::<Result<Vec<_>, _>>()?;
        let encoded = encoded.iter().map(AsRef::as_ref);
        let mut command = insert_command(collection, encoded, None)?;
        command.append(cstr!("ordered"), false);
        command.append(cstr!("writeConcern"), bson::serialize_to_raw_document_buf(&durably())?);
        let reply = self.database().run_raw_command(command).await;
        let reply = reply.map_err(|error| fault(self.writing(collection), &error))?;
        self.check_reply(collection, &reply, |error| code(error) == Some(DUPLICATE_KEY))?;
        let n_inserted = reply.get_i32("n").with_context(|| self.writing(collection))?;
        Ok(n_inserted.unsigned_abs().into())
    }

    pub(crate) async fn index(
        &self,
        collection: &str,
        fields: &[&str],
        is_unique: bool,
    ) -> Result<()> {
        let keys = fields.iter().map(|field| ((*field).to_owned(), bson::Bson::Int32(1)));
        let options = IndexOptions::builder().unique(is_unique.then_some(true)).build();
        let index = IndexModel::builder().keys(keys.collect::<Document>()).options(options).build();
        let made = self.documents(collection).create_index(index).await;
        let what = || format!("indexing {collection} in MongoDB at {}", self.hosts);
        made.map_err(|error| fault(what(), &error))?;
        Ok(())
    }

    pub(crate) async fn keep_for(&self, collection: &str, age: Option<Duration>) -> Result<()> {
        let what = || format!("setting the age of {collection} in MongoDB at {}", self.hosts);
        let Some(age) = age else {
            let forget = doc! { "dropIndexes": collection, "index": AGE_INDEX };
            return match self.database().run_command(forget).await {
                Err(error) if code_of(&error).is_some_and(|code| NOT_FOUND.contains(&code)) => {
                    Ok(())
                }
                dropped => Ok(dropped.map(drop).map_err(|error| fault(what(), &error))?),
            };
        };
        // the server takes no more seconds than this
        let seconds = i32::try_from(age.as_secs()).unwrap_or(i32::MAX);
        let index =
            doc! { "key": { WRITTEN_AT: 1 }, "name": AGE_INDEX, "expireAfterSeconds": seconds };
        let mut create = doc! { "createIndexes": collection, "indexes": [index] };
        if self.has_transactions.load(Ordering::Relaxed) {
            // by default all members must have built it, also one that is away
            create.insert("commitQuorum", "majority");
        }
        match self.database().run_command(create).await {
            Err(error) if code_of(&error) == Some(INDEX_OPTIONS_CONFLICT) => {
                let index = doc! { "name": AGE_INDEX, "expireAfterSeconds": seconds };
                let change = doc! { "collMod": collection, "index": index };
                self.database().run_command(change).await.map_err(|error| fault(what(), &error))?;
                tracing::info!(collection, seconds, "documents have another age now");
            }
            created => drop(created.map_err(|error| fault(what(), &error))?),
        }
        // the index finds them: a document without the field is in it
        let unaged = doc! { WRITTEN_AT: bson::Bson::Null };
        let now = doc! { "$set": { WRITTEN_AT: bson::DateTime::now() } };
        let dated = self.documents(collection).update_many(unaged, now).await;
        dated.map_err(|error| fault(what(), &error))?;
        Ok(())
    }

    pub(crate) async fn put_in_place(&self, next: &str, collection: &str) -> Result<()> {
        let name = |collection| format!("{}.{collection}", self.database);
        let rename = doc! {
            "renameCollection": name(next),
            "to": name(collection),
            "dropTarget": true,
            "writeConcern": bson::serialize_to_bson(&durably())?,
        };
        let reply = self.client().database("admin").run_command(rename).await;
        let reply = reply.map_err(|error| fault(self.writing(collection), &error))?;
        Ok(self.check_reply(collection, &reply, |_| false)?)
    }

    fn documents(&self, collection: &str) -> Collection<Document> {
        self.database().collection(collection)
    }
}

fn filter(query: &Query) -> Result<Document> {
    let mut conditions = Vec::new();
    for (field, value) in &query.equal {
        conditions.push(doc! { field: bson::serialize_to_bson(value)? });
    }
    for (field, min, max) in &query.between {
        let (min, max) = (bson::serialize_to_bson(min)?, bson::serialize_to_bson(max)?);
        conditions.push(doc! { field: { "$gte": min, "$lte": max } });
    }
    // an empty $and is none to MongoDB
    Ok(if conditions.is_empty() {
        Document::new()
    } else {
        doc! { "$and": conditions }
    })
}

/// A document as it was written.
fn value(mut document: Document) -> Result<Value> {
    document.remove(WRITTEN_AT);
    Ok(bson::deserialize_from_document(document)?)
}

/// Acknowledged when a majority of the servers has it in its journal.
fn durably() -> WriteConcern {
    WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build()
}

/// The primary, whatever is preferred elsewhere.
fn primary() -> SelectionCriteria {
    SelectionCriteria::ReadPreference(ReadPreference::Primary)
}

fn check_moved(
    leases: &[Lease],
    reply: mongodb::error::Result<Document>,
) -> Result<(), WriteError> {
    let ids = || leases.iter().map(|lease| lease.id.as_str()).collect::<Vec<_>>().join(", ");
    let moving = || format!("moving {} in MongoDB", ids());
    let reply = reply.map_err(|error| fault(moving(), &error))?;
    let mut errors = reply.get_array("writeErrors").into_iter().flatten();
    if let Some(error) = errors.next().or(reply.get("writeConcernError")) {
        return Err(write_fault(moving(), error));
    }
    if reply.get_i32("n").ok() != i32::try_from(leases.len()).ok() {
        return Err(WriteError::Fenced(ids()));
    }
    Ok(())
}
