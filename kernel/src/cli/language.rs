//! Which language code is in, and which program runs it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use cob_pool::Program;
use serde_json::{Map, Value, json};

use super::permissions::Allowed;
use super::{Failure, absolute, javascript, python};

/// A language that sessions can have. The first one is that of code that says nothing of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Language {
    /// Python
    #[default]
    Python,
    /// JavaScript and TypeScript
    #[value(name = "javascript", aliases = ["js", "typescript", "ts"])]
    JavaScript,
}

/// The endings of files with code, without the dot.
const ENDINGS: [(Language, &[&str]); 2] = [
    (Language::Python, &["py", "ipy", "pyw"]),
    (Language::JavaScript, &["js", "mjs", "cjs", "jsx", "ts", "mts", "cts", "tsx"]),
];

impl Language {
    /// The one that is called so.
    ///
    /// # Errors
    /// A sentence that says what there is.
    pub(crate) fn named(name: &str) -> Result<Self, String> {
        Self::from_str(name, true).map_err(|_| {
            let all: Vec<_> = Self::value_variants().iter().map(|language| language.name()).collect();
            format!("there is no language `{}` here; there are: {}", name.escape_debug(), all.join(", "))
        })
    }

    /// What it is called in records and requests, whatever else it was called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::JavaScript => "javascript",
        }
    }

    /// That of the code in a file, if its name tells.
    pub(crate) fn of_file(path: &Path) -> Option<Self> {
        let ending = path.extension()?.to_str()?.to_ascii_lowercase();
        let found = ENDINGS.iter().find(|(_, endings)| endings.contains(&ending.as_str()));
        found.map(|(language, _)| *language)
    }

    /// Names what its workers are made of: those of another build do not fit this one.
    pub(crate) fn build(self) -> String {
        match self {
            Self::Python => python::build(),
            Self::JavaScript => javascript::build(),
        }
    }

    /// All that there are.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Self::value_variants().iter().copied()
    }
}

/// What the command line says about the language of code, and what runs it.
#[derive(Debug, Args)]
pub(crate) struct Wanted {
    /// The language of the code; `js`, `typescript` and `ts` are other names of javascript
    #[arg(long, value_enum, ignore_case = true)]
    pub(crate) language: Option<Language>,
    /// The interpreter that runs code in Python [default: that of the active environment, else python3; in a session of a
    /// server: the server's]
    #[arg(long, value_name = "PATH")]
    pub(crate) python: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) allowed: Allowed,
}

impl Wanted {
    /// What runs the code, which is in `usual` unless something else was said.
    ///
    /// # Errors
    /// When there is no such program, or it is none of that language.
    pub(crate) fn runner(&self, usual: Language) -> Result<Runner, Failure> {
        Runner::find(self.language.unwrap_or(usual), self.python.as_deref())
    }

    /// Whether neither a language nor an interpreter was named.
    pub(crate) fn is_silent(&self) -> bool {
        self.language.is_none() && self.python.is_none()
    }

    /// What an executor of this language is told beside its environment.
    ///
    /// # Errors
    /// When it has no permissions to give.
    pub(crate) fn options(&self, language: Language) -> Result<Map<String, Value>, Failure> {
        let permissions = self.allowed.asked(language)?;
        Ok(permissions
            .map(|permissions| ("permissions".to_owned(), json!(permissions)))
            .into_iter()
            .collect())
    }

    /// The same as a part of what is asked of a server: the environment of a session.
    ///
    /// # Errors
    /// When an interpreter cannot be named, or there are no permissions to give.
    pub(crate) fn environment(&self, language: Language) -> Result<Map<String, Value>, Failure> {
        let mut environment = self.options(language)?;
        if let Some(python) = &self.python {
            environment.insert("python".to_owned(), json!(absolute(python)?));
        }
        Ok(environment)
    }
}

/// What runs code: a language, and the program for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Runner {
    pub(crate) language: Language,
    /// The interpreter; of a language that this program runs itself, nothing.
    path: PathBuf,
}

impl Runner {
    /// The one for `language`, if need be with the interpreter that was named.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn find(language: Language, python: Option<&Path>) -> Result<Self, Failure> {
        let path = match (language, python) {
            (Language::Python, named) => python::resolve(python::choose(named)?)?,
            (Language::JavaScript, None) => javascript::find()?,
            (Language::JavaScript, Some(python)) => {
                return Err(Failure::Usage(format!(
                    "a session in javascript has no Python interpreter: leave `{}` out, or choose the language python",
                    python.display()
                )));
            }
        };
        Ok(Self { language, path })
    }

    /// One that was found before.
    pub(crate) fn at(language: Language, path: PathBuf) -> Self {
        Self { language, path }
    }

    /// The interpreter.
    pub(crate) fn into_path(self) -> PathBuf {
        self.path
    }

    /// The worker program, with the variables that its code shall have, and where it runs.
    pub(crate) fn program(self, variables: Vec<(OsString, OsString)>, directory: Option<PathBuf>) -> Program {
        match self.language {
            Language::Python => python::program(self.path, variables, directory),
            Language::JavaScript => javascript::program(variables, directory),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_language_has_one_name_and_is_known_by_others() {
        for language in Language::all() {
            assert_eq!(Language::named(language.name()), Ok(language));
        }
        for other in ["js", "ts", "typescript", "TypeScript", "JavaScript"] {
            assert_eq!(Language::named(other), Ok(Language::JavaScript), "{other}");
        }
        let wrong = Language::named("cobol").unwrap_err();
        assert!(wrong.contains("cobol") && wrong.contains("python, javascript"), "{wrong}");
    }

    #[test]
    fn the_name_of_a_file_tells_its_language() {
        for (file, language) in [
            ("a.py", Some(Language::Python)),
            ("/x/a.ts", Some(Language::JavaScript)),
            ("a.b.MJS", Some(Language::JavaScript)),
            ("a.mts", Some(Language::JavaScript)),
            ("js", None),
            ("a.txt", None),
            ("-", None),
        ] {
            assert_eq!(Language::of_file(Path::new(file)), language, "{file}");
        }
    }

    #[test]
    fn an_interpreter_belongs_to_python() {
        let refused = Runner::find(Language::JavaScript, Some(Path::new("/usr/bin/python3")));
        assert!(matches!(refused, Err(Failure::Usage(why)) if why.contains("/usr/bin/python3")));
    }
}
