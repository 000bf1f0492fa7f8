//! Calls of running code: answers to them, and the tools that clients offer.

use std::sync::Arc;

use cob_protocol::content::agent::{AnswerRequest, ToolRegister, ToolUnregister};

use super::{done, with_promise, with_session};
use crate::request::{Address, Command, Given, Refusal, Via};
use crate::server::ticket::Ticket;

pub(super) fn answer(ticket: Ticket, body: AnswerRequest) {
    let id = body.promise;
    match given(body) {
        Ok(given) => with_promise(ticket, id, |ticket, handle| {
            done(ticket, &handle, |asked| Command::Answer(id, given, asked));
        }),
        Err(refusal) => ticket.refuse(&refusal),
    }
}

fn given(body: AnswerRequest) -> Result<Given, Refusal> {
    if body.promise.call.is_none() {
        return Err(Refusal::bad(format!(
            "{} is an execution; what is answered is a call of it",
            body.promise
        )));
    }
    match (body.value, body.eof, body.declined, body.error) {
        (Some(value), false, None, None) => Ok(Given::Value(value)),
        (None, true, None, None) => Ok(Given::Eof),
        (None, false, Some(why), None) => Ok(Given::Declined(why)),
        (None, false, None, Some(failure)) => Ok(Given::Failed(failure)),
        _ => Err(Refusal::bad("give exactly one of `value`, `eof`, `declined` and `error`")),
    }
}

pub(super) fn register(ticket: Ticket, body: ToolRegister) {
    if body.tools.is_empty() {
        return ticket.refuse(&Refusal::bad("name at least one tool"));
    }
    with_session(ticket, body.session_id, |ticket, handle| match address(&ticket) {
        Ok(address) => {
            let directory = Arc::clone(&ticket.agents.directory);
            ticket.connection.offers(handle.session(), |session| directory.get(session).is_some());
            done(ticket, &handle, |asked| Command::RegisterTools(address, body.tools, asked));
        }
        Err(refusal) => ticket.refuse(&refusal),
    });
}

pub(super) fn unregister(ticket: Ticket, body: ToolUnregister) {
    with_session(ticket, body.session_id, |ticket, handle| match address(&ticket) {
        Ok(address) => {
            done(ticket, &handle, |asked| Command::UnregisterTools(address, Some(body.names), asked));
        }
        Err(refusal) => ticket.refuse(&refusal),
    });
}

fn address(ticket: &Ticket) -> Result<Address, Refusal> {
    Ok(Address { via: Via::Agents, identity: ticket.who()?.address.clone() })
}

#[cfg(test)]
mod tests {
    use cob_protocol::content::agent::ToolFailure;
    use cob_protocol::json::Json;

    use super::*;

    #[test]
    fn an_answer_says_exactly_one_thing_and_null_is_something() {
        let read = |text: &str| given(serde_json::from_str(text).unwrap());
        assert_eq!(
            read(r#"{"promise":"s1.e1.c1","value":null}"#),
            Ok(Given::Value(Json::parse("null").unwrap()))
        );
        assert_eq!(read(r#"{"promise":"s1.e1.c1","eof":true}"#), Ok(Given::Eof));
        assert_eq!(read(r#"{"promise":"s1.e1.c1","declined":"no"}"#), Ok(Given::Declined("no".to_owned())));
        let failure = ToolFailure { ename: "E".to_owned(), evalue: String::new() };
        assert_eq!(read(r#"{"promise":"s1.e1.c1","error":{"ename":"E"}}"#), Ok(Given::Failed(failure)));
        for bad in [
            r#"{"promise":"s1.e1.c1"}"#,
            r#"{"promise":"s1.e1.c1","value":1,"eof":true}"#,
            r#"{"promise":"s1.e1","value":1}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
