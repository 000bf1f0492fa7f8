//! A client that remembers everything it saw.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use cob_clients::notebook::{Connection, ConnectionFile};
use cob_protocol::json::Json;
use cob_protocol::message::{Channel, Outgoing};
use cob_protocol::time::SystemClock;
use serde_json::{Value, json};

use crate::within;

/// A message that came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Where.
    pub channel: Channel,
    /// Its type.
    pub msg_type: String,
    /// Id of the request that caused it; empty when none did.
    pub parent: String,
    /// Its content.
    pub content: Value,
}

impl Seen {
    /// A text field of the content; empty when there is none.
    #[must_use]
    pub fn text(&self, field: &str) -> &str {
        self.content[field].as_str().unwrap_or_default()
    }

    fn is_state(&self, state: &str) -> bool {
        self.msg_type == "status" && self.text("execution_state") == state
    }

    fn is_reply(&self) -> bool {
        self.channel != Channel::Iopub && self.msg_type.ends_with("_reply")
    }
}

/// What became of a request: its reply and everything that was broadcast for it.
#[derive(Clone, Debug)]
pub struct Run {
    /// Content of the reply.
    pub reply: Value,
    /// Broadcasts from busy to idle, in order.
    pub broadcasts: Vec<Seen>,
}

impl Run {
    /// `ok`, `error` or `aborted`.
    #[must_use]
    pub fn status(&self) -> &str {
        self.reply["status"].as_str().unwrap_or_default()
    }

    /// Name of the error.
    #[must_use]
    pub fn ename(&self) -> &str {
        self.reply["ename"].as_str().unwrap_or_default()
    }

    /// Text of the error.
    #[must_use]
    pub fn evalue(&self) -> &str {
        self.reply["evalue"].as_str().unwrap_or_default()
    }

    /// Stable code of the error.
    #[must_use]
    pub fn code(&self) -> &str {
        self.reply["code"].as_str().unwrap_or_default()
    }

    /// `kept` or `lost`, beside a code.
    #[must_use]
    pub fn session_state(&self) -> &str {
        self.reply["session_state"].as_str().unwrap_or_default()
    }

    /// The number users see.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.reply["execution_count"].as_u64().unwrap_or_default()
    }

    /// Everything that was printed on a stream.
    #[must_use]
    pub fn stream(&self, name: &str) -> String {
        let streams =
            self.broadcasts.iter().filter(|seen| seen.msg_type == "stream" && seen.text("name") == name);
        streams.map(|seen| seen.text("text")).collect()
    }

    /// Everything that was printed on stdout.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stream("stdout")
    }

    /// The plain text of the result.
    #[must_use]
    pub fn result(&self) -> &str {
        let result = self.broadcasts.iter().find(|seen| seen.msg_type == "execute_result");
        result.and_then(|seen| seen.content["data"]["text/plain"].as_str()).unwrap_or_default()
    }

    /// Itself, if it ended well.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.status(), "ok", "{:#}", self.reply);
        self
    }

    /// Itself, if it ended with this error.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    pub fn failed(self, ename: &str) -> Self {
        assert_eq!((self.status(), self.ename()), ("error", ename), "{:#}", self.reply);
        self
    }

    /// Itself, if its worker was lost in a way that the error describes with `what`.
    ///
    /// # Panics
    /// If it was not.
    #[track_caller]
    pub fn lost(self, what: &str) -> Self {
        assert_eq!(
            (self.status(), self.ename(), self.code(), self.session_state()),
            ("error", "WorkerLost", "worker_lost", "lost"),
            "{:#}",
            self.reply
        );
        assert!(self.evalue().contains(what), "`{what}` is not in `{}`", self.evalue());
        let shown =
            self.broadcasts.iter().find(|seen| seen.msg_type == "error").expect("the error is broadcast");
        assert_eq!(shown.text("evalue"), self.evalue());
        self
    }
}

/// A client of one kernel.
#[derive(Debug)]
pub struct TestClient {
    connection: Connection,
    seen: Vec<Seen>,
}

impl TestClient {
    /// Connects, and waits until every broadcast is sure to arrive.
    ///
    /// # Panics
    /// When the kernel does not welcome it first of all.
    pub async fn connect(file: &ConnectionFile) -> Self {
        let mut client = Self::silent(file).await;
        client.next().await;
        let first = client.seen.first().expect("a message");
        assert_eq!((first.msg_type.as_str(), first.channel), ("iopub_welcome", Channel::Iopub));
        client
    }

    /// Connects, and reads nothing yet.
    ///
    /// # Panics
    /// When the kernel is not there.
    pub async fn silent(file: &ConnectionFile) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let session = format!("client-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let opened = Connection::open(file, session, Arc::new(SystemClock));
        let connection = within("a connection", opened).await.expect("a kernel to connect to");
        Self { connection, seen: Vec::new() }
    }

    /// The connection itself.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Everything that came so far.
    #[must_use]
    pub fn seen(&self) -> &[Seen] {
        &self.seen
    }

    // --- Asking ----------------------------------------------------------------------------------------------

    /// Sends a request and gives back its id.
    ///
    /// # Panics
    /// When it cannot be sent.
    pub async fn send(&mut self, channel: Channel, msg_type: &'static str, content: Value) -> String {
        let message = Outgoing::new(msg_type, Json::object(), content.into());
        within("room to send", self.connection.send(channel, message))
            .await
            .expect("a message that can be sent")
    }

