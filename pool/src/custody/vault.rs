//! What a custodian holds, and who may have it. It never waits and knows no clock.

use std::os::fd::{AsFd, OwnedFd};

use cob_protocol::limits::CUSTODY_MAX;
use rustix::process::{Pid, Resource, Signal, getrlimit, pidfd_send_signal};

use super::secret::Secret;
use super::wire::{Belongings, Held};
use crate::signals::signal_group;
use crate::staging::unread;
use crate::tree::Tree;

/// Descriptors of a worker, with that of a connection.
const DESCRIPTORS: u64 = 12;
/// Descriptors that are not for workers.
const OTHERS: u64 = 128;

/// A connection to the custodian.
pub(super) type ConnectionId = u64;
/// A worker that is held.
pub(super) type DepositId = u64;

/// See the module.
pub(super) struct Vault {
    deposits: Vec<Deposited>,
    next: DepositId,
    /// Workers that it has descriptors for.
    room: usize,
}

/// One worker.
struct Deposited {
    id: DepositId,
    secret: Secret,
    held: Held,
    belongings: Belongings<OwnedFd>,
    /// Who was given it. Until that one is gone, nobody else is.
    taken_by: Option<ConnectionId>,
    has_ended: bool,
}

/// Who may have what.
pub(super) enum Claim<'a> {
    /// This.
    Granted(Box<Held>, &'a Belongings<OwnedFd>),
    /// Another one has it.
    Taken,
    /// There is no such secret.
    Unknown,
}

impl Vault {
    pub(super) fn new() -> Self {
        let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let room = most.saturating_sub(OTHERS) / DESCRIPTORS;
        let room = usize::try_from(room).unwrap_or(usize::MAX).min(CUSTODY_MAX);
        Self { deposits: Vec::new(), next: 0, room }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.deposits.is_empty()
    }

    /// Holds a worker on; says under which secret, and whose end is to be watched.
    pub(super) fn deposit(
        &mut self,
        held: Held,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(String, DepositId), String> {
        if self.deposits.len() >= self.room {
            return Err(format!("it holds {} workers already", self.room));
        }
        let Some(belongings) = Belongings::of(descriptors, held.extras) else {
            return Err("a worker without its descriptors".to_owned());
        };
        let secret = Secret::new().map_err(|error| format!("the system has no random numbers: {error}"))?;
        let text = secret.text();
        let id = self.next;
        self.next += 1;
        let has_ended = false;
        self.deposits.push(Deposited { id, secret, held, belongings, taken_by: None, has_ended });
        Ok((text, id))
    }

    pub(super) fn pidfd(&self, id: DepositId) -> Option<&OwnedFd> {
        Some(&self.deposits.iter().find(|deposit| deposit.id == id)?.belongings.pidfd)
    }

    pub(super) fn release(&mut self, secret: &str) {
        self.deposits.retain(|deposit| !deposit.secret.is(secret));
    }

    /// Gives out what is held under `secret` to `by`.
    pub(super) fn take(&mut self, secret: &str, by: ConnectionId) -> Claim<'_> {
        let mut found = None;
        for (index, deposit) in self.deposits.iter().enumerate() {
            if deposit.secret.is(secret) {
                found = Some(index);
            }
        }
        let Some(index) = found else { return Claim::Unknown };
        let process = self.deposits[index].held.process;
        let mut same = self.deposits.iter().filter(|other| other.held.process == process);
        if same.any(|other| other.taken_by.is_some_and(|one| one != by)) {
            return Claim::Taken;
        }
        // Whoever deposited it a second time has not told anybody of that secret, or is the one who used this.
        let id = self.deposits[index].id;
        self.deposits.retain(|other| other.id == id || other.held.process != process);
        let Some(deposit) = self.deposits.iter_mut().find(|deposit| deposit.id == id) else {
            return Claim::Unknown;
        };
        deposit.taken_by = Some(by);
        Claim::Granted(Box::new(deposit.held.clone()), &deposit.belongings)
    }

    /// The worker that was given to `by` is about to be moved to `socket`.
    pub(super) fn move_to(&mut self, by: ConnectionId, from_next: bool, socket: OwnedFd) -> bool {
        let Some(deposit) = self.deposits.iter_mut().find(|deposit| deposit.taken_by == Some(by)) else {
            return false;
        };
        let belongings = &mut deposit.belongings;
        if from_next && let Some(next) = belongings.next.take() {
            belongings.socket = next;
        }
        belongings.next = Some(socket);
        deposit.held.extras = belongings.extras();
        true
    }

    /// A connection is gone: what it was given may be given to the next.
    pub(super) fn forget(&mut self, connection: ConnectionId) {
        for deposit in &mut self.deposits {
            if deposit.taken_by == Some(connection) {
                deposit.taken_by = None;
            }
        }
    }

    /// A worker has ended.
    pub(super) fn ended(&mut self, id: DepositId) {
        if let Some(deposit) = self.deposits.iter_mut().find(|deposit| deposit.id == id) {
            deposit.has_ended = true;
        }
        self.drop_spent();
    }

    /// Drops workers that have ended and said nothing that is not recorded. What others printed last is still wanted.
    pub(super) fn drop_spent(&mut self) {
        self.deposits.retain(|deposit| {
            let pipes = [&deposit.belongings.stdout, &deposit.belongings.stderr];
            let is_silent = pipes.iter().all(|pipe| unread(pipe.as_fd()).is_ok_and(|bytes| bytes == 0));
            !(deposit.has_ended && is_silent)
        });
    }

    /// Ends every worker and whatever belongs to it.
    pub(super) fn end(&mut self) {
        let deposits = std::mem::take(&mut self.deposits);
        // The workers at once; those that they started one after the other, as that takes a look at all of the host.
        for deposit in &deposits {
            let pid = i32::try_from(deposit.held.process.pid).ok().and_then(Pid::from_raw);
            if !deposit.has_ended
                && let Some(pid) = pid
            {
                signal_group(&deposit.belongings.pidfd, pid, Signal::KILL);
                // It fails when it is gone.
                let _ = pidfd_send_signal(&deposit.belongings.pidfd, Signal::KILL);
            }
        }
        for Deposited { held, belongings, .. } in deposits {
            let group = held.kept.group.map(crate::limits::Cgroup::kept);
            let tree = Tree::found(held.process, &held.marker, &belongings.pipes());
            if let Err(error) = tree.kill_blocking(group.as_ref()) {
                tracing::error!(%error, "what a worker started is not gone");
            }
        }
    }
}
