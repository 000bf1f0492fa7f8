//! The checker: what must hold of a history, an effect log, a store and a log together, whatever happened.
//!
//! Each function is one invariant of the catalogue and gives back what is wrong, one sentence each. I9 has a second
//! half, about processes, descriptors and files, in the teardown of every kernel of a test.

use std::collections::{BTreeMap, BTreeSet};

use cob_protocol::event::Event;
use cob_protocol::promise::{Promise, State};
use serde_json::Value;

use crate::history::{Asked, Entry, History, Line};
use crate::snapshot::{Snapshot, Stored};

#[cfg(test)]
mod tests;

/// Everything that is known at the end of a test.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// What clients asked and saw.
    pub history: History,
    /// How often the code of each key had its effect.
    pub effects: BTreeMap<String, usize>,
    /// The store, at moments of the test; the last one at its end.
    pub snapshots: Vec<Snapshot>,
    /// What the servers wrote to their logs.
    pub log: Vec<String>,
    /// The log may contain lines of level ERROR.
    pub errors_expected: bool,
    /// Something may still run.
    pub is_busy: bool,
}

/// Errors with which a request is refused before anything is recorded of it.
const REFUSALS: &[&str] =
    &["bad_request", "busy", "key_reused", "shutting_down", "store_busy", "store_failed", "store_full"];

/// Checks everything.
///
/// # Panics
/// When something is wrong: all of it is in the message.
#[track_caller]
pub fn check(evidence: &Evidence) {
    let wrong = violations(evidence);
    assert!(
        wrong.is_empty(),
        "{}\nhistory:\n{}\nlog:\n{}",
        wrong.join("\n"),
        evidence.history,
        evidence.log.join("\n")
    );
}

type Invariant = fn(&Evidence) -> Vec<String>;

/// What is wrong, each with the number of its invariant.
#[must_use]
pub fn violations(evidence: &Evidence) -> Vec<String> {
    let invariants: [(&str, Invariant); 10] = [
        ("I1", i1_what_was_acknowledged_is_stored),
        ("I2", i2_code_runs_at_most_once),
        ("I3", i3_every_key_has_one_answer),
        ("I4", i4_events_are_complete_and_in_order),
        ("I5", i5_every_byte_is_stored_or_counted),
        ("I6", i6_busy_and_idle_enclose_output),
        ("I7", i7_what_is_settled_never_changes),
        ("I8", i8_nobody_gets_output_of_others),
        ("I9", i9_nothing_is_left_running),
        ("I10", i10_the_store_is_sound_and_the_log_quiet),
    ];
    let all = invariants.into_iter().flat_map(|(number, invariant)| {
        invariant(evidence).into_iter().map(move |what| format!("{number}: {what}"))
    });
    all.collect()
}

impl Evidence {
    fn last(&self) -> Option<&Snapshot> {
        self.snapshots.last()
    }

    fn stored(&self, key: &str) -> Option<&Stored> {
        self.last()?.executions.iter().find(|stored| stored.key() == Some(key))
    }

    /// For every key that was asked for.
    fn each(&self, invariant: impl Fn(&str, &Asked) -> Vec<String>) -> Vec<String> {
        let asked = self.history.asked();
        asked.iter().flat_map(|(key, asked)| invariant(key, asked)).collect()
    }

    /// For every execution in the store at the end.
    fn each_stored(&self, invariant: impl Fn(&Stored) -> Vec<String>) -> Vec<String> {
        self.last().iter().flat_map(|last| &last.executions).flat_map(invariant).collect()
    }
}

/// The stable code of a reply; empty when there is none.
fn code(content: &str) -> String {
    let reply: Value = serde_json::from_str(content).unwrap_or_default();
    reply["code"].as_str().unwrap_or_default().to_owned()
}

/// The answers to a key that are final: a refusal says nothing about what the key names.
fn answers(history: &History, key: &str) -> Vec<String> {
    let is_final = |content: &String| !REFUSALS.contains(&code(content).as_str());
    history.replies(key).into_iter().filter(is_final).collect()
}

fn text(content: &str) -> String {
    content.chars().take(300).collect()
}

// --- The invariants ------------------------------------------------------------------------------------------

/// Acknowledged ⊆ stored, byte for byte.
#[must_use]
pub fn i1_what_was_acknowledged_is_stored(evidence: &Evidence) -> Vec<String> {
    evidence.each(|key, _| {
        let stored = evidence.stored(key);
        let value = stored.and_then(|stored| stored.promise.value.as_ref());
        let mut wrong = Vec::new();
        for answer in answers(&evidence.history, key) {
            match value {
                None => wrong.push(format!("{key} was answered, but nothing is settled: {}", text(&answer))),
                Some(value) if value.as_str() != answer => {
                    let (stored, given) = (value.as_str(), text(&answer));
                    wrong.push(format!("{key} was answered with {given}, but stored is {stored}"));
                }
                Some(_) => {}
            }
        }
        wrong
    })
}

