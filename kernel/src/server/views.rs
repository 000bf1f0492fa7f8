//! What agents are told of promises and sessions. Of an environment the names of variables, never their values.

use std::collections::BTreeMap;

use cob_bridge::SessionRecord;
use cob_protocol::checkpoint::Policy;
use cob_protocol::ids::{CheckpointId, PromiseId, SessionId};
use cob_protocol::json::Json;
use cob_protocol::permissions::Permissions;
use cob_protocol::promise::{Durability, Kind, Promise, SessionState, State, Tally};
use cob_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::directory::Handle;
use crate::request::Phase;

#[derive(Serialize)]
struct PromiseView<'a> {
    promise: PromiseId,
    session_id: String,
    kind: Kind,
    state: State,
    durability: Durability,
    created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    settled_at: Option<Timestamp>,
    last_event: u64,
    output: Tally,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_state: Option<SessionState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<&'a Json>,
}

/// Everything of a promise; `request` is what an open call asks.
pub(crate) fn promise(promise: &Promise, request: Option<&Json>) -> Json {
    view(promise, promise.value.as_ref(), request)
}

/// The same without its value: in lists, which are for finding.
pub(crate) fn listed(promise: &Promise, request: Option<&Json>) -> Json {
    view(promise, None, request)
}

fn view(promise: &Promise, value: Option<&Json>, request: Option<&Json>) -> Json {
    let view = PromiseView {
        promise: promise.id,
        session_id: promise.id.session.to_string(),
        kind: if promise.id.call.is_some() { Kind::Call } else { Kind::Execution },
        state: promise.state,
        durability: promise.durability,
        created_at: promise.created_at,
        started_at: promise.started_at,
        deadline: promise.deadline,
        settled_at: promise.settled_at,
        last_event: promise.last_event,
        output: promise.tally,
        value,
        session_state: promise.session_state,
        key: promise.key.as_ref().map(|key| key.key.as_str()),
        request,
    };
    Json::of(&view).unwrap_or_default()
}

/// What everybody who may see a session sees of it.
#[derive(Serialize)]
pub(crate) struct SessionView {
    session_id: String,
    state: Phase,
    #[serde(skip_serializing_if = "Option::is_none")]
    running: Option<PromiseId>,
    open_executions: usize,
    created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    closed_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wakes_at: Option<CheckpointId>,
    /// In memory.
    checkpoints: usize,
    checkpoint_bytes: u64,
    #[serde(flatten)]
    about: About,
}

/// What is recorded about a session and may be shown.
#[derive(Serialize, Deserialize, Default)]
struct About {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    principal: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    language: Option<String>,
    #[serde(default)]
    environment: EnvironmentView,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limits: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    durability: Option<Durability>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    idle_timeout_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none", rename(deserialize = "checkpoints"))]
    checkpoint_policy: Option<Policy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    forked_from: Option<CheckpointId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    program: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    directory: Option<String>,
}

#[derive(Serialize, Deserialize, Default)]
struct EnvironmentView {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    python: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cwd: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    permissions: Option<Permissions>,
    #[serde(default, serialize_with = "names")]
    env: BTreeMap<String, serde::de::IgnoredAny>,
}

fn names<S: serde::Serializer>(
    variables: &BTreeMap<String, serde::de::IgnoredAny>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(variables.keys())
}

impl SessionView {
    /// Of one that is open.
    pub(crate) fn open(handle: &Handle) -> Self {
        let status = *handle.outlet.watch().borrow();
        let holding = handle.outlet.holding();
        Self {
            session_id: handle.session().to_string(),
            state: status.state,
            running: status.running,
            open_executions: handle.open_executions(),
            created_at: handle.created_at,
            closed_at: None,
            wakes_at: holding.wakes_at,
            checkpoints: holding.checkpoints,
            checkpoint_bytes: holding.bytes,
            about: handle.about.read().unwrap_or_default(),
        }
    }

    /// Of one that has ended.
    pub(crate) fn closed(record: &SessionRecord) -> Self {
        Self {
            session_id: record.session.to_string(),
            state: Phase::Closed,
            running: None,
            open_executions: 0,
            created_at: record.created_at,
            closed_at: record.closed_at,
            wakes_at: None,
            checkpoints: 0,
            checkpoint_bytes: 0,
            about: record.about.read().unwrap_or_default(),
        }
    }
}

/// Which of the sessions of a list.
pub(crate) fn is_after(session: SessionId, after: Option<SessionId>) -> bool {
    after.is_none_or(|after| after < session)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_variables_only_the_names_are_shown() {
        let about = r#"{"principal":"ann","language":"python","body":"hash","idempotency_key":"k",
            "checkpoints":{"mode":"auto"},"forked_from":"s1.k2",
            "environment":{"python":"/py","env":{"TOKEN":"secret","A":"hidden"}}}"#;
        let record = SessionRecord::new(SessionId(4), Json::parse(about).unwrap(), Timestamp::from_micros(0));
        let view: Value = Json::of(&SessionView::closed(&record)).unwrap().read().unwrap();
        assert_eq!(view["environment"]["env"], serde_json::json!(["A", "TOKEN"]));
        assert_eq!((view["session_id"].as_str(), view["principal"].as_str()), (Some("s4"), Some("ann")));
        assert_eq!((&view["checkpoint_policy"]["mode"], &view["checkpoints"]), (&"auto".into(), &0.into()));
        assert_eq!(view["forked_from"], "s1.k2");
        let text = view.to_string();
        assert!(!text.contains("secret") && !text.contains("hidden") && !text.contains("hash"), "{text}");
    }
}
