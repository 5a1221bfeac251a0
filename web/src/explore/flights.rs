//! Flights: a search, those of a route on a day, and one by itself.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use charts::numbers::thousands;
use chrono::NaiveDate;
use events::ON_TIME_PERFORMANCE;
use maud::{Markup, html};
use serde::Deserialize;
use store::Order;

use crate::app::App;
use crate::explore::entities::{Flight, code, equal, find};
use crate::explore::search::{searched, unknown_field};
use crate::http::clients::Client;
use crate::layout::page::Head::{Number, Text};
use crate::layout::page::{self, Failure, facts, minutes, page, table, url_text};

/// Flights on a page of the list.
const PAGE: u32 = 15;
/// Pages that are counted and can be turned to: what lies beyond wants a narrower search.
const PAGES_MAX: u32 = 200;
/// Flights of a route on a day.
const ROUTE_DAY_MAX: u32 = 200;

/// What flights are searched by, as typed.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Search {
    carrier: String,
    flight_date: String,
    origin: String,
    dest: String,
    tail_num: String,
    flight_num: String,
    #[serde(rename = "page")]
    page: String,
}

impl Search {
    fn fields(&self) -> [(&'static str, &'static str, &str); 6] {
        [
            ("Origin", "From", &self.origin),
            ("Dest", "To", &self.dest),
            ("FlightDate", "Date", &self.flight_date),
            ("Carrier", "Airline", &self.carrier),
            ("FlightNum", "Flight number", &self.flight_num),
            ("TailNum", "Tail number", &self.tail_num),
        ]
    }

    /// The query, or a sentence on each field that is wrong.
    fn query(&self) -> Result<store::Query, Vec<String>> {
        let mut query = store::Query::default();
        let mut errors = Vec::new();
        for (field, label, text) in self.fields() {
            let text = text.trim();
            if text.is_empty() {
                continue;
            }
            match (field, code(text), day(text)) {
                ("FlightDate", _, Some(date)) => {
                    query.equal.push((field.into(), date.to_string().into()));
                }
                ("FlightDate", _, None) => {
                    errors.push("Date: enter it as year-month-day, such as 2013-12-25.".into());
                }
                (_, Some(code), _) => query.equal.push((field.into(), code.into())),
                _ => errors.push(format!("{label}: enter at most 8 letters or digits.")),
            }
        }
        if errors.is_empty() { Ok(query) } else { Err(errors) }
    }
}

fn day(text: &str) -> Option<NaiveDate> {
    NaiveDate::parse_from_str(text.trim(), "%Y-%m-%d").ok()
}

/// By date and scheduled time of departure.
pub(crate) fn by_time(query: store::Query) -> store::Query {
    let sort = ["FlightDate", "CRSDepTime"];
    let sort = sort.map(|field| (field.to_owned(), Order::Ascending)).to_vec();
    store::Query { sort, ..query }
}

/// GET `/flights/search`.
pub(crate) async fn search(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    Query(search): Query<Search>,
    Query(given): Query<Vec<(String, String)>>,
) -> Result<Response, Failure> {
    let known = search.fields().map(|(field, ..)| field);
    let unknown = unknown_field(&given, &[&known[..], &["page"]].concat());
    let (status, found) = match unknown.map_or_else(|| search.query(), |wrong| Err(vec![wrong])) {
        Ok(query) => (StatusCode::OK, found(&app, client, &search, query).await?),
        Err(errors) => {
            let errors = html! {
                div.failure role="alert" { ul { @for error in &errors { li { (error) } } } }
            };
            (StatusCode::BAD_REQUEST, errors)
        }
    };
    let intro =
        html! { "Every flight of the data, by where, when and who. All fields are optional." };
    let choices = app.choices.read(&app.store).await;
    let list = |field| match field {
        "Origin" | "Dest" => Some("airports"),
        "Carrier" => Some("airlines"),
        _ => None,
    };
    let content = html! {
        form.search method="get" action="/flights/search" role="search" aria-label="Flights" {
            div.fields {
                @for (field, label, text) in search.fields() {
                    div class={ "field " (field) } {
                        label for=(field) { (label) }
                        input id=(field) name=(field) value=(text) autocomplete="off"
                            spellcheck="false" list=[list(field)]
                            type=(if field == "FlightDate" { "date" } else { "text" });
                    }
                }
            }
            button type="submit" { "Search" }
            (crate::predict::form_page::choice_lists(&choices))
        }
        (found)
    };
    Ok((status, page("Flights", intro, content)).into_response())
}

