//! Every route of the server, each declared once: its path, its handler, and its description for
//! programs.

use std::sync::Arc;

use axum::Router;
use axum::http::header::HOST;
use axum::http::{HeaderMap, HeaderName};
use axum::response::Json;
use axum::routing::{get, post};
use maud::Markup;
use serde_json::Value;

use crate::app::App;
use crate::explore::{airlines, airplanes, airports, delays, flights, model};
use crate::http::api::{self, Handler, Is, Kind, Route};
use crate::http::{health, static_files};
use crate::paths;
use crate::predict::{nightly, requests, stream};

/// A router of these routes.
pub(crate) fn router(routes: &[Route]) -> Router<Arc<App>> {
    let add = |router: Router<_>, route: &Route| router.route(route.path, (route.handler)());
    routes.iter().fold(Router::new(), add)
}

/// The files of pages, which are described nowhere.
pub(crate) fn assets() -> Router<Arc<App>> {
    Router::new().route("/static/{name}", get(static_files::asset))
}

const fn page(path: &'static str, summary: &'static str, handler: Handler) -> Route {
    Route { path, summary, kind: Kind::Page, query: &[], statuses: &[], handler }
}

/// A page of something that there may not be.
const fn entity(path: &'static str, summary: &'static str, handler: Handler) -> Route {
    Route { statuses: &[404], ..page(path, summary, handler) }
}

const fn document(path: &'static str, summary: &'static str, handler: Handler) -> Route {
    Route { kind: Kind::Document, ..page(path, summary, handler) }
}

const fn plain(path: &'static str, summary: &'static str, handler: Handler) -> Route {
    Route { kind: Kind::Plain, ..page(path, summary, handler) }
}

const fn send(path: &'static str, summary: &'static str, handler: Handler) -> Route {
    let statuses = &[403, 413, 415, 422];
    Route { kind: Kind::Sent, statuses, ..page(path, summary, handler) }
}

/// From a request to its answer.
pub(crate) const PREDICT: &[Route] = &[
    send(paths::ASK, "Ask; the answer comes by the routes below", || post(requests::ask)),
    Route {
        query: &[("id", Is::Uuid)],
        ..page(paths::FORM, "The form, or an answer", || get(requests::form_page))
    },
    document(
        "/flights/delays/predict/classify_realtime/response/{id}",
        "What is known about a request: status WAIT, OK, REJECTED or EXPIRED",
        || get(requests::response),
    ),
    Route {
        kind: Kind::Events,
        ..page(
            "/flights/delays/predict/classify_realtime/response/{id}/events",
            "The same as one server-sent event, as soon as the answer is there",
            || get(stream::events),
        )
    },
    send(paths::NIGHTLY_ASK, "Leave a request for the nightly batch", || post(nightly::ask)),
    page(paths::NIGHTLY_FORM, "The form of the nightly batch", || get(nightly::form)),
    entity(
        "/flights/delays/predict_batch/results/{day}",
        "Requests of a day, with answers",
        || get(nightly::results),
    ),
];

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

/// What `submit-job publish` left in the store.
pub(crate) const EXPLORE: &[Route] = &[
    page("/", "The airlines", || get(airlines::list)),
    page("/airlines", "The airlines", || get(airlines::list)),
    entity("/airline/{carrier}", "An airline with its fleet and its routes", || {
        get(airlines::airline)
    }),
    Route {
        query: AIRPLANE_SEARCH,
        ..page("/airplanes", "Airplanes, searched by how their texts begin", || {
            get(airplanes::list)
        })
    },
    document(
        "/airplanes/chart/manufacturers.json",
        "The ten manufacturers with the most airplanes",
        || get(airplanes::manufacturers_json),
    ),
    entity("/airplane/{tail}", "An airplane with its first flights", || get(airplanes::airplane)),
    entity("/airplane/flights/{tail}", "The same", || get(airplanes::airplane)),
    page("/airports", "The busiest airports", || get(airports::list)),
    entity("/airport/{code}", "An airport with its routes", || get(airports::airport)),
    page("/routes", "The busiest routes", || get(airports::top_routes)),
    Route {
        query: FLIGHT_SEARCH,
        ..page("/flights/search", "Flights, 15 a page", || get(flights::search))
    },
    entity("/flights/{origin}/{dest}/{date}", "The flights of a route on a day", || {
        get(flights::route_day)
    }),
    Route {
        query: FLIGHT_NAME,
        ..entity("/on_time_performance", "One flight", || get(flights::flight))
    },
    page("/total_flights", "Flights by month", || get(delays::total_flights)),
    document("/total_flights.json", "Flights by month", || get(delays::total_flights_json)),
    page("/total_flights_chart", "Flights by month, drawn", || get(delays::total_flights_chart)),
    page("/delays", "Delays by week and by hour", || get(delays::delays)),
    page("/model", "The model, its versions, and the streams that score with it", || {
        get(model::model)
    }),
];

/// The description of all of them.
pub(crate) const DESCRIPTION: &[Route] = &[
    page("/api", "This page", || get(human)),
    document("/openapi.json", "This document", || get(openapi)),
];

/// How the server is. Probes are answered under load.
pub(crate) const PROBES: &[Route] = &[
    plain("/healthz", "Whether the process works", || get(health::health)),
    plain("/readyz", "Whether the database and Kafka answer", || get(health::ready)),
    plain("/metrics", "Counters for Prometheus", || get(health::metrics)),
];

fn all() -> impl Iterator<Item = &'static Route> {
    [PREDICT, EXPLORE, DESCRIPTION, PROBES].into_iter().flatten()
}

async fn openapi() -> Json<Value> {
    api::document(all())
}

async fn human(headers: HeaderMap) -> Markup {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(HOST).unwrap_or("127.0.0.1:5000");
    // a proxy may speak another protocol with browsers
    let is_encrypted = text(HeaderName::from_static("x-forwarded-proto")) == Some("https");
    api::human(all(), &format!("{}://{host}", if is_encrypted { "https" } else { "http" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_document_tells_of_parameters_and_statuses() {
        let Json(document) = openapi().await;
        let flights = &document["paths"]["/flights/{origin}/{dest}/{date}"]["get"];
        let names: Vec<_> =
            flights["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str()).collect();
        assert_eq!(names, [Some("origin"), Some("dest"), Some("date")]);
        assert!(flights["responses"]["404"].is_object() && flights["responses"]["429"].is_object());
        let ask = &document["paths"][paths::ASK]["post"];
        assert!(ask["responses"]["422"].is_object(), "{ask}");
        let below = |path: &str, of: &str| path.starts_with(of) && path.contains('{');
        for (of, n) in [(paths::ASK, 2), (paths::NIGHTLY_FORM, 1)] {
            assert_eq!(all().filter(|route| below(route.path, of)).count(), n, "below {of}");
        }
    }
}
