//! `execute_request`: to the session's lane; what follows is [`crate::server`]'s delivery.

use std::sync::Arc;

use bytes::Bytes;
use cob_protocol::content::agent::AgentExecute;
use cob_protocol::json::Json;
use cob_protocol::limits::SESSION_OPEN_MAX;
use cob_protocol::message::{Channel, Incoming};
use cob_protocol::promise::Durability;
use serde::Serialize;

use super::forward::{client_request, submit};
use super::with_session;
use crate::request::Refusal;
use crate::server::delivery::Asking;
use crate::server::outlet::Waiting;
use crate::server::ticket::Ticket;

/// Jupyter's content, always written in the same way: a retry that wants other events or another deadline is the same
/// request.
#[derive(Serialize)]
struct Content<'a> {
    code: &'a str,
    silent: bool,
    store_history: bool,
    user_expressions: Option<&'a Json>,
    allow_stdin: bool,
    stop_on_error: bool,
}

#[derive(Serialize)]
struct Metadata<'a> {
    cob: Options<'a>,
}

#[derive(Serialize)]
struct Options<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    durability: Option<Durability>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline_ms: Option<u64>,
    priority: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
}

pub(super) fn execute(ticket: Ticket, body: AgentExecute, message: Incoming, trace: Option<Arc<str>>) {
    if body.user_expressions.as_ref().is_some_and(|names| !names.as_str().starts_with('{')) {
        return ticket.refuse(&Refusal::bad("`user_expressions` is an object of names and expressions"));
    }
    with_session(ticket, body.session_id, |ticket, handle| {
        let Some(place) = handle.place() else {
            let session = handle.session();
            let why = format!("{SESSION_OPEN_MAX} executions of {session} wait, run or are delivered");
            return ticket.refuse(&Refusal::busy(why));
        };
        let message = translated(&body, message, trace.as_deref());
        match client_request(&ticket, Channel::Shell, message) {
            Ok(request) => {
                let asking = Asking { ticket, place, credit: body.credit };
                submit(&handle, request, Waiting::Execution(Box::new(asking)));
            }
            Err(refusal) => ticket.refuse(&refusal),
        }
    });
}

fn translated(body: &AgentExecute, message: Incoming, trace: Option<&str>) -> Incoming {
    let content = Content {
        code: &body.code,
        silent: body.silent,
        store_history: body.store_history,
        user_expressions: body.user_expressions.as_ref(),
        allow_stdin: body.allow_stdin,
        stop_on_error: body.stop_on_error,
    };
    let cob = Options {
        idempotency_key: body.idempotency_key.as_deref(),
        durability: body.durability,
        deadline_ms: body.deadline_ms,
        priority: body.priority,
        output_limit: body.output_limit,
        traceparent: trace,
    };
    // Both are made of what was read from JSON a moment ago.
    let content = Json::of(&content).map_or_else(|_| Bytes::new(), Json::into_bytes);
    let metadata = Json::of(&Metadata { cob }).unwrap_or_default();
    Incoming { content, metadata, buffers: Vec::new(), ..message }
}

#[cfg(test)]
mod tests {
    use cob_protocol::content::{ExecuteOptions, ExecuteRequest};
    use cob_protocol::message::Header;

    use super::*;

    fn translate(text: &str, trace: Option<&str>) -> Incoming {
        let header = r#"{"msg_id":"m","msg_type":"execute_request","session":"c"}"#;
        let header_json = Json::parse(header).unwrap();
        let header: Header = header_json.read().unwrap();
        let (metadata, content) = (Json::object(), Bytes::copy_from_slice(text.as_bytes()));
        let message = Incoming { header, header_json, metadata, content, buffers: Vec::new() };
        translated(&serde_json::from_str(text).unwrap(), message, trace)
    }

    #[test]
    fn a_retry_with_other_wishes_has_the_same_body() {
        let one = r#"{"session_id":"s1","code":"1","credit":5,"idempotency_key":"k"}"#;
        let two = r#"{"deadline_ms":9,"idempotency_key":"k","code":"1","session_id":"s1"}"#;
        let (one, two) = (translate(one, None), translate(two, Some("t")));
        assert_eq!(one.content, two.content);
        let read: ExecuteRequest = serde_json::from_slice(&one.content).unwrap();
        assert!(read.code == "1" && !read.allow_stdin && read.store_history);
        let options = ExecuteOptions::read(&two.metadata).unwrap();
        assert_eq!((options.idempotency_key.as_deref(), options.deadline_ms), (Some("k"), Some(9)));
        assert_eq!(options.traceparent.as_deref(), Some("t"));
    }
}
