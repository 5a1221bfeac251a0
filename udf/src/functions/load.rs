//! What a function carries, as bytes.
//!
//! They are a line with the version of Tarmac and of this format, and a JSON document, deflated:
//! the scheduler sends a plan once for each task, and forests are repetitive. For the same reason
//! they are written once, and what came last is kept for the tasks that follow. Programs of
//! different versions may compute different forests, so they refuse each other's functions.

use std::any::Any;
use std::io::Read;
use std::ops::Deref;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use datafusion::common::{DataFusionError, Result, exec_datafusion_err, exec_err};
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use serde::{Deserialize, Serialize};

use crate::model::artefact::MODEL_BYTES_MAX;

/// The first line of what is sent. The number after the version counts up with every change of what
/// functions carry or compute: two builds between releases have the same version.
pub(crate) const HEADER: &str = concat!("tarmac ", env!("CARGO_PKG_VERSION"), ", functions 5");

/// Longest document that is read, in bytes: a few models.
const DOCUMENT_BYTES_MAX: u64 = 4 * MODEL_BYTES_MAX as u64;

/// Loads that are kept: the queries of a job need a few at a time.
pub(crate) const KEPT_MAX: usize = 4;
/// Bytes of all loads that are kept, but for the last one.
const KEPT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What functions carry, with the bytes that it travels as once they were asked for.
#[derive(Debug)]
pub struct Load<T> {
    value: T,
    bytes: OnceLock<Arc<[u8]>>,
}

impl<T> From<T> for Load<T> {
    fn from(value: T) -> Self {
        Self { value, bytes: OnceLock::new() }
    }
}

impl<T> Deref for Load<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Load<T> {
    pub(crate) fn received(value: T, bytes: Arc<[u8]>) -> Arc<Self> {
        Arc::new(Self { value, bytes: bytes.into() })
    }

    pub(crate) fn bytes(&self, encode: impl FnOnce(&T) -> Result<Vec<u8>>) -> Result<Arc<[u8]>> {
        if let Some(bytes) = self.bytes.get() {
            return Ok(Arc::clone(bytes));
        }
        let bytes = encode(&self.value)?.into();
        Ok(Arc::clone(self.bytes.get_or_init(|| bytes)))
    }
}

/// A place for what was made of the bytes beside it; `None` until it is made.
type Kept = (Arc<[u8]>, Arc<Mutex<Option<Box<dyn Any + Send>>>>);

/// What was received, the latest last.
static KEPT: Mutex<Vec<Kept>> = Mutex::new(Vec::new());

/// What `ready` makes of `bytes`, or made of the same bytes before. Who asks while it is being made
/// waits for it.
pub(crate) fn ready_once<T: Clone + Send + 'static>(
    bytes: &[u8],
    ready: impl FnOnce(Arc<[u8]>) -> Result<T>,
) -> Result<T> {
    let (bytes, place) = place_of(bytes);
    let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(made) = place.as_ref().and_then(|made| made.downcast_ref::<T>()) {
        return Ok(made.clone());
    }
    let made = ready(bytes)?;
    *place = Some(Box::new(made.clone()));
    Ok(made)
}

fn place_of(bytes: &[u8]) -> Kept {
    // what is dropped is dropped when the others may go on
    let mut dropped = Vec::new();
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let found = kept.iter().position(|(of, _)| **of == *bytes);
    let place = found.map_or_else(|| (bytes.into(), Arc::default()), |at| kept.remove(at));
    kept.push(place.clone());
    let mut n_bytes: usize = kept.iter().map(|(of, _)| of.len()).sum();
    while kept.len() > KEPT_MAX || (n_bytes > KEPT_BYTES_MAX && kept.len() > 1) {
        let oldest = kept.remove(0);
        n_bytes -= oldest.0.len();
        dropped.push(oldest);
    }
    place
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    let bytes = format!("{HEADER}\n").into_bytes();
    let mut deflated = ZlibEncoder::new(bytes, Compression::fast());
    serde_json::to_writer(&mut deflated, value)
        .map_err(|e| DataFusionError::Execution(e.to_string()))?;
    Ok(deflated.finish()?)
}

pub(crate) fn decode<T: for<'a> Deserialize<'a>>(name: &str, bytes: &[u8]) -> Result<T> {
    let end = bytes.iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len());
    let (header, document) = bytes.split_at(end);
    if header != HEADER.as_bytes() {
        let header = String::from_utf8_lossy(&header[..header.len().min(64)]);
        return exec_err!("{name} comes from {header:?}, this program is {HEADER:?}");
    }
    let deflated = document.strip_prefix(b"\n").unwrap_or_default();
    let mut document = Vec::new();
    let read = ZlibDecoder::new(deflated).take(DOCUMENT_BYTES_MAX).read_to_end(&mut document);
    read.map_err(|e| exec_datafusion_err!("{name}: what it carried cannot be read: {e}"))?;
    serde_json::from_slice(&document)
        .map_err(|e| exec_datafusion_err!("{name}: what it carried cannot be read: {e}"))
}
