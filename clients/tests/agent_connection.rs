//! The connection of an agent against our own endpoint with a scripted server behind it.

#![allow(clippy::unwrap_used, reason = "a test says what it expects where it asserts")]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use cob_clients::agent::{
    AgentConnection, AgentEndpoint, AgentError, AgentEvent, AgentPeer, AgentSender, Execute, Execution,
    Place, ServerPlace, Step, Trust,
};
use cob_clients::zmtp::Endpoint;
use cob_protocol::ids::SessionId;
use cob_protocol::json::Json;
use cob_protocol::limits::AGENT_CREDIT;
use cob_protocol::message::{Incoming, Outgoing};
use cob_protocol::registry::Lane;
use cob_protocol::time::SystemClock;
use serde_json::{Value, json};

/// Says what a test wants said.
struct Server {
    endpoint: AgentEndpoint,
    sender: AgentSender,
}

/// A request that arrived.
struct Request {
    peer: AgentPeer,
    identity: Bytes,
    message: Incoming,
}

impl Request {
    fn content(&self) -> Value {
        serde_json::from_slice(&self.message.content).unwrap()
    }
}

impl Server {
    async fn bind(endpoint: Endpoint, trust: Trust) -> Self {
        let place = Place { endpoint, trust };
        let endpoint =
            AgentEndpoint::bind(vec![place], "server".to_owned(), Arc::new(SystemClock)).await.unwrap();
        let sender = endpoint.sender();
        Self { endpoint, sender }
    }

    async fn in_folder(folder: &Path) -> Self {
        Self::bind(Endpoint::Ipc(folder.join("agent")), Trust::SameUser).await
    }

    async fn next(&mut self, msg_type: &str) -> Request {
        loop {
            if let AgentEvent::Request { peer, identity, message, .. } = self.endpoint.recv().await {
                assert_eq!(message.header.msg_type, msg_type);
                return Request { peer, identity, message };
            }
        }
    }

    fn say(&self, to: &Request, msg_type: &'static str, content: Value) {
        self.say_with(to, msg_type, content, json!({}));
    }

    fn say_with(&self, to: &Request, msg_type: &'static str, content: Value, metadata: Value) {
        let mut message = Outgoing::new(msg_type, to.message.header_json.clone(), Json::from(content));
        message.metadata = Json::from(metadata);
        self.sender.send(to.peer, &to.identity, message, Lane::Data).unwrap();
    }

    async fn greet(&mut self) -> Value {
        let hello = self.next("hello_request").await;
        self.say(&hello, "hello_reply", json!({ "status": "ok" }));
        hello.content()
    }

    fn event(&self, to: &Request, subscription: &str, number: u64) {
        let text = format!("{number}\n");
        self.say(
            to,
            "event",
            json!({ "subscription": subscription, "promise": "s1.e1", "number": number, "at": "now",
                    "kind": "stream", "content": { "name": "stdout", "text": text } }),
        );
    }
}

async fn open(place: &ServerPlace) -> Result<AgentConnection, AgentError> {
    AgentConnection::open(place, "client".to_owned(), None, Arc::new(SystemClock)).await
}

async fn pair(folder: &Path) -> (Server, AgentConnection) {
    let mut server = Server::in_folder(folder).await;
    let place = place(folder);
    let (_, connection) = tokio::join!(server.greet(), open(&place));
    (server, connection.unwrap())
}

fn place(folder: &Path) -> ServerPlace {
    ServerPlace::at(&format!("ipc://{}", folder.join("agent").display()), String::new()).unwrap()
}

#[tokio::test]
async fn hello_comes_first_on_a_signed_port_too_and_names_the_principal() {
    let mut server =
        Server::bind("tcp://127.0.0.1:0".parse().unwrap(), Trust::Key("secret".to_owned())).await;
    let url = server.endpoint.endpoints().next().unwrap().to_string();
    let place = ServerPlace::named(&url, "secret".to_owned()).unwrap();
    let opening = AgentConnection::open(&place, "c".into(), Some("ann".into()), Arc::new(SystemClock));
    let (hello, connection) = tokio::join!(server.greet(), opening);
    assert_eq!((&hello["versions"], &hello["principal"]), (&json!([1]), &json!("ann")));
    let mut connection = connection.unwrap();
    let (request, reply) = tokio::join!(
        async {
            let request = server.next("session_list").await;
            server.say(&request, "session_list_reply", json!({ "status": "ok", "sessions": [] }));
        },
        connection.request("session_list", json!({})),
    );
    let () = request;
    assert_eq!(reply.unwrap().read::<Value>().unwrap()["sessions"], json!([]));
}

