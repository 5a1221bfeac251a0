//! Why an answer is what it is: what moved it away from the base rate, and how often flights like
//! it were late.

use anyhow::Result;
use charts::numbers::{percent, thousands};
use events::{
    AIRLINES, CARRIER_ROUTES, DELAYS_BY_HOUR, MODEL_FEATURES, ModelFeatures, ON_TIME_PERFORMANCE,
    Prediction, ROUTES, late,
};
use maud::{Markup, html};
use store::{Order, Query, Store};

use crate::explore::entities::{
    Airline, CarrierRoute, Flight, Period, Punctuality, Route, equal, find, get,
};

/// Half the width of the drawing, in percent of it: as far as the longest bar goes.
const HALF: f64 = 50.0;

/// What the store knows beside an answer.
#[derive(Debug, Default)]
pub(crate) struct Explanation {
    /// Why it is what it is, where that is known.
    pub reasons: Option<Reasons>,
    /// Flights like the one that is asked about.
    pub similar: SimilarFlights,
}

/// What moved an answer away from the base rate.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reasons {
    /// Share of flights that arrived late, of those that the model was trained on.
    base_rate: f64,
    /// What each feature added to that; what adds nothing is left out.
    moves: Vec<(String, f64)>,
}

/// Flights like one that is asked about, from the widest to the narrowest, and how punctual they
/// were.
type SimilarFlights = Vec<(String, Punctuality)>;

/// Finds what the store knows beside an answer.
pub(crate) async fn explain(store: &Store, prediction: &Prediction) -> Result<Explanation> {
    let model = get::<ModelFeatures>(store, MODEL_FEATURES, &prediction.model_version);
    let (model, similar) = tokio::join!(model, similar(store, prediction));
    let model = model.unwrap_or_else(|error| {
        tracing::error!("cannot read the features of a model: {error:#}");
        None
    });
    let similar = similar?;
    Ok(Explanation { reasons: Reasons::of(prediction, model.as_ref()), similar })
}

impl Reasons {
    /// Of an answer by this model; answers of before say all by themselves.
    pub(crate) fn of(prediction: &Prediction, model: Option<&ModelFeatures>) -> Option<Self> {
        let Prediction { late_contributions, base_rates, contributions, .. } = prediction;
        let (base_rate, mut moves): (_, Vec<(String, f64)>) = match (base_rates, model) {
            (Some(base_rates), _) => {
                let moves = contributions.iter().map(|c| (c.feature.clone(), late(&c.changes)));
                (late(base_rates), moves.collect())
            }
            (None, Some(model)) if model.features.len() == late_contributions.len() => {
                let changes = late_contributions.iter().map(|change| f64::from(*change) / 1e4);
                (late(&model.base_rates), model.features.iter().cloned().zip(changes).collect())
            }
            (None, _) => return None,
        };
        moves.retain(|(_, change)| *change != 0.0);
        moves.sort_by(|(_, a), (_, b)| b.abs().total_cmp(&a.abs()));
        Some(Self { base_rate, moves })
    }
}

/// Finds flights like this one: of its carrier, of its route, of both, and of the hour at which its
/// number usually leaves.
async fn similar(store: &Store, prediction: &Prediction) -> Result<SimilarFlights> {
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
pub(crate) fn contributions(prediction: &Prediction, reasons: &Reasons) -> Markup {
    let Reasons { base_rate, moves } = reasons;
    let longest = moves.iter().map(|(_, change)| change.abs()).fold(f64::MIN_POSITIVE, f64::max);
    html! {
        section.reasons {
            h3 { "What moved it" }
            p {
                "Of the flights that the model learnt from, " (percent(*base_rate))
                " arrived late. What is known of this one makes that "
                strong { (percent(late(&prediction.probabilities))) } ":"
            }
            ul.moves {
                @for (name, change) in moves {
                    @let width = HALF * change.abs() / longest;
                    @let left = if *change < 0.0 { HALF - width } else { HALF };
                    li {
                        span.name { (feature(name, prediction)) }
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
pub(crate) fn like_this(similar: &[(String, Punctuality)]) -> Markup {
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
    use events::Contribution;
    use uuid::Uuid;

    use super::*;
    use crate::predict::card::tests::prediction;

    const FEATURES: [&str; 3] = ["carrier", "dep_delay", "<b>"];

    fn model() -> ModelFeatures {
        ModelFeatures {
            version: "ab".into(),
            features: FEATURES.map(str::to_owned).to_vec(),
            base_rates: [0.25, 0.35, 0.25, 0.15],
        }
    }

    #[test]
    fn what_moved_an_answer_is_said_from_the_largest_on() {
        let mut asked = prediction(Uuid::nil());
        asked.late_contributions = vec![-500, 6_000, 1];
        let reasons = Reasons::of(&asked, Some(&model())).unwrap();
        let text = contributions(&asked, &reasons).into_string();
        for want in ["40.0 %", "95.0 %", "Departure delay: 290 min", "+60.0 points", "−5.0 points"]
        {
            assert!(text.contains(want), "{want:?} is not in {text}");
        }
        let place = |what: &str| text.find(what).unwrap();
        assert!(
            place("Departure delay") < place("Airline: AA") && place("Airline") < place("&lt;b")
        );
        assert!(!text.contains("style="));
    }

    #[test]
    fn reasons_are_of_the_model_that_answered_or_none() {
        let mut asked = prediction(Uuid::nil());
        asked.late_contributions = vec![-500, 6_000];
        assert_eq!(Reasons::of(&asked, Some(&model())), None, "of another model");
        asked.late_contributions.push(0);
        assert_eq!(Reasons::of(&asked, None), None, "nobody knows the model");
        let found = Reasons::of(&asked, Some(&model())).unwrap();
        let moves = vec![("dep_delay".to_owned(), 0.6), ("carrier".to_owned(), -0.05)];
        assert_eq!(found, Reasons { base_rate: 0.4, moves });
    }

    #[test]
    fn an_answer_of_before_says_its_reasons_itself() {
        let mut asked = prediction(Uuid::nil());
        asked.late_contributions = Vec::new();
        asked.base_rates = Some([0.25, 0.35, 0.25, 0.15]);
        let contribution =
            |feature: &str, changes| Contribution { feature: feature.into(), changes };
        asked.contributions = vec![
            contribution("carrier", [0.0, 0.125, -0.25, 0.125]),
            contribution("dep_delay", [-0.25, -0.25, -0.25, 0.75]),
        ];
        let moves = vec![("dep_delay".to_owned(), 0.5), ("carrier".to_owned(), -0.125)];
        let want = Some(Reasons { base_rate: 0.4, moves });
        assert_eq!(Reasons::of(&asked, None), want);
        assert_eq!(Reasons::of(&asked, Some(&model())), want);
    }
}
