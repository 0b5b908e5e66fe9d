//! What this process uses of the machine, under the names that every exporter has for it.

use crate::{Machine, System};
use rootcast::exposition::{Exposition, Kind};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};
use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};

/// When this process first looked at itself, which is when it starts its listener.
static STARTED: LazyLock<Duration> =
    LazyLock::new(|| System.now().duration_since(UNIX_EPOCH).unwrap_or_default());

/// Notes the time of the start.
pub(super) fn begin() {
    LazyLock::force(&STARTED);
}

/// Adds CPU time, memory and open files. What the system does not tell is left out.
pub(super) fn measure(page: &mut Exposition) {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let cpu = Duration::new(cpu.tv_sec.unsigned_abs(), u32::try_from(cpu.tv_nsec).unwrap_or_default());
    page.family("process_cpu_seconds_total", Kind::Counter, "CPU time of all threads.").seconds(&[], cpu);
    if let Some(bytes) = resident() {
        page.family("process_resident_memory_bytes", Kind::Gauge, "Memory in use.").sample(&[], bytes);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        let open = open.count() as u64;
        page.family("process_open_fds", Kind::Gauge, "Open file descriptors.").sample(&[], open);
    }
    if let Some(most) = getrlimit(Resource::Nofile).current {
        page.family("process_max_fds", Kind::Gauge, "Most file descriptors allowed.").sample(&[], most);
    }
    page.family("process_start_time_seconds", Kind::Gauge, "When the process started, since 1970.")
        .seconds(&[], *STARTED);
}

fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
