//! Checkpoints and restorations for people.

use std::io::{self, Write};

use cob_protocol::time::Timestamp;
use serde_json::Value;

use crate::cli::figures::{Table, age, counted, inert, size, span, text};

/// How many variables are named in one line.
const NAMED_MAX: usize = 5;

/// All that a session has, and what it does about them.
pub(super) fn list(out: &mut impl Write, listed: &Value, session: &str) -> io::Result<()> {
    let checkpoints = listed["checkpoints"].as_array().map(Vec::as_slice).unwrap_or_default();
    if checkpoints.is_empty() {
        match listed["policy"]["mode"].as_str() {
            // There is no session to take one of, but its store.
            None => writeln!(out, "There are no checkpoints of {session} in this store.")?,
            Some("off") => writeln!(out, "{session} has no checkpoints, and takes none: they are off.")?,
            Some(_) => {
                writeln!(out, "{session} has no checkpoints; `cob checkpoint take {session}` takes one.")?;
            }
        }
    } else {
        table(checkpoints).write(out)?;
    }
    match listed["skipped"].as_str() {
        Some(why) => writeln!(out, "The last automatic one was not taken: {}", inert(why)),
        None => Ok(()),
    }
}

fn table(checkpoints: &[Value]) -> Table<8> {
    let mut table = Table::new(["ID", "LABEL", "WHERE", ">AFTER", ">AGE", ">MEMORY", ">STORED", "NOTES"]);
    for checkpoint in checkpoints {
        let bytes = |name: &str| checkpoint[name].as_u64().map(size).unwrap_or_default();
        table.row([
            text(&checkpoint["checkpoint"]),
            text(&checkpoint["label"]),
            text(&checkpoint["tier"]),
            after(checkpoint),
            taken_ago(checkpoint),
            bytes("private_bytes"),
            bytes("bytes"),
            notes(checkpoint),
        ]);
    }
    table
}

/// The last execution that it knows of.
fn after(checkpoint: &Value) -> String {
    checkpoint["execution"].as_u64().filter(|number| *number > 0).map(|e| format!("e{e}")).unwrap_or_default()
}

fn taken_ago(checkpoint: &Value) -> String {
    let at = checkpoint["taken_at"].as_i64().map(|micros| Timestamp::from_micros(micros).to_string());
    at.map(|at| age(&Value::from(at))).unwrap_or_default()
}

