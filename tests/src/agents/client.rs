//! A client of the agent endpoint that speaks ZMTP itself, so that a test decides what is read, and when.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use cob_clients::zmtp::codec::{Caps, Decoder, Encoded, Item};
use cob_clients::zmtp::command::{Command, Ready, encode_pong};
use cob_clients::zmtp::greeting::{GREETING_BYTES, Greeting, Mechanism};
use cob_clients::zmtp::{Endpoint, SocketType};
use cob_protocol::signing::Signer;
use cob_protocol::wire::DELIMITER;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpStream, UnixStream};

use super::got::Got;
use crate::history::{Asked, Entry, History};
use crate::within;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Credit that is enough for everything that a short execution gives out.
pub const PLENTY: u64 = 100_000;

/// Where a server listens, and with which key its messages are signed.
#[derive(Clone, Debug)]
pub struct Place {
    /// The address.
    pub endpoint: Endpoint,
    /// Empty where nothing is signed.
    pub key: String,
}

/// One connection of one client.
pub struct Agent {
    name: String,
    signer: Signer,
    reader: ReadHalf<Box<dyn Stream>>,
    decoder: Decoder,
    writer: WriteHalf<Box<dyn Stream>>,
    waiting: VecDeque<Got>,
    record: Option<Record>,
    environment: Value,
}

/// What is written down of this connection: each request as if it had one of its own, because each has its own events.
struct Record {
    history: History,
    /// Number and key of each execution, by the id of its request.
    asked: HashMap<String, (u64, String)>,
}