    /// Sends parts as they are.
    ///
    /// # Panics
    /// When they cannot be sent.
    pub async fn send_parts(&mut self, channel: Channel, parts: Vec<Bytes>) {
        within("room to send", self.connection.send_parts(channel, parts))
            .await
            .expect("parts that can be sent");
    }

    /// Sends code to be run.
    ///
    /// # Panics
    /// When it cannot be sent.
    pub async fn execute(&mut self, code: &str) -> String {
        self.send(Channel::Shell, "execute_request", json!({ "code": code, "allow_stdin": false })).await
    }

    /// Runs code to its end.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn run(&mut self, code: &str) -> Run {
        let id = self.execute(code).await;
        self.finish(&id).await
    }

    /// Asks something and waits for the answer.
    ///
    /// # Panics
    /// When none comes.
    pub async fn ask(&mut self, channel: Channel, msg_type: &'static str) -> Run {
        let id = self.send(channel, msg_type, json!({})).await;
        self.finish(&id).await
    }

    /// Interrupts by message, and waits for the reply.
    ///
    /// # Panics
    /// When none comes.
    pub async fn interrupt(&mut self) {
        let answer = self.ask(Channel::Control, "interrupt_request").await;
        assert_eq!(answer.status(), "ok");
    }

    // --- Waiting ---------------------------------------------------------------------------------------------

    /// Takes the next message.
    ///
    /// # Panics
    /// When none comes, or one that cannot be read.
    pub async fn next(&mut self) -> &Seen {
        let delivery = within("a message", self.connection.recv()).await.expect("a readable message");
        self.remember(delivery)
    }

    /// Takes the next message of one channel and leaves the others unread.
    ///
    /// # Panics
    /// When none comes, or one that cannot be read.
    pub async fn next_on(&mut self, channel: Channel) -> &Seen {
        let delivery =
            within("a message", self.connection.recv_on(channel)).await.expect("a readable message");
        self.remember(delivery)
    }

    fn remember(&mut self, delivery: cob_clients::notebook::Delivery) -> &Seen {
        let content = serde_json::from_slice(&delivery.message.content).expect("content that is JSON");
        self.seen.push(Seen {
            channel: delivery.channel,
            msg_type: delivery.message.header.msg_type,
            parent: delivery.parent.map(|parent| parent.msg_id).unwrap_or_default(),
            content,
        });
        self.seen.last().expect("just pushed")
    }

    /// Takes messages until one of them, or one that came before, is what the test waits for.
    ///
    /// # Panics
    /// When none is.
    pub async fn until(&mut self, mut is_it: impl FnMut(&Seen) -> bool) -> Seen {
        let mut at = 0;
        loop {
            if let Some(found) = self.seen.get(at..).unwrap_or_default().iter().find(|seen| is_it(seen)) {
                return found.clone();
            }
            at = self.seen.len();
            self.next().await;
        }
    }

    /// Waits until a request has printed `text` on stdout.
    ///
    /// # Panics
    /// When it does not.
    pub async fn printed(&mut self, id: &str, text: &str) {
        let mut printed = String::new();
        self.until(|seen| {
            if seen.parent == id && seen.msg_type == "stream" && seen.text("name") == "stdout" {
                printed.push_str(seen.text("text"));
            }
            printed.contains(text)
        })
        .await;
    }

    /// Waits for reply and idle of a request.
    ///
    /// # Panics
    /// When they do not come, or more than one of either.
    pub async fn finish(&mut self, id: &str) -> Run {
        let (mut replied, mut idle) = (false, false);
        self.until(|seen| {
            if seen.parent == id {
                replied |= seen.is_reply();
                idle |= seen.is_state("idle");
            }
            replied && idle
        })
        .await;
        self.run_of(id)
    }

    /// What is known of a request that has ended.
    ///
    /// # Panics
    /// When it has no reply yet, or more than one, or if busy and idle do not enclose its broadcasts.
    #[must_use]
    pub fn run_of(&self, id: &str) -> Run {
        let of_it = self.seen.iter().filter(|seen| seen.parent == id);
        let replies: Vec<_> = of_it.clone().filter(|seen| seen.is_reply()).collect();
        let [reply] = replies.as_slice() else { unreachable!("{} replies to {id}", replies.len()) };
        let broadcasts: Vec<_> = of_it.filter(|seen| seen.channel == Channel::Iopub).cloned().collect();
        assert!(broadcasts.first().is_some_and(|seen| seen.is_state("busy")), "{broadcasts:#?}");
        assert!(broadcasts.last().is_some_and(|seen| seen.is_state("idle")), "{broadcasts:#?}");
        assert_eq!(broadcasts.iter().filter(|seen| seen.is_state("busy")).count(), 1);
        Run { reply: reply.content.clone(), broadcasts }
    }

    /// The states that were broadcast for no request, in order.
    #[must_use]
    pub fn own_states(&self) -> Vec<&str> {
        let own = self.seen.iter().filter(|seen| seen.parent.is_empty() && seen.msg_type == "status");
        own.map(|seen| seen.text("execution_state")).collect()
    }
}
