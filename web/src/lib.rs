//! The web server: asks for a prediction through Kafka and shows the answer when it arrives.
//!
//! A form becomes a [`events::PredictionRequest`] on the request topic; the answer comes back
//! through the response topic, which makes it prompt, and the store, which makes it certain. This
//! crate must not know DataFusion, models or features: it says what was asked and what came back.
//!
//! In reading order: `routes` (every route, declared once), `predict` (the form, the request, its
//! answer, and what explains it),
//! `explore` (pages of airlines, airplanes, airports, flights, delays and models, from what
//! `submit-job publish` left in the store), `layout` (what all pages share), `http` (middleware,
//! caching, health, and the description for programs).
//!
//! ```
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("documents.sqlite");
//! # let runtime = tokio::runtime::Runtime::new()?;
//! # runtime.block_on(async {
//! let config = web::Config {
//!     kafka: vec![("bootstrap.servers".into(), "127.0.0.1:9092".into())],
//!     request_topic: events::REQUEST_TOPIC.into(),
//!     response_topic: events::RESPONSE_TOPIC.into(),
//!     store: store::Store::embedded(&path)?,
//!     requests_per_second: 20,
//!     proxies: vec![],
//!     hosts: vec![],
//!     now: || chrono::DateTime::UNIX_EPOCH,
//! };
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! // stops at once; a server waits for a signal
//! let shutdown = std::future::ready(());
//! web::serve(listener, config, shutdown).await?;
//! # anyhow::Ok(())
//! # })?;
//! # anyhow::Ok(())
//! ```

mod app;
mod explore;
mod http;
mod layout;
mod paths;
mod predict;
mod routes;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state, map_response};
use chrono::{DateTime, Utc};
use ipnet::IpNet;
use store::Store;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, broadcast, watch};

use crate::app::{App, stopped};
use crate::http::cache;
use crate::http::clients::Shares;
use crate::http::connections;
use crate::http::metrics::Metrics;
use crate::http::rate_limit::RateLimits;
use crate::http::{middleware, responses};
use crate::predict::answers;
use crate::predict::choices::KeptChoices;
use crate::predict::night::Night;
use crate::predict::recent::Recent;
use crate::predict::sender::Sender;

/// Requests answered at the same time; more are turned away. Each holds a few store queries and at
/// most one message, so that this bounds memory, not speed.
const HANDLERS_MAX: usize = 512;
/// Those of one client.
const HANDLERS_OF_CLIENT_MAX: usize = 128;
/// Searches that wait or read; more are turned away.
const SEARCHERS_MAX: usize = 32;
/// Those of one client.
const SEARCHERS_OF_CLIENT_MAX: usize = 4;
/// Open event streams; more are turned away. Each costs a connection and some kilobytes.
const STREAMS_MAX: usize = 1_000;
/// Those of one client. A page has one.
const STREAMS_OF_CLIENT_MAX: usize = 20;
/// Answers that a slow event stream may lag behind before it reads the store instead.
const ANSWERS_BUFFERED_MAX: usize = 4_096;
/// How long open connections may delay the end: longer than any handler is allowed to take.
const SHUTDOWN_WAIT_MAX: Duration = Duration::from_secs(35);
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
    /// Proxies that are believed when they say in `X-Forwarded-For` whom they ask for.
    pub proxies: Vec<IpNet>,
    /// Names that browsers reach the server by, beside `localhost` and its addresses.
    pub hosts: Vec<String>,
    /// The clock.
    pub now: fn() -> DateTime<Utc>,
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
        sender: Sender::open(&config.kafka)?,
        request_topic: config.request_topic,
        heard: heard.clone(),
        clients: RateLimits::new(config.requests_per_second),
        metrics: Metrics::new()?,
        pages: Arc::default(),
        choices: KeptChoices::default(),
        looked: tokio::sync::Mutex::default(),
        now: config.now,
        searches: Semaphore::new(n_searches()),
        searchers: Shares::new(SEARCHERS_MAX, SEARCHERS_OF_CLIENT_MAX),
        handlers: Shares::new(HANDLERS_MAX, HANDLERS_OF_CLIENT_MAX),
        streams: Shares::new(STREAMS_MAX, STREAMS_OF_CLIENT_MAX),
        night: Night::default(),
        recent: Recent::default(),
        proxies: config.proxies.clone(),
        hosts: config.hosts,
        stopping: stopping.clone(),
    });
    let listening = answers::listen(consumer, config.response_topic, heard, stopping.clone());
    let listening = tokio::spawn(listening);
    let shutdown = async move {
        shutdown.await;
        stop.send_replace(true);
    };
    let served = connections::serve(listener, router(app), &config.proxies, stopping.clone());
    tokio::select! {
        ((), ()) = async { tokio::join!(served, shutdown) } => {}
        () = overdue(stopping) => tracing::warn!("gave up on connections that stayed open"),
    }
    listening.await.context("listening for answers")
}

fn router(app: Arc<App>) -> Router {
    routes::router(routes::PREDICT)
        .merge(routes::router(routes::EXPLORE).layer(map_response(cache::keep)))
        .merge(routes::router(routes::DESCRIPTION))
        .merge(routes::assets())
        .fallback(responses::not_found)
        .layer(from_fn_with_state(Arc::clone(&app.pages), cache::compact))
        .layer(from_fn_with_state(Arc::clone(&app), middleware::limit))
        // outside of the limits
        .merge(routes::router(routes::PROBES))
        .layer(from_fn(middleware::secure))
        .with_state(app)
}

/// Searches that read at the same time: one whose fields match much by themselves and nothing
/// together reads long, and other pages need the cores too.
fn n_searches() -> usize {
    std::thread::available_parallelism().map_or(1, |n_cores| n_cores.get().div_ceil(2))
}

async fn overdue(stopping: watch::Receiver<bool>) {
    stopped(stopping).await;
    tokio::time::sleep(SHUTDOWN_WAIT_MAX).await;
}
