//! Documents in MongoDB, written in bulk and acknowledged by a majority.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::TryStreamExt;
use mongodb::bson::{self, Document, RawArrayBuf, RawDocumentBuf, cstr, doc, rawdoc};
use mongodb::options::{Acknowledgment, ClientOptions, ReadConcern, ReturnDocument, WriteConcern};
use mongodb::{Client, Collection, Cursor, Database, IndexModel};
use serde_json::Value;

use crate::{Claim, CommitError, DOCUMENTS_PER_COMMAND, OnConflict, Order, Query, document_id};

/// How long to look for a server before saying that there is none.
const SERVER_WAIT: Duration = Duration::from_secs(10);

/// How long the server may search for documents: whoever asked has given up by then.
const READ_WAIT: Duration = Duration::from_secs(30);

/// MongoDB's code for a second document under a unique key.
const DUPLICATE_KEY: i32 = 11000;

/// How a transaction writes documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Write {
    /// None of them may be there.
    Insert,
    /// Those that are there stay.
    Upsert,
}

/// A connected MongoDB database.
#[derive(Debug, Clone)]
pub struct Mongo {
    hosts: String,
    database: Database,
    /// Whether it is a replica set or behind a router; a server by itself has no transactions.
    has_transactions: bool,
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
        let hosts: Vec<_> = options.hosts.iter().map(ToString::to_string).collect();
        let hosts = hosts.join(",");
        let client = Client::with_options(options)?;
        let database = client.database(database);
        let hello = database.run_command(doc! { "hello": 1 }).await;
        let hello = hello.with_context(|| format!("no MongoDB answers at {hosts}"))?;
        // says nothing without the right to it
        let allowed = database.run_command(doc! { "listCollections": 1, "nameOnly": true }).await;
        allowed.with_context(|| format!("MongoDB at {hosts} does not let us in"))?;
        let has_transactions =
            hello.contains_key("setName") || hello.get_str("msg").is_ok_and(|m| m == "isdbgrid");
        Ok(Self { hosts, database, has_transactions })
    }

    pub(crate) fn describe(&self) -> String {
        let how = match self.has_transactions {
            true => "answers and offsets in one transaction",
            false => "no replica set: answers first, then offsets",
        };
        format!("MongoDB at {}, database {}, {how}", self.hosts, self.database.name())
    }

    /// Writes the documents in one command; the `_id`s of those that were there before.
    pub(crate) async fn write(
        &self,
        collection: &str,
        documents: &[Value],
        how: OnConflict,
    ) -> Result<Vec<String>> {
        let mut command = update_command(collection, documents, how)?;
        command.append(cstr!("writeConcern"), bson::serialize_to_raw_document_buf(&durably())?);
        let reply = self.database.run_raw_command(command).await;
        let reply = reply.with_context(|| self.writing(collection))?;
        // another writer was first: that is what Keep wants, and it makes Replace try again
        let lost_race = |e: &bson::Bson| how == OnConflict::Keep && code(e) == Some(DUPLICATE_KEY);
        self.check_reply(collection, &reply, lost_race)?;
        kept(documents, &reply)
    }

    pub(crate) async fn claim(&self, collection: &str, id: &str) -> Result<Claim> {
        let nothing_done = doc! { "next": 0_i64, "published": 0_i64 };
        let claimed = self
            .documents(collection)
            .find_one_and_update(
                doc! { "_id": id },
                doc! { "$inc": { "epoch": 1_i64 }, "$setOnInsert": nothing_done },
            )
            .upsert(true)
            .return_document(ReturnDocument::After)
            .await
            .with_context(|| format!("claiming {id} in MongoDB at {}", self.hosts))?
            .context("an upsert left no document")?;
        let field = |name: &str| {
            claimed.get_i64(name).with_context(|| format!("{collection}: {id} has no {name}"))
        };
        let (epoch, next, published) = (field("epoch")?, field("next")?, field("published")?);
        Ok(Claim { id: id.to_owned(), epoch, next, published })
    }

    pub(crate) async fn commit(
        &self,
        collection: &str,
        documents: &[Value],
        offsets: &str,
        claims: &[Claim],
    ) -> Result<Vec<String>, CommitError> {
        if self.has_transactions {
            // an insert costs a fifth of an upsert, and documents are there before only when a
            // window is read again
            let inserted = self.transact(collection, documents, offsets, claims, Write::Insert);
            return match inserted.await? {
                Some(kept) => Ok(kept),
                None => {
                    let how = Write::Upsert;
                    let kept = self.transact(collection, documents, offsets, claims, how).await?;
                    Ok(kept.context("an upsert found no place")?)
                }
            };
        }
        let mut kept = Vec::new();
        for chunk in documents.chunks(DOCUMENTS_PER_COMMAND) {
            kept.extend(self.write(collection, chunk, OnConflict::Keep).await?);
        }
        let mut command = move_command(offsets, claims);
        let durably = bson::serialize_to_bson(&durably()).map_err(anyhow::Error::from)?;
        command.insert("writeConcern", durably);
        check_moved(claims, self.database.run_command(command).await)?;
        Ok(kept)
    }

    /// Writes documents and offsets in one transaction, or nothing; `None` when a document was
    /// there before and must not be.
    async fn transact(
        &self,
        collection: &str,
        documents: &[Value],
        offsets: &str,
        claims: &[Claim],
        how: Write,
    ) -> Result<Option<Vec<String>>, CommitError> {
        let began = async {
            let mut session = self.database.client().start_session().await?;
            let begin = session.start_transaction().read_concern(ReadConcern::snapshot());
            begin.write_concern(durably()).await?;
            mongodb::error::Result::Ok(session)
        };
        let began = began.await;
        let mut session =
            began.with_context(|| format!("a transaction in MongoDB at {}", self.hosts))?;
        let written = async {
            // the offsets first: a claim that was lost costs no document
            let moving = self.database.run_command(move_command(offsets, claims));
            check_moved(claims, moving.session(&mut session).await)?;
            let mut all_kept = Vec::new();
            for chunk in documents.chunks(DOCUMENTS_PER_COMMAND) {
                let command = match how {
                    Write::Insert => insert_command(collection, chunk)?,
                    Write::Upsert => update_command(collection, chunk, OnConflict::Keep)?,
                };
                let reply = self.database.run_raw_command(command).session(&mut session).await;
                let reply = reply.with_context(|| self.writing(collection))?;
                let errors = || reply.get_array("writeErrors").into_iter().flatten();
                if how == Write::Insert && errors().any(|e| code(e) == Some(DUPLICATE_KEY)) {
                    return Ok(None);
                }
                self.check_reply(collection, &reply, |_| false)?;
                if how == Write::Upsert {
                    all_kept.extend(kept(chunk, &reply)?);
                }
            }
            Ok(Some(all_kept))
        };
        let written = written.await;
        if let Ok(Some(_)) = written {
            let committed = session.commit_transaction().await;
            committed.with_context(|| format!("committing to MongoDB at {}", self.hosts))?;
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
    ) -> Result<()> {
        let mut errors = reply.get_array("writeErrors").into_iter().flatten();
        let error = errors.find(|error| !is_harmless(error));
        match reply.get("writeConcernError").or(error) {
            Some(error) => bail!("{}: {error}", self.writing(collection)),
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
        let found = found.max_time(READ_WAIT);
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
        let found = found
            .await
            .with_context(|| format!("reading {collection} from MongoDB at {}", self.hosts))?;
        found
            .map_err(anyhow::Error::from)
            .and_then(|document| async move { Ok(bson::deserialize_from_document(document)?) })
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
        let counting = counting.max_time(READ_WAIT);
        let counted = counting.await;
        counted.with_context(|| format!("counting {collection} in MongoDB at {}", self.hosts))
    }

    pub(crate) async fn begin_replacement(&self, next: &str) -> Result<()> {
        let making = || format!("making {next} in MongoDB at {}", self.hosts);
        self.documents(next).drop().await.with_context(making)?;
        // so that it is there to be renamed when nothing is added
        self.database.create_collection(next).await.with_context(making)
    }

    /// Inserts what is new; returns how many that were.
    pub(crate) async fn insert(&self, collection: &str, documents: &[Value]) -> Result<u64> {
        let mut command = insert_command(collection, documents)?;
        command.append(cstr!("ordered"), false);
        command.append(cstr!("writeConcern"), bson::serialize_to_raw_document_buf(&durably())?);
        let reply = self.database.run_raw_command(command).await;
        let reply = reply.with_context(|| self.writing(collection))?;
        self.check_reply(collection, &reply, |error| code(error) == Some(DUPLICATE_KEY))?;
        let n_inserted = reply.get_i32("n").with_context(|| self.writing(collection))?;
        Ok(n_inserted.unsigned_abs().into())
    }

    pub(crate) async fn index(&self, collection: &str, indexes: &[&[&str]]) -> Result<()> {
        for fields in indexes {
            let keys = fields.iter().map(|field| ((*field).to_owned(), bson::Bson::Int32(1)));
            let index = IndexModel::builder().keys(keys.collect::<Document>()).build();
            let made = self.documents(collection).create_index(index).await;
            made.with_context(|| format!("indexing {collection} in MongoDB at {}", self.hosts))?;
        }
        Ok(())
    }

    pub(crate) async fn put_in_place(&self, next: &str, collection: &str) -> Result<()> {
        let name = |collection| format!("{}.{collection}", self.database.name());
        let rename = doc! {
            "renameCollection": name(next),
            "to": name(collection),
            "dropTarget": true,
            "writeConcern": bson::serialize_to_bson(&durably())?,
        };
        let reply = self.database.client().database("admin").run_command(rename).await;
        let reply = reply.with_context(|| self.writing(collection))?;
        self.check_reply(collection, &reply, |_| false)
    }

    fn documents(&self, collection: &str) -> Collection<Document> {
        self.database.collection(collection)
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

/// Inserts until one is there already. Written as the bytes that the server reads: a [`Document`]
/// for each answer would cost a stream more than scoring it.
fn insert_command(collection: &str, documents: &[Value]) -> Result<RawDocumentBuf> {
    let mut inserted = RawArrayBuf::new();
    for document in documents {
        inserted.push(bson::serialize_to_raw_document_buf(document)?);
    }
    Ok(rawdoc! { "insert": collection, "documents": inserted })
}

/// One unordered `update` command; the server applies what it can and names what it cannot.
fn update_command(
    collection: &str,
    documents: &[Value],
    how: OnConflict,
) -> Result<RawDocumentBuf> {
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
    let command = doc! { "update": collection, "updates": updates, "ordered": false };
    Ok(bson::serialize_to_raw_document_buf(&command)?)
}

/// The `_id`s of the documents that the reply to an `update` does not list as new.
fn kept(documents: &[Value], reply: &Document) -> Result<Vec<String>> {
    let mut is_new = vec![false; documents.len()];
    for upserted in reply.get_array("upserted").into_iter().flatten() {
        let index = upserted.as_document().and_then(|upserted| upserted.get_i32("index").ok());
        let index = index.and_then(|index| usize::try_from(index).ok());
        *index.and_then(|i| is_new.get_mut(i)).context("a reply names no document of ours")? = true;
    }
    let kept = documents.iter().zip(is_new).filter(|(_, is_new)| !is_new);
    kept.map(|(document, _)| Ok(document_id(document)?.to_owned())).collect()
}

/// Acknowledged when a majority of the servers has it in its journal.
fn durably() -> WriteConcern {
    WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build()
}

/// One `update` command that moves the logs whose claims still hold.
fn move_command(offsets: &str, claims: &[Claim]) -> Document {
    let updates = claims.iter().map(|claim| {
        let still_mine = doc! { "_id": &claim.id, "epoch": claim.epoch };
        let moved = doc! { "$set": { "next": claim.next, "published": claim.published } };
        doc! { "q": still_mine, "u": moved }
    });
    doc! { "update": offsets, "updates": updates.collect::<Vec<_>>() }
}

fn check_moved(
    claims: &[Claim],
    reply: mongodb::error::Result<Document>,
) -> Result<(), CommitError> {
    let ids = || claims.iter().map(|claim| claim.id.as_str()).collect::<Vec<_>>().join(", ");
    let reply = reply.with_context(|| format!("moving {} in MongoDB", ids()))?;
    if let Some(error) = reply.get("writeErrors").or(reply.get("writeConcernError")) {
        return Err(anyhow::anyhow!("moving {} in MongoDB: {error}", ids()).into());
    }
    if reply.get_i32("n").ok() != i32::try_from(claims.len()).ok() {
        return Err(CommitError::Fenced(ids()));
    }
    Ok(())
}

fn code(error: &bson::Bson) -> Option<i32> {
    error.as_document()?.get_i32("code").ok()
}
