//! One environment: its zygote, its workers, and the requests that wait for one.
//!
//! Here is decided what happens to a request and when a worker is forked or started. What environments mean to each
//! other (who makes room for whom) is decided in [`super`].
//!
//! **Invariant:** while a request waits, no worker is warm; and a request that waits has a start under way, or waits
//! for one of a bounded number of starts, or for the verdict of a trial.

use std::collections::VecDeque;
use std::time::Duration;

use super::slot::{Chance, Doing, Lease, SlotId, Way, Workers};
use super::zygote::Zygote;
use super::{Action, Cold, Config, EnvironmentId, Origin, Refusal, RequestId};
use crate::breaker::{Breaker, Permit, Policy, Reason};
use crate::metrics::Counters;

/// What the handling of one input needs beside the environment.
pub(super) struct Turn<'a> {
    pub(super) now: Duration,
    pub(super) config: &'a Config,
    pub(super) counters: &'a mut Counters,
    /// The last number given to a slot or a zygote.
    pub(super) number: &'a mut u64,
    pub(super) actions: &'a mut Vec<Action>,
}

impl Turn<'_> {
    pub(super) fn number(&mut self) -> u64 {
        *self.number += 1;
        *self.number
    }

    fn refuse(&mut self, request: RequestId, why: Refusal) {
        self.counters.refused += 1;
        self.actions.push(Action::Refuse { request, why });
    }
}

#[derive(Debug)]
pub(super) struct Environment {
    pub(super) id: EnvironmentId,
    pub(super) zygote: Zygote,
    pub(super) workers: Workers,
    /// In the order of asking; those that lost a worker stand in front. Not bound to a start: whichever worker comes
    /// first goes to the first.
    pub(super) waiting: VecDeque<Lease>,
    pub(super) warm_target: usize,
    /// What a warm worker is thought to weigh.
    slot_bytes: u64,
    /// The number of its last lease, in the order of all: times may be equal, numbers are not.
    pub(super) recency: u64,
    pub(super) last_leased: Option<Duration>,
    /// Cold starts.
    pub(super) starts: Breaker,
    /// Forks of the present zygote.
    pub(super) forks: Breaker,
    /// Workers that die while they are warm: without a pause, forking them anew could take all processors.
    warmth: Breaker,
    /// Zygotes.
    pub(super) zygotes: Breaker,
}

impl Environment {
    pub(super) fn new(id: EnvironmentId, config: &Config, recency: u64) -> Self {
        Self {
            id,
            zygote: Zygote::Cold,
            workers: Workers::default(),
            waiting: VecDeque::new(),
            warm_target: config.warm_target,
            slot_bytes: config.slot_bytes,
            recency,
            last_leased: None,
            starts: Breaker::new(Policy::FORGIVING),
            forks: Breaker::new(Policy::STRICT),
            warmth: Breaker::new(Policy::FORGIVING),
            zygotes: Breaker::new(Policy::STRICT),
        }
    }

    /// Has it been retired, and does only wait for its leased workers to end?
    pub(super) fn is_retired(&self) -> bool {
        matches!(self.zygote, Zygote::Retired)
    }

    /// Is there nothing left to wait for?
    pub(super) fn is_over(&self) -> bool {
        self.is_retired() && self.workers.is_empty() && self.waiting.is_empty()
    }

    /// What it holds in advance: its zygote, its warm workers, and those that are forked to be warm.
    pub(super) fn bytes(&self) -> u64 {
        let warming = match self.zygote.ready() {
            None => 0,
            Some(_) => {
                let lacking = self.warm_target.saturating_sub(self.workers.warm());
                self.workers.starting().saturating_sub(self.waiting.len()).min(lacking)
            }
        };
        let slots = u64::try_from(self.workers.warm() + warming).unwrap_or(u64::MAX);
        self.zygote.bytes().saturating_add(self.slot_bytes.saturating_mul(slots))
    }

    // --- Requests -------------------------------------------------------------------------------------------

    /// A request for a worker. `room` is what this environment may hold in advance.
    pub(super) fn lease(&mut self, turn: &mut Turn<'_>, request: RequestId, cold: Cold, room: u64) {
        self.last_leased = Some(turn.now);
        if !self.admit(turn, Lease { request, cold, chance: Chance::First }) {
            return;
        }
        self.supply(turn, room);
        // Only who asks now is refused for it: who was let in before stays, also when a start fails.
        let unserved = self.waiting.len().saturating_sub(self.workers.starting());
        let is_last = self.waiting.back().is_some_and(|last| last.request == request);
        if is_last && unserved > turn.config.waiting_max {
            self.waiting.pop_back();
            turn.refuse(request, Refusal::Full);
        }
    }