/// Effects per key at most one; exactly one when the code came to its end.
#[must_use]
pub fn i2_code_runs_at_most_once(evidence: &Evidence) -> Vec<String> {
    let asked = evidence.history.asked();
    let strangers = evidence.effects.keys().filter(|key| !asked.contains_key(*key));
    let mut wrong: Vec<String> = strangers.map(|key| format!("{key} ran, but nobody asked for it")).collect();
    wrong.extend(evidence.each(|key, asked| {
        let effects = evidence.effects.get(key).copied().unwrap_or(0);
        let promise = evidence.stored(key).map(|stored| &stored.promise);
        let has_ended = asked.has_effect && promise.is_some_and(came_to_its_end);
        let wrong = match effects {
            0 if has_ended => Some(format!("{key} came to its end, but never ran")),
            0 | 1 => None,
            effects => Some(format!("{key} ran {effects} times")),
        };
        wrong.into_iter().collect()
    }));
    wrong
}

/// Whether the code itself ended: well, or with an error of its own.
fn came_to_its_end(promise: &Promise) -> bool {
    let code = promise.value.as_ref().map(|value| code(value.as_str())).unwrap_or_default();
    match promise.state {
        State::Resolved => true,
        State::Rejected => code.is_empty() && promise.started_at.is_some(),
        _ => false,
    }
}

/// Every key has exactly one distinct final answer, however often asked; unless something may still run.
#[must_use]
pub fn i3_every_key_has_one_answer(evidence: &Evidence) -> Vec<String> {
    evidence.each(|key, _| {
        let distinct: BTreeSet<String> = answers(&evidence.history, key).into_iter().collect();
        let was_refused = !evidence.history.replies(key).is_empty();
        match distinct.len() {
            0 if !was_refused && !evidence.is_busy => vec![format!("{key} was never answered")],
            0 | 1 => Vec::new(),
            _ => {
                let answers: Vec<String> = distinct.iter().map(|answer| text(answer)).collect();
                vec![format!("{key} has {} answers: {}", answers.len(), answers.join(" | "))]
            }
        }
    })
}

/// Events are 1..n, `done` is the last and says so; what each connection saw is among them, in their order.
#[must_use]
pub fn i4_events_are_complete_and_in_order(evidence: &Evidence) -> Vec<String> {
    let mut wrong = evidence.each_stored(|stored| {
        let id = stored.promise.id;
        let numbers: Vec<u64> = stored.events.iter().map(|(number, _)| *number).collect();
        let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
        if numbers != expected {
            return vec![format!("the events of {id} have the numbers {numbers:?}")];
        }
        let Some(done) = stored.done() else {
            let is_open = !stored.promise.state.is_settled();
            // What never began has no output, and none that could be cut short.
            let never_began = stored.promise.started_at.is_none() && numbers.is_empty();
            let is_right = is_open || never_began || is_channel(&stored.promise);
            return if is_right { Vec::new() } else { vec![format!("{id} is settled without `done`")] };
        };
        let (number, event) = done;
        let is_late =
            |event: &Event| !matches!(event, Event::Done { .. } | Event::Error(_) | Event::Result(_));
        let after = stored.events.iter().filter(|(after, _)| *after > number);
        let mut wrong: Vec<String> = after
            .filter(|(_, event)| !is_late(event))
            .map(|(after, event)| format!("{id} has `{}` as event {after} after `done`", event.kind()))
            .collect();
        if !matches!(event, Event::Done { last } if *last + 1 == number) {
            wrong.push(format!("{id}: {event:?} is event {number}"));
        }
        if stored.promise.state.is_settled() && stored.promise.last_event != number {
            let said = stored.promise.last_event;
            wrong.push(format!("{id} is settled with {said} events, but `done` is event {number}"));
        }
        wrong
    });
    wrong.extend(evidence.each(|key, _| seen_in_order(evidence, key)));
    wrong
}

/// Every connection saw a part of what is stored, in the same order.
fn seen_in_order(evidence: &Evidence, key: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let Some(stored) = evidence.stored(key) else {
        let outputs = evidence.history.lines().into_iter().filter(|line| line.key == key);
        let outputs = outputs.filter(|line| shown(&line.entry).is_some()).count();
        return if outputs == 0 { wrong } else { vec![format!("{key} has output, but nothing is stored")] };
    };
    let wanted: Vec<(&str, Value)> = stored.events.iter().filter_map(|(_, event)| broadcast(event)).collect();
    let mut places: BTreeMap<u64, usize> = BTreeMap::new();
    for line in evidence.history.lines().iter().filter(|line| line.key == key) {
        let Some(seen) = shown(&line.entry) else { continue };
        let place = places.entry(line.connection).or_default();
        let rest = wanted.get(*place..).unwrap_or_default();
        match rest.iter().position(|(kind, content)| *kind == seen.0 && content == seen.1) {
            Some(at) => *place += at + 1,
            None => wrong.push(format!("{key}: {seen:?} was seen, but is not stored at that place")),
        }
    }
    wrong
}

