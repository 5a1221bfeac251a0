//! Airplanes: who made them, a search, and each with its flights.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use charts::numbers::{percent, thousands};
use charts::series::Chart;
use events::{AIRPLANES, MANUFACTURERS, ON_TIME_PERFORMANCE};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Value, json};
use store::Order;

use crate::app::App;
use crate::explore::airlines::nothing_published;
use crate::explore::entities::{Airplane, Flight, Manufacturer, code, equal, find, get};
use crate::explore::flights::{by_time, flight_table};
use crate::explore::search::{searched, unknown_field};
use crate::http::clients::Client;
use crate::layout::page::Head::{Number, Text};
use crate::layout::page::{self, Failure, facts, page, table, url_text};

/// Airplanes on a page of the list.
const PAGE: u32 = 15;
/// Pages that are counted and can be turned to.
const PAGES_MAX: u32 = 400;
/// Manufacturers in the chart.
const MANUFACTURERS_MAX: u32 = 10;
/// Letters of a manufacturer's name in the chart.
const NAME_MAX: usize = 15;
/// Flights on the page of an airplane.
const FLIGHTS_MAX: u32 = 15;
/// Longest text that is searched for, in characters.
const TEXT_MAX: usize = 60;

/// What airplanes are searched by, as typed. Texts match the beginning.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Search {
    tail_num: String,
    carrier: String,
    manufacturer: String,
    model: String,
    manufacturer_year: String,
    engine: String,
    /// Anything: texts match as a whole.
    #[serde(rename = "exact")]
    exact: String,
    #[serde(rename = "page")]
    page: String,
}

impl Search {
    fn fields(&self) -> [(&'static str, &'static str, &str); 6] {
        [
            ("TailNum", "Tail number", &self.tail_num),
            ("Carrier", "Airline", &self.carrier),
            ("Manufacturer", "Manufacturer", &self.manufacturer),
            ("Model", "Model", &self.model),
            ("ManufacturerYear", "Year", &self.manufacturer_year),
            ("Engine", "Engine", &self.engine),
        ]
    }

    /// The query, or which field cannot be searched for and why.
    fn query(&self) -> Result<store::Query, &'static str> {
        let mut query = store::Query::default();
        for (field, _, text) in self.fields() {
            let text = text.trim();
            if text.is_empty() {
                continue;
            }
            if text.chars().count() > TEXT_MAX || text.chars().any(char::is_control) {
                return Err("A text is too long or holds characters that no name has.");
            }
            match field {
                "ManufacturerYear" => {
                    let year: u16 = text.parse().map_err(|_| "The year is not a number.")?;
                    query.equal.push((field.into(), year.into()));
                }
                _ => {
                    let text = as_kept(field, text);
                    if self.exact.is_empty() {
                        let max = format!("{text}\u{10ffff}");
                        query.between.push((field.into(), text.into(), max.into()));
                    } else {
                        query.equal.push((field.into(), text.into()));
                    }
                }
            }
        }
        Ok(query)
    }
}

/// A text in the letters of the registry: `Turbo-fan`, all else upper case.
fn as_kept(field: &str, text: &str) -> String {
    let mut letters = text.chars();
    match (field, letters.next()) {
        ("Engine", Some(first)) => {
            first.to_uppercase().chain(letters.flat_map(char::to_lowercase)).collect()
        }
        _ => text.to_uppercase(),
    }
}

/// GET `/airplanes`.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    Query(search): Query<Search>,
    Query(given): Query<Vec<(String, String)>>,
) -> Result<Response, Failure> {
    let makers: Vec<Manufacturer> = manufacturers(&app).await?;
    let known = search.fields().map(|(field, ..)| field);
    let unknown = unknown_field(&given, &[&known[..], &["exact", "page"]].concat());
    let query = || search.query().map_err(str::to_owned);
    let (status, found) = match unknown.map_or_else(query, Err) {
        Ok(query) => {
            let bounds = (PAGE, PAGES_MAX);
            let (page, n_found, airplanes): (_, _, Vec<Airplane>) =
                searched(&app, client, AIRPLANES, query, bounds, &search.page).await?;
            let found = html! {
                (airplane_table(&airplanes))
                (turn(&search, page, n_found))
            };
            (StatusCode::OK, found)
        }
        Err(wrong) => (StatusCode::BAD_REQUEST, html! { p.failure role="alert" { (wrong) } }),
    };
    let intro = html! { "The airplanes that flew, with what the registry knows of them." };
    let content = html! {
        @if makers.is_empty() { (nothing_published()) } @else { (chart(&makers)?) }
        form.search method="get" action="/airplanes" role="search" aria-label="Airplanes" {
            div.fields {
                @for (field, label, text) in search.fields() {
                    div.field {
                        label for=(field) { (label) }
                        input id=(field) name=(field) value=(text) autocomplete="off"
                            maxlength=(TEXT_MAX) spellcheck="false";
                    }
                }
            }
            p.check {
                input #exact type="checkbox" name="exact" value="yes"
                    checked[!search.exact.is_empty()];
                label for="exact" { "Whole texts only; else by how they begin: BOEING, 737, Turbo" }
            }
            button type="submit" { "Search" }
        }
        (found)
    };
    Ok((status, page("Airplanes", intro, content)).into_response())
}

