//! The command line: what can be asked, and how errors and exit codes come out.
//!
//! Exit codes: 0 success; 1 the code that ran failed, or cob did; 2 the request was wrong; 130 interrupted.

mod attach;
mod audit;
mod checkpoint;
mod completions;
mod config;
mod console;
mod control;
#[cfg(debug_assertions)]
mod crash;
mod doctor;
mod durable;
mod exec;
mod figures;
mod groups;
mod info;
mod install;
mod javascript;
mod kernel;
mod keys;
mod language;
mod languages;
mod limits;
mod logs;
mod notebook_file;
mod permissions;
mod policy;
mod printer;
mod progress;
mod promises;
mod python;
mod remote;
mod run;
mod runtime;
mod serve;
mod serving;
mod sessions;
mod state;
mod surroundings;
mod telemetry;
mod terminal;
mod top;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// An execution kernel and protocol server: Jupyter front ends and agents send it code.
#[derive(Debug, Parser)]
#[command(name = "cob", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve one session to Jupyter front ends: what a kernelspec runs
    Kernel(kernel::Options),
    /// Make cob known to Jupyter, or list and remove what was installed
    Install(install::Options),
    /// Run a notebook, a script or a piece of code, and show what it prints
    Run(run::Options),
    /// Serve sessions to agents and notebooks, and keep workers warm
    Serve(Box<serve::Options>),
    /// List the sessions of the server
    Sessions(sessions::Options),
    /// Run code in a session of the server, and show what it prints
    Exec(exec::Options),
    /// Show what happens in a session as it happens, and run what is typed
    Attach(console::Options),
    /// Stop the code that runs in a session
    Interrupt(control::Interrupt),
    /// Take an execution back: out of the queue, or by an interrupt
    Cancel(control::Cancel),
    /// Keep sessions as they are, go back to that, and fork sessions off
    Checkpoint(Box<checkpoint::Options>),
    /// Give a session a fresh namespace
    Restart(control::Restart),
    /// End a session
    Kill(control::Kill),
    /// Watch the sessions of the server
    Top(top::Options),
    /// Show what the server on this machine holds and has done
    Info(info::Options),
    /// Print the figures of the server in Prometheus' text format
    Metrics(info::Metrics),
    /// Check, show or explain the configuration of `cob serve`
    Config(config::Options),
    /// Say who may reach a server from elsewhere: keys of the server and of its clients
    Keys(keys::Options),
    /// Show what code printed, as it was recorded: while it runs, afterwards, or after a crash
    Logs(logs::Options),
    /// List what was asked for and what became of it
    Promises(promises::Options),
    /// Verify or show the audit trail of a store
    Audit(audit::Options),
    /// Keep workers of a process that died until it is started again (internal)
    #[command(hide = true)]
    Custodian,
    /// Check what this host lacks, and say how to get it
    Doctor(doctor::Options),
    /// Print the script that completes cob's command line in a shell
    Completions(completions::Options),
}

impl Command {
    /// Where spans are to go.
    fn otlp(&self) -> Option<&str> {
        match self {
            Self::Serve(options) => options.otlp(),
            _ => None,
        }
    }
}

/// Why a command failed, and with which exit code.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The request was wrong: exit code 2.
    Usage(String),
    /// The request was fine, but something failed: exit code 1.
    Failed(String),
    /// Everything has been said already.
    Silent(u8),
}

impl Failure {
    pub(crate) fn usage(error: impl std::fmt::Display) -> Self {
        Self::Usage(error.to_string())
    }

    pub(crate) fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }
}

pub(crate) fn main() -> ExitCode {
    javascript::work_if_asked();
    let cli = match config::command_line() {
        Ok(cli) => cli,
        Err(failure) => return exit(Err(failure)),
    };
    let telemetry = match telemetry::start(cli.command.otlp()) {
        Ok(telemetry) => telemetry,
        Err(failure) => return exit(Err(failure)),
    };
    #[cfg(debug_assertions)]
    crash::arm();
    let result = match cli.command {
        Command::Kernel(options) => kernel::main(options),
        Command::Install(options) => install::main(options),
        Command::Run(options) => run::main(options),
        Command::Serve(options) => serve::main(*options),
        Command::Info(options) => info::main(options),
        Command::Config(options) => config::main(options),
        Command::Keys(options) => keys::main(options),
        Command::Logs(options) => logs::main(options),
        Command::Promises(options) => promises::main(options),
        Command::Audit(options) => audit::main(options),
        Command::Custodian => return cob_pool::custodian_main(),
        Command::Doctor(options) => doctor::main(options),
        Command::Sessions(options) => sessions::main(options),
        Command::Exec(options) => exec::main(options),
        Command::Attach(options) => console::main(options),
        Command::Interrupt(options) => control::interrupt(options),
        Command::Cancel(options) => control::cancel(options),
        Command::Checkpoint(options) => checkpoint::main(*options),
        Command::Restart(options) => control::restart(options),
        Command::Kill(options) => control::kill(options),
        Command::Top(options) => top::main(options),
        Command::Metrics(options) => info::metrics(options),
        Command::Completions(options) => completions::main(options),
    };
    terminal::restore();
    drop(telemetry);
    exit(result)
}

/// Says why a command failed, and how it ended.
fn exit(result: Result<(), Failure>) -> ExitCode {
    let (text, code) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Usage(text)) => (text, 2),
        Err(Failure::Failed(text)) => (text, 1),
        Err(Failure::Silent(code)) => return ExitCode::from(code),
    };
    eprintln!("cob: {text}");
    ExitCode::from(code)
}

/// One thread does everything: what cob waits for is processes and sockets.
fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("cannot start the event loop: {error}")))?;
    let value = runtime.block_on(async {
        let value = future.await;
        cob_pool::cleared().await;
        value
    });
    // A thread that still reads the terminal must not hold up the end of the process.
    runtime.shutdown_background();
    Ok(value)
}

/// What sessions leave behind in this process is its own to take note of.
fn adopt_orphans() {
    if let Err(error) = cob_pool::adopt_orphans() {
        tracing::debug!(%error, "what loses its parent is given to somebody else");
    }
}

/// Makes a path independent of the working directory, without following links: a virtual environment is known by
/// the path of its interpreter, which is a link.
fn absolute(path: &std::path::Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
