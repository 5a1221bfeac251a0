//! Responses that several routes give, as a page or as JSON, by who asks.

use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde_json::{Value, json};

use crate::http::clients::Full;
use crate::layout::page;

/// Who asks decides how we answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    /// A browser without script: pages and redirects.
    Person,
    /// The script or another program: JSON.
    Program,
}

impl Asker {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        if accept.is_some_and(|a| a.contains("text/html")) { Self::Person } else { Self::Program }
    }
}

/// How programs that ask for JSON are told of an error.
const PROBLEM: &str = "application/problem+json";

/// Whether who asks names JSON; programs that take anything get pages where there are pages.
pub(crate) fn wants_json(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("json"))
}

/// An error as RFC 9457 has it; `errors` are those of single fields.
pub(crate) fn problem(status: StatusCode, detail: &str, errors: Option<Value>) -> Response {
    let title = status.canonical_reason().unwrap_or("Error");
    let mut problem = json!({
        "type": "about:blank",
        "title": title,
        "status": status.as_u16(),
        "detail": detail,
    });
    if let Some(errors) = errors {
        problem["errors"] = errors;
    }
    (status, [(header::CONTENT_TYPE, PROBLEM)], problem.to_string()).into_response()
}

pub(crate) fn refuse(asker: Asker, status: StatusCode, reason: &str) -> Response {
    match asker {
        Asker::Person => page::notice(status, "This did not work", &format!("Sorry: {reason}.")),
        Asker::Program => problem(status, reason, None),
    }
}

/// Everything that has no route. An address that ends with a slash more than a route has, as the
/// original system's did, leads there.
pub(crate) async fn not_found(uri: Uri) -> Response {
    // another slash at the beginning would be the name of a host
    if let Some(path) = uri.path().strip_suffix('/').filter(|path| !path.starts_with("//"))
        && !path.is_empty()
    {
        let query = uri.query().map_or_else(String::new, |query| format!("?{query}"));
        return Redirect::permanent(&format!("{path}{query}")).into_response();
    }
    let text = "There is nothing at this address. It may have been mistyped, or it has moved.";
    page::notice(StatusCode::NOT_FOUND, "This page does not exist", text)
}

/// The answer to an id that is no UUID.
pub(crate) fn no_uuid() -> Response {
    refuse(Asker::Program, StatusCode::BAD_REQUEST, "the id is not a UUID")
}

/// The answer when there is no share for a client.
pub(crate) fn full(asker: Asker, why: Full) -> Response {
    match why {
        Full::Own => {
            let reason = "your last requests are still being answered; please wait a moment";
            refuse(asker, StatusCode::TOO_MANY_REQUESTS, reason)
        }
        Full::All => {
            let reason = "more people ask than this server can answer at once; please try again \
                          in a moment";
            refuse(asker, StatusCode::SERVICE_UNAVAILABLE, reason)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_gets_pages_and_everyone_else_json() {
        for (accept, want) in [
            ("text/html,application/xhtml+xml,*/*;q=0.8", Asker::Person),
            ("application/json", Asker::Program),
            ("*/*", Asker::Program),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            assert_eq!(Asker::of(&headers), want, "{accept}");
        }
        assert_eq!(Asker::of(&HeaderMap::new()), Asker::Program);
    }
}
