//! What programs can ask: one table of routes, told as an OpenAPI document and as a page.

use axum::response::Json;
use maud::{Markup, html};
use serde_json::{Map, Value, json};

use crate::layout::page::Head::Text;
use crate::layout::page::{page, table};
use crate::paths;

/// What a route answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Page,
    Document,
    Plain,
    Events,
}

/// What a parameter of a path or a query is.
#[derive(Debug, Clone, Copy)]
enum Is {
    Code,
    Day,
    Uuid,
    Text,
}

struct Route {
    path: &'static str,
    summary: &'static str,
    kind: Kind,
    /// Parameters of the query; those of the path are in the path.
    query: &'static [(&'static str, Is)],
    /// Statuses beside those that every route may answer with.
    statuses: &'static [u16],
}

const fn read(path: &'static str, summary: &'static str, kind: Kind) -> Route {
    Route { path, summary, kind, query: &[], statuses: &[] }
}

const fn entity(path: &'static str, summary: &'static str) -> Route {
    Route { path, summary, kind: Kind::Page, query: &[], statuses: &[404] }
}

const FLIGHT_SEARCH: &[(&str, Is)] = &[
    ("Carrier", Is::Code),
    ("FlightDate", Is::Day),
    ("Origin", Is::Code),
    ("Dest", Is::Code),
    ("TailNum", Is::Code),
    ("FlightNum", Is::Code),
    ("page", Is::Text),
];
const AIRPLANE_SEARCH: &[(&str, Is)] = &[
    ("TailNum", Is::Text),
    ("Carrier", Is::Text),
    ("Manufacturer", Is::Text),
    ("Model", Is::Text),
    ("ManufacturerYear", Is::Text),
    ("Engine", Is::Text),
    ("exact", Is::Text),
    ("page", Is::Text),
];
const FLIGHT_NAME: &[(&str, Is)] =
    &[("Carrier", Is::Code), ("FlightDate", Is::Day), ("FlightNum", Is::Code)];

/// Every route that is read.
const READ: &[Route] = &[
    read("/", "The airlines", Kind::Page),
    read("/airlines", "The airlines", Kind::Page),
    entity("/airline/{carrier}", "An airline with its fleet and its routes"),
    Route {
        query: AIRPLANE_SEARCH,
        ..read("/airplanes", "Airplanes, searched by how their texts begin", Kind::Page)
    },
    read(
        "/airplanes/chart/manufacturers.json",
        "The ten manufacturers with the most airplanes",
        Kind::Document,
    ),
    entity("/airplane/{tail}", "An airplane with its first flights"),
    entity("/airplane/flights/{tail}", "The same"),
    read("/airports", "The busiest airports", Kind::Page),
    entity("/airport/{code}", "An airport with its routes"),
    read("/routes", "The busiest routes", Kind::Page),
    Route { query: FLIGHT_SEARCH, ..read("/flights/search", "Flights, 15 a page", Kind::Page) },
    entity("/flights/{origin}/{dest}/{date}", "The flights of a route on a day"),
    Route { query: FLIGHT_NAME, ..entity("/on_time_performance", "One flight") },
    read("/total_flights", "Flights by month", Kind::Page),
    read("/total_flights.json", "Flights by month", Kind::Document),
    read("/total_flights_chart", "Flights by month, drawn", Kind::Page),
    read("/delays", "Delays by week and by hour", Kind::Page),
    read("/model", "The model, its versions, and the streams that ask it", Kind::Page),
    Route {
        query: &[("id", Is::Uuid)],
        ..read("/flights/delays/predict_kafka", "The form, or an answer", Kind::Page)
    },
    read(
        "/flights/delays/predict/classify_realtime/response/{id}",
        "What is known about a question: status WAIT, OK, REJECTED or EXPIRED",
        Kind::Document,
    ),
    read(
        "/flights/delays/predict/classify_realtime/response/{id}/events",
        "The same as one server-sent event, as soon as the answer is there",
        Kind::Events,
    ),
    read("/flights/delays/predict_batch", "The form for the night", Kind::Page),
    entity("/flights/delays/predict_batch/results/{day}", "Questions of a day, with answers"),
    read("/api", "This page", Kind::Page),
    read("/openapi.json", "This document", Kind::Document),
    read("/healthz", "Whether the process works", Kind::Plain),
    read("/readyz", "Whether the database and Kafka answer", Kind::Plain),
    read("/metrics", "Counters for Prometheus", Kind::Plain),
];

