//! The life of an environment's zygote, seen from outside: prepared, ready, lost, prepared again.
//!
//! **Invariant:** at most one is being prepared or ready, and only what is said about that one counts: every life has
//! a [`ZygoteId`], and a word about an earlier one changes nothing.

use std::time::Duration;

use cob_protocol::limits::IMPORTS_MAX;

use super::environment::{Environment, Turn};
use super::slot::ZygoteId;
use super::{Action, Again};
use crate::breaker::{Breaker, Policy, Reason};

/// What state it is in.
#[derive(Clone, Debug)]
pub(super) enum Zygote {
    /// Nobody has asked for it yet.
    Cold,
    Preparing {
        zygote: ZygoteId,
        since: Duration,
        /// How often it was begun anew without a module.
        left_out: usize,
    },
    Ready {
        zygote: ZygoteId,
        since: Duration,
        bytes: u64,
    },
    /// It failed or died; it is prepared again after a pause.
    Lost {
        reason: Reason,
    },
    /// There shall be none.
    Unfit {
        reason: Reason,
    },
    /// It had to make room.
    Retired,
}

impl Zygote {
    pub(super) fn ready(&self) -> Option<ZygoteId> {
        match self {
            Self::Ready { zygote, .. } => Some(*zygote),
            _ => None,
        }
    }

    pub(super) fn is_ready(&self, zygote: ZygoteId) -> bool {
        self.ready() == Some(zygote)
    }

    /// In a sentence.
    pub(super) fn why_not_ready(&self) -> Reason {
        match self {
            Self::Lost { reason } | Self::Unfit { reason } => reason.clone(),
            Self::Ready { .. } => "forks of its zygote fail".into(),
            Self::Cold | Self::Preparing { .. } | Self::Retired => "its zygote is not ready yet".into(),
        }
    }

    fn is_preparing(&self, number: ZygoteId) -> bool {
        matches!(self, Self::Preparing { zygote, .. } if *zygote == number)
    }

    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Ready { bytes, .. } => *bytes,
            _ => 0,
        }
    }
}

impl Environment {
    /// Lets a zygote be prepared, if there is none and nothing speaks against it.
    pub(super) fn prepare(&mut self, turn: &mut Turn<'_>) {
        let wanted = match self.zygote {
            Zygote::Cold | Zygote::Retired | Zygote::Lost { .. } => !self.zygotes.rests(turn.now),
            Zygote::Preparing { .. } | Zygote::Ready { .. } | Zygote::Unfit { .. } => false,
        };
        if wanted {
            self.begin(turn, 0);
        }
    }

    /// Prepares a lost one again when its pause is over. Once the pauses are at their longest, only a lease does: an
    /// environment that nobody uses must not cost anything for ever.
    pub(super) fn prepare_again(&mut self, turn: &mut Turn<'_>) {
        if matches!(self.zygote, Zygote::Lost { .. }) && !self.zygotes.is_hopeless() {
            self.prepare(turn);
        }
    }

    fn begin(&mut self, turn: &mut Turn<'_>, left_out: usize) {
        let zygote = ZygoteId(turn.number());
        self.zygote = Zygote::Preparing { zygote, since: turn.now, left_out };
        turn.actions.push(Action::Prepare { environment: self.id, zygote });
    }

    /// It is ready, and weighs this much.
    pub(super) fn prepared(&mut self, turn: &mut Turn<'_>, zygote: ZygoteId, bytes: u64) {
        if !self.zygote.is_preparing(zygote) {
            return;
        }
        let budget = turn.config.budget_bytes;
        if bytes > budget {
            turn.actions.push(Action::Retire { environment: self.id, zygote });
            let reason = format!("the zygote takes {bytes} bytes, all together may take {budget}");
            return self.unfit(turn, reason.into());
        }
        turn.counters.zygotes_prepared += 1;
        self.zygote = Zygote::Ready { zygote, since: turn.now, bytes };
        // What the forks of an earlier one did says nothing about this one. Its breaker on zygotes stays as it is
        // until a fork succeeds: one that dies as soon as it is ready must not be prepared without a pause.
        self.forks = Breaker::new(Policy::STRICT);
    }

    /// It could not be prepared.
    pub(super) fn unprepared(&mut self, turn: &mut Turn<'_>, number: ZygoteId, reason: Reason, again: Again) {
        let Zygote::Preparing { zygote, left_out, .. } = self.zygote else { return };
        if zygote != number {
            return;
        }
        match again {
            Again::AtOnce if left_out < IMPORTS_MAX => self.begin(turn, left_out + 1),
            Again::AtOnce | Again::Later => self.lost(turn, reason),
            Again::Never => self.unfit(turn, reason),
        }
    }

    /// It died.
    pub(super) fn zygote_gone(&mut self, turn: &Turn<'_>, zygote: ZygoteId, reason: Reason) {
        if self.zygote.is_ready(zygote) || self.zygote.is_preparing(zygote) {
            self.lost(turn, reason);
        }
    }

    /// Ends it and discards the workers that are warm. Those that are starting are discarded when they arrive, unless
    /// a request waits for them.
    pub(super) fn retire(&mut self, turn: &mut Turn<'_>) {
        if let Zygote::Preparing { zygote, .. } | Zygote::Ready { zygote, .. } = self.zygote {
            turn.counters.zygotes_retired += 1;
            turn.actions.push(Action::Retire { environment: self.id, zygote });
        }
        self.zygote = Zygote::Retired;
        while self.trim(turn) {}
    }

    fn lost(&mut self, turn: &Turn<'_>, reason: Reason) {
        self.zygotes.failed(turn.now, reason.clone());
        self.zygote = Zygote::Lost { reason };
    }

    fn unfit(&mut self, turn: &mut Turn<'_>, reason: Reason) {
        turn.counters.zygotes_unfit += 1;
        self.zygote = Zygote::Unfit { reason };
    }
}
