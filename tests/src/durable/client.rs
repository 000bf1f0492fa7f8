//! A client that keeps its names across connections, writes down everything that happens to it, and notices at once
//! when its kernel is gone.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use cob_clients::notebook::ConnectionFile;
use cob_clients::zmtp::codec::Item;
use cob_clients::zmtp::{Message, SocketType};
use cob_protocol::signing::{ReplayWindow, Signer};
use cob_protocol::wire;
use serde_json::{Value, json};

use crate::history::{Asked, Entry, History};
use crate::raw::{Raw, signed_parts};
use crate::within;

/// Something that came.
#[derive(Clone, Debug)]
pub struct Came {
    /// Its type.
    pub msg_type: String,
    /// The request that it is about: its key.
    pub key: String,
    /// Its content, byte for byte.
    pub content: Bytes,
    /// Its metadata.
    pub metadata: Value,
    /// Its header.
    pub header: Value,
}

impl Came {
    /// The content, read.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.content).unwrap_or_default()
    }

    /// The content as text.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8(self.content.to_vec()).expect("JSON is UTF-8")
    }

    /// Whether it is the reply to a request that runs code.
    #[must_use]
    pub fn is_reply(&self) -> bool {
        self.msg_type == "execute_reply"
    }

    /// Whether it says that the session is in this state.
    #[must_use]
    pub fn is_state(&self, state: &str) -> bool {
        self.msg_type == "status" && self.json()["execution_state"] == state
    }
}

/// One connection of a client.
pub struct Client {
    file: ConnectionFile,
    session: String,
    connection: u64,
    history: History,
    signer: Signer,
    window: ReplayWindow,
    shell: Option<Raw>,
    iopub: Option<Raw>,
    stdin: Option<Raw>,
}

impl Client {
    /// Connects as `session`, and waits for the welcome; `None` when the kernel ends meanwhile.
    ///
    /// # Panics
    /// When something else comes first.
    pub async fn connect(file: &ConnectionFile, history: &History, session: &str) -> Option<Self> {
        let connection = history.connect();
        // Several connections of one client may be open at once.
        let identity = format!("{session}-{connection}").into_bytes();
        let mut iopub = Raw::try_ready(file, file.iopub_port, SocketType::Sub, b"").await?;
        iopub.send(&[0, 1, 1]).await;
        let shell = Raw::try_ready(file, file.shell_port, SocketType::Dealer, &identity).await?;
        let stdin = Raw::try_ready(file, file.stdin_port, SocketType::Dealer, &identity).await?;
        let signer = Signer::new(&file.signature_scheme, file.key.as_bytes()).expect("a scheme that exists");
        let mut client = Self {
            file: file.clone(),
            session: session.to_owned(),
            connection,
            history: history.clone(),
            signer,
            window: ReplayWindow::default(),
            shell: Some(shell),
            iopub: None,
            stdin: Some(stdin),
        };
        let Some(Item::Message(welcome)) = iopub.next().await else { return None };
        let welcome = client.read(welcome);
        assert_eq!(welcome.msg_type, "iopub_welcome");
        client.iopub = Some(iopub);
        Some(client)
    }

    // --- Asking ----------------------------------------------------------------------------------------------

    /// Asks for code to be run, for the first time or again.
    pub async fn execute(&mut self, key: &str, code: &str, asked: Asked) {
        let content = json!({ "code": code, "allow_stdin": true, "stop_on_error": false });
        self.execute_with(key, &content, &json!({}), asked).await;
    }

    /// The same, with a content and metadata of the test's own.
    pub async fn execute_with(&mut self, key: &str, content: &Value, metadata: &Value, asked: Asked) {
        self.history.invoke(self.connection, key, asked);
        let parts = self.message("execute_request", key, content, metadata, &json!({}));
        if let Some(shell) = &mut self.shell {
            shell.message(&parts).await;
        }
    }

    /// Asks something that runs no code, and waits for the answer and its idle; `None` when the kernel ends first.
    ///
    /// # Panics
    /// As [`next`](Self::next).
    pub async fn ask(&mut self, msg_type: &str) -> Option<Value> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = format!("ask-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let parts = self.message(msg_type, &id, &json!({}), &json!({}), &json!({}));
        if let Some(shell) = &mut self.shell {
            shell.message(&parts).await;
        }
        let (mut reply, mut is_idle) = (None, false);
        while reply.is_none() || !is_idle {
            let came = self.next().await?;
            if came.key == id {
                is_idle |= came.is_state("idle");
                reply = reply.or_else(|| came.msg_type.ends_with("_reply").then(|| came.json()));
            }
        }
        reply
    }

    /// Sends something that overtakes everything else, and waits for its reply.
    ///
    /// # Panics
    /// When the kernel ends first.
    pub async fn control(&mut self, msg_type: &str) {
        let port = self.file.control_port;
        let control = Raw::try_ready(&self.file, port, SocketType::Dealer, self.session.as_bytes()).await;
        let mut control = control.expect("a kernel to connect to");
        control.message(&self.message(msg_type, "control", &json!({}), &json!({}), &json!({}))).await;
        control.next_message().await.expect("a reply");
    }

