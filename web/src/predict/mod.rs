//! The form, the request, its answer, and what explains it: `form` (text becomes a request),
//! `requests`, `sender` (to Kafka), `answers` (the response topic and the store), `stream` (answers
//! pushed to the browser), `form_page`, `card` and `explanation` (HTML), `nightly` (the nightly
//! batch).

pub(crate) mod answers;
pub(crate) mod card;
pub(crate) mod choices;
pub(crate) mod explanation;
pub(crate) mod form;
pub(crate) mod form_page;
pub(crate) mod heard;
pub(crate) mod night;
pub(crate) mod nightly;
pub(crate) mod recent;
pub(crate) mod requests;
pub(crate) mod sender;
pub(crate) mod stream;
