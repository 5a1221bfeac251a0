//! The model: how the champion was evaluated, what it looks at, the versions there are, and how the
//! streams that score with it are doing.

use std::sync::Arc;

use axum::extract::State;
use charts::numbers::{counted, percent, thousands};
use charts::series::Chart;
use chrono::{DateTime, TimeDelta, Utc};
use events::{
    CalibrationBin, DelayClass, LIVE_EVALUATIONS, LiveEvaluation, MODELS, ModelCard, STREAM_STATUS,
    StreamStatus,
};
use maud::{Markup, html};
use store::{Order, Query};

use crate::app::App;
use crate::explore::entities::find;
use crate::layout::page::Head::{Number, Text};
use crate::layout::page::{self, Failure, facts, page, table};

/// Models and streams that are shown.
const SHOWN_MAX: u32 = 100;
/// Days of answers and what became of them that are shown.
const OUTCOMES_MAX: u32 = 30;
/// Age from which a status is of a job that has ended, in seconds: a few of its periods.
const STATUS_SECONDS_MAX: i64 = 30;
/// Population stability index from which flights are others than those of the training.
const DRIFT_LARGE: f64 = 0.25;
/// Answers from which shares of values say something: a handful always differ from the training.
const DRIFT_ANSWERS_MIN: u64 = 500;

/// GET `/model`.
pub(crate) async fn model(State(app): State<Arc<App>>) -> Result<Markup, Failure> {
    let by_rank = vec![("Rank".to_owned(), Order::Ascending)];
    let models = Query { sort: by_rank, limit: SHOWN_MAX, ..Query::default() };
    let streams = Query { limit: SHOWN_MAX, ..Query::default() };
    let by_day = vec![("Day".to_owned(), Order::Descending)];
    let outcomes = Query { sort: by_day, limit: OUTCOMES_MAX, ..Query::default() };
    let (models, streams, outcomes) = tokio::try_join!(
        find::<ModelCard>(&app.store, MODELS, &models),
        find::<StreamStatus>(&app.store, STREAM_STATUS, &streams),
        find::<LiveEvaluation>(&app.store, LIVE_EVALUATIONS, &outcomes),
    )?;
    let champion = models.first().filter(|model| model.role == "champion");
    let intro = html! { "A random forest, and how far it is to be trusted." };
    let content = html! {
        @match champion {
            Some(champion) => (evaluated(champion)?),
            None => article.card.quiet {
                h2 { "No model is known here" }
                p { code { "submit-job train" } " makes one, " code { "submit-job publish" }
                    " shows it." }
            },
        }
        (live(&streams, (app.now)()))
        @if !outcomes.is_empty() { (turned_out(&outcomes)) }
        @if !models.is_empty() { (versions(&models)) }
    };
    Ok(page("The model", intro, content))
}

fn evaluated(model: &ModelCard) -> anyhow::Result<Markup> {
    let importances = Chart {
        title: "What it looks at",
        description: "Share of the decrease of impurity that each feature brought.",
        x_title: "feature",
        y_title: "share",
        names: model.importances.iter().map(|importance| importance.feature.clone()).collect(),
        series: vec![("Share", model.importances.iter().map(|i| i.share).collect())],
        value: percent,
    };
    let bins: Vec<&CalibrationBin> =
        model.calibration.iter().filter(|bin| bin.flights > 0).collect();
    let calibration = Chart {
        title: "How sure, and how often right",
        description: "Flights by how sure the model was. Where the two lines are together, it is \
                      right as often as it says.",
        x_title: "confidence",
        y_title: "share",
        names: bins.iter().map(|t| format!("{:.0} %", 100.0 * t.mean_confidence)).collect(),
        series: vec![
            ("Confidence", bins.iter().map(|t| t.mean_confidence).collect()),
            ("Right", bins.iter().map(|t| t.right as f64 / t.flights as f64).collect()),
        ],
        value: percent,
    };
    let measure = |value: f64| html! { (format!("{value:.4}")) };
    let calibration_error = model.calibration_error.map_or_else(|| html! { "not known" }, measure);
    Ok(html! {
        article.card {
            h2 { "Champion " (page::version(&model.version)) }
            p {
                (counted(model.trees, "tree")) " of depth " (model.depth) ", trained on "
                (counted(model.training_rows, "flight")) " and evaluated on "
                (thousands(model.holdout_rows)) " that it had not seen" (days(&model.held_out_by))
                "."
            }
            @if !model.decision.is_empty() { p { "It is " (model.decision) "." } }
            (facts(&[
                ("Accuracy", measure(model.accuracy)),
                ("Precision", measure(model.precision)),
                ("Recall", measure(model.recall)),
                ("F1", measure(model.f1)),
                ("Log loss", measure(model.log_loss)),
                ("Calibration error", calibration_error),
            ]))
        }
        div.columns {
            (importances.rows()?)
            @if !bins.is_empty() { (calibration.lines()?) }
        }
        @if !model.compared.is_empty() { (compared(model)) }
        @if model.confusion.iter().flatten().any(|n| *n > 0) {
            (classes(model))
            (confusion(model))
        }
    })
}

