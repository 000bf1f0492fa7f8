//! One session for people.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use serde_json::Value;

use crate::cli::figures::{Table, age, counted, inert, size, span, text};
use crate::cli::sessions::{checkpoints, memory, queued};

/// Everything that the server tells of a session; what it has hidden stays so.
pub(super) fn show(out: &mut impl Write, session: &Value) -> io::Result<()> {
    let mut line = |name: &str, told: String| {
        if told.is_empty() { Ok(()) } else { writeln!(out, "{name:11} {}", inert(&told)) }
    };
    line("session", text(&session["session_id"]))?;
    for name in ["name", "state", "principal", "running"] {
        line(name, text(&session[name]))?;
    }
    line("printed", session["output"]["written"].as_u64().map(size).unwrap_or_default())?;
    line("executions", text(&session["execution_count"]))?;
    line("queue", text(&queued(session)))?;
    line("age", age(&session["created_at"]))?;
    line(
        "active",
        Some(age(&session["last_active_at"]))
            .filter(|age| !age.is_empty())
            .map_or_else(String::new, |age| format!("{age} ago")),
    )?;
    let worker = &session["worker"];
    if worker.is_object() {
        let origin = text(&worker["origin"]);
        line("worker", format!("process {} ({origin})", text(&worker["pid"])))?;
    }
    line("memory", memory(session).map(size).unwrap_or_default())?;
    line("checkpoints", checkpoints(session))?;
    line("policy", policy(&session["checkpoint_policy"]))?;
    line("not taken", text(&session["checkpoint_skipped"]))?;
    line("restored", restored(&session["restored"]))?;
    line("asks", summary(&session["pending_calls"]))?;
    for name in ["language", "environment", "limits", "confinement", "tools", "channels"] {
        line(name, summary(&session[name]))?;
    }
    namespace(out, &session["namespace"])
}

/// `auto, keep 8, budget 1.0 GiB, hibernates after 1h00m`
fn policy(of: &Value) -> String {
    let told = [
        text(&of["mode"]),
        of["keep"].as_u64().map(|keep| format!("keep {keep}")).unwrap_or_default(),
        of["budget_bytes"].as_u64().map(|bytes| format!("budget {}", size(bytes))).unwrap_or_default(),
        if of["recover"] == false { "lost workers are not recovered".to_owned() } else { String::new() },
        after(of, "hibernates after", "hibernate_after_ms"),
        after(of, "durable every", "durable_every_ms"),
    ];
    told.into_iter().filter(|told| !told.is_empty()).collect::<Vec<_>>().join(", ")
}

fn after(of: &Value, what: &str, field: &str) -> String {
    let time = of[field].as_u64().map(|ms| span(Duration::from_millis(ms)));
    time.map(|time| format!("{what} {time}")).unwrap_or_default()
}

/// `to s7.k3 (memory), 2 executions undone`
fn restored(of: &Value) -> String {
    if !of.is_object() {
        return String::new();
    }
    let since = counted(of["executions_since"].as_u64().unwrap_or(0), "execution");
    format!("to {} ({}), {since} undone", text(&of["checkpoint"]), text(&of["tier"]))
}

fn namespace(out: &mut impl Write, variables: &Value) -> io::Result<()> {
    let Some(variables) = variables.as_array() else { return Ok(()) };
    let mut table = Table::new(["VARIABLE", "TYPE", ">SIZE"]);
    for variable in variables {
        let bytes = variable["bytes"].as_u64().or_else(|| variable["size"].as_u64());
        table.row([text(&variable["name"]), text(&variable["type"]), bytes.map(size).unwrap_or_default()]);
    }
    writeln!(out)?;
    table.write(out)
}

/// A document as a phrase: `open 3, by_state (busy 1, idle 2)`.
pub(super) fn summary(value: &Value) -> String {
    let inner = |value: &Value| match value {
        Value::Object(_) => {
            Some(summary(value)).filter(|told| !told.is_empty()).map(|told| format!("({told})"))
        }
        other => Some(summary(other)),
    };
    match value {
        Value::Array(items) => {
            let phrases: Vec<String> =
                items.iter().map(|item| named(item).unwrap_or_else(|| summary(item))).collect();
            phrases.join(", ")
        }
        Value::Object(fields) => {
            let sorted: BTreeMap<_, _> = fields.iter().collect();
            let phrases = sorted.into_iter().map(|(name, value)| (name, inner(value).unwrap_or_default()));
            let told = phrases.filter(|(_, told)| !told.is_empty());
            let phrases: Vec<String> = told.map(|(name, told)| format!("{name} {told}")).collect();
            phrases.join(", ")
        }
        other => text(other),
    }
}

/// What stands for an object in a list.
fn named(item: &Value) -> Option<String> {
    item["name"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document_is_one_phrase() {
        let document = json!({ "open": 3, "by_state": { "busy": 1, "idle": 2 }, "none": {}, "all": [1, 2] });
        assert_eq!(summary(&document), "all 1, 2, by_state (busy 1, idle 2), open 3");
    }

    #[test]
    fn a_session_is_told_line_by_line_and_what_is_unknown_is_left_out() {
        let session = json!({
            "session_id": "s7", "state": "busy", "principal": "local", "running": "s7.e2", "name": null,
            "queue": [{ "promise": "s7.e3", "priority": 0 }],
            "worker": { "pid": 42, "origin": "warm", "resident_bytes": 20 << 20 },
            "tools": [{ "name": "weather", "description": "tells it" }], "channels": [],
            "checkpoints": 2, "checkpoint_bytes": 2048, "checkpoint_policy": {
                "mode": "auto", "keep": 8, "budget_bytes": 1 << 30, "recover": true, "hibernate_after_ms": 3_600_000,
                "durable_every_ms": null },
            "restored": { "checkpoint": "s7.k3", "tier": "memory", "executions_since": 2 },
            "namespace": [{ "name": "df", "type": "DataFrame", "bytes": 2048 }, { "name": "x\x1b", "type": "int" }],
        });
        let mut out = Vec::new();
        show(&mut out, &session).unwrap();
        let expected = "\
session     s7
state       busy
principal   local
running     s7.e2
queue       1
worker      process 42 (warm)
memory      20 MiB
checkpoints 2 (2.0 KiB)
policy      auto, keep 8, budget 1.0 GiB, hibernates after 1h00m
restored    to s7.k3 (memory), 2 executions undone
tools       weather

VARIABLE  TYPE          SIZE
df        DataFrame  2.0 KiB
x\u{fffd}        int              -
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
