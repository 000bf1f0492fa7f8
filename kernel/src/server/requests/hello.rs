//! `hello_request`: versions, and who one is.

use std::sync::Arc;

use cob_protocol::content::agent::{AGENT_PROTOCOL_VERSION, HelloRequest};
use cob_protocol::error::ErrorCode;
use cob_protocol::limits::{
    BRANCHES_MAX, BUNDLES_MAX, CHANNEL_ITEM_BYTES_MAX, CHECKPOINTS_MAX, CREDIT_MAX, ID_BYTES_MAX,
    MESSAGE_BYTES_MAX, PAGE_MAX, PEER_REQUESTS_MAX, PEER_SUBSCRIPTIONS_MAX, SESSION_OPEN_MAX, SESSIONS_MAX,
};
use cob_protocol::promise::CHANNEL_PRINCIPAL;
use serde_json::{Value, json};

use crate::request::{ANY_CLIENT, Refusal};
use crate::server::peers::{OPERATOR, Who};
use crate::server::ticket::Ticket;

/// What can be relied on in this version.
const FEATURES: [&str; 11] = [
    "execute",
    "subscribe",
    "promises",
    "calls",
    "tools",
    "channels",
    "attach",
    "handover",
    "checkpoints",
    "fork",
    "hibernate",
];

/// `proved` is the name of the key that the connection proved to have.
pub(super) fn hello(ticket: Ticket, body: &HelloRequest, proved: Option<&str>) {
    let greeted = greet(&ticket, body, proved);
    ticket.settle(greeted);
}

fn greet(ticket: &Ticket, body: &HelloRequest, proved: Option<&str>) -> Result<Value, Refusal> {
    if !body.versions.contains(&AGENT_PROTOCOL_VERSION) {
        let why = format!(
            "this server speaks the versions [{AGENT_PROTOCOL_VERSION}]; you speak {:?}",
            body.versions
        );
        return Err(Refusal::new(ErrorCode::UnsupportedVersion, why));
    }
    // Whoever has said who he is cannot become somebody else.
    let known = ticket.connection.who().map(|who| Arc::clone(&who.principal));
    let principal = principal(body.principal.as_deref(), proved.or(known.as_deref()))?;
    let who = Who::new(principal, ticket.connection.identity());
    ticket.agents.peers.greeted(&ticket.connection, who)?;
    tracing::debug!(principal, client = body.client.as_deref(), "an agent has said hello");
    Ok(json!({
        "version": AGENT_PROTOCOL_VERSION,
        "server": ticket.agents.server(),
        "principal": principal,
        "features": FEATURES,
        "limits": limits(),
    }))
}

fn principal<'a>(named: Option<&'a str>, proved: Option<&'a str>) -> Result<&'a str, Refusal> {
    let principal = match (named, proved) {
        (Some(named), Some(proved)) if named != proved => {
            let why = format!("this connection is `{proved}`, and cannot be `{}`", named.escape_debug());
            return Err(Refusal::new(ErrorCode::Forbidden, why));
        }
        (Some(name), _) | (None, Some(name)) => name,
        (None, None) => OPERATOR,
    };
    let is_name = !principal.is_empty()
        && principal.len() <= ID_BYTES_MAX
        && !principal.chars().any(char::is_control)
        && ![ANY_CLIENT, CHANNEL_PRINCIPAL].contains(&principal);
    if is_name {
        return Ok(principal);
    }
    Err(Refusal::bad(format!(
        "`{}` is no name of a principal: those have 1 to {ID_BYTES_MAX} bytes, no control characters, and are not \
         `{ANY_CLIENT}` or `{CHANNEL_PRINCIPAL}`",
        principal.escape_debug()
    )))
}

/// What a client may rely on and must keep to.
pub(crate) fn limits() -> Value {
    json!({
        "message_bytes_max": MESSAGE_BYTES_MAX,
        "id_bytes_max": ID_BYTES_MAX,
        "sessions_max": SESSIONS_MAX,
        "session_open_max": SESSION_OPEN_MAX,
        "peer_requests_max": PEER_REQUESTS_MAX,
        "peer_subscriptions_max": PEER_SUBSCRIPTIONS_MAX,
        "credit_max": CREDIT_MAX,
        "page_max": PAGE_MAX,
        "channel_item_bytes_max": CHANNEL_ITEM_BYTES_MAX,
        "checkpoints_max": CHECKPOINTS_MAX,
        "bundles_max": BUNDLES_MAX,
        "branches_max": BRANCHES_MAX,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_who_one_says_unless_the_connection_proves_otherwise() {
        assert_eq!(principal(None, None).unwrap(), OPERATOR);
        assert_eq!(principal(Some("ann"), None).unwrap(), "ann");
        assert_eq!(principal(None, Some("bob")).unwrap(), "bob");
        assert_eq!(principal(Some("bob"), Some("bob")).unwrap(), "bob");
        assert_eq!(principal(Some("ann"), Some("bob")).unwrap_err().code, ErrorCode::Forbidden);
        for bad in ["", "*", "channel", "a\nb"] {
            assert_eq!(principal(Some(bad), None).unwrap_err().code, ErrorCode::BadRequest, "{bad:?}");
        }
    }
}
