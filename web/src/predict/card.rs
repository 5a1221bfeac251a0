//! The cards beside the form: nothing asked yet, waiting, too late, scored, rejected. This is the
//! only rendering of an answer; the script puts the same HTML into the page.

use chrono::DateTime;
use events::{Answer, DelayClass, Prediction, Refusal};
use maud::{Markup, html};

use crate::layout::page;
use crate::paths;
use crate::predict::explanation::{self, Explanation};
use crate::predict::form::FormInput;

/// Before anything is asked: what an answer will be.
pub(crate) fn invitation() -> Markup {
    html! {
        article.card.quiet data-card="invitation" {
            h2 { "The answer appears here" }
            p { "One of four classes of arrival delay, with the probability of each:" }
            ul.legend {
                @for class in DelayClass::ALL {
                    li class={ "c" (class.index()) } {
                        span.name { (class.name()) } " " span.minutes { (class.minutes()) }
                    }
                }
            }
        }
    }
}

/// Before anything is asked that can wait.
pub(crate) fn tomorrow() -> Markup {
    html! {
        article.card.quiet data-card="tomorrow" {
            h2 { "The answer comes overnight" }
            p { "The page of the day shows what was asked, and the answers when they are there." }
        }
    }
}

/// While the answer is not there, and whether it is known that the question was asked.
pub(crate) fn waiting(is_known: bool) -> Markup {
    html! {
        article.card.quiet data-card="waiting" {
            h2 { span.spinner aria-hidden="true" {} "Waiting for the answer" }
            p {
                @if is_known {
                    "Kafka has your question. Questions are scored together, every few seconds; \
                     the answer appears here by itself."
                } @else {
                    "There is no answer to this question yet. If it was asked, the answer appears \
                     here by itself; if the address was mistyped, none will come."
                }
            }
        }
    }
}

/// When nothing came for so long that somebody should know.
pub(crate) fn late() -> Markup {
    html! {
        article.card.trouble data-card="late" {
            h2 { "No answer yet" }
            p {
                "Nothing came back for five minutes; the scoring job may not be running. Your \
                 question is kept: come back to this address later, or reload the page."
            }
        }
    }
}

/// What became of the request.
pub(crate) fn answer(answer: &Answer, explanation: &Explanation) -> Markup {
    match answer {
        Answer::Ok(prediction) => scored(prediction, explanation),
        Answer::Rejected(refusal) => {
            let advice = "Please correct it and ask again.";
            refused(refusal, "This question could not be scored", advice)
        }
        Answer::Expired(refusal) => {
            refused(refusal, "This question came too late", "Please ask again.")
        }
    }
}

fn refused(refusal: &Refusal, title: &str, advice: &str) -> Markup {
    html! {
        article.card.trouble data-card="rejected" {
            h2 { (title) }
            p.reason { (refusal.reason) }
            p { (advice) }
        }
    }
}

fn scored(prediction: &Prediction, explanation: &Explanation) -> Markup {
    let class = prediction.prediction;
    html! {
        article class={ "card result c" (class.index()) } data-card="result" {
            p.flight { (flight(prediction)) }
            h2.label { (class.name()) }
            p.minutes { (class.minutes()) }
            (bars(prediction))
            @if !prediction.unseen.is_empty() {
                ul.notes aria-label="Notes" {
                    @for field in &prediction.unseen { li { (unseen(field, prediction)) } }
                }
            }
            @if let Some(reasons) = &explanation.reasons {
                (explanation::contributions(prediction, reasons))
            }
            (explanation::like_this(&explanation.similar))
            (what_if(prediction))
            (facts(prediction))
        }
    }
}

/// The same request with another delay.
fn what_if(prediction: &Prediction) -> Markup {
    let typed = FormInput::of(prediction);
    html! {
        form.what-if data-ask method="post" action=(paths::ASK) {
            @for field in ["Carrier", "FlightDate", "Origin", "Dest", "FlightNum"] {
                input type="hidden" name=(field) value=(typed.get(field));
            }
            label for="what-if" { "What if it left with another delay, in minutes?" }
            div.ask {
                input #what-if name="DepDelay" inputmode="numeric" autocomplete="off"
                    value=(typed.get("DepDelay"));
                button type="submit" { "Ask again" }
            }
        }
    }
}

/// One bar a class. Widths are attributes of SVG: the pages allow no inline style.
fn bars(prediction: &Prediction) -> Markup {
    html! {
        ul.bars aria-label="Probability of each class" {
            @for class in DelayClass::ALL {
                @let percent = 100.0 * prediction.probabilities[class.index()];
                @let chosen = prediction.prediction == class;
                li class={ "c" (class.index()) @if chosen { " chosen" } } {
                    span.name { (class.name()) }
                    span.percent { (format!("{percent:.1} %")) }
                    svg.bar aria-hidden="true" focusable="false" {
                        rect.track width="100%" height="100%" {}
                        rect.fill width=(format!("{:.2}%", percent.clamp(0.0, 100.0)))
                            height="100%" {}
                    }
                    span.minutes { (class.minutes()) }
                }
            }
        }
    }
}

fn facts(prediction: &Prediction) -> Markup {
    html! {
        dl.facts {
            div { dt { "Departure" } dd { (delay(prediction.dep_delay)) } }
            @if let Some(miles) = prediction.distance {
                div { dt { "Distance" } dd { (format!("{miles:.0} miles")) } }
            }
            @if let Some(seconds) = seconds_taken(prediction) {
                div { dt { "Answered in" } dd { (format!("{seconds:.1} s")) } }
            }
            div {
                dt { "Model" }
                dd { (page::version(&prediction.model_version)) }
            }
        }
    }
}

