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
use super::language::{Language, Runner};
use super::python::{self, Interpreter};
use super::surroundings::{harmless, homeless};

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

    fn interpreter(&self, named: Option<String>) -> Result<PathBuf, Refusal> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = known().get(&named).filter(|path| path.exists()) {
            return Ok(path.clone());
        }
        let path = self.look(named.as_deref()).map_err(refusal)?;
        known().insert(named, path.clone());
        Ok(path)
    }
}

fn known(language: &str) -> Result<Language, Refusal> {
    Language::named(language).map_err(|why| Refusal::new(ErrorCode::BadRequest, why))
}

fn refusal(failure: Failure) -> Refusal {
    match failure {
        Failure::Usage(why) => Refusal::new(ErrorCode::BadRequest, why),
        Failure::Failed(why) => Refusal::new(ErrorCode::WorkerStartFailed, why),
        Failure::Silent(_) => {
            Refusal::new(ErrorCode::WorkerStartFailed, "the program of that language cannot be used")
        }
    }
}

/// What all sessions of a language find around them. Their homes are empty; saying so lets them be forked from one
/// zygote.
fn usual(language: Language) -> Vec<(OsString, OsString)> {
    let mut variables = harmless();
    variables.extend(homeless(language));
    variables
}

/// Is what is kept warm for the sessions that `runner` will have.
pub(crate) fn in_advance(runner: Runner) -> Program {
    let variables = usual(runner.language);
    runner.program(variables, None)
}

impl Languages for Installed {
    fn named(&self, language: &str) -> Result<String, Refusal> {
        known(language).map(|language| language.name().to_owned())
    }

    fn find(&self, language: &str, environment: &Environment) -> Result<PathBuf, Refusal> {
        match known(language)? {
            Language::Python => self.interpreter(environment.python.clone()),
            other => {
                let named = environment.python.as_deref().map(Path::new);
                Runner::find(other, named).map(Runner::into_path).map_err(refusal)
            }
        }
    }

    fn program(&self, spec: &SessionSpec, own: &OwnFolder) -> Program {
        // What is recorded was found before, so it is one of ours.
        let language = Language::named(&spec.language).unwrap_or_default();
        let mut variables = usual(language);
        let folders = [("HOME", own.work()), ("TMPDIR", own.tmp())];
        variables.extend(folders.map(|(name, path)| (name.into(), path.into())));
        variables.extend(spec.environment.env.iter().map(|(name, value)| (name.into(), value.into())));
        Runner::at(language, spec.program.clone()).program(variables, Some(spec.directory.clone()))
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
        assert!(refused("cobol", "python3").contains("python, javascript"));
        assert!(refused("javascript", "python3").contains("python3"));
        assert!(refused("python", "/no/such/interpreter").contains("/no/such/interpreter"));
        assert!(refused("python", "/bin/sh").contains("/bin/sh"));
    }

    #[test]
    fn a_language_is_recorded_by_its_one_name() {
        let installed = Installed::default();
        assert_eq!(installed.named("ts").unwrap(), "javascript");
        assert_eq!(installed.named("python").unwrap(), "python");
        assert_eq!(installed.named("").unwrap_err().code, ErrorCode::BadRequest);
        let found = installed.find("javascript", &Environment::default());
        match crate::cli::javascript::IS_BUILT_IN {
            true => assert!(found.is_ok()),
            false => assert!(found.unwrap_err().why.contains("feature `javascript`")),
        }
    }
}
