//! What the routes share.

use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Utc};
use ipnet::IpNet;
use store::Store;
use tokio::sync::{Semaphore, broadcast, watch};

use crate::http::cache::Pages;
use crate::http::clients::Shares;
use crate::http::metrics::Metrics;
use crate::http::rate_limit::RateLimits;
use crate::predict::choices::KeptChoices;
use crate::predict::heard::Heard;
use crate::predict::night::Night;
use crate::predict::recent::Recent;
use crate::predict::sender::Sender;

/// The last look at what is behind the server, and why it was not ready.
pub(crate) type LastProbe = tokio::sync::Mutex<Option<(Instant, Option<&'static str>)>>;

/// What the routes share.
pub(crate) struct App {
    pub(crate) store: Store,
    pub(crate) sender: Sender,
    pub(crate) request_topic: String,
    /// Answers heard on the response topic, for the event streams.
    pub(crate) heard: broadcast::Sender<Arc<Heard>>,
    pub(crate) clients: RateLimits,
    pub(crate) pages: Arc<Pages>,
    /// What forms complete.
    pub(crate) choices: KeptChoices,
    pub(crate) metrics: Metrics,
    pub(crate) looked: LastProbe,
    /// Searches that read at the same time.
    pub(crate) searches: Semaphore,
    /// Searches that read or wait to.
    pub(crate) searchers: Arc<Shares>,
    pub(crate) handlers: Arc<Shares>,
    pub(crate) streams: Arc<Shares>,
    /// Questions that clients have left today.
    pub(crate) night: Night,
    /// Questions that were sent lately.
    pub(crate) recent: Recent,
    /// Proxies that are believed when they say whom they ask for.
    pub(crate) proxies: Vec<IpNet>,
    /// Names that the server is reached by.
    pub(crate) hosts: Vec<String>,
    /// The clock.
    pub(crate) now: fn() -> DateTime<Utc>,
    pub(crate) stopping: watch::Receiver<bool>,
}

/// Resolves when the server is stopped, or nobody is left who could stop it.
pub(crate) async fn stopped(mut stopping: watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}
