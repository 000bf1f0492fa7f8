//! Checkpoints: take, list, restore, fork, delete, hibernate; and their way from one server to another.

use std::path::PathBuf;
use std::sync::Arc;

use cob_protocol::checkpoint::{CheckpointView, Policy};
use cob_protocol::content::agent::{
    CheckpointDelete, CheckpointExport, CheckpointImport, ForkRequest, Hibernate, OfSession, RestoreRequest,
    TakeCheckpoint,
};
use cob_protocol::error::ErrorCode;
use cob_protocol::ids::{CheckpointId, SessionId};
use cob_protocol::limits::CHECKPOINT_LABEL_BYTES_MAX;
use serde::Serialize;
use serde_json::json;
use tokio::sync::oneshot;

use super::{operator, with_session};
use crate::request::{Asked, Command, GoBack, Refusal, Take, Target};
use crate::server::agents::{ask, tell};
use crate::server::directory::Handle;
use crate::server::spec::SessionSpec;
use crate::server::ticket::{Done, Ticket};

#[derive(Serialize)]
struct One {
    checkpoint: CheckpointView,
}

#[derive(Serialize)]
struct Listed {
    checkpoints: Vec<CheckpointView>,
    policy: Policy,
    /// Why the last automatic one was not taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<String>,
}

pub(super) fn take(ticket: Ticket, body: TakeCheckpoint) {
    let TakeCheckpoint { session_id, label, durable, force } = body;
    if let Err(refusal) = label.as_deref().map_or(Ok(()), check_label) {
        return ticket.refuse(&refusal);
    }
    with_session(ticket, session_id, |ticket, handle| {
        let take = Take { label, durable, force };
        one(ticket, &handle, |asked| Command::Checkpoint(take, asked));
    });
}

pub(super) fn hibernate(ticket: Ticket, body: &Hibernate) {
    let force = body.force;
    with_session(ticket, body.session_id, |ticket, handle| {
        one(ticket, &handle, |asked| Command::Hibernate(force, asked));
    });
}

/// Lets a session do something that is answered with a checkpoint.
fn one(ticket: Ticket, handle: &Handle, command: impl FnOnce(Asked<CheckpointView>) -> Command) {
    match ask(handle, command) {
        Ok(answer) => ticket.later(async move { answer.await.map(|checkpoint| One { checkpoint }) }),
        Err(refusal) => ticket.refuse(&refusal),
    }
}

fn check_label(label: &str) -> Result<(), Refusal> {
    if label.is_empty() || label.len() > CHECKPOINT_LABEL_BYTES_MAX || label.chars().any(char::is_control) {
        let why = format!(
            "`label` must have 1 to {CHECKPOINT_LABEL_BYTES_MAX} bytes, and no control characters among them"
        );
        return Err(Refusal::bad(why));
    }
    Ok(())
}

pub(super) fn list(ticket: Ticket, body: &OfSession) {
    let session = body.session_id;
    ticket.spawn(move |ticket| async move {
        let listed = listed(&ticket, session).await;
        ticket.settle(listed);
    });
}

async fn listed(ticket: &Ticket, session: SessionId) -> Result<Listed, Refusal> {
    let (who, agents) = (ticket.who()?, &ticket.agents);
    if let Some(handle) = agents.open(who, session)? {
        let (looked, snapshot) = oneshot::channel();
        tell(&handle, Command::Look(looked))?;
        let checkpoints = ask(&handle, Command::Checkpoints)?.await?;
        let snapshot = snapshot.await.map_err(|_| Refusal::closed(session))?;
        let (policy, skipped) = (snapshot.checkpoint_policy, snapshot.checkpoint_skipped);
        return Ok(Listed { checkpoints, policy, skipped });
    }
    let record = agents.record(who, session).await?;
    let checkpoints = match agents.bridge.bundles() {
        Some(bundles) => bundles.list(session).await?,
        None => Vec::new(),
    };
    let policy = SessionSpec::of(&record).map(|spec| spec.checkpoints).unwrap_or_default();
    Ok(Listed { checkpoints, policy, skipped: None })
}

pub(super) fn delete(ticket: Ticket, body: &CheckpointDelete) {
    let id = body.checkpoint;
    ticket.spawn(move |ticket| async move {
        let deleted = deleted(&ticket, id).await;
        ticket.settle(deleted.map(|()| Done {}));
    });
}

async fn deleted(ticket: &Ticket, id: CheckpointId) -> Result<(), Refusal> {
    let (who, agents) = (ticket.who()?, &ticket.agents);
    if let Some(handle) = agents.open(who, id.session)? {
        return ask(&handle, |asked| Command::DropCheckpoint(id, asked))?.await;
    }
    // What a session has left behind in the store, when it was closed.
    agents.record(who, id.session).await?;
    let bundles = agents.bridge.bundles().ok_or_else(|| unknown(id))?;
    Ok(bundles.delete(id).await?)
}

