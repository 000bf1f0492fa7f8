//! Jupyter's own requests, handed on to a session, which answers them itself.

use cob_protocol::ids::{SessionId, session_text};
use cob_protocol::message::{Channel, Incoming};
use cob_protocol::registry::Request;
use serde::Deserialize;
use tokio::sync::mpsc::error::TrySendError;

use super::with_session;
use crate::request::{Address, ClientRequest, Refusal, Via};
use crate::server::directory::Handle;
use crate::server::outlet::Waiting;
use crate::server::ticket::{Done, Ticket};

/// What is handed on, the reply, and by which channel of the session.
const FORWARDED: [(&str, &str, Channel); 10] = [
    ("complete_request", "complete_reply", Channel::Shell),
    ("inspect_request", "inspect_reply", Channel::Shell),
    ("is_complete_request", "is_complete_reply", Channel::Shell),
    ("history_request", "history_reply", Channel::Shell),
    ("comm_info_request", "comm_info_reply", Channel::Shell),
    ("comm_open", "", Channel::Shell),
    ("comm_msg", "", Channel::Shell),
    ("comm_close", "", Channel::Shell),
    ("kernel_info_request", "kernel_info_reply", Channel::Control),
    ("usage_request", "usage_reply", Channel::Control),
];

#[derive(Deserialize)]
struct Named {
    #[serde(with = "session_text")]
    session_id: SessionId,
}

pub(super) fn row(msg_type: &str) -> Option<(&'static str, &'static str, Channel)> {
    FORWARDED.into_iter().find(|(name, ..)| *name == msg_type)
}

/// Checks the body; which session it is for.
pub(super) fn read(message: &Incoming, channel: Channel) -> Result<SessionId, Refusal> {
    let named: Named = serde_json::from_slice(&message.content).map_err(|error| {
        Refusal::bad(format!("the content of `{}` cannot be read: {error}", message.header.msg_type))
    })?;
    let read = Request::read(&message.header.msg_type, channel, &message.content);
    read.map(|_| named.session_id).map_err(|error| Refusal::bad(error.to_string()))
}

pub(super) fn forward(ticket: Ticket, session: SessionId, channel: Channel, message: Incoming) {
    with_session(ticket, session, |ticket, handle| {
        let request = match client_request(&ticket, channel, message) {
            Ok(request) => request,
            Err(refusal) => return ticket.refuse(&refusal),
        };
        if ticket.kind.reply.is_empty() {
            return ticket.settle(hand_over(&handle, request).map(|()| Done {}));
        }
        submit(&handle, request, Waiting::Forwarded(ticket));
    });
}

/// A request as sessions know it.
pub(super) fn client_request(
    ticket: &Ticket,
    channel: Channel,
    message: Incoming,
) -> Result<ClientRequest, Refusal> {
    let who = ticket.who()?;
    let address = Address { via: Via::Agents, identity: who.address.clone() };
    Ok(ClientRequest::of(address, who.principal.as_ref().to_owned(), channel, message))
}

/// Hands a request to a session, which is expected to answer it.
pub(super) fn submit(handle: &Handle, request: ClientRequest, waiting: Waiting) {
    let (address, msg_id) = (request.client.address.identity.clone(), request.message.header.msg_id.clone());
    // Before the session can answer it.
    handle.outlet.expect(&address, waiting);
    if let Err(refusal) = hand_over(handle, request) {
        handle.outlet.refuse(&address, &msg_id, &refusal);
    }
}

fn hand_over(handle: &Handle, request: ClientRequest) -> Result<(), Refusal> {
    let lane = match request.channel {
        Channel::Control => &handle.senders.control,
        Channel::Stdin => &handle.senders.stdin,
        Channel::Shell | Channel::Iopub => &handle.senders.shell,
    };
    lane.try_send(request).map_err(|error| match error {
        TrySendError::Full(_) => {
            Refusal::busy(format!("{} has more requests than it can take", handle.session()))
        }
        TrySendError::Closed(_) => Refusal::closed(handle.session()),
    })
}
