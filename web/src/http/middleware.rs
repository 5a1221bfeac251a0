//! What stands around every route: a bound on concurrent requests, a bound on time, and headers
//! that allow the browser no more than the pages need.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::Response;
use telemetry::traces;
use tracing::field::Empty;
use tracing::{Instrument, Span, info_span};

use crate::app::App;
use crate::http::clients::{Client, is_in};
use crate::http::metrics::{Failed, known_method};
use crate::http::responses::{Asker, full, problem, refuse, wants_json};
use crate::layout::page::{self, Said};

/// How long a handler may take until its response begins; Kafka and the store give up sooner. The
/// body of an event stream has a bound of its own.
const HANDLER_WAIT_MAX: Duration = Duration::from_secs(30);

/// Largest body of a request, in bytes. The form fills less than 1 KiB.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// How long a body may take to arrive.
const BODY_WAIT_MAX: Duration = Duration::from_secs(5);
/// Seconds after which those may ask again whom nothing else tells when.
const RETRY_AFTER: &str = "5";

/// Longest address that is answered, in bytes; a search with all its fields has a tenth of it.
const URI_BYTES_MAX: usize = 4 * 1024;

/// Nothing but what this server sends, and pictures of airlines ([`events::LOGOS`]); no inline
/// script or style, no framing.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; \
    connect-src 'self'; img-src 'self' https://upload.wikimedia.org; form-action 'self'; \
    base-uri 'none'; frame-ancestors 'none'";

/// Turns a request away when its client asks too much, it is not for us, its address or its body is
/// too long or too many are being answered, and gives up on one that takes too long.
pub(crate) async fn limit(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let client = Client::of(peer.ip(), request.headers(), &app.proxies);
    request.extensions_mut().insert(client);
    // what has no route has no label of its own: there is no end of addresses
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("other", MatchedPath::as_str);
    let method = request.method().clone();
    let span = span_of(&app, peer.ip(), &request, route);
    let response = answer(&app, client, request, next).instrument(span.clone()).await;
    span.record("http.response.status_code", response.status().as_u16());
    if response.status().is_server_error() {
        traces::fail(&span, response.status().canonical_reason().unwrap_or_default());
    }
    app.metrics.answered(route, &method, response.status(), started.elapsed());
    if let Some(of) = response.extensions().get::<Failed>() {
        app.metrics.failed(*of);
    }
    response
}

/// What a trace shows of a request. It goes on from where a proxy was; what others say of traces is
/// not believed.
fn span_of(app: &App, peer: IpAddr, request: &Request, route: &str) -> Span {
    let method = known_method(request.method());
    let span = info_span!(
        target: telemetry::SPAN,
        "request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty,
    );
    let said = request.headers().get(traces::HEADER).map(HeaderValue::as_bytes);
    if let Some(traceparent) = traces::of_header(said.filter(|_| is_in(&app.proxies, peer))) {
        traces::go_on(&span, traceparent);
    }
    span
}

