//! `submit-job web`: serves the pages.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use clap::Args;
use cluster::settings::Setting;
use store::Store;

use crate::servers::{KafkaArgs, StoreArgs};

/// Arguments of `web`.
#[derive(Debug, Args)]
pub struct Web {
    /// Kafka.
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Where pages are served
    #[arg(long, env = "TARMAC_LISTEN", default_value = "127.0.0.1:5000")]
    pub listen: SocketAddr,
    /// Requests a second that one client may make, over time
    #[arg(
        long,
        default_value_t = REQUESTS_PER_SECOND,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub requests_per_second: u32,
}

/// Requests a second that one client may make by default: many people may share an
/// address.
pub const REQUESTS_PER_SECOND: u32 = 300;

/// Serves pages until `shutdown` is done; `properties` are those of its Kafka.
pub async fn run_web(
    store: Store,
    args: &Web,
    properties: &[Setting],
    now: fn() -> DateTime<Utc>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    args.kafka.topics()?;
    let listener = tokio::net::TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    tracing::info!(url = format!("http://{}", listener.local_addr()?), "pages are served");
    let config = ::web::Config {
        kafka: properties.to_vec(),
        request_topic: args.kafka.request_topic.clone(),
        response_topic: args.kafka.response_topic.clone(),
        store,
        requests_per_second: args.requests_per_second,
        now,
    };
    ::web::serve(listener, config, shutdown).await
}
