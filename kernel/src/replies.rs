//! What cob says of a promise beside Jupyter's own content: in the metadata of messages, under `cob`.

use cob_protocol::event::EventNumber;
use cob_protocol::ids::PromiseId;
use cob_protocol::json::Json;
use cob_protocol::promise::{Durability, Promise, SessionState, State, Tally};
use serde::{Deserialize, Serialize};

#[derive(Serialize)]
struct Metadata<T> {
    cob: T,
}

#[derive(Serialize)]
struct Settled {
    promise: PromiseId,
    state: State,
    /// A reader that has this event has all of them.
    last_event: EventNumber,
    output: Tally,
    durability: Durability,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_state: Option<SessionState>,
    /// Where the variables came from, as the reply itself says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    restored: Option<Json>,
    /// Head of the audit trail with the settlement.
    #[serde(skip_serializing_if = "Option::is_none")]
    audit: Option<String>,
}

#[derive(Serialize)]
struct Acknowledged {
    promise: PromiseId,
    durability: Durability,
}

#[derive(Serialize)]
struct Asked {
    promise: PromiseId,
}

/// Of a reply: byte for byte the same, however often it is asked for.
pub(crate) fn metadata(promise: &Promise) -> Json {
    of(Settled {
        promise: promise.id,
        state: promise.state,
        last_event: promise.last_event,
        output: promise.tally,
        durability: promise.durability,
        session_state: promise.session_state,
        restored: promise.value.as_ref().and_then(restored),
        audit: promise.audit.map(hex::encode),
    })
}

/// What a reply says of the way back that was before it.
fn restored(reply: &Json) -> Option<Json> {
    #[derive(Deserialize)]
    struct Reply {
        #[serde(default)]
        restored: Option<Json>,
    }
    // Hardly any reply says that, and some are large.
    if !reply.as_str().contains("\"restored\"") {
        return None;
    }
    reply.read::<Reply>().ok()?.restored
}

/// Of the broadcast that says that an execution begins: it is recorded, so safely.
pub(crate) fn acknowledgement(promise: PromiseId, durability: Durability) -> Json {
    of(Acknowledged { promise, durability })
}

/// Of a question.
pub(crate) fn question(promise: PromiseId) -> Json {
    of(Asked { promise })
}

fn of(cob: impl Serialize) -> Json {
    Json::of(&Metadata { cob }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use cob_protocol::ids::SessionId;
    use cob_protocol::time::Timestamp;

    use super::*;

    #[test]
    fn the_metadata_of_a_reply_are_those_of_its_promise() {
        let now = Timestamp::from_micros(0);
        let promise = Promise {
            id: PromiseId::execution(SessionId(2), 7),
            state: State::Resolved,
            key: None,
            durability: Durability::Power,
            created_at: now,
            started_at: None,
            deadline: None,
            settled_at: Some(now),
            last_event: 3,
            tally: Tally { written: 9, dropped: 4 },
            value: None,
            session_state: Some(SessionState::Kept),
            audit: Some([0xab; 32]),
        };
        let expected = format!(
            "{{\"cob\":{{\"promise\":\"s2.e7\",\"state\":\"resolved\",\"last_event\":3,\
             \"output\":{{\"written\":9,\"dropped\":4}},\"durability\":\"power\",\
             \"session_state\":\"kept\",\"audit\":\"{}\"}}}}",
            "ab".repeat(32)
        );
        assert_eq!(metadata(&promise).as_str(), expected);
        let in_memory = Promise { audit: None, ..promise };
        assert!(!metadata(&in_memory).as_str().contains("audit"));
    }
}
