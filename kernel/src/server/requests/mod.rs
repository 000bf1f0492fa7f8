//! What becomes of each request, one family per file. Everything here is done at once, or in a task of its own.

mod calls;
mod channels;
mod checkpoints;
mod execute;
mod forward;
mod hello;
mod info;
mod promises;
mod sessions;
mod subscriptions;

use std::sync::Arc;

use cob_protocol::error::ErrorCode;
use cob_protocol::ids::{PromiseId, SessionId};
use cob_protocol::message::{Channel, Incoming};
use cob_protocol::registry::{AgentRequest, Lane, agent_request_name, agent_row};

use super::agents::ask;
use super::directory::Handle;
use super::ticket::{Done, ERROR_REPLY, Kind, Ticket};
use crate::request::{Asked, Command, Refusal};

/// The row of a type; one that is in no table is answered with an error.
pub(crate) fn kind_of(msg_type: &str) -> Kind {
    if let (Some(name), Some((reply, lane))) = (agent_request_name(msg_type), agent_row(msg_type)) {
        return Kind { name, reply, lane };
    }
    match forward::row(msg_type) {
        Some((name, reply, _)) => Kind { name, reply, lane: Lane::Data },
        None => Kind { name: "unknown", reply: ERROR_REPLY, lane: Lane::Data },
    }
}

/// What was asked, read.
pub(crate) enum Body {
    Agent(Box<AgentRequest>),
    /// A Jupyter request for a session.
    Forward(SessionId, Channel),
}

impl Body {
    /// Reads the content of a message.
    pub(crate) fn read(message: &Incoming) -> Result<Self, Refusal> {
        let msg_type = message.header.msg_type.as_str();
        // A list of the right values would be read as well, and nobody means that.
        if message.content.first() == Some(&b'[') {
            return Err(Refusal::bad(format!(
                "the content of `{msg_type}` must be an object, and is a list"
            )));
        }
        if let Some((_, _, channel)) = forward::row(msg_type) {
            return forward::read(message, channel).map(|session| Self::Forward(session, channel));
        }
        let request = AgentRequest::read(msg_type, &message.content);
        request.map(|request| Self::Agent(Box::new(request))).map_err(|error| Refusal::bad(error.to_string()))
    }

    /// The session that it is about.
    pub(crate) fn session(&self) -> Option<SessionId> {
        match self {
            Self::Forward(session, _) => Some(*session),
            Self::Agent(request) => session_of(request),
        }
    }
}

fn session_of(request: &AgentRequest) -> Option<SessionId> {
    use AgentRequest as R;
    match request {
        R::Hello(_) | R::Ping(_) | R::SessionOpen(_) | R::SessionList(_) | R::SessionDetach(_) => None,
        R::ServerInfo(_) | R::Metrics(_) | R::ServerHandover(_) | R::Credit(_) | R::Unsubscribe(_) => None,
        R::SessionClose(body) => Some(body.session_id),
        R::SessionInfo(body) => Some(body.session_id),
        R::SessionAttach(body) => Some(body.session_id),
        R::Execute(body) => Some(body.session_id),
        R::Subscribe(body) => body.session_id.or(body.promise.map(|promise| promise.session)),
        R::PromiseGet(body) => body.session_id.or(body.promise.map(|promise| promise.session)),
        R::PromiseWait(body) => Some(body.promise.session),
        R::PromiseList(body) => body.session_id,
        R::Answer(body) => Some(body.promise.session),
        R::Cancel(body) => Some(body.promise.session),
        R::Interrupt(body) | R::Restart(body) => Some(body.session_id),
        R::Checkpoint(body) => Some(body.session_id),
        R::CheckpointList(body) => Some(body.session_id),
        R::CheckpointDelete(body) => Some(body.checkpoint.session),
        R::CheckpointExport(body) => Some(body.checkpoint.session),
        R::CheckpointImport(body) => Some(body.session_id),
        R::Restore(body) => Some(body.session_id),
        R::Fork(body) => Some(body.session_id),
        R::Hibernate(body) => Some(body.session_id),
        R::ToolRegister(body) => Some(body.session_id),
        R::ToolUnregister(body) => Some(body.session_id),
        R::ChannelOpen(body) => Some(body.session_id),
        R::ChannelData(body) => Some(body.session_id),
        R::ChannelClose(body) => Some(body.session_id),
    }
}

