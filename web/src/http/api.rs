//! What programs can ask: routes as an OpenAPI document and as a page.

use std::sync::Arc;

use axum::response::Json;
use axum::routing::MethodRouter;
use maud::{Markup, html};
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::layout::page::Head::Text;
use crate::layout::page::{page, table};
use crate::paths;

/// What a route answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Page,
    Document,
    Plain,
    Events,
    /// The id of a request that was sent, for the fields of [`FORM`].
    Sent,
}

impl Kind {
    /// The HTTP method of such a route.
    fn method(self) -> &'static str {
        if self == Self::Sent { "post" } else { "get" }
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Page => "text/html",
            Self::Document | Self::Sent => "application/json",
            Self::Plain => "text/plain",
            Self::Events => "text/event-stream",
        }
    }
}

/// What a parameter of a path or a query is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Is {
    Code,
    Day,
    Uuid,
    Text,
}

/// Serves a route by its method.
pub(crate) type Handler = fn() -> MethodRouter<Arc<App>>;

/// A route: how it is served, and how it is described.
pub(crate) struct Route {
    pub(crate) path: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) kind: Kind,
    /// Parameters of the query; those of the path are in the path.
    pub(crate) query: &'static [(&'static str, Is)],
    /// Statuses beside those that every route may answer with.
    pub(crate) statuses: &'static [u16],
    pub(crate) handler: Handler,
}

/// Fields of a request.
const FORM: [(&str, &str); 7] = [
    ("DepDelay", "minutes, negative when early"),
    ("Carrier", "code"),
    ("FlightDate", "YYYY-MM-DD"),
    ("Origin", "airport code"),
    ("Dest", "airport code"),
    ("FlightNum", "optional"),
    ("Distance", "miles; optional"),
];

/// The OpenAPI document of these routes.
pub(crate) fn document<'a>(routes: impl Iterator<Item = &'a Route>) -> Json<Value> {
    let operation = |route: &Route| {
        let operation = match route.kind {
            Kind::Sent => post_operation(route),
            _ => get_operation(route),
        };
        (route.path.to_owned(), json!({ route.kind.method(): operation }))
    };
    Json(json!({
        "openapi": "3.0.3",
        "info": { "title": "Tarmac", "version": env!("CARGO_PKG_VERSION") },
        "paths": routes.map(operation).collect::<Map<_, _>>(),
    }))
}

fn post_operation(route: &Route) -> Value {
    let fields = FORM
        .map(|(field, what)| (field.to_owned(), json!({ "type": "string", "description": what })));
    let schema = json!({
        "type": "object",
        "required": ["DepDelay", "Carrier", "FlightDate", "Origin", "Dest"],
        "properties": Map::from_iter(fields),
    });
    let body = json!({ "application/x-www-form-urlencoded": { "schema": schema } });
    let mut statuses = responses(route.kind, &[&[200, 503, 504], route.statuses].concat());
    // a browser that accepts pages gets the page of its request
    statuses.insert("303".into(), json!({ "description": "the page of the request" }));
    json!({
        "summary": route.summary,
        "requestBody": { "required": true, "content": body },
        "responses": statuses,
    })
}

fn get_operation(route: &Route) -> Value {
    let in_path = route.path.split('/').filter_map(|part| {
        let name = part.strip_prefix('{')?.strip_suffix('}')?;
        let is = match name {
            "id" => Is::Uuid,
            "date" | "day" => Is::Day,
            _ => Is::Code,
        };
        Some(parameter(name, "path", is))
    });
    let in_query = route.query.iter().map(|(name, is)| parameter(name, "query", *is));
    json!({
        "summary": route.summary,
        "parameters": in_path.chain(in_query).collect::<Vec<_>>(),
        "responses": responses(route.kind, &[&[200, 500, 503, 504], route.statuses].concat()),
    })
}

fn parameter(name: &str, place: &str, is: Is) -> Value {
    let schema = match is {
        Is::Code => json!({ "type": "string", "pattern": "^[A-Za-z0-9]{1,8}$" }),
        Is::Day => json!({ "type": "string", "format": "date" }),
        Is::Uuid => json!({ "type": "string", "format": "uuid" }),
        Is::Text => json!({ "type": "string", "maxLength": 60 }),
    };
    json!({ "name": name, "in": place, "required": place == "path", "schema": schema })
}

/// Responses by status; errors are pages, or problems (RFC 9457) for who asks for JSON.
fn responses(kind: Kind, statuses: &[u16]) -> Map<String, Value> {
    let any = [400, 405, 408, 413, 414, 421, 429];
    let response = |status: &u16| {
        let kinds: Vec<&str> = match status {
            200 => vec![kind.media_type()],
            _ => vec!["text/html", "application/problem+json", "text/plain"],
        };
        let content = kinds.into_iter().map(|kind| (kind.to_owned(), json!({})));
        let description = axum::http::StatusCode::from_u16(*status)
            .ok()
            .and_then(|status| status.canonical_reason())
            .unwrap_or("error");
        let content = Map::from_iter(content);
        (status.to_string(), json!({ "description": description, "content": content }))
    };
    statuses.iter().chain(&any).map(response).collect()
}

/// The page that describes these routes, served at `address`.
pub(crate) fn human<'a>(routes: impl Iterator<Item = &'a Route>, address: &str) -> Markup {
    let rows = html! {
        @for route in routes {
            tr {
                th scope="row" { (route.kind.method().to_uppercase()) " " code { (route.path) } }
                td { (route.summary) }
                td { (match route.kind {
                    Kind::Page => "page",
                    Kind::Document | Kind::Sent => "JSON",
                    Kind::Plain => "text",
                    Kind::Events => "events",
                }) }
            }
        }
    };
    let intro = html! {
        "Programs ask and fetch answers as JSON; the rest is pages. The same as a document for \
         tools: " a href="/openapi.json" { "OpenAPI" } "."
    };
    let content = html! {
        article.card {
            h2 { "Ask, and fetch the answer" }
            pre tabindex="0" { code {
                "curl -d 'DepDelay=45&Carrier=UA&FlightDate=2013-12-25&Origin=EWR&Dest=IAH' \\\n  \
                 " (address) (paths::ASK) "\n"
                "curl " (address) (paths::ASK) "/response/ID"
            } }
        }
        (table("Routes", &[Text("Route"), Text("What it shows"), Text("As")], rows))
    };
    page("For programs", intro, content)
}