    /// Gives a warm worker at once, refuses, or lets the request wait (`true`).
    fn admit(&mut self, turn: &mut Turn<'_>, lease: Lease) -> bool {
        if let Some(slot) = self.workers.take_warm() {
            self.warmth.succeeded();
            self.give(turn, lease, slot, Origin::Warm);
            return false;
        }
        if lease.cold == Cold::Refused && !self.can_fork(turn.now) {
            let reason = self.zygote.why_not_ready();
            turn.refuse(lease.request, Refusal::NotWarm { reason });
            return false;
        }
        if !self.can_fork(turn.now)
            && let Permit::Shut { error, retry_after } =
                self.starts.permit(turn.now, self.workers.starting_cold())
        {
            turn.refuse(lease.request, Refusal::Broken { error, retry_after });
            return false;
        }
        match lease.chance {
            Chance::First => self.waiting.push_back(lease),
            // It has waited before.
            Chance::Last => self.waiting.push_front(lease),
        }
        true
    }

    fn give(&mut self, turn: &mut Turn<'_>, lease: Lease, slot: SlotId, origin: Origin) {
        match origin {
            Origin::Warm => turn.counters.leased_warm += 1,
            Origin::Forked => turn.counters.leased_forked += 1,
            Origin::Cold => turn.counters.leased_cold += 1,
        }
        self.workers.lease(slot, lease);
        turn.actions.push(Action::Give { request: lease.request, slot, origin });
    }

    /// The asker went away. `false`: the request is not known here.
    pub(super) fn cancel(&mut self, turn: &mut Turn<'_>, request: RequestId) -> bool {
        if let Some(at) = self.waiting.iter().position(|lease| lease.request == request) {
            self.waiting.remove(at);
            return true;
        }
        let Some(slot) = self.workers.slot_of(request) else { return false };
        self.workers.take_leased(slot);
        self.discard(turn, slot);
        true
    }

    /// A worker ended before its session began: its request moves to another, once.
    pub(super) fn bounced(&mut self, turn: &mut Turn<'_>, slot: SlotId, error: Reason) {
        let Some(Doing::Leased(lease)) = self.workers.take(slot) else { return };
        turn.counters.bounced += 1;
        match lease.chance {
            Chance::First => {
                self.admit(turn, Lease { chance: Chance::Last, ..lease });
            }
            Chance::Last => turn.refuse(lease.request, Refusal::Failed { error }),
        }
    }

    /// A warm worker had ended before it could be given: its request is as good as new. There are only so many warm
    /// ones, so this comes to an end.
    pub(super) fn missed(&mut self, turn: &mut Turn<'_>, slot: SlotId) {
        let Some(Doing::Leased(lease)) = self.workers.take(slot) else { return };
        turn.counters.leased_warm -= 1;
        turn.counters.warm_deaths += 1;
        self.warmth.failed(turn.now, "the worker ended before it was leased".into());
        self.admit(turn, lease);
    }

    /// Refuses the requests behind the first `kept`.
    pub(super) fn refuse_behind(&mut self, turn: &mut Turn<'_>, kept: usize, why: &Refusal) {
        let kept = kept.min(self.waiting.len());
        for lease in self.waiting.split_off(kept) {
            turn.refuse(lease.request, why.clone());
        }
    }

    // --- Workers --------------------------------------------------------------------------------------------

    /// A worker that was forked or started is live.
    pub(super) fn arrived(&mut self, turn: &mut Turn<'_>, slot: SlotId, room: u64) {
        let Some(way) = self.workers.take_starting(slot) else { return };
        match way {
            Way::Cold => self.starts.succeeded(),
            Way::Fork(zygote) if self.zygote.is_ready(zygote) => {
                self.forks.succeeded();
                self.zygotes.succeeded();
            }
            Way::Fork(_) => {}
        }
        if let Some(lease) = self.waiting.pop_front() {
            self.give(turn, lease, slot, way.origin());
        } else if self.wants_warm(room) {
            turn.counters.warmed += 1;
            self.workers.warm_up(slot);
        } else {
            self.discard(turn, slot);
        }
    }

    /// A worker that was being forked or started is not coming.
    pub(super) fn failed(&mut self, turn: &mut Turn<'_>, slot: SlotId, error: Reason) {
        match self.workers.take_starting(slot) {
            Some(Way::Fork(zygote)) => {
                turn.counters.fork_failures += 1;
                if self.zygote.is_ready(zygote) {
                    self.forks.failed(turn.now, error);
                }
            }
            Some(Way::Cold) => {
                turn.counters.start_failures += 1;
                self.starts.failed(turn.now, error.clone());
                self.charge_oldest(turn, error);
            }
            None => {}
        }
    }