fn turn(search: &Search, page: u32, n_found: u64) -> Markup {
    let fields = search.fields();
    let fields = fields.iter().map(|(field, _, text)| (*field, *text));
    let fields: Vec<(&str, &str)> = fields.chain([("exact", &*search.exact)]).collect();
    crate::explore::flights::turn(
        "/airplanes",
        &fields,
        "airplanes",
        page,
        n_found,
        (PAGE, PAGES_MAX),
    )
}

async fn manufacturers(app: &App) -> anyhow::Result<Vec<Manufacturer>> {
    let query = store::Query {
        sort: vec![("Airplanes".into(), Order::Descending)],
        limit: MANUFACTURERS_MAX,
        ..store::Query::default()
    };
    find(&app.store, MANUFACTURERS, &query).await
}

fn chart(makers: &[Manufacturer]) -> anyhow::Result<Markup> {
    let short = |name: &str| match name.char_indices().nth(NAME_MAX) {
        Some((end, _)) => format!("{}…", name[..end].trim_end()),
        None => name.to_owned(),
    };
    let bars = makers.iter().map(|maker| maker.share).collect();
    let drawing = Chart {
        title: "Who made the airplanes",
        description: "The ten manufacturers with the most airplanes, and their share of all whose \
                      manufacturer is known.",
        x_title: "manufacturer",
        y_title: "share of airplanes",
        names: makers.iter().map(|maker| short(&maker.name)).collect(),
        series: vec![("share", bars)],
        value: percent,
    };
    let rows = html! {
        @for maker in makers {
            tr {
                th scope="row" {
                    a href={ "/airplanes?exact=yes&Manufacturer=" (url_text(&maker.name)) } {
                        (maker.name)
                    }
                }
                td.number { (thousands(maker.airplanes)) }
                td.number { (percent(maker.share)) }
            }
        }
    };
    let heads = [Text("Manufacturer"), Number("Airplanes"), Number("Share")];
    Ok(html! { (drawing.rows()?) (table("Manufacturers", &heads, rows)) })
}

fn airplane_table(airplanes: &[Airplane]) -> Markup {
    let rows = html! {
        @for airplane in airplanes {
            tr {
                th scope="row" { (page::airplane(&airplane.tail_num)) }
                td { (page::airline(&airplane.carrier)) }
                td { (airplane.manufacturer.as_deref().unwrap_or("–")) }
                td { (airplane.model.as_deref().unwrap_or("–")) }
                td.number { @if let Some(year) = airplane.manufacturer_year { (year) } }
                td { (airplane.engine.as_deref().unwrap_or("–")) }
                td.number { (thousands(airplane.flights)) }
            }
        }
    };
    let heads = [
        Text("Tail number"),
        Text("Airline"),
        Text("Manufacturer"),
        Text("Model"),
        Number("Year"),
        Text("Engine"),
        Number("Flights"),
    ];
    table("Airplanes by tail number", &heads, rows)
}

/// GET `/airplanes/chart/manufacturers.json`.
pub(crate) async fn manufacturers_json(
    State(app): State<Arc<App>>,
) -> Result<Json<Value>, Failure> {
    let makers = manufacturers(&app).await?;
    let maker = |maker: &Manufacturer| {
        json!({
            "Manufacturer": maker.name,
            "Total": maker.airplanes,
            "Percentage": 100.0 * maker.share,
        })
    };
    // as the original's chart reads it
    let makers: Vec<Value> = makers.iter().map(maker).collect();
    Ok(Json(json!({ "data": makers })))
}

/// GET `/airplane/{tail}` and `/airplane/flights/{tail}`.
pub(crate) async fn airplane(
    State(app): State<Arc<App>>,
    Path(tail): Path<String>,
) -> Result<Markup, Failure> {
    const UNKNOWN: Failure = Failure::NotFound("No airplane with this tail number has flown.");
    let Some(tail) = code(&tail) else { return Err(UNKNOWN) };
    let latest = by_time(equal(&[("TailNum", &tail)], FLIGHTS_MAX));
    let (airplane, flights) = tokio::try_join!(
        get::<Airplane>(&app.store, AIRPLANES, &tail),
        find::<Flight>(&app.store, ON_TIME_PERFORMANCE, &latest),
    )?;
    let Some(airplane) = airplane else { return Err(UNKNOWN) };
    let known = |text: &Option<String>| html! { (text.as_deref().unwrap_or("not known")) };
    let number = |n: Option<String>| html! { (n.as_deref().unwrap_or("not known")) };
    let year = airplane.manufacturer_year.map(|year| year.to_string());
    let intro = html! {
        "Flown most by " (page::airline(&airplane.carrier)) ": " (thousands(airplane.flights))
        " flights from " (airplane.first_flight) " to " (airplane.last_flight) "."
    };
    let content = html! {
        article.card {
            h2 { "The airplane" }
            (facts(&[
                ("Manufacturer", known(&airplane.manufacturer)),
                ("Model", known(&airplane.model)),
                ("Year", number(year)),
                ("Type", known(&airplane.kind)),
                ("Engine", known(&airplane.engine)),
                ("Engines", number(airplane.engines.map(|n| n.to_string()))),
                ("Seats", number(airplane.seats.map(|n| n.to_string()))),
                ("Miles flown", number(airplane.miles.map(|miles| thousands(miles as u64)))),
            ]))
        }
        (flight_table("Its first flights", &flights))
        p { a.button href={ "/flights/search?TailNum=" (airplane.tail_num) } { "All its flights" } }
    };
    Ok(page(&format!("Airplane {}", airplane.tail_num), intro, content))
}
