//! The routes: the page with its form, the question, the state of its answer.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::extract::rejection::FormRejection;
use axum::extract::{Form, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Redirect, Response};
use chrono::{DateTime, Utc};
use events::{AIRLINES, AIRPORTS, Answer, PredictionRequest};
use rdkafka::producer::FutureRecord;
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use crate::answers::{self, Found};
use crate::form::{self, Errors, Typed};
use crate::page::{self, Asked, Choice, Choices, View};
use crate::{App, cache, frame, guard};

/// The page with the form.
pub(crate) const FORM_PATH: &str = "/flights/delays/predict_kafka";
/// Where questions are sent; the state of an answer is below it.
pub(crate) const ASK_PATH: &str = "/flights/delays/predict/classify_realtime";

/// Entries of a list in the form. The world has about a thousand carriers and four thousand
/// airports with scheduled flights; a page may not grow beyond that.
const CHOICES_MAX: u32 = 5_000;

/// How long the lists are kept: what is published changes about once a day.
const CHOICES_KEPT: Duration = Duration::from_secs(10);

const UNAVAILABLE: &str =
    "Your question could not be sent: Kafka did not acknowledge it. Please try again.";

/// Who asks decides how we answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    /// A browser without script: pages and redirects.
    Person,
    /// The script or another program: JSON.
    Program,
}

#[derive(Deserialize)]
pub(crate) struct Shown {
    id: Option<String>,
    #[serde(default)]
    refresh: String,
}

/// Everything that has no route.
pub(crate) async fn not_found() -> Response {
    let text = "There is nothing at this address. It may have been mistyped, or it has moved.";
    frame::notice(StatusCode::NOT_FOUND, "This page does not exist", text)
}

/// GET `/flights/delays/predict_kafka`, with `?id=` the page of that question.
/// Other fields fill in the form.
pub(crate) async fn form_page(
    State(app): State<Arc<App>>,
    Query(shown): Query<Shown>,
    Query(typed): Query<Typed>,
) -> Response {
    let example = match typed == Typed::default() {
        true => Typed::example(now().date_naive()),
        false => typed,
    };
    let (typed, asked) = match shown.id.as_deref().map(events::parse_uuid) {
        None => (example, Asked::Nothing),
        Some(None) => {
            let text = "The address does not hold the id of a question.";
            return frame::notice(StatusCode::BAD_REQUEST, "No such question", text);
        }
        Some(Some(id)) => match answers::find(&app.store, id).await {
            Ok(None) => {
                let n_refreshes = shown.refresh.parse().unwrap_or(0);
                (example, Asked::Waiting { id, n_refreshes })
            }
            Ok(Some(Found { answer, .. })) => {
                let typed = match &answer {
                    Answer::Scored(prediction) => Typed::of(prediction),
                    Answer::Refused(_) => example,
                };
                let likes = answers::likes(&app.store, &answer).await;
                (typed, Asked::Answered(Box::new(answer), likes))
            }
            Err(error) => {
                tracing::error!(%id, "cannot read the answer: {error:#}");
                let text = "The answers cannot be read at the moment. Please try again.";
                return frame::notice(StatusCode::SERVICE_UNAVAILABLE, "Not available", text);
            }
        },
    };
    let choices = &choices(&app).await;
    let errors = &Errors::new();
    let is_form = matches!(asked, Asked::Nothing);
    let view = View { typed: &typed, errors, failure: "", choices, asked };
    let page = page::form_page(&view).into_response();
    if is_form { cache::keep(page).await } else { page }
}

/// POST `/flights/delays/predict/classify_realtime`: answers once Kafka has the question.
pub(crate) async fn ask(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    form: Result<Form<Typed>, FormRejection>,
) -> Response {
    let asker = Asker::of(&headers);
    let typed = match question(&headers, form) {
        Ok(typed) => typed,
        Err((status, reason)) => return refuse(asker, status, reason),
    };
    let request = match form::parse(&typed, now(), Uuid::new_v4()) {
        Ok(request) => request,
        Err(errors) => return invalid(&app, asker, &typed, &errors, Asked::Nothing).await,
    };
    match send(&app, &request).await {
        Ok(()) => accepted(asker, request.UUID),
        Err(error) => {
            tracing::error!(id = %request.UUID, "cannot send the request: {error:#}");
            unavailable(&app, asker, &typed).await
        }
    }
}

/// What was typed, or why it is not taken.
pub(crate) fn question(
    headers: &HeaderMap,
    form: Result<Form<Typed>, FormRejection>,
) -> Result<Typed, (StatusCode, &'static str)> {
    if guard::cross_site(headers) {
        return Err((StatusCode::FORBIDDEN, "questions are not taken from other sites"));
    }
    let Form(typed) =
        form.map_err(|rejection| (rejection.status(), "the body is no valid form"))?;
    Ok(typed)
}

