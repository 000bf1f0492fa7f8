//! Waiting for a moment of wall time. The timer follows the wall clock when it is set, and counts the time that the
//! machine sleeps; one that is armed costs nothing until it rings.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use cob_protocol::time::{Clock, Timestamp};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// One timer, made when it is first needed.
#[derive(Debug, Default)]
pub(crate) struct WallTimer {
    timer: OnceLock<Option<AsyncFd<OwnedFd>>>,
    /// What it is set to, by the wall clock of the system.
    armed: Mutex<Option<i64>>,
}

impl WallTimer {
    /// Waits until `clock` may show `moment`. May end early: when the clock was set, or when somebody else waited for
    /// another moment. Cancel-safe.
    pub(crate) async fn until(&self, moment: Timestamp, clock: &dyn Clock) {
        let left = moment.micros().saturating_sub(clock.now().micros()).max(1);
        let Some(timer) = self.timer.get_or_init(make).as_ref() else {
            // Without a timer of the system, a step of the clock is noticed late.
            return tokio::time::sleep(Duration::from_micros(left.unsigned_abs())).await;
        };
        self.arm(timer, left);
        let Ok(mut ready) = timer.readable().await else { return };
        // The count of rings is of no interest, nor whether the clock was set instead: the caller looks.
        let _ = rustix::io::read(timer, &mut [0; 8]);
        ready.clear_ready();
        *self.armed() = None;
    }

    fn arm(&self, timer: &AsyncFd<OwnedFd>, left_micros: i64) {
        let now = clock_gettime(ClockId::Realtime);
        let now = now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1000);
        let target = now.saturating_add(left_micros);
        let mut armed = self.armed();
        // Both clocks were read one after the other, so the same moment comes out a little different each time.
        if armed.is_some_and(|armed| armed.abs_diff(target) < SLACK_MICROS) {
            return;
        }
        let value =
            Timespec { tv_sec: target.div_euclid(1_000_000), tv_nsec: target.rem_euclid(1_000_000) * 1000 };
        let once = Itimerspec { it_interval: Timespec::default(), it_value: value };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        match timerfd_settime(timer, flags, &once) {
            Ok(_) => *armed = Some(target),
            Err(error) => tracing::error!(%error, "the timer of deadlines cannot be set"),
        }
    }

    fn armed(&self) -> std::sync::MutexGuard<'_, Option<i64>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A timer that is set to almost the same moment is left alone: setting it costs a call of the system.
const SLACK_MICROS: u64 = 100;

fn make() -> Option<AsyncFd<OwnedFd>> {
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    let timer = timerfd_create(TimerfdClockId::Realtime, flags).map_err(io::Error::from);
    timer
        .and_then(watch)
        .inspect_err(|error| tracing::warn!(%error, "no timer for deadlines; the event loop's own is used"))
        .ok()
}

fn watch(timer: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open, names one description for its whole life, and is owned by the `AsyncFd`.
    let watched = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) };
    watched.map_err(|error| error.into_parts().1)
}
