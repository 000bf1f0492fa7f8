//! A hub over a real socket and a store in memory, clients of it, and sessions whose loop is the test.

use std::sync::Arc;

use bytes::Bytes;
use cob_bridge::{Bridge, Created, NewExecution, Write, Written};
use cob_clients::agent::{AgentEndpoint, Place, Trust};
use cob_protocol::content::ExecuteOptions;
use cob_protocol::event::Event;
use cob_protocol::ids::{PromiseId, SessionId};
use cob_protocol::json::Json;
use cob_protocol::message::{HeaderWriter, Outgoing};
use cob_protocol::promise::{Durability, SessionState, Settlement, State};
use cob_protocol::signing::{ReplayWindow, Signer};
use cob_protocol::time::{Clock, SystemClock};
use cob_protocol::wire;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use zeromq::util::PeerIdentity;
use zeromq::{DealerSocket, Socket, SocketOptions, SocketRecv, SocketSend, ZmqMessage};

use crate::request::{ClientRequest, Inputs, Refusal, lanes};
use crate::server::{Directory, Handle, Hub, HubConfig, Life};

/// A server without sessions of its own.
pub(super) struct World {
    pub(super) bridge: Bridge,
    pub(super) directory: Arc<Directory>,
    url: String,
    hub: JoinHandle<()>,
    _folder: TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.hub.abort();
    }
}

impl World {
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("ipc://{}/agent", folder.path().display());
        let place = Place { endpoint: url.parse().unwrap(), trust: Trust::SameUser };
        let clock = Arc::new(SystemClock);
        let endpoint = AgentEndpoint::bind(vec![place], "server".to_owned(), clock.clone()).await.unwrap();
        let (bridge, directory) = (Bridge::in_memory(clock), Arc::new(Directory::default()));
        let nobody = || Refusal::bad("not in this test");
        let life = Life {
            open: Box::new(move |_, _| Box::pin(async move { Err(nobody()) })),
            fork: Box::new(move |_, _| Box::pin(async move { Err(nobody()) })),
            attach: Box::new(move |_| Box::pin(async move { Err(nobody()) })),
            detach: Box::new(|_, _| Box::pin(async { Ok(()) })),
            handover: Box::new(|| Box::pin(async { Ok(()) })),
        };
        let told = json!({ "ready": 2, "environments": [{ "name": "/home/ann/python" }] });
        let pool = Box::new(move || {
            let told = Json::from(told.clone());
            Box::pin(async { told }) as _
        });
        let config = HubConfig { instance: "i".to_owned(), pool };
        let hub = Hub::new(endpoint, bridge.clone(), Arc::clone(&directory), life, config);
        Self { bridge, directory, url, hub: tokio::spawn(hub.run()), _folder: folder }
    }

    /// A session of `owner` that does what the test does.
    pub(super) async fn session(&self, number: u64, owner: &str) -> FakeSession {
        let session = SessionId(number);
        let about = Json::from(json!({ "principal": owner, "language": "python" }));
        let write = Write::OpenSession { session, about: about.clone() };
        self.bridge.submit(Durability::None, vec![write]).await.unwrap();
        let (senders, inputs) = lanes();
        let outlet = self.directory.outlet(session);
        let handle = Handle::new(senders, outlet, owner.to_owned(), None, SystemClock.now(), about);
        FakeSession { bridge: self.bridge.clone(), handle: self.directory.insert(handle), inputs }
    }

    /// A connection that has said nothing.
    pub(super) async fn stranger(&self, identity: Option<&str>) -> Client {
        let mut options = SocketOptions::default();
        if let Some(identity) = identity {
            options.peer_identity(PeerIdentity::try_from(identity.as_bytes().to_vec()).unwrap());
        }
        let mut socket = DealerSocket::with_options(options);
        socket.connect(&self.url).await.unwrap();
        Client { socket, headers: HeaderWriter::new(format!("client-{}", uuid::Uuid::new_v4())), sent: 0 }
    }

    /// One that has said hello.
    pub(super) async fn client(&self, principal: &str) -> Client {
        let mut client = self.stranger(None).await;
        client.hello(principal).await;
        client
    }
}

/// A message that a client got.
#[derive(Debug)]
pub(super) struct Got {
    pub(super) kind: String,
    pub(super) parent: String,
    pub(super) metadata: Value,
    pub(super) content: Value,
}

pub(super) struct Client {
    socket: DealerSocket,
    headers: HeaderWriter,
    sent: u64,
}

fn signer() -> Signer {
    Signer::new("hmac-sha256", b"").unwrap()
}

impl Client {
    pub(super) async fn hello(&mut self, principal: &str) {
        let hello = self.ask("hello_request", json!({ "versions": [1, 9], "principal": principal })).await;
        assert_eq!((hello["status"].as_str(), hello["version"].as_u64()), (Some("ok"), Some(1)), "{hello}");
    }

    /// Sends a request; its `msg_id`.
    pub(super) async fn send(&mut self, msg_type: &'static str, content: Value) -> String {
        self.send_with(msg_type, content, Json::object()).await
    }

    pub(super) async fn send_with(
        &mut self,
        msg_type: &'static str,
        content: Value,
        metadata: Json,
    ) -> String {
        let message = Outgoing { metadata, ..Outgoing::new(msg_type, Json::object(), Json::from(content)) };
        let parts = wire::write(message, &signer(), &mut self.headers, SystemClock.now());
        self.send_parts(parts).await
    }

