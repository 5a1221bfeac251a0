//! What stands around every route: a bound on concurrent requests, a bound on time, and headers
//! that tell the browser how little the pages need.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use crate::{App, frame};

/// How long a handler may take until its response begins; Kafka and the store give up sooner. The
/// body of an event stream has a bound of its own.
const HANDLER_WAIT_MAX: Duration = Duration::from_secs(30);

/// Nothing but what this server sends; no inline script or style, no framing.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; \
    connect-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; \
    frame-ancestors 'none'";

/// Turns a request away when too many are being answered, and gives up on one that takes too long.
pub(crate) async fn limit(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let Ok(_permit) = app.handlers.try_acquire() else {
        return busy();
    };
    let path = request.uri().path().to_owned();
    match tokio::time::timeout(HANDLER_WAIT_MAX, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            tracing::error!(path, wait_max = ?HANDLER_WAIT_MAX, "request took too long");
            frame::notice(
                StatusCode::GATEWAY_TIMEOUT,
                "That took too long",
                "Something behind this page did not answer in time. Please try again.",
            )
        }
    }
}

/// Adds the security headers, and keeps everything out of caches that does not ask to be kept.
pub(crate) async fn secure(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache"));
    response
}

/// Whether the browser says that another site made it send this request. Programs that are no
/// browsers do not send the header, and carry no one's session that could be abused.
pub(crate) fn cross_site(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site")
}

/// The answer when a bound on concurrency is reached.
pub(crate) fn busy() -> Response {
    frame::notice(
        StatusCode::SERVICE_UNAVAILABLE,
        "Too busy",
        "More people ask than this server can answer at once. Please try again in a moment.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_browser_on_another_site_is_cross_site() {
        for (site, want) in [("cross-site", true), ("same-origin", false), ("none", false)] {
            let mut headers = HeaderMap::new();
            headers.insert("sec-fetch-site", HeaderValue::from_static(site));
            assert_eq!(cross_site(&headers), want, "{site}");
        }
        assert!(!cross_site(&HeaderMap::new()));
    }
}
