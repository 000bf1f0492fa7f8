//! Workers of one environment by what they are doing.
//!
//! **Invariant:** a slot is in exactly one of the sets; it leaves one by [`Workers::take`] and enters another by one of
//! the methods that put it there. Nothing leads from leased to warm: a worker that has seen a session is never reused.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Cold, EnvironmentId, Origin, RequestId};

/// One worker, from the decision to start it to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SlotId {
    environment: EnvironmentId,
    number: u64,
}

impl SlotId {
    pub(super) fn new(environment: EnvironmentId, number: u64) -> Self {
        Self { environment, number }
    }

    /// Where it belongs. Part of the id, so that no second table is needed to find it.
    pub(crate) fn environment(self) -> EnvironmentId {
        self.environment
    }

    /// Unique in its pool, also among environments.
    pub(crate) fn number(self) -> u64 {
        self.number
    }
}

/// One life of a zygote: what is said about an earlier one is told apart by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ZygoteId(pub(super) u64);

/// How a worker comes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Fork(ZygoteId),
    Cold,
}

impl Way {
    pub(super) fn origin(self) -> Origin {
        match self {
            Self::Fork(_) => Origin::Forked,
            Self::Cold => Origin::Cold,
        }
    }
}

/// How many workers a request may still lose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chance {
    /// One: it then moves to another.
    First,
    /// None: it then fails.
    Last,
}

/// To whom a worker was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) request: RequestId,
    pub(super) cold: Cold,
    pub(super) chance: Chance,
}

/// What a slot was doing when it was taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    Starting(Way),
    Warm,
    Leased(Lease),
    Retiring,
}

/// The sets.
#[derive(Clone, Debug, Default)]
pub(super) struct Workers {
    starting: BTreeMap<SlotId, Way>,
    /// The oldest first: it is given first, so that none waits for ever.
    warm: VecDeque<SlotId>,
    leased: BTreeMap<SlotId, Lease>,
    retiring: BTreeSet<SlotId>,
}

impl Workers {
    /// Takes a slot out; `None` when it is unknown (what was said of it came too late).
    pub(super) fn take(&mut self, slot: SlotId) -> Option<Doing> {
        if let Some(way) = self.starting.remove(&slot) {
            return Some(Doing::Starting(way));
        }
        if let Some(lease) = self.leased.remove(&slot) {
            return Some(Doing::Leased(lease));
        }
        if self.retiring.remove(&slot) {
            return Some(Doing::Retiring);
        }
        let at = self.warm.iter().position(|warm| *warm == slot)?;
        self.warm.remove(at).map(|_| Doing::Warm)
    }

    /// Takes a slot out if it is starting.
    pub(super) fn take_starting(&mut self, slot: SlotId) -> Option<Way> {
        self.starting.remove(&slot)
    }

    /// Takes a slot out if it is leased.
    pub(super) fn take_leased(&mut self, slot: SlotId) -> Option<Lease> {
        self.leased.remove(&slot)
    }

    /// Takes the oldest warm slot.
    pub(super) fn take_warm(&mut self) -> Option<SlotId> {
        self.warm.pop_front()
    }

    pub(super) fn start(&mut self, slot: SlotId, way: Way) {
        self.starting.insert(slot, way);
    }

    pub(super) fn warm_up(&mut self, slot: SlotId) {
        self.warm.push_back(slot);
    }

    pub(super) fn lease(&mut self, slot: SlotId, lease: Lease) {
        self.leased.insert(slot, lease);
    }

    pub(super) fn retire(&mut self, slot: SlotId) {
        self.retiring.insert(slot);
    }

    /// The slot that was given to this request.
    pub(super) fn slot_of(&self, request: RequestId) -> Option<SlotId> {
        self.leased.iter().find(|(_, lease)| lease.request == request).map(|(slot, _)| *slot)
    }

    pub(super) fn starting(&self) -> usize {
        self.starting.len()
    }

    pub(super) fn forking(&self) -> usize {
        self.starting.values().filter(|way| matches!(way, Way::Fork(_))).count()
    }

    pub(super) fn starting_cold(&self) -> usize {
        self.starting.len() - self.forking()
    }

    pub(super) fn warm(&self) -> usize {
        self.warm.len()
    }

    pub(super) fn leased(&self) -> usize {
        self.leased.len()
    }

    pub(super) fn retiring(&self) -> usize {
        self.retiring.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.starting.is_empty() && self.warm.is_empty() && self.leased.is_empty() && self.retiring.is_empty()
    }
}
