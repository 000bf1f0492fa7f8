//! `cob serve`: keeps workers warm for every kernel of this user on this machine.

use std::path::PathBuf;

use clap::Args;
use cob_pool::{Listener, Pool, PoolConfig, Program, Warmth};
use cob_protocol::resources::Limits;
use tokio::signal::unix::{SignalKind, signal};

use super::{Failure, block_on, python, runtime};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// An interpreter to keep warm from the start, if need be with its own imports and number of spares:
    /// PATH[,import=MODULE+MODULE][,spares=NUMBER]. Others become warm when they are first used
    #[arg(long = "python", value_name = "PATH[,…]", value_parser = interpreter)]
    interpreters: Vec<(PathBuf, Warmth)>,
    /// Modules that workers have imported before they are asked for; one that is not installed is left out
    #[arg(long = "import", value_name = "MODULES", value_delimiter = ',', value_parser = module,
          default_value = "numpy,pandas")]
    imports: Vec<String>,
    /// Workers that wait, per interpreter and environment
    #[arg(long, value_name = "NUMBER", default_value_t = 2)]
    spares: usize,
    /// Memory for everything that waits; environments not used for long make room first
    #[arg(long, value_name = "SIZE", default_value = "2G", value_parser = size)]
    memory: u64,
    /// What no session may exceed, for example memory=4G,processes=256
    #[arg(long, value_name = "LIMITS", value_parser = limits, default_value = "", hide_default_value = true)]
    limits: Limits,
}

fn interpreter(text: &str) -> Result<(PathBuf, Warmth), String> {
    let mut parts = text.split(',');
    let path = PathBuf::from(parts.next().unwrap_or_default());
    let mut warmth = Warmth::default();
    for part in parts {
        match part.split_once('=') {
            Some(("import", modules)) => {
                warmth.imports =
                    Some(modules.split('+').filter(|m| !m.is_empty()).map(module).collect::<Result<_, _>>()?);
            }
            Some(("spares", number)) => {
                let number = number.parse().map_err(|_| format!("spares={number} is no number"))?;
                warmth.spares = Some(number);
            }
            _ => return Err(format!("`{part}` is neither import=MODULE+MODULE nor spares=NUMBER")),
        }
    }
    Ok((path, warmth))
}

fn module(name: &str) -> Result<String, String> {
    let is_word = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || c == '_');
    // No name at all asks for no import.
    let is_module = name.is_empty() || name.split('.').all(is_word);
    if is_module { Ok(name.to_owned()) } else { Err(format!("`{name}` is no name of a module")) }
}

fn size(text: &str) -> Result<u64, String> {
    let limits = Limits::parse(&format!("memory={text}")).map_err(|error| error.to_string())?;
    limits.memory_bytes.ok_or_else(|| "a size, for example 2G".to_owned())
}

fn limits(text: &str) -> Result<Limits, String> {
    Limits::parse(text).map_err(|error| error.to_string())
}

pub(crate) fn main(options: Options) -> Result<(), Failure> {
    if options.imports.len() > 1 && options.imports.iter().any(String::is_empty) {
        return Err(Failure::usage("--import: an empty name is no name of a module"));
    }
    let mut programs = Vec::new();
    for (interpreter, warmth) in &options.interpreters {
        let interpreter = python::resolve(python::choose(Some(interpreter))?)?;
        let program = python::program(interpreter, std::env::vars_os().collect(), None);
        programs.push((program, warmth.clone()));
    }
    if let Err(error) = cob_pool::raise_open_files() {
        tracing::warn!(%error, "no more descriptors than usual: fewer workers than there could be");
    }
    block_on(serve(options, programs))?
}

async fn serve(options: Options, programs: Vec<(Program, Warmth)>) -> Result<(), Failure> {
    // From here on a request to end is carried out in order.
    let stopped = signals()?;
    let folder = runtime::folder();
    let listener = Listener::bind(&folder).map_err(Failure::failed)?;
    let swept = listener.sweep().await;
    if swept > 0 {
        tracing::warn!(swept, "processes that an earlier server left behind were ended");
    }
    let config = PoolConfig {
        imports: options.imports.into_iter().filter(|module| !module.is_empty()).collect(),
        spares: options.spares,
        memory_bytes: options.memory,
        ..PoolConfig::default()
    };
    let pool = Pool::start(config);
    for (program, warmth) in programs {
        pool.warm(&program, warmth).await;
    }
    let build = python::build();
    println!("keeping workers warm in {}; `cob info` shows them, Ctrl-C ends this", folder.display());
    tokio::select! {
        () = listener.serve(&pool, &build, Some(cob_python::MODULE), &options.limits) => {}
        () = stopped => {}
    }
    drop(listener);
    pool.close().await;
    Ok(())
}

/// SIGINT or SIGTERM.
fn signals() -> Result<impl Future<Output = ()>, Failure> {
    let failed = |error| Failure::Failed(format!("signals cannot be watched: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
