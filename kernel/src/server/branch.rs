//! Sessions that begin where another one stands: all of those that were asked for at once, or none.

use std::io;
use std::sync::Arc;

use cob_protocol::content::agent::{CloseMode, ForkRequest};
use cob_protocol::crash_point;
use cob_protocol::error::ErrorCode;
use cob_protocol::ids::{CheckpointId, SessionId};
use cob_protocol::limits::{BRANCH_COPIES_MAX, BRANCH_FOLDER_BYTES_MAX, BRANCHES_MAX};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

use super::agents::ask;
use super::copying::copy_folder;
use super::directory::Handle;
use super::keys::Opened;
use super::life::{Named, Sessions, ends, outcome};
use super::own::OwnFolder;
use super::spec::{SessionSpec, fork_body};
use crate::request::{Command, Phase, Refusal, Seed};
use crate::session::Config;

/// Sessions that were forked off another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branches {
    /// Their names, in their order.
    pub sessions: Vec<SessionId>,
    /// Where they began.
    pub checkpoint: Option<CheckpointId>,
}

/// One of them, before it runs.
struct Branch {
    id: SessionId,
    spec: SessionSpec,
    config: Config,
}

impl Sessions {
    /// Forks sessions off another one for `owner`, who may use that one; or finds those that he forked off with the same
    /// key. They can be used then.
    ///
    /// # Errors
    /// [`Refusal`]: none of them is there then.
    pub async fn branch(&self, owner: &str, fork: ForkRequest) -> Result<Branches, Refusal> {
        let named = Named {
            key: fork.idempotency_key.clone().map(|key| (owner.to_owned(), key)),
            body: fork_body(&fork),
        };
        let known = match self.named(&named)? {
            Some(known) => known,
            None => self.begin_branches(named, owner, fork)?,
        };
        let Opened { sessions, forked_from } = outcome(known).await?;
        Ok(Branches { sessions, checkpoint: forked_from })
    }

    fn begin_branches(
        &self,
        named: Named,
        owner: &str,
        fork: ForkRequest,
    ) -> Result<tokio::sync::watch::Receiver<super::keys::Outcome>, Refusal> {
        if fork.count == 0 || fork.count > BRANCHES_MAX {
            return Err(Refusal::bad(format!("`count` must be 1 to {BRANCHES_MAX} sessions")));
        }
        let parent = self.directory().get(fork.session_id);
        let parent = parent.ok_or_else(|| Refusal::closed(fork.session_id))?;
        let spec: SessionSpec = parent.about.read().map_err(|error| {
            let why = format!("what is recorded of {} cannot be read: {error}", fork.session_id);
            Refusal::new(ErrorCode::StoreFailed, why)
        })?;
        let specs = spec.forked(&fork, owner)?;
        self.reserve(named, fork.count, move |sessions, numbers| async move {
            let seed = sessions.seed(&parent, &fork).await?;
            let ids = numbers.clone();
            sessions.branched(&parent, &seed, numbers.into_iter().zip(specs).collect()).await?;
            Ok(Opened { sessions: ids, forked_from: Some(seed.checkpoint) })
        })
    }

    /// What the branches come of. A server that ends does not wait until the code of the parent has.
    async fn seed(&self, parent: &Handle, fork: &ForkRequest) -> Result<Seed, Refusal> {
        let asked = ask(parent, |asked| Command::Branch(fork.checkpoint, fork.force, asked))?;
        tokio::select! {
            biased;
            seed = asked => seed,
            () = self.closing() => Err(ends()),
        }
    }

    async fn branched(
        &self,
        parent: &Handle,
        seed: &Seed,
        branches: Vec<(SessionId, SessionSpec)>,
    ) -> Result<(), Refusal> {
        let ids: Vec<_> = branches.iter().map(|(id, _)| *id).collect();
        let prepared = self.prepare_branches(parent.session(), seed, branches).await;
        let recorded = match prepared {
            Ok(prepared) => self.record_branches(&prepared).await.map(|()| prepared),
            Err(refusal) => Err(refusal),
        };
        let prepared = match recorded {
            Ok(prepared) => prepared,
            Err(refusal) => {
                let folders: Vec<_> = ids.iter().map(|id| self.own(*id)).collect();
                drop(tokio::task::spawn_blocking(move || folders.iter().for_each(OwnFolder::remove)));
                return Err(refusal);
            }
        };
        crash_point!("branches_opened");
        self.start_branches(prepared).await
    }

