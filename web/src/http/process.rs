//! What the process takes of its machine, by the names that Prometheus has for it.

use anyhow::{Context, Result};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, IntGauge, Registry};
use sysinfo::{Pid, Process, ProcessRefreshKind, ProcessesToUpdate, System};

/// What is read of a process; none where the system does not say.
type Reading = fn(&Process) -> Option<u64>;

/// The metrics of this process.
pub(crate) struct ProcessMetrics {
    registry: Registry,
    cpu_seconds: Counter,
    gauges: Vec<(IntGauge, Reading)>,
}

impl ProcessMetrics {
    pub(crate) fn new() -> Result<Self> {
        const READINGS: [(&str, &str, Reading); 5] = [
            ("resident_memory_bytes", "Memory in use.", |p| Some(p.memory())),
            ("virtual_memory_bytes", "Memory that is mapped.", |p| Some(p.virtual_memory())),
            ("open_fds", "Open files.", |p| p.open_files().map(|n| n as u64)),
            ("max_fds", "Files that may be open.", |p| p.open_files_limit().map(|n| n as u64)),
            ("start_time_seconds", "When it started, since 1970.", |p| Some(p.start_time())),
        ];
        let registry = Registry::new_custom(Some("process".into()), None)?;
        let cpu_seconds = Counter::new("cpu_seconds_total", "Time of cores, of all threads.")?;
        registry.register(Box::new(cpu_seconds.clone()))?;
        let mut gauges = Vec::new();
        for (name, help, read) in READINGS {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            gauges.push((gauge, read));
        }
        Ok(Self { registry, cpu_seconds, gauges })
    }

    /// As they are now.
    pub(crate) fn gather(&self) -> Result<Vec<MetricFamily>> {
        let (mut system, pid) = (System::new(), Pid::from_u32(std::process::id()));
        let what = ProcessRefreshKind::nothing().with_memory().with_cpu();
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, what);
        let process = system.process(pid).context("this process is not found")?;
        let seconds = process.accumulated_cpu_time() as f64 / 1000.0;
        // a scrape beside another may have counted further
        self.cpu_seconds.inc_by((seconds - self.cpu_seconds.get()).max(0.0));
        for (gauge, read) in &self.gauges {
            gauge.set(read(process).unwrap_or_default() as i64);
        }
        Ok(self.registry.gather())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_files_and_a_beginning() {
        let metrics = ProcessMetrics::new().unwrap();
        metrics.gather().unwrap();
        for (gauge, _) in &metrics.gauges {
            assert!(gauge.get() > 0, "{:?}", prometheus::core::Collector::desc(gauge));
        }
    }
}