/// An output that a client saw, other than what came too late to belong to the execution.
fn shown(entry: &Entry) -> Option<(&str, &Value)> {
    match entry {
        Entry::Saw { msg_type, content, is_late: false }
            if msg_type != "status" && msg_type != "execute_input" =>
        {
            Some((msg_type, content))
        }
        _ => None,
    }
}

/// What an event looks like to a client; `None` when it sees none of it.
fn broadcast(event: &Event) -> Option<(&'static str, Value)> {
    let parsed = |json: &cob_protocol::json::Json| json.read::<Value>().unwrap_or_default();
    Some(match event {
        Event::Stream { name, text } => {
            ("stream", serde_json::json!({ "name": name.as_str(), "text": text }))
        }
        Event::Display(content) => ("display_data", parsed(content)),
        Event::UpdateDisplay(content) => ("update_display_data", parsed(content)),
        Event::Result(content) => ("execute_result", parsed(content)),
        Event::ClearOutput { wait } => ("clear_output", serde_json::json!({ "wait": wait })),
        Event::Error(error) => ("error", serde_json::to_value(error).unwrap_or_default()),
        Event::Truncated { written, kept, dropped } => {
            let text = format!(
                "\n[output truncated: {written} bytes written, {kept} kept, {dropped} dropped; the end follows]\n"
            );
            ("stream", serde_json::json!({ "name": "stderr", "text": text }))
        }
        Event::CallOpened { .. } | Event::CallClosed { .. } | Event::Data(_) | Event::Done { .. } => {
            return None;
        }
    })
}

/// Bytes that the code wrote = bytes that are stored + bytes that are counted as dropped.
#[must_use]
pub fn i5_every_byte_is_stored_or_counted(evidence: &Evidence) -> Vec<String> {
    let asked = evidence.history.asked();
    evidence.each_stored(|stored| {
        let Promise { id, tally, state, .. } = &stored.promise;
        if !state.is_settled() {
            return Vec::new();
        }
        let last = stored.done().map_or(u64::MAX, |(number, _)| number);
        let own = stored.events.iter().filter(|(number, _)| *number < last);
        let kept: u64 = own.map(|(_, event)| stream_bytes(event)).sum();
        let mut wrong = Vec::new();
        if tally.written != kept + tally.dropped {
            wrong.push(format!(
                "{id} wrote {} bytes; {kept} are stored, {} dropped",
                tally.written, tally.dropped
            ));
        }
        let printed = stored.key().and_then(|key| asked.get(key)?.prints);
        let printed = printed.filter(|_| came_to_its_end(&stored.promise));
        if let Some(printed) = printed.filter(|printed| *printed != tally.written) {
            wrong.push(format!("{id} printed {printed} bytes; {} were counted", tally.written));
        }
        wrong
    })
}

/// What the code wrote of an event; cob's own notice that there is a limit is not of it.
fn stream_bytes(event: &Event) -> u64 {
    match event {
        Event::Stream { text, .. } if !text.starts_with("\n[output limit of ") => text.len() as u64,
        _ => 0,
    }
}

/// On each connection, busy and idle of a request pair up, and output stands between them or is marked as late.
#[must_use]
pub fn i6_busy_and_idle_enclose_output(evidence: &Evidence) -> Vec<String> {
    let lines = evidence.history.lines();
    let mut requests: BTreeMap<(u64, &str), Vec<&Line>> = BTreeMap::new();
    for line in &lines {
        requests.entry((line.connection, &line.key)).or_default().push(line);
    }
    let each = requests.into_iter().flat_map(|((connection, key), lines)| {
        enclosed(&lines).into_iter().map(move |what| format!("{key}, connection {connection}: {what}"))
    });
    each.collect()
}

