//! What is not settled, in memory: for deadlines, for figures, for whoever settles all of it. The store is asked once,
//! when it is opened; from then on every commit is followed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use cob_protocol::ids::{PromiseId, SessionId};
use cob_protocol::limits::DUE_AGAIN_MS;
use cob_protocol::promise::{Key, Promise, Refused};
use cob_protocol::time::Timestamp;

use crate::queue::Verdict;
use crate::store::{BridgeError, Created, Group, Write, Written};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    open: BTreeMap<PromiseId, Open>,
    /// Deadlines that nobody is attending to.
    due: BTreeSet<(Timestamp, PromiseId)>,
    /// Promises whose end was submitted and is not recorded yet.
    ending: HashSet<PromiseId>,
    /// How many executions of each session wait or run; one for each session that is open.
    sessions: HashMap<SessionId, usize>,
    calls: usize,
    high_water: usize,
}

#[derive(Debug)]
pub(crate) struct Open {
    created_at: Timestamp,
    deadline: Option<Timestamp>,
    /// Its entry in [`Pending::due`]: the deadline, or the time of another attempt.
    due: Option<Timestamp>,
    is_channel: bool,
}

impl Open {
    fn is_execution(&self, id: PromiseId) -> bool {
        id.call.is_none() && !self.is_channel
    }
}

/// Unsettled promises of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kinds {
    pub(crate) executions: usize,
    pub(crate) calls: usize,
    pub(crate) high_water: usize,
    pub(crate) oldest_execution: Option<Timestamp>,
    pub(crate) oldest_call: Option<Timestamp>,
}

impl Pending {
    /// Takes up a promise that is not settled.
    pub(crate) fn insert(&mut self, id: PromiseId, open: Open) {
        let (deadline, is_execution) = (open.deadline, open.is_execution(id));
        if self.open.insert(id, open).is_none() {
            self.calls += usize::from(id.call.is_some());
            if let Some(executions) = self.sessions.get_mut(&id.session) {
                *executions += usize::from(is_execution);
            }
            self.high_water = self.high_water.max(self.open.len());
        }
        if let Some(deadline) = deadline
            && !self.ending.contains(&id)
        {
            self.set_due(id, deadline);
        }
    }

    /// Takes up a session that is open: before its promises.
    pub(crate) fn open_session(&mut self, session: SessionId) {
        self.sessions.insert(session, 0);
    }

    /// Sessions that are open.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Executions of a session that wait or run.
    pub(crate) fn executions_of(&self, session: SessionId) -> usize {
        self.sessions.get(&session).copied().unwrap_or_default()
    }

    /// Takes up what a store had when it was opened.
    pub(crate) fn load(&mut self, promises: &[Promise]) {
        for promise in promises {
            let Promise { created_at, deadline, .. } = *promise;
            let is_channel = promise.is_channel();
            self.insert(promise.id, Open { created_at, deadline, due: None, is_channel });
        }
    }

    fn remove(&mut self, id: PromiseId) {
        self.put_aside(id);
        let Some(open) = self.open.remove(&id) else { return };
        self.calls -= usize::from(id.call.is_some());
        if let Some(executions) = self.sessions.get_mut(&id.session) {
            *executions -= usize::from(open.is_execution(id));
        }
    }

    fn set_due(&mut self, id: PromiseId, at: Timestamp) {
        self.put_aside(id);
        if let Some(open) = self.open.get_mut(&id) {
            open.due = Some(at);
            self.due.insert((at, id));
        }
    }

    /// The promise is not due for now.
    pub(crate) fn put_aside(&mut self, id: PromiseId) {
        if let Some(at) = self.open.get_mut(&id).and_then(|open| open.due.take()) {
            self.due.remove(&(at, id));
        }
    }

    /// A group is on its way: what it ends is not due any more.
    pub(crate) fn submitted(&mut self, group: &Group) {
        for id in ends(group) {
            self.put_aside(id);
            self.ending.insert(id);
        }
    }

    /// Follows a commit, or a group that was not recorded. Says whether another deadline is now the next.
    pub(crate) fn follow(&mut self, group: &Group, verdict: &Verdict) -> bool {
        let before = self.next_due();
        match verdict {
            Ok(outcomes) => {
                for (write, outcome) in group.writes.iter().zip(outcomes) {
                    self.follow_write(group.now, write, outcome);
                }
            }
            Err(_) => {
                for id in ends(group) {
                    self.not_ended(id, group.now.after_ms(DUE_AGAIN_MS));
                }
            }
        }
        before != self.next_due()
    }

    fn follow_write(&mut self, now: Timestamp, write: &Write, outcome: &Result<Written, BridgeError>) {
        match (write, outcome) {
            (Write::CreateExecution(new), Ok(Written::Created(Created::New(id)))) => {
                let is_channel = new.key.as_ref().is_some_and(Key::is_channel);
                let open = Open { created_at: now, deadline: new.deadline, due: None, is_channel };
                self.insert(*id, open);
            }
            (Write::CreateCall { id, deadline, .. }, Ok(_)) => {
                let open = Open { created_at: now, deadline: *deadline, due: None, is_channel: false };
                self.insert(*id, open);
            }
            (Write::OpenSession { session, .. }, Ok(_)) => self.open_session(*session),
            (Write::CloseSession { session }, Ok(_)) => {
                self.sessions.remove(session);
            }
            (Write::Settle { id, .. } | Write::Expire { id, .. }, Ok(_)) => {
                self.ending.remove(id);
                self.remove(*id);
            }
            (Write::Settle { id, .. } | Write::Expire { id, .. }, Err(error)) => match error {
                BridgeError::Refused { refused: Refused::AlreadySettled(_), .. }
                | BridgeError::Unknown(_) => {
                    self.ending.remove(id);
                    self.remove(*id);
                }
                // The clock was set back in between.
                BridgeError::Refused { refused: Refused::NotDue, .. } => self.not_ended(*id, now),
                _ => self.not_ended(*id, now.after_ms(DUE_AGAIN_MS)),
            },
            _ => {}
        }
    }

    /// The promise is still open: it is due again, at its deadline or at `not_before`.
    fn not_ended(&mut self, id: PromiseId, not_before: Timestamp) {
        self.ending.remove(&id);
        if let Some(deadline) = self.open.get(&id).and_then(|open| open.deadline) {
            self.set_due(id, deadline.max(not_before));
        }
    }

    /// The deadline that comes next.
    pub(crate) fn next_due(&self) -> Option<(Timestamp, PromiseId)> {
        self.due.first().copied()
    }

    /// Unsettled promises of a session in the order of their names.
    pub(crate) fn of_session(&self, session: SessionId) -> impl Iterator<Item = PromiseId> {
        let first = PromiseId::execution(session, 0);
        self.open.range(first..).map(|(id, _)| *id).take_while(move |id| id.session == session)
    }

    /// How many there are.
    pub(crate) fn kinds(&self) -> Kinds {
        let oldest = |is_call: bool| {
            let of_kind = self.open.iter().filter(|(id, _)| id.call.is_some() == is_call);
            of_kind.map(|(_, open)| open.created_at).min()
        };
        Kinds {
            executions: self.open.len() - self.calls,
            calls: self.calls,
            high_water: self.high_water,
            oldest_execution: oldest(false),
            oldest_call: oldest(true),
        }
    }
}

/// The promises that a group settles.
fn ends(group: &Group) -> impl Iterator<Item = PromiseId> {
    group.writes.iter().filter_map(|write| match write {
        Write::Settle { id, .. } | Write::Expire { id, .. } => Some(*id),
        _ => None,
    })
}
