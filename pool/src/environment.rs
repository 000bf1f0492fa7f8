//! What makes two sessions alike enough to be forked from one zygote: the same interpreter, started with the same
//! variables as far as they matter at its start.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::spawn::{self, Program, is_own};

/// Variables that an interpreter, a loader or a library reads when it starts: they are part of the zygote. All others
/// are the session's own and set after the fork.
const READ_AT_START: &[&str] = &[
    "CONDA_PREFIX",
    "HOME",
    "LANG",
    "LANGUAGE",
    "MPLBACKEND",
    "MPLCONFIGDIR",
    "OPENSSL_CONF",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TZ",
    "VIRTUAL_ENV",
];

/// The same, by how they begin.
const READ_AT_START_PREFIXES: &[&str] = &[
    "ARROW_",
    "BLIS_",
    "CUDA_",
    "GLIBC_",
    "GOTO_",
    "IPYTHON",
    "KMP_",
    "LC_",
    "LD_",
    "MALLOC_",
    "MKL_",
    "NPY_",
    "NUMBA_",
    "NUMEXPR_",
    "NVIDIA_",
    "OMP_",
    "OPENBLAS_",
    "POLARS_",
    "PYTHON",
    "TF_",
    "TORCH_",
    "VECLIB_",
];

/// Those of them that any program reads.
const READ_BY_ALL: &[&str] = &["LANG", "LANGUAGE", "TZ"];

/// The same, by how they begin.
const READ_BY_ALL_PREFIXES: &[&str] = &["GLIBC_", "LC_", "LD_", "MALLOC_"];

/// An environment, as zygotes are told apart by it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Environment {
    path: PathBuf,
    arguments: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
}

impl Environment {
    /// That of a program.
    pub(crate) fn of(program: &Program) -> Self {
        let is_own = is_own(&program.path);
        // What an interpreter looks for at home when it starts is the user's packages.
        let is_homeless =
            program.environment.iter().any(|(name, value)| name == "PYTHONNOUSERSITE" && !value.is_empty());
        let matters = |(name, _): &&(OsString, OsString)| match is_own {
            true => is_among(name, READ_BY_ALL, READ_BY_ALL_PREFIXES),
            false => {
                is_among(name, READ_AT_START, READ_AT_START_PREFIXES) && !(is_homeless && name == "HOME")
            }
        };
        let mut variables: Vec<_> = program.environment.iter().filter(matters).cloned().collect();
        variables.sort();
        variables.dedup_by(|later, earlier| later.0 == earlier.0);
        Self { path: program.path.clone(), arguments: program.arguments.clone(), variables }
    }

    /// What a zygote for it runs, `image` being that of the program. It lives in no session's folder.
    pub(crate) fn zygote(&self, image: Option<&'static [u8]>) -> Program {
        Program {
            path: self.path.clone(),
            arguments: self.arguments.clone(),
            image,
            environment: self.variables.clone(),
            directory: Some(PathBuf::from("/")),
        }
    }

    /// What people call it.
    pub(crate) fn name(&self) -> String {
        spawn::name(&self.path, &self.arguments)
    }

    /// Whether its zygote can be told to import something.
    pub(crate) fn takes_imports(&self) -> bool {
        !is_own(&self.path)
    }
}

fn is_among(name: &OsStr, names: &[&str], prefixes: &[&str]) -> bool {
    let name = name.as_bytes();
    names.iter().any(|known| known.as_bytes() == name)
        || prefixes.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(variables: &[(&str, &str)]) -> Program {
        let environment = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
        Program {
            path: "/usr/bin/python3".into(),
            arguments: Vec::new(),
            image: None,
            environment,
            directory: None,
        }
    }

    #[test]
    fn only_what_is_read_at_the_start_tells_environments_apart() {
        let one = Environment::of(&program(&[("PYTHONPATH", "/a"), ("TOKEN", "secret"), ("LANG", "C")]));
        let other = Environment::of(&program(&[("LANG", "C"), ("PYTHONPATH", "/a"), ("SHLVL", "2")]));
        assert_eq!(one, other);
        assert_ne!(one, Environment::of(&program(&[("PYTHONPATH", "/b"), ("LANG", "C")])));
    }

    #[test]
    fn sessions_with_homes_of_their_own_share_a_zygote_when_nothing_is_read_there() {
        let at = |home| Environment::of(&program(&[("HOME", home), ("PYTHONNOUSERSITE", "1")]));
        assert_eq!(at("/a"), at("/b"));
        assert_ne!(
            Environment::of(&program(&[("HOME", "/a")])),
            Environment::of(&program(&[("HOME", "/b")]))
        );
    }

    #[test]
    fn this_program_itself_is_the_same_whatever_an_interpreter_would_read() {
        let own = |variables: &[(&str, &str)]| {
            let environment = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
            Environment::of(&Program::own(vec!["worker".into(), "lang".into()], environment, None))
        };
        let one = own(&[("HOME", "/a"), ("PYTHONPATH", "/x"), ("LANG", "C")]);
        assert_eq!(one, own(&[("LANG", "C"), ("OMP_NUM_THREADS", "1")]));
        assert_ne!(one, own(&[("LANG", "de_DE.UTF-8")]));
        assert_eq!(one.name(), "lang");
        assert!(!one.takes_imports());
        let python = Environment::of(&program(&[]));
        assert_eq!(python.name(), "/usr/bin/python3");
        assert!(python.takes_imports());
    }

    #[test]
    fn a_secret_of_one_session_never_reaches_the_zygote() {
        let zygote = Environment::of(&program(&[("TOKEN", "secret"), ("OMP_NUM_THREADS", "1")])).zygote(None);
        assert_eq!(zygote.environment, [("OMP_NUM_THREADS".into(), "1".into())]);
    }
}
