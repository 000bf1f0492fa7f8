//! How sessions of a server begin and end.
//!
//! A session is recorded first, and then begun: whoever was told of it finds it again, whatever happens to the server.

mod reserving;

use std::sync::{Arc, Mutex, PoisonError};

use cob_bridge::{Bridge, BridgeError, Write};
use cob_pool::{LeaseError, Program};
use cob_protocol::content::agent::SessionOpen;
use cob_protocol::crash_point;
use cob_protocol::error::ErrorCode;
use cob_protocol::ids::SessionId;
use cob_protocol::json::Json;
use cob_protocol::promise::Durability;
use cob_protocol::time::Timestamp;
use tokio::sync::{Notify, oneshot, watch};

use self::reserving::not_opened;
pub(super) use self::reserving::{Named, ends, outcome};
use super::attach::Attachments;
use super::directory::{Directory, Handle};
use super::keys::{Key, Keys, Opened, Outcome};
use super::own::OwnFolder;
use super::settings::{Languages, Settings};
use super::spec::{SessionSpec, asks_permission};
use crate::outlet::Outlet;
use crate::request::{Refusal, lanes};
use crate::session::{Config, End, Session};
use crate::telling::store_code;

/// The sessions of a server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sessions(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bridge: Bridge,
    directory: Arc<Directory>,
    languages: Arc<dyn Languages>,
    settings: Settings,
    state: Mutex<State>,
    attachments: Attachments,
    /// A session has ended, or another one is open.
    ended: Notify,
}

#[derive(Debug)]
struct State {
    /// Number of the next session.
    next: u64,
    keys: Keys,
    /// Sessions that are being opened, and are in no directory yet.
    opening: usize,
    /// Folders of sessions that have ended and are being removed.
    removing: usize,
    is_closing: bool,
}

impl Sessions {
    /// None yet.
    #[must_use]
    pub fn new(
        bridge: Bridge,
        directory: Arc<Directory>,
        languages: Arc<dyn Languages>,
        settings: Settings,
    ) -> Self {
        let state = State { next: 1, keys: Keys::default(), opening: 0, removing: 0, is_closing: false };
        let (state, ended) = (Mutex::new(state), Notify::new());
        let attachments = Attachments::default();
        Self(Arc::new(Inner { bridge, directory, languages, settings, state, attachments, ended }))
    }

    pub(crate) fn bridge(&self) -> &Bridge {
        &self.0.bridge
    }

    /// Those that are open.
    #[must_use]
    pub fn directory(&self) -> &Arc<Directory> {
        &self.0.directory
    }