async fn answer(app: &App, client: Client, request: Request, next: Next) -> Response {
    let asker = Asker::of(request.headers());
    if let Err(wait) = app.clients.ask(client, Instant::now()) {
        let reason = "you ask more than this server can answer; please wait a moment";
        let mut response = refuse(asker, StatusCode::TOO_MANY_REQUESTS, reason);
        let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        return response;
    }
    if let Err((status, reason)) = check_host(&request, &app.hosts) {
        return refuse(asker, status, reason);
    }
    if request.uri().to_string().len() > URI_BYTES_MAX {
        let reason = "the address is longer than any page of this server has";
        return refuse(asker, StatusCode::URI_TOO_LONG, reason);
    }
    // before anything is held: what does not arrive keeps nobody else out
    let (parts, body) = request.into_parts();
    let body = match tokio::time::timeout(BODY_WAIT_MAX, to_bytes(body, BODY_BYTES_MAX)).await {
        Ok(Ok(bytes)) => Body::from(bytes),
        Ok(Err(_)) => {
            let reason = "the body is larger than any question, or broke off";
            return refuse(asker, StatusCode::PAYLOAD_TOO_LARGE, reason);
        }
        Err(_) => {
            let reason = "the question did not arrive in time; please try again";
            return refuse(asker, StatusCode::REQUEST_TIMEOUT, reason);
        }
    };
    let request = Request::from_parts(parts, body);
    let _share = match app.handlers.take(Some(client)) {
        Ok(share) => share,
        Err(why) => return full(asker, why),
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

/// Refuses a request for a host that is not us. A page of another site may have a name of its own
/// that leads to our address, and its script would then be one of ours to the browser. An address
/// is no such name, and neither is `localhost`.
fn check_host(request: &Request, hosts: &[String]) -> Result<(), (StatusCode, &'static str)> {
    const UNCLEAR: (StatusCode, &str) =
        (StatusCode::BAD_REQUEST, "the request names no host, or several");
    const NOT_OURS: (StatusCode, &str) = (
        StatusCode::MISDIRECTED_REQUEST,
        "this server is not known by that name; who runs it can give it the name with --host",
    );
    let mut named = request.headers().get_all(header::HOST).iter();
    let host = match (request.uri().authority(), named.next(), named.next()) {
        (_, _, Some(_)) => return Err(UNCLEAR),
        (Some(authority), _, None) => authority.clone(),
        (None, Some(host), None) => Authority::try_from(host.as_bytes()).map_err(|_| UNCLEAR)?,
        (None, None, None) if request.version() < Version::HTTP_11 => return Ok(()),
        (None, None, None) => return Err(UNCLEAR),
    };
    let host = host.host().trim_end_matches('.').to_ascii_lowercase();
    let is_address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
    let is_here = host == "localhost" || host.ends_with(".localhost");
    let is_named = || hosts.iter().any(|name| name.eq_ignore_ascii_case(&host));
    if is_address || is_here || is_named() { Ok(()) } else { Err(NOT_OURS) }
}

/// Adds the security headers, keeps everything out of caches that does not ask to be kept, and puts
/// what the router says of a request that it cannot read into a page, or errors into JSON.
pub(crate) async fn secure(request: Request, next: Next) -> Response {
    let wants_json = wants_json(request.headers());
    let mut response = next.run(request).await;
    let status = response.status();
    let is_page = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| !kind.as_bytes().starts_with(b"text/plain"));
    if status.is_client_error() && !is_page {
        let text = "The request is not one that this address takes.";
        let allowed = response.headers_mut().remove(header::ALLOW);
        response = page::notice(status, "This did not work", text);
        response.headers_mut().extend(allowed.map(|methods| (header::ALLOW, methods)));
    }
    let said = response.extensions_mut().remove::<Said>();
    if let (Some(Said(text)), true) = (said, wants_json) {
        let page = response;
        response = problem(status, &text, None);
        for name in [header::ALLOW, header::RETRY_AFTER] {
            let kept = page.headers().get(&name).cloned();
            response.headers_mut().extend(kept.map(|value| (name, value)));
        }
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
    if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        headers.entry(header::RETRY_AFTER).or_insert(HeaderValue::from_static(RETRY_AFTER));
    }
    response
}

/// Whether the browser says that a page of somebody else made it send this request: by its fetch
/// metadata (another port of our host is another server, and the same site), or, an older one, by
/// an origin that is not us. Programs that are no browsers send neither, and carry
/// no one's session that could be abused.
pub(crate) fn cross_site(headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    match text(HeaderName::from_static("sec-fetch-site")) {
        Some(site) => !matches!(site, "same-origin" | "none"),
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
        for (site, want) in
            [("cross-site", true), ("same-site", true), ("same-origin", false), ("none", false)]
        {
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

    #[test]
    fn a_host_is_ours_when_it_is_an_address_here_or_named() {
        let hosts = ["flights.example".to_owned()];
        let (ok, bad, foreign) = (200, 400, 421);
        for (uri, named, version, want) in [
            ("/", &["127.0.0.1:5000"][..], Version::HTTP_11, ok),
            ("/", &["192.0.2.1"], Version::HTTP_11, ok),
            ("/", &["[::1]:5000"], Version::HTTP_11, ok),
            ("/", &["localhost:5000"], Version::HTTP_11, ok),
            ("/", &["LOCALHOST."], Version::HTTP_11, ok),
            ("/", &["demo.localhost"], Version::HTTP_11, ok),
            ("/", &["Flights.Example:443"], Version::HTTP_11, ok),
            ("/", &["evil.example:5000"], Version::HTTP_11, foreign),
            ("/", &["127.0.0.1.evil.example"], Version::HTTP_11, foreign),
            ("/", &["localhost.evil.example"], Version::HTTP_11, foreign),
            ("/", &["not.flights.example"], Version::HTTP_11, foreign),
            ("http://evil.example/", &["localhost"], Version::HTTP_11, foreign),
            ("http://localhost/", &["evil.example"], Version::HTTP_11, ok),
            ("/", &["localhost", "localhost"], Version::HTTP_11, bad),
            ("/", &["a b"], Version::HTTP_11, bad),
            ("/", &[], Version::HTTP_11, bad),
            ("/", &[], Version::HTTP_10, ok),
        ] {
            let mut request = Request::builder().uri(uri).version(version);
            for host in named {
                request = request.header(header::HOST, *host);
            }
            let request = request.body(Body::empty()).unwrap();
            let found = check_host(&request, &hosts).err().map_or(ok, |(s, _)| s.as_u16());
            assert_eq!(found, want, "{uri} {named:?}");
        }
    }
}
