//! Durable channels between a client and the code of a session.

use cob_protocol::content::agent::{ChannelClose, ChannelData, ChannelOpen};
use serde_json::json;

use super::{done, with_session};
use crate::request::Command;
use crate::server::agents::ask;
use crate::server::flow::Flow;
use crate::server::line::Line;
use crate::server::reading::{Reader, Style};
use crate::server::subscription;
use crate::server::ticket::Ticket;

pub(super) fn open(ticket: Ticket, body: ChannelOpen) {
    with_session(ticket, body.session_id, |ticket, handle| {
        let line = match Line::open(&ticket, Flow::new(body.credit, true)) {
            Ok(line) => line,
            Err(refusal) => return ticket.refuse(&refusal),
        };
        let (name, commands) = (body.channel.clone(), handle.senders.commands.clone());
        let opened = match ask(&handle, |asked| Command::OpenChannel(name, asked)) {
            Ok(opened) => opened,
            Err(refusal) => return ticket.refuse(&refusal),
        };
        ticket.spawn(move |ticket| async move {
            let state = match opened.await {
                Ok(state) => state,
                Err(refusal) => return ticket.refuse(&refusal),
            };
            let follower = ticket.agents.bridge.follow(state.from_code, body.from);
            let style = Style::Channel { name: body.channel.clone(), commands, granted: 0 };
            ticket.ok(json!({
                "channel": body.channel,
                "subscription": line.name,
                "next": state.next,
                "is_closed": state.is_closed,
            }));
            subscription::read(Reader::new(line, follower, style)).await;
        });
    });
}

pub(super) fn data(ticket: Ticket, body: ChannelData) {
    with_session(ticket, body.session_id, |ticket, handle| {
        let (channel, number, data) = (body.channel, body.number, body.data);
        match ask(&handle, |asked| Command::ChannelData(channel, number, data, asked)) {
            Ok(recorded) => ticket.later(async move { Ok(json!({ "number": recorded.await? })) }),
            Err(refusal) => ticket.refuse(&refusal),
        }
    });
}

pub(super) fn close(ticket: Ticket, body: ChannelClose) {
    with_session(ticket, body.session_id, |ticket, handle| {
        done(ticket, &handle, |asked| Command::CloseChannel(body.channel, asked));
    });
}