#[tokio::test]
async fn a_wrong_key_is_said_to_be_one() {
    let mut server =
        Server::bind("tcp://127.0.0.1:0".parse().unwrap(), Trust::Key("secret".to_owned())).await;
    let url = server.endpoint.endpoints().next().unwrap().to_string();
    let place = ServerPlace::at(&url, "other".to_owned()).unwrap();
    tokio::time::pause();
    tokio::select! {
        hello = server.next("hello_request") => unreachable!("{:?}", hello.content()),
        opened = open(&place) => assert!(matches!(opened, Err(AgentError::Unanswered { .. })), "{opened:?}"),
    }
}

#[tokio::test]
async fn notices_that_come_before_a_reply_are_kept_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let (mut server, mut connection) = pair(folder.path()).await;
    let script = async {
        let request = server.next("session_info").await;
        for number in 1..=100 {
            server.event(&request, "x", number);
        }
        server.say(&request, "session_info_reply", json!({ "status": "ok" }));
    };
    let ((), reply) = tokio::join!(script, connection.request("session_info", json!({"session_id": "s1"})));
    assert!(reply.is_ok());
    for number in 1..=100 {
        let notice = connection.next().await.unwrap().read::<Value>().unwrap();
        assert_eq!(notice["number"], json!(number));
    }
}

#[tokio::test]
async fn a_refusal_is_typed() {
    let folder = tempfile::tempdir().unwrap();
    let (mut server, mut connection) = pair(folder.path()).await;
    let script = async {
        let request = server.next("interrupt").await;
        let error = json!({ "status": "error", "ename": "Busy", "evalue": "full", "traceback": [],
                            "code": "busy", "hint": "Wait.", "retry_after_ms": 150 });
        server.say(&request, "interrupt_reply", error);
    };
    let ((), reply) = tokio::join!(script, connection.request("interrupt", json!({"session_id": "s1"})));
    let Err(AgentError::Refused(refusal)) = reply else { unreachable!("{reply:?}") };
    assert_eq!((refusal.code.as_str(), refusal.hint.as_str()), ("busy", "Wait."));
    assert_eq!((refusal.message.as_str(), refusal.retry_after_ms), ("full", Some(150)));
}

#[tokio::test]
async fn nothing_is_lost_when_a_wait_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let (mut server, mut connection) = pair(folder.path()).await;
    let sent = connection.send("metrics", &json!({})).await.unwrap();
    let request = server.next("metrics").await;
    assert_eq!(request.message.header.msg_id, sent);
    for number in 1..=200 {
        server.event(&request, "x", number);
    }
    let mut expected = 1;
    while expected <= 200 {
        tokio::select! {
            biased;
            message = connection.next() => {
                assert_eq!(message.unwrap().read::<Value>().unwrap()["number"], json!(expected));
                expected += 1;
            }
            // Ready as soon as the wait has begun.
            () = tokio::task::yield_now() => {}
        }
    }
}

#[tokio::test]
async fn where_nobody_listens_is_no_server_and_one_that_goes_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(open(&place(folder.path())).await, Err(AgentError::NoServer { .. })));
    let (server, mut connection) = pair(folder.path()).await;
    drop(server);
    assert!(matches!(connection.next().await, Err(AgentError::Lost(_))));
}

#[tokio::test]
async fn a_server_that_is_silent_is_asked_and_then_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let (mut server, mut connection) = pair(folder.path()).await;
    tokio::time::pause();
    let script = async {
        let ping = server.next("ping").await;
        server.say(&ping, "ping_reply", json!({ "status": "ok" }));
        // The second one is not answered.
        server.next("ping").await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = script => {}
        lost = connection.next() => assert!(matches!(lost, Err(AgentError::Lost(_))), "{lost:?}"),
    }
}

/// Runs until the end; the texts in order.
async fn follow(connection: &mut AgentConnection, execution: &mut Execution) -> (Vec<u64>, u32, Value) {
    let (mut numbers, mut reconnects) = (Vec::new(), 0);
    loop {
        match execution.next(connection).await.unwrap() {
            Step::Event(notice) => numbers.push(notice.number),
            Step::Reconnected => reconnects += 1,
            Step::Ended(outcome) => return (numbers, reconnects, outcome.reply.read().unwrap()),
            Step::Accepted { .. } | Step::Gap { .. } | Step::Asked(_) => {}
            Step::Other(message) => unreachable!("{message:?}"),
        }
    }
}

