//! The way out of a session of a server: to agents, from the journal, and to attached front ends, as it happens.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cob_clients::notebook::NotebookOutlet;
use cob_protocol::checkpoint::Restoration;
use cob_protocol::error::ErrorCode;
use cob_protocol::ids::{CheckpointId, PromiseId, SessionId};
use cob_protocol::json::Json;
use cob_protocol::message::{Channel, Outgoing};
use cob_protocol::promise::{Durability, Promise};
use cob_protocol::registry::Lane;
use serde::Deserialize;
use tokio::sync::watch;

use super::agents::Agents;
use super::deeds::Deeds;
use super::delivery::{Accepted, Asking};
use super::ticket::Ticket;
use super::unrecorded::Unrecorded;
use crate::request::{Address, ClientRequest, Phase, Refusal, Via};

/// What everybody may know of a session at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionStatus {
    /// Where it stands.
    pub state: Phase,
    /// Its running execution.
    pub running: Option<PromiseId>,
}

/// What a session holds of checkpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// Those in memory.
    pub checkpoints: usize,
    /// Bytes that only they hold, as last measured.
    pub bytes: u64,
    /// Where its next worker will begin, if it has none.
    pub wakes_at: Option<CheckpointId>,
}

/// How outlets reach the agents, once there is a hub.
pub(crate) type Link = OnceLock<Arc<Agents>>;

/// See the module.
#[derive(Debug)]
pub struct ServerOutlet {
    session: SessionId,
    status: watch::Sender<SessionStatus>,
    /// Front ends, by the number of their attachment.
    attachments: Mutex<Vec<(u64, NotebookOutlet)>>,
    link: Arc<Link>,
    is_server_ending: Arc<AtomicBool>,
    asked: Mutex<Asked>,
    unrecorded: watch::Sender<Unrecorded>,
    holding: Mutex<Holding>,
    /// How it last went back to a checkpoint.
    restored: watch::Sender<Option<Arc<Restoration>>>,
    /// What all sessions of the server have done with checkpoints.
    deeds: Arc<Deeds>,
}

/// What agents have asked of the session and was not answered.
#[derive(Debug, Default)]
struct Asked {
    /// By the address of the asker and the `msg_id`.
    waiting: HashMap<(Bytes, String), Waiting>,
    is_ended: bool,
}

/// One of these requests.
#[derive(Debug)]
pub(crate) enum Waiting {
    /// It was handed on: the session answers it itself.
    Forwarded(Ticket),
    /// It has no promise yet.
    Execution(Box<Asking>),
}

impl Waiting {
    fn refuse(self, refusal: &Refusal) {
        self.into_ticket().refuse(refusal);
    }

    fn into_ticket(self) -> Ticket {
        match self {
            Self::Forwarded(ticket) => ticket,
            Self::Execution(asking) => asking.ticket,
        }
    }

    fn ticket(&self) -> &Ticket {
        match self {
            Self::Forwarded(ticket) => ticket,
            Self::Execution(asking) => &asking.ticket,
        }
    }
}

/// What is read of the header that a reply answers.
#[derive(Deserialize)]
struct Parent {
    msg_id: String,
}

/// What is read of a reply that a session wrote.
#[derive(Deserialize)]
struct Outcome<'a> {
    status: &'a str,
    #[serde(default)]
    code: Option<&'a str>,
}

impl ServerOutlet {
    /// One that reaches nobody: a server's come from [`super::Directory::outlet`].
    #[must_use]
    pub fn new(session: SessionId) -> Self {
        Self::linked(session, Arc::default(), Arc::default(), Arc::default())
    }

    pub(crate) fn linked(
        session: SessionId,
        link: Arc<Link>,
        is_server_ending: Arc<AtomicBool>,
        deeds: Arc<Deeds>,
    ) -> Self {
        let status = watch::Sender::new(SessionStatus { state: Phase::Starting, running: None });
        Self {
            session,
            status,
            attachments: Mutex::default(),
            link,
            is_server_ending,
            asked: Mutex::default(),
            unrecorded: watch::Sender::default(),
            holding: Mutex::default(),
            restored: watch::Sender::default(),
            deeds,
        }
    }

