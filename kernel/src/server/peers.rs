//! The connections of agents: who each one is, what it has asked, what it follows, and how it is written to.
//!
//! **Invariant:** a connection is found by its [address](Who::address) only by those who act for the same principal, so
//! nobody gets what was meant for another by choosing the other's routing identity.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use cob_clients::agent::{AgentPeer, AgentSender};
use cob_clients::zmtp::SendError;
use cob_protocol::ids::SessionId;
use cob_protocol::limits::{PEER_REQUESTS_MAX, PEER_SUBSCRIPTIONS_MAX, SESSIONS_MAX};
use cob_protocol::message::Outgoing;
use cob_protocol::registry::Lane;
use dashmap::DashMap;
use tokio::sync::watch;

use super::flow::Flow;
use crate::request::Refusal;

/// The principal that sees and may do everything.
pub(crate) const OPERATOR: &str = "local";

/// Who is at the other end of a connection.
#[derive(Debug)]
pub(crate) struct Who {
    pub(crate) principal: Arc<str>,
    /// Names it to sessions, also after it has connected again under the same routing identity.
    pub(crate) address: Bytes,
}

impl Who {
    pub(crate) fn new(principal: &str, identity: &[u8]) -> Self {
        let address = [principal.as_bytes(), b"\n", identity].concat();
        Self { principal: principal.into(), address: address.into() }
    }

    pub(crate) fn is_operator(&self) -> bool {
        &*self.principal == OPERATOR
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) peer: AgentPeer,
    identity: Bytes,
    sender: AgentSender,
    /// Set by its hello.
    who: OnceLock<Who>,
    state: Mutex<State>,
    gone: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    /// Requests that are not answered.
    open: HashSet<String>,
    flows: HashMap<String, Arc<Flow>>,
    counted: usize,
    attachments: Vec<(SessionId, u64)>,
    /// Where it offers tools.
    offers: HashSet<SessionId>,
}

impl Connection {
    fn new(peer: AgentPeer, identity: Bytes, sender: AgentSender) -> Self {
        let gone = watch::Sender::new(false);
        Self { peer, identity, sender, who: OnceLock::new(), state: Mutex::default(), gone }
    }

    /// Who it is, once it has said so.
    pub(crate) fn who(&self) -> Option<&Who> {
        self.who.get()
    }

    pub(crate) fn identity(&self) -> &Bytes {
        &self.identity
    }

    // --- What it asks ----------------------------------------------------------------------------------------

    /// A request begins.
    pub(crate) fn begin(&self, msg_id: &str) -> Result<(), Refusal> {
        let State { open, flows, .. } = &mut *self.lock();
        if open.len() >= PEER_REQUESTS_MAX {
            return Err(Refusal::busy(format!(
                "{PEER_REQUESTS_MAX} requests of this connection are not answered yet"
            )));
        }
        if open.contains(msg_id) {
            return Err(Refusal::bad(format!("a request with the msg_id `{msg_id}` is not answered yet")));
        }
        if flows.contains_key(msg_id) {
            return Err(Refusal::bad(format!("the subscription `{msg_id}` has not ended yet")));
        }
        open.insert(msg_id.to_owned());
        Ok(())
    }

    /// It has been answered.
    pub(crate) fn end(&self, msg_id: &str) {
        self.lock().open.remove(msg_id);
    }

    // --- What it follows -------------------------------------------------------------------------------------

    /// A subscription begins.
    pub(crate) fn subscribe(&self, name: &str, flow: Flow) -> Result<Arc<Flow>, Refusal> {
        let mut state = self.lock();
        if flow.is_counted && state.counted >= PEER_SUBSCRIPTIONS_MAX {
            return Err(Refusal::busy(format!("this connection has {PEER_SUBSCRIPTIONS_MAX} subscriptions")));
        }
        if state.flows.contains_key(name) {
            return Err(Refusal::bad(format!("the subscription `{name}` has not ended yet")));
        }
        state.counted += usize::from(flow.is_counted);
        let flow = Arc::new(flow);
        state.flows.insert(name.to_owned(), Arc::clone(&flow));
        Ok(flow)
    }

    pub(crate) fn flow(&self, name: &str) -> Option<Arc<Flow>> {
        self.lock().flows.get(name).cloned()
    }

    /// A subscription has ended.
    pub(crate) fn unsubscribe(&self, name: &str) {
        let mut state = self.lock();
        if state.flows.remove(name).is_some_and(|flow| flow.is_counted) {
            state.counted -= 1;
        }
    }

    pub(crate) fn subscriptions(&self) -> usize {
        self.lock().flows.len()
    }

    // --- What it leaves behind -------------------------------------------------------------------------------

    pub(crate) fn attached(&self, session: SessionId, attachment: u64) {
        self.lock().attachments.push((session, attachment));
    }

    /// The session of an attachment, which is forgotten.
    pub(crate) fn detached(&self, attachment: u64) -> Option<SessionId> {
        let attachments = &mut self.lock().attachments;
        let index = attachments.iter().position(|(_, number)| *number == attachment)?;
        Some(attachments.swap_remove(index).0)
    }