fn code() -> Execute {
    Execute::new(SessionId(1), "print()".to_owned(), "key".to_owned())
}

#[tokio::test]
async fn an_execution_comes_as_credit_allows_and_ends_after_its_last_event() {
    const EVENTS: u64 = 3 * AGENT_CREDIT;
    let folder = tempfile::tempdir().unwrap();
    let (mut server, mut connection) = pair(folder.path()).await;
    let script = async {
        let request = server.next("execute_request").await;
        let id = request.message.header.msg_id.clone();
        server.say(&request, "ack", json!({ "promise": "s1.e1", "durability": "process", "joined": false }));
        // Settled before the events were delivered.
        let about = json!({ "cob": { "last_event": EVENTS } });
        server.say_with(&request, "execute_reply", json!({ "status": "ok" }), about);
        let mut credit = request.content()["credit"].as_u64().unwrap();
        for number in 1..=EVENTS {
            while credit == 0 {
                let more = server.next("credit").await.content();
                assert_eq!(more["subscription"], json!(id));
                credit = more["credit"].as_u64().unwrap();
            }
            credit -= 1;
            server.event(&request, &id, number);
        }
        std::future::pending::<()>().await;
    };
    let ends = async {
        let mut execution = Execution::begin(&mut connection, code()).await.unwrap();
        follow(&mut connection, &mut execution).await
    };
    tokio::select! {
        () = script => {}
        (numbers, reconnects, reply) = ends => {
            assert_eq!(numbers, (1..=EVENTS).collect::<Vec<_>>());
            assert_eq!((reconnects, &reply["status"]), (0, &json!("ok")));
        }
    }
}

#[tokio::test]
async fn an_execution_goes_on_after_its_last_event_when_the_server_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let (mut server, mut connection) = pair(folder.path()).await;
    let script = async {
        // Lost before it was acknowledged: asked for again under the same key.
        let request = server.next("execute_request").await;
        let first = request.content();
        drop(server);
        let mut server = Server::in_folder(folder.path()).await;
        server.greet().await;
        let request = server.next("execute_request").await;
        assert_eq!(request.content(), first);
        server.say(&request, "ack", json!({ "promise": "s1.e1", "durability": "process", "joined": true }));
        for number in 1..=3 {
            server.event(&request, &request.message.header.msg_id, number);
        }
        server.sender.flushed(std::time::Duration::from_secs(5)).await;
        drop(server);
        // Lost after three events: followed from the fourth.
        let mut server = Server::in_folder(folder.path()).await;
        server.greet().await;
        let request = server.next("subscribe").await;
        let content = request.content();
        assert_eq!((&content["promise"], &content["from"]), (&json!("s1.e1"), &json!(4)));
        let id = request.message.header.msg_id.clone();
        server.say(&request, "subscribe_reply", json!({ "status": "ok", "subscription": id }));
        server.event(&request, &id, 4);
        let view = json!({ "promise": "s1.e1", "value": { "status": "ok", "execution_count": 7 } });
        server.say(
            &request,
            "subscription_end",
            json!({ "subscription": id, "reason": "settled", "promise": view }),
        );
        std::future::pending::<()>().await;
    };
    let ends = async {
        let mut execution = Execution::begin(&mut connection, code()).await.unwrap();
        follow(&mut connection, &mut execution).await
    };
    tokio::select! {
        () = script => {}
        (numbers, reconnects, reply) = ends => {
            assert_eq!((numbers, reconnects), (vec![1, 2, 3, 4], 2));
            assert_eq!(reply["execution_count"], json!(7));
        }
    }
}

#[tokio::test]
async fn what_is_refused_before_there_is_a_promise_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let (mut server, mut connection) = pair(folder.path()).await;
    let script = async {
        let request = server.next("execute_request").await;
        let error = json!({ "status": "error", "ename": "UnknownSession", "evalue": "no s1",
                            "traceback": [], "code": "unknown_session", "hint": "Look." });
        server.say(&request, "execute_reply", error);
    };
    let ends = async {
        let mut execution = Execution::begin(&mut connection, code()).await.unwrap();
        execution.next(&mut connection).await
    };
    let ((), end) = tokio::join!(script, ends);
    assert_eq!(end.unwrap_err().code(), Some("unknown_session"));
}