    pub(crate) fn attachments(&self) -> &Attachments {
        &self.0.attachments
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    pub(crate) fn languages(&self) -> &Arc<dyn Languages> {
        &self.0.languages
    }

    /// Opens a session for `owner`, or finds the one that he opened with the same key. It is recorded then.
    ///
    /// # Errors
    /// [`Refusal`]: there is no session then, and nothing of it is recorded.
    pub async fn open(&self, owner: &str, open: SessionOpen) -> Result<SessionId, Refusal> {
        let usual = &self.0.settings.defaults.checkpoints;
        let checkpoints = match &open.checkpoints {
            None => usual.clone(),
            Some(asked) => usual.with(asked).map_err(Refusal::bad)?,
        };
        let open = SessionOpen { language: self.languages().named(&open.language)?, ..open };
        let spec = SessionSpec { checkpoints, ..SessionSpec::asked(open, owner)? };
        let opened = outcome(self.begin(self.with_defaults(spec)?)?).await?;
        opened.sessions.first().copied().ok_or_else(not_opened)
    }

    /// What holds where nothing was asked for.
    fn with_defaults(&self, mut spec: SessionSpec) -> Result<SessionSpec, Refusal> {
        let Settings { ceiling, defaults, .. } = &self.0.settings;
        let limits = spec.limits.merge(&defaults.limits).within(ceiling);
        spec.limits = limits.map_err(|error| Refusal::new(ErrorCode::InvalidLimit, error.to_string()))?;
        spec.idle_timeout_ms = spec.idle_timeout_ms.or(defaults.idle_timeout_ms);
        spec.interrupt_grace_ms = spec.interrupt_grace_ms.or(defaults.interrupt_grace_ms);
        if asks_permission(&spec.language) && !defaults.permissions.is_empty() {
            spec.environment.permissions.get_or_insert_with(|| defaults.permissions.clone());
        }
        Ok(spec)
    }

    /// Begins to open a session, unless its key names one.
    fn begin(&self, spec: SessionSpec) -> Result<watch::Receiver<Outcome>, Refusal> {
        let named = Named { key: spec.key(), body: spec.body.clone() };
        self.reserve(named, 1, |sessions, numbers| async move {
            for session in &numbers {
                sessions.opened(*session, spec.clone()).await?;
            }
            Ok(Opened { sessions: numbers, forked_from: None })
        })
    }

    async fn opened(&self, session: SessionId, spec: SessionSpec) -> Result<(), Refusal> {
        let (own, languages) = (self.own(session), Arc::clone(&self.0.languages));
        let prepared = tokio::task::spawn_blocking(move || prepared(&*languages, spec, &own)).await;
        let (spec, program) = prepared.map_err(|error| {
            Refusal::new(ErrorCode::WorkerStartFailed, format!("the session could not be prepared: {error}"))
        })??;
        let about = spec.about();
        if let Err(refusal) = self.record(self.durability(&spec), vec![(session, about.clone())]).await {
            self.own(session).remove();
            return Err(refusal);
        }
        crash_point!("session_opened");
        let config = self.config(session, &spec, program);
        drop(self.start(config, &spec, about, self.0.bridge.now()));
        Ok(())
    }

    /// Records the beginning of sessions: of all, or of none.
    pub(super) async fn record(
        &self,
        durability: Durability,
        sessions: Vec<(SessionId, Json)>,
    ) -> Result<(), Refusal> {
        let write = |(session, about)| Write::OpenSession { session, about };
        let recorded = self.0.bridge.submit(durability, sessions.into_iter().map(write).collect()).await;
        match recorded.map(|outcomes| outcomes.into_iter().find_map(Result::err)) {
            Ok(None) => Ok(()),
            Ok(Some(BridgeError::Store(error))) | Err(error) => {
                Err(Refusal::new(store_code(&error), error.to_string()))
            }
            Ok(Some(error)) => Err(Refusal::new(ErrorCode::StoreFailed, error.to_string())),
        }
    }

    pub(crate) fn own(&self, session: SessionId) -> OwnFolder {
        OwnFolder::of(&self.0.settings.folder, session)
    }

    pub(super) fn durability(&self, spec: &SessionSpec) -> Durability {
        spec.durability.unwrap_or(self.0.settings.durability)
    }

    /// How it is set up, the first time as well as after a restart.
    pub(crate) fn config(&self, id: SessionId, spec: &SessionSpec, program: Program) -> Config {
        let Settings { workers, survival, .. } = &self.0.settings;
        let durability = self.durability(spec);
        Config {
            id,
            program,
            options: spec.options(),
            limits: spec.limits.clone(),
            interrupt_grace: spec.interrupt_grace(),
            umask: Some(OWN_UMASK),
            is_confined: true,
            workers: workers.clone(),
            ports: None,
            durability,
            is_hosted: true,
            idle_timeout: spec.idle_timeout(),
            about: Some(spec.about()),
            // A worker that is recorded nowhere, nobody could find again.
            survival: survival.clone().filter(|_| durability != Durability::None),
            past: None,
            checkpoints: spec.checkpoints.clone(),
            seed: None,
            history: Vec::new(),
        }
    }

    /// Lets a session run that is recorded. What is returned says why it has ended, if its worker never came up.
    pub(crate) fn start(
        &self,
        config: Config,
        spec: &SessionSpec,
        about: Json,
        created_at: Timestamp,
    ) -> oneshot::Receiver<LeaseError> {
        let id = config.id;
        let outlet = self.0.directory.outlet(id);
        let (senders, inputs) = lanes();
        let session =
            Session::new(config, self.0.bridge.clone(), Outlet::Server(Arc::clone(&outlet)), inputs);
        let (owner, name) = (spec.owner.clone(), spec.name.clone());
        self.0.directory.insert(Handle::new(senders, outlet, owner, name, created_at, about));
        let (sessions, key) = (self.clone(), spec.key());
        let (failed, failure) = oneshot::channel();
        tokio::spawn(async move {
            // Dropped whatever happens: a session that is gone must not look like one that is open.
            let mut ended = Ended { sessions, id, key, is_closed: false };
            if let End::StartFailed(error) = session.run().await {
                tracing::warn!(session = %id, %error, "a session has ended because it has no worker");
                // Most who start one do not wait for its worker.
                let _ = failed.send(error);
            }
            ended.is_closed = true;
        });
        failure
    }

    /// A session that was recorded before this server began.
    pub(crate) fn known(&self, session: SessionId, spec: &SessionSpec, is_open: bool) {
        let mut state = self.lock();
        state.next = state.next.max(session.0.saturating_add(1));
        let Some(key) = spec.key() else { return };
        let opened = Opened { sessions: vec![session], forked_from: spec.forked_from };
        state.keys.recorded(key.clone(), spec.body.clone(), opened);
        if !is_open {
            state.keys.closed(key);
        }
    }

    /// Numbers up to this one have been used.
    pub(crate) fn used(&self, session: SessionId) {
        let mut state = self.lock();
        state.next = state.next.max(session.0.saturating_add(1));
    }

    /// Opens no more sessions.
    pub(crate) fn stop_opening(&self) {
        self.lock().is_closing = true;
        self.0.ended.notify_waiters();
    }

    /// Waits until no more are to be opened. Cancel-safe.
    pub(super) async fn closing(&self) {
        self.until(|sessions| sessions.lock().is_closing).await;
    }

    /// Waits until this one is gone. Cancel-safe.
    pub(super) async fn gone(&self, session: SessionId) {
        self.until(|sessions| sessions.0.directory.get(session).is_none()).await;
    }

    /// Waits until none is about to be opened. Cancel-safe.
    pub(crate) async fn all_open(&self) {
        self.until(|sessions| sessions.lock().opening == 0).await;
    }

    /// Waits until none is open and nothing is left of those that were closed. Cancel-safe.
    pub(crate) async fn all_ended(&self) {
        self.until(|sessions| sessions.0.directory.is_empty() && sessions.lock().removing == 0).await;
    }

    /// Removes the folder of a session, which may hold much.
    fn remove_folder(&self, id: SessionId) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        self.lock().removing += 1;
        let sessions = self.clone();
        drop(runtime.spawn_blocking(move || {
            sessions.own(id).remove();
            sessions.lock().removing -= 1;
            sessions.0.ended.notify_waiters();
        }));
    }