/// Serves a request of one who has said hello, or says it; `proved` is the name of the key that the connection proved to
/// have.
pub(crate) fn serve(
    ticket: Ticket,
    body: Body,
    message: Incoming,
    proved: Option<Arc<str>>,
    trace: Option<Arc<str>>,
) {
    use AgentRequest as R;
    let request = match body {
        Body::Agent(request) => *request,
        Body::Forward(session, channel) => return forward::forward(ticket, session, channel, message),
    };
    match request {
        R::Hello(body) => hello::hello(ticket, &body, proved.as_deref()),
        R::Ping(_) => ticket.ok(Done {}),
        R::SessionOpen(body) => sessions::open(ticket, body),
        R::SessionClose(body) => sessions::close(ticket, &body),
        R::SessionList(body) => sessions::list(ticket, body),
        R::SessionInfo(body) => sessions::info(ticket, &body),
        R::SessionAttach(body) => sessions::attach(ticket, body),
        R::SessionDetach(body) => sessions::detach(ticket, &body),
        R::ServerInfo(_) => info::server(ticket),
        R::Metrics(_) => info::metrics(ticket),
        R::ServerHandover(_) => sessions::handover(ticket),
        R::Execute(body) => execute::execute(ticket, body, message, trace),
        R::Subscribe(body) => subscriptions::subscribe(ticket, &body),
        R::Credit(body) => subscriptions::credit(ticket, &body),
        R::Unsubscribe(body) => subscriptions::unsubscribe(ticket, &body),
        R::PromiseGet(body) => promises::get(ticket, body),
        R::PromiseWait(body) => promises::wait(ticket, &body),
        R::PromiseList(body) => promises::list(ticket, body),
        R::Answer(body) => calls::answer(ticket, body),
        R::Interrupt(body) => sessions::interrupt(ticket, &body),
        R::Cancel(body) => promises::cancel(ticket, &body),
        R::Restart(body) => sessions::restart(ticket, &body),
        R::Checkpoint(body) => checkpoints::take(ticket, body),
        R::CheckpointList(body) => checkpoints::list(ticket, &body),
        R::CheckpointDelete(body) => checkpoints::delete(ticket, &body),
        R::CheckpointExport(body) => checkpoints::export(ticket, body),
        R::CheckpointImport(body) => checkpoints::import(ticket, body),
        R::Restore(body) => checkpoints::restore(ticket, body),
        R::Fork(body) => checkpoints::fork(ticket, body),
        R::Hibernate(body) => checkpoints::hibernate(ticket, &body),
        R::ToolRegister(body) => calls::register(ticket, body),
        R::ToolUnregister(body) => calls::unregister(ticket, body),
        R::ChannelOpen(body) => channels::open(ticket, body),
        R::ChannelData(body) => channels::data(ticket, body),
        R::ChannelClose(body) => channels::close(ticket, body),
    }
}

/// Goes on with a session that is open, or says why it cannot be used.
fn with_session(ticket: Ticket, session: SessionId, act: impl FnOnce(Ticket, Arc<Handle>)) {
    match ticket.who().and_then(|who| ticket.agents.open(who, session)) {
        Ok(Some(handle)) => act(ticket, handle),
        Ok(None) => ticket.spawn(move |ticket| async move {
            let refusal = match ticket.who() {
                Ok(who) => ticket.agents.absent(who, session).await,
                Err(refusal) => refusal,
            };
            ticket.refuse(&refusal);
        }),
        Err(refusal) => ticket.refuse(&refusal),
    }
}

/// The same with the session of a promise that is to be changed.
fn with_promise(ticket: Ticket, id: PromiseId, act: impl FnOnce(Ticket, Arc<Handle>)) {
    match ticket.who().and_then(|who| ticket.agents.open(who, id.session)) {
        Ok(Some(handle)) => act(ticket, handle),
        Ok(None) => ticket.spawn(move |ticket| async move {
            let refusal = match ticket.who() {
                Ok(who) => ticket.agents.unchangeable(who, id).await,
                Err(refusal) => refusal,
            };
            ticket.refuse(&refusal);
        }),
        Err(refusal) => ticket.refuse(&refusal),
    }
}

/// Lets a session do something that has no answer but that it is done.
fn done(ticket: Ticket, handle: &Handle, command: impl FnOnce(Asked<()>) -> Command) {
    match ask(handle, command) {
        Ok(answer) => ticket.later(async move { answer.await.map(|()| Done {}) }),
        Err(refusal) => ticket.refuse(&refusal),
    }
}

/// Only the operator may do this.
fn operator(ticket: &Ticket) -> Result<(), Refusal> {
    if ticket.who()?.is_operator() {
        return Ok(());
    }
    Err(Refusal::new(ErrorCode::Forbidden, "only the operator of the server may do this"))
}