async fn found(
    app: &App,
    client: Client,
    search: &Search,
    query: store::Query,
) -> Result<Markup, Failure> {
    let (query, bounds) = (by_time(query), (PAGE, PAGES_MAX));
    let (page, n_found, flights): (_, _, Vec<Flight>) =
        searched(app, client, ON_TIME_PERFORMANCE, query, bounds, &search.page).await?;
    let fields = search.fields();
    let fields: Vec<(&str, &str)> = fields.iter().map(|(field, _, text)| (*field, *text)).collect();
    Ok(html! {
        (flight_table("Flights by date and time", &flights))
        (turn("/flights/search", &fields, "flights", page, n_found, bounds))
    })
}

/// How many were found, and the way to the pages before and after.
pub(crate) fn turn(
    path: &str,
    fields: &[(&str, &str)],
    what: &str,
    page: u32,
    n_found: u64,
    (page_rows, pages_max): (u32, u32),
) -> Markup {
    let n_pages = n_found.div_ceil(page_rows.into()).clamp(1, pages_max.into()) as u32;
    let typed = fields.iter().filter(|(_, text)| !text.trim().is_empty());
    let typed: String =
        typed.map(|(field, text)| format!("{field}={}&", url_text(text.trim()))).collect();
    let to = |page: u32| format!("{path}?{typed}page={page}");
    let is_more = n_found > u64::from(page_rows * pages_max);
    html! {
        nav.turn aria-label="Pages of the list" {
            p {
                @match n_found {
                    0 => "Nothing was found. Leave a field empty to search wider.",
                    _ if is_more => {
                        "More than " (thousands(n_found - 1)) " " (what) "; page " (page)
                        " of the first " (n_pages)
                    }
                    _ => { (thousands(n_found)) " " (what) "; page " (page) " of " (n_pages) }
                }
            }
            @if page > 1 { a rel="prev" href=(to(page - 1)) { "Previous" } }
            @if page < n_pages { a rel="next" href=(to(page + 1)) { "Next" } }
        }
    }
}

/// GET `/flights/{origin}/{dest}/{date}`.
pub(crate) async fn route_day(
    State(app): State<Arc<App>>,
    Path((origin, dest, date)): Path<(String, String, String)>,
) -> Result<Markup, Failure> {
    let (Some(origin), Some(dest), Some(date)) = (code(&origin), code(&dest), day(&date)) else {
        let form = "The address is /flights/ORIGIN/DEST/YEAR-MONTH-DAY.";
        return Err(Failure::NotFound(form));
    };
    let date = date.to_string();
    let of_day = [("Origin", &*origin), ("Dest", &*dest), ("FlightDate", &*date)];
    let query = by_time(equal(&of_day, ROUTE_DAY_MAX));
    let flights: Vec<Flight> = find(&app.store, ON_TIME_PERFORMANCE, &query).await?;
    let intro = html! {
        (thousands(flights.len() as u64)) " flights from " (page::airport(&origin)) " to "
        (page::airport(&dest)) "."
    };
    let content = html! {
        @if flights.is_empty() { p.card.quiet { "No flight of this route is known on this day." } }
        @else { (flight_table("Flights by time", &flights)) }
    };
    Ok(page(&format!("{origin} → {dest}, {date}"), intro, content))
}

/// What names a flight.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Named {
    carrier: String,
    flight_date: String,
    flight_num: String,
}

/// GET `/on_time_performance?Carrier=&FlightDate=&FlightNum=`: one flight, or all legs that share
/// its number on that day.
pub(crate) async fn flight(
    State(app): State<Arc<App>>,
    Query(named): Query<Named>,
) -> Result<Markup, Failure> {
    const UNKNOWN: Failure = Failure::NotFound("No such flight is known on this day.");
    let codes = (code(&named.carrier), day(&named.flight_date), code(&named.flight_num));
    let (Some(carrier), Some(date), Some(number)) = codes else { return Err(UNKNOWN) };
    let date = date.to_string();
    let fields = [("Carrier", &*carrier), ("FlightNum", &*number), ("FlightDate", &*date)];
    let query = by_time(equal(&fields, ROUTE_DAY_MAX));
    let flights: Vec<Flight> = find(&app.store, ON_TIME_PERFORMANCE, &query).await?;
    if flights.is_empty() {
        return Err(UNKNOWN);
    }
    let intro = html! { "Flown by " (page::airline(&carrier)) " on " (date) "." };
    let content = html! { @for flight in &flights { (one(flight)) } };
    Ok(page(&format!("Flight {carrier} {number}"), intro, content))
}

