//! A document, encoded once for all that take it.

use anyhow::{Context, Result, ensure};
use mongodb::bson::serde_helpers::HumanReadable;
use mongodb::bson::{self, RawDocumentBuf};
use serde::Serialize;
use serde_json::Value;

use crate::document_id;
use crate::mongo_commands::{NO_LENGTH, end};

/// Room for most documents, so that they are not moved while they grow.
const BYTES: usize = 1024;

/// A document as the databases and the topics take it. A stream makes one of each answer: a
/// [`Value`] between the answer and its bytes would cost more than all the rest of its way.
#[derive(Debug, Clone)]
pub struct Document {
    pub(crate) id: String,
    /// An object, its `_id` in it.
    pub(crate) json: String,
    /// The same.
    pub(crate) bson: RawDocumentBuf,
}

impl Document {
    /// A document named `id` with the fields of `of`, which is serialized as an object without
    /// `_id`.
    pub fn new(id: String, of: &impl Serialize) -> Result<Self> {
        ensure!(!id.is_empty(), "a document needs an _id");
        let json = json_of(&id, of).context("a document as JSON")?;
        let bson = bson_of(&id, of).context("a document as BSON")?;
        Ok(Self { id, json, bson })
    }

    /// Its name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its name, and itself as JSON.
    pub fn into_json(self) -> (String, String) {
        (self.id, self.json)
    }

    /// Bytes that MongoDB keeps of it, without the time at which it was written.
    pub fn n_bytes(&self) -> usize {
        self.bson.as_bytes().len()
    }
}

/// One that has its `_id` inside.
impl TryFrom<&Value> for Document {
    type Error = anyhow::Error;

    fn try_from(document: &Value) -> Result<Self> {
        let id = document_id(document)?.to_owned();
        let bson = bson::serialize_to_raw_document_buf(document)?;
        Ok(Self { id, json: document.to_string(), bson })
    }
}

fn json_of(id: &str, of: &impl Serialize) -> Result<String> {
    let mut text = Vec::with_capacity(BYTES);
    text.extend(b"{\"_id\":");
    serde_json::to_writer(&mut text, id)?;
    let begin = text.len();
    serde_json::to_writer(&mut text, of)?;
    match &text[begin..] {
        b"{}" => _ = text.remove(begin),
        [b'{', ..] => text[begin] = b',',
        _ => anyhow::bail!("it is no object"),
    }
    Ok(String::from_utf8(text)?)
}

/// A BSON document is its length in 4 bytes, its elements, and a zero: one is put together from the
/// elements of two.
fn bson_of(id: &str, of: &impl Serialize) -> Result<RawDocumentBuf> {
    #[derive(Serialize)]
    struct Named<'a> {
        _id: &'a str,
    }
    let mut document = Vec::with_capacity(BYTES);
    bson::serialize_to_buffer(&Named { _id: id }, &mut document)?;
    document.pop();
    let begin = document.len();
    // as JSON: what has a text of its own is that, not bytes
    bson::serialize_to_buffer(&HumanReadable(of), &mut document)?;
    document.drain(begin..begin + NO_LENGTH.len());
    document.pop();
    end(&mut document, 0)?;
    Ok(RawDocumentBuf::from_bytes(document)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_encodings_say_the_same() {
        let odd = "a\"\\\u{1}é";
        for fields in [
            json!({}),
            json!({ "n": 1, "x": -0.5, "text": odd, "none": null, "list": [1, 2.5, [true]] }),
            json!({ "inside": { "a": {}, "b": [] }, "large": 9_007_199_254_740_993_i64 }),
        ] {
            let document = Document::new(odd.to_owned(), &fields).unwrap();
            let mut want = fields;
            want["_id"] = odd.into();
            assert_eq!(serde_json::from_str::<Value>(&document.json).unwrap(), want);
            let from_bson: Value = bson::deserialize_from_slice(document.bson.as_bytes()).unwrap();
            assert_eq!(from_bson, want);
            let again = Document::try_from(&want).unwrap();
            assert_eq!(again.id(), odd);
            assert_eq!(serde_json::from_str::<Value>(&again.into_json().1).unwrap(), want);
        }
    }

    #[test]
    fn what_is_text_to_people_is_text_in_both() {
        let addresses = [std::net::IpAddr::from([127, 0, 0, 1])];
        let fields = std::collections::BTreeMap::from([("a", addresses)]);
        let document = Document::new("id".to_owned(), &fields).unwrap();
        let want = json!({ "_id": "id", "a": ["127.0.0.1"] });
        assert_eq!(serde_json::from_str::<Value>(&document.json).unwrap(), want);
        let from_bson: Value = bson::deserialize_from_slice(document.bson.as_bytes()).unwrap();
        assert_eq!(from_bson, want);
    }

    #[test]
    fn what_is_no_object_or_has_no_name_is_refused() {
        for (id, of) in [("a", json!([1])), ("a", json!("text")), ("a", json!(1)), ("", json!({}))]
        {
            Document::new(id.to_owned(), &of).unwrap_err();
        }
        Document::try_from(&json!({ "n": 1 })).unwrap_err();
    }
}
