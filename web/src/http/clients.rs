//! Who asks, and how much of what is scarce each client may hold.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use axum::http::HeaderMap;
use ipnet::IpNet;
use parking_lot::Mutex;

/// Header in which proxies say whom they ask for, the nearest last.
const FORWARDED_FOR: &str = "x-forwarded-for";
/// Bits of an IPv6 address that one household has for itself: the rest is chosen by its machines.
const HOUSEHOLD_BITS: u8 = 64;

/// Somebody who asks: an address of IPv4, or the network of an address of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Client(IpAddr);

impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Self {
        let address = address.to_canonical();
        let network = IpNet::new(address, HOUSEHOLD_BITS).map(|network| network.network());
        Self(if address.is_ipv6() { network.unwrap_or(address) } else { address })
    }
}

impl Client {
    /// Who asks through a connection from `peer`: the peer, or, where that is one of our proxies,
    /// whom the proxy asks for. What others say of themselves is not believed.
    pub(crate) fn of(peer: IpAddr, headers: &HeaderMap, proxies: &[IpNet]) -> Self {
        let peer = peer.to_canonical();
        if !is_in(proxies, peer) {
            return peer.into();
        }
        let lines = headers.get_all(FORWARDED_FOR).iter().rev();
        let addresses = lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(','));
        // from the nearest on; the first that is none of our proxies said the rest itself. Where
        // all are of networks of ours, the farthest is the one who asks
        let mut client = peer;
        for address in addresses.map_while(|text| address(text.trim())) {
            client = address;
            if !is_in(proxies, address) {
                break;
            }
        }
        client.into()
    }
}

/// Whether an address is one of `proxies`.
pub(crate) fn is_in(proxies: &[IpNet], address: IpAddr) -> bool {
    proxies.iter().any(|proxy| proxy.contains(&address.to_canonical()))
}

/// An address as proxies write it, with a port or without.
fn address(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    text.parse().ok().or_else(with_port).or_else(in_brackets).map(|ip: IpAddr| ip.to_canonical())
}

/// Things that clients hold for a while, such as event streams: so many in all, and so many each.
#[derive(Debug)]
pub(crate) struct Shares {
    all: usize,
    each: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    each: HashMap<Client, usize>,
}

/// One of the things, until it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    of: Arc<Shares>,
    client: Option<Client>,
}

/// Why there is no share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// All are held.
    All,
    /// The client holds as many as one may.
    Own,
}

impl Shares {
    pub(crate) fn new(all: usize, each: usize) -> Arc<Self> {
        Arc::new(Self { all, each, held: Mutex::default() })
    }

    /// Takes one for a client, or for one whose share is not counted, such as a proxy.
    pub(crate) fn take(self: &Arc<Self>, client: Option<Client>) -> Result<Share, Full> {
        let mut held = self.held.lock();
        if held.all >= self.all {
            return Err(Full::All);
        }
        if let Some(client) = client {
            let own = held.each.get(&client).copied().unwrap_or_default();
            if own >= self.each {
                return Err(Full::Own);
            }
            held.each.insert(client, own + 1);
        }
        held.all += 1;
        Ok(Share { of: Arc::clone(self), client })
    }

    /// How many are held.
    pub(crate) fn n_held(&self) -> usize {
        self.held.lock().all
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.of.held.lock();
        held.all -= 1;
        let Some(client) = self.client else { return };
        // none for who holds nothing: there are never more clients than shares
        match held.each.get_mut(&client) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(held.each.remove(&client)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Client {
        Client::from(text.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn a_client_is_the_peer_unless_one_of_our_proxies_says_otherwise() {
        let proxies: Vec<IpNet> = ["10.0.0.0/8", "fd00::/8"].map(|p| p.parse().unwrap()).to_vec();
        for (peer, lines, want) in [
            ("192.0.2.1", &[][..], "192.0.2.1"),
            ("192.0.2.1", &["198.51.100.7"], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.7"], "198.51.100.7"),
            ("::ffff:10.0.0.1", &["198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["203.0.113.9, 198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["203.0.113.9", "198.51.100.7, 10.0.0.2"], "198.51.100.7"),
            ("10.0.0.1", &["198.51.100.7:4711"], "198.51.100.7"),
            ("10.0.0.1", &["[2001:db8::7]:4711"], "2001:db8::"),
            ("10.0.0.1", &["[2001:db8::7]"], "2001:db8::"),
            // what cannot be read, and all that stands before it, says nothing
            ("10.0.0.1", &["198.51.100.7, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.7, unknown, 10.0.0.2"], "10.0.0.2"),
            // people within the network of the proxies
            ("10.0.0.1", &["10.1.2.3"], "10.1.2.3"),
            ("10.0.0.1", &["10.1.2.3, 10.0.0.2"], "10.1.2.3"),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(FORWARDED_FOR, line.parse().unwrap());
            }
            let found = Client::of(peer.parse().unwrap(), &headers, &proxies);
            assert_eq!(found, client(want), "{peer} {lines:?}");
        }
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:1"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
    }

    #[test]
    fn a_client_has_its_share_and_others_theirs() {
        let (shares, one) = (Shares::new(3, 2), Some(client("192.0.2.1")));
        let held = [shares.take(one).unwrap(), shares.take(one).unwrap()];
        assert_eq!(shares.take(one).unwrap_err(), Full::Own);
        let other = shares.take(Some(client("192.0.2.2"))).unwrap();
        assert_eq!(shares.take(Some(client("192.0.2.3"))).unwrap_err(), Full::All);
        assert_eq!(shares.take(None).unwrap_err(), Full::All);
        drop(held);
        assert!(shares.take(one).is_ok() && shares.take(None).is_ok());
        drop(other);
        assert_eq!(shares.n_held(), 0);
        assert!(shares.held.lock().each.is_empty());
    }
}
