//! Airlines: all of them, and each with its fleet, its routes and how punctual it is.

use std::sync::Arc;

use axum::extract::{Path, State};
use charts::numbers::{counted, percent, thousands};
use events::{AIRLINE_PROFILES, AIRLINES, AIRPLANES_PER_CARRIER, AirlineProfile, CARRIER_ROUTES};
use maud::{Markup, html};

use crate::app::App;
use crate::explore::entities::{
    Airline, CarrierRoute, Fleet, Punctuality, busiest, code, find, get,
};
use crate::layout::page::Head::{Number, Text};
use crate::layout::page::{self, Failure, Head, facts, minutes, page, table};

/// Airlines in the list; the world has about a thousand that fly by schedule.
const AIRLINES_MAX: u32 = 1_000;
/// Routes on the page of an airline.
const ROUTES_MAX: u32 = 20;

/// GET `/` and `/airlines`.
pub(crate) async fn list(State(app): State<Arc<App>>) -> Result<Markup, Failure> {
    let airlines: Vec<Airline> = find(&app.store, AIRLINES, &busiest(&[], AIRLINES_MAX)).await?;
    let rows = html! {
        @for airline in &airlines {
            tr {
                th scope="row" { (page::airline(&airline.code)) " " (airline.name) }
                (punctuality_cells(&airline.punctuality))
                td.number { (thousands(airline.airplanes)) }
                td.number { (thousands(airline.routes)) }
            }
        }
    };
    let intro = html! {
        "Who flew, how much, and how often they came on time. Choose an airline to see its fleet \
         and its routes."
    };
    let heads =
        [&[Text("Airline")], &PUNCTUALITY_HEADS[..], &[Number("Airplanes"), Number("Routes")]]
            .concat();
    let content = html! {
        @if airlines.is_empty() { (nothing_published()) }
        @else { (table("Airlines, those with the most flights first", &heads, rows)) }
    };
    Ok(page("Airlines", intro, content))
}

/// GET `/airline/{carrier}`.
pub(crate) async fn airline(
    State(app): State<Arc<App>>,
    Path(carrier): Path<String>,
) -> Result<Markup, Failure> {
    const UNKNOWN: Failure = Failure::NotFound("No airline with this code has flown.");
    let Some(carrier) = code(&carrier) else { return Err(UNKNOWN) };
    let of_carrier = busiest(&[("Carrier", &carrier)], ROUTES_MAX);
    let (airline, profile, fleet, routes) = tokio::try_join!(
        get::<Airline>(&app.store, AIRLINES, &carrier),
        get::<AirlineProfile>(&app.store, AIRLINE_PROFILES, &carrier),
        get::<Fleet>(&app.store, AIRPLANES_PER_CARRIER, &carrier),
        find::<CarrierRoute>(&app.store, CARRIER_ROUTES, &of_carrier),
    )?;
    let Some(airline) = airline else { return Err(UNKNOWN) };
    let tail_numbers = fleet.map(|fleet| fleet.tail_nums).unwrap_or_default();
    let intro = html! {
        "Carrier " (airline.code) ": " (counted(airline.punctuality.flights, "flight")) " on "
        (counted(airline.routes, "route")) " with " (counted(airline.airplanes, "airplane")) "."
    };
    let content = html! {
        @if let Some(profile) = &profile { (about(profile)) }
        article.card { h2 { "How punctual" } (punctuality(&airline.punctuality)) }
        (route_table(&routes))
        section.card {
            h2 { "Fleet" }
            @if tail_numbers.is_empty() {
                p { "The tail numbers of its airplanes are not known." }
            } @else {
                p { "Every airplane that flew for it, by tail number." }
                ul.codes { @for tail in &tail_numbers { li { (page::airplane(tail)) } } }
            }
        }
        p { a.button href={ "/flights/search?Carrier=" (airline.code) } { "Its flights" } }
    };
    Ok(page(&airline.name, intro, content))
}

/// What Wikipedia says of it.
fn about(profile: &AirlineProfile) -> Markup {
    let day = profile.fetched_at.get(.."YYYY-MM-DD".len()).unwrap_or_default();
    html! {
        article.card.about {
            @if let Some(logo) = &profile.logo {
                img src=(logo) alt="" loading="lazy" referrerpolicy="no-referrer";
            }
            h2 { "About" }
            p { (profile.summary) }
            p.hint {
                "From " a href=(profile.page) rel="noopener" { "Wikipedia: " (profile.title) } ", "
                (profile.license) ", read on " (day)
            }
        }
    }
}

/// The columns of [`punctuality_cells`].
pub(crate) const PUNCTUALITY_HEADS: [Head<'static>; 5] = [
    Number("On time"),
    Number("Very late"),
    Number("Flights"),
    Number("Cancelled"),
    Number("Mean delay at arrival"),
];

/// Cells of a row: how punctual flights were, which a phone shows without scrolling, and how many.
pub(crate) fn punctuality_cells(of: &Punctuality) -> Markup {
    html! {
        td.number { (percent(of.on_time_share())) }
        td.number { (percent(of.very_late_share())) }
        td.number { (thousands(of.flights)) }
        td.number { (percent(of.cancelled_share())) }
        td.number { (minutes(of.mean_arr_delay)) }
    }
}

/// The same as a list.
pub(crate) fn punctuality(of: &Punctuality) -> Markup {
    html! {
        (facts(&[
            ("Flights", html! { (thousands(of.flights)) }),
            ("On time", html! { (percent(of.on_time_share())) }),
            ("Very late", html! { (percent(of.very_late_share())) }),
            ("Cancelled", html! { (percent(of.cancelled_share())) }),
            ("Mean delay at departure", html! { (minutes(of.mean_dep_delay)) }),
            ("Mean delay at arrival", html! { (minutes(of.mean_arr_delay)) }),
        ]))
        p.hint { "On time is less than 15 minutes late at arrival, very late from 30 minutes." }
    }
}

/// Routes as one carrier, or each carrier, flies them.
pub(crate) fn route_table(routes: &[CarrierRoute]) -> Markup {
    let heads = [&[Text("Route"), Text("Airline")], &PUNCTUALITY_HEADS[..]].concat();
    let rows = html! {
        @for route in routes {
            tr {
                th scope="row" { (route_link(&route.origin, &route.dest)) }
                td { (page::airline(&route.carrier)) }
                (punctuality_cells(&route.punctuality))
            }
        }
    };
    table("Routes, the busiest first", &heads, rows)
}

/// A route, as a link to its flights.
pub(crate) fn route_link(origin: &str, dest: &str) -> Markup {
    let path = format!("/flights/search?Origin={origin}&Dest={dest}");
    html! { a href=(path) { (origin) " → " (dest) } }
}

/// What is said where a collection is empty.
pub(crate) fn nothing_published() -> Markup {
    html! {
        article.card.quiet {
            h2 { "Nothing is here yet" }
            p { "The flights have not been published: " code { "submit-job publish" } " does it." }
        }
    }
}
