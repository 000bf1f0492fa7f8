//! `cob install`: kernelspecs.

use std::path::{Path, PathBuf};

use clap::Args;
use cob_clients::notebook::kernelspec::{self, KernelSpec, SpecError};
use cob_protocol::message::PROTOCOL_VERSION;

use super::language::Language;
use super::policy::Checkpoints;
use super::python::{self, Interpreter};
use super::{Failure, absolute, attach, language};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    wanted: language::Wanted,
    /// Name of the kernelspec [default: cob, or cob-javascript]
    #[arg(long)]
    name: Option<String>,
    /// What front ends show [default: "Python VERSION (cob)", or "JavaScript (cob)"]
    #[arg(long, value_name = "TEXT")]
    display_name: Option<String>,
    /// Notebooks share this session of the server; `new`: each has one of its own there
    #[arg(long, value_name = "ID", value_parser = attach::wanted)]
    session: Option<attach::Wanted>,
    #[command(flatten)]
    checkpoints: Checkpoints,
    #[command(flatten)]
    place: Place,
    /// List the kernelspecs that run cob
    #[arg(long, conflicts_with_all = ["remove", "language", "python", "display_name"])]
    list: bool,
    /// Remove a kernelspec that cob installed
    #[arg(long, value_name = "NAME", conflicts_with_all = ["language", "python", "display_name"])]
    remove: Option<String>,
}

/// Where kernelspecs are kept.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct Place {
    /// For this user (the default)
    #[arg(long)]
    user: bool,
    /// Below this folder, in share/jupyter/kernels
    #[arg(long, value_name = "DIR")]
    prefix: Option<PathBuf>,
    /// In the environment of the interpreter; of another language, in that of the Python that runs Jupyter here: the
    /// active environment, else python3
    #[arg(long)]
    sys_prefix: bool,
}

impl Place {
    /// The data folder that is meant; the environment is that of `interpreter`.
    fn data_dir(&self, interpreter: Option<&Interpreter>) -> Result<PathBuf, Failure> {
        if let Some(prefix) = &self.prefix {
            return Ok(kernelspec::prefix_data_dir(&absolute(prefix)?));
        }
        if self.sys_prefix {
            let executable = match interpreter {
                Some(interpreter) => interpreter.executable.clone(),
                None => Interpreter::ask(&python::choose(None)?)?.executable,
            };
            let prefix = executable.parent().and_then(Path::parent);
            let prefix = prefix.ok_or_else(|| Failure::usage("the interpreter lies in no environment"))?;
            return Ok(kernelspec::prefix_data_dir(prefix));
        }
        kernelspec::user_data_dir()
            .ok_or_else(|| Failure::usage("HOME is not set; name a place with --prefix"))
    }

    /// The `kernels` folders that are meant: one, or everywhere Jupyter looks.
    fn searched(&self) -> Result<Vec<PathBuf>, Failure> {
        if self.prefix.is_some() || self.user || self.sys_prefix {
            return Ok(vec![self.data_dir(None)?.join("kernels")]);
        }
        Ok(kernelspec::search_path())
    }
}

pub(crate) fn main(options: Options) -> Result<(), Failure> {
    if options.list {
        return list(&options.place);
    }
    if let Some(name) = &options.remove {
        let directory = kernelspec::remove(&options.place.searched()?, name).map_err(failure)?;
        println!("removed {}", directory.display());
        return Ok(());
    }
    let kind = Kind::wanted(&options.wanted)?;
    let spec = spec(&options, &kind)?;
    let data_dir = options.place.data_dir(kind.interpreter())?;
    let name = options.name.as_deref().unwrap_or(kind.usual_name());
    let directory = kernelspec::install(&data_dir, name, &spec).map_err(failure)?;
    println!("installed {} in {}", spec.display_name, directory.display());
    Ok(())
}

/// What a kernelspec is for.
enum Kind {
    Python(Box<Interpreter>),
    JavaScript,
}

impl Kind {
    fn wanted(wanted: &language::Wanted) -> Result<Self, Failure> {
        match wanted.language.unwrap_or_default() {
            Language::Python => {
                let interpreter = Interpreter::usable(&python::choose(wanted.python.as_deref())?)?;
                Ok(Self::Python(Box::new(interpreter)))
            }
            // What could not run is not installed.
            Language::JavaScript => wanted.runner(Language::JavaScript).map(|_| Self::JavaScript),
        }
    }

