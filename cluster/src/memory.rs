//! Memory of executors: how much they may take of this machine, or of the container they run in,
//! and how the scheduler knows what a task has.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
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

/// Stands before the bytes of a task in an executor's name.
const TASK_MEMORY: &str = "task-memory/";
/// Stands before what tells executors apart, in the same place.
const EXECUTOR: &str = "executor/";
/// How long an executor counts that says nothing more; those that live say something every few
/// seconds.
const REMEMBERED: Duration = Duration::from_secs(120);

/// What the executor that listens at `address` calls itself, whose tasks have `task_bytes` each.
pub fn agent(address: &SocketAddr, task_bytes: u64) -> String {
    format!("{AGENT} {TASK_MEMORY}{task_bytes} {EXECUTOR}{address}")
}

/// The memory of a task, in bytes, as the executors of a cluster have named it: of each executor
/// what it said last, and when.
#[derive(Debug, Clone, Default)]
pub struct TaskMemory(Arc<Mutex<HashMap<String, (usize, Instant)>>>);

impl TaskMemory {
    /// Takes note of the name of an executor that connects from `peer`.
    pub fn note(&self, peer: Option<IpAddr>, agent: &str, now: Instant) {
        let named = |start| agent.split_whitespace().find_map(|word| word.strip_prefix(start));
        let bytes = named(TASK_MEMORY).and_then(|text| text.parse().ok());
        if let (Some(bytes), Some(executor)) = (bytes, named(EXECUTOR)) {
            // in containers all may listen at the same address
            let executor = format!("{peer:?} {executor}");
            self.0.lock().insert(executor, (bytes, now));
        }
    }

    /// The least that an executor has which is there, when one is.
    pub fn bytes(&self, now: Instant) -> Option<usize> {
        let mut named = self.0.lock();
        named.retain(|_, (_, at)| now.duration_since(*at) < REMEMBERED);
        named.values().map(|(bytes, _)| *bytes).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_has_the_memory_of_the_smallest_executor_that_is_there() {
        let memory = TaskMemory::default();
        let [here, there] = ["127.0.0.1:1", "127.0.0.1:2"].map(|text| text.parse().unwrap());
        let at = Instant::now();
        assert_eq!(memory.bytes(at), None);
        memory.note(None, AGENT, at);
        assert_eq!(memory.bytes(at), None, "an executor that says nothing");
        memory.note(None, &agent(&here, 100), at);
        memory.note(None, &agent(&there, 70), at);
        assert_eq!(memory.bytes(at), Some(70));
        // one that is started again with more
        memory.note(None, &agent(&there, 170), at);
        assert_eq!(memory.bytes(at), Some(100));
        memory.note(None, &agent(&there, 170), at + REMEMBERED / 2);
        assert_eq!(memory.bytes(at + REMEMBERED), Some(170), "the other is gone");
    }
}
