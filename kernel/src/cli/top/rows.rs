//! The figures: what the server tells of each session, and what has changed since the last time.

use std::collections::HashMap;
use std::time::Instant;

use cob_clients::agent::{AgentConnection, AgentError};
use serde_json::{Value, json};

use crate::cli::Failure;
use crate::cli::figures::{Table, age, counted, since, size, text};
use crate::cli::remote::failure;
use crate::cli::sessions::{list, look, memory, queued, told};

/// Sessions that are looked at closely: more than fit on a screen.
const LOOKED_AT_MAX: usize = 64;

/// The sessions, the busiest first.
#[derive(Debug, Default)]
pub(super) struct Rows {
    rows: Vec<Row>,
}

#[derive(Debug, Default)]
struct Row {
    session: String,
    /// What the server tells.
    view: Value,
    /// The promise of what runs.
    running: Value,
    measured: Option<Measured>,
    /// Of one processor, in percent.
    cpu: Option<f64>,
    /// Bytes of output per second.
    rate: Option<f64>,
}

/// Figures that only grow, and when they were read.
#[derive(Clone, Copy, Debug)]
struct Measured {
    at: Instant,
    pid: u64,
    cpu_seconds: Option<f64>,
    written: Option<u64>,
}

impl Rows {
    /// Asks the server.
    pub(super) async fn renew(&mut self, connection: &mut AgentConnection) -> Result<(), Failure> {
        let mut sessions = list(connection, false).await?;
        sessions.sort_by_key(activity);
        let mut before: HashMap<String, Measured> =
            self.rows.drain(..).filter_map(|row| Some((row.session, row.measured?))).collect();
        for (number, view) in sessions.into_iter().enumerate() {
            let session = text(&view["session_id"]);
            let mut row = Row { session, view, ..Row::default() };
            if number < LOOKED_AT_MAX {
                row.look(connection).await.map_err(failure)?;
                row.compare(before.remove(&row.session));
            }
            self.rows.push(row);
        }
        Ok(())
    }

    pub(super) fn sessions(&self) -> impl Iterator<Item = &String> {
        self.rows.iter().map(|row| &row.session)
    }

    /// The session of a row.
    pub(super) fn session(&self, row: usize) -> Option<String> {
        self.rows.get(row).map(|row| row.session.clone())
    }

    /// What there is altogether.
    pub(super) fn headline(&self) -> String {
        let busy = self.rows.iter().filter(|row| row.view["running"].is_string()).count();
        let bytes: u64 = self.rows.iter().filter_map(|row| memory(&row.view)).sum();
        let held = |name: &str| self.rows.iter().filter_map(|row| row.view[name].as_u64()).sum::<u64>();
        let checkpoints = match held("checkpoints") {
            0 => String::new(),
            count => format!(", {} ({})", counted(count, "checkpoint"), size(held("checkpoint_bytes"))),
        };
        let sessions = counted(self.rows.len(), "session");
        format!("{sessions}, {busy} busy, {} of memory{checkpoints}", size(bytes))
    }

    pub(super) fn table(&self) -> Table<10> {
        let mut table = Table::new([
            "ID", "NAME", "STATE", "OWNER", ">CPU", ">MEMORY", ">QUEUE", "RUNNING", ">FOR", ">OUTPUT",
        ]);
        self.rows.iter().for_each(|row| table.row(row.cells()));
        table
    }

    #[cfg(test)]
    pub(super) fn of(sessions: &[&str]) -> Self {
        let row = |session: &&str| Row {
            session: (*session).to_owned(),
            view: json!({ "session_id": session, "state": "idle" }),
            ..Row::default()
        };
        Self { rows: sessions.iter().map(row).collect() }
    }
}

impl Row {
    /// Everything about one session; one that has ended meanwhile stays as it was.
    async fn look(&mut self, connection: &mut AgentConnection) -> Result<(), AgentError> {
        look(connection, &mut self.view).await?;
        if self.view["running"].is_string() {
            let about = json!({ "promise": self.view["running"] });
            if let Some(mut info) = told(connection, "promise_get", about).await? {
                self.running = info["promise"].take();
            }
        }
        let pid = self.view["worker"]["pid"].as_u64().unwrap_or(0);
        self.measured = Some(Measured {
            at: Instant::now(),
            pid,
            cpu_seconds: processor_time(pid),
            written: self.view["output"]["written"].as_u64(),
        });
        Ok(())
    }