fn unknown(id: CheckpointId) -> Refusal {
    Refusal::new(ErrorCode::UnknownCheckpoint, format!("there is no durable checkpoint {id}"))
}

pub(super) fn restore(ticket: Ticket, body: RestoreRequest) {
    let RestoreRequest { session_id, checkpoint, label, undo, now, fresh, force } = body;
    let to = match (checkpoint, label, undo) {
        (Some(checkpoint), None, None) => Ok(Target::Checkpoint(checkpoint)),
        (None, Some(label), None) => check_label(&label).map(|()| Target::Label(label)),
        (None, None, Some(0)) => Err(Refusal::bad("`undo` must be 1 execution or more")),
        (None, None, Some(count)) => Ok(Target::Undo(count)),
        _ => Err(Refusal::bad("give exactly one of `checkpoint`, `label` and `undo`")),
    };
    let back = match to {
        Ok(to) => GoBack { to, now, fresh, force },
        Err(refusal) => return ticket.refuse(&refusal),
    };
    with_session(ticket, session_id, |ticket, handle| match checkpoint {
        // Whose it is, is known to the records alone.
        Some(id) if id.session != session_id => ticket.spawn(move |ticket| async move {
            let seen = match ticket.who() {
                Ok(who) => ticket.agents.may_see_known(who, id.session).await,
                Err(refusal) => Err(refusal),
            };
            match seen {
                Ok(()) => go_back(ticket, handle, back),
                Err(refusal) => ticket.refuse(&refusal),
            }
        }),
        _ => go_back(ticket, handle, back),
    });
}

fn go_back(ticket: Ticket, handle: Arc<Handle>, back: GoBack) {
    match ask(&handle, |asked| Command::Restore(back, asked)) {
        Ok(answer) => ticket.later(async move {
            let restored = answer.await?;
            let state = handle.outlet.watch().borrow().state;
            Ok(json!({ "restored": restored, "state": state }))
        }),
        Err(refusal) => ticket.refuse(&refusal),
    }
}

pub(super) fn fork(ticket: Ticket, body: ForkRequest) {
    let parent = body.session_id;
    if let Some(id) = body.checkpoint.filter(|id| id.session != parent) {
        let why = format!("{id} is no checkpoint of {parent}; fork {} instead", id.session);
        return ticket.refuse(&Refusal::bad(why));
    }
    let owner = match ticket.who().and_then(|who| ticket.agents.open(who, parent).map(|_| who)) {
        Ok(who) => who.principal.as_ref().to_owned(),
        Err(refusal) => return ticket.refuse(&refusal),
    };
    // Also when the parent is closed: the key may name what was forked off before.
    let forked = (ticket.agents.life.fork)(owner, body);
    ticket.spawn(move |ticket| async move {
        let forked = match (forked.await, ticket.who()) {
            // It may not even exist, or be somebody else's.
            (Err(refusal), Ok(who)) if refusal.code == ErrorCode::SessionClosed => {
                Err(ticket.agents.absent(who, parent).await)
            }
            (forked, _) => forked,
        };
        ticket.settle(forked.map(|forked| {
            let sessions: Vec<_> = forked.sessions.iter().map(ToString::to_string).collect();
            json!({ "sessions": sessions, "checkpoint": forked.checkpoint })
        }));
    });
}

pub(super) fn export(ticket: Ticket, body: CheckpointExport) {
    let CheckpointExport { checkpoint, path } = body;
    let path = match operator(&ticket).and_then(|()| absolute(&path)) {
        Ok(path) => path,
        Err(refusal) => return ticket.refuse(&refusal),
    };
    let bundles = ticket.agents.bridge.bundles();
    ticket.later(async move {
        let bundles = bundles.ok_or_else(|| unknown(checkpoint))?;
        let bytes = bundles.export(checkpoint, &path).await?;
        Ok(json!({ "bytes": bytes, "path": path }))
    });
}

pub(super) fn import(ticket: Ticket, body: CheckpointImport) {
    let CheckpointImport { session_id, path, key } = body;
    let checked = operator(&ticket).and_then(|()| absolute(&path));
    match checked.and_then(|path| check_key(key.as_deref()).map(|()| path)) {
        Ok(path) => with_session(ticket, session_id, |ticket, handle| {
            one(ticket, &handle, |asked| Command::Import(path, key, asked));
        }),
        Err(refusal) => ticket.refuse(&refusal),
    }
}

/// The server's working directory is nobody's business.
fn absolute(path: &str) -> Result<PathBuf, Refusal> {
    let file = PathBuf::from(path);
    if file.is_absolute() && !path.contains('\0') {
        return Ok(file);
    }
    Err(Refusal::bad(format!("the file `{}` must be named from the root on", path.escape_debug())))
}

fn check_key(key: Option<&str>) -> Result<(), Refusal> {
    match key.map(hex::decode) {
        None => Ok(()),
        Some(Ok(bytes)) if !bytes.is_empty() => Ok(()),
        Some(_) => Err(Refusal::bad("`key` is that of the server that made it, in hexadecimal digits")),
    }
}