    /// Gives each of them a folder with what is in the parent's.
    async fn prepare_branches(
        &self,
        parent: SessionId,
        seed: &Seed,
        branches: Vec<(SessionId, SessionSpec)>,
    ) -> Result<Vec<Branch>, Refusal> {
        let turns = Arc::new(Semaphore::new(BRANCH_COPIES_MAX));
        let mut under_way = JoinSet::new();
        for (id, mut spec) in branches {
            spec.forked_from = Some(seed.checkpoint);
            let (sessions, seed, turns) = (self.clone(), seed.clone(), Arc::clone(&turns));
            under_way.spawn(async move {
                // It is never closed.
                let _turn = turns.acquire().await;
                tokio::task::spawn_blocking(move || sessions.prepare_branch(parent, id, spec, seed)).await
            });
        }
        let mut prepared = Vec::new();
        while let Some(done) = under_way.join_next().await {
            // When one fails, the others come to their end first: what is removed must not be written any more.
            prepared.push(done.and_then(std::convert::identity).unwrap_or_else(|error| {
                let why = format!("a branch could not be prepared: {error}");
                Err(Refusal::new(ErrorCode::WorkerStartFailed, why))
            }));
        }
        let mut prepared: Vec<Branch> = prepared.into_iter().collect::<Result<_, _>>()?;
        prepared.sort_by_key(|branch| branch.id);
        Ok(prepared)
    }

    fn prepare_branch(
        &self,
        parent: SessionId,
        id: SessionId,
        mut spec: SessionSpec,
        seed: Seed,
    ) -> Result<Branch, Refusal> {
        let (theirs, own) = (self.own(parent), self.own(id));
        if spec.environment.cwd.is_none() {
            spec.directory = own.work();
        }
        let bytes_max = spec.limits.disk_bytes.unwrap_or(BRANCH_FOLDER_BYTES_MAX);
        let copied = own.make().and_then(|()| copy_folder(&theirs.work(), &own.work(), bytes_max));
        copied.map_err(|error| not_copied(parent, &error))?;
        let program = self.languages().program(&spec, &own);
        let config = Config { seed: Some(seed), ..self.config(id, &spec, program) };
        Ok(Branch { id, spec, config })
    }

    async fn record_branches(&self, branches: &[Branch]) -> Result<(), Refusal> {
        let durability = branches.first().map(|branch| self.durability(&branch.spec)).unwrap_or_default();
        let records = branches.iter().map(|branch| (branch.id, branch.spec.about()));
        self.record(durability, records.collect()).await
    }

    /// Lets all of them run; if one of them cannot, none does.
    async fn start_branches(&self, branches: Vec<Branch>) -> Result<(), Refusal> {
        let ids: Vec<_> = branches.iter().map(|branch| branch.id).collect();
        let mut starting = Vec::new();
        for Branch { id, spec, config } in branches {
            let about = spec.about();
            let failure = self.start(config, &spec, about, self.bridge().now());
            starting.push((id, self.directory().get(id), failure));
        }
        let mut refused = None;
        for (id, handle, failure) in starting {
            if refused.is_none() && !has_begun(handle.as_deref()).await {
                let why = match failure.await {
                    Ok(error) => format!("the branch {id} could not begin: {error}"),
                    Err(_) => format!("the branch {id} was closed before it began"),
                };
                refused = Some(Refusal::new(ErrorCode::WorkerStartFailed, why));
            }
        }
        let Some(refusal) = refused else { return Ok(()) };
        for id in &ids {
            if let Some(handle) = self.directory().get(*id) {
                let commands = handle.senders.commands.clone();
                // One that has ended meanwhile does not take it, and that is all right.
                let _ = commands.send(Command::Close(CloseMode::Now, oneshot::channel().0)).await;
            }
            self.gone(*id).await;
        }
        Err(refusal)
    }
}

/// Waits until a session has its worker; `false` when it has ended instead.
async fn has_begun(handle: Option<&Handle>) -> bool {
    let Some(handle) = handle else { return false };
    let mut status = handle.outlet.watch();
    let known = status.wait_for(|status| status.state != Phase::Starting).await;
    known.is_ok_and(|status| !matches!(status.state, Phase::Closing | Phase::Closed | Phase::Dead))
}

fn not_copied(parent: SessionId, error: &io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::QuotaExceeded => {
            let why = format!("the folder of {parent} holds more than a branch may take along");
            Refusal::new(ErrorCode::CheckpointLimit, why)
        }
        _ => {
            let why = format!("the folder of {parent} cannot be copied: {error}");
            Refusal::new(ErrorCode::WorkerStartFailed, why)
        }
    }
}
