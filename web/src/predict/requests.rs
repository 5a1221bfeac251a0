//! The page with its form, the request, and the state of its answer.

use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Extension;
use axum::extract::rejection::FormRejection;
use axum::extract::{Form, FromRequest, Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Json, Redirect, Response};
use events::{Answer, PredictionRequest};
use multer::Multipart;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::FutureRecord;
use serde::Deserialize;
use serde::de::value::MapDeserializer;
use serde_json::json;
use telemetry::traces;
use tracing::{Instrument, info_span};
use uuid::Uuid;

use crate::app::App;
use crate::http::cache;
use crate::http::metrics::Failed;
use crate::http::middleware;
use crate::http::responses::{Asker, no_uuid, problem, refuse};
use crate::layout::page;
use crate::paths;
use crate::predict::answers::{self, Found};
use crate::predict::form::{self, Errors, FormInput};
use crate::predict::form_page::{self, Asked, View};

const UNAVAILABLE: &str =
    "Your question could not be sent: Kafka did not acknowledge it. Please try again.";

/// Header by which scripts of older libraries say that they are scripts.
const REQUESTED_WITH: &str = "x-requested-with";

#[derive(Deserialize)]
pub(crate) struct Shown {
    id: Option<String>,
    #[serde(default)]
    refresh: String,
}

/// GET `/flights/delays/predict_kafka`, with `?id=` the page of that request.
/// Other fields fill in the form.
pub(crate) async fn form_page(
    State(app): State<Arc<App>>,
    Query(shown): Query<Shown>,
    Query(typed): Query<FormInput>,
) -> Response {
    let example = match typed == FormInput::default() {
        true => FormInput::example((app.now)().date_naive()),
        false => typed,
    };
    let (typed, asked) = match shown.id.as_deref().map(events::parse_uuid) {
        None => (example, Asked::Nothing),
        Some(None) => {
            let text = "The address does not hold the id of a question.";
            return page::notice(StatusCode::BAD_REQUEST, "No such question", text);
        }
        Some(Some(id)) => match answers::find(&app.store, id).await {
            Ok(None) => {
                let n_refreshes = shown.refresh.parse().unwrap_or(0);
                let is_known = app.recent.knows(id);
                (example, Asked::Waiting { id, n_refreshes, is_known })
            }
            Ok(Some(Found { answer, .. })) => {
                let typed = match &answer {
                    Answer::Ok(prediction) => FormInput::of(prediction),
                    Answer::Rejected(_) | Answer::Expired(_) => example,
                };
                let explanation = answers::explain(&app.store, &answer).await;
                (typed, Asked::Answered(Box::new(answer), explanation))
            }
            Err(error) => {
                tracing::error!(%id, "cannot read the answer: {error:#}");
                let text = "The answers cannot be read at the moment. Please try again.";
                let page = page::notice(StatusCode::SERVICE_UNAVAILABLE, "Not available", text);
                return (Extension(Failed::Store), page).into_response();
            }
        },
    };
    let choices = &app.choices.read(&app.store).await;
    let errors = &Errors::new();
    let is_form = matches!(asked, Asked::Nothing);
    let view = View { typed: &typed, errors, failure: "", choices, asked };
    let page = form_page::form_page(&view).into_response();
    if is_form { cache::keep(page).await } else { page }
}

/// POST `/flights/delays/predict/classify_realtime`: answers once Kafka has the request.
pub(crate) async fn ask(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let asker = Asker::of(&headers);
    let typed = match question(request).await {
        Ok(typed) => typed,
        Err((status, reason)) => return refuse(asker, status, reason),
    };
    let choices = app.choices.read(&app.store).await;
    let now = (app.now)();
    let id = PredictionRequest::new_id(now);
    let request = match form::parse(&typed, &choices, now, id) {
        Ok(request) => request,
        Err(errors) => return invalid(&app, asker, &typed, &errors, Asked::Nothing).await,
    };
    match send(&app, &request).await {
        Ok(()) => {
            app.recent.add(request.uuid);
            accepted(asker, &headers, request.uuid, &typed)
        }
        Err(error) => {
            tracing::error!(id = %request.uuid, "cannot send the request: {error:#}");
            (Extension(Failed::Kafka), unavailable(&app, asker, &typed).await).into_response()
        }
    }
}

