//! What processes and host use, read from `/proc`.

use std::io;
use std::time::Instant;

/// Processor time and memory of a process at one moment.
#[derive(Clone, Copy, Debug)]
pub struct ProcessSample {
    taken: Instant,
    cpu_seconds: f64,
    /// Bytes of memory that are in RAM.
    pub resident_bytes: u64,
}

/// Processor time and memory of the host at one moment.
#[derive(Clone, Copy, Debug)]
pub struct HostSample {
    busy_ticks: u64,
    all_ticks: u64,
    /// Bytes.
    pub memory_total: u64,
    /// Bytes that can be given out without swapping.
    pub memory_available: u64,
    /// Bytes not used at all.
    pub memory_free: u64,
}

fn unreadable() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "unexpected form of a file in /proc")
}

/// Memory of one process.
#[derive(Clone, Copy, Debug)]
pub struct MemorySample {
    /// Bytes in RAM, what it shares with others counted in proportion.
    pub proportional_bytes: u64,
    /// Bytes in RAM that it shares with nobody.
    pub private_bytes: u64,
}

impl MemorySample {
    /// Looks at process `pid`. Takes a millisecond for a process of 100 MB.
    ///
    /// # Errors
    /// When it does not exist or may not be looked at.
    pub fn take(pid: u32) -> io::Result<Self> {
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let kibibytes = |name: &str| {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().trim_end_matches(" kB").parse::<u64>().ok()
        };
        let bytes = |name| kibibytes(name).map(|kibibytes| kibibytes * 1024).ok_or_else(unreadable);
        Ok(Self {
            proportional_bytes: bytes("Pss:")?,
            private_bytes: bytes("Private_Clean:")? + bytes("Private_Dirty:")?,
        })
    }
}

impl ProcessSample {
    /// Looks at process `pid`.
    ///
    /// # Errors
    /// When it does not exist or may not be looked at.
    pub fn take(pid: u32) -> io::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name in parentheses may hold anything, also parentheses.
        let (_, fields) = stat.rsplit_once(')').ok_or_else(unreadable)?;
        let ticks = |index: usize| fields.split_ascii_whitespace().nth(index)?.parse::<u64>().ok();
        let (user, system) = ticks(11).zip(ticks(12)).ok_or_else(unreadable)?;
        let statm = std::fs::read_to_string(format!("/proc/{pid}/statm"))?;
        let pages = statm.split_ascii_whitespace().nth(1).and_then(|p| p.parse::<u64>().ok());
        Ok(Self {
            taken: Instant::now(),
            cpu_seconds: (user + system) as f64 / rustix::param::clock_ticks_per_second() as f64,
            resident_bytes: pages.ok_or_else(unreadable)? * rustix::param::page_size() as u64,
        })
    }

    /// Percent of one processor used since an earlier sample.
    #[must_use]
    pub fn cpu_percent_since(&self, earlier: &Self) -> f64 {
        let wall = self.taken.saturating_duration_since(earlier.taken).as_secs_f64();
        if wall > 0.0 { 100.0 * (self.cpu_seconds - earlier.cpu_seconds).max(0.0) / wall } else { 0.0 }
    }
}

impl HostSample {
    /// Looks at the host.
    ///
    /// # Errors
    /// When `/proc` is not there.
    pub fn take() -> io::Result<Self> {
        let stat = std::fs::read_to_string("/proc/stat")?;
        let ticks: Vec<u64> = stat
            .lines()
            .next()
            .ok_or_else(unreadable)?
            .split_ascii_whitespace()
            .skip(1)
            .take(8)
            .filter_map(|n| n.parse().ok())
            .collect();
        let idle: u64 = ticks.iter().skip(3).take(2).sum();
        let all: u64 = ticks.iter().sum();
        let meminfo = std::fs::read_to_string("/proc/meminfo")?;
        let kilobytes = |name: &str| {
            let line = meminfo.lines().find(|line| line.starts_with(name))?;
            line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()
        };
        let bytes = |name: &str| kilobytes(name).map(|k| k * 1024).ok_or_else(unreadable);
        Ok(Self {
            busy_ticks: all - idle,
            all_ticks: all,
            memory_total: bytes("MemTotal:")?,
            memory_available: bytes("MemAvailable:")?,
            memory_free: bytes("MemFree:")?,
        })
    }

    /// Percent of all processors used since an earlier sample.
    #[must_use]
    pub fn cpu_percent_since(&self, earlier: &Self) -> f64 {
        let all = self.all_ticks.saturating_sub(earlier.all_ticks);
        let busy = self.busy_ticks.saturating_sub(earlier.busy_ticks);
        if all > 0 { 100.0 * busy as f64 / all as f64 } else { 0.0 }
    }

    /// The host's name.
    #[must_use]
    pub fn name(&self) -> String {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_and_its_host_can_be_looked_at() {
        let (before, host) = (ProcessSample::take(std::process::id()).unwrap(), HostSample::take().unwrap());
        assert!(before.resident_bytes > 0);
        assert!(host.memory_total >= host.memory_available);
        let after = ProcessSample::take(std::process::id()).unwrap();
        assert!(after.cpu_percent_since(&before) >= 0.0);
        assert!(HostSample::take().unwrap().cpu_percent_since(&host) <= 100.0);
        assert!(ProcessSample::take(u32::MAX).is_err());
    }
}
