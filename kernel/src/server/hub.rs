//! One loop that reads the endpoint of agents.
//!
//! **Invariant:** it never waits for a session, a peer or the records: what takes time is done by tasks, whose number is
//! bounded by the requests that a connection may have open.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use cob_bridge::Bridge;
use cob_clients::agent::{AgentEndpoint, AgentEvent, AgentPeer};
use cob_protocol::content::agent::AGENT_PROTOCOL_VERSION;
use cob_protocol::error::ErrorCode;
use cob_protocol::json::Json;
use cob_protocol::message::Incoming;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;

use super::agents::Agents;
use super::callbacks::Life;
use super::directory::Directory;
use super::interceptors::{Interceptors, Log, Observation, Trace};
use super::metrics::{Counting, Tally};
use super::peers::{Connection, Peers};
use super::requests::{Body, kind_of, serve};
use super::ticket::Ticket;
use crate::request::{Address, Command, Refusal, Via};
use crate::trace::TraceContext;

/// How a hub is set up.
pub struct HubConfig {
    /// Names this run of the server.
    pub instance: String,
    /// Asks its pool what it holds: an object.
    pub pool: Box<dyn Fn() -> Pin<Box<dyn Future<Output = Json> + Send>> + Send + Sync>,
}

impl fmt::Debug for HubConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubConfig").field("instance", &self.instance).finish_non_exhaustive()
    }
}

/// See the module.
#[derive(Debug)]
pub struct Hub {
    endpoint: AgentEndpoint,
    agents: Arc<Agents>,
}

/// Where a W3C trace context may stand.
#[derive(Deserialize)]
struct Traced {
    #[serde(default)]
    traceparent: Option<String>,
    #[serde(default)]
    cob: Option<Box<Traced>>,
}

impl Hub {
    /// Over a bound endpoint. Sessions that are in the directory before it runs are served too; a directory has one hub.
    #[must_use]
    pub fn new(
        endpoint: AgentEndpoint,
        bridge: Bridge,
        directory: Arc<Directory>,
        life: Life,
        config: HubConfig,
    ) -> Self {
        let (sender, tally) = (endpoint.sender(), Arc::<Tally>::default());
        let counting = Box::new(Counting(Arc::clone(&tally)));
        let interceptors = Interceptors::start(vec![counting, Box::new(Trace), Box::new(Log)]);
        let peers = Peers::new(sender.clone());
        let link = Arc::clone(&directory);
        let agents = Agents { sender, bridge, directory, life, config, peers, interceptors, tally };
        let agents = Arc::new(agents);
        if link.link().set(Arc::clone(&agents)).is_err() {
            tracing::error!("the directory has a hub already, which its sessions go on to use");
        }
        Self { endpoint, agents }
    }

    /// Serves agents until it is dropped.
    pub async fn run(mut self) {
        loop {
            match self.endpoint.recv().await {
                AgentEvent::Request { peer, identity, principal, message } => {
                    self.request(peer, &identity, principal, message);
                }
                AgentEvent::Left(peer) => self.left(peer),
            }
        }
    }

    fn request(&self, peer: AgentPeer, identity: &Bytes, proved: Option<Arc<str>>, message: Incoming) {
        let connection = self.agents.peers.connection(peer, identity);
        let begun = connection.begin(&message.header.msg_id);
        let body = Body::read(&message);
        let trace = traceparent(&message);
        self.observe(&connection, &message, &body, trace.clone());
        let ticket = Ticket {
            agents: Arc::clone(&self.agents),
            connection,
            parent: message.header_json.clone(),
            msg_id: message.header.msg_id.clone(),
            kind: kind_of(&message.header.msg_type),
            trace: trace.as_deref().and_then(TraceContext::parse),
            asked_at: Instant::now(),
            is_answered: false,
            is_open: begun.is_ok(),
        };
        let span = tracing::debug_span!("agent", kind = ticket.kind.name, trace = trace.as_deref());
        ticket.adopt(&span);
        let _entered = span.enter();
        // One that cannot be read is told so, and not that it was missing.
        let is_hello = message.header.msg_type == "hello_request";
        let may_ask = is_hello || ticket.connection.who().is_some();
        let body = begun.and_then(|()| if may_ask { body } else { Err(not_greeted(&message)) });
        match body {
            Ok(body) => serve(ticket, body, message, proved, trace),
            Err(refusal) => ticket.refuse(&refusal),
        }
    }

    fn observe(
        &self,
        connection: &Connection,
        message: &Incoming,
        body: &Result<Body, Refusal>,
        trace: Option<Arc<str>>,
    ) {
        self.agents.interceptors.observe(Observation::Asked {
            name: kind_of(&message.header.msg_type).name,
            peer: connection.peer,
            principal: connection.who().map(|who| Arc::clone(&who.principal)),
            session: body.as_ref().ok().and_then(Body::session),
            bytes: message.content.len(),
            trace,
            at: self.agents.bridge.now(),
        });
    }

    /// A connection has ended: its tasks end with it, and code calls other clients instead.
    fn left(&self, peer: AgentPeer) {
        let Some((connection, offers)) = self.agents.peers.leave(peer) else { return };
        let Some(who) = connection.who() else { return };
        tracing::debug!(principal = &*who.principal, "an agent has gone");
        for handle in offers.into_iter().filter_map(|session| self.agents.directory.get(session)) {
            let address = Address { via: Via::Agents, identity: who.address.clone() };
            let (asked, _nobody) = oneshot::channel();
            // Now, if possible: it may come back with the next message, and offer them again.
            let sent = handle.senders.commands.try_send(Command::UnregisterTools(address, None, asked));
            if let Err(TrySendError::Full(command)) = sent {
                let commands = handle.senders.commands.clone();
                // It fails when the session has ended, and its tools with it.
                tokio::spawn(async move { commands.send(command).await });
            }
        }
    }
}

fn not_greeted(message: &Incoming) -> Refusal {
    let why = format!(
        "`{}` came before hello_request, which is the first message of every connection",
        message.header.msg_type.escape_debug()
    );
    Refusal::new(ErrorCode::NotGreeted, why)
}

impl Agents {
    /// Who we are.
    pub(crate) fn server(&self) -> Value {
        json!({
            "name": "cob",
            "version": env!("CARGO_PKG_VERSION"),
            "instance": self.config.instance,
            "agent_protocol": AGENT_PROTOCOL_VERSION,
        })
    }
}

/// The trace that a request belongs to, if its metadata say so in the way of W3C: `00-<trace>-<span>-01`.
fn traceparent(message: &Incoming) -> Option<Arc<str>> {
    if !message.metadata.as_str().contains("traceparent") {
        return None;
    }
    let traced: Traced = message.metadata.read().ok()?;
    let text = traced.traceparent.or(traced.cob.and_then(|cob| cob.traceparent))?;
    TraceContext::parse(&text).is_some().then(|| text.into())
}
