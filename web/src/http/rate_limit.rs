//! How much each client may ask: a bucket of requests that fills again at a set rate.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::http::clients::Client;

/// Seconds of requests that a client may save up: a page with all it loads, at once.
const SAVED_SECONDS: f64 = 5.0;
/// Clients that are remembered. When there are more, those that have saved up all they can, and so
/// are the same as new ones, are forgotten; when there are none of these, all are: a crowd of
/// addresses must not keep out the others.
const CLIENTS_MAX: usize = 10_000;

/// What the clients have asked lately.
pub(crate) struct RateLimits {
    per_second: f64,
    buckets: Mutex<HashMap<Client, Bucket>>,
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

    /// Takes a request out of a client's bucket, or says after how long there will be one.
    pub(crate) fn ask(&self, client: Client, now: Instant) -> Result<(), Duration> {
        let full = self.per_second * SAVED_SECONDS;
        let filled = |bucket: &Bucket| {
            let seconds = now.saturating_duration_since(bucket.at).as_secs_f64();
            (bucket.requests + seconds * self.per_second).min(full)
        };
        let mut buckets = self.buckets.lock();
        if buckets.len() >= CLIENTS_MAX && !buckets.contains_key(&client) {
            buckets.retain(|_, bucket| filled(bucket) < full);
            if buckets.len() >= CLIENTS_MAX {
                buckets.clear();
            }
        }
        let requests = buckets.get(&client).map_or(full, filled);
        let missing = 1.0 - requests;
        let requests = if missing <= 0.0 { requests - 1.0 } else { requests };
        buckets.insert(client, Bucket { requests, at: now });
        match missing <= 0.0 {
            true => Ok(()),
            false => Err(Duration::from_secs_f64(missing / self.per_second)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn client(i: u32) -> Client {
        IpAddr::from(i.to_be_bytes()).into()
    }

    #[test]
    fn a_client_that_asks_too_much_waits_and_others_do_not() {
        let clients = RateLimits::new(2);
        let (one, other) = (client(1), client(2));
        let start = Instant::now();
        let n_at_once = (0..100).filter(|_| clients.ask(one, start).is_ok()).count();
        assert_eq!(n_at_once, 10);
        assert_eq!(clients.ask(one, start), Err(Duration::from_millis(500)));
        assert!(clients.ask(other, start).is_ok());
        let later = start + Duration::from_secs(1);
        assert_eq!((0..100).filter(|_| clients.ask(one, later).is_ok()).count(), 2);
    }

    #[test]
    fn clients_are_forgotten_before_there_are_too_many() {
        let clients = RateLimits::new(2);
        let start = Instant::now();
        assert!((0..CLIENTS_MAX as u32).all(|i| clients.ask(client(i), start).is_ok()));
        assert!(clients.ask(client(u32::MAX), start + Duration::from_secs(9)).is_ok());
        assert_eq!(clients.buckets.lock().len(), 1, "all had saved up again");
        assert!((0..CLIENTS_MAX as u32).all(|i| clients.ask(client(i), start).is_ok()));
        assert!(clients.buckets.lock().len() <= CLIENTS_MAX);
    }
}
