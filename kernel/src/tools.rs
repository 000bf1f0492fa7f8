//! Functions of clients that code may call: who offers which, and how they are asked.

use std::collections::BTreeMap;

use cob_protocol::content::agent::Tool;
use cob_protocol::error::ErrorCode;
use cob_protocol::ids::PromiseId;
use cob_protocol::json::Json;
use cob_protocol::limits::{ID_BYTES_MAX, SESSION_TOOLS_BYTES_MAX, SESSION_TOOLS_MAX};
use cob_protocol::message::{Channel, Outgoing};
use cob_protocol::time::Timestamp;
use serde::Serialize;

use crate::calls::{Ask, Question};
use crate::dispatch::options_of;
use crate::records::Effect;
use crate::request::{Address, Asked, ClientRequest, Refusal};
use crate::session::{Current, Session};

/// Who offers which tool: the last one who registered a name counts.
#[derive(Debug, Default)]
pub(crate) struct Tools(BTreeMap<String, (Tool, Address)>);

impl Tools {
    fn register(&mut self, address: &Address, tools: Vec<Tool>) -> Result<(), Refusal> {
        if let Some(bad) = tools.iter().find(|tool| !is_identifier(&tool.name)) {
            let name = bad.name.escape_debug();
            let why =
                format!("`{name}` cannot be the name of a tool: it must be an identifier, and not `call`");
            return Err(Refusal::new(ErrorCode::BadRequest, why));
        }
        let new = tools.iter().filter(|tool| !self.0.contains_key(&tool.name)).count();
        if self.0.len() + new > SESSION_TOOLS_MAX {
            let why = format!("a session has at most {SESSION_TOOLS_MAX} tools");
            return Err(Refusal::new(ErrorCode::Busy, why));
        }
        // Those that are replaced count too: nobody comes near it who is not lost already.
        let known: usize = self.0.values().map(|(tool, _)| weight(tool)).sum();
        if known + tools.iter().map(weight).sum::<usize>() > SESSION_TOOLS_BYTES_MAX {
            let why =
                format!("the tools of a session are described in at most {SESSION_TOOLS_BYTES_MAX} bytes");
            return Err(Refusal::new(ErrorCode::RequestTooLarge, why));
        }
        self.0.extend(tools.into_iter().map(|tool| (tool.name.clone(), (tool, address.clone()))));
        Ok(())
    }

    fn unregister(&mut self, address: &Address, names: Option<&[String]>) {
        self.0.retain(|name, (_, theirs)| {
            theirs != address || names.is_some_and(|names| !names.iter().any(|gone| gone == name))
        });
    }

    pub(crate) fn address(&self, name: &str) -> Option<&Address> {
        self.0.get(name).map(|(_, address)| address)
    }

    pub(crate) fn list(&self) -> Vec<Tool> {
        self.0.values().map(|(tool, _)| tool.clone()).collect()
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}

/// Bytes of a tool.
fn weight(tool: &Tool) -> usize {
    let parameters = tool.parameters.as_ref().map_or(0, |parameters| parameters.as_str().len());
    tool.name.len() + tool.description.as_ref().map_or(0, String::len) + parameters
}

/// What Python and others can write behind a dot, and is not there already: `cob.tools.call` calls any tool.
fn is_identifier(name: &str) -> bool {
    let is_letter = |c: char| c.is_alphabetic() || c == '_';
    name.len() <= ID_BYTES_MAX
        && name != "call"
        && name.starts_with(is_letter)
        && name.chars().all(|c| is_letter(c) || c.is_numeric())
}

/// `call`
#[derive(Serialize)]
struct CallContent<'a> {
    promise: PromiseId,
    session_id: String,
    execution: PromiseId,
    kind: &'static str,
    arguments: &'a Json,
    deadline: Timestamp,
}

#[derive(Serialize)]
struct Metadata {
    cob: Trace,
}

#[derive(Serialize)]
struct Trace {
    promise: PromiseId,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
}

/// What an agent is asked for code that waits.
pub(crate) fn call_message(question: &Question, asker: &ClientRequest) -> Outgoing {
    let promise = question.promise;
    let content = CallContent {
        promise,
        session_id: promise.session.to_string(),
        execution: PromiseId { call: None, ..promise },
        kind: question.ask.kind(),
        arguments: &question.ask.arguments(),
        deadline: question.deadline,
    };
    let trace = Trace { promise, traceparent: options_of(asker).traceparent };
    let metadata = Json::of(&Metadata { cob: trace }).unwrap_or_default();
    let content = Json::of(&content).unwrap_or_default();
    Outgoing { metadata, ..Outgoing::new("call", asker.parent(), content) }
}

impl Session {
    pub(crate) fn register_tools(&mut self, address: &Address, tools: Vec<Tool>, asked: Asked<()>) {
        let names: Vec<String> = tools.iter().map(|tool| tool.name.clone()).collect();
        let registered = self.tools.register(address, tools);
        if registered.is_ok()
            && let Some(name) = self.asked_tool()
            && names.iter().any(|known| known == name)
        {
            self.put_question();
        }
        // Whoever asked may have gone.
        let _ = asked.send(registered);
    }

    pub(crate) fn unregister_tools(&mut self, address: &Address, names: Option<&[String]>, asked: Asked<()>) {
        self.tools.unregister(address, names);
        let _ = asked.send(Ok(()));
    }

