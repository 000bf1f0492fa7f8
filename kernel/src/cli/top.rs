//! `cob top`: the sessions of the server, the busiest first, once per second.
//!
//! Drawn by hand: one table is all there is, and what draws more would be a third of all code that cob depends on.

mod rows;
mod screen;
mod view;

use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::Args;
use cob_clients::agent::AgentConnection;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::MissedTickBehavior;

use self::rows::Rows;
use self::screen::{Screen, keys};
use self::view::{Action, View};
use super::remote::{Server, ask};
use super::{Failure, block_on};

/// How often the figures are renewed.
const PERIOD: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Print one plain table: what happens also when the output is no terminal
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    server: Server,
}

pub(crate) fn main(options: Options) -> Result<(), Failure> {
    let is_live = !options.once && io::stdout().is_terminal() && io::stdin().is_terminal();
    block_on(async {
        let mut connection = options.server.connect().await?;
        if is_live { watch(connection).await } else { once(&mut connection).await }
    })?
}

async fn once(connection: &mut AgentConnection) -> Result<(), Failure> {
    let mut rows = Rows::default();
    rows.renew(connection).await?;
    // A reader that has seen enough (`| head`) is no failure.
    let _ = rows.table().write(&mut io::stdout().lock());
    Ok(())
}

/// Until the person has seen enough.
async fn watch(mut connection: AgentConnection) -> Result<(), Failure> {
    let watched =
        |kind| signal(kind).map_err(|error| Failure::Failed(format!("signals cannot be watched: {error}")));
    let mut signals = Signals {
        interrupt: watched(SignalKind::interrupt())?,
        terminate: watched(SignalKind::terminate())?,
        resized: watched(SignalKind::window_change())?,
    };
    let mut clock = tokio::time::interval(PERIOD);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut rows, mut view) = (Rows::default(), View::default());
    let screen = Screen::enter();
    let mut keys = keys();
    loop {
        let action = tokio::select! {
            key = keys.recv() => key.map_or(Action::Quit, |key| view.key(key, &rows)),
            is_over = signals.next() => if is_over { Action::Quit } else { Action::Nothing },
            _ = clock.tick() => Action::Renew,
        };
        match action {
            Action::Quit => return Ok(()),
            Action::Nothing => {}
            Action::Renew => rows.renew(&mut connection).await?,
            Action::Ask(msg_type, session) => {
                let content = json!({ "session_id": session });
                view.say(match ask(&mut connection, msg_type, content).await {
                    Ok(_) => format!("{msg_type} {session}: done"),
                    Err(Failure::Usage(why) | Failure::Failed(why)) => why.replace('\n', " "),
                    Err(Failure::Silent(_)) => String::new(),
                });
                rows.renew(&mut connection).await?;
            }
        }
        screen.draw(&view.lines(&rows, screen.size()));
    }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    resized: Signal,
}

impl Signals {
    /// Whether it is over; otherwise the window has another size now.
    async fn next(&mut self) -> bool {
        tokio::select! {
            _ = self.interrupt.recv() => true,
            _ = self.terminate.recv() => true,
            _ = self.resized.recv() => false,
        }
    }
}
