//! `cob install`: kernelspecs.

use std::path::PathBuf;

use clap::Args;
use cob_clients::notebook::kernelspec::{self, KernelSpec, SpecError};
use cob_protocol::message::PROTOCOL_VERSION;

use super::policy::Checkpoints;
use super::python::{self, Interpreter};
use super::{Failure, absolute, attach};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The interpreter that runs the code [default: that of the active environment, else python3]
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// Name of the kernelspec
    #[arg(long, default_value = "cob")]
    name: String,
    /// What front ends show [default: "Python VERSION (cob)"]
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
    #[arg(long, conflicts_with_all = ["remove", "python", "display_name"])]
    list: bool,
    /// Remove a kernelspec that cob installed
    #[arg(long, value_name = "NAME", conflicts_with_all = ["python", "display_name"])]
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
    /// In the environment of the interpreter
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
            let executable = interpreter.map(|i| i.executable.as_path());
            let prefix = executable.and_then(|path| path.parent()?.parent());
            let prefix = prefix.ok_or_else(|| Failure::usage("the interpreter lies in no environment"))?;
            return Ok(kernelspec::prefix_data_dir(prefix));
        }
        kernelspec::user_data_dir()
            .ok_or_else(|| Failure::usage("HOME is not set; name a place with --prefix"))
    }

    /// The `kernels` folders that are meant: one, or everywhere Jupyter looks.
    fn searched(&self) -> Result<Vec<PathBuf>, Failure> {
        if self.prefix.is_some() || self.user {
            return Ok(vec![self.data_dir(None)?.join("kernels")]);
        }
        if self.sys_prefix {
            let interpreter = Interpreter::usable(&python::choose(None)?)?;
            return Ok(vec![self.data_dir(Some(&interpreter))?.join("kernels")]);
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
    let interpreter = Interpreter::usable(&python::choose(options.python.as_deref())?)?;
    let spec = spec(&options, &interpreter)?;
    let data_dir = options.place.data_dir(Some(&interpreter))?;
    let directory = kernelspec::install(&data_dir, &options.name, &spec).map_err(failure)?;
    println!("installed {} in {}", spec.display_name, directory.display());
    Ok(())
}

fn spec(options: &Options, interpreter: &Interpreter) -> Result<KernelSpec, Failure> {
    let cob = std::env::current_exe().map_err(|e| Failure::Failed(format!("cannot find cob itself: {e}")))?;
    let text = |path: PathBuf| {
        path.into_os_string().into_string().map_err(|path| {
            Failure::usage(format_args!("{} cannot stand in a kernelspec: it is not UTF-8", path.display()))
        })
    };
    let executable = text(interpreter.executable.clone())?;
    let metadata = serde_json::json!({
        "debugger": false,
        "cob": { "version": env!("CARGO_PKG_VERSION"), "python": executable },
    });
    let session = options.session.as_ref().map(ToString::to_string);
    let mut argv = vec![text(cob)?, "kernel".to_owned()];
    if let Some(session) = &session {
        argv.extend(["--session".to_owned(), session.clone()]);
    }
    if let Some(attach::Wanted::Open(session)) = &options.session {
        options.checkpoints.refuse_for(session)?;
    }
    argv.extend(options.checkpoints.arguments());
    // One that is open has its interpreter.
    if !matches!(options.session, Some(attach::Wanted::Open(_))) {
        argv.extend(["--python".to_owned(), executable]);
    }
    argv.extend(["-f", "{connection_file}"].map(str::to_owned));
    let suffix = session.map_or_else(String::new, |session| format!(", session {session}"));
    Ok(KernelSpec {
        argv,
        display_name: options
            .display_name
            .clone()
            .unwrap_or_else(|| format!("Python {} (cob{suffix})", interpreter.version)),
        language: "python".to_owned(),
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
