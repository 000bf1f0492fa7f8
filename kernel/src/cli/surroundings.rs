//! What a session finds around it: variables, folders, limits; and where its workers come from.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use cob_kernel::session::Config;
use cob_pool::{SharedPool, Workers};
use cob_protocol::ids::SessionId;
use cob_protocol::json::Json;
use cob_protocol::promise::Durability;

use super::language::{Language, Runner};
use super::limits::Bounds;
use super::runtime::PrivateFolder;
use super::{Failure, policy, runtime};

/// Flags of every command that runs code.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    bounds: Bounds,
    /// Run in a new folder that is removed afterwards, with a private folder for temporary files, with none of this
    /// environment's variables but a few harmless ones, and without power over other processes
    #[arg(long)]
    isolated: bool,
    /// With --isolated: a variable that the code shall have; without a value, that of this environment
    #[arg(long = "env", value_name = "NAME[=VALUE]", requires = "isolated")]
    variables: Vec<String>,
    /// Start a worker even if a server on this machine keeps warm ones
    #[arg(long)]
    cold: bool,
}

/// Variables of this environment that an isolated session gets.
const HARMLESS: &[&str] =
    &["LANG", "LANGUAGE", "LOGNAME", "PATH", "SHELL", "TERM", "TZ", "USER", "VIRTUAL_ENV"];

/// A session's configuration, and what must be kept as long as it lives.
pub(crate) struct Surroundings {
    pub(crate) config: Config,
    pub(crate) private: Option<PrivateFolder>,
}

impl Flags {
    /// How a session on `runner` is set up. `directory`: where it runs unless it is isolated.
    pub(crate) fn surroundings(
        &self,
        runner: Runner,
        directory: Option<PathBuf>,
        options: Json,
    ) -> Result<Surroundings, Failure> {
        let language = runner.language;
        let private = self.isolated.then(PrivateFolder::create).transpose()?;
        let program = match &private {
            // Whoever starts a kernel on their own machine runs their own code: it gets their environment.
            None => {
                let directory = self.bounds.directory(directory)?;
                runner.program(std::env::vars_os().collect(), directory)
            }
            Some(private) => {
                let mut variables = harmless();
                let own = [("HOME", private.work()), ("TMPDIR", private.tmp())];
                variables.extend(own.map(|(name, path)| (name.into(), path.into())));
                variables.extend(homeless(language));
                variables.extend(listed(&self.variables)?);
                runner.program(variables, Some(private.work()))
            }
        };
        let workers = match self.cold {
            true => Workers::Cold,
            false => Workers::Shared(shared_pool(language)),
        };
        let config = Config {
            id: SessionId(1),
            program,
            options,
            ports: None,
            limits: self.bounds.limits(),
            // A warm worker has that of the server.
            umask: if self.isolated { Some(0o077) } else { runtime::umask() },
            interrupt_grace: self.bounds.interrupt_grace(),
            is_confined: self.isolated,
            workers,
            durability: Durability::default(),
            is_hosted: false,
            idle_timeout: None,
            about: None,
            survival: None,
            past: None,
            checkpoints: policy::none(),
            seed: None,
            history: Vec::new(),
        };
        Ok(Surroundings { config, private })
    }
}

/// The server of this user, if there is one, for workers of this language.
pub(crate) fn shared_pool(language: Language) -> SharedPool {
    SharedPool::at(cob_pool::Listener::path_in(&runtime::folder()), language.build())
}

/// What says that the home of a session is empty: it lets all such sessions be forked from one zygote.
pub(crate) fn homeless(language: Language) -> Option<(OsString, OsString)> {
    (language == Language::Python).then(|| ("PYTHONNOUSERSITE".into(), "1".into()))
}

pub(crate) fn harmless() -> Vec<(OsString, OsString)> {
    let is_harmless = |name: &OsString| {
        name.to_str().is_some_and(|name| HARMLESS.contains(&name) || name.starts_with("LC_"))
    };
    std::env::vars_os().filter(|(name, _)| is_harmless(name)).collect()
}

fn listed(variables: &[String]) -> Result<Vec<(OsString, OsString)>, Failure> {
    let mut found = Vec::new();
    for variable in variables {
        match variable.split_once('=') {
            Some(("", _)) => return Err(Failure::Usage(format!("--env {variable} has no name"))),
            Some((name, value)) => found.push((name.into(), value.into())),
            None => match std::env::var_os(variable) {
                Some(value) => found.push((variable.into(), value)),
                None => {
                    return Err(Failure::Usage(format!("--env {variable}: there is no such variable here")));
                }
            },
        }
    }
    Ok(found)
}
