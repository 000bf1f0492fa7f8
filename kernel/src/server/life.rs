//! How sessions of a server begin and end.
//!
//! A session is recorded first, and then begun: whoever was told of it finds it again, whatever happens to the server.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use cob_bridge::{Bridge, BridgeError, Write};
use cob_pool::{Program, Workers};
use cob_protocol::content::agent::{Environment, SessionOpen};
use cob_protocol::crash_point;
use cob_protocol::error::ErrorCode;
use cob_protocol::ids::SessionId;
use cob_protocol::json::Json;
use cob_protocol::limits::SESSIONS_MAX;
use cob_protocol::promise::Durability;
use cob_protocol::resources::Limits;
use cob_protocol::time::Timestamp;
use tokio::sync::{Notify, watch};

use super::attach::Attachments;
use super::directory::{Directory, Handle};
use super::keys::{Keys, Outcome};
use super::own::OwnFolder;
use super::spec::SessionSpec;
use crate::outlet::Outlet;
use crate::request::{Refusal, lanes};
use crate::session::{Config, End, Session};
use crate::survival::Survival;
use crate::telling::store_code;

/// What the server itself does not know: how code of a language is run.
pub trait Languages: Send + Sync + fmt::Debug {
    /// Where the program lies that runs this language in such an environment. May take a while.
    ///
    /// # Errors
    /// A refusal that says what there is instead.
    fn find(&self, language: &str, environment: &Environment) -> Result<PathBuf, Refusal>;

    /// The worker program of a session, which has a folder of its own.
    fn program(&self, spec: &SessionSpec, own: &OwnFolder) -> Program;
}

/// How a server sets up its sessions.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where workers come from.
    pub workers: Workers,
    /// How they outlive the server, if they do.
    pub survival: Option<Survival>,
    /// How safe records are, unless a session or a request says otherwise.
    pub durability: Durability,
    /// What no session may exceed.
    pub ceiling: Limits,
    /// What a session has that asks for nothing else.
    pub defaults: Defaults,
    /// Below it each session has its own folder.
    pub folder: PathBuf,
    /// Sessions open at a time.
    pub sessions_max: usize,
}

/// What a session has that asks for nothing else.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    /// What it may use.
    pub limits: Limits,
    /// Milliseconds without an execution after which it is closed.
    pub idle_timeout_ms: Option<u64>,
    /// Milliseconds between an interrupt and the end by force.
    pub interrupt_grace_ms: Option<u64>,
}

