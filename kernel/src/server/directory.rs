//! Which sessions are open, and how one gets into them.
//!
//! Whoever begins or recovers a session asks for its [outlet](Directory::outlet), starts it with that, and
//! [inserts](Directory::insert) it; when it has ended, it [removes](Directory::remove) it, and everybody who still waits
//! for an answer of it is told that it is closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cob_protocol::ids::SessionId;
use cob_protocol::json::Json;
use cob_protocol::limits::SESSION_OPEN_MAX;
use cob_protocol::time::Timestamp;
use dashmap::DashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::deeds::Deeds;
use super::outlet::{Link, ServerOutlet};
use crate::request::InputSenders;

/// The open sessions of a server.
#[derive(Debug, Default)]
pub struct Directory {
    sessions: DashMap<SessionId, Arc<Handle>>,
    /// How their outlets reach the agents, once there is a hub.
    link: Arc<Link>,
    /// The server ends, and its sessions with it.
    is_ending: Arc<AtomicBool>,
    deeds: Arc<Deeds>,
}

/// What everybody may hold of an open session.
#[derive(Debug)]
pub struct Handle {
    /// The ways in.
    pub senders: InputSenders,
    /// The way out.
    pub outlet: Arc<ServerOutlet>,
    /// The principal that opened it.
    pub owner: String,
    /// For people.
    pub name: Option<String>,
    /// When it was opened.
    pub created_at: Timestamp,
    /// What is recorded about it ([`crate::session::Config::about`]): an object with `principal`, `name`, `language` and
    /// `environment` as the request had them. The values of variables are never shown.
    pub about: Json,
    /// Places for executions that wait, run or are not delivered.
    open: Arc<Semaphore>,
}

impl Handle {
    /// Of a session that is about to run.
    #[must_use]
    pub fn new(
        senders: InputSenders,
        outlet: Arc<ServerOutlet>,
        owner: String,
        name: Option<String>,
        created_at: Timestamp,
        about: Json,
    ) -> Self {
        let open = Arc::new(Semaphore::new(SESSION_OPEN_MAX));
        Self { senders, outlet, owner, name, created_at, about, open }
    }

    /// Its name.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.outlet.session()
    }

    /// A place for one more execution, if there is one; it is free again when it is dropped.
    pub(crate) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.open).try_acquire_owned().ok()
    }

    /// Waits until there is a place.
    #[cfg(test)]
    pub(crate) async fn has_place(&self) {
        let _ = self.open.acquire().await;
    }

    /// Waits until no execution is open.
    #[cfg(test)]
    pub(crate) async fn is_free(&self) {
        self.has_only(0).await;
    }

    /// Waits until so many are open, or fewer.
    #[cfg(test)]
    pub(crate) async fn has_only(&self, count: usize) {
        let _ = self.open.acquire_many((SESSION_OPEN_MAX - count) as u32).await;
    }

    /// Executions that wait, run or are not delivered.
    #[must_use]
    pub fn open_executions(&self) -> usize {
        SESSION_OPEN_MAX.saturating_sub(self.open.available_permits())
    }
}

impl Directory {
    /// The outlet of a session that is about to begin.
    #[must_use]
    pub fn outlet(&self, session: SessionId) -> Arc<ServerOutlet> {
        let (link, is_ending) = (Arc::clone(&self.link), Arc::clone(&self.is_ending));
        Arc::new(ServerOutlet::linked(session, link, is_ending, Arc::clone(&self.deeds)))
    }

    /// What sessions have done with checkpoints.
    pub(crate) fn deeds(&self) -> &Deeds {
        &self.deeds
    }

    /// From now on whoever asks a session for something new is told that the server ends.
    pub(crate) fn end(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// A session is open.
    pub fn insert(&self, handle: Handle) -> Arc<Handle> {
        let handle = Arc::new(handle);
        self.sessions.insert(handle.session(), Arc::clone(&handle));
        handle
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, session: SessionId) -> Option<Arc<Handle>> {
        self.sessions.get(&session).map(|entry| Arc::clone(entry.value()))
    }

    /// It has ended.
    pub fn remove(&self, session: SessionId) -> Option<Arc<Handle>> {
        let (_, handle) = self.sessions.remove(&session)?;
        handle.outlet.ended();
        Some(handle)
    }

    /// All of them, in the order of their names.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Handle>> {
        let mut list: Vec<_> = self.sessions.iter().map(|entry| Arc::clone(entry.value())).collect();
        list.sort_by_key(|handle| handle.session());
        list
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }
}
