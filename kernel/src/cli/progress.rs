//! One line below the output that says what is waited for, and disappears. Only on terminals.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use cob_protocol::ids::PromiseId;
use serde_json::Value;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::figures::span;

/// So long nothing is printed before the line appears; then it is renewed as often.
const QUIET: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(crate) struct Progress {
    is_enabled: bool,
    is_shown: bool,
    clock: Interval,
    quiet_since: Instant,
    stands: Stands,
}

/// How the execution stands, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    Unknown,
    Queued { behind: usize },
    Running { since: Instant },
}

impl Progress {
    pub(crate) fn new() -> Self {
        let mut clock = tokio::time::interval(QUIET);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            is_enabled: io::stderr().is_terminal(),
            is_shown: false,
            clock,
            quiet_since: Instant::now(),
            stands: Stands::Unknown,
        }
    }

    /// Waits until the line is to be shown or renewed; without a terminal for ever. Cancel-safe.
    pub(crate) async fn due(&mut self) {
        loop {
            if !self.is_enabled {
                std::future::pending::<()>().await;
            }
            self.clock.tick().await;
            if self.quiet_since.elapsed() >= QUIET {
                return;
            }
        }
    }

    /// Whether the server must be asked how the execution stands.
    pub(crate) fn is_curious(&self) -> bool {
        !matches!(self.stands, Stands::Running { .. })
    }

    /// What the server says of the session.
    pub(crate) fn learn(&mut self, promise: PromiseId, session: &Value) {
        self.stands = stands(promise, session, Instant::now());
    }

    /// Writes the line.
    pub(crate) fn show(&mut self) {
        let text = match self.stands {
            Stands::Unknown => return,
            Stands::Queued { behind: 0 } => "next in the queue".to_owned(),
            Stands::Queued { behind } => format!("queued behind {behind}"),
            Stands::Running { since } => format!("running for {}", span(whole_seconds(since.elapsed()))),
        };
        self.is_shown = true;
        let _ = write!(io::stderr(), "\r\x1b[2K\x1b[2m{text}\x1b[0m").and_then(|()| io::stderr().flush());
    }

    /// Takes the line away: something else is written.
    pub(crate) fn clear(&mut self) {
        self.quiet_since = Instant::now();
        if std::mem::take(&mut self.is_shown) {
            let _ = write!(io::stderr(), "\r\x1b[2K").and_then(|()| io::stderr().flush());
        }
    }
}

fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.saturating_add(Duration::from_millis(500)).as_secs())
}

fn stands(promise: PromiseId, session: &Value, now: Instant) -> Stands {
    let name = promise.to_string();
    if session["running"] == name.as_str() {
        return Stands::Running { since: now };
    }
    let queue = session["queue"].as_array().map(Vec::as_slice).unwrap_or_default();
    let place = queue.iter().position(|waiting| waiting["promise"] == name.as_str());
    match place {
        Some(place) => Stands::Queued { behind: place + usize::from(session["running"].is_string()) },
        None => Stands::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_execution_is_found_in_the_queue_or_at_work() {
        let now = Instant::now();
        let at = |session: Value| stands("s1.e3".parse().unwrap(), &session, now);
        let queue = json!([{ "promise": "s1.e2" }, { "promise": "s1.e3" }]);
        assert_eq!(at(json!({ "running": "s1.e1", "queue": queue })), Stands::Queued { behind: 2 });
        assert_eq!(at(json!({ "running": null, "queue": queue })), Stands::Queued { behind: 1 });
        assert_eq!(at(json!({ "running": "s1.e3", "queue": [] })), Stands::Running { since: now });
        assert_eq!(at(json!({ "running": "s1.e4", "queue": [] })), Stands::Unknown);
    }
}