/// The routes that take a question.
const ASK: [(&str, &str); 2] = [
    (paths::ASK, "Ask; the answer comes by the routes below"),
    (paths::NIGHTLY_ASK, "Ask for the night"),
];
/// Fields of a question.
const QUESTION: [(&str, &str); 7] = [
    ("DepDelay", "minutes, negative when early"),
    ("Carrier", "code"),
    ("FlightDate", "YYYY-MM-DD"),
    ("Origin", "airport code"),
    ("Dest", "airport code"),
    ("FlightNum", "optional"),
    ("Distance", "miles; optional"),
];

/// GET `/openapi.json`.
pub(crate) async fn document() -> Json<Value> {
    let mut paths = Map::new();
    for route in READ {
        paths.insert(route.path.into(), json!({ "get": operation(route) }));
    }
    for (path, summary) in ASK {
        let fields = QUESTION.map(|(field, what)| {
            (field.to_owned(), json!({ "type": "string", "description": what }))
        });
        let schema = json!({
            "type": "object",
            "required": ["DepDelay", "Carrier", "FlightDate", "Origin", "Dest"],
            "properties": Map::from_iter(fields),
        });
        let body = json!({ "application/x-www-form-urlencoded": { "schema": schema } });
        let mut statuses = responses("application/json", &[200, 403, 413, 415, 422, 503, 504]);
        // a browser that accepts pages gets the page of its question
        statuses.insert("303".into(), json!({ "description": "the page of the question" }));
        let operation = json!({
            "summary": summary,
            "requestBody": { "required": true, "content": body },
            "responses": statuses,
        });
        paths.insert(path.into(), json!({ "post": operation }));
    }
    Json(json!({
        "openapi": "3.0.3",
        "info": { "title": "Tarmac", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
    }))
}

fn operation(route: &Route) -> Value {
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
    let kind = match route.kind {
        Kind::Page => "text/html",
        Kind::Document => "application/json",
        Kind::Plain => "text/plain",
        Kind::Events => "text/event-stream",
    };
    json!({
        "summary": route.summary,
        "parameters": in_path.chain(in_query).collect::<Vec<_>>(),
        "responses": responses(kind, &[&[200, 500, 503, 504], route.statuses].concat()),
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

/// Responses by status; errors are pages, except those of a route that answers with JSON.
fn responses(kind: &str, statuses: &[u16]) -> Map<String, Value> {
    let any = [400, 405, 414, 429];
    let response = |status: &u16| {
        let kinds: Vec<&str> = match status {
            200 => vec![kind],
            _ => vec!["text/html", "application/json", "text/plain"],
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

/// GET `/api`.
pub(crate) async fn human() -> Markup {
    let rows = html! {
        @for (path, summary) in ASK {
            tr { th scope="row" { "POST " code { (path) } } td { (summary) } td { "JSON" } }
        }
        @for route in READ {
            tr {
                th scope="row" { "GET " code { (route.path) } }
                td { (route.summary) }
                td { (match route.kind {
                    Kind::Page => "page",
                    Kind::Document => "JSON",
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
                 http://127.0.0.1:5000" (paths::ASK) "\n"
                "curl http://127.0.0.1:5000" (paths::ASK) "/response/ID"
            } }
        }
        (table("Routes", &[Text("Route"), Text("What it tells"), Text("As")], rows))
    };
    page("For programs", intro, content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_document_tells_of_parameters_and_statuses() {
        let Json(document) = document().await;
        let flights = &document["paths"]["/flights/{origin}/{dest}/{date}"]["get"];
        let names: Vec<_> =
            flights["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str()).collect();
        assert_eq!(names, [Some("origin"), Some("dest"), Some("date")]);
        assert!(flights["responses"]["404"].is_object() && flights["responses"]["429"].is_object());
        let ask = &document["paths"][paths::ASK]["post"];
        assert!(ask["responses"]["422"].is_object(), "{ask}");
    }
}
