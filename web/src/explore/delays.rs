//! Flights and delays over the months, the weeks and the hours of the day.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Json;
use charts::numbers::thousands;
use charts::series::Chart;
use chrono::{Days, Months, NaiveDate};
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
    let by_time = without_gaps(&months, |month| {
        let first = NaiveDate::parse_from_str(&format!("{month}-01"), "%Y-%m-%d").ok()?;
        Some(first.checked_add_months(Months::new(1))?.format("%Y-%m").to_string())
    });
    let n_flights = |of: &Option<&Punctuality>| of.map_or(0, |of| of.flights) as f64;
    let chart = Chart {
        title: "Flights by month",
        description: "How many flights were scheduled in each month.",
        x_title: "month",
        y_title: "flights",
        series: vec![("Flights", by_time.iter().map(|(_, of)| n_flights(of)).collect())],
        names: by_time.into_iter().map(|(month, _)| month).collect(),
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
        &without_gaps(&weeks, |week| {
            let monday = NaiveDate::parse_from_str(week, "%Y-%m-%d").ok()?;
            Some(monday.checked_add_days(Days::new(7))?.to_string())
        }),
    );
    let by_hour = delay_chart(
        "Delays by hour of departure",
        "Mean delay at departure and at arrival by the hour at which flights should leave: delays \
         add up over the day.",
        "hour of scheduled departure",
        &without_gaps(&hours, |hour| Some(format!("{:02}", hour.parse::<u32>().ok()? + 1))),
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

/// The periods from the first to the last, one after the other by `next`, also those of which
/// nothing is known: an axis of time has them too.
fn without_gaps(
    periods: &[Period],
    next: impl Fn(&str) -> Option<String>,
) -> Vec<(String, Option<&Punctuality>)> {
    let known: BTreeMap<&str, &Punctuality> =
        periods.iter().map(|period| (period.name.as_str(), &period.punctuality)).collect();
    let (Some((first, _)), Some((last, _))) = (known.first_key_value(), known.last_key_value())
    else {
        return Vec::new();
    };
    let names = std::iter::successors(Some((*first).to_owned()), |name| next(name));
    let names = names.take_while(|name| name.as_str() <= *last).take(PERIODS_MAX as usize);
    names.map(|name| (name.clone(), known.get(name.as_str()).copied())).collect()
}

fn delay_chart<'a>(
    title: &'a str,
    description: &'a str,
    x_title: &'a str,
    periods: &[(String, Option<&Punctuality>)],
) -> Chart<'a> {
    // a period in which nothing flew has no point
    let delays = |delay: fn(&Punctuality) -> Option<f64>| -> Vec<f64> {
        periods.iter().map(|(_, of)| of.and_then(delay).unwrap_or(f64::NAN)).collect()
    };
    Chart {
        title,
        description,
        x_title,
        y_title: "mean delay, minutes",
        names: periods.iter().map(|(name, _)| name.clone()).collect(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_of_time_has_the_periods_that_are_not_known_too() {
        let period = |name: &str| -> Period {
            let punctuality = json!({
                "_id": name, "Flights": 1, "Cancelled": 0, "Arrived": 1, "OnTime": 1, "VeryLate": 0,
                "MeanDepDelay": 2.0,
            });
            serde_json::from_value(punctuality).unwrap()
        };
        let periods = ["05", "06", "09"].map(period);
        let hours =
            without_gaps(&periods, |hour| Some(format!("{:02}", hour.parse::<u32>().ok()? + 1)));
        let names: Vec<(&str, bool)> =
            hours.iter().map(|(name, of)| (name.as_str(), of.is_some())).collect();
        assert_eq!(names, [("05", true), ("06", true), ("07", false), ("08", false), ("09", true)]);
        let chart = delay_chart("t", "d", "x", &hours);
        assert!(chart.series[0].1[2].is_nan() && chart.series[1].1[0].is_nan());
        assert!(without_gaps(&[], |_| None).is_empty());
        // a name that cannot be read ends the axis, not the page
        assert_eq!(without_gaps(&["?", "x"].map(period), |_| None).len(), 1);
    }
}
