//! Whether what a stream depends on answers, also while there is nothing to do.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use anyhow::{Result, anyhow, bail};
use store::Store;

/// How long a server may be silent before the stream says that it is not ready.
pub const SILENCE_MAX: Duration = Duration::from_secs(15);
/// How often the store is asked whether it is there.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long the store may take to say so.
const LOOK_WAIT: Duration = Duration::from_secs(10);

/// What a stream depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// The broker that requests come from.
    Kafka,
    /// Where answers are kept.
    Store,
}

impl Server {
    fn name(self) -> &'static str {
        match self {
            Self::Kafka => "Kafka",
            Self::Store => "the store",
        }
    }
}

/// Since when each server has not answered, and what keeps requests from being read.
#[derive(Debug, Default)]
pub struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    kafka: Option<Trouble>,
    store: Option<Trouble>,
    damage: Option<Trouble>,
}

/// What is wrong, and since when.
#[derive(Debug, Clone)]
struct Trouble {
    since: Instant,
    what: String,
}

impl Health {
    fn lock(&self) -> MutexGuard<'_, State> {
        // each holder changes one value
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A server answered.
    pub fn heard(&self, server: Server) {
        *self.lock().of(server) = None;
    }

    /// A server that was asked at `since` did not answer, or with this error.
    pub fn complain(&self, server: Server, complaint: String, since: Instant) {
        self.lock().complain(server, complaint, since);
    }

    /// Requests cannot be read although the broker answers, and why, which does not pass by itself;
    /// whether that was known.
    pub(crate) fn damaged(&self, what: String) -> bool {
        self.lock().damaged(what, Instant::now())
    }

    /// They can be read again.
    pub(crate) fn mended(&self) {
        self.lock().damage = None;
    }

    /// Why requests cannot be answered for longer than [`SILENCE_MAX`], or for good; if so.
    pub fn unready(&self) -> Option<String> {
        self.lock().unready(Instant::now())
    }

    /// Why to give up, when something is away or broken for at least `limit`.
    pub fn give_up(&self, limit: Duration) -> Option<String> {
        self.lock().give_up(limit, Instant::now())
    }
}

impl State {
    fn of(&mut self, server: Server) -> &mut Option<Trouble> {
        match server {
            Server::Kafka => &mut self.kafka,
            Server::Store => &mut self.store,
        }
    }

    fn complain(&mut self, server: Server, what: String, since: Instant) {
        let trouble = self.of(server);
        let since = trouble.as_ref().map_or(since, |before| before.since);
        *trouble = Some(Trouble { since, what });
    }

    fn damaged(&mut self, what: String, now: Instant) -> bool {
        let before = self.damage.as_ref();
        if before.is_some_and(|damage| damage.what == what) {
            return true;
        }
        let since = before.map_or(now, |damage| damage.since);
        self.damage = Some(Trouble { since, what });
        false
    }

    fn unready(&mut self, now: Instant) -> Option<String> {
        let damage = self.damage.as_ref().map(|damage| damage.what.clone());
        damage.or_else(|| self.away(SILENCE_MAX, now))
    }

    fn give_up(&mut self, limit: Duration, now: Instant) -> Option<String> {
        let damage = self.damage.as_ref();
        let damage = damage.filter(|damage| now.duration_since(damage.since) >= limit);
        damage.map(|damage| damage.what.clone()).or_else(|| self.away(limit, now))
    }

    fn away(&mut self, limit: Duration, now: Instant) -> Option<String> {
        [Server::Kafka, Server::Store].into_iter().find_map(|server| {
            let Trouble { since, what } = self.of(server).as_ref()?;
            let silence = now.duration_since(*since);
            let (name, seconds) = (server.name(), silence.as_secs());
            (silence >= limit).then(|| format!("{name} does not answer since {seconds} s: {what}"))
        })
    }
}

/// Asks the store from time to time whether it is there, and notices what has become of it. Errors
/// when anything is away for `give_up_after`.
pub async fn watch(
    store: &Store,
    health: &Health,
    give_up_after: Option<Duration>,
) -> Result<std::convert::Infallible> {
    loop {
        let since = Instant::now();
        let looked = timeout(LOOK_WAIT, store.look()).await;
        match looked.unwrap_or_else(|_| Err(anyhow!("no answer within {LOOK_WAIT:?}"))) {
            Ok(()) => health.heard(Server::Store),
            Err(error) => health.complain(Server::Store, format!("{error:#}"), since),
        }
        if let Some(why) = give_up_after.and_then(|limit| health.give_up(limit)) {
            bail!("given up: {why}");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_server_that_is_silent_makes_the_stream_unready_and_then_give_up() {
        let start = Instant::now();
        let mut health = State::default();
        health.complain(Server::Kafka, "no such host".into(), start);
        assert_eq!(health.unready(start), None, "it may be back at once");
        let later = start + SILENCE_MAX;
        health.complain(Server::Kafka, "kafka:9092: no such host".into(), later);
        let why = health.unready(later).unwrap();
        assert_eq!(why, "Kafka does not answer since 15 s: kafka:9092: no such host");
        assert_eq!(health.give_up(seconds(20), later), None);
        assert!(health.give_up(seconds(20), start + seconds(20)).is_some());
        *health.of(Server::Kafka) = None;
        assert_eq!(health.unready(later), None);
    }

    #[test]
    fn what_cannot_be_read_counts_at_once_and_is_told_once() {
        let start = Instant::now();
        let mut health = State::default();
        assert!(!health.damaged("requests/0 at 7: bad batch".into(), start));
        assert!(health.damaged("requests/0 at 7: bad batch".into(), start));
        assert_eq!(health.unready(start).unwrap(), "requests/0 at 7: bad batch");
        assert_eq!(health.give_up(seconds(10), start + seconds(9)), None);
        // another place is the same trouble
        assert!(!health.damaged("requests/0 at 8: bad batch".into(), start + seconds(9)));
        assert!(health.give_up(seconds(10), start + seconds(10)).is_some());
        health.damage = None;
        assert_eq!(health.unready(start), None);
    }
}