/// How flights were held out, for people; nothing where it was by chance, or is not known.
fn days(held_out_by: &str) -> String {
    match held_out_by.split_once(':') {
        _ if held_out_by.contains([',', '&']) => format!(" ({held_out_by})"),
        Some(("day", n)) => format!(", one day in {n}"),
        Some(("since", day)) => format!(", from {day} on"),
        _ => String::new(),
    }
}

/// The model beside what it must beat, and the champion before it.
fn compared(model: &ModelCard) -> Markup {
    let heads = [
        Text("On flights that were held out"),
        Number("Flights"),
        Number("Accuracy"),
        Number("Log loss"),
        Number("Calibration error"),
    ];
    let rows = html! {
        @for one in &model.compared {
            tr {
                th scope="row" { (one.name) }
                td.number { (thousands(one.flights)) }
                td.number { (percent(one.accuracy)) }
                td.number { (format!("{:.4}", one.log_loss)) }
                td.number { (one.calibration_error.map_or("–".into(), |e| format!("{e:.4}"))) }
            }
        }
    };
    table("Beside what it must beat", &heads, rows)
}

/// How often each class is right when it is said, and said when it is right.
fn classes(model: &ModelCard) -> Markup {
    let heads = [Text("Class"), Number("Flights"), Number("Precision"), Number("Recall")];
    let share = |part: u64, whole: u64| match whole {
        0 => "–".to_owned(),
        _ => percent(part as f64 / whole as f64),
    };
    let rows = html! {
        @for (i, class) in DelayClass::ALL.iter().enumerate() {
            @let right = model.confusion[i][i];
            @let of_class: u64 = model.confusion[i].iter().sum();
            @let said: u64 = model.confusion.iter().map(|row| row[i]).sum();
            tr {
                th scope="row" { (class.name()) }
                td.number { (thousands(of_class)) }
                td.number { (share(right, said)) }
                td.number { (share(right, of_class)) }
            }
        }
    };
    table("By class", &heads, rows)
}

/// Each row is a true class; a cell has the share of its row.
fn confusion(model: &ModelCard) -> Markup {
    let heads: Vec<_> = std::iter::once(Text("It was"))
        .chain(DelayClass::ALL.iter().map(|class| Number(class.name())))
        .chain([Number("Flights")])
        .collect();
    let rows = html! {
        @for (row, class) in model.confusion.iter().zip(DelayClass::ALL) {
            @let of_class: u64 = row.iter().sum();
            tr {
                th scope="row" { (class.name()) }
                @for n in row { td.number { (percent(*n as f64 / of_class as f64)) } }
                td.number { (thousands(of_class)) }
            }
        }
    };
    table("What it was, and what the model said", &heads, rows)
}

/// How the streams that are running are doing.
fn live(streams: &[StreamStatus], now: DateTime<Utc>) -> Markup {
    let is_alive = |status: &&StreamStatus| {
        let at = DateTime::parse_from_rfc3339(&status.at);
        at.is_ok_and(|at| now.signed_duration_since(at) < TimeDelta::seconds(STATUS_SECONDS_MAX))
    };
    let alive: Vec<&StreamStatus> = streams.iter().filter(is_alive).collect();
    let heads = [
        Text("Stream"),
        Number("Answered a second"),
        Number("Waiting"),
        Number("Answered"),
        Text("Model"),
        Text("Drift"),
    ];
    let rows = html! {
        @for status in &alive {
            tr {
                th scope="row" { (status.id) }
                td.number { (format!("{:.1}", status.messages_per_second)) }
                td.number { (thousands(status.lag)) }
                td.number { (thousands(status.messages)) }
                td { (page::version(&status.model)) }
                td { (drift(status)) }
            }
        }
    };
    html! {
        @if alive.is_empty() {
            article.card.quiet {
                h2 { "No stream is running" }
                p { "Questions wait in Kafka until " code { "submit-job stream" } " answers them." }
            }
        } @else {
            (table("Streams that answer now", &heads, rows))
        }
    }
}

/// The feature that has changed most since the training.
fn drift(status: &StreamStatus) -> String {
    if status.drift_rows < DRIFT_ANSWERS_MIN {
        return "too few answers".into();
    }
    let most = status.drift.iter().max_by(|(_, a), (_, b)| a.total_cmp(b));
    match most {
        None => "not known".into(),
        Some((feature, psi)) if *psi >= DRIFT_LARGE => format!("{feature} has changed ({psi:.2})"),
        Some((feature, psi)) => format!("none; most in {feature} ({psi:.2})"),
    }
}