    /// Sends a request under a name that was used before.
    pub(super) async fn send_again(&mut self, msg_id: &str, msg_type: &'static str, content: Value) {
        let header = json!({ "msg_id": msg_id, "msg_type": msg_type, "session": self.headers.session() });
        let parts = [header, json!({}), json!({}), content].map(|part| Bytes::from(part.to_string()));
        let [header, parent, metadata, content] = parts;
        let delimiter = Bytes::from_static(b"<IDS|MSG>");
        let parts = vec![delimiter, Bytes::new(), header, parent, metadata, content];
        self.socket.send(ZmqMessage::try_from(parts).unwrap()).await.unwrap();
    }

    /// The same with a content that is no JSON.
    pub(super) async fn send_garbage(&mut self, msg_type: &'static str) -> String {
        let message = Outgoing::new(msg_type, Json::object(), Json::object());
        let mut parts = wire::write(message, &signer(), &mut self.headers, SystemClock.now());
        *parts.last_mut().unwrap() = Bytes::from_static(b"{\"code\": \xff");
        self.send_parts(parts).await
    }

    async fn send_parts(&mut self, parts: Vec<Bytes>) -> String {
        self.socket.send(ZmqMessage::try_from(parts).unwrap()).await.unwrap();
        self.sent += 1;
        format!("{}_{}", self.headers.session(), self.sent)
    }

    pub(super) async fn recv(&mut self) -> Got {
        let parts = self.socket.recv().await.unwrap().into_vec();
        let (message, parent) = wire::parse_answer(&parts, &signer(), &mut ReplayWindow::default()).unwrap();
        let parent: Value = serde_json::from_slice(&parent).unwrap();
        Got {
            kind: message.header.msg_type,
            parent: parent["msg_id"].as_str().unwrap_or_default().to_owned(),
            metadata: message.metadata.read().unwrap(),
            content: serde_json::from_slice(&message.content).unwrap(),
        }
    }

    /// The reply of a request that nothing else comes before.
    pub(super) async fn ask(&mut self, msg_type: &'static str, content: Value) -> Value {
        let id = self.send(msg_type, content).await;
        self.reply(&id).await
    }

    #[track_caller]
    pub(super) fn reply<'a>(&'a mut self, id: &'a str) -> impl Future<Output = Value> + 'a {
        let place = std::panic::Location::caller();
        async move {
            let got = self.recv().await;
            assert!(got.parent == id && got.kind.ends_with("_reply"), "{place}: {got:?}");
            got.content
        }
    }

    /// What is wrong with a request.
    pub(super) async fn refused(&mut self, msg_type: &'static str, content: Value) -> String {
        let reply = self.ask(msg_type, content).await;
        assert_eq!(reply["status"], "error", "{reply}");
        reply["code"].as_str().unwrap().to_owned()
    }

    pub(super) async fn next(&mut self, kind: &str) -> Got {
        let got = self.recv().await;
        assert_eq!(got.kind, kind, "{got:?}");
        got
    }
}

/// A session whose loop is the test.
pub(super) struct FakeSession {
    bridge: Bridge,
    pub(super) handle: Arc<Handle>,
    pub(super) inputs: Inputs,
}

impl FakeSession {
    /// Takes the next request and records it.
    pub(super) async fn accept(&mut self) -> (ClientRequest, PromiseId) {
        let request = self.inputs.shell.recv().await.unwrap();
        let options = ExecuteOptions::read(&request.message.metadata).unwrap();
        let execution = NewExecution {
            session: self.handle.session(),
            key: Some(request.key(&options)),
            durability: Durability::None,
            deadline: None,
            request: request.record(),
            start: None,
        };
        let write = Write::CreateExecution(execution);
        let outcome = self.bridge.submit(Durability::None, vec![write]).await.unwrap().remove(0).unwrap();
        let Written::Created(created) = outcome else { unreachable!("{outcome:?}") };
        let (id, known) = match &created {
            Created::New(id) => (*id, None),
            Created::Joined(known) => (known.id, Some(&**known)),
        };
        self.handle.outlet.accepted(&request, id, Durability::None, known);
        (request, id)
    }

    pub(super) async fn print(&self, id: PromiseId, number: u64) {
        let event = Event::Data(Json::from(json!(number)));
        self.append(id, number, event).await;
    }

    pub(super) async fn append(&self, id: PromiseId, number: u64, event: Event) {
        let write = Write::Append { id, number, event: Arc::new(event) };
        self.bridge.submit(Durability::None, vec![write]).await.unwrap().remove(0).unwrap();
    }

    pub(super) async fn start(&self, id: PromiseId, count: u32) {
        let write = Write::Start { id, count };
        self.bridge.submit(Durability::None, vec![write]).await.unwrap().remove(0).unwrap();
    }

    pub(super) async fn settle(&self, id: PromiseId, last_event: u64) {
        let value = Json::from(json!({ "status": "ok", "execution_count": 1 }));
        let settlement =
            Settlement { last_event, ..Settlement::silent(State::Resolved, value, SessionState::Kept) };
        let write = Write::Settle { id, settlement };
        self.bridge.submit(Durability::None, vec![write]).await.unwrap().remove(0).unwrap();
    }
}
