//! How a stream is doing: whether what it depends on answers, also while there is nothing to do,
//! which model serves, and how far behind it is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use events::StreamStatus;
use parking_lot::Mutex;
use store::Store;
use tokio::time::{Instant, timeout};

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

/// How a stream is doing.
#[derive(Debug, Default)]
pub struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    kafka: Option<Trouble>,
    store: Option<Trouble>,
    damage: Option<Trouble>,
    /// Whether the consumer group has ever assigned partitions to us, none of them included.
    is_member: bool,
    /// Sinks that fail now.
    down: BTreeSet<&'static str>,
    /// Messages that are not answered, by partition.
    lags: BTreeMap<i32, i64>,
    /// Version of the model that serves, and its drift by feature.
    model: String,
    drift: BTreeMap<String, f64>,
    n_drift_rows: u64,
    /// Messages dealt with.
    n_messages: u64,
}

/// What is wrong, and since when.
#[derive(Debug, Clone)]
struct Trouble {
    since: Instant,
    what: String,
}

impl Health {
    /// A server answered.
    pub fn heard(&self, server: Server) {
        *self.0.lock().of(server) = None;
    }

    /// A server that was asked at `since` did not answer, or with this error.
    pub fn complain(&self, server: Server, complaint: String, since: Instant) {
        self.0.lock().complain(server, complaint, since);
    }

    /// Requests cannot be read although the broker answers, and why, which does not pass by itself;
    /// whether that was known.
    pub(crate) fn damaged(&self, what: String) -> bool {
        self.0.lock().damaged(what, Instant::now())
    }

    /// They can be read again.
    pub(crate) fn mended(&self) {
        self.0.lock().damage = None;
    }

    pub(crate) fn set_lag(&self, partition: i32, n_messages: i64) {
        self.0.lock().lags.insert(partition, n_messages);
    }

    /// The partitions that are ours, once something is known of them.
    pub fn partitions(&self) -> Vec<i32> {
        self.0.lock().lags.keys().copied().collect()
    }

    pub(crate) fn forget_partitions(&self) {
        self.0.lock().lags.clear();
    }

    pub(crate) fn rebalanced(&self) {
        self.0.lock().is_member = true;
    }

    pub(crate) fn set_model(&self, version: &str) {
        let mut state = self.0.lock();
        state.model = version.to_owned();
        state.drift.clear();
        state.n_drift_rows = 0;
    }

    pub(crate) fn set_drift_rows(&self, n_rows: u64) {
        self.0.lock().n_drift_rows = n_rows;
    }

    pub(crate) fn set_drift(&self, feature: &str, psi: f64) {
        self.0.lock().drift.insert(feature.to_owned(), psi);
    }

    pub(crate) fn set_down(&self, sink: &'static str, is_down: bool) {
        let mut state = self.0.lock();
        if is_down {
            state.down.insert(sink)
        } else {
            state.down.remove(sink)
        };
    }

    pub(crate) fn count(&self, n_messages: u64) {
        self.0.lock().n_messages += n_messages;
    }

    /// The status of a job of `group` that holds partitions; `before` is the status of `seconds`
    /// ago.
    pub fn status(
        &self,
        group: &str,
        at: String,
        before: Option<(&StreamStatus, f64)>,
    ) -> Option<StreamStatus> {
        let State { lags, model, drift, n_drift_rows, n_messages, .. } = &*self.0.lock();
        let (first_partition, _) = lags.first_key_value()?;
        let rate = before.map_or(0.0, |(before, seconds)| {
            n_messages.saturating_sub(before.messages) as f64 / seconds
        });
        Some(StreamStatus {
            id: format!("{group}/{first_partition}"),
            at,
            model: model.clone(),
            messages: *n_messages,
            messages_per_second: rate,
            lag: lags.values().sum::<i64>().unsigned_abs(),
            drift: drift.clone(),
            drift_rows: *n_drift_rows,
        })
    }

    /// Why requests cannot be answered: a server has been silent for longer than [`SILENCE_MAX`],
    /// messages cannot be read, the group has not let us in, or a sink of answers or dead letters
    /// fails; if so.
    pub fn unready(&self) -> Option<String> {
        self.0.lock().unready(Instant::now())
    }

    /// Why to give up, when something is away or broken for at least `limit`.
    pub fn give_up(&self, limit: Duration) -> Option<String> {
        self.0.lock().give_up(limit, Instant::now())
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
        let away = damage.or_else(|| self.away(SILENCE_MAX, now));
        away.or_else(|| self.idle().map(str::to_owned))
    }

    /// Why no request is being answered although servers are there; if so.
    fn idle(&self) -> Option<&'static str> {
        let is_down = |sink| self.down.contains(sink);
        if !self.is_member {
            return Some("the consumer group has not let us in");
        }
        if is_down("store") {
            return Some("the store does not take answers");
        }
        let is_mute = is_down("answers") || is_down("dead_letters");
        is_mute.then_some("Kafka does not take records")
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
        let mut health = State { is_member: true, ..State::default() };
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
        let mut health = State { is_member: true, ..State::default() };
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

    #[test]
    fn a_stream_is_ready_when_it_is_in_the_group_and_its_sinks_take_what_it_writes() {
        let health = Health::default();
        assert_eq!(health.unready().unwrap(), "the consumer group has not let us in");
        health.rebalanced();
        assert_eq!(health.unready(), None);
        for (sink, why) in [
            ("store", "the store does not take answers"),
            ("answers", "Kafka does not take records"),
            ("dead_letters", "Kafka does not take records"),
        ] {
            health.set_down(sink, true);
            assert_eq!(health.unready().unwrap(), why);
            health.set_down(sink, false);
            assert_eq!(health.unready(), None);
        }
    }

    #[test]
    fn a_status_tells_of_the_partitions_that_are_held() {
        let health = Health::default();
        let status = |before| health.status("group", "now".into(), before);
        assert_eq!(status(None), None, "no partition, no status");
        health.set_lag(10, 3);
        health.set_lag(2, 4);
        health.set_model("abc");
        health.set_drift("carrier", 0.5);
        health.set_drift_rows(7);
        health.count(10);
        let first = status(None).unwrap();
        assert_eq!((first.id.as_str(), first.lag, first.model.as_str()), ("group/2", 7, "abc"));
        assert_eq!((first.drift["carrier"], first.drift_rows), (0.5, 7));
        health.count(30);
        assert_eq!(status(Some((&first, 6.0))).unwrap().messages_per_second, 5.0);
        health.forget_partitions();
        assert_eq!(status(None), None);
        health.set_model("another");
        health.set_lag(2, 0);
        let status = status(None).unwrap();
        assert!(status.drift.is_empty(), "the drift was against the one before");
        assert_eq!(status.drift_rows, 0);
    }
}