/// How answers turned out, by day and model.
fn turned_out(outcomes: &[LiveEvaluation]) -> Markup {
    let heads = [
        Text("Flights of"),
        Text("Model"),
        Number("Answers"),
        Number("Landed"),
        Number("Right"),
        Number("Log loss"),
        Number("Calibration error"),
        Text("Not counted"),
    ];
    let measure = |value: Option<f64>, show: fn(f64) -> String| value.map_or("–".into(), show);
    let exact = |value: f64| format!("{value:.4}");
    let rows = html! {
        @for of in outcomes {
            tr {
                th scope="row" { (of.day) }
                td { (page::version(&of.model)) }
                td.number { (thousands(of.answers)) }
                td.number { (thousands(of.known)) }
                td.number { (measure(of.accuracy, percent)) }
                td.number { (measure(of.log_loss, exact)) }
                td.number { (measure(of.calibration_error, exact)) }
                td { (not_counted(of)) }
            }
        }
    };
    table("What was answered, and how it turned out", &heads, rows)
}

/// Why answers are not counted, for people.
fn not_counted(of: &LiveEvaluation) -> String {
    let kinds = [
        (of.supposed, "asked for another departure"),
        (of.never_arrived, "cancelled or diverted"),
        (of.ambiguous, "of several flights"),
        (of.unmatched, "of flights that are not known"),
    ];
    let kinds = kinds.iter().filter(|(n, _)| *n > 0);
    let kinds = kinds.map(|(n, why)| format!("{} {why}", thousands(*n)));
    kinds.collect::<Vec<_>>().join(", ")
}

fn versions(models: &[ModelCard]) -> Markup {
    let heads = [
        Text("Model"),
        Text("Role"),
        Number("Trees"),
        Number("Depth"),
        Number("Flights"),
        Number("Accuracy"),
        Number("Log loss"),
    ];
    let rows = html! {
        @for model in models {
            tr {
                th scope="row" {
                    (page::version(&model.version))
                }
                td { (model.role) }
                td.number { (model.trees) }
                td.number { (model.depth) }
                td.number { (thousands(model.training_rows)) }
                td.number { (format!("{:.4}", model.accuracy)) }
                td.number { (format!("{:.4}", model.log_loss)) }
            }
        }
    };
    table("Versions, as they were when last published", &heads, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_says_how_answers_turned_out_and_why_some_do_not_count() {
        let day = LiveEvaluation {
            id: "2013-12-20/0123456789abcdef".into(),
            day: chrono::NaiveDate::from_ymd_opt(2013, 12, 20).unwrap(),
            model: "0123456789abcdef".into(),
            answers: 1_240,
            known: 1_200,
            supposed: 30,
            never_arrived: 9,
            ambiguous: 0,
            unmatched: 1,
            accuracy: Some(0.625),
            log_loss: Some(0.9375),
            calibration_error: Some(0.03125),
        };
        let shown = turned_out(std::slice::from_ref(&day)).into_string();
        let why = "30 asked for another departure, 9 cancelled or diverted, \
                   1 of flights that are not known";
        for want in ["2013-12-20", "1,240", "1,200", "62.5", "0.9375", "0.0312", why] {
            assert!(shown.contains(want), "{want:?} is not in {shown}");
        }
        let none = LiveEvaluation { known: 0, accuracy: None, log_loss: None, ..day };
        let shown = turned_out(&[none]).into_string();
        assert!(shown.contains("–") && !shown.contains("0.9375"), "{shown}");
    }

    #[test]
    fn a_stream_that_told_nothing_for_long_is_not_running() {
        let status = StreamStatus {
            id: "tarmac-stream/0".into(),
            at: "2026-01-01T00:00:00.000Z".into(),
            model: "0123456789abcdef".into(),
            messages: 12_345,
            messages_per_second: 7.25,
            lag: 3,
            drift: [("dep_delay".to_owned(), 0.5), ("carrier".to_owned(), 0.01)].into(),
            drift_rows: 12_345,
        };
        let at = |text: &str| DateTime::parse_from_rfc3339(text).unwrap().to_utc();
        let shown = live(std::slice::from_ref(&status), at("2026-01-01T00:00:06Z")).into_string();
        for want in ["tarmac-stream/0", "7.2", "12,345", "dep_delay has changed (0.50)"] {
            assert!(shown.contains(want), "{want:?} is not in {shown}");
        }
        let few = StreamStatus { drift_rows: 3, ..status.clone() };
        let shown = live(&[few], at("2026-01-01T00:00:06Z")).into_string();
        assert!(shown.contains("too few answers") && !shown.contains("0.50"), "{shown}");
        let shown = live(&[status], at("2026-01-01T00:01:00Z")).into_string();
        assert!(shown.contains("No stream is running"), "{shown}");
    }
}