fn flight(prediction: &Prediction) -> Markup {
    html! {
        strong {
            (page::airline(&prediction.carrier)) " "
            (prediction.flight_num.as_deref().unwrap_or(""))
        }
        " " span.route {
            (page::airport(&prediction.origin)) " → " (page::airport(&prediction.dest))
        } " "
        time datetime=(prediction.flight_date) { (prediction.flight_date.format("%a %-d %b %Y")) }
    }
}

fn delay(minutes: f64) -> String {
    let unit = if minutes.abs() == 1.0 { "minute" } else { "minutes" };
    match minutes {
        m if m > 0.0 => format!("{m} {unit} late"),
        m if m < 0.0 => format!("{} {unit} early", -m),
        _ => "on time".into(),
    }
}

/// From the request to the answer; none when a clock is missing or went backwards.
fn seconds_taken(prediction: &Prediction) -> Option<f64> {
    let asked = DateTime::parse_from_rfc3339(prediction.timestamp.as_deref()?).ok()?;
    let answered = DateTime::parse_from_rfc3339(&prediction.answered_at).ok()?;
    let taken = (answered - asked).to_std().ok()?;
    Some(taken.as_secs_f64())
}

fn unseen(field: &str, prediction: &Prediction) -> String {
    let p = prediction;
    let what = match field {
        "Carrier" => format!("{} is not a carrier the model has seen", p.carrier),
        "Origin" => format!("{} is not an airport the model has seen as origin", p.origin),
        "Dest" => format!("{} is not an airport the model has seen as destination", p.dest),
        "Route" => format!("{} is not a route the model has seen", p.route),
        "Distance" if p.distance.is_none() => format!("How far {} is is not known", p.route),
        _ => format!("{field} has a value the model has not seen"),
    };
    format!("{what}; the answer rests on what else is known about the flight.")
}

#[cfg(test)]
pub(crate) mod tests {
    use events::{ModelFeatures, N_CLASSES};
    use uuid::Uuid;

    use super::*;
    use crate::predict::explanation::Reasons;

    /// A scored request for the tests of this crate.
    pub(crate) fn prediction(id: Uuid) -> Prediction {
        Prediction {
            uuid: id,
            origin: "ATL".into(),
            dest: "SFO".into(),
            route: "ATL-SFO".into(),
            carrier: "AA".into(),
            flight_num: Some("1024".into()),
            flight_date: "2016-12-25".parse().unwrap(),
            day_of_week: 7,
            day_of_year: 360,
            day_of_month: 25,
            dep_delay: 290.0,
            distance: Some(2139.0),
            timestamp: Some("2016-12-20T10:00:00.000Z".into()),
            answered_at: "2016-12-20T10:00:02.500Z".into(),
            prediction: DelayClass::VeryLate,
            probabilities: [0.0, 0.05, 0.125, 0.825],
            late_contributions: vec![4_500],
            base_rates: None,
            contributions: vec![],
            unseen: vec![],
            model_version: "0123456789abcdef".repeat(4),
        }
    }

    fn render(prediction: Prediction) -> String {
        let (version, base_rates) = (prediction.model_version.clone(), [0.25; N_CLASSES]);
        let model = ModelFeatures { version, features: vec!["dep_delay".into()], base_rates };
        let reasons = Reasons::of(&prediction, Some(&model));
        let explanation = Explanation { reasons, ..Explanation::default() };
        answer(&Answer::Ok(Box::new(prediction)), &explanation).into_string()
    }

    #[test]
    fn a_result_shows_the_label_four_bars_the_model_and_the_time_it_took() {
        let card = render(prediction(Uuid::nil()));
        for want in [
            "<h2 class=\"label\">Very late</h2>",
            "30+ minutes late",
            "82.5 %",
            "width=\"12.50%\"",
            ">0123456789ab</code>",
            "290 minutes late",
            "2139 miles",
            "2.5 s",
            ">AA</a> 1024",
            "name=\"DepDelay\"",
            "Departure delay: 290 min",
            "Sun 25 Dec 2016",
        ] {
            assert!(card.contains(want), "{want:?} is not in {card}");
        }
        assert_eq!(card.matches("class=\"bar\"").count(), 4);
        assert!(!card.contains("class=\"notes\""));
        assert!(!card.contains("style="));
    }

    #[test]
    fn what_the_model_has_not_seen_is_said() {
        let mut unknown = prediction(Uuid::nil());
        unknown.origin = "ZZZ".into();
        unknown.unseen = ["Origin", "Route", "Season"].map(String::from).to_vec();
        let card = render(unknown);
        assert!(card.contains("ZZZ is not an airport the model has seen"));
        assert!(card.contains("ATL-SFO is not a route"));
        assert!(card.contains("Season has a value"));
    }

    #[test]
    fn a_card_holds_no_markup_of_others_and_no_time_that_cannot_be() {
        let mut hostile = prediction(Uuid::nil());
        hostile.origin = "<script>alert(1)</script>".into();
        hostile.model_version = "\"><img src=x>é".into();
        hostile.timestamp = Some("2026-01-01T00:00:00.000Z".into());
        let card = render(hostile);
        assert!(!card.contains("<script") && !card.contains("<img"), "{card}");
        assert!(!card.contains("Answered in"));
    }

    #[test]
    fn a_rejection_says_why() {
        let refusal = Refusal { uuid: Uuid::nil(), reason: "Origin: must be <b>".into() };
        let card = answer(&Answer::Rejected(refusal), &Explanation::default()).into_string();
        assert!(card.contains("Origin: must be &lt;b&gt;"));
    }

    #[test]
    fn a_delay_is_said_in_words() {
        for (minutes, want) in
            [(15.0, "15 minutes late"), (-1.0, "1 minute early"), (0.0, "on time")]
        {
            assert_eq!(delay(minutes), want);
        }
    }
}
