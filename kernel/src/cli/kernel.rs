//! `cob kernel -f FILE`: one session for Jupyter front ends.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use cob_bridge::{Bridge, MemoryStore};
use cob_clients::notebook::{BindError, ConnectionFile, NotebookEndpoint};
use cob_kernel::notebook::serve;
use cob_kernel::request::Command;
use cob_kernel::session::{Config, End};
use cob_pool::exit_of;
use cob_protocol::json::Json;
use cob_protocol::time::SystemClock;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::surroundings::{Flags, Surroundings};
use super::{Failure, block_on, python};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Connection file written by the front end
    #[arg(short = 'f', long = "connection-file", value_name = "FILE")]
    connection_file: PathBuf,
    /// The interpreter that runs the code [default: that of the active environment, else python3]
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    #[command(flatten)]
    surroundings: Flags,
}

pub(crate) fn main(options: Options) -> Result<(), Failure> {
    let file = ConnectionFile::read(&options.connection_file).map_err(Failure::usage)?;
    let interpreter = python::resolve(python::choose(options.python.as_deref())?)?;
    let Surroundings { config, private } =
        options.surroundings.surroundings(interpreter, None, Json::object())?;
    let ended = block_on(run(file, config))?;
    drop(private);
    match ended? {
        End::Shutdown => Ok(()),
        End::StartFailed(error) => Err(Failure::failed(error)),
    }
}

async fn run(file: ConnectionFile, config: Config) -> Result<End, Failure> {
    let clock = Arc::new(SystemClock);
    let name = uuid::Uuid::new_v4().to_string();
    let endpoint = NotebookEndpoint::bind(&file, name, clock.clone()).await.map_err(|error| match error {
        BindError::Bind { .. } => Failure::failed(error),
        other => Failure::usage(other),
    })?;
    let bridge = Bridge::new(MemoryStore::default(), clock);
    let (sender, commands) = mpsc::channel(4);
    tokio::spawn(watch_signals(sender.clone()));
    tokio::spawn(watch_parent(sender));
    Ok(serve(endpoint, config, bridge, commands).await)
}

/// SIGINT interrupts, as front ends that signal expect; SIGTERM ends.
async fn watch_signals(commands: mpsc::Sender<Command>) {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return tracing::warn!("signals cannot be watched; interrupts by signal will not work");
    };
    loop {
        let command = tokio::select! {
            _ = interrupt.recv() => Command::Interrupt,
            _ = terminate.recv() => Command::Shutdown,
        };
        if commands.send(command).await.is_err() {
            return;
        }
    }
}

/// A front end that dies without a word leaves no kernel behind: Jupyter tells its own process id.
async fn watch_parent(commands: mpsc::Sender<Command>) {
    let parent = std::env::var("JPY_PARENT_PID").ok().and_then(|pid| pid.parse::<u32>().ok());
    let Some(parent) = parent.filter(|pid| *pid > 1) else { return };
    match exit_of(parent).await {
        Ok(()) => {
            tracing::warn!(parent, "the front end is gone; shutting down");
            // It fails only when the session has ended already.
            let _ = commands.send(Command::Shutdown).await;
        }
        Err(error) => tracing::debug!(parent, %error, "the front end's process cannot be watched"),
    }
}
