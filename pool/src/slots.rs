//! What a pool of workers does, as a machine without hands: inputs in, actions out.
//!
//! An *environment* is an interpreter with modules to import in advance and environment variables. It has at most one
//! *zygote*, a process that has done the imports and is forked, and *slots*, one for each worker. The owner of the
//! machine carries out its [`Action`]s and reports what came of them as [`Input`]s. There is no I/O here, no clock and
//! no chance: the same inputs at the same times give the same actions, and a test can be all the world.
//!
//! Where a worker for a request comes from, best first: a warm one; a fork of the zygote; a cold start. The first
//! lease of an environment also lets its zygote be prepared. A breaker guards cold starts only: an environment with
//! warm workers or a zygote that forks is not broken, whatever its starts did.
//!
//! Memory goes to what was leased from last. An environment keeps workers warm only in the room that more recently
//! leased ones leave, and the least recently leased makes room first; so two environments that do not fit together
//! cannot drive each other out in turns without being leased from.
//!
//! **Invariant:** a request is given a worker or refused, once (once more if its worker bounced), unless its asker
//! went away; a slot is given at most once; the owner never uses a [`RequestId`] twice.

mod environment;
pub(crate) mod info;
mod slot;
mod zygote;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

pub(crate) use slot::{SlotId, ZygoteId};

use crate::breaker::Reason;
use crate::metrics::Counters;
use environment::{Environment, Turn};

/// An environment; the owner knows what is behind the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EnvironmentId(pub(crate) u64);

/// A request for a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RequestId(pub(crate) u64);

/// The bounds of a pool.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Workers kept warm per environment, unless [`Input::Configure`] said otherwise.
    pub(crate) warm_target: usize,
    /// Cold starts under way per environment.
    pub(crate) starting_max: usize,
    /// Forks under way per environment: each takes descriptors of the owner.
    pub(crate) forking_max: usize,
    /// Requests per environment that wait without a start being under way for them.
    pub(crate) waiting_max: usize,
    /// Environments remembered, but for retired ones whose last workers have not ended.
    pub(crate) environments_max: usize,
    /// Memory of zygotes and warm workers.
    pub(crate) budget_bytes: u64,
    /// What a warm worker is thought to weigh until one was measured.
    pub(crate) slot_bytes: u64,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// Somebody asks for a worker.
    Lease { request: RequestId, environment: EnvironmentId, cold: Cold },
    /// The asker went away before its session began. A worker already given to it is discarded; one that was starting
    /// becomes warm, or is discarded.
    Cancel { request: RequestId },
    /// A zygote is ready, and takes this much memory.
    Prepared { environment: EnvironmentId, zygote: ZygoteId, bytes: u64 },
    /// A zygote could not be prepared, and is gone.
    Unprepared { environment: EnvironmentId, zygote: ZygoteId, reason: Reason, again: Again },
    /// A zygote died. Forks it was asked for must still be reported, as failed.
    ZygoteGone { environment: EnvironmentId, zygote: ZygoteId, reason: Reason },
    /// A worker that was forked or started is live.
    Arrived { slot: SlotId },
    /// There is no worker, and nothing is left of it.
    Failed { slot: SlotId, error: Reason },
    /// A worker ended, whatever it was doing.
    Died { slot: SlotId },
    /// A worker ended after it was given, before its session began. Instead of [`Input::Died`].
    Bounced { slot: SlotId, error: Reason },
    /// A warm worker was found to have ended when it was to be given. Instead of [`Input::Died`].
    Missed { slot: SlotId },
    /// A warm worker was found to take this much memory.
    Measured { environment: EnvironmentId, bytes: u64 },
    /// The time of an [`Action::WakeAt`] has come.
    Due,
    /// Keep this many workers warm. An environment not known before is prepared, without a lease.
    Configure { environment: EnvironmentId, warm_target: usize },
    /// Give nothing more, and end all that nobody uses. Leased workers live on.
    Close,
}

/// What shall become of a zygote that could not be prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// It is prepared anew: the owner has taken out the module that was to blame.
    AtOnce,
    /// It is prepared anew after a pause: it may have been chance.
    Later,
    /// This environment cannot have one.
    Never,
}

