//! Why an answer is what it is: what moved it away from the base rate, and how often flights like
//! it were late.

use anyhow::Result;
use charts::numbers::{percent, thousands};
use events::Prediction;
use events::{AIRLINES, CARRIER_ROUTES, Contribution, DELAYS_BY_HOUR, ON_TIME_PERFORMANCE, ROUTES};
use maud::{Markup, html};
use store::{Order, Query, Store};

use crate::explore::entities::{
    Airline, CarrierRoute, Flight, Period, Punctuality, Route, equal, find, get,
};

/// The classes in which a flight arrives late.
const LATE: std::ops::Range<usize> = 2..4;
/// Half the width of the drawing, in percent of it: as far as the longest bar goes.
const HALF: f64 = 50.0;

/// Flights like one that is asked about, from the widest to the narrowest, and how punctual they
/// were.
pub(crate) type SimilarFlights = Vec<(String, Punctuality)>;

/// Finds flights like this one: of its carrier, of its route, of both, and of the hour at which its
/// number usually leaves.
pub(crate) async fn similar(store: &Store, prediction: &Prediction) -> Result<SimilarFlights> {
    let Prediction { carrier, origin, dest, .. } = prediction;
    let route_id = format!("{origin}-{dest}");
    let carrier_route_id = format!("{carrier}-{route_id}");
    let (airline, route, carrier_route, hour) = tokio::try_join!(
        get::<Airline>(store, AIRLINES, carrier),
        get::<Route>(store, ROUTES, &route_id),
        get::<CarrierRoute>(store, CARRIER_ROUTES, &carrier_route_id),
        hour(store, prediction),
    )?;
    let airline = airline.map(|airline| (airline.name, airline.punctuality));
    let route = route.map(|route| (format!("{origin} → {dest}"), route.punctuality));
    let carrier_route =
        carrier_route.map(|route| (format!("{carrier}, {origin} → {dest}"), route.punctuality));
    let hour = hour.map(|hour| (format!("Leaving from {}:00", hour.name), hour.punctuality));
    Ok([airline, hour, route, carrier_route].into_iter().flatten().collect())
}

/// The hour at which the flight of this number last left on this route.
async fn hour(store: &Store, prediction: &Prediction) -> Result<Option<Period>> {
    let Some(number) = &prediction.flight_num else { return Ok(None) };
    let same = [
        ("Carrier", &*prediction.carrier),
        ("FlightNum", number),
        ("Origin", &prediction.origin),
        ("Dest", &prediction.dest),
    ];
    let latest = vec![("FlightDate".to_owned(), Order::Descending)];
    let latest = Query { sort: latest, ..equal(&same, 1) };
    let flight: Option<Flight> = find(store, ON_TIME_PERFORMANCE, &latest).await?.pop();
    let leaves = flight.and_then(|flight| flight.crs_dep_time);
    let Some((hour, _)) = leaves.as_deref().and_then(|clock| clock.split_once(':')) else {
        return Ok(None);
    };
    get(store, DELAYS_BY_HOUR, hour).await
}

/// How far each feature moved the chance of arriving late, the largest first.
pub(crate) fn contributions(prediction: &Prediction) -> Markup {
    let Some(base_rates) = &prediction.base_rates else { return html! {} };
    let late = |shares: &[f64]| shares[LATE].iter().sum::<f64>();
    let mut moved: Vec<(&Contribution, f64)> =
        prediction.contributions.iter().map(|c| (c, late(&c.changes))).collect();
    moved.sort_by(|(_, a), (_, b)| b.abs().total_cmp(&a.abs()));
    let longest = moved.iter().map(|(_, change)| change.abs()).fold(f64::MIN_POSITIVE, f64::max);
    html! {
        section.reasons {
            h3 { "What moved it" }
            p {
                "Of the flights that the model learnt from, " (percent(late(base_rates)))
                " arrived late. What is known of this one makes that "
                strong { (percent(late(&prediction.probabilities))) } ":"
            }
            ul.moves {
                @for (contribution, change) in &moved {
                    @let width = HALF * change.abs() / longest;
                    @let left = if *change < 0.0 { HALF - width } else { HALF };
                    li {
                        span.name { (feature(&contribution.feature, prediction)) }
                        span.change { (points(*change)) }
                        // widths are attributes of SVG: the pages allow no inline style
                        svg.move aria-hidden="true" focusable="false" {
                            rect.track width="100%" height="100%" {}
                            rect class=(if *change < 0.0 { "less" } else { "more" })
                                x=(format!("{left:.2}%")) width=(format!("{width:.2}%"))
                                height="100%" {}
                        }
                    }
                }
            }
        }
    }
}

