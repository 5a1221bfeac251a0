//! Requests that can wait: left in the store by day, answered overnight by `submit-job predict`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{self, Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Json, Redirect, Response};
use charts::numbers::counted;
use chrono::{DateTime, NaiveDate, Timelike, Utc};
use events::{
    Answer, PREDICTION_RESULTS, PREDICTION_TASKS, PredictionRequest, parse_uuid, task_id, task_ids,
};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::json;
use store::Query;

use crate::app::App;
use crate::http::clients::Client;
use crate::http::metrics::Failed;
use crate::http::responses::{Asker, refuse};
use crate::layout::page::Head::{Number, Text};
use crate::layout::page::{self, Failure, page, table};
use crate::paths;
use crate::predict::form::{self, Errors, FormInput};
use crate::predict::form_page::{Asked, View, form_page};
use crate::predict::requests::{invalid, question};

/// Requests of a day that are shown.
const SHOWN_MAX: u32 = 200;
/// Requests of a day that are taken: streams keep them for 90 days by default.
const TASKS_MAX: u32 = 20_000;

/// The request that somebody comes from.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Own {
    id: String,
}

/// GET `/flights/delays/predict_batch`.
pub(crate) async fn form(State(app): State<Arc<App>>) -> Markup {
    let typed = FormInput::example((app.now)().date_naive());
    let choices = &app.choices.read(&app.store).await;
    let errors = &Errors::new();
    form_page(&View { typed: &typed, errors, failure: "", choices, asked: Asked::Overnight })
}

/// POST `/flights/delays/predict/classify`.
pub(crate) async fn ask(
    State(app): State<Arc<App>>,
    Extension(client): Extension<Client>,
    request: Request,
) -> Response {
    let asker = Asker::of(request.headers());
    let typed = match question(request).await {
        Ok(typed) => typed,
        Err((status, reason)) => return refuse(asker, status, reason),
    };
    let now = (app.now)();
    let choices = app.choices.read(&app.store).await;
    let request = match form::parse(&typed, &choices, now, PredictionRequest::new_id(now)) {
        Ok(request) => request,
        Err(errors) => return invalid(&app, asker, &typed, &errors, Asked::Overnight).await,
    };
    let day = now.date_naive();
    if !app.night.take(client, day) {
        let reason = "you have asked as much as one may for a night; please ask tomorrow";
        return tomorrow(now, refuse(asker, StatusCode::TOO_MANY_REQUESTS, reason));
    }
    let left = leave(&app, &request, day).await;
    if !matches!(left, Ok(true)) {
        app.night.give_back(client);
    }
    match left {
        Ok(true) if asker == Asker::Person => {
            Redirect::to(&format!("{}?id={}", results_path(day), request.uuid)).into_response()
        }
        Ok(false) => {
            let reason = "no more questions are taken today; please ask tomorrow";
            tomorrow(now, refuse(asker, StatusCode::SERVICE_UNAVAILABLE, reason))
        }
        Ok(true) => Json(json!({ "status": "OK", "id": request.uuid })).into_response(),
        Err(error) => {
            tracing::error!(id = %request.uuid, "cannot keep the request: {error:#}");
            let reason = "the question could not be kept; please try again";
            let refusal = refuse(asker, StatusCode::SERVICE_UNAVAILABLE, reason);
            (Extension(Failed::Store), refusal).into_response()
        }
    }
}

/// A refusal that holds until midnight.
fn tomorrow(now: DateTime<Utc>, mut refusal: Response) -> Response {
    const SECONDS_OF_DAY: u32 = 24 * 60 * 60;
    let seconds = SECONDS_OF_DAY - now.num_seconds_from_midnight();
    refusal.headers_mut().insert(RETRY_AFTER, seconds.into());
    refusal
}

