//! A server for people: what an operator looks at first. Figures that should be 0 are shown when they are not.

use std::io::{self, Write};

use cob_clients::agent::ServerFile;
use serde_json::Value;

use crate::cli::figures::{inert, size, text};

/// `file` is what it wrote about itself, where that can be read.
pub(super) fn show(out: &mut impl Write, info: &Value, file: Option<&ServerFile>) -> io::Result<()> {
    let mut line = |name: &str, told: String| {
        if told.is_empty() { Ok(()) } else { writeln!(out, "{name:11} {}", inert(&told)) }
    };
    let server = &info["server"];
    let process = file.map_or_else(String::new, |file| format!(", process {}", file.pid));
    line(
        "server",
        format!("cob {}{process}, instance {}", text(&server["version"]), text(&server["instance"])),
    )?;
    line("listens", file.map(places).unwrap_or_default())?;
    line("sessions", sessions(&info["sessions"]))?;
    line("checkpoints", checkpoints(&info["checkpoints"], &info["records"]["bundles"]))?;
    line("clients", clients(&info["endpoint"]))?;
    line("refused", refused(&info["endpoint"]))?;
    line("records", records(&info["records"]))?;
    line("watched by", interceptors(&info["interceptors"]))
}

/// Where clients come in.
fn places(file: &ServerFile) -> String {
    let tcp = file.tcp.iter().map(|place| format!("{} (signed)", place.endpoint));
    let curve = file.curve.iter().map(|place| format!("{} (encrypted)", place.endpoint));
    [file.ipc.clone()].into_iter().chain(tcp).chain(curve).collect::<Vec<_>>().join(", ")
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// `3 open (1 busy, 2 idle), 4 executions`
fn sessions(of: &Value) -> String {
    let states = of["by_state"].as_object().into_iter().flatten();
    let states: Vec<String> = states.map(|(state, number)| format!("{number} {state}")).collect();
    let states = if states.is_empty() { String::new() } else { format!(" ({})", states.join(", ")) };
    let executions = count(&of["open_executions"]);
    format!("{} open{states}, {executions} executions wait, run or are delivered", count(&of["open"]))
}

/// `4 in memory, 20 MiB; 2 in the store, 10 MiB; 9 taken, 1 restored; 2 asleep`
fn checkpoints(of: &Value, bundles: &Value) -> String {
    if !of.is_object() {
        return String::new();
    }
    let number = |name: &str| count(&of[name]);
    let mut told = format!("{} in memory, {}", number("in_memory"), size(number("in_memory_bytes")));
    if count(&bundles["bundles"]) > 0 {
        let stored = (count(&bundles["bundles"]), size(count(&bundles["bytes"])));
        told.push_str(&format!("; {} in the store, {}", stored.0, stored.1));
    }
    let taken = number("taken") + number("taken_automatically");
    told.push_str(&format!("; {taken} taken, {} restored", number("restored")));
    for (name, what) in [
        ("hibernating_sessions", "asleep"),
        ("memory_shortages", "shortages of memory"),
        ("memory_hibernated", "put to sleep for it"),
    ] {
        if number(name) > 0 {
            told.push_str(&format!("; {} {what}", number(name)));
        }
    }
    told
}

fn clients(endpoint: &Value) -> String {
    let [now, ever, subscriptions] =
        ["peers", "admitted", "subscriptions"].map(|name| count(&endpoint[name]));
    format!("{now} connected, {ever} since the start; {subscriptions} subscriptions")
}

/// What was not taken from strangers and from clients in trouble.
fn refused(endpoint: &Value) -> String {
    let told = [
        ("rejected", "connections of strangers"),
        ("malformed", "connections with broken bytes"),
        ("cut_off", "connections that took nothing"),
        ("accept_errors", "connections that could not be accepted"),
        ("dropped", "messages that could not be believed"),
    ]
    .map(|(name, what)| (count(&endpoint[name]), what));
    let told = told.iter().filter(|(number, _)| *number > 0);
    told.map(|(number, what)| format!("{number} {what}")).collect::<Vec<_>>().join(", ")
}

/// `good; 43 writes in 21 commits, 12 KiB; 2 groups wait; 1 commits failed`
fn records(of: &Value) -> String {
    if !of.is_object() {
        return String::new();
    }
    let commits = &of["commits"];
    let mut told = format!(
        "{}; {} writes in {} commits, {}",
        text(&of["health"]),
        count(&commits["writes"]),
        count(&commits["count"]),
        size(count(&commits["bytes"]))
    );
    let troubles = [
        (&of["queue"]["groups"], "groups wait to be written"),
        (&of["pending"]["calls"], "calls wait for an answer"),
        (&commits["failures"], "commits failed"),
        (&commits["refused"], "writes were refused"),
    ];
    for (number, what) in troubles {
        if count(number) > 0 {
            told.push_str(&format!("; {} {what}", count(number)));
        }
    }
    told
}

/// Their names, and what is wrong with them.
fn interceptors(all: &Value) -> String {
    let one = |(name, of): (&String, &Value)| {
        let dropped = count(&of["dropped"]);
        match (of["is_quarantined"] == true, dropped) {
            (true, _) => format!("{name} (too slow: it sees nothing any more)"),
            (false, 0) => name.clone(),
            (false, _) => format!("{name} (has missed {dropped})"),
        }
    };
    all.as_object().into_iter().flatten().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_operator_sees_what_there_is_and_only_the_trouble_there_is() {
        let mut info = json!({
            "server": { "version": "0.1.0", "instance": "i" },
            "sessions": { "open": 3, "by_state": { "busy": 1, "idle": 2 }, "open_executions": 4 },
            "checkpoints": { "in_memory": 4, "in_memory_bytes": 2048, "taken": 2, "taken_automatically": 7,
                             "restored": 1, "hibernating_sessions": 2, "memory_shortages": 0 },
            "endpoint": { "peers": 2, "admitted": 10, "subscriptions": 1, "malformed": 0, "dropped": 0 },
            "records": { "health": "good", "bundles": { "bundles": 2, "bytes": 1024 },
                         "commits": { "count": 21, "writes": 43, "bytes": 2048 } },
            "interceptors": { "log": { "dropped": 0 }, "mine": { "is_quarantined": true } },
        });
        let file = ServerFile {
            version: 1,
            pid: 7,
            instance: "i".into(),
            ipc: "ipc:///run/agent".into(),
            tcp: None,
            curve: None,
        };
        let shown = |info: &Value| {
            let mut out = Vec::new();
            show(&mut out, info, Some(&file)).unwrap();
            String::from_utf8(out).unwrap()
        };
        let expected = "\
server      cob 0.1.0, process 7, instance i
listens     ipc:///run/agent
sessions    3 open (1 busy, 2 idle), 4 executions wait, run or are delivered
checkpoints 4 in memory, 2.0 KiB; 2 in the store, 1.0 KiB; 9 taken, 1 restored; 2 asleep
clients     2 connected, 10 since the start; 1 subscriptions
records     good; 43 writes in 21 commits, 2.0 KiB
watched by  log, mine (too slow: it sees nothing any more)
";
        assert_eq!(shown(&info), expected);
        info["endpoint"]["dropped"] = json!(5);
        info["records"]["commits"]["failures"] = json!(1);
        let shown = shown(&info);
        assert!(shown.contains("\nrefused     5 messages that could not be believed\n"), "{shown}");
        assert!(shown.contains("; 1 commits failed\n"), "{shown}");
    }
}
