//! How a server sets up its sessions.

use std::fmt;
use std::path::PathBuf;

use cob_pool::{Program, Workers};
use cob_protocol::checkpoint::Policy;
use cob_protocol::content::agent::Environment;
use cob_protocol::limits::SESSIONS_MAX;
use cob_protocol::permissions::Permissions;
use cob_protocol::promise::Durability;
use cob_protocol::resources::Limits;

use super::own::OwnFolder;
use super::spec::SessionSpec;
use crate::request::Refusal;
use crate::survival::Survival;

/// What the server itself does not know: how code of a language is run.
pub trait Languages: Send + Sync + fmt::Debug {
    /// The one name of a language, whatever whoever asked called it.
    ///
    /// # Errors
    /// A refusal that says what there is instead.
    fn named(&self, language: &str) -> Result<String, Refusal> {
        Ok(language.to_owned())
    }

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
    /// What it does about checkpoints.
    pub checkpoints: Policy,
    /// What its code may reach, in JavaScript.
    pub permissions: Permissions,
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
