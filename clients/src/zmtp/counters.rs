//! What happened to the peers of a socket, in numbers, and the log lines about it.
//!
//! Strangers can cause any number of faults, so lines about them are limited to one a second, each with the
//! count of those that were not written.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::fault::{Class, Fault};
use super::peer::lock;

const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Numbers of one socket since it was bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Peers connected now.
    pub peers: u64,
    /// Peers that finished their handshake.
    pub admitted: u64,
    /// Connections refused in the handshake: too late, too many, wrong kind of socket, other mechanism.
    pub rejected: u64,
    /// Connections closed because the peer broke the protocol or stopped in the middle of a message.
    pub malformed: u64,
    /// Connections refused because they come from a process of another user; they are among the rejected too.
    pub other_users: u64,
    /// Connections refused because nobody has authorised their key; they are among the rejected too.
    pub unknown_keys: u64,
    /// Connections given up because nothing came from them, not even an answer to PING.
    pub silent: u64,
    /// Peers cut off because they did not keep up.
    pub cut_off: u64,
    /// Connections closed because the same identity connected again.
    pub taken_over: u64,
    /// Failed calls of `accept`.
    pub accept_errors: u64,
}

impl std::iter::Sum for Counters {
    fn sum<I: Iterator<Item = Self>>(counters: I) -> Self {
        counters.fold(Self::default(), |a, b| Counters {
            peers: a.peers + b.peers,
            admitted: a.admitted + b.admitted,
            rejected: a.rejected + b.rejected,
            malformed: a.malformed + b.malformed,
            other_users: a.other_users + b.other_users,
            unknown_keys: a.unknown_keys + b.unknown_keys,
            silent: a.silent + b.silent,
            cut_off: a.cut_off + b.cut_off,
            taken_over: a.taken_over + b.taken_over,
            accept_errors: a.accept_errors + b.accept_errors,
        })
    }
}

/// The same numbers while they change.
#[derive(Debug, Default)]
pub(super) struct Tally {
    admitted: AtomicU64,
    rejected: AtomicU64,
    malformed: AtomicU64,
    other_users: AtomicU64,
    unknown_keys: AtomicU64,
    silent: AtomicU64,
    cut_off: AtomicU64,
    taken_over: AtomicU64,
    accept_errors: AtomicU64,
    strangers: Throttle,
    accepts: Throttle,
}

impl Tally {
    pub(super) fn snapshot(&self, peers: usize) -> Counters {
        Counters {
            peers: peers as u64,
            admitted: self.admitted.load(Relaxed),
            rejected: self.rejected.load(Relaxed),
            malformed: self.malformed.load(Relaxed),
            other_users: self.other_users.load(Relaxed),
            unknown_keys: self.unknown_keys.load(Relaxed),
            silent: self.silent.load(Relaxed),
            cut_off: self.cut_off.load(Relaxed),
            taken_over: self.taken_over.load(Relaxed),
            accept_errors: self.accept_errors.load(Relaxed),
        }
    }

    pub(super) fn admitted(&self) {
        self.admitted.fetch_add(1, Relaxed);
    }

    /// Counts and logs the end of a connection.
    pub(super) fn ended(&self, socket: &str, peer: &str, fault: &Fault) {
        match fault {
            Fault::TakenOver => drop(self.taken_over.fetch_add(1, Relaxed)),
            Fault::OtherUser(_) => drop(self.other_users.fetch_add(1, Relaxed)),
            Fault::UnknownKey(_) => drop(self.unknown_keys.fetch_add(1, Relaxed)),
            _ => {}
        }
        match fault.class() {
            Class::Ended => debug!(socket, peer, reason = %fault, "connection ended"),
            Class::CutOff => {
                self.cut_off.fetch_add(1, Relaxed);
                warn!(socket, peer, reason = %fault, "peer cut off");
            }
            Class::Silent => {
                self.silent.fetch_add(1, Relaxed);
                info!(socket, peer, reason = %fault, "connection given up");
            }
            class @ (Class::Rejected | Class::Malformed) => {
                let counter = if class == Class::Rejected { &self.rejected } else { &self.malformed };
                counter.fetch_add(1, Relaxed);
                if let Some(unsaid) = self.strangers.admit(Instant::now()) {
                    warn!(socket, peer, reason = %fault, unsaid, "connection refused");
                }
            }
        }
    }

    pub(super) fn accept_failed(&self, socket: &str, error: &std::io::Error) {
        self.accept_errors.fetch_add(1, Relaxed);
        if let Some(unsaid) = self.accepts.admit(Instant::now()) {
            warn!(socket, %error, unsaid, "cannot accept connections");
        }
    }
}

/// Lets one line through per [`LOG_INTERVAL`].
#[derive(Debug, Default)]
struct Throttle(Mutex<(Option<Instant>, u64)>);

impl Throttle {
    /// The number of lines held back since the last one, if this one may be written.
    fn admit(&self, now: Instant) -> Option<u64> {
        let mut state = lock(&self.0);
        if state.0.is_some_and(|last| now.duration_since(last) < LOG_INTERVAL) {
            state.1 += 1;
            return None;
        }
        state.0 = Some(now);
        Some(std::mem::take(&mut state.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_with_the_count_of_the_others() {
        let throttle = Throttle::default();
        let start = Instant::now();
        assert_eq!(throttle.admit(start), Some(0));
        assert_eq!(throttle.admit(start + Duration::from_millis(999)), None);
        assert_eq!(throttle.admit(start + Duration::from_millis(999)), None);
        assert_eq!(throttle.admit(start + LOG_INTERVAL), Some(2));
    }
}
