//! The credit of one subscription: granted by its reader, spent by whoever sends.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cob_protocol::limits::CREDIT_MAX;
use tokio::sync::Notify;

/// See the module. One task spends; anybody may grant or stop.
#[derive(Debug)]
pub(crate) struct Flow {
    credit: AtomicU64,
    is_stopped: AtomicBool,
    /// One permit is kept while nobody waits, so that no change is missed.
    changed: Notify,
    /// Whether it counts among the subscriptions of its peer; those of an execution count as its request.
    pub(crate) is_counted: bool,
}

impl Flow {
    pub(crate) fn new(credit: u64, is_counted: bool) -> Self {
        Self {
            credit: AtomicU64::new(credit.min(CREDIT_MAX)),
            is_stopped: AtomicBool::new(false),
            changed: Notify::new(),
            is_counted,
        }
    }

    /// So many more may be sent, up to what counts.
    pub(crate) fn grant(&self, more: u64) {
        let add = |credit: u64| Some(credit.saturating_add(more).min(CREDIT_MAX));
        // It always succeeds, since there is always a next value.
        let _ = self.credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        self.changed.notify_one();
    }

    /// Nothing more shall be sent.
    pub(crate) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Acquire)
    }

    /// What may be sent now.
    pub(crate) fn credit(&self) -> u64 {
        self.credit.load(Ordering::Relaxed)
    }

    /// One was sent.
    pub(crate) fn spend(&self) {
        let less = |credit: u64| Some(credit.saturating_sub(1));
        let _ = self.credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Waits for a grant or the end since the last time. Cancel-safe.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_grant_before_anybody_waits_is_not_missed() {
        let flow = Flow::new(0, true);
        flow.grant(2);
        flow.changed().await;
        flow.spend();
        assert_eq!(flow.credit(), 1);
        flow.stop();
        flow.changed().await;
        assert!(flow.is_stopped());
    }

    #[test]
    fn credit_neither_overflows_nor_falls_below_nothing() {
        let flow = Flow::new(u64::MAX, true);
        flow.grant(u64::MAX);
        assert_eq!(flow.credit(), CREDIT_MAX);
        let empty = Flow::new(0, true);
        empty.spend();
        assert_eq!(empty.credit(), 0);
    }
}
