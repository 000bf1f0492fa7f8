//! The line to one subscriber: what is sent to it names the subscription, and comes no faster than it reads.

use std::sync::Arc;

use cob_bridge::Recorded;
use cob_protocol::content::StreamContent;
use cob_protocol::event::{Event, EventNumber};
use cob_protocol::ids::PromiseId;
use cob_protocol::json::Json;
use cob_protocol::message::Outgoing;
use cob_protocol::registry::Lane;
use cob_protocol::time::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::json;

use super::flow::Flow;
use super::peers::Connection;
use super::ticket::Ticket;
use crate::request::Refusal;

/// What stands around an event, roughly.
const ENVELOPE_BYTES: usize = 512;

/// See the module. When it is dropped the subscription is over.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) connection: Arc<Connection>,
    /// Name of the subscription: the `msg_id` of the request.
    pub(crate) name: String,
    /// Header of the request.
    parent: Json,
    pub(crate) flow: Arc<Flow>,
}

#[derive(Serialize)]
struct EventContent<'a> {
    subscription: &'a str,
    promise: PromiseId,
    number: EventNumber,
    at: Timestamp,
    kind: &'static str,
    content: Body<'a>,
}

/// What an event says.
struct Body<'a>(&'a Event);

#[derive(Serialize)]
struct End<'a> {
    subscription: &'a str,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    promise: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Json>,
}

impl Line {
    /// The subscription that a request asks for.
    pub(crate) fn open(ticket: &Ticket, flow: Flow) -> Result<Self, Refusal> {
        let (connection, name) = (Arc::clone(&ticket.connection), ticket.msg_id.clone());
        let flow = connection.subscribe(&name, flow)?;
        Ok(Self { connection, name, parent: ticket.parent.clone(), flow })
    }

    /// Sends when there is room; `false` when the connection has ended.
    pub(crate) async fn send(&self, msg_type: &'static str, content: &impl Serialize) -> bool {
        let message = || Outgoing::new(msg_type, self.parent.clone(), Json::of(content).unwrap_or_default());
        self.connection.deliver(message, Lane::Data).await
    }

    /// Sends one event, for one credit.
    pub(crate) async fn event(&self, promise: PromiseId, recorded: &Recorded) -> bool {
        let Recorded { number, at, event } = recorded;
        let (subscription, kind, content) = (self.name.as_str(), event.kind(), Body(event));
        let content = EventContent { subscription, promise, number: *number, at: *at, kind, content };
        // With an eighth for what is escaped.
        let bytes = ENVELOPE_BYTES + event.bytes() + event.bytes() / 8;
        let text = || Json::of_about(&content, bytes).unwrap_or_default();
        let message = || Outgoing::new("event", self.parent.clone(), text());
        let is_sent = self.connection.deliver(message, Lane::Data).await;
        self.flow.spend();
        is_sent
    }

    /// Says that events are missing.
    pub(crate) async fn gap(&self, promise: PromiseId, from: EventNumber, next: EventNumber) -> bool {
        let content = json!({ "subscription": self.name, "promise": promise, "from": from, "next": next });
        self.send("gap", &content).await
    }

    /// Says that nothing more comes.
    pub(crate) async fn end(&self, reason: &'static str, promise: Option<Json>, error: Option<Json>) {
        // When it has gone there is nobody to tell.
        let _ =
            self.send("subscription_end", &End { subscription: &self.name, reason, promise, error }).await;
    }

    /// Says that it cannot be read on.
    pub(crate) async fn fail(&self, error: cob_bridge::BridgeError) {
        self.end("failed", None, Some(Refusal::from(error).content())).await;
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.connection.unsubscribe(&self.name);
    }
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Event::Stream { name, text } => StreamContent { name: name.as_str(), text }.serialize(to),
            Event::Display(content)
            | Event::UpdateDisplay(content)
            | Event::Result(content)
            | Event::Data(content) => content.serialize(to),
            Event::ClearOutput { wait } => json!({ "wait": wait }).serialize(to),
            Event::Error(error) => error.serialize(to),
            Event::CallOpened { kind, call } => json!({ "kind": kind, "call": call }).serialize(to),
            Event::CallClosed { call, state } => json!({ "call": call, "state": state }).serialize(to),
            Event::Truncated { written, kept, dropped } => {
                json!({ "written": written, "kept": kept, "dropped": dropped }).serialize(to)
            }
            Event::Done { last } => json!({ "last": last }).serialize(to),
        }
    }
}