fn one(flight: &Flight) -> Markup {
    let known = |text: &Option<String>| html! { (text.as_deref().unwrap_or("not known")) };
    let miles = flight.distance.map(|miles| format!("{miles:.0} miles"));
    let route_day = format!("/flights/{}/{}/{}", flight.origin, flight.dest, flight.flight_date);
    html! {
        article.card {
            h2 { (flight.origin) " → " (flight.dest) }
            p.label { (outcome(flight)) }
            (facts(&[
                ("From", page::airport(&flight.origin)),
                ("To", page::airport(&flight.dest)),
                ("Airplane", html! {
                    @match &flight.tail_num {
                        Some(tail) => (page::airplane(tail)),
                        None => "not known",
                    }
                }),
                ("Scheduled departure", known(&flight.crs_dep_time)),
                ("Departure", known(&flight.dep_time)),
                ("Delay at departure", html! { (minutes(flight.dep_delay)) }),
                ("Scheduled arrival", known(&flight.crs_arr_time)),
                ("Arrival", known(&flight.arr_time)),
                ("Delay at arrival", html! { (minutes(flight.arr_delay)) }),
                ("Distance", known(&miles)),
                ("In the air", html! { (minutes(flight.air_time)) }),
            ]))
            p.links {
                a href=(route_day) { "Others on this route and day" }
                @if let Some(delay) = flight.dep_delay {
                    " · " a href=(ask_path(flight, delay)) { "Would the model have known?" }
                }
            }
        }
    }
}

/// The form, filled in with a flight as it departed.
fn ask_path(flight: &Flight, dep_delay: f64) -> String {
    format!(
        "{}?Origin={}&Dest={}&Carrier={}&FlightDate={}&DepDelay={}&FlightNum={}",
        crate::paths::FORM,
        flight.origin,
        flight.dest,
        flight.carrier,
        flight.flight_date,
        dep_delay,
        flight.flight_num.as_deref().unwrap_or_default()
    )
}

fn outcome(flight: &Flight) -> String {
    match (flight.cancelled, flight.diverted, flight.arr_delay) {
        (true, _, _) => "Cancelled".into(),
        (_, true, _) => "Diverted".into(),
        (_, _, None) => "Arrival not known".into(),
        (_, _, Some(delay)) if delay > 0.0 => format!("{delay:.0} min late"),
        (_, _, Some(delay)) if delay < 0.0 => format!("{:.0} min early", -delay),
        _ => "On time".into(),
    }
}

/// Flights as a list.
pub(crate) fn flight_table(caption: &str, flights: &[Flight]) -> Markup {
    let clock = |text: &Option<String>| text.clone().unwrap_or_else(|| "–".into());
    let number = |flight: &Flight| flight.flight_num.clone().unwrap_or_default();
    let path = |flight: &Flight| {
        format!(
            "/on_time_performance?Carrier={}&FlightDate={}&FlightNum={}",
            flight.carrier,
            flight.flight_date,
            number(flight)
        )
    };
    let rows = html! {
        @for flight in flights {
            tr {
                th scope="row" { a href=(path(flight)) { (flight.carrier) " " (number(flight)) } }
                td { (outcome(flight)) }
                td { (flight.flight_date) }
                td { (page::airport(&flight.origin)) " → " (page::airport(&flight.dest)) }
                td.number { (clock(&flight.crs_dep_time)) }
                td.number { (clock(&flight.dep_time)) }
                td.number { (clock(&flight.crs_arr_time)) }
                td.number { (clock(&flight.arr_time)) }
                td { @if let Some(tail) = &flight.tail_num { (page::airplane(tail)) } }
            }
        }
    };
    let heads = [
        Text("Flight"),
        Text("Outcome"),
        Text("Date"),
        Text("Route"),
        Number("Should leave"),
        Number("Left"),
        Number("Should arrive"),
        Number("Arrived"),
        Text("Airplane"),
    ];
    table(caption, &heads, rows)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn what_is_typed_becomes_plain_values_or_a_sentence() {
        let search =
            Search { origin: " ewr".into(), flight_date: "2013-12-25".into(), ..Search::default() };
        let query = search.query().unwrap();
        let equal = [("Origin", "EWR"), ("FlightDate", "2013-12-25")];
        assert_eq!(query.equal, equal.map(|(f, v)| (f.to_owned(), Value::from(v))));
        let hostile = Search {
            origin: "{\"$ne\":\"\"}".into(),
            flight_date: "2013-02-30".into(),
            tail_num: "../../".into(),
            ..Search::default()
        };
        assert_eq!(hostile.query().unwrap_err().len(), 3);
    }

    #[test]
    fn pages_keep_what_was_typed() {
        let fields = [("Origin", "EWR"), ("Dest", ""), ("Model", "A 3&2")];
        let turned = turn("/x", &fields, "flights", 2, 40, (15, 200)).into_string();
        assert!(
            turned.contains("href=\"/x?Origin=EWR&amp;Model=A%203%262&amp;page=1\""),
            "{turned}"
        );
        assert!(turned.contains("page=3\""), "{turned}");
        assert!(turned.contains("40 flights; page 2 of 3"));
        let last = turn("/x", &[], "flights", 200, 3_001, (15, 200)).into_string();
        assert!(last.contains("More than 3,000 flights") && !last.contains("Next"), "{last}");
        assert!(turn("/x", &[], "flights", 1, 0, (15, 200)).into_string().contains("Nothing"));
    }
}
