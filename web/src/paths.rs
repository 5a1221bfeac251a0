//! Addresses that more than one page knows.

/// The page with the form.
pub(crate) const FORM: &str = "/flights/delays/predict_kafka";
/// Where requests are sent; the state of an answer is below it.
pub(crate) const ASK: &str = "/flights/delays/predict/classify_realtime";
/// The page with the form of the nightly batch.
pub(crate) const NIGHTLY_FORM: &str = "/flights/delays/predict_batch";
/// Where requests for the nightly batch are sent.
pub(crate) const NIGHTLY_ASK: &str = "/flights/delays/predict/classify";
