//! What the hub, its tasks and the outlets of the sessions share: the ways to agents, to sessions and to the records.

use std::fmt;
use std::sync::Arc;

use cob_bridge::{Bridge, SessionRecord};
use cob_clients::agent::AgentSender;
use cob_protocol::error::ErrorCode;
use cob_protocol::ids::{PromiseId, SessionId};
use serde::Deserialize;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;

use super::callbacks::Life;
use super::directory::{Directory, Handle};
use super::hub::HubConfig;
use super::interceptors::Interceptors;
use super::metrics::Tally;
use super::peers::{Peers, Who};
use crate::request::{Asked, Command, Refusal};

/// See the module.
pub(crate) struct Agents {
    pub(crate) sender: AgentSender,
    pub(crate) bridge: Bridge,
    pub(crate) directory: Arc<Directory>,
    pub(crate) life: Life,
    pub(crate) config: HubConfig,
    pub(crate) peers: Peers,
    pub(crate) interceptors: Interceptors,
    pub(crate) tally: Arc<Tally>,
}

/// What is read of the record of a session.
#[derive(Deserialize)]
struct Owned {
    principal: String,
}

impl Agents {
    /// A session that is open and may be used by `who`. When it is not open, [`Agents::absent`] says why.
    pub(crate) fn open(&self, who: &Who, session: SessionId) -> Result<Option<Arc<Handle>>, Refusal> {
        let Some(handle) = self.directory.get(session) else { return Ok(None) };
        if may(who, &handle.owner) { Ok(Some(handle)) } else { Err(forbidden(session)) }
    }

    /// Why a session that is not open cannot be used.
    pub(crate) async fn absent(&self, who: &Who, session: SessionId) -> Refusal {
        match self.record(who, session).await {
            Ok(_) => Refusal::closed(session),
            Err(refusal) => refusal,
        }
    }

    /// The record of a session that `who` may see.
    pub(crate) async fn record(&self, who: &Who, session: SessionId) -> Result<SessionRecord, Refusal> {
        let unknown = || Refusal::new(ErrorCode::UnknownSession, format!("there is no session {session}"));
        let record = self.bridge.session(session).await?.ok_or_else(unknown)?;
        if sees(who, &record) { Ok(record) } else { Err(forbidden(session)) }
    }

    /// Whether there is such a session, open or not, and `who` may see it.
    pub(crate) async fn may_see_known(&self, who: &Who, session: SessionId) -> Result<(), Refusal> {
        match self.open(who, session)? {
            Some(_) => Ok(()),
            None => self.record(who, session).await.map(|_| ()),
        }
    }

    /// Whether `who` may see what is recorded of a session, open or not; the operator may, also when there is none.
    pub(crate) async fn may_see(&self, who: &Who, session: SessionId) -> Result<(), Refusal> {
        if who.is_operator() { Ok(()) } else { self.may_see_known(who, session).await }
    }

    /// Why a promise of a session that is not open cannot be changed.
    pub(crate) async fn unchangeable(&self, who: &Who, id: PromiseId) -> Refusal {
        if let Err(refusal) = self.may_see(who, id.session).await {
            return refusal;
        }
        match self.bridge.promise(id).await {
            Err(error) => error.into(),
            Ok(None) => cob_bridge::BridgeError::Unknown(id).into(),
            Ok(Some(promise)) if promise.state.is_settled() => {
                let why = format!("{id} is {} already", promise.state.as_str());
                Refusal::new(ErrorCode::AlreadySettled, why)
            }
            Ok(Some(_)) => Refusal::closed(id.session),
        }
    }
}

impl fmt::Debug for Agents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Agents")
    }
}

fn may(who: &Who, owner: &str) -> bool {
    who.is_operator() || &*who.principal == owner
}

/// Whether `who` may see this record; one that names nobody is the operator's.
pub(crate) fn sees(who: &Who, record: &SessionRecord) -> bool {
    who.is_operator() || record.about.read().is_ok_and(|owned: Owned| *owned.principal == *who.principal)
}

fn forbidden(session: SessionId) -> Refusal {
    Refusal::new(ErrorCode::Forbidden, format!("the session {session} belongs to another principal"))
}

/// Tells a session to do something, now or not at all.
pub(crate) fn tell(handle: &Handle, command: Command) -> Result<(), Refusal> {
    handle.senders.commands.try_send(command).map_err(|error| match error {
        TrySendError::Full(_) => {
            Refusal::busy(format!("{} has more commands than it can take", handle.session()))
        }
        TrySendError::Closed(_) => Refusal::closed(handle.session()),
    })
}

/// Tells a session to do something and returns what waits for its answer.
pub(crate) fn ask<T: Send + 'static>(
    handle: &Handle,
    command: impl FnOnce(Asked<T>) -> Command,
) -> Result<impl Future<Output = Result<T, Refusal>> + Send + 'static, Refusal> {
    let (asked, answer) = oneshot::channel();
    let session = handle.session();
    tell(handle, command(asked))?;
    // It ended before it came to this.
    Ok(async move { answer.await.unwrap_or_else(|_| Err(Refusal::closed(session))) })
}
