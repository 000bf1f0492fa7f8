//! The languages that sessions of a server can have, and what their code finds around it.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cob_kernel::request::Refusal;
use cob_kernel::server::{Languages, OwnFolder, SessionSpec};
use cob_pool::Program;
use cob_protocol::content::agent::Environment;
use cob_protocol::error::ErrorCode;

use super::Failure;
use super::python::{self, Interpreter};
use super::surroundings::harmless;

/// The only one there is.
const PYTHON: &str = "python";

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Installed {
    /// That of sessions that name none.
    usual: Option<PathBuf>,
    /// Interpreters that were looked at: what was named, and what that is.
    known: Mutex<HashMap<Option<String>, PathBuf>>,
}

impl Installed {
    /// `usual` is the interpreter of sessions that name none.
    pub(crate) fn new(usual: Option<PathBuf>) -> Self {
        Self { usual, known: Mutex::default() }
    }

    fn look(&self, named: Option<&str>) -> Result<PathBuf, Failure> {
        let path = python::choose(named.map(Path::new).or(self.usual.as_deref()))?;
        // What a client names is looked at, so that it is told at once if that is no Python.
        if named.is_some() {
            Interpreter::usable(&path)?;
        }
        python::resolve(path)
    }
}

/// What all sessions find around them. Their homes are empty; saying so lets them be forked from one zygote.
fn usual() -> Vec<(OsString, OsString)> {
    let mut variables = harmless();
    variables.push(("PYTHONNOUSERSITE".into(), "1".into()));
    variables
}

/// What is kept warm for the sessions that an interpreter will have.
pub(crate) fn in_advance(interpreter: PathBuf) -> Program {
    python::program(interpreter, usual(), None)
}

impl Languages for Installed {
    fn find(&self, language: &str, environment: &Environment) -> Result<PathBuf, Refusal> {
        if language != PYTHON {
            let why = format!("there is no language `{language}` here; there is: {PYTHON}");
            return Err(Refusal::new(ErrorCode::BadRequest, why));
        }
        let named = environment.python.clone();
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = known().get(&named).filter(|path| path.exists()) {
            return Ok(path.clone());
        }
        match self.look(named.as_deref()) {
            Ok(path) => {
                known().insert(named, path.clone());
                Ok(path)
            }
            Err(Failure::Usage(why)) => Err(Refusal::new(ErrorCode::BadRequest, why)),
            Err(Failure::Failed(why)) => Err(Refusal::new(ErrorCode::WorkerStartFailed, why)),
            Err(Failure::Silent(_)) => {
                Err(Refusal::new(ErrorCode::WorkerStartFailed, "the interpreter cannot be used"))
            }
        }
    }

    fn program(&self, spec: &SessionSpec, own: &OwnFolder) -> Program {
        let mut variables = usual();
        let folders = [("HOME", own.work()), ("TMPDIR", own.tmp())];
        variables.extend(folders.map(|(name, path)| (name.into(), path.into())));
        variables.extend(spec.environment.env.iter().map(|(name, value)| (name.into(), value.into())));
        python::program(spec.program.clone(), variables, Some(spec.directory.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_not_is_refused_with_what_there_is() {
        let installed = Installed::default();
        let refused = |language: &str, python: &str| {
            let environment = Environment { python: Some(python.to_owned()), ..Environment::default() };
            let refusal = installed.find(language, &environment).unwrap_err();
            assert_eq!(refusal.code, ErrorCode::BadRequest);
            refusal.why
        };
        assert!(refused("cobol", "python3").contains("python"));
        assert!(refused("python", "/no/such/interpreter").contains("/no/such/interpreter"));
        assert!(refused("python", "/bin/sh").contains("/bin/sh"));
    }
}