/// What shall be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start a zygote.
    Prepare { environment: EnvironmentId, zygote: ZygoteId },
    /// Let the zygote fork a worker.
    Fork { environment: EnvironmentId, zygote: ZygoteId, slot: SlotId },
    /// Start a worker without a zygote.
    Start { environment: EnvironmentId, slot: SlotId },
    /// The worker belongs to the asker.
    Give { request: RequestId, slot: SlotId, origin: Origin },
    /// The asker gets none.
    Refuse { request: RequestId, why: Refusal },
    /// Kill a worker that nobody uses, and say when it [died](Input::Died).
    Discard { slot: SlotId },
    /// End a zygote, ready or not. Nothing needs to be said about it any more but for its forks.
    Retire { environment: EnvironmentId, zygote: ZygoteId },
    /// Nothing is remembered of this environment, nor how it was configured.
    Forget { environment: EnvironmentId },
    /// Say [`Input::Due`] then. Replaces the time said before, which is later.
    WakeAt(Duration),
}

/// Where a given worker comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It was warm: a hit.
    Warm,
    /// It was forked for those who waited.
    Forked,
    /// It was started cold for those who waited: a miss.
    Cold,
}

/// Will a worker do that is started for the request?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cold {
    /// If there is no better one.
    Accepted,
    /// No: the asker can start one just as well.
    Refused,
}

/// Why there is no worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Starts fail; none is tried before the pause is over.
    Broken { error: Reason, retry_after: Duration },
    /// Too many wait.
    Full,
    /// The pool is being closed.
    Closing,
    /// There is neither a warm worker nor a zygote, and a cold one was not asked for.
    NotWarm {
        /// What there is.
        reason: Reason,
    },
    /// The second worker of this request failed as well.
    Failed { error: Reason },
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Slots {
    config: Config,
    environments: BTreeMap<EnvironmentId, Environment>,
    counters: Counters,
    /// The last number given to a slot or a zygote.
    number: u64,
    /// The number of the last lease.
    recency: u64,
    /// The time of the last [`Action::WakeAt`] that has not come.
    wake_at: Option<Duration>,
    closing: bool,
}