    /// Sessions from this one on are younger than this server.
    pub(crate) fn next(&self) -> SessionId {
        SessionId(self.lock().next)
    }

    async fn until(&self, is_so: impl Fn(&Self) -> bool) {
        loop {
            let ended = self.0.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if is_so(self) {
                return;
            }
            ended.await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As isolated sessions have it: what the code makes is nobody else's.
const OWN_UMASK: u32 = 0o077;

/// A session that runs; dropped when it has ended.
struct Ended {
    sessions: Sessions,
    id: SessionId,
    key: Option<Key>,
    /// It came to its end; otherwise it can be taken up again, and finds its files.
    is_closed: bool,
}

impl Drop for Ended {
    fn drop(&mut self) {
        let Self { sessions, id, key, is_closed } = self;
        // Before it is gone: a server that ends waits for this as well.
        if *is_closed {
            sessions.remove_folder(*id);
        }
        if let Some(key) = key.take() {
            sessions.lock().keys.closed(key);
        }
        sessions.0.directory.remove(*id);
        sessions.0.ended.notify_waiters();
    }
}

/// Finds the program and makes the folder.
fn prepared(
    languages: &dyn Languages,
    mut spec: SessionSpec,
    own: &OwnFolder,
) -> Result<(SessionSpec, Program), Refusal> {
    let named = spec.named_directory()?.map(std::path::Path::to_owned);
    spec.program = languages.find(&spec.language, &spec.environment)?;
    spec.directory = named.unwrap_or_else(|| own.work());
    own.make().map_err(|error| {
        let why = format!("cannot make a folder in {}: {error}", own.work().display());
        Refusal::new(ErrorCode::WorkerStartFailed, why)
    })?;
    let program = languages.program(&spec, own);
    Ok((spec, program))
}

#[cfg(test)]
mod tests;
