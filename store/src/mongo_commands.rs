//! The commands that write documents, and what their replies say.

use anyhow::{Context, Result};
use mongodb::bson::spec::ElementType;
use mongodb::bson::{self, Document, RawDocument, RawDocumentBuf, doc, rawdoc};

use crate::{Lease, OnConflict, WRITTEN_AT};

/// Inserts until one is there already. Documents are copied once: the driver's own builders copy
/// each of them three times on its way into a command.
pub(crate) fn insert_command<'a>(
    collection: &str,
    documents: impl Iterator<Item = &'a RawDocument>,
    written_at: Option<bson::DateTime>,
) -> Result<RawDocumentBuf> {
    // what is appended to a document: its elements, without the length and the end around them
    let written_at = written_at.map(|at| rawdoc! { "WrittenAt": at }.into_bytes());
    let written_at = written_at.as_ref().map_or(&[][..], |bytes| inside(bytes));
    let mut command = rawdoc! { "insert": collection }.into_bytes();
    // its end comes later
    command.pop();
    command.push(ElementType::Array as u8);
    command.extend(b"documents\0");
    let array = command.len();
    command.extend(NO_LENGTH);
    for (i, document) in documents.enumerate() {
        command.push(ElementType::EmbeddedDocument as u8);
        command.extend(i.to_string().as_bytes());
        command.push(0);
        let begin = command.len();
        command.extend(NO_LENGTH);
        command.extend(inside(document.as_bytes()));
        command.extend(written_at);
        end(&mut command, begin)?;
    }
    end(&mut command, array)?;
    end(&mut command, 0)?;
    Ok(RawDocumentBuf::from_bytes(command)?)
}

/// Where the length of a document will be: it comes before its elements.
pub(crate) const NO_LENGTH: [u8; 4] = [0; 4];

/// The elements of a document.
fn inside(document: &[u8]) -> &[u8] {
    &document[NO_LENGTH.len()..document.len() - 1]
}

/// Ends a document that begins at `begin`, and writes down its length.
pub(crate) fn end(bytes: &mut Vec<u8>, begin: usize) -> Result<()> {
    bytes.push(0);
    let length = i32::try_from(bytes.len() - begin)?;
    bytes[begin..begin + NO_LENGTH.len()].copy_from_slice(&length.to_le_bytes());
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_holds_its_documents_and_when_they_were_written() {
        let documents: Vec<_> = (0..12).map(|i| rawdoc! { "_id": "a", "n": i, "in": {} }).collect();
        for at in [None, Some(bson::DateTime::from_millis(1_700_000_000_000))] {
            let inserted = documents.iter().map(|document| {
                let mut document = Document::try_from(document.as_ref()).unwrap();
                document.extend(at.map(|at| ("WrittenAt".to_owned(), at.into())));
                document
            });
            let want = doc! { "insert": "c", "documents": inserted.collect::<Vec<_>>() };
            let command = insert_command("c", documents.iter().map(AsRef::as_ref), at).unwrap();
            assert_eq!(Document::try_from(command.as_ref()).unwrap(), want);
            assert_eq!(command, RawDocumentBuf::try_from(&want).unwrap());
        }
        let none = insert_command("c", std::iter::empty(), None).unwrap();
        assert_eq!(none, rawdoc! { "insert": "c", "documents": [] });
    }
}