/// A change of a probability, in percentage points.
fn points(change: f64) -> String {
    let sign = if change < 0.0 { "−" } else { "+" };
    format!("{sign}{:.1} points", 100.0 * change.abs())
}

/// A feature with the value that the flight has.
fn feature(name: &str, prediction: &Prediction) -> String {
    let p = prediction;
    match name {
        "dep_delay" => format!("Departure delay: {} min", p.dep_delay),
        "distance" => match p.distance {
            Some(miles) => format!("Distance: {miles:.0} miles"),
            None => "Distance: not known".into(),
        },
        "day_of_month" => format!("Day of the month: {}", p.day_of_month),
        "day_of_week" => format!("Day of the week: {}", p.flight_date.format("%A")),
        "day_of_year" => format!("Time of the year: {}", p.flight_date.format("%-d %B")),
        "carrier" => format!("Airline: {}", p.carrier),
        "origin" => format!("From: {}", p.origin),
        "dest" => format!("To: {}", p.dest),
        "route" => format!("Route: {} → {}", p.origin, p.dest),
        "crs_dep" => "Scheduled departure".into(),
        "crs_arr" => "Scheduled arrival".into(),
        other => other.to_owned(),
    }
}

/// How often flights like this one were late.
pub(crate) fn like_this(similar: &SimilarFlights) -> Markup {
    html! {
        @if !similar.is_empty() {
            section.reasons {
                h3 { "Flights like this" }
                div.table tabindex="0" role="region" aria-label="Flights like this" {
                    table {
                        thead { tr {
                            th scope="col" { "Which" }
                            th.number scope="col" { "Flights" }
                            th.number scope="col" { "On time" }
                            th.number scope="col" { "Very late" }
                        } }
                        tbody { @for (which, of) in similar { tr {
                            th scope="row" { (which) }
                            td.number { (thousands(of.flights)) }
                            td.number { (percent(of.on_time_share())) }
                            td.number { (percent(of.very_late_share())) }
                        } } }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::predict::card::tests::prediction;

    #[test]
    fn what_moved_an_answer_is_said_from_the_largest_on() {
        let mut asked = prediction(Uuid::nil());
        asked.base_rates = Some([0.25, 0.35, 0.25, 0.15]);
        let contribution =
            |feature: &str, changes| Contribution { feature: feature.into(), changes };
        asked.contributions = vec![
            contribution("carrier", [0.0, 0.05, -0.03, -0.02]),
            contribution("dep_delay", [-0.25, -0.35, -0.095, 0.695]),
            contribution("<b>", [0.0; 4]),
        ];
        let text = contributions(&asked).into_string();
        for want in ["40.0 %", "95.0 %", "Departure delay: 290 min", "+60.0 points", "−5.0 points"]
        {
            assert!(text.contains(want), "{want:?} is not in {text}");
        }
        let place = |what: &str| text.find(what).unwrap();
        assert!(
            place("Departure delay") < place("Airline: AA") && place("Airline") < place("&lt;b")
        );
        assert!(!text.contains("style="));
        asked.base_rates = None;
        assert!(contributions(&asked).into_string().is_empty(), "answers of before have none");
    }
}