impl Settings {
    /// Sessions that begin without their server's help: for a server over `folder` that is told nothing else.
    #[must_use]
    pub fn new(workers: Workers, folder: PathBuf) -> Self {
        Self {
            workers,
            survival: None,
            durability: Durability::default(),
            ceiling: Limits::default(),
            defaults: Defaults::default(),
            folder,
            sessions_max: SESSIONS_MAX,
        }
    }
}

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
        let spec = self.with_defaults(SessionSpec::asked(open, owner)?)?;
        let mut outcome = self.begin(spec)?;
        // The task that opens it always says how that ended.
        match outcome.wait_for(Option::is_some).await.map(|known| known.clone()) {
            Ok(Some(outcome)) => outcome,
            _ => Err(Refusal::new(ErrorCode::WorkerStartFailed, "the session could not be opened")),
        }
    }

    /// What holds where nothing was asked for.
    fn with_defaults(&self, mut spec: SessionSpec) -> Result<SessionSpec, Refusal> {
        let Settings { ceiling, defaults, .. } = &self.0.settings;
        let limits = spec.limits.merge(&defaults.limits).within(ceiling);
        spec.limits = limits.map_err(|error| Refusal::new(ErrorCode::InvalidLimit, error.to_string()))?;
        spec.idle_timeout_ms = spec.idle_timeout_ms.or(defaults.idle_timeout_ms);
        spec.interrupt_grace_ms = spec.interrupt_grace_ms.or(defaults.interrupt_grace_ms);
        Ok(spec)
    }

    /// Begins to open a session, unless its key names one.
    fn begin(&self, spec: SessionSpec) -> Result<watch::Receiver<Outcome>, Refusal> {
        let mut state = self.lock();
        let key = spec.key();
        if let Some(key) = &key
            && let Some(known) = state.keys.find(key, spec.body.as_deref())?
        {
            return Ok(known);
        }
        if state.is_closing {
            return Err(Refusal::new(ErrorCode::ShuttingDown, "the server ends"));
        }
        let most = self.0.settings.sessions_max;
        if self.0.directory.len() + state.opening >= most {
            let why = format!("{most} sessions are open; close one first");
            return Err(Refusal::new(ErrorCode::Busy, why));
        }
        let session = SessionId(state.next);
        state.next += 1;
        state.opening += 1;
        let (sender, outcome) = watch::channel(None);
        if let Some(key) = key.clone() {
            state.keys.insert(key, spec.body.clone(), outcome.clone());
        }
        drop(state);
        let sessions = self.clone();
        // Nobody has to wait for it: what was begun comes to an end.
        tokio::spawn(async move {
            let opened = sessions.opened(session, spec).await;
            let mut state = sessions.lock();
            state.opening -= 1;
            if let (Err(_), Some(key)) = (&opened, &key) {
                state.keys.forget(key);
            }
            drop(state);
            sessions.0.ended.notify_waiters();
            sender.send_replace(Some(opened.map(|()| session)));
        });
        Ok(outcome)
    }

    async fn opened(&self, session: SessionId, spec: SessionSpec) -> Result<(), Refusal> {
        let (own, languages) = (self.own(session), Arc::clone(&self.0.languages));
        let prepared = tokio::task::spawn_blocking(move || prepared(&*languages, spec, &own)).await;
        let (spec, program) = prepared.map_err(|error| {
            Refusal::new(ErrorCode::WorkerStartFailed, format!("the session could not be prepared: {error}"))
        })??;
        let about = spec.about();
        let durability = self.durability(&spec);
        let write = Write::OpenSession { session, about: about.clone() };
        let recorded = self.0.bridge.submit(durability, vec![write]).await;
        let refused = match recorded.map(|outcomes| outcomes.into_iter().find_map(Result::err)) {
            Ok(None) => None,
            Ok(Some(BridgeError::Store(error))) | Err(error) => {
                Some(Refusal::new(store_code(&error), error.to_string()))
            }
            Ok(Some(error)) => Some(Refusal::new(ErrorCode::StoreFailed, error.to_string())),
        };
        if let Some(refusal) = refused {
            self.own(session).remove();
            return Err(refusal);
        }
        crash_point!("session_opened");
        let config = self.config(session, &spec, program);
        self.start(config, &spec, about, self.0.bridge.now());
        Ok(())
    }

    pub(crate) fn own(&self, session: SessionId) -> OwnFolder {
        OwnFolder::of(&self.0.settings.folder, session)
    }

    fn durability(&self, spec: &SessionSpec) -> Durability {
        spec.durability.unwrap_or(self.0.settings.durability)
    }

    /// How it is set up, the first time as well as after a restart.
    pub(crate) fn config(&self, id: SessionId, spec: &SessionSpec, program: Program) -> Config {
        let Settings { workers, survival, .. } = &self.0.settings;
        let durability = self.durability(spec);
        Config {
            id,
            program,
            options: Json::object(),
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
            history: Vec::new(),
        }
    }

    /// Lets a session run that is recorded.
    pub(crate) fn start(&self, config: Config, spec: &SessionSpec, about: Json, created_at: Timestamp) {
        let id = config.id;
        let outlet = self.0.directory.outlet(id);
        let (senders, inputs) = lanes();
        let session =
            Session::new(config, self.0.bridge.clone(), Outlet::Server(Arc::clone(&outlet)), inputs);
        let (owner, name) = (spec.owner.clone(), spec.name.clone());
        self.0.directory.insert(Handle::new(senders, outlet, owner, name, created_at, about));
        let (sessions, key) = (self.clone(), spec.key());
        tokio::spawn(async move {
            // Dropped whatever happens: a session that is gone must not look like one that is open.
            let mut ended = Ended { sessions, id, key, is_closed: false };
            if let End::StartFailed(error) = session.run().await {
                tracing::warn!(session = %id, %error, "a session has ended because it has no worker");
            }
            ended.is_closed = true;
        });
    }

    /// A session that was recorded before this server began.
    pub(crate) fn known(&self, session: SessionId, spec: &SessionSpec, is_open: bool) {
        let mut state = self.lock();
        state.next = state.next.max(session.0.saturating_add(1));
        let Some(key) = spec.key() else { return };
        let (_, outcome) = watch::channel(Some(Ok(session)));
        state.keys.insert(key.clone(), spec.body.clone(), outcome);
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
    key: Option<super::keys::Key>,
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
        sessions.0.directory.remove(*id);
        if let Some(key) = key.take() {
            sessions.lock().keys.closed(key);
        }
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
