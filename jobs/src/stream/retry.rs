//! Patience with what a stream writes to: a sink that fails is tried again, for ever unless told
//! otherwise, because its faults are no fault of the message.

use std::time::Duration;

use anyhow::anyhow;
use futures::future::{BoxFuture, Shared};
use store::WriteError;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::stream::metrics::Metrics;

/// Pause after the first failed attempt; doubled after each.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause: a sink that is back is noticed within it.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long one attempt may take. A server that was stopped answers nothing, and says nothing
/// either; MongoDB ends a transaction after the same time.
const ATTEMPT: Duration = Duration::from_secs(60);
/// How long a job that is stopped goes on trying: supervisors wait 10 s, or 30, and kill.
const GRACE: Duration = Duration::from_secs(5);

/// Why a micro-batch is not answered.
pub(crate) enum Stop {
    /// A rebalance revoked the partitions.
    Lost,
    /// Another process has acquired this partition.
    Fenced(String),
    /// The job must end.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// Done when the job is told to end, with the time at which that was noticed.
pub(crate) type Shutdown<'a> = Shared<BoxFuture<'a, Instant>>;

/// How often something is tried.
pub(crate) struct Retry<'a> {
    give_up_after: Option<Duration>,
    metrics: &'a Metrics,
    shutdown: Shutdown<'a>,
}

impl<'a> Retry<'a> {
    pub(crate) fn new(
        give_up_after: Option<Duration>,
        metrics: &'a Metrics,
        shutdown: Shutdown<'a>,
    ) -> Self {
        Self { give_up_after, metrics, shutdown }
    }

    /// Done when a job that was told to end should be over with what it does: all that follows
    /// has the same grace, not one each.
    pub(crate) async fn grace_is_over(&self) {
        sleep_until(self.shutdown.clone().await + GRACE).await;
    }

    /// Tries until `attempt` succeeds, unless the assignment is `lost`, somebody else has acquired
    /// a partition, the error is permanent, it takes too long, or the job is to end.
    pub(crate) async fn until_done<T>(
        &self,
        sink: &'static str,
        lost: impl Future<Output = ()>,
        mut attempt: impl AsyncFnMut() -> Result<T, WriteError>,
    ) -> Result<T, Stop> {
        let attempt = async || {
            let attempted = timeout(ATTEMPT, attempt()).await;
            attempted
                .unwrap_or_else(|_| Err(anyhow!("no answer within {} s", ATTEMPT.as_secs()).into()))
        };
        self.until_done_slowly(sink, lost, attempt).await
    }

    /// The same for an `attempt` that may take long, and ends by itself when nobody answers.
    pub(crate) async fn until_done_slowly<T>(
        &self,
        sink: &'static str,
        lost: impl Future<Output = ()>,
        mut attempt: impl AsyncFnMut() -> Result<T, WriteError>,
    ) -> Result<T, Stop> {
        let started = Instant::now();
        let trying = async {
            let mut pause = PAUSE_MIN;
            loop {
                let error = match attempt().await {
                    Ok(done) => return Ok(done),
                    Err(WriteError::Fenced(lease)) => return Err(Stop::Fenced(lease)),
                    Err(WriteError::Permanent(error)) => {
                        let what = format!("{sink}: it is refused, and would be again");
                        return Err(Stop::Failed(error.context(what)));
                    }
                    Err(WriteError::Passing(error)) => error,
                };
                self.metrics.set_down(sink, true);
                self.metrics.sink_retries_total.with_label_values(&[sink]).inc();
                let is_over = |limit| started.elapsed() >= limit;
                if self.shutdown.peek().is_some() {
                    let what = format!("{sink}: not done when told to end; the next job does it");
                    return Err(Stop::Failed(error.context(what)));
                }
                if self.give_up_after.is_some_and(is_over) {
                    return Err(Stop::Failed(error.context(format!("{sink}: given up"))));
                }
                let pause_ms = pause.as_millis();
                tracing::warn!(sink, error = format!("{error:#}"), pause_ms, "trying again");
                tokio::select! {
                    () = sleep(pause) => {}
                    _ = self.shutdown.clone() => {}
                }
                pause = (2 * pause).min(PAUSE_MAX);
            }
        };
        let tried = tokio::select! {
            biased;
            () = lost => Err(Stop::Lost),
            tried = trying => tried,
            () = self.grace_is_over() => Err(Stop::Failed(anyhow!(
                "{sink}: not done within {} s of being told to end; the next job does it",
                GRACE.as_secs()
            ))),
        };
        // where the assignment is lost, the next attempt says so
        self.metrics.set_down(sink, false);
        tried
    }
}