    /// It offers tools in a session; `is_open` tells which sessions can still be left.
    pub(crate) fn offers(&self, session: SessionId, is_open: impl Fn(SessionId) -> bool) {
        let offers = &mut self.lock().offers;
        if offers.len() >= SESSIONS_MAX {
            offers.retain(|known| is_open(*known));
        }
        offers.insert(session);
    }

    // --- How it is written to --------------------------------------------------------------------------------

    /// Sends now if there is room.
    pub(crate) fn try_send(&self, message: Outgoing, lane: Lane) -> Result<(), SendError> {
        self.sender.send(self.peer, &self.identity, message, lane)
    }

    /// Writes what was sent at once, if the connection waits for one request only: what comes for several is better
    /// written together.
    pub(crate) fn hurry(&self) {
        let is_one = self.lock().open.len() <= 1;
        if is_one {
            self.sender.flush(self.peer, &self.identity);
        }
    }

    /// Sends a reply, or a question of code. Whoever reads so little that there is no room for it is cut off: it can come
    /// back, and ask again for what it has missed.
    pub(crate) fn send(&self, message: Outgoing, lane: Lane) {
        let msg_type = message.msg_type;
        match self.try_send(message, lane) {
            Ok(()) => {}
            Err(SendError::Full) => self.sender.cut_off(self.peer),
            Err(error) => tracing::debug!(%error, msg_type, "not sent"),
        }
    }

    /// Sends when there is room; `false` when the connection has ended.
    pub(crate) async fn deliver(&self, message: impl Fn() -> Outgoing, lane: Lane) -> bool {
        let mut gone = self.gone.subscribe();
        loop {
            if *gone.borrow_and_update() {
                return false;
            }
            tokio::select! {
                biased;
                _ = gone.changed() => return false,
                () = self.sender.room(self.peer) => {}
            }
            match self.try_send(message(), lane) {
                Ok(()) => return true,
                // Somebody else took the room.
                Err(SendError::Full) => tokio::task::yield_now().await,
                Err(_) => return false,
            }
        }
    }

    /// Waits for the end of the connection. Cancel-safe.
    pub(crate) async fn gone(&self) {
        // The sender lives as long as the connection, so this fails never.
        let _ = self.gone.subscribe().wait_for(|gone| *gone).await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All connections.
#[derive(Debug)]
pub(crate) struct Peers {
    sender: AgentSender,
    connections: DashMap<AgentPeer, Arc<Connection>>,
    /// The present connection of each address.
    addresses: DashMap<Bytes, Arc<Connection>>,
}

impl Peers {
    pub(crate) fn new(sender: AgentSender) -> Self {
        Self { sender, connections: DashMap::new(), addresses: DashMap::new() }
    }

    /// The connection that a message came by.
    pub(crate) fn connection(&self, peer: AgentPeer, identity: &Bytes) -> Arc<Connection> {
        let entry = self.connections.entry(peer);
        let new = || Arc::new(Connection::new(peer, identity.clone(), self.sender.clone()));
        Arc::clone(entry.or_insert_with(new).value())
    }

    /// It has said who it is.
    pub(crate) fn greeted(&self, connection: &Arc<Connection>, who: Who) -> Result<(), Refusal> {
        let address = who.address.clone();
        let principal = Arc::clone(&who.principal);
        match connection.who.set(who) {
            Ok(()) => {
                self.addresses.insert(address, Arc::clone(connection));
                Ok(())
            }
            Err(_) if connection.who().is_some_and(|known| known.principal == principal) => Ok(()),
            Err(_) => {
                Err(Refusal::bad("this connection has said that it is somebody else; open another one"))
            }
        }
    }

    /// The connection that is now at an address.
    pub(crate) fn at(&self, address: &[u8]) -> Option<Arc<Connection>> {
        self.addresses.get(address).map(|entry| Arc::clone(entry.value()))
    }

    /// A connection has ended: who it was, and where it offered tools, if it has not come back already.
    pub(crate) fn leave(&self, peer: AgentPeer) -> Option<(Arc<Connection>, HashSet<SessionId>)> {
        let (_, connection) = self.connections.remove(&peer)?;
        let is_last = connection.who().is_some_and(|who| {
            self.addresses.remove_if(&who.address, |_, present| present.peer == peer).is_some()
        });
        connection.gone.send_replace(true);
        let offers = std::mem::take(&mut connection.lock().offers);
        if is_last {
            return Some((connection, offers));
        }
        // Whoever has come back under its address has taken them over, and leaves them one day.
        if let Some(present) = connection.who().and_then(|who| self.at(&who.address)) {
            present.lock().offers.extend(offers);
        }
        Some((connection, HashSet::new()))
    }

    /// Connections, and what they follow.
    pub(crate) fn count(&self) -> (usize, usize) {
        let subscriptions = self.connections.iter().map(|entry| entry.value().subscriptions()).sum();
        (self.connections.len(), subscriptions)
    }
}