impl Slots {
    /// A pool without environments.
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            environments: BTreeMap::new(),
            counters: Counters::default(),
            number: 0,
            recency: 0,
            wake_at: None,
            closing: false,
        }
    }

    /// Takes note of what happened at `now`, and says what to do, in this order.
    pub(crate) fn apply(&mut self, now: Duration, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        self.take(now, input, &mut actions);
        self.settle(now, &mut actions);
        actions
    }

    fn take(&mut self, now: Duration, input: Input, out: &mut Vec<Action>) {
        match input {
            Input::Lease { request, environment, cold } => self.lease(now, (request, cold), environment, out),
            Input::Cancel { request } => {
                self.environments_with(now, out, |environment, turn| environment.cancel(turn, request));
            }
            Input::Prepared { environment, zygote, bytes } => {
                self.with(environment, now, out, |it, turn| it.prepared(turn, zygote, bytes));
            }
            Input::Unprepared { environment, zygote, reason, again } => {
                self.with(environment, now, out, |it, turn| it.unprepared(turn, zygote, reason, again));
            }
            Input::ZygoteGone { environment, zygote, reason } => {
                self.with(environment, now, out, |it, turn| it.zygote_gone(turn, zygote, reason));
            }
            Input::Arrived { slot } => {
                let room = self.room(slot.environment());
                self.with(slot.environment(), now, out, |it, turn| it.arrived(turn, slot, room));
            }
            Input::Failed { slot, error } => {
                self.with(slot.environment(), now, out, |it, turn| it.failed(turn, slot, error));
            }
            Input::Died { slot } => self.with(slot.environment(), now, out, |it, turn| it.died(turn, slot)),
            Input::Bounced { slot, error } => {
                self.with(slot.environment(), now, out, |it, turn| it.bounced(turn, slot, error));
            }
            Input::Missed { slot } => {
                self.with(slot.environment(), now, out, |it, turn| it.missed(turn, slot))
            }
            Input::Measured { environment, bytes } => {
                self.with(environment, now, out, |it, _| it.measured(bytes));
            }
            Input::Due => self.wake_at = None,
            Input::Configure { .. } if self.closing => {}
            Input::Configure { environment, warm_target } => {
                self.know(environment);
                self.with(environment, now, out, |it, turn| it.configure(turn, warm_target));
            }
            Input::Close => self.closing = true,
        }
    }

    fn lease(
        &mut self,
        now: Duration,
        (request, cold): (RequestId, Cold),
        id: EnvironmentId,
        out: &mut Vec<Action>,
    ) {
        if self.closing {
            self.counters.refused += 1;
            out.push(Action::Refuse { request, why: Refusal::Closing });
            return;
        }
        self.know(id);
        self.recency += 1;
        let recency = self.recency;
        let room = self.config.budget_bytes;
        self.with(id, now, out, |it, turn| {
            it.recency = recency;
            it.prepare(turn);
            it.lease(turn, request, cold, room);
        });
    }

    /// Makes sure that an environment is known. A new one counts as leased from now: it was asked for.
    fn know(&mut self, id: EnvironmentId) {
        self.environments.entry(id).or_insert_with(|| {
            self.recency += 1;
            Environment::new(id, &self.config, self.recency)
        });
    }

    fn with(
        &mut self,
        id: EnvironmentId,
        now: Duration,
        actions: &mut Vec<Action>,
        f: impl FnOnce(&mut Environment, &mut Turn<'_>),
    ) {
        let Self { config, counters, number, environments, .. } = self;
        if let Some(environment) = environments.get_mut(&id) {
            f(environment, &mut Turn { now, config, counters, number, actions });
        }
    }

    /// Asks one environment after the other until one says `true`.
    fn environments_with(
        &mut self,
        now: Duration,
        actions: &mut Vec<Action>,
        f: impl Fn(&mut Environment, &mut Turn<'_>) -> bool,
    ) {
        let Self { config, counters, number, environments, .. } = self;
        let mut turn = Turn { now, config, counters, number, actions };
        environments.values_mut().any(|environment| f(environment, &mut turn));
    }

    // --- What follows from any input ------------------------------------------------------------------------

    fn settle(&mut self, now: Duration, out: &mut Vec<Action>) {
        if self.closing {
            self.environments_with(now, out, |environment, turn| {
                environment.retire(turn);
                environment.refuse_behind(turn, 0, &Refusal::Closing);
                false
            });
        } else {
            self.bound_environments(now, out);
            self.supply(now, out);
            self.bound_bytes(now, out);
        }
        for (environment, _) in self.environments.extract_if(.., |_, it| it.is_over()) {
            out.push(Action::Forget { environment });
        }
        self.wake(now, out);
    }

    /// Retires the least recently leased environments that are too many.
    fn bound_environments(&mut self, now: Duration, out: &mut Vec<Action>) {
        loop {
            let mut kept: Vec<_> = self.environments.values().filter(|it| !it.is_retired()).collect();
            if kept.len() <= self.config.environments_max.max(1) {
                return;
            }
            kept.sort_by_key(|it| it.recency);
            let Some(oldest) = kept.first().map(|it| it.id) else { return };
            self.with(oldest, now, out, |it, turn| it.retire(turn));
        }
    }

    /// The most recently leased first, so that what it wants is known when others ask for room.
    fn supply(&mut self, now: Duration, out: &mut Vec<Action>) {
        for id in self.by_recency() {
            let room = self.room(id);
            self.with(id, now, out, |it, turn| {
                it.prepare_again(turn);
                it.supply(turn, room);
            });
        }
    }

    fn by_recency(&self) -> Vec<EnvironmentId> {
        let mut ids: Vec<_> = self.environments.values().map(|it| (it.recency, it.id)).collect();
        ids.sort_unstable_by(|a, b| b.cmp(a));
        ids.into_iter().map(|(_, id)| id).collect()
    }

    /// What an environment may hold: the budget without what more recently leased ones hold.
    fn room(&self, id: EnvironmentId) -> u64 {
        let Some(asking) = self.environments.get(&id) else { return 0 };
        let newer = self.environments.values().filter(|it| it.recency > asking.recency);
        self.config.budget_bytes.saturating_sub(newer.map(Environment::bytes).fold(0, u64::saturating_add))
    }

    /// While all together hold too much, the least recently leased environment that holds something gives up first its
    /// warm workers (milliseconds to fork) and then its zygote (most of a second to prepare). The last one keeps its
    /// zygote, which fits, or would have been found unfit.
    fn bound_bytes(&mut self, now: Duration, out: &mut Vec<Action>) {
        while self.bytes() > self.config.budget_bytes {
            let mut holding = self.by_recency();
            holding.retain(|id| self.environments.get(id).is_some_and(|it| it.bytes() > 0));
            let Some(oldest) = holding.pop() else { return };
            let mut trimmed = false;
            self.with(oldest, now, out, |it, turn| trimmed = it.trim(turn));
            if !trimmed && holding.is_empty() {
                // What is still being forked can only be discarded when it arrives.
                return;
            }
            if !trimmed {
                self.with(oldest, now, out, |it, turn| it.retire(turn));
            }
        }
    }

    fn wake(&mut self, now: Duration, out: &mut Vec<Action>) {
        let Some(next) = self.environments.values().filter_map(|it| it.deadline(now)).min() else { return };
        if self.wake_at.is_none_or(|at| at > next || at <= now) {
            self.wake_at = Some(next);
            out.push(Action::WakeAt(next));
        }
    }
}
