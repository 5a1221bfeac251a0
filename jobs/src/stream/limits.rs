//! How much of a topic a stream holds in memory.

/// How much is held at a time, in messages and in bytes of their keys and values.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Messages of a micro-batch.
    pub batch_rows: usize,
    /// Bytes of a micro-batch.
    pub batch_bytes: usize,
    /// Messages that wait to become a micro-batch; partitions are paused beyond.
    pub queue_rows: usize,
    /// Bytes that wait to become a micro-batch; partitions are paused beyond.
    pub queue_bytes: usize,
}
