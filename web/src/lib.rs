//! The web server: asks for a prediction through Kafka and shows the answer when it arrives.
//!
//! A form becomes a [`events::PredictionRequest`] on the request topic; the answer comes back
//! through the response topic, which makes it prompt, and the store, which makes it certain. This
//! crate must not know DataFusion, models or features: it says what was asked and what came back.
//!
//! In reading order: `form` (text becomes a request), `predict` (the routes), `answers` (the
//! response topic and the store), `stream` (answers pushed to the browser), `page`, `card` and
//! `reasons` (HTML of it), `overnight` (questions that can wait). `entities` reads what `submit-job
//! publish` left in the store; `airlines`, `airplanes`, `airports`, `flights`, `delays` and `model`
//! are its pages, with `chart` for drawings; `api` and `health` are for programs. `frame` is around
//! every page, `assets` is what pages load; `guard`, `clients`, `meters` and `cache` stand around
//! every route.

mod airlines;
mod airplanes;
mod airports;
mod answers;
mod api;
mod assets;
mod cache;
mod card;
mod chart;
mod clients;
mod delays;
mod entities;
mod flights;
mod form;
mod frame;
mod guard;
mod health;
mod meters;
mod model;
mod overnight;
mod page;
mod predict;
mod reasons;
mod stream;

use std::future::{Future, IntoFuture};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state, map_response};
use axum::routing::{get, post};
use axum::{Router, serve as serve_http};
use events::Answer;
use rdkafka::ClientConfig;
use rdkafka::producer::FutureProducer;
use store::Store;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, broadcast, watch};

use crate::cache::Pages;
use crate::clients::Clients;
use crate::meters::Meters;
use crate::page::Choices;

/// Largest body of a request, in bytes. The form fills less than 1 KiB.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// Requests answered at the same time; more are turned away. Each holds a few store queries and at
/// most one message, so that this bounds memory, not speed.
const HANDLERS_MAX: usize = 512;
/// Searches at the same time; more wait. One whose fields match much by themselves and nothing
/// together reads long.
const SEARCHES_MAX: usize = 8;
/// Open event streams; more are turned away. Each costs a connection and some kilobytes.
const STREAMS_MAX: usize = 1_000;
/// Answers that a slow event stream may lag behind before it reads the store instead.
const ANSWERS_BUFFERED_MAX: usize = 4_096;
/// How long open connections may delay the end: longer than any handler is allowed to take.
const SHUTDOWN_WAIT_MAX: Duration = Duration::from_secs(35);
/// How long Kafka may take to acknowledge a request before the asker is told that it failed.
const DELIVERY_MS_MAX: &str = "10000";

/// What the server needs to know; who reads it from arguments is not its concern.
pub struct Config {
    /// Properties of librdkafka, `bootstrap.servers` among them.
    pub kafka: Vec<(String, String)>,
    /// Topic that requests are sent to.
    pub request_topic: String,
    /// Topic that answers come back on.
    pub response_topic: String,
    /// Where answers, airlines and airports are read.
    pub store: Store,
    /// Requests a second that one client may make, over time.
    pub requests_per_second: u32,
}

/// What the routes share.
pub(crate) struct App {
    pub(crate) store: Store,
    pub(crate) producer: FutureProducer,
    pub(crate) request_topic: String,
    /// Answers heard on the response topic, for the event streams.
    pub(crate) heard: broadcast::Sender<Arc<Answer>>,
    pub(crate) clients: Clients,
    pub(crate) pages: Pages,
    /// What forms complete, and when it was read.
    pub(crate) choices: Mutex<Option<(Instant, Arc<Choices>)>>,
    pub(crate) meters: Meters,
    pub(crate) looked: health::Looked,
    pub(crate) searches: Semaphore,
    pub(crate) handlers: Semaphore,
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) stopping: watch::Receiver<bool>,
}