/// What was typed, or why it is not taken: a form as browsers send it, or in parts, as `curl -F`
/// does.
pub(crate) async fn question(request: Request) -> Result<FormInput, (StatusCode, &'static str)> {
    const INVALID: &str = "the body is no valid form";
    if middleware::cross_site(request.headers()) {
        return Err((StatusCode::FORBIDDEN, "questions are not taken from other sites"));
    }
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if let Ok(boundary) = multer::parse_boundary(kind.unwrap_or_default()) {
        let read = parts(request, boundary).await;
        return read.map_err(|_| (StatusCode::BAD_REQUEST, INVALID));
    }
    let Form(typed) = Form::from_request(request, &())
        .await
        .map_err(|rejection: FormRejection| (rejection.status(), INVALID))?;
    Ok(typed)
}

/// A form in parts; its body is in memory already.
async fn parts(request: Request, boundary: String) -> Result<FormInput> {
    let mut parts = Multipart::new(request.into_body().into_data_stream(), boundary);
    let mut fields = Vec::new();
    while let Some(part) = parts.next_field().await? {
        let name = part.name().context("a part without a name")?.to_owned();
        fields.push((name, part.text().await?));
    }
    let fields = MapDeserializer::<_, serde::de::value::Error>::new(fields.into_iter());
    Ok(FormInput::deserialize(fields)?)
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
            let refusal = refuse(Asker::Program, StatusCode::SERVICE_UNAVAILABLE, reason);
            (Extension(Failed::Store), refusal).into_response()
        }
    }
}

/// Resolves when the brokers have the request on the topic.
async fn send(app: &App, request: &PredictionRequest) -> Result<()> {
    let (key, topic) = (request.uuid.to_string(), &app.request_topic);
    let payload = request.encode();
    let span = info_span!(
        target: telemetry::SPAN,
        "send",
        otel.name = format!("send {topic}"),
        otel.kind = "producer",
        messaging.system = "kafka",
        messaging.operation.type = "send",
        messaging.destination.name = topic,
        tarmac.request.id = key,
    );
    let mut record = FutureRecord::to(topic).key(&key).payload(&payload);
    if let Some(traceparent) = traces::traceparent(&span) {
        let header = Header { key: traces::HEADER, value: Some(&traceparent) };
        record = record.headers(OwnedHeaders::new().insert(header));
    }
    let sent = app.sender.send(record).instrument(span).await;
    sent.with_context(|| format!("topic {topic}"))
}

/// Says the id. The script of the original system parses what it gets a second time, so what says
/// that it is such a script gets it as the text that it got there.
fn accepted(asker: Asker, headers: &HeaderMap, id: Uuid, typed: &FormInput) -> Response {
    let is_script = headers.get(REQUESTED_WITH).is_some_and(|by| by == "XMLHttpRequest");
    let said = json!({ "status": "OK", "id": id });
    match asker {
        Asker::Person => {
            let page = format!("{}?id={id}&{}", paths::FORM, typed.query());
            Redirect::to(&page).into_response()
        }
        Asker::Program if is_script => Html(said.to_string()).into_response(),
        Asker::Program => Json(said).into_response(),
    }
}

pub(crate) async fn invalid(
    app: &App,
    asker: Asker,
    typed: &FormInput,
    errors: &Errors,
    asked: Asked,
) -> Response {
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    match asker {
        Asker::Person => form_again(app, status, typed, errors, "", asked).await,
        Asker::Program => problem(status, "some fields cannot be understood", Some(json!(errors))),
    }
}

async fn unavailable(app: &App, asker: Asker, typed: &FormInput) -> Response {
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
    typed: &FormInput,
    errors: &Errors,
    failure: &str,
    asked: Asked,
) -> Response {
    let choices = &app.choices.read(&app.store).await;
    let view = View { typed, errors, failure, choices, asked };
    (status, form_page::form_page(&view)).into_response()
}
