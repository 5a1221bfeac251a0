//! How the server is, for those who watch over it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use events::AIRLINES;
use rdkafka::producer::Producer;
use store::Query;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::app::App;

/// How long the database and Kafka may take to show that they are there.
const LOOK_WAIT: Duration = Duration::from_secs(2);

/// How long the result of a look is kept.
const LOOK_KEPT: Duration = Duration::from_secs(1);

/// GET `/healthz`. Fails while the producer is beyond repair: the next question replaces it, or who
/// watches the process does.
pub(crate) async fn health(State(app): State<Arc<App>>) -> Response {
    match app.sender.producer().client().fatal_error() {
        None => "ok".into_response(),
        Some((code, error)) => {
            tracing::error!(%code, error, "the Kafka producer has failed for good");
            (StatusCode::SERVICE_UNAVAILABLE, "the Kafka producer has failed").into_response()
        }
    }
}

/// GET `/readyz`. Fails while requests cannot be sent or answers not be read.
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Response {
    let unready = |why: &'static str| (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    // one look at a time, for all who ask
    let mut looked = app.looked.lock().await;
    let why = match *looked {
        Some((at, why)) if at.elapsed() < LOOK_KEPT => why,
        _ => {
            let why = look(&app).await;
            *looked = Some((Instant::now(), why));
            why
        }
    };
    why.map_or_else(|| "ready".into_response(), unready)
}

/// Why requests cannot be sent or answers not be read, if so.
async fn look(app: &App) -> Option<&'static str> {
    let one = Query { limit: 1, ..Query::default() };
    match timeout(LOOK_WAIT, app.store.count(AIRLINES, &one)).await {
        Ok(Ok(_)) => {}
        _ => return Some("the database does not answer"),
    }
    let (producer, topic) = (app.sender.producer(), app.request_topic.clone());
    let look = move || producer.client().fetch_metadata(Some(&topic), LOOK_WAIT).is_ok();
    match spawn_blocking(look).await {
        Ok(true) => None,
        _ => Some("Kafka does not answer"),
    }
}

/// GET `/metrics`.
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response {
    match app.metrics.to_text(app.streams.n_held()) {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => {
            tracing::error!("the metrics cannot be written: {error:#}");
            (StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written").into_response()
        }
    }
}
