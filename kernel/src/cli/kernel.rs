//! `cob kernel -f FILE`: one session for Jupyter front ends.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use cob_clients::notebook::{BindError, ConnectionFile, NotebookEndpoint};
use cob_kernel::notebook::serve;
use cob_kernel::request::Command;
use cob_kernel::session::{Config, End};
use cob_pool::exit_of;
use cob_protocol::json::Json;
use cob_protocol::promise::Durability;
use cob_protocol::time::SystemClock;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::language::Language;
use super::policy::Checkpoints;
use super::surroundings::{Flags, Surroundings};
use super::{Failure, adopt_orphans, attach, block_on, durable, language, runtime, state};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Connection file written by the front end
    #[arg(short = 'f', long = "connection-file", value_name = "FILE")]
    connection_file: PathBuf,
    #[command(flatten)]
    wanted: language::Wanted,
    /// Share this session of the server (`cob sessions` lists them) instead of serving one; `new`: one that is opened for
    /// this front end and closed with it. Agents can use it as well
    #[arg(long, value_name = "ID", value_parser = attach::wanted)]
    session: Option<attach::Wanted>,
    #[command(flatten)]
    surroundings: Flags,
    #[command(flatten)]
    durable: durable::Records,
    #[command(flatten)]
    checkpoints: Checkpoints,
}

pub(crate) fn main(options: Options) -> Result<(), Failure> {
    if let Some(wanted) = options.session.clone() {
        return block_on(share(wanted, &options))?;
    }
    let file = ConnectionFile::read(&options.connection_file).map_err(Failure::usage)?;
    let runner = options.wanted.runner(Language::default())?;
    let told = Json::from(Value::Object(options.wanted.options(runner.language)?));
    let Surroundings { config, private } = options.surroundings.surroundings(runner, None, told)?;
    let config = Config {
        workers: options.durable.workers(config.workers),
        survival: options.durable.survival(&runtime::folder())?,
        checkpoints: options.checkpoints.policy(),
        ..config
    };
    let ended = block_on(run(file, config, &options))?;
    drop(private);
    match ended? {
        End::Shutdown => Ok(()),
        End::StartFailed(error) => Err(Failure::failed(error)),
    }
}

/// Shares a session of the server.
async fn share(wanted: attach::Wanted, options: &Options) -> Result<(), Failure> {
    if let attach::Wanted::Open(session) = &wanted {
        options.checkpoints.refuse_for(session)?;
    }
    let (sender, commands) = mpsc::channel(4);
    tokio::spawn(watch_signals(sender.clone()));
    tokio::spawn(watch_parent(sender));
    let new = attach::New { wanted: &options.wanted, checkpoints: options.checkpoints.asked() };
    attach::run(&options.connection_file, wanted, new, commands).await
}

async fn run(file: ConnectionFile, config: Config, options: &Options) -> Result<End, Failure> {
    adopt_orphans();
    let clock = Arc::new(SystemClock);
    // Before anybody can reach us: a kernel whose records cannot be opened does not begin.
    let opened = options.durable.open(&options.connection_file, clock.clone()).await?;
    let durable::Opened { bridge, session, past, history, durability } = opened;
    let name = uuid::Uuid::new_v4().to_string();
    let endpoint = NotebookEndpoint::bind(&file, name, clock).await.map_err(|error| match error {
        BindError::Bind { .. } => Failure::failed(error),
        other => Failure::usage(other),
    })?;
    let (sender, commands) = mpsc::channel(4);
    tokio::spawn(watch_signals(sender.clone()));
    tokio::spawn(watch_parent(sender));
    // A worker that is recorded nowhere, nobody could find again.
    let survival = config.survival.filter(|_| durability != Durability::None);
    let config = Config { id: session, past, history, durability, survival, ..config };
    let end = serve(endpoint, config, bridge.clone(), commands).await;
    bridge.close().await;
    state::sweep();
    Ok(end)
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