/// GET `/flights/delays/predict/classify_realtime/response/{id}`.
pub(crate) async fn response(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    let Some(id) = events::parse_uuid(&id) else {
        return no_uuid();
    };
    match answers::find(&app.store, id).await {
        Ok(found) => Json(answers::state(id, found.as_ref())).into_response(),
        Err(error) => {
            tracing::error!(%id, "cannot read the answer: {error:#}");
            let reason = "the answers cannot be read at the moment";
            refuse(Asker::Program, StatusCode::SERVICE_UNAVAILABLE, reason)
        }
    }
}

/// The answer to an id that is no UUID.
pub(crate) fn no_uuid() -> Response {
    refuse(Asker::Program, StatusCode::BAD_REQUEST, "the id is not a UUID")
}

/// Resolves when the brokers have the request on the topic.
async fn send(app: &App, request: &PredictionRequest) -> Result<()> {
    let key = request.UUID.to_string();
    let payload = request.encode();
    let record = FutureRecord::to(&app.request_topic).key(&key).payload(&payload);
    // a full queue means that Kafka has been away for long: say so at once
    let sent = app.producer.send(record, Duration::ZERO).await;
    sent.map_err(|(error, _)| error).with_context(|| format!("topic {}", app.request_topic))?;
    Ok(())
}

impl Asker {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        if accept.is_some_and(|a| a.contains("text/html")) { Self::Person } else { Self::Program }
    }
}

fn accepted(asker: Asker, id: Uuid) -> Response {
    match asker {
        Asker::Person => Redirect::to(&format!("{FORM_PATH}?id={id}")).into_response(),
        Asker::Program => Json(json!({ "status": "OK", "id": id })).into_response(),
    }
}

pub(crate) async fn invalid(
    app: &App,
    asker: Asker,
    typed: &Typed,
    errors: &Errors,
    asked: Asked,
) -> Response {
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    match asker {
        Asker::Person => form_again(app, status, typed, errors, "", asked).await,
        Asker::Program => {
            (status, Json(json!({ "status": "INVALID", "errors": errors }))).into_response()
        }
    }
}

async fn unavailable(app: &App, asker: Asker, typed: &Typed) -> Response {
    let status = StatusCode::SERVICE_UNAVAILABLE;
    match asker {
        Asker::Person => {
            form_again(app, status, typed, &Errors::new(), UNAVAILABLE, Asked::Nothing).await
        }
        Asker::Program => refuse(asker, status, UNAVAILABLE),
    }
}

/// The form as it was typed, with what is wrong.
async fn form_again(
    app: &App,
    status: StatusCode,
    typed: &Typed,
    errors: &Errors,
    failure: &str,
    asked: Asked,
) -> Response {
    let choices = &choices(app).await;
    let view = View { typed, errors, failure, choices, asked };
    (status, page::form_page(&view)).into_response()
}

pub(crate) fn refuse(asker: Asker, status: StatusCode, reason: &str) -> Response {
    match asker {
        Asker::Person => frame::notice(status, "This did not work", &format!("Sorry: {reason}.")),
        Asker::Program => {
            (status, Json(json!({ "status": "ERROR", "reason": reason }))).into_response()
        }
    }
}

/// The lists of the form, kept for a while; empty ones when the store is away, because codes can be
/// typed as well.
pub(crate) async fn choices(app: &App) -> Arc<Choices> {
    let kept = app.choices.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some((_, choices)) = kept.filter(|(read, _)| read.elapsed() < CHOICES_KEPT) {
        return choices;
    }
    let (airlines, airports) = tokio::join!(list(app, AIRLINES), list(app, AIRPORTS));
    let choices = Arc::new(Choices { airlines, airports });
    if !choices.airlines.is_empty() {
        let kept = Some((Instant::now(), Arc::clone(&choices)));
        *app.choices.lock().unwrap_or_else(PoisonError::into_inner) = kept;
    }
    choices
}

async fn list(app: &App, collection: &str) -> Vec<Choice> {
    let query = store::Query { limit: CHOICES_MAX, ..store::Query::default() };
    let documents = app.store.find(collection, &query).await.unwrap_or_else(|error| {
        tracing::error!(collection, "cannot read a list of the form: {error:#}");
        Vec::new()
    });
    let choice = |document: &serde_json::Value| {
        let text = |field| document.get(field)?.as_str().map(str::to_owned);
        Some(Choice { code: text("_id")?, name: text("Name").unwrap_or_default() })
    };
    documents.iter().filter_map(choice).collect()
}

#[expect(clippy::disallowed_methods, reason = "a question is asked when it arrives")]
pub(crate) fn now() -> DateTime<Utc> {
    Utc::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_gets_pages_and_everyone_else_json() {
        for (accept, want) in [
            ("text/html,application/xhtml+xml,*/*;q=0.8", Asker::Person),
            ("application/json", Asker::Program),
            ("*/*", Asker::Program),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            assert_eq!(Asker::of(&headers), want, "{accept}");
        }
        assert_eq!(Asker::of(&HeaderMap::new()), Asker::Program);
    }
}
