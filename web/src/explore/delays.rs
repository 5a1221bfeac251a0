//! Flights and delays over the months, the weeks and the hours of the day.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Json;
use charts::numbers::thousands;
use charts::series::Chart;
use events::{DELAYS_BY_HOUR, DELAYS_BY_WEEK, FLIGHTS_BY_MONTH};
use maud::{Markup, html};
use serde_json::{Value, json};
use store::Query;

use crate::app::App;
use crate::explore::airlines::{PUNCTUALITY_HEADS, nothing_published, punctuality_cells};
use crate::explore::entities::{Period, Punctuality, find};
use crate::layout::page::{Failure, Head, minutes, page, table};

/// Months, weeks or hours at most: a century of months, twenty years of weeks.
const PERIODS_MAX: u32 = 1_200;

async fn periods(app: &App, collection: &str) -> anyhow::Result<Vec<Period>> {
    let all = Query { limit: PERIODS_MAX, ..Query::default() };
    find(&app.store, collection, &all).await
}

/// GET `/total_flights`.
pub(crate) async fn total_flights(State(app): State<Arc<App>>) -> Result<Markup, Failure> {
    let months = periods(&app, FLIGHTS_BY_MONTH).await?;
    let content = html! {
        @if months.is_empty() { (nothing_published()) }
        @else {
            (period_table("Flights by month", "Month", &months))
            p { a.button href="/total_flights_chart" { "As a chart" } }
        }
    };
    Ok(page(
        "Flights by month",
        html! { "How many flights there were, and how punctual." },
        content,
    ))
}

/// GET `/total_flights_chart`.
pub(crate) async fn total_flights_chart(State(app): State<Arc<App>>) -> Result<Markup, Failure> {
    let months = periods(&app, FLIGHTS_BY_MONTH).await?;
    let chart = Chart {
        title: "Flights by month",
        description: "How many flights were scheduled in each month.",
        x_title: "month",
        y_title: "flights",
        names: months.iter().map(|month| month.name.clone()).collect(),
        series: vec![("Flights", months.iter().map(|m| m.punctuality.flights as f64).collect())],
        value: |flights| thousands(flights as u64),
    };
    let content = html! {
        @if months.is_empty() { (nothing_published()) } @else { (chart.bars()?) }
    };
    Ok(page(
        "Flights by month",
        html! { "The same as " a href="/total_flights" { "a table" } "." },
        content,
    ))
}

/// GET `/total_flights.json`.
pub(crate) async fn total_flights_json(
    State(app): State<Arc<App>>,
) -> Result<Json<Value>, Failure> {
    let months = periods(&app, FLIGHTS_BY_MONTH).await?;
    let month = |month: &Period| {
        let (year, number) = month.name.split_once('-').unwrap_or((&month.name, ""));
        let number_of = |text: &str| text.parse::<i32>().ok();
        json!({
            "Year": number_of(year),
            "Month": number_of(number),
            "total_flights": month.punctuality.flights,
        })
    };
    Ok(Json(months.iter().map(month).collect()))
}

/// GET `/delays`: by week and by hour.
pub(crate) async fn delays(State(app): State<Arc<App>>) -> Result<Markup, Failure> {
    let (weeks, hours) =
        tokio::try_join!(periods(&app, DELAYS_BY_WEEK), periods(&app, DELAYS_BY_HOUR))?;
    let by_week = delay_chart(
        "Delays by week",
        "Mean delay at departure and at arrival in each week, named by its Monday.",
        "week",
        &weeks,
    );
    let by_hour = delay_chart(
        "Delays by hour of departure",
        "Mean delay at departure and at arrival by the hour at which flights should leave: delays \
         add up over the day.",
        "hour of scheduled departure",
        &hours,
    );
    let content = html! {
        @if weeks.is_empty() { (nothing_published()) }
        @else {
            div.columns { (by_week.lines()?) (by_hour.lines()?) }
            (period_table("Delays by hour of scheduled departure", "Hour", &hours))
            (period_table("Delays by week", "Week from", &weeks))
        }
    };
    Ok(page("Delays", html! { "When flights are late: over the year, and over the day." }, content))
}

fn delay_chart<'a>(
    title: &'a str,
    description: &'a str,
    x_title: &'a str,
    periods: &[Period],
) -> Chart<'a> {
    // a period in which nothing flew has no point
    let known = |period: &&Period| {
        let of = &period.punctuality;
        of.mean_dep_delay.is_some() && of.mean_arr_delay.is_some()
    };
    let periods: Vec<&Period> = periods.iter().filter(known).collect();
    let delays = |of: fn(&Punctuality) -> Option<f64>| -> Vec<f64> {
        periods.iter().filter_map(|period| of(&period.punctuality)).collect()
    };
    Chart {
        title,
        description,
        x_title,
        y_title: "mean delay, minutes",
        names: periods.iter().map(|period| period.name.clone()).collect(),
        series: vec![
            ("At departure", delays(|of| of.mean_dep_delay)),
            ("At arrival", delays(|of| of.mean_arr_delay)),
        ],
        value: |delay| minutes(Some(delay)),
    }
}

fn period_table(caption: &str, name: &str, periods: &[Period]) -> Markup {
    let heads = [&[Head::Text(name)], &PUNCTUALITY_HEADS[..]].concat();
    let rows = html! {
        @for period in periods {
            tr { th scope="row" { (period.name) } (punctuality_cells(&period.punctuality)) }
        }
    };
    table(caption, &heads, rows)
}