/// Serves HTTP on `listener` until `shutdown` resolves; then lets handlers finish, ends event
/// streams and stops listening to Kafka.
///
/// Errors when the Kafka properties are not valid. An unreachable broker is not an error: requests
/// are answered with 503 until it is back.
pub async fn serve(
    listener: TcpListener,
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let (stop, stopping) = watch::channel(false);
    let (heard, _) = broadcast::channel(ANSWERS_BUFFERED_MAX);
    let consumer = answers::consumer(&config.kafka)?;
    let app = Arc::new(App {
        store: config.store,
        producer: producer(&config.kafka)?,
        request_topic: config.request_topic,
        heard: heard.clone(),
        clients: Clients::new(config.requests_per_second),
        meters: Meters::new()?,
        pages: Pages::default(),
        choices: Mutex::default(),
        looked: health::Looked::default(),
        searches: Semaphore::new(SEARCHES_MAX),
        handlers: Semaphore::new(HANDLERS_MAX),
        streams: Arc::new(Semaphore::new(STREAMS_MAX)),
        stopping: stopping.clone(),
    });
    let listening = answers::listen(consumer, config.response_topic, heard, stopping.clone());
    let listening = tokio::spawn(listening);
    let shutdown = async move {
        shutdown.await;
        stop.send_replace(true);
    };
    let service = router(app).into_make_service_with_connect_info::<SocketAddr>();
    let served = serve_http(listener, service).with_graceful_shutdown(shutdown).into_future();
    tokio::select! {
        served = served => served.context("serving HTTP")?,
        () = overdue(stopping) => tracing::warn!("gave up on connections that stayed open"),
    }
    listening.await.context("listening for answers")
}

fn router(app: Arc<App>) -> Router {
    Router::new()
        .merge(prediction_routes())
        .merge(entity_routes().layer(map_response(cache::keep)))
        .route("/openapi.json", get(api::document))
        .route("/api", get(api::human))
        .route("/static/{name}", get(assets::asset))
        .fallback(predict::not_found)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(Arc::clone(&app), cache::compact))
        .layer(from_fn_with_state(Arc::clone(&app), guard::limit))
        // whoever watches over the server asks when it has too much to do
        .merge(health_routes())
        .layer(from_fn(guard::secure))
        .with_state(app)
}

fn health_routes() -> Router<Arc<App>> {
    Router::new()
        .route("/healthz", get(health::health))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
}

fn prediction_routes() -> Router<Arc<App>> {
    Router::new()
        .route(predict::FORM_PATH, get(predict::form_page))
        .route(predict::ASK_PATH, post(predict::ask))
        .route(&format!("{}/response/{{id}}", predict::ASK_PATH), get(predict::response))
        .route(overnight::FORM_PATH, get(overnight::form))
        .route(overnight::ASK_PATH, post(overnight::ask))
        .route(&format!("{}/results/{{day}}", overnight::FORM_PATH), get(overnight::results))
        .route(&format!("{}/response/{{id}}/events", predict::ASK_PATH), get(stream::events))
}

fn entity_routes() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(airlines::list))
        .route("/airlines", get(airlines::list))
        .route("/airline/{carrier}", get(airlines::airline))
        .route("/airplanes", get(airplanes::list))
        .route("/airplanes/chart/manufacturers.json", get(airplanes::manufacturers_json))
        .route("/airplane/{tail}", get(airplanes::airplane))
        .route("/airplane/flights/{tail}", get(airplanes::airplane))
        .route("/airports", get(airports::list))
        .route("/airport/{code}", get(airports::airport))
        .route("/routes", get(airports::top_routes))
        .route("/flights/search", get(flights::search))
        .route("/flights/{origin}/{dest}/{date}", get(flights::route_day))
        .route("/on_time_performance", get(flights::flight))
        .route("/total_flights", get(delays::total_flights))
        .route("/total_flights.json", get(delays::total_flights_json))
        .route("/total_flights_chart", get(delays::total_flights_chart))
        .route("/delays", get(delays::delays))
        .route("/model", get(model::model))
}

/// A producer that reports success only for what all replicas in sync hold, once and in order.
fn producer(kafka: &[(String, String)]) -> Result<FutureProducer> {
    let mut config = ClientConfig::new();
    config.set("client.id", "tarmac-web").set("message.timeout.ms", DELIVERY_MS_MAX);
    config.extend(kafka.iter().cloned());
    config
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .create()
        .context("the Kafka properties make no producer")
}

/// Resolves when the server has been told to stop, or nobody is left to tell it.
pub(crate) async fn stopped(mut stopping: watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

async fn overdue(stopping: watch::Receiver<bool>) {
    stopped(stopping).await;
    tokio::time::sleep(SHUTDOWN_WAIT_MAX).await;
}
