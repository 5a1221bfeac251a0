//! `submit-job web`: serves the pages.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use clap::Args;
use cluster::settings::Setting;
use ipnet::IpNet;
use store::Store;
use tokio::net::TcpListener;

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
    /// Proxy whose X-Forwarded-For says who asks: an address, or a network such as
    /// 10.0.0.0/8; may be repeated
    #[arg(long, value_name = "NETWORK", env = "TARMAC_TRUSTED_PROXIES", value_delimiter = ',')]
    #[arg(value_parser = network)]
    pub trusted_proxy: Vec<IpNet>,
    /// Name that browsers reach the pages by, beside localhost and addresses; may be repeated
    #[arg(long, value_name = "NAME", env = "TARMAC_HOSTS", value_delimiter = ',')]
    pub host: Vec<String>,
}

impl Web {
    /// The defaults, for these servers and this address.
    pub fn new(kafka: KafkaArgs, store: StoreArgs, listen: SocketAddr) -> Self {
        let requests_per_second = REQUESTS_PER_SECOND;
        Self { kafka, store, listen, requests_per_second, trusted_proxy: vec![], host: vec![] }
    }
}

/// A network, or an address by itself.
fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    let network = text.parse::<IpNet>().or_else(|_| address());
    network.map_err(|_| "neither an address nor a network such as 10.0.0.0/8".to_owned())
}

/// Requests a second that one client may make by default: many people may share an
/// address.
const REQUESTS_PER_SECOND: u32 = 300;

/// Takes the address that pages are served at.
pub async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

/// Serves pages until `shutdown` is done; `properties` are those of its Kafka.
pub async fn run_web(
    listener: TcpListener,
    store: Store,
    args: &Web,
    properties: &[Setting],
    now: fn() -> DateTime<Utc>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    args.kafka.topics()?;
    tracing::info!(url = format!("http://{}", listener.local_addr()?), "pages are served");
    let config = ::web::Config {
        kafka: properties.to_vec(),
        request_topic: args.kafka.request_topic.clone(),
        response_topic: args.kafka.response_topic.clone(),
        store,
        requests_per_second: args.requests_per_second,
        proxies: args.trusted_proxy.clone(),
        hosts: args.host.clone(),
        now,
    };
    ::web::serve(listener, config, shutdown).await
}