fn notes(checkpoint: &Value) -> String {
    let count = |name: &str| checkpoint[name].as_array().map_or(0, Vec::len);
    let told = [
        (checkpoint["automatic"] == true).then(|| "automatic".to_owned()),
        checkpoint["parent"].as_str().map(|parent| format!("from {parent}")),
        Some(count("missing"))
            .filter(|count| *count > 0)
            .map(|count| counted(count, "variable") + " not saved"),
        Some(count("findings")).filter(|count| *count > 0).map(|count| counted(count, "finding")),
    ];
    told.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// `s7.k3 is taken, in memory`
fn taken_as(checkpoint: &Value, what: &str) -> String {
    let tier = match checkpoint["tier"].as_str() {
        Some("memory") => "in memory",
        Some("durable") => "in the store",
        _ => "in memory and in the store",
    };
    let mut told = format!("{} {what}, {tier}", text(&checkpoint["checkpoint"]));
    if let Some(bytes) = checkpoint["bytes"].as_u64() {
        told.push_str(&format!(" ({})", size(bytes)));
    }
    told + &lacks(checkpoint)
}

pub(super) fn taken(reply: &Value) -> String {
    taken_as(&reply["checkpoint"], "is taken")
}

pub(super) fn hibernated(reply: &Value) -> String {
    let checkpoint = &reply["checkpoint"];
    let session = text(&checkpoint["checkpoint"]);
    let session = session.split_once('.').map_or(session.as_str(), |(session, _)| session);
    format!(
        "{session} is in the store as {}; the next request wakes it{}",
        text(&checkpoint["checkpoint"]),
        lacks(checkpoint)
    )
}

pub(super) fn imported(reply: &Value) -> String {
    taken_as(&reply["checkpoint"], "is taken in")
}

pub(super) fn exported(reply: &Value) -> String {
    format!(
        "{} written to {}",
        reply["bytes"].as_u64().map(size).unwrap_or_default(),
        inert(&text(&reply["path"]))
    )
}

/// The names of the new sessions, one per line, as scripts want them.
pub(super) fn forked(reply: &Value) -> String {
    let sessions = reply["sessions"].as_array().into_iter().flatten();
    sessions.map(text).collect::<Vec<_>>().join("\n")
}

pub(super) fn restored(reply: &Value) -> String {
    let restored = &reply["restored"];
    let age = restored["age_ms"].as_u64().map(std::time::Duration::from_millis).map(span).unwrap_or_default();
    let checkpoint = text(&restored["checkpoint"]);
    if restored["tier"] == "durable" {
        // What else is there stays, unless the worker is a new one: it is not as it was.
        let count = restored["restored"].as_array().map_or(0, Vec::len);
        let variables = counted(count, "variable");
        return format!("{checkpoint}, taken {age} ago, gave back {variables}{}", lacks(restored));
    }
    let since = match restored["executions_since"].as_u64() {
        None | Some(0) => String::new(),
        Some(1) => "; what the execution since then did to variables is undone".to_owned(),
        Some(count) => format!("; what {count} executions since then did to variables is undone"),
    };
    format!("as it was at {checkpoint}, {age} ago{since}{}", lacks(restored))
}

/// In one line, for whoever asked for something else: `back at s7.k3, taken 2m05s ago; without f (it is an open file)`.
pub(in crate::cli) fn came_back(restored: &Value) -> String {
    let age = restored["age_ms"].as_u64().map(std::time::Duration::from_millis).map(span).unwrap_or_default();
    let missing = restored["missing"].as_array().map(Vec::as_slice).unwrap_or_default();
    let name = |it: &Value| format!("{} ({})", text(&it["name"]), text(&it["reason"]));
    let named: Vec<_> = missing.iter().take(NAMED_MAX).map(name).collect();
    let without = if named.is_empty() { String::new() } else { format!("; without {}", named.join(", ")) };
    let more = match missing.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let told = format!("back at {}, taken {age} ago{without}{more}", text(&restored["checkpoint"]));
    inert(&told)
}

/// What it does not hold or did not bring back, a line for each.
fn lacks(of: &Value) -> String {
    let all = |name: &str| of[name].as_array().into_iter().flatten();
    let missing = all("missing").map(|it| format!("without {}: {}", text(&it["name"]), text(&it["reason"])));
    let findings = all("findings").map(|it| text(&it["text"]));
    let rebuild: Vec<_> = all("rebuild").map(|number| format!("e{}", text(number))).collect();
    let rebuild = Some(rebuild).filter(|all| !all.is_empty());
    let rebuild = rebuild.map(|all| format!("it looks as if these had defined it: {}", all.join(", ")));
    missing.chain(findings).chain(rebuild).map(|line| format!("\n  {}", inert(&line))).collect()
}

#[cfg(test)]
mod tests {
    use cob_protocol::time::{Clock, SystemClock};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_shows_where_each_is_and_what_it_lacks() {
        let at = SystemClock.now().after_ms(-125_000).micros();
        let listed = json!({
            "checkpoints": [
                { "checkpoint": "s7.k1", "tier": "memory", "automatic": true, "execution": 0, "count": 0,
                  "taken_at": at, "private_bytes": 2048 },
                { "checkpoint": "s7.k12", "label": "clean\x1b", "tier": "both", "automatic": false, "execution": 4,
                  "count": 4, "taken_at": at, "parent": "s7.k1", "bytes": 3 << 20,
                  "missing": [{ "name": "f", "kind": "file", "reason": "open" }] },
            ],
            "skipped": "a thread runs",
        });
        let mut out = Vec::new();
        list(&mut out, &listed, "s7").unwrap();
        let expected = "\
ID      LABEL   WHERE   AFTER    AGE   MEMORY   STORED  NOTES
s7.k1   -       memory      -  2m05s  2.0 KiB        -  automatic
s7.k12  clean\u{fffd}  both       e4  2m05s        -  3.0 MiB  from s7.k1, 1 variable not saved
The last automatic one was not taken: a thread runs
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        let mut out = Vec::new();
        list(&mut out, &json!({ "checkpoints": [], "policy": { "mode": "manual" } }), "s7").unwrap();
        assert!(String::from_utf8(out).unwrap().contains("cob checkpoint take s7"));
        // Nothing is proposed that would be refused.
        for nothing in
            [json!({ "checkpoints": [] }), json!({ "checkpoints": [], "policy": { "mode": "off" } })]
        {
            let mut out = Vec::new();
            list(&mut out, &nothing, "s7").unwrap();
            assert!(!String::from_utf8(out).unwrap().contains("take s7"));
        }
    }

    #[test]
    fn whoever_goes_back_is_told_what_did_not_come_back() {
        let reply = json!({ "state": "idle", "restored": {
            "checkpoint": "s7.k3", "tier": "durable", "age_ms": 61_000, "executions_since": 2, "restored": ["x"],
            "missing": [{ "name": "f", "kind": "file", "reason": "an open file cannot be saved" }], "rebuild": [3, 4],
        } });
        let expected = "\
s7.k3, taken 1m01s ago, gave back 1 variable
  without f: an open file cannot be saved
  it looks as if these had defined it: e3, e4";
        assert_eq!(restored(&reply), expected);
        assert_eq!(
            came_back(&reply["restored"]),
            "back at s7.k3, taken 1m01s ago; without f (an open file cannot be saved)"
        );
        let whole = json!({ "restored": {
            "checkpoint": "s7.k3", "tier": "memory", "age_ms": 61_000, "executions_since": 1 } });
        let expected =
            "as it was at s7.k3, 1m01s ago; what the execution since then did to variables is undone";
        assert_eq!(restored(&whole), expected);
        let checkpoint = json!({ "checkpoint": { "checkpoint": "s7.k3", "tier": "durable", "bytes": 10,
            "findings": [{ "kind": "thread", "text": "a thread ends", "blocks": true }] } });
        assert_eq!(taken(&checkpoint), "s7.k3 is taken, in the store (10 B)\n  a thread ends");
        assert!(
            hibernated(&checkpoint).starts_with("s7 is in the store as s7.k3; the next request wakes it\n")
        );
        assert_eq!(forked(&json!({ "sessions": ["s8", "s9"] })), "s8\ns9");
    }
}