fn enclosed(lines: &[&Line]) -> Vec<String> {
    let mut wrong = Vec::new();
    // A connection that begins in the middle saw no busy.
    let (mut is_busy, mut was_busy, mut was_idle) = (false, false, false);
    let mut is_broken = false;
    for line in lines {
        match &line.entry {
            Entry::Saw { msg_type, content, .. } if msg_type == "status" => {
                let state = content["execution_state"].as_str().unwrap_or_default();
                match (state, is_busy) {
                    ("busy", false) => (is_busy, was_busy) = (true, true),
                    ("idle", true) => (is_busy, was_idle) = (false, true),
                    ("idle", false) if !was_busy && !was_idle => was_idle = true,
                    _ => wrong.push(format!("an unexpected `{state}`")),
                }
            }
            Entry::Saw { msg_type, is_late: false, .. } if !is_busy && was_idle => {
                wrong.push(format!("`{msg_type}` after idle"));
            }
            Entry::Unknown => is_broken = true,
            _ => {}
        }
    }
    if is_busy && !is_broken {
        wrong.push("busy, and never idle".to_owned());
    }
    wrong
}

/// A settled promise is the same in every later snapshot; what is recorded of it is a road that exists.
#[must_use]
pub fn i7_what_is_settled_never_changes(evidence: &Evidence) -> Vec<String> {
    let mut wrong = Vec::new();
    for pair in evidence.snapshots.windows(2) {
        let [before, after] = pair else { continue };
        for promise in before.promises().filter(|promise| promise.state.is_settled()) {
            let later = after.promises().find(|later| later.id == promise.id);
            if later != Some(promise) {
                wrong.push(format!("{promise:?} became {later:?}"));
            }
        }
    }
    for promise in evidence.last().iter().flat_map(|last| last.promises()) {
        wrong.extend(impossible(promise).map(|what| format!("{}: {what}: {promise:?}", promise.id)));
    }
    wrong
}

/// One direction of a durable channel: it is never run, and ends when it is closed.
fn is_channel(promise: &Promise) -> bool {
    promise.key.as_ref().is_some_and(|key| key.principal == "channel")
}

/// Why no road leads to this record.
fn impossible(promise: &Promise) -> Option<&'static str> {
    let Promise { state, created_at, started_at, settled_at, value, .. } = promise;
    let is_settled = state.is_settled();
    if (is_settled, is_settled) != (settled_at.is_some(), value.is_some()) {
        return Some("settled without time or value, or the other way round");
    }
    match state {
        State::Pending if started_at.is_some() => Some("pending, but was started"),
        State::Started if started_at.is_none() => Some("started at no time"),
        State::Resolved if started_at.is_none() && promise.id.call.is_none() && !is_channel(promise) => {
            Some("resolved without a start")
        }
        _ if started_at.is_some_and(|started| started < *created_at) => Some("started before it was made"),
        _ if settled_at.is_some_and(|settled| settled < *created_at) => Some("settled before it was made"),
        _ => None,
    }
}

/// Every line that is stored for a request, and every one that was seen, begins with its token.
#[must_use]
pub fn i8_nobody_gets_output_of_others(evidence: &Evidence) -> Vec<String> {
    evidence.each(|key, asked| {
        let Some(token) = &asked.token else { return Vec::new() };
        let stored = evidence.stored(key).map(|stored| stored.text()).unwrap_or_default();
        let strange = |text: &str| text.lines().find(|line| !line.starts_with(token)).map(str::to_owned);
        let stored = strange(&stored).map(|line| format!("stored for {key}: {line:?}"));
        let others: Vec<String> =
            evidence.history.asked().into_values().filter_map(|other| other.token).collect();
        let seen = evidence.history.lines().into_iter().filter(|line| line.key == key);
        let seen = seen.filter_map(|line| match line.entry {
            // A stream may have been cut anywhere, so only what is whole can be judged.
            Entry::Saw { content, .. } => content["text"].as_str().map(str::to_owned),
            _ => None,
        });
        let has_strange =
            |text: &String| others.iter().any(|other| other != token && text.contains(other.as_str()));
        let seen = seen.filter(has_strange).map(|text| format!("seen for {key}: {text:?}"));
        stored.into_iter().chain(seen).collect()
    })
}

/// At rest no promise is pending and no session has a worker that waits to be fetched by nobody.
#[must_use]
pub fn i9_nothing_is_left_running(evidence: &Evidence) -> Vec<String> {
    if evidence.is_busy {
        return Vec::new();
    }
    let promises = evidence.last().into_iter().flat_map(|last| last.promises());
    let open = promises.filter(|promise| !promise.state.is_settled());
    open.map(|promise| format!("{} is still {}", promise.id, promise.state.as_str())).collect()
}

/// The database is sound, and no log has a panic or an error that nobody expected.
#[must_use]
pub fn i10_the_store_is_sound_and_the_log_quiet(evidence: &Evidence) -> Vec<String> {
    let damage = evidence.snapshots.iter().flat_map(|snapshot| snapshot.damage.iter().cloned());
    let lines = evidence
        .log
        .iter()
        .filter(|line| line.contains("panicked") || (line.contains(" ERROR ") && !evidence.errors_expected));
    damage.chain(lines.cloned()).collect()
}