impl Agent {
    /// Connects and finishes the handshake; `None` when nobody listens, or whoever does goes away meanwhile.
    pub async fn try_connect(place: &Place, name: &str) -> Option<Self> {
        let stream: Box<dyn Stream> = match &place.endpoint {
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect(address).await.ok()?;
                stream.set_nodelay(true).ok()?;
                Box::new(stream)
            }
            Endpoint::Ipc(path) => Box::new(UnixStream::connect(path).await.ok()?),
        };
        let (reader, writer) = tokio::io::split(stream);
        let signer = Signer::new("hmac-sha256", place.key.as_bytes()).ok()?;
        let decoder = Decoder::new(Caps::default());
        let (waiting, record, environment) = (VecDeque::new(), None, json!({}));
        let mut agent =
            Self { environment, name: name.to_owned(), signer, reader, decoder, writer, waiting, record };
        agent.shake().await.then_some(agent)
    }

    async fn shake(&mut self) -> bool {
        if !self.write(&Greeting::encode(Mechanism::Null)).await {
            return false;
        }
        let mut greeting = [0; GREETING_BYTES];
        if self.reader.read_exact(&mut greeting).await.is_err() {
            return false;
        }
        // Its own identity would be taken away from an earlier connection of the same client.
        let ready = Ready::encode(SocketType::Dealer, b"");
        self.write(&Encoded::command(&ready).to_vec()).await
            && matches!(self.item().await, Some(Item::Command(_)))
    }

    /// The same, of a server that is there.
    ///
    /// # Panics
    /// When it is not.
    pub async fn connect(place: &Place, name: &str) -> Self {
        within("a connection", Self::try_connect(place, name)).await.expect("a server to connect to")
    }

    /// Connects, and says who it is.
    ///
    /// # Panics
    /// When the server is not there, or does not welcome it.
    pub async fn greeted(place: &Place, name: &str) -> Self {
        let mut agent = Self::connect(place, name).await;
        agent.ok("hello_request", json!({ "versions": [1], "client": "a test" })).await;
        agent
    }

    /// The same, but everything may fail.
    pub async fn try_greeted(place: &Place, name: &str) -> Option<Self> {
        let mut agent = Self::try_connect(place, name).await?;
        let reply = agent.try_ask("hello_request", json!({ "versions": [1], "client": "a test" })).await?;
        (reply["status"] == "ok").then_some(agent)
    }

    /// Writes down from now on what it asks and sees of executions that it names by a key.
    pub fn record(&mut self, history: &History) {
        self.record = Some(Record { history: history.clone(), asked: HashMap::new() });
    }

    /// Sessions that it opens have this variable.
    pub fn mark(&mut self, name: &str, value: &str) {
        self.environment["env"][name] = value.into();
    }

    // --- Sending ---------------------------------------------------------------------------------------------

    /// Writes bytes; `false` when the other side has hung up.
    pub async fn write(&mut self, bytes: &[u8]) -> bool {
        self.writer.write_all(bytes).await.is_ok() && self.writer.flush().await.is_ok()
    }

    /// The parts of a request, signed, and its id.
    #[must_use]
    pub fn parts(&self, msg_type: &str, content: &Value) -> (Vec<Bytes>, String) {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = format!("{}-{}", self.name, NEXT.fetch_add(1, Ordering::Relaxed));
        let header = json!({
            "msg_id": id, "msg_type": msg_type, "session": self.name, "username": "test",
            "date": "2030-01-01T00:00:00.000000Z", "version": "5.5",
        });
        (self.signed(&header, content), id)
    }

    /// A signed message with a header of the test's own.
    #[must_use]
    pub fn signed(&self, header: &Value, content: &Value) -> Vec<Bytes> {
        let parts = [header, &json!({}), &json!({}), content].map(|part| Bytes::from(part.to_string()));
        let [header, parent, metadata, content] = &parts;
        let signature = self.signer.sign(&[header, parent, metadata, content]);
        [Bytes::from_static(DELIMITER), signature.into()].into_iter().chain(parts).collect()
    }

    /// Sends a multipart message as it is; `false` when the other side has hung up.
    pub async fn message(&mut self, parts: &[Bytes]) -> bool {
        self.write(&Encoded::message(parts).to_vec()).await
    }

    /// Sends a request; its id. That the other side has hung up is seen when the answer does not come.
    pub async fn send(&mut self, msg_type: &str, content: Value) -> String {
        let (parts, id) = self.parts(msg_type, &content);
        within("room to send", self.message(&parts)).await;
        id
    }

    /// Sends code to be run under a key, with all its events; the id of the request.
    pub async fn execute(&mut self, session: &str, key: &str, code: &str) -> String {
        self.execute_as(session, key, code, Asked::default()).await
    }

    /// The same, of code about which the test knows something.
    pub async fn execute_as(&mut self, session: &str, key: &str, code: &str, asked: Asked) -> String {
        let number = self.record.as_ref().map(|record| {
            let number = record.history.connect();
            record.history.invoke(number, key, asked);
            number
        });
        let content =
            json!({ "session_id": session, "code": code, "idempotency_key": key, "credit": PLENTY });
        let id = self.send("execute_request", content).await;
        if let (Some(record), Some(number)) = (&mut self.record, number) {
            record.asked.insert(id.clone(), (number, key.to_owned()));
        }
        id
    }

    // --- Waiting ---------------------------------------------------------------------------------------------

    async fn item(&mut self) -> Option<Item> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            // What breaks off in the middle of a frame is an end like another.
            match self.decoder.pull() {
                Ok(Some(item)) => return Some(item),
                Ok(None) => {}
                Err(_) => return None,
            }
            match self.reader.read(&mut buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(arrived) => self.decoder.push(buffer.get(..arrived).unwrap_or_default()),
            }
        }
    }

    /// The next message that arrives, however long it takes; `None` when the connection has ended.
    ///
    /// # Panics
    /// When it is none.
    pub async fn arriving(&mut self) -> Option<Got> {
        loop {
            match self.item().await? {
                Item::Message(message) => {
                    let got = Got::read(&message, &self.signer);
                    self.write_down(&got);
                    return Some(got);
                }
                Item::Command(body) => {
                    if let Ok(Command::Ping(context)) = Command::parse(&body) {
                        self.write(&Encoded::command(&encode_pong(&context)).to_vec()).await;
                    }
                }
            }
        }
    }

    /// The first message, of those that were left aside and those that come, which is the one that is waited for; `None`
    /// when the connection ends before it.
    ///
    /// # Panics
    /// When nothing comes.
    pub async fn try_take(&mut self, what: &str, mut is_it: impl FnMut(&Got) -> bool) -> Option<Got> {
        if let Some(at) = self.waiting.iter().position(&mut is_it) {
            return self.waiting.remove(at);
        }
        loop {
            let got = within(what, self.arriving()).await?;
            if is_it(&got) {
                return Some(got);
            }
            self.waiting.push_back(got);
        }
    }

    /// The same, on a connection that stays.
    ///
    /// # Panics
    /// When it ends, or nothing comes.
    #[track_caller]
    pub fn take(&mut self, what: &str, is_it: impl FnMut(&Got) -> bool) -> impl Future<Output = Got> {
        let (place, what) = (std::panic::Location::caller(), what.to_owned());
        async move {
            let got = self.try_take(&what, is_it).await;
            got.unwrap_or_else(|| {
                unreachable!("{place}: the connection ended before {what}: {:#?}", self.waiting)
            })
        }
    }

    /// What was left aside so far.
    #[must_use]
    pub fn aside(&self) -> &VecDeque<Got> {
        &self.waiting
    }

    /// The reply to a request; `None` when the connection ends before it.
    pub async fn try_reply(&mut self, id: &str) -> Option<Got> {
        self.try_take(&format!("the reply to {id}"), |got| got.is_reply_to(id)).await
    }

    /// The reply to a request.
    ///
    /// # Panics
    /// When none comes.
    #[track_caller]
    pub fn reply(&mut self, id: &str) -> impl Future<Output = Got> {
        let (place, id) = (std::panic::Location::caller(), id.to_owned());
        async move {
            let got = self.try_reply(&id).await;
            got.unwrap_or_else(|| unreachable!("{place}: the connection ended before the reply to {id}"))
        }
    }

    /// Asks, and waits for the answer; `None` when the connection ends before it.
    pub async fn try_ask(&mut self, msg_type: &str, content: Value) -> Option<Value> {
        let id = self.send(msg_type, content).await;
        Some(self.try_reply(&id).await?.content)
    }

    /// Asks, and waits for the answer, whatever it is.
    ///
    /// # Panics
    /// When none comes.
    pub async fn ask(&mut self, msg_type: &str, content: Value) -> Value {
        let id = self.send(msg_type, content).await;
        self.reply(&id).await.content
    }

    /// Asks, and is answered well.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn ok(&mut self, msg_type: &str, content: Value) -> impl Future<Output = Value> {
        let (place, msg_type) = (std::panic::Location::caller(), msg_type.to_owned());
        async move {
            let reply = self.ask(&msg_type, content).await;
            assert_eq!(reply["status"], "ok", "{place}: {msg_type}: {reply:#}");
            reply
        }
    }

    /// Asks, and is refused with this code.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn refused(&mut self, msg_type: &str, content: Value, code: &str) -> impl Future<Output = Value> {
        let (place, msg_type, code) = (std::panic::Location::caller(), msg_type.to_owned(), code.to_owned());
        async move {
            let reply = self.ask(&msg_type, content).await;
            let found = (reply["status"].as_str(), reply["code"].as_str());
            assert_eq!(found, (Some("error"), Some(code.as_str())), "{place}: {msg_type}: {reply:#}");
            reply
        }
    }

    /// Opens a session; its name.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn open(&mut self) -> String {
        self.open_in("python").await
    }

    /// The same, in a language.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn open_in(&mut self, language: &str) -> String {
        let content = json!({ "language": language, "environment": self.environment });
        let reply = self.ok("session_open", content).await;
        reply["session_id"].as_str().expect("the name of a session").to_owned()
    }

    /// Runs code to its end under a key: the reply, and everything that it gave out.
    ///
    /// # Panics
    /// When it does not come to one.
    pub async fn run(&mut self, session: &str, key: &str, code: &str) -> (Value, Vec<Got>) {
        let id = self.execute(session, key, code).await;
        let reply = self.reply(&id).await;
        (reply.content, self.events(&id))
    }

    /// The events of a subscription that were left aside, in the order in which they came.
    pub fn events(&mut self, subscription: &str) -> Vec<Got> {
        let (events, rest) = self.waiting.drain(..).partition(|got| got.is_event_of(subscription));
        self.waiting = rest;
        Vec::from_iter::<VecDeque<Got>>(events)
    }

    /// Waits until an execution has printed `text`; its events stay aside.
    ///
    /// # Panics
    /// When it does not.
    pub async fn printed(&mut self, id: &str, text: &str) {
        let mut printed: String =
            self.waiting.iter().filter(|got| got.is_event_of(id)).map(Got::stream).collect();
        while !printed.contains(text) {
            let got = within(text, self.arriving()).await;
            let got = got.unwrap_or_else(|| unreachable!("the connection ended before {text:?}"));
            assert!(!got.is_reply_to(id), "it ended before it printed {text:?}: {got:#?}, after {printed:?}");
            if got.is_event_of(id) {
                printed.push_str(got.stream());
            }
            self.waiting.push_back(got);
        }
    }

    /// Reads until the server closes the connection, whatever it says until then.
    ///
    /// # Panics
    /// When it does not.
    pub async fn closed(&mut self) {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(1..) = within("the end of the connection", self.reader.read(&mut buffer)).await {}
    }

    /// Everything that comes until the server answers a `ping` sent now is left aside.
    ///
    /// # Panics
    /// When no answer comes.
    pub async fn settle(&mut self) {
        self.ok("ping", json!({})).await;
    }

    fn write_down(&self, got: &Got) {
        let Some(record) = &self.record else { return };
        let id = got.content["subscription"].as_str().unwrap_or(&got.parent);
        let Some((number, key)) = record.asked.get(id) else { return };
        if got.msg_type == "execute_reply" {
            record.history.add(*number, key, Entry::Replied { content: got.text.clone() });
        } else if let Some(entry) = got.broadcast() {
            record.history.add(*number, key, entry);
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(record) = &self.record {
            record.asked.values().for_each(|(number, _)| record.history.disconnect(*number));
        }
    }
}
