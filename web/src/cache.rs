//! Responses that are not sent twice and not sent large: an ETag for what was read, and gzip.

use std::io::Write;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::assets::fnv1a;

/// Largest response that is held to be compressed, in bytes; pages stay far below.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Below this, in bytes, compression saves nothing.
const COMPRESSED_BYTES_MIN: usize = 1_024;

/// Tells a browser that has a page that it has not changed, and compresses what is sent. Event
/// streams pass through.
pub(crate) async fn compact(request: Request, next: Next) -> Response {
    let asked = request.headers().clone();
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let response = next.run(request).await;
    let is_stream = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    if !is_read || is_stream {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(body) = to_bytes(body, PAGE_BYTES_MAX).await else {
        tracing::error!(limit = PAGE_BYTES_MAX, "a page is larger than the limit");
        parts.status = StatusCode::INTERNAL_SERVER_ERROR;
        return Response::from_parts(parts, Body::empty());
    };
    parts.headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if parts.status == StatusCode::OK {
        // weak: the same page compressed is the same page
        let tag = format!("W/\"{:016x}\"", fnv1a(&body));
        let is_known = holds(&asked, header::IF_NONE_MATCH, &tag);
        let tag = HeaderValue::from_str(&tag).expect("hexadecimal digits in quotes");
        parts.headers.insert(header::ETAG, tag);
        if is_known {
            parts.status = StatusCode::NOT_MODIFIED;
            parts.headers.remove(header::CONTENT_LENGTH);
            return Response::from_parts(parts, Body::empty());
        }
    }
    if body.len() < COMPRESSED_BYTES_MIN || !holds(&asked, header::ACCEPT_ENCODING, "gzip") {
        return Response::from_parts(parts, Body::from(body));
    }
    match compressed(&body) {
        Ok(smaller) => {
            parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            parts.headers.remove(header::CONTENT_LENGTH);
            Response::from_parts(parts, Body::from(smaller))
        }
        Err(_) => Response::from_parts(parts, Body::from(body)),
    }
}

/// Whether one of the values in a header, which commas separate, is this one.
fn holds(headers: &HeaderMap, name: header::HeaderName, value: &str) -> bool {
    let texts = headers.get_all(name).into_iter().filter_map(|text| text.to_str().ok());
    let mut values = texts.flat_map(|text| text.split(',')).map(str::trim);
    // a weight of 0 would be a refusal, and no browser sends one
    values.any(|found| found.split(';').next() == Some(value))
}

fn compressed(body: &Bytes) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
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
}