    /// The tool whose answer the code waits for.
    fn asked_tool(&self) -> Option<&str> {
        let Some(Current::Run(running)) = &self.current else { return None };
        match &running.question.as_ref()?.ask {
            Ask::Tool(tool) => Some(&tool.name),
            Ask::Input(_) => None,
        }
    }

    /// Puts the call of a tool to whoever offers it; when nobody does it waits.
    pub(crate) fn put_tool_call(&mut self) {
        let Some(Current::Run(running)) = &mut self.current else { return };
        let Some(question) = &mut running.question else { return };
        let Ask::Tool(tool) = &question.ask else { return };
        let Some(address) = self.tools.address(&tool.name).cloned() else { return };
        question.is_put = true;
        let message = call_message(question, &running.request);
        self.records.then(Effect::Reply { channel: Channel::Shell, address, message });
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use cob_protocol::ids::SessionId;
    use cob_protocol::message::Incoming;
    use serde_json::{Value, json};

    use super::*;
    use crate::calls::CallRecord;
    use crate::request::Via;

    fn address(name: &'static str) -> Address {
        Address { via: Via::Agents, identity: Bytes::from_static(name.as_bytes()) }
    }

    fn tools(names: &[&str]) -> Vec<Tool> {
        let tool = |name: &&str| Tool { name: (*name).to_owned(), description: None, parameters: None };
        names.iter().map(tool).collect()
    }

    #[test]
    fn the_last_registration_of_a_name_counts_and_only_its_owner_takes_it_back() {
        let (one, two) = (address("one"), address("two"));
        let mut known = Tools::default();
        known.register(&one, tools(&["a", "b"])).unwrap();
        known.register(&two, tools(&["b", "c"])).unwrap();
        assert_eq!(known.names(), ["a", "b", "c"]);
        assert_eq!((known.address("a"), known.address("b")), (Some(&one), Some(&two)));
        known.unregister(&one, Some(&["b".to_owned()]));
        assert_eq!(known.address("b"), Some(&two));
        known.unregister(&two, None);
        assert_eq!(known.names(), ["a"]);
    }

    #[test]
    fn an_agent_is_told_what_is_asked_by_which_call_and_within_which_trace() {
        let header_json = Json::from(json!({ "msg_id": "m", "msg_type": "execute_request", "session": "a" }));
        let message = Incoming {
            header: header_json.read().unwrap(),
            header_json,
            metadata: Json::from(json!({ "cob": { "traceparent": "00-1-2-3" } })),
            content: Bytes::new(),
            buffers: Vec::new(),
        };
        let asker = ClientRequest::of(address("x"), "local".to_owned(), Channel::Shell, message);
        let arguments = json!({ "name": "add", "arguments": { "a": 1 } });
        let record =
            CallRecord { kind: "tool".to_owned(), request: 4, arguments: Json::from(arguments.clone()) };
        let question = Question {
            request: 4,
            promise: PromiseId::execution(SessionId(7), 3).with_call(1),
            ask: Ask::of(&record),
            deadline: Timestamp::from_micros(0),
            is_put: false,
        };
        let message = call_message(&question, &asker);
        let content: Value = message.content.read().unwrap();
        let deadline = Timestamp::from_micros(0).to_string();
        assert_eq!(
            content,
            json!({ "promise": "s7.e3.c1", "session_id": "s7", "execution": "s7.e3", "kind": "tool",
                    "arguments": arguments, "deadline": deadline })
        );
        let metadata: Value = message.metadata.read().unwrap();
        assert_eq!(metadata["cob"]["traceparent"], "00-1-2-3");
        assert_eq!((message.msg_type, message.parent.as_str()), ("call", asker.parent().as_str()));
    }

    #[test]
    fn what_describes_tools_is_bounded() {
        let mut known = Tools::default();
        let long = |name: &str, bytes| {
            vec![Tool { name: name.to_owned(), description: Some("x".repeat(bytes)), parameters: None }]
        };
        known.register(&address("x"), long("a", SESSION_TOOLS_BYTES_MAX - 10)).unwrap();
        let refusal = known.register(&address("x"), long("b", 10)).unwrap_err();
        assert_eq!((refusal.code, known.names()), (ErrorCode::RequestTooLarge, vec!["a"]));
        known.register(&address("x"), long("b", 8)).unwrap();
    }

    #[test]
    fn names_that_no_code_can_write_are_refused_and_so_are_too_many() {
        let mut known = Tools::default();
        for bad in ["", "call", "1a", "a-b", "a b", "a.b", &"x".repeat(ID_BYTES_MAX + 1)] {
            let refusal = known.register(&address("x"), tools(&["good", bad])).unwrap_err();
            assert_eq!(refusal.code, ErrorCode::BadRequest, "{bad}");
        }
        assert!(known.names().is_empty());
        let many: Vec<String> = (0..SESSION_TOOLS_MAX).map(|n| format!("t{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        known.register(&address("x"), tools(&many)).unwrap();
        assert_eq!(known.register(&address("x"), tools(&["more"])).unwrap_err().code, ErrorCode::Busy);
        known.register(&address("y"), tools(&["t1"])).unwrap();
    }
}
