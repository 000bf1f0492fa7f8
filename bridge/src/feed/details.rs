//! What is told of an execution that begins.

use cob_protocol::ids::PromiseId;
use cob_protocol::promise::State;
use serde::Deserialize;

use crate::store::{BridgeError, Read};

/// See the module.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Details {
    pub(super) code: Option<String>,
    pub(super) count: Option<u32>,
    pub(super) principal: Option<String>,
}

/// The parts that matter here of the record of a request.
#[derive(Deserialize)]
struct Request {
    #[serde(default = "anybody")]
    principal: String,
    #[serde(default)]
    content: Content,
}

#[derive(Default, Deserialize)]
struct Content {
    #[serde(default)]
    code: Option<String>,
}

/// The part that matters here of a reply.
#[derive(Deserialize)]
struct Reply {
    #[serde(default)]
    execution_count: Option<u32>,
}

fn anybody() -> String {
    "*".to_owned()
}

impl Details {
    /// Of an execution, if it is known and no channel.
    pub(super) fn read(store: &mut dyn Read, id: PromiseId) -> Result<Option<Self>, BridgeError> {
        // The request first: it goes when the promise is settled, and then the rest is there.
        let request = store.request(id)?.and_then(|request| request.read::<Request>().ok());
        let promise = store.promise(id)?.filter(|promise| !promise.is_channel());
        let Some(promise) = promise else { return Ok(None) };
        let entry = store.source_of(id)?;
        let line = entry.as_ref().map(|entry| entry.line);
        let count = match promise.state {
            _ if line.is_some() => line,
            State::Pending => None,
            // One at a time is run, so the last count is its own.
            State::Started => store.session(id.session)?.map(|session| session.count),
            _ if promise.started_at.is_none() => None,
            _ => promise.value.and_then(|value| value.read::<Reply>().ok()?.execution_count),
        };
        let (code, principal) = match request {
            Some(request) => (request.content.code, Some(request.principal)),
            None => (None, None),
        };
        Ok(Some(Self { code: code.or(entry.map(|entry| entry.source)), count, principal }))
    }
}