    /// Its session.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Whether its server ends.
    #[must_use]
    pub fn is_server_ending(&self) -> bool {
        self.is_server_ending.load(Ordering::Relaxed)
    }

    /// How the session stands, now and later.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<SessionStatus> {
        self.status.subscribe()
    }

    // --- Checkpoints -----------------------------------------------------------------------------------------

    /// It holds this of checkpoints now.
    pub fn holds(&self, holding: Holding) {
        *self.holding.lock().unwrap_or_else(PoisonError::into_inner) = holding;
    }

    pub(crate) fn holding(&self) -> Holding {
        *self.holding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A checkpoint was taken, of its own accord or because somebody asked.
    pub fn took(&self, automatic: bool) {
        self.deeds.took(automatic);
    }

    /// Its variables are those of a checkpoint now: whoever follows the session is told.
    pub fn restored(&self, restoration: &Restoration) {
        self.deeds.restored();
        self.restored.send_replace(Some(Arc::new(restoration.clone())));
    }

    /// It has no worker any more, and everything of it is in the store.
    pub fn hibernated(&self) {
        self.deeds.hibernated();
    }

    /// How it goes back to checkpoints from now on.
    pub(crate) fn watch_restored(&self) -> watch::Receiver<Option<Arc<Restoration>>> {
        self.restored.subscribe()
    }

    // --- To agents -------------------------------------------------------------------------------------------

    /// A request is about to be handed to the session, which will answer it, or refuse it by ending.
    pub(crate) fn expect(&self, address: &Bytes, waiting: Waiting) {
        let key = (address.clone(), waiting.ticket().msg_id.clone());
        let mut asked = self.asked();
        if asked.is_ended {
            drop(asked);
            return waiting.refuse(&Refusal::closed(self.session));
        }
        asked.waiting.insert(key, waiting);
    }

    /// It was not taken.
    pub(crate) fn refuse(&self, address: &Bytes, msg_id: &str, refusal: &Refusal) {
        if let Some(waiting) = self.take(address, msg_id) {
            waiting.refuse(refusal);
        }
    }

    /// The request of an agent has its promise: it is told so (`ack`), and from here on what becomes of it is delivered
    /// from the journal. `known`: it was asked for before. Called before anything of the execution can happen.
    pub fn accepted(
        &self,
        request: &ClientRequest,
        promise: PromiseId,
        durability: Durability,
        known: Option<&Promise>,
    ) {
        let waiting = self.take(&request.client.address.identity, &request.message.header.msg_id);
        // Nobody waits for one that was asked for under another server.
        let Some(Waiting::Execution(asking)) = waiting else { return };
        let unrecorded = Unrecorded::watch(&self.unrecorded, promise);
        asking.accepted(Accepted { promise, durability, is_known: known.is_some(), unrecorded });
    }

    /// The end of an execution could not be recorded: whoever waits for it gets this reply instead.
    pub fn unrecorded(&self, promise: PromiseId, reply: &Json) {
        self.unrecorded.send_modify(|unrecorded| unrecorded.add(promise, reply.clone()));
    }

    /// Waits for the reply of a promise whose end cannot be recorded.
    pub(crate) fn watch_unrecorded(&self, promise: PromiseId) -> impl Future<Output = Json> + Send + use<> {
        Unrecorded::watch(&self.unrecorded, promise)
    }

    /// The session stands otherwise now.
    pub fn set_status(&self, status: SessionStatus) {
        self.status.send_if_modified(|known| std::mem::replace(known, status) != status);
    }

    /// The session has ended: whoever waits for an answer of it is told so.
    pub(crate) fn ended(&self) {
        let waiting = {
            let mut asked = self.asked();
            asked.is_ended = true;
            std::mem::take(&mut asked.waiting)
        };
        let refusal = Refusal::closed(self.session);
        waiting.into_values().for_each(|waiting| waiting.refuse(&refusal));
        self.status.send_if_modified(|status| {
            let is_over = matches!(status.state, Phase::Closed | Phase::Dead);
            if !is_over {
                *status = SessionStatus { state: Phase::Closed, running: None };
            }
            !is_over
        });
    }

    fn reply_to_agent(&self, channel: Channel, address: &Address, message: Outgoing) {
        // Replies have somebody who waits for them. A `call` has the parent of another client's request, which may have
        // the name of one that waits here.
        if message.msg_type.ends_with("_reply") {
            let parent: Option<Parent> = message.parent.read().ok();
            let waiting = parent.and_then(|parent| self.take(&address.identity, &parent.msg_id));
            if let Some(waiting) = waiting {
                let code = outcome(&message.content);
                waiting.into_ticket().send(message.content, message.metadata, code);
            }
            return;
        }
        // What nobody has asked for goes to whoever is there now.
        let connection = self.link.get().and_then(|agents| agents.peers.at(&address.identity));
        let lane = if channel == Channel::Control { Lane::Control } else { Lane::Data };
        match connection {
            Some(connection) => connection.send(message, lane),
            None => {
                tracing::debug!(session = %self.session, msg_type = message.msg_type, "the agent has gone")
            }
        }
    }

    fn take(&self, address: &Bytes, msg_id: &str) -> Option<Waiting> {
        self.asked().waiting.remove(&(address.clone(), msg_id.to_owned()))
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // --- To both ---------------------------------------------------------------------------------------------

    /// Sends to one client, at once. To agents: replies to what was handed on (`complete_reply`, …), refusals of
    /// executions that have no promise, and `call`s.
    pub fn reply(&self, channel: Channel, address: &Address, message: Outgoing) {
        match address.via {
            Via::Attachment(number) => {
                if let Some(outlet) = self.attachment(number) {
                    outlet.reply(channel, &address.identity, message);
                }
            }
            Via::Agents => self.reply_to_agent(channel, address, message),
            Via::Own => tracing::error!("a session of a server has no sockets of its own"),
        }
    }

    // --- To attached front ends ------------------------------------------------------------------------------

    /// A front end is there.
    pub fn attach(&self, number: u64, outlet: NotebookOutlet) {
        self.lock().push((number, outlet));
    }

    /// It has gone.
    pub fn detach(&self, number: u64) {
        self.lock().retain(|(known, _)| *known != number);
    }

    /// Whether a front end is there.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        !self.lock().is_empty()
    }

    /// Queues a broadcast.
    pub fn publish(&self, message: Outgoing) {
        self.each(|outlet| outlet.publish(message.clone()));
    }

    /// Writes what was published as far as it is taken now.
    pub fn flush(&self) {
        self.each(NotebookOutlet::flush);
    }

    /// Whether more output may be published now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.lock().iter().all(|(_, outlet)| outlet.has_room())
    }

    /// Waits until more output may be published. Cancel-safe.
    pub async fn room(&self) {
        for outlet in self.outlets() {
            outlet.room().await;
        }
    }

    /// Whether everything published is on the wire.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.lock().iter().all(|(_, outlet)| outlet.is_flushed())
    }

    /// Waits until everything published is on the wire, or the deadline.
    pub async fn flushed(&self, deadline: Duration) {
        for outlet in self.outlets() {
            outlet.flushed(deadline).await;
        }
    }

    /// Waits until everything sent on any channel is on the wire, or the deadline.
    pub async fn finish(&self, deadline: Duration) {
        for outlet in self.outlets() {
            outlet.finish(deadline).await;
        }
    }

    fn attachment(&self, number: u64) -> Option<NotebookOutlet> {
        self.lock().iter().find(|(known, _)| *known == number).map(|(_, outlet)| outlet.clone())
    }

    fn each(&self, mut act: impl FnMut(&NotebookOutlet)) {
        self.lock().iter().for_each(|(_, outlet)| act(outlet));
    }

    fn outlets(&self) -> Vec<NotebookOutlet> {
        self.lock().iter().map(|(_, outlet)| outlet.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(u64, NotebookOutlet)>> {
        self.attachments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a reply says of the request: `None` if all is well, else the code, or `error` when the code of the user failed.
pub(crate) fn outcome(content: &Json) -> Option<&'static str> {
    let outcome: Outcome<'_> = content.read().ok()?;
    if outcome.status == "ok" {
        return None;
    }
    let known = ErrorCode::ALL.iter().map(|code| code.code()).find(|code| Some(*code) == outcome.code);
    Some(known.unwrap_or("error"))
}
