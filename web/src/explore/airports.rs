//! Airports and the routes between them, the busiest first.

use std::sync::Arc;

use axum::extract::{Path, State};
use charts::numbers::{counted, thousands};
use events::{AIRPORTS, ROUTES};
use maud::{Markup, html};

use crate::app::App;
use crate::explore::airlines::{
    PUNCTUALITY_HEADS, nothing_published, punctuality, punctuality_cells, route_link,
};
use crate::explore::entities::{Airport, Route, busiest, code, find, get};
use crate::layout::page::Head::{Number, Text};
use crate::layout::page::{self, Failure, facts, page, table};

/// Airports in the list.
const AIRPORTS_MAX: u32 = 100;
/// Routes in the list of all.
const ROUTES_MAX: u32 = 50;
/// Routes from and to an airport on its page.
const ROUTES_OF_AIRPORT_MAX: u32 = 15;

/// GET `/airports`.
pub(crate) async fn list(State(app): State<Arc<App>>) -> Result<Markup, Failure> {
    let airports: Vec<Airport> = find(&app.store, AIRPORTS, &busiest(&[], AIRPORTS_MAX)).await?;
    let rows = html! {
        @for airport in &airports {
            tr {
                th scope="row" { (page::airport(&airport.code)) " " (airport.name) }
                (punctuality_cells(&airport.punctuality))
                td.number { (thousands(airport.departures)) }
                td.number { (thousands(airport.arrivals)) }
            }
        }
    };
    let heads =
        [&[Text("Airport")], &PUNCTUALITY_HEADS[..], &[Number("Departures"), Number("Arrivals")]]
            .concat();
    let intro = html! {
       "Where flights went from and to. On time is of both: the flights from an airport, and those \
        to it."
    };
    let content = html! {
        @if airports.is_empty() { (nothing_published()) }
        @else { (table("The busiest airports", &heads, rows)) }
    };
    Ok(page("Airports", intro, content))
}

/// GET `/airport/{code}`.
pub(crate) async fn airport(
    State(app): State<Arc<App>>,
    Path(airport): Path<String>,
) -> Result<Markup, Failure> {
    const UNKNOWN: Failure =
        Failure::NotFound("No flight went from or to an airport of this code.");
    let Some(airport) = code(&airport) else { return Err(UNKNOWN) };
    let from = busiest(&[("Origin", &airport)], ROUTES_OF_AIRPORT_MAX);
    let to = busiest(&[("Dest", &airport)], ROUTES_OF_AIRPORT_MAX);
    let (airport, from, to) = tokio::try_join!(
        get::<Airport>(&app.store, AIRPORTS, &airport),
        find::<Route>(&app.store, ROUTES, &from),
        find::<Route>(&app.store, ROUTES, &to),
    )?;
    let Some(airport) = airport else { return Err(UNKNOWN) };
    let position = match (airport.latitude, airport.longitude) {
        (Some(latitude), Some(longitude)) => html! { (degrees(latitude, longitude)) },
        _ => html! { "not known" },
    };
    let intro = html! {
        "Airport " (airport.code) ": " (counted(airport.departures, "departure")) " and "
        (counted(airport.arrivals, "arrival")) "."
    };
    let content = html! {
        article.card {
            h2 { "How punctual" }
            (punctuality(&airport.punctuality))
            (facts(&[("Position", position)]))
        }
        @if !from.is_empty() { (routes("Routes from here, the busiest first", &from)) }
        @if !to.is_empty() { (routes("Routes to here, the busiest first", &to)) }
        p { a.button href={ "/flights/search?Origin=" (airport.code) } { "Flights from here" } }
    };
    Ok(page(&airport.name, intro, content))
}

/// GET `/routes`.
pub(crate) async fn top_routes(State(app): State<Arc<App>>) -> Result<Markup, Failure> {
    let found: Vec<Route> = find(&app.store, ROUTES, &busiest(&[], ROUTES_MAX)).await?;
    let intro = html! { "Pairs of airports with the most flights between them." };
    let content = html! {
        @if found.is_empty() { (nothing_published()) }
        @else { (routes("Routes, the busiest first", &found)) }
    };
    Ok(page("Routes", intro, content))
}

fn routes(caption: &str, routes: &[Route]) -> Markup {
    let heads =
        [&[Text("Route")], &PUNCTUALITY_HEADS[..], &[Number("Miles"), Number("Airlines")]].concat();
    let rows = html! {
        @for route in routes {
            tr {
                th scope="row" { (route_link(&route.origin, &route.dest)) }
                (punctuality_cells(&route.punctuality))
                td.number { @if let Some(miles) = route.distance { (thousands(miles as u64)) } }
                td.number { (route.carriers) }
            }
        }
    };
    table(caption, &heads, rows)
}

fn degrees(latitude: f64, longitude: f64) -> String {
    let (south, west) = (latitude < 0.0, longitude < 0.0);
    format!(
        "{:.3}° {}, {:.3}° {}",
        latitude.abs(),
        if south { "S" } else { "N" },
        longitude.abs(),
        if west { "W" } else { "E" }
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_position_names_its_half() {
        assert_eq!(super::degrees(40.639751, -73.778925), "40.640° N, 73.779° W");
    }
}
