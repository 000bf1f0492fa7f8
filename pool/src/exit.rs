//! How a worker ended, in words.

use cob_protocol::limits::{MIB, STALLED_MS};
use serde::{Deserialize, Serialize};

/// How a worker ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Exit {
    /// With this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
    /// The system killed it because its session reached its memory limit, in bytes.
    MemoryLimit(u64),
    /// It used up the processor time of its session, in seconds.
    CpuLimit(u64),
    /// It was stopped by this signal for too long, and killed.
    Stalled(i32),
    /// Nobody could say: its parent went away before it.
    Unknown,
    /// It was killed because it broke the protocol.
    Violation(String),
    /// It was killed because its transport failed.
    Transport(String),
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status(status) => write!(f, "exited with status {status} before finishing"),
            Self::Signal(signal) => match signal_name(*signal) {
                Some(name) => write!(f, "was killed by signal {signal} ({name})"),
                None => write!(f, "was killed by signal {signal}"),
            },
            Self::MemoryLimit(bytes) => {
                write!(f, "was killed at the memory limit of its session, {}", Bytes(*bytes))
            }
            Self::CpuLimit(seconds) => {
                write!(f, "was killed at the limit of its session, {seconds} s of processor time")
            }
            Self::Stalled(signal) => {
                let name = signal_name(*signal).unwrap_or("a signal");
                write!(f, "was stopped by {name} for {} s and killed", STALLED_MS / 1000)
            }
            Self::Unknown => f.write_str("ended, and nobody could say how"),
            Self::Violation(what) => write!(f, "was killed for a protocol violation: {what}"),
            Self::Transport(what) => write!(f, "was killed because its transport failed: {what}"),
        }
    }
}

/// A size for people.
struct Bytes(u64);

impl std::fmt::Display for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 / MIB as u64 {
            0 => write!(f, "{} bytes", self.0),
            mebibytes => write!(f, "{mebibytes} MiB"),
        }
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        libc::SIGSTOP => "SIGSTOP",
        libc::SIGTSTP => "SIGTSTP",
        libc::SIGTTIN => "SIGTTIN",
        libc::SIGTTOU => "SIGTTOU",
        libc::SIGSYS => "SIGSYS",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_names_its_signal_or_status() {
        assert_eq!(Exit::Signal(libc::SIGKILL).to_string(), "was killed by signal 9 (SIGKILL)");
        assert_eq!(Exit::Signal(63).to_string(), "was killed by signal 63");
        assert_eq!(Exit::Status(3).to_string(), "exited with status 3 before finishing");
    }
}
