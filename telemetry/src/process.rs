//! Which build a process is, and what it takes of its machine, by the names that Prometheus has for
//! it.

use anyhow::{Context, Result};
use prometheus::{Counter, IntGauge, Opts, Registry, TextEncoder};
use sysinfo::{Pid, Process, ProcessRefreshKind, ProcessesToUpdate, System};

/// What is read of a process; none where the system does not say.
type Reading = fn(&Process) -> Option<u64>;

/// The metrics of this process.
pub struct ProcessMetrics {
    build: Registry,
    registry: Registry,
    cpu_seconds: Counter,
    gauges: Vec<(IntGauge, Reading)>,
}

impl ProcessMetrics {
    /// Those of a process that does what `role` says, such as `web`.
    pub fn new(role: &str) -> Result<Self> {
        const READINGS: [(&str, &str, Reading); 5] = [
            ("resident_memory_bytes", "Memory in use.", |p| Some(p.memory())),
            ("virtual_memory_bytes", "Memory that is mapped.", |p| Some(p.virtual_memory())),
            ("open_fds", "Open files.", |p| p.open_files().map(|n| n as u64)),
            ("max_fds", "Files that may be open.", |p| p.open_files_limit().map(|n| n as u64)),
            ("start_time_seconds", "When it started, since 1970.", |p| Some(p.start_time())),
        ];
        let build = Registry::new();
        let info = Opts::new("tarmac_build_info", "1 for the build that this process is.");
        let info = info.const_label("version", crate::VERSION).const_label("role", role);
        let info = IntGauge::with_opts(info)?;
        info.set(1);
        build.register(Box::new(info))?;
        let registry = Registry::new_custom(Some("process".into()), None)?;
        let cpu_seconds = Counter::new("cpu_seconds_total", "Time of cores, of all threads.")?;
        registry.register(Box::new(cpu_seconds.clone()))?;
        let mut gauges = Vec::new();
        for (name, help, read) in READINGS {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            gauges.push((gauge, read));
        }
        Ok(Self { build, registry, cpu_seconds, gauges })
    }

    /// As they are now, in the text format of Prometheus.
    pub fn to_text(&self) -> Result<String> {
        let mut system = System::new();
        let process = this_process(&mut system).context("this process is not found")?;
        let seconds = seconds_of(process);
        // a scrape beside another may have counted further
        self.cpu_seconds.inc_by((seconds - self.cpu_seconds.get()).max(0.0));
        for (gauge, read) in &self.gauges {
            gauge.set(read(process).unwrap_or_default() as i64);
        }
        let all = [self.build.gather(), self.registry.gather()].concat();
        Ok(TextEncoder::new().encode_to_string(&all)?)
    }
}

/// Seconds of cores that this process has taken so far, in all threads; 0 where the system does not
/// say.
pub fn cpu_seconds() -> f64 {
    this_process(&mut System::new()).map_or(0.0, seconds_of)
}

fn this_process(system: &mut System) -> Option<&Process> {
    let pid = Pid::from_u32(std::process::id());
    let what = ProcessRefreshKind::nothing().with_memory().with_cpu();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, what);
    system.process(pid)
}

fn seconds_of(process: &Process) -> f64 {
    process.accumulated_cpu_time() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_process_has_memory_files_and_a_beginning() {
        let metrics = ProcessMetrics::new("test").unwrap();
        let text = metrics.to_text().unwrap();
        let build = format!("tarmac_build_info{{role=\"test\",version=\"{}\"}} 1", crate::VERSION);
        assert!(text.contains(&build), "{text}");
        for (gauge, _) in &metrics.gauges {
            assert!(gauge.get() > 0, "{:?}", prometheus::core::Collector::desc(gauge));
        }
    }

    #[test]
    fn time_of_cores_grows_with_work() {
        let (before, begun) = (cpu_seconds(), Instant::now());
        let mut work = 1_u64;
        while cpu_seconds() - before < 0.02 {
            assert!(begun.elapsed() < Duration::from_secs(60), "{} s", cpu_seconds());
            work = std::hint::black_box(work.wrapping_mul(3));
        }
    }
}