/// Keeps a request; whether there was room for it.
async fn leave(app: &App, request: &PredictionRequest, day: NaiveDate) -> anyhow::Result<bool> {
    let of_day = Query { limit: TASKS_MAX, ..of_day(day) };
    if app.store.count(PREDICTION_TASKS, &of_day).await? >= TASKS_MAX.into() {
        return Ok(false);
    }
    let mut task = serde_json::to_value(request)?;
    task["_id"] = task_id(day, request.uuid).into();
    app.store.write_once(PREDICTION_TASKS, &[task]).await?;
    Ok(true)
}

/// The requests of a day.
fn of_day(day: NaiveDate) -> Query {
    let (first, last) = task_ids(day);
    Query {
        between: vec![("_id".to_owned(), first.into(), last.into())],
        limit: SHOWN_MAX,
        ..Query::default()
    }
}

fn results_path(day: NaiveDate) -> String {
    format!("{}/results/{day}", paths::NIGHTLY_FORM)
}

/// GET `/flights/delays/predict_batch/results/{day}`: what was asked on a day, and the answers that
/// are there.
pub(crate) async fn results(
    State(app): State<Arc<App>>,
    Path(day): Path<String>,
    extract::Query(own): extract::Query<Own>,
) -> Result<Markup, Failure> {
    const NO_DAY: Failure = Failure::NotFound("The address ends with a day, as YEAR-MONTH-DAY.");
    let Ok(day) = NaiveDate::parse_from_str(&day, "%Y-%m-%d") else { return Err(NO_DAY) };
    let n_tasks = Query { limit: TASKS_MAX, ..of_day(day) };
    let n_tasks = app.store.count(PREDICTION_TASKS, &n_tasks).await?;
    let own: Vec<String> = parse_uuid(&own.id).map(|id| task_id(day, id)).into_iter().collect();
    let mut tasks = app.store.get_all(PREDICTION_TASKS, &own).await?;
    let others = app.store.find(PREDICTION_TASKS, &of_day(day)).await?;
    tasks.extend(others.into_iter().filter(|task| own.iter().all(|id| task["_id"] != id.as_str())));
    let id = |document: &serde_json::Value| document["_id"].as_str().unwrap_or_default().to_owned();
    let ids: Vec<String> = tasks.iter().map(id).collect();
    let answers = app.store.get_all(PREDICTION_RESULTS, &ids).await?;
    let answers: BTreeMap<String, Answer> = answers
        .into_iter()
        .filter_map(|document| Some((id(&document), serde_json::from_value(document).ok()?)))
        .collect();
    let asked = tasks.into_iter().filter_map(|task| {
        let id = id(&task);
        Some((id, serde_json::from_value(task).ok()?))
    });
    let rows = html! { @for (id, request) in asked { (row(&request, answers.get(&id))) } };
    let heads =
        [Text("Flight"), Text("Date"), Text("Route"), Number("Departure delay"), Text("Answer")];
    let intro = html! {
        (counted(n_tasks, "question")) " left on this day"
        @if n_tasks > ids.len() as u64 { ", of which these are some" } "; "
        code { "submit-job predict" } " answers them."
    };
    let content = html! {
        @if ids.is_empty() {
            p.card.quiet { "Nothing was asked on this day." }
        } @else {
            (table("Questions of the day", &heads, rows))
        }
        p { a.button href=(paths::NIGHTLY_FORM) { "Ask another" } }
    };
    Ok(page(&format!("Predictions of {day}"), intro, content))
}

fn row(request: &PredictionRequest, answer: Option<&Answer>) -> Markup {
    let number = request.flight_num.as_deref().unwrap_or_default();
    html! {
        tr {
            th scope="row" { (page::airline(&request.carrier)) " " (number) }
            td { (request.flight_date) }
            td { (page::airport(&request.origin)) " → " (page::airport(&request.dest)) }
            td.number { (request.dep_delay) " min" }
            td { (said(answer)) }
        }
    }
}

fn said(answer: Option<&Answer>) -> String {
    match answer {
        None => "not yet".into(),
        Some(Answer::Rejected(refusal) | Answer::Expired(refusal)) => refusal.reason.clone(),
        Some(Answer::Ok(prediction)) => prediction.prediction.title(),
    }
}
