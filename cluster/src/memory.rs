//! Memory of executors: how much they may take of this machine, or of the container they run in,
//! and how the scheduler knows what a task has.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sysinfo::System;

use crate::tls::AGENT;

/// Of all memory, what executors take for joins, groups and sorts; the rest is for what they read
/// and send, for the other programs and for the system.
const SHARE: f64 = 0.6;
/// Least, in MiB: sorts of a few batches.
const LEAST_MIB: u64 = 64;

/// What each of `n_executors` on this machine takes, in MiB.
pub fn share_mib(n_executors: usize) -> u64 {
    let mut system = System::new();
    system.refresh_memory();
    // of a container, its limit
    let limit = system.cgroup_limits().map_or(u64::MAX, |limits| limits.total_memory);
    let bytes = system.total_memory().min(limit) as f64 * SHARE / n_executors.max(1) as f64;
    ((bytes / (1024.0 * 1024.0)) as u64).max(LEAST_MIB)
}

/// Stands before the bytes in an executor's name.
const TASK_MEMORY: &str = "task-memory/";

/// What an executor calls itself whose tasks have `task_bytes` each.
pub fn agent(task_bytes: u64) -> String {
    format!("{AGENT} {TASK_MEMORY}{task_bytes}")
}

/// The memory of a task, in bytes: the least that an executor of this cluster has named.
#[derive(Debug, Clone)]
pub struct TaskMemory(Arc<AtomicU64>);

impl Default for TaskMemory {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(u64::MAX)))
    }
}

impl TaskMemory {
    /// Takes note of an executor's name.
    pub fn note(&self, agent: &str) {
        let named = agent.split_whitespace().find_map(|word| word.strip_prefix(TASK_MEMORY));
        if let Some(bytes) = named.and_then(|text| text.parse().ok()) {
            self.0.fetch_min(bytes, Ordering::Relaxed);
        }
    }

    /// The bytes, when an executor has named them.
    pub fn bytes(&self) -> Option<usize> {
        usize::try_from(self.0.load(Ordering::Relaxed)).ok().filter(|bytes| *bytes < usize::MAX)
    }
}
