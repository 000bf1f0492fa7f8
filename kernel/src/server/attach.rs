//! Jupyter front ends that share a session with agents: five channels, bound by the server for one session.
//!
//! A front end sees all that happens in the session, whoever asked for it. When it shuts its kernel down it ends its own
//! attachment; when it restarts it, the session gets a fresh namespace.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cob_clients::notebook::{BindError, ConnectionFile, Intake, NotebookEndpoint, NotebookOutlet};
use cob_protocol::content::agent::SessionAttach;
use cob_protocol::content::{ShutdownReply, ShutdownRequest};
use cob_protocol::error::ErrorCode;
use cob_protocol::ids::SessionId;
use cob_protocol::json::Json;
use cob_protocol::limits::{FLUSH_MS_MAX, SESSION_ATTACHMENTS_MAX};
use cob_protocol::message::{Channel, Outgoing};
use cob_protocol::time::SystemClock;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::directory::Handle;
use super::life::Sessions;
use crate::request::{ANY_CLIENT, Address, ClientRequest, Command, Refusal, Via};

/// Why the channels of a front end were closed.
pub const REASON_RESTARTED: &str = "restarted";
/// The front end shut its kernel down.
pub const REASON_SHUTDOWN: &str = "shutdown";
/// The session has ended.
pub const REASON_CLOSED: &str = "session_closed";

/// Front ends that are attached, by session and number.
#[derive(Debug, Default)]
pub(crate) struct Attachments(tokio::sync::Mutex<HashMap<(SessionId, u64), Attached>>);

/// One of them.
#[derive(Debug)]
struct Attached {
    /// Dropped: to end it.
    _stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Sessions {
    /// Binds the channels of a front end for a session. What comes back says, later, why they were closed without
    /// [`Sessions::detach`]. A front end that is attached under the same number is detached first.
    ///
    /// # Errors
    /// [`Refusal`]: nothing is bound.
    pub async fn attach(&self, asked: SessionAttach) -> Result<oneshot::Receiver<String>, Refusal> {
        let SessionAttach { session_id, attachment: number, connection } = asked;
        let unknown = || Refusal::new(ErrorCode::UnknownSession, format!("no session {session_id} is open"));
        let handle = self.directory().get(session_id).ok_or_else(unknown)?;
        let wrong = |error: &dyn std::fmt::Display| {
            Refusal::new(ErrorCode::BadRequest, format!("the connection cannot be used: {error}"))
        };
        let file: ConnectionFile = connection.read().map_err(|error| wrong(&error))?;
        if !file.is_local() {
            return Err(wrong(&"it must be ipc, or a loopback address with a key"));
        }
        let mut attached = self.attachments().0.lock().await;
        if let Some(Attached { _stop, task }) = attached.remove(&(session_id, number)) {
            drop(_stop);
            // It does not panic; its sockets are free when it has ended.
            let _ = task.await;
        }
        attached.retain(|_, one| !one.task.is_finished());
        if attached.keys().filter(|(session, _)| *session == session_id).count() >= SESSION_ATTACHMENTS_MAX {
            let why = format!("{SESSION_ATTACHMENTS_MAX} front ends are attached to {session_id} already");
            return Err(Refusal::new(ErrorCode::Busy, why));
        }
        let name = uuid::Uuid::new_v4().to_string();
        let bound = NotebookEndpoint::bind(&file, name, Arc::new(SystemClock)).await;
        let endpoint = bound.map_err(|error| match error {
            BindError::Bind { .. } => Refusal::new(ErrorCode::BadRequest, error.to_string()),
            other => wrong(&other),
        })?;
        let (stop, stopped) = oneshot::channel();
        let (gone, why) = oneshot::channel();
        handle.outlet.attach(number, endpoint.outlet());
        let task = tokio::spawn(async move {
            let reason = tokio::select! {
                biased;
                _ = stopped => None,
                reason = serve(&handle, number, endpoint) => Some(reason),
            };
            handle.outlet.detach(number);
            // Whoever wanted to know may have gone.
            let _ = reason.map(|reason| gone.send(reason.to_owned()));
        });
        attached.insert((session_id, number), Attached { _stop: stop, task });
        Ok(why)
    }

    /// Closes the channels of a front end. Returns when they are closed.
    ///
    /// # Errors
    /// Never: one that is gone is as good as detached.
    pub async fn detach(&self, session: SessionId, number: u64) -> Result<(), Refusal> {
        let attached = self.attachments().0.lock().await.remove(&(session, number));
        if let Some(Attached { _stop, task }) = attached {
            drop(_stop);
            let _ = task.await;
        }
        Ok(())
    }
}

/// Carries the front end's requests into the session until one of them is gone; says why.
async fn serve(handle: &Handle, number: u64, endpoint: NotebookEndpoint) -> &'static str {
    let outlet = endpoint.outlet();
    let NotebookEndpoint { shell, control, stdin, subscriptions, .. } = endpoint;
    let lanes = &handle.senders;
    let via = Via::Attachment(number);
    let ended = tokio::select! {
        end = forward(shell, Channel::Shell, via, &lanes.shell) => end,
        end = forward(control, Channel::Control, via, &lanes.control) => end,
        end = forward(stdin, Channel::Stdin, via, &lanes.stdin) => end,
        () = subscriptions.serve() => None,
        () = lanes.commands.closed() => None,
    };
    let reason = match ended {
        Some(request) => shut_down(handle, &outlet, &request).await,
        None => REASON_CLOSED,
    };
    outlet.finish(Duration::from_millis(FLUSH_MS_MAX)).await;
    reason
}

/// Carries requests of one channel into the session's lane; a full lane leaves them in the client's socket. Ends with the
/// front end's wish to end, or with the session.
async fn forward(
    mut intake: Intake,
    channel: Channel,
    via: Via,
    lane: &mpsc::Sender<ClientRequest>,
) -> Option<ClientRequest> {
    loop {
        let received = intake.recv().await;
        let is_end = received.message.header.msg_type == "shutdown_request";
        let address = Address { via, identity: received.identity };
        let request = ClientRequest::of(address, ANY_CLIENT.to_owned(), channel, received.message);
        if is_end {
            return Some(request);
        }
        if lane.send(request).await.is_err() {
            return None;
        }
    }
}

/// A front end shuts down what it takes for its own kernel: others may use the session still.
async fn shut_down(handle: &Handle, outlet: &NotebookOutlet, request: &ClientRequest) -> &'static str {
    let asked = serde_json::from_slice::<ShutdownRequest>(&request.message.content);
    let restart = asked.is_ok_and(|asked| asked.restart);
    if restart {
        let (done, restarted) = oneshot::channel();
        // It fails only when the session has ended.
        if handle.senders.commands.send(Command::Restart(done)).await.is_ok() {
            let _ = restarted.await;
        }
    }
    let content = Json::of(&ShutdownReply { status: "ok", restart }).unwrap_or_default();
    let reply = || Outgoing::new("shutdown_reply", request.parent(), content.clone());
    outlet.reply(request.channel, &request.client.address.identity, reply());
    outlet.publish(reply());
    outlet.flush();
    if restart { REASON_RESTARTED } else { REASON_SHUTDOWN }
}
