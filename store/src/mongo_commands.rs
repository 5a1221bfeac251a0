//! The commands that write documents, and what their replies say.

use anyhow::{Context, Result};
use mongodb::bson::{self, Document, RawArrayBuf, RawDocumentBuf, cstr, doc, rawdoc};

use crate::{Lease, OnConflict, WRITTEN_AT};

/// Inserts until one is there already.
pub(crate) fn insert_command(
    collection: &str,
    documents: impl Iterator<Item = Result<RawDocumentBuf>>,
    written_at: Option<bson::DateTime>,
) -> Result<RawDocumentBuf> {
    let mut inserted = RawArrayBuf::new();
    for document in documents {
        let mut document = document?;
        if let Some(written_at) = written_at {
            document.append(cstr!("WrittenAt"), written_at);
        }
        inserted.push(document);
    }
    Ok(rawdoc! { "insert": collection, "documents": inserted })
}

/// Documents as the driver changes them; only what was there before needs that.
pub(crate) fn decoded(documents: &[crate::Document]) -> Result<Vec<Document>> {
    documents.iter().map(|document| Ok(Document::try_from(document.bson.as_ref())?)).collect()
}

pub(crate) fn ids_of(documents: &[Document]) -> Result<Vec<String>> {
    documents.iter().map(|document| Ok(document.get_str("_id")?.to_owned())).collect()
}

/// One unordered `update` command; the server applies what it can and names what it cannot.
pub(crate) fn update_command(
    collection: &str,
    documents: Vec<Document>,
    how: OnConflict,
) -> Result<RawDocumentBuf> {
    let now = bson::DateTime::now();
    let mut updates = Vec::with_capacity(documents.len());
    for mut document in documents {
        let id = document.get_str("_id")?.to_owned();
        document.insert(WRITTEN_AT, now);
        let change = match how {
            OnConflict::Keep => doc! { "$setOnInsert": document },
            OnConflict::Replace => document,
        };
        updates.push(doc! { "q": { "_id": id }, "u": change, "upsert": true });
    }
    let command = doc! { "update": collection, "updates": updates, "ordered": false };
    Ok(bson::serialize_to_raw_document_buf(&command)?)
}

/// Those of the `_id`s that the reply to an `update` does not list as new.
pub(crate) fn kept(ids: Vec<String>, reply: &Document) -> Result<Vec<String>> {
    let mut is_new = vec![false; ids.len()];
    for upserted in reply.get_array("upserted").into_iter().flatten() {
        let index = upserted.as_document().and_then(|upserted| upserted.get_i32("index").ok());
        let index = index.and_then(|index| usize::try_from(index).ok());
        *index.and_then(|i| is_new.get_mut(i)).context("a reply names no document of ours")? = true;
    }
    let kept = ids.into_iter().zip(is_new).filter(|(_, is_new)| !is_new);
    Ok(kept.map(|(id, _)| id).collect())
}

/// One `update` command that moves the logs whose leases still hold.
pub(crate) fn move_command(offsets: &str, leases: &[Lease]) -> Result<Document> {
    let updates = leases.iter().map(|lease| {
        let still_mine = doc! { "_id": &lease.id, "epoch": lease.epoch };
        let log = bson::serialize_to_bson(&lease.log)?;
        let moved = doc! {
            "next": lease.next,
            "published": lease.published,
            "log": log,
            WRITTEN_AT: bson::DateTime::now(),
        };
        Ok(doc! { "q": still_mine, "u": { "$set": moved } })
    });
    Ok(doc! { "update": offsets, "updates": updates.collect::<Result<Vec<_>>>()? })
}