    fn language(&self) -> Language {
        match self {
            Self::Python(_) => Language::Python,
            Self::JavaScript => Language::JavaScript,
        }
    }

    fn interpreter(&self) -> Option<&Interpreter> {
        match self {
            Self::Python(interpreter) => Some(interpreter),
            Self::JavaScript => None,
        }
    }

    fn usual_name(&self) -> &'static str {
        match self {
            Self::Python(_) => "cob",
            Self::JavaScript => "cob-javascript",
        }
    }

    /// As front ends tell languages apart: JavaScript is run as the TypeScript that it is a part of.
    fn front_end_language(&self) -> &'static str {
        match self {
            Self::Python(_) => "python",
            Self::JavaScript => "typescript",
        }
    }

    fn display_name(&self, suffix: &str) -> String {
        match self {
            Self::Python(interpreter) => format!("Python {} (cob{suffix})", interpreter.version),
            Self::JavaScript => format!("JavaScript (cob{suffix})"),
        }
    }
}

fn spec(options: &Options, kind: &Kind) -> Result<KernelSpec, Failure> {
    let cob = std::env::current_exe().map_err(|e| Failure::Failed(format!("cannot find cob itself: {e}")))?;
    let text = |path: PathBuf| {
        path.into_os_string().into_string().map_err(|path| {
            Failure::usage(format_args!("{} cannot stand in a kernelspec: it is not UTF-8", path.display()))
        })
    };
    let executable =
        kind.interpreter().map(|interpreter| text(interpreter.executable.clone())).transpose()?;
    let mut about =
        serde_json::json!({ "version": env!("CARGO_PKG_VERSION"), "language": kind.language().name() });
    if let Some(executable) = &executable {
        about["python"] = executable.as_str().into();
    }
    let metadata = serde_json::json!({ "debugger": false, "cob": about });
    let session = options.session.as_ref().map(ToString::to_string);
    let mut argv = vec![text(cob)?, "kernel".to_owned()];
    if let Some(session) = &session {
        argv.extend(["--session".to_owned(), session.clone()]);
    }
    if let Some(attach::Wanted::Open(session)) = &options.session {
        options.checkpoints.refuse_for(session)?;
    }
    argv.extend(options.checkpoints.arguments());
    argv.extend(options.wanted.allowed.arguments(kind.language())?);
    // One that is open has its language and its interpreter.
    if !matches!(options.session, Some(attach::Wanted::Open(_))) {
        argv.extend(match executable {
            Some(executable) => ["--python".to_owned(), executable],
            None => ["--language".to_owned(), kind.language().name().to_owned()],
        });
    }
    argv.extend(["-f", "{connection_file}"].map(str::to_owned));
    let suffix = session.map_or_else(String::new, |session| format!(", session {session}"));
    Ok(KernelSpec {
        argv,
        display_name: options.display_name.clone().unwrap_or_else(|| kind.display_name(&suffix)),
        language: kind.front_end_language().to_owned(),
        interrupt_mode: Some("message".to_owned()),
        kernel_protocol_version: Some(PROTOCOL_VERSION.to_owned()),
        env: Default::default(),
        metadata: metadata.as_object().cloned().unwrap_or_default(),
    })
}

fn list(place: &Place) -> Result<(), Failure> {
    let ours: Vec<_> = kernelspec::list(&place.searched()?)
        .into_iter()
        .filter(|installed| installed.spec.is_ours())
        .collect();
    if ours.is_empty() {
        println!("no kernelspec runs cob; `cob install` makes one");
    }
    let width = ours.iter().map(|installed| installed.name.len()).max().unwrap_or(0);
    for installed in ours {
        println!(
            "{:width$}  {}  {}",
            installed.name,
            installed.spec.display_name,
            installed.directory.display()
        );
    }
    Ok(())
}

fn failure(error: SpecError) -> Failure {
    match error {
        SpecError::Io { .. } => Failure::failed(error),
        _ => Failure::usage(error),
    }
}
