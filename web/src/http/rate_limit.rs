//! How much each client may ask: a bucket of requests that fills again at a set rate.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use parking_lot::Mutex;

/// Seconds of requests that a client may save up: a page with all it loads, at once.
const SAVED_SECONDS: f64 = 5.0;
/// Clients that are remembered. When there are more, those that have saved up all they can, and so
/// are the same as new ones, are forgotten.
const CLIENTS_MAX: usize = 10_000;

/// What the clients have asked lately.
pub(crate) struct RateLimits {
    per_second: f64,
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
}

#[derive(Clone, Copy)]
struct Bucket {
    requests: f64,
    at: Instant,
}

impl RateLimits {
    pub(crate) fn new(per_second: u32) -> Self {
        Self { per_second: per_second.into(), buckets: Mutex::default() }
    }

    /// Takes a request out of a client's bucket; whether there was one.
    pub(crate) fn may_ask(&self, client: IpAddr, now: Instant) -> bool {
        let full = self.per_second * SAVED_SECONDS;
        let filled = |bucket: &Bucket| {
            let seconds = now.saturating_duration_since(bucket.at).as_secs_f64();
            (bucket.requests + seconds * self.per_second).min(full)
        };
        let mut buckets = self.buckets.lock();
        if buckets.len() >= CLIENTS_MAX && !buckets.contains_key(&client) {
            buckets.retain(|_, bucket| filled(bucket) < full);
            if buckets.len() >= CLIENTS_MAX {
                return false;
            }
        }
        let requests = buckets.get(&client).map_or(full, filled);
        let may = requests >= 1.0;
        let requests = if may { requests - 1.0 } else { requests };
        buckets.insert(client, Bucket { requests, at: now });
        may
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_client_that_asks_too_much_waits_and_others_do_not() {
        let clients = RateLimits::new(2);
        let (one, other) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let start = Instant::now();
        let n_at_once = (0..100).filter(|_| clients.may_ask(one, start)).count();
        assert_eq!(n_at_once, 10);
        assert!(clients.may_ask(other, start));
        let later = start + Duration::from_secs(1);
        assert_eq!((0..100).filter(|_| clients.may_ask(one, later)).count(), 2);
    }

    #[test]
    fn clients_are_forgotten_before_there_are_too_many() {
        let clients = RateLimits::new(2);
        let start = Instant::now();
        let client = |i: u32| IpAddr::from(i.to_be_bytes());
        assert!((0..CLIENTS_MAX as u32).all(|i| clients.may_ask(client(i), start)));
        assert!(!clients.may_ask(client(u32::MAX), start), "all of them have just asked");
        assert!(clients.may_ask(client(u32::MAX), start + Duration::from_secs(9)));
        assert_eq!(clients.buckets.lock().len(), 1);
    }
}
