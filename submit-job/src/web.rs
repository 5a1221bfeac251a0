//! `submit-job web`: serves the pages.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
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
    #[arg(long, value_name = "NETWORK", env = "TARMAC_TRUSTED_PROXIES")]
    pub trusted_proxy: Vec<Networks>,
    /// Name that browsers reach the pages by, beside localhost and addresses; may be repeated
    #[arg(long, value_name = "NAME", env = "TARMAC_HOSTS")]
    pub host: Vec<Hosts>,
}

impl Web {
    /// The defaults, for these servers and this address.
    pub fn new(kafka: KafkaArgs, store: StoreArgs, listen: SocketAddr) -> Self {
        let requests_per_second = REQUESTS_PER_SECOND;
        Self { kafka, store, listen, requests_per_second, trusted_proxy: vec![], host: vec![] }
    }
}

/// What stands between commas; a variable of the environment that is empty names nothing.
fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// Networks, or addresses by themselves.
#[derive(Debug, Clone)]
pub struct Networks(Vec<IpNet>);

impl FromStr for Networks {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let network = |item: &str| {
            let address = || item.parse::<IpAddr>().map(IpNet::from);
            let network = item.parse::<IpNet>().or_else(|_| address());
            network.with_context(|| format!("{item} is no address and no network like 10.0.0.0/8"))
        };
        Ok(Self(items(text).map(network).collect::<Result<_>>()?))
    }
}

/// Names of hosts.
#[derive(Debug, Clone)]
pub struct Hosts(Vec<String>);

impl FromStr for Hosts {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let host = |item: &str| {
            let name = item.trim_end_matches('.').to_ascii_lowercase();
            let is_of_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
            ensure!(
                !name.is_empty() && name.bytes().all(is_of_name),
                "{item} is no name of a host: it stands alone, without https:// and a port"
            );
            Ok(name)
        };
        Ok(Self(items(text).map(host).collect::<Result<_>>()?))
    }
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
        request_topic: args.kafka.names.request_topic.clone(),
        response_topic: args.kafka.names.response_topic.clone(),
        store,
        requests_per_second: args.requests_per_second,
        proxies: args.trusted_proxy.iter().flat_map(|networks| networks.0.clone()).collect(),
        hosts: args.host.iter().flat_map(|hosts| hosts.0.clone()).collect(),
        now,
    };
    ::web::serve(listener, config, shutdown).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_hosts_are_read_from_lists_and_what_is_none_is_refused() {
        let networks = |text: &str| text.parse::<Networks>().map(|networks| networks.0.len());
        for (text, n) in [("", 0), ("10.0.0.0/8", 1), (" 192.0.2.1, fd00::/8 ,", 2)] {
            assert_eq!(networks(text).unwrap(), n, "{text:?}");
        }
        let hosts = |text: &str| text.parse::<Hosts>().map(|hosts| hosts.0);
        assert_eq!(hosts("Flights.example., a-b.c").unwrap(), ["flights.example", "a-b.c"]);
        assert!(hosts("").unwrap().is_empty());
        for wrong in ["https://flights.example", "flights.example:5000", "a b", "*", "."] {
            let error = hosts(wrong).unwrap_err().to_string();
            assert!(error.contains(wrong), "{error}");
        }
        assert!(networks("10.0.0.0/99").unwrap_err().to_string().contains("10.0.0.0/99"));
    }
}
