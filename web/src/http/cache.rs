//! Responses that are not made twice, not sent twice and not sent large: pages of published
//! entities are kept for some seconds, what was read has an ETag, and pages are compressed.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use flate2::Compression;
use flate2::write::GzEncoder;
use parking_lot::Mutex;

use crate::layout::assets::fnv1a;

/// Largest response that is held to be compressed, in bytes; pages stay far below.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Below this, in bytes, compression saves nothing.
const COMPRESSED_BYTES_MIN: usize = 1_024;
/// How long a page is kept: what is published changes about once a day, and what a stream says of
/// itself is some seconds old anyway.
const KEPT: Duration = Duration::from_secs(10);
/// Bytes of pages that are kept: a thousand ordinary ones.
const KEPT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Marks a response that may be kept: it is the same for everybody.
#[derive(Clone, Copy)]
struct Keep;

/// Lets a page be kept.
pub(crate) async fn keep(mut response: Response) -> Response {
    response.extensions_mut().insert(Keep);
    response
}

/// The pages that are kept, by path and query.
#[derive(Default)]
pub(crate) struct Pages(Mutex<HashMap<String, Arc<Page>>>);

/// A page as it is sent.
struct Page {
    made: Instant,
    content_type: HeaderValue,
    tag: HeaderValue,
    plain: Bytes,
    compressed: Option<Bytes>,
}

impl Pages {
    fn get(&self, path: &str, now: Instant) -> Option<Arc<Page>> {
        let pages = self.0.lock();
        let page = pages.get(path)?;
        (now.saturating_duration_since(page.made) < KEPT).then(|| Arc::clone(page))
    }

    /// Keeps a page, unless there are too many. Old ones go first.
    fn put(&self, path: String, page: Arc<Page>) {
        let now = page.made;
        let mut pages = self.0.lock();
        pages.retain(|_, page| now.saturating_duration_since(page.made) < KEPT);
        let n_bytes: usize = pages.iter().map(|(path, page)| path.len() + page.n_bytes()).sum();
        if n_bytes + path.len() + page.n_bytes() <= KEPT_BYTES_MAX {
            pages.insert(path, page);
        }
    }
}

/// Answers with a kept page where there is one, keeps what may be kept, tells a browser that has a
/// page that it has not changed, and compresses what is sent. Event streams pass through.
pub(crate) async fn compact(
    State(pages): State<Arc<Pages>>,
    request: Request,
    next: Next,
) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    let asked = request.headers().clone();
    let path = request.uri().to_string();
    if let Some(page) = pages.get(&path, Instant::now()) {
        return page.send(&asked);
    }
    let response = next.run(request).await;
    let content_type = response.headers().get(header::CONTENT_TYPE).cloned();
    let Some(content_type) = content_type else { return response };
    if response.status() != StatusCode::OK || content_type.as_bytes().starts_with(b"text/event") {
        return response;
    }
    let may_keep = response.extensions().get::<Keep>().is_some();
    let (parts, body) = response.into_parts();
    let Ok(plain) = to_bytes(body, PAGE_BYTES_MAX).await else {
        tracing::error!(path, limit = PAGE_BYTES_MAX, "a page is larger than the limit");
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        return response;
    };
    let may_compress = may_keep || holds(&asked, header::ACCEPT_ENCODING, "gzip");
    let page = Arc::new(Page::new(content_type, plain, may_compress));
    if may_keep {
        pages.put(path, Arc::clone(&page));
    }
    let mut response = page.send(&asked);
    let own = parts.headers.into_iter().filter_map(|(name, value)| Some((name?, value)));
    for (name, value) in own.filter(|(name, _)| *name != header::CONTENT_LENGTH) {
        response.headers_mut().insert(name, value);
    }
    response
}

impl Page {
    fn new(content_type: HeaderValue, plain: Bytes, may_compress: bool) -> Self {
        // weak: the same page compressed is the same page
        let tag = format!("W/\"{:016x}\"", fnv1a(&plain));
        let tag = HeaderValue::from_str(&tag).expect("hexadecimal digits in quotes");
        let compressed = match plain.len() {
            COMPRESSED_BYTES_MIN.. if may_compress => compressed(&plain).ok(),
            _ => None,
        };
        Self { made: Instant::now(), content_type, tag, plain, compressed }
    }

    fn n_bytes(&self) -> usize {
        self.plain.len() + self.compressed.as_ref().map_or(0, Bytes::len)
    }

    /// The response to somebody who sent these headers.
    fn send(&self, asked: &HeaderMap) -> Response {
        let is_known = self.tag.to_str().is_ok_and(|tag| holds(asked, header::IF_NONE_MATCH, tag));
        let compressed =
            self.compressed.as_ref().filter(|_| holds(asked, header::ACCEPT_ENCODING, "gzip"));
        let body = match compressed {
            _ if is_known => Body::empty(),
            Some(compressed) => Body::from(compressed.clone()),
            None => Body::from(self.plain.clone()),
        };
        let mut response = Response::new(body);
        if is_known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, self.content_type.clone());
        headers.insert(header::ETAG, self.tag.clone());
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        if compressed.is_some() && !is_known {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }
}

/// Whether one of the values in a header, which commas separate, is this one.
fn holds(headers: &HeaderMap, name: HeaderName, value: &str) -> bool {
    let texts = headers.get_all(name).into_iter().filter_map(|text| text.to_str().ok());
    let mut values = texts.flat_map(|text| text.split(',')).map(str::trim);
    // a weight of 0 would be a refusal, and no browser sends one
    values.any(|found| found.split(';').next() == Some(value))
}

fn compressed(body: &Bytes) -> std::io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body)?;
    Ok(encoder.finish()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_several_values_is_found() {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("br;q=1.0, gzip;q=0.8"));
        assert!(holds(&headers, header::ACCEPT_ENCODING, "gzip"));
        assert!(!holds(&headers, header::ACCEPT_ENCODING, "zstd"));
        assert!(!holds(&headers, header::IF_NONE_MATCH, "gzip"));
    }

    #[test]
    fn pages_are_kept_for_a_while_and_no_more_than_so_many() {
        let pages = Pages::default();
        let page = |made| {
            let (kind, plain) = (HeaderValue::from_static("text/html"), vec![b'x'; 1024 * 1024]);
            Arc::new(Page { made, ..Page::new(kind, plain.into(), false) })
        };
        let start = Instant::now();
        pages.put("/a".into(), page(start));
        assert!(pages.get("/a", start + KEPT / 2).is_some());
        assert!(pages.get("/a", start + KEPT).is_none());
        assert!(pages.get("/b", start).is_none());
        (0..40).for_each(|i| pages.put(format!("/{i}"), page(start)));
        assert_eq!(pages.0.lock().len(), 31, "and their addresses count too");
        pages.put("/new".into(), page(start + KEPT));
        assert_eq!(pages.0.lock().len(), 1);
    }
}