    fn compare(&mut self, before: Option<Measured>) {
        let (Some(now), Some(before)) = (self.measured, before) else { return };
        let seconds = now.at.duration_since(before.at).as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        if let (Some(new), Some(old), true) = (now.cpu_seconds, before.cpu_seconds, now.pid == before.pid) {
            self.cpu = Some((new - old).max(0.0) / seconds * 100.0);
        }
        if let Some(new) = now.written {
            // Another execution has begun at 0.
            let old = before.written.filter(|old| *old <= new).unwrap_or(0);
            self.rate = Some((new - old) as f64 / seconds);
        }
    }

    fn cells(&self) -> [String; 10] {
        let view = &self.view;
        [
            self.session.clone(),
            text(&view["name"]),
            text(&view["state"]),
            text(&view["principal"]),
            self.cpu.map(|cpu| format!("{cpu:.0}%")).unwrap_or_default(),
            memory(view).map(size).unwrap_or_default(),
            text(&queued(view)),
            text(&view["running"]),
            age(&self.running["started_at"]),
            self.rate.map(|rate| format!("{}/s", size(rate as u64))).unwrap_or_default(),
        ]
    }
}

/// Sessions where something happens come first, then those where something happened last.
fn activity(view: &Value) -> (u8, u128) {
    let rank = match view["state"].as_str() {
        Some("busy" | "asking") => 0,
        Some("starting" | "restarting" | "closing") => 1,
        Some("idle") => 2,
        _ => 3,
    };
    let last = since(&view["last_active_at"]).or_else(|| since(&view["created_at"]));
    (rank, last.map_or(u128::MAX, |time| time.as_millis()))
}

/// Processor time of a process of this machine, in seconds.
fn processor_time(pid: u64) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(ticks(&stat)? as f64 / rustix::param::clock_ticks_per_second().max(1) as f64)
}

/// User and system time in `/proc/PID/stat`: the name before them may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    user.checked_add(system)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_busiest_come_first_and_then_the_latest() {
        let at = |ms: i64| {
            use cob_protocol::time::{Clock, SystemClock};
            SystemClock.now().after_ms(-ms).to_string()
        };
        let mut views = [
            json!({ "session_id": "s1", "state": "idle", "last_active_at": at(90_000) }),
            json!({ "session_id": "s2", "state": "dormant", "last_active_at": at(1_000) }),
            json!({ "session_id": "s3", "state": "idle", "last_active_at": at(30_000) }),
            json!({ "session_id": "s4", "state": "busy", "last_active_at": at(99_000) }),
        ];
        views.sort_by_key(activity);
        let order: Vec<_> = views.iter().map(|view| view["session_id"].as_str().unwrap()).collect();
        assert_eq!(order, ["s4", "s3", "s1", "s2"]);
    }

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "42 (a) b (c) R 1 42 42 0 -1 4194304 1 2 3 4 150 50 0 0 20 0 1 0 99";
        assert_eq!(ticks(stat), Some(200));
        assert_eq!(ticks("42 (a"), None);
        assert!(processor_time(u64::from(std::process::id())).is_some());
    }

    #[test]
    fn rates_are_what_was_added_per_second_and_of_the_same_process() {
        let now = Instant::now();
        let measured = |seconds, pid, cpu, written| Measured {
            at: now + Duration::from_secs(seconds),
            pid,
            cpu_seconds: Some(cpu),
            written: Some(written),
        };
        let compared = |before, after| {
            let mut row = Row { measured: Some(after), ..Row::default() };
            row.compare(Some(before));
            (row.cpu, row.rate)
        };
        let before = measured(0, 7, 1.0, 1000);
        assert_eq!(compared(before, measured(2, 7, 2.0, 5000)), (Some(50.0), Some(2000.0)));
        assert_eq!(compared(before, measured(2, 8, 2.0, 500)), (None, Some(250.0)));
    }
}
