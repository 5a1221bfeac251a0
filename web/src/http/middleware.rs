//! What stands around every route: a bound on concurrent requests, a bound on time, and headers
//! that allow the browser no more than the pages need.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use crate::app::App;
use crate::http::responses::{Asker, busy, refuse};
use crate::layout::page;

/// How long a handler may take until its response begins; Kafka and the store give up sooner. The
/// body of an event stream has a bound of its own.
const HANDLER_WAIT_MAX: Duration = Duration::from_secs(30);

/// Longest address that is answered, in bytes; a search with all its fields has a tenth of it.
const URI_BYTES_MAX: usize = 4 * 1024;

/// Nothing but what this server sends, and pictures of airlines ([`events::LOGOS`]); no inline
/// script or style, no framing.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; \
    connect-src 'self'; img-src 'self' https://upload.wikimedia.org; form-action 'self'; \
    base-uri 'none'; frame-ancestors 'none'";

/// Turns a request away when its client asks too much, its address is too long or too many are
/// being answered, and gives up on one that takes too long.
pub(crate) async fn limit(
    State(app): State<Arc<App>>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let response = answer(&app, client.ip(), request, next).await;
    app.metrics.answered(response.status().as_u16(), started.elapsed());
    response
}

async fn answer(app: &App, client: IpAddr, request: Request, next: Next) -> Response {
    let asker = Asker::of(request.headers());
    if !app.clients.may_ask(client, Instant::now()) {
        let reason = "you ask more than this server can answer; please wait a moment";
        return refuse(asker, StatusCode::TOO_MANY_REQUESTS, reason);
    }
    if request.uri().to_string().len() > URI_BYTES_MAX {
        let reason = "the address is longer than any page of this server has";
        return refuse(asker, StatusCode::URI_TOO_LONG, reason);
    }
    let Ok(_permit) = app.handlers.try_acquire() else {
        return busy(asker);
    };
    let path = request.uri().path().to_owned();
    match tokio::time::timeout(HANDLER_WAIT_MAX, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            tracing::error!(path, wait_max = ?HANDLER_WAIT_MAX, "request took too long");
            let reason = "something behind this page did not answer in time; please try again";
            refuse(asker, StatusCode::GATEWAY_TIMEOUT, reason)
        }
    }
}

/// Adds the security headers, keeps everything out of caches that does not ask to be kept, and puts
/// what the router says of a request that it cannot read into a page.
pub(crate) async fn secure(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let status = response.status();
    let is_page = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| !kind.as_bytes().starts_with(b"text/plain"));
    if status.is_client_error() && !is_page {
        let text = "The request is not one that this address takes.";
        response = page::notice(status, "This did not work", text);
    }
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

/// Whether the browser says that another site made it send this request: by its fetch metadata, or,
/// an older one, by an origin that is not us. Programs that are no browsers send neither, and carry
/// no one's session that could be abused.
pub(crate) fn cross_site(headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    match text(HeaderName::from_static("sec-fetch-site")) {
        Some(site) => site == "cross-site",
        None => {
            let origin = text(header::ORIGIN);
            let host = origin.map(|origin| origin.split_once("://").map_or("", |(_, host)| host));
            host.is_some() && host != text(header::HOST)
        }
    }
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
        for (origin, want) in [("http://us:5000", false), ("http://us", true), ("null", true)] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static("us:5000"));
            headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
            assert_eq!(cross_site(&headers), want, "{origin}");
        }
    }
}