    /// Answers a question.
    pub async fn answer(&mut self, question: &Came, value: &str) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = format!("answer-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let content = json!({ "value": value });
        let parts = self.message("input_reply", &id, &content, &json!({}), &question.header);
        if let Some(stdin) = &mut self.stdin {
            stdin.message(&parts).await;
        }
    }

    /// A signed message that differs from every other one, as a retry of the same request does.
    fn message(&self, kind: &str, id: &str, content: &Value, metadata: &Value, parent: &Value) -> Vec<Bytes> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let attempt = NEXT.fetch_add(1, Ordering::Relaxed);
        let date = format!("2030-01-01T00:00:00.{:06}Z", attempt % 1_000_000);
        let header = json!({
            "msg_id": id, "msg_type": kind, "session": self.session, "username": "test", "date": date,
            "version": "5.5", "attempt": attempt,
        });
        let parts = [&header, parent, metadata, content].map(|part| Bytes::from(part.to_string()));
        signed_parts(&self.file, parts)
    }

    // --- Waiting ---------------------------------------------------------------------------------------------

    /// The next thing that comes, on any channel; `None` once the kernel has closed all of them.
    ///
    /// # Panics
    /// When nothing comes, or something that cannot be read.
    pub async fn next(&mut self) -> Option<Came> {
        loop {
            let (channel, item) = within("a message", async {
                tokio::select! {
                    item = next_of(&mut self.iopub) => (0, item),
                    item = next_of(&mut self.shell) => (1, item),
                    item = next_of(&mut self.stdin) => (2, item),
                }
            })
            .await;
            match item {
                Some(Item::Message(message)) => {
                    let came = self.read(message);
                    self.write_down(channel == 0, &came);
                    return Some(came);
                }
                Some(Item::Command(_)) => {}
                None => {
                    *[&mut self.iopub, &mut self.shell, &mut self.stdin][channel] = None;
                    if self.iopub.is_none() && self.shell.is_none() && self.stdin.is_none() {
                        return None;
                    }
                }
            }
        }
    }

    /// Takes what comes until something is what the test waits for; `None` when the kernel ends first.
    ///
    /// # Panics
    /// As [`next`](Self::next).
    pub async fn until(&mut self, mut is_it: impl FnMut(&Came) -> bool) -> Option<Came> {
        loop {
            let came = self.next().await?;
            if is_it(&came) {
                return Some(came);
            }
        }
    }

    /// Waits for reply and idle of a request; the reply, or `None` when the kernel ends before it.
    ///
    /// # Panics
    /// As [`next`](Self::next).
    pub async fn finish(&mut self, key: &str) -> Option<Value> {
        let (mut reply, mut is_idle) = (None, false);
        while reply.is_none() || !is_idle {
            let Some(came) = self.next().await else { break };
            if came.key == key && came.is_reply() {
                reply = Some(came.json());
            } else if came.key == key && came.msg_type == "status" {
                is_idle = came.is_state("idle");
            }
        }
        reply
    }

    /// Runs code to its end.
    ///
    /// # Panics
    /// As [`next`](Self::next).
    pub async fn run(&mut self, key: &str, code: &str, asked: Asked) -> Option<Value> {
        self.execute(key, code, asked).await;
        self.finish(key).await
    }

    /// Waits until a request has printed a line, from its beginning; `false` when the kernel ends first.
    ///
    /// # Panics
    /// As [`next`](Self::next).
    pub async fn printed(&mut self, key: &str, text: &str) -> bool {
        let mut printed = String::new();
        let found = self.until(|came| {
            if came.key == key && came.msg_type == "stream" {
                printed.push_str(came.json()["text"].as_str().unwrap_or_default());
            }
            printed.contains(text)
        });
        found.await.is_some()
    }

    fn read(&mut self, message: Message) -> Came {
        let parts: Vec<Bytes> = message.into_iter().collect();
        let (message, parent) =
            wire::parse_answer(&parts, &self.signer, &mut self.window).expect("a signed message");
        let parent: Value = serde_json::from_slice(&parent).unwrap_or_default();
        Came {
            key: parent["msg_id"].as_str().unwrap_or_default().to_owned(),
            metadata: message.metadata.read().unwrap_or_default(),
            header: message.header_json.read().unwrap_or_default(),
            msg_type: message.header.msg_type,
            content: message.content,
        }
    }

    fn write_down(&self, is_broadcast: bool, came: &Came) {
        let entry = if came.is_reply() {
            Entry::Replied { content: came.text() }
        } else if is_broadcast && !came.key.is_empty() {
            let is_late = came.metadata["late"] == true;
            Entry::Saw { msg_type: came.msg_type.clone(), content: came.json(), is_late }
        } else {
            return;
        };
        self.history.add(self.connection, &came.key, entry);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.history.disconnect(self.connection);
    }
}

/// Cancel-safe; for ever nothing once the connection is closed.
async fn next_of(raw: &mut Option<Raw>) -> Option<Item> {
    match raw {
        Some(raw) => raw.next_now().await,
        None => std::future::pending().await,
    }
}