    /// A failed start is a worker lost to the request that stands first: so each is told within two failures, however
    /// many wait.
    fn charge_oldest(&mut self, turn: &mut Turn<'_>, error: Reason) {
        let Some(lease) = self.waiting.front_mut() else { return };
        match lease.chance {
            Chance::First => lease.chance = Chance::Last,
            Chance::Last => {
                let request = lease.request;
                self.waiting.pop_front();
                turn.refuse(request, Refusal::Failed { error });
            }
        }
    }

    /// A worker ended.
    pub(super) fn died(&mut self, turn: &mut Turn<'_>, slot: SlotId) {
        self.failed(turn, slot, "the worker ended while it was starting".into());
        if let Some(Doing::Warm) = self.workers.take(slot) {
            turn.counters.warm_deaths += 1;
            self.warmth.failed(turn.now, "the worker ended before it was leased".into());
        }
    }

    fn discard(&mut self, turn: &mut Turn<'_>, slot: SlotId) {
        turn.counters.discarded += 1;
        self.workers.retire(slot);
        turn.actions.push(Action::Discard { slot });
    }

    /// Discards the oldest warm worker, if there is one.
    pub(super) fn trim(&mut self, turn: &mut Turn<'_>) -> bool {
        let slot = self.workers.take_warm();
        if let Some(slot) = slot {
            self.discard(turn, slot);
        }
        slot.is_some()
    }

    /// How many workers shall be warm from now on.
    pub(super) fn configure(&mut self, turn: &mut Turn<'_>, warm_target: usize) {
        self.warm_target = warm_target;
        while self.workers.warm() > warm_target && self.trim(turn) {}
        if warm_target > 0 {
            self.prepare(turn);
        }
    }

    /// A warm worker was weighed.
    pub(super) fn measured(&mut self, bytes: u64) {
        self.slot_bytes = bytes;
    }

    // --- Supply ---------------------------------------------------------------------------------------------

    fn can_fork(&self, now: Duration) -> bool {
        self.zygote.ready().is_some() && !self.forks.rests(now)
    }

    fn wants_warm(&self, room: u64) -> bool {
        !self.is_retired()
            && self.workers.warm() < self.warm_target
            && self.bytes().saturating_add(self.slot_bytes) <= room
    }

    /// Begins what is lacking: forks for those who wait and for warmth, or cold starts for those who wait.
    pub(super) fn supply(&mut self, turn: &mut Turn<'_>, room: u64) {
        if self.can_fork(turn.now) {
            self.supply_by_fork(turn, room);
        } else {
            self.supply_cold(turn);
        }
    }

    fn supply_by_fork(&mut self, turn: &mut Turn<'_>, room: u64) {
        let Some(zygote) = self.zygote.ready() else { return };
        while self.workers.forking() < turn.config.forking_max {
            // A cold start under way does not keep a request from being forked for: a fork is faster by far.
            let asked_for = self.workers.forking() < self.waiting.len();
            if !asked_for && !self.lacks_warmth(turn.now, room) {
                break;
            }
            let slot = SlotId::new(self.id, turn.number());
            turn.counters.forks += 1;
            self.workers.start(slot, Way::Fork(zygote));
            turn.actions.push(Action::Fork { environment: self.id, zygote, slot });
        }
    }

    fn lacks_warmth(&self, now: Duration, room: u64) -> bool {
        self.workers.warm() + self.workers.starting() < self.waiting.len() + self.warm_target
            && !self.warmth.rests(now)
            && self.bytes().saturating_add(self.slot_bytes) <= room
    }

    fn supply_cold(&mut self, turn: &mut Turn<'_>) {
        loop {
            let cold = self.workers.starting_cold();
            match self.starts.permit(turn.now, cold) {
                Permit::Shut { error, retry_after } => {
                    // Whoever has a start under way keeps it.
                    let why = Refusal::Broken { error, retry_after };
                    return self.refuse_behind(turn, self.workers.starting(), &why);
                }
                Permit::Free | Permit::Trial
                    if self.workers.starting() < self.waiting.len() && cold < turn.config.starting_max =>
                {
                    let slot = SlotId::new(self.id, turn.number());
                    turn.counters.starts += 1;
                    self.workers.start(slot, Way::Cold);
                    turn.actions.push(Action::Start { environment: self.id, slot });
                }
                Permit::Free | Permit::Trial | Permit::Busy => return,
            }
        }
    }

    /// When something may be tried again that is left alone now.
    pub(super) fn deadline(&self, now: Duration) -> Option<Duration> {
        let again = match &self.zygote {
            Zygote::Lost { .. } if !self.zygotes.is_hopeless() => [self.zygotes.until(), None],
            Zygote::Ready { .. } => [self.forks.until(), self.warmth.until()],
            _ => [None, None],
        };
        again.into_iter().flatten().filter(|until| *until > now).min()
    }
}
