//! What a stream has done so far.

use crate::stream::chunks::is_expired;
use crate::stream::metrics::Metrics;
use crate::stream::micro_batch::{Message, ScoredBatch};

/// What a stream did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamStats {
    /// Messages read.
    pub n_messages: u64,
    /// Requests answered for the first time.
    pub n_answered: u64,
    /// Requests that had been answered before.
    pub n_repeated: u64,
    /// Dead letters written.
    pub n_dead_letters: u64,
    /// Micro-batches that held messages.
    pub n_batches: u64,
}

impl StreamStats {
    /// Counts `n_messages` whose answers can be read since `now_ms`; Kafka got them at
    /// `created_ms`, and `n_kept` of their answers were there before.
    pub(crate) fn count(
        &mut self,
        n_messages: u64,
        scored: &ScoredBatch,
        n_kept: usize,
        created_ms: &[i64],
        now_ms: i64,
        metrics: &Metrics,
    ) {
        let n_expired = scored.answers.iter().filter(|a| is_expired(a)).count();
        let n_repeated = (scored.n_repeated + n_kept) as u64;
        let n_answered = (scored.answers.len() - n_kept) as u64;
        self.n_messages += n_messages;
        self.n_answered += n_answered;
        self.n_repeated += n_repeated;
        self.n_dead_letters += scored.dead_letters.len() as u64;
        metrics.messages_total.inc_by(n_messages);
        metrics.health.count(n_messages);
        let answers = |status: &str| metrics.answers_total.with_label_values(&[status]);
        answers("expired").inc_by(n_expired as u64);
        answers("ok").inc_by(n_answered.saturating_sub(n_expired as u64));
        answers("repeated").inc_by(n_repeated);
        for letter in &scored.dead_letters {
            let Message { partition, offset, .. } = letter.message;
            tracing::debug!(partition, offset, reason = letter.reason, "dead letter");
            metrics.dead_letters_total.with_label_values(&[letter.kind]).inc();
        }
        for created_ms in created_ms {
            let seconds = (now_ms - created_ms).max(0) as f64 / 1e3;
            metrics.latency_seconds.observe(seconds);
        }
    }
}
