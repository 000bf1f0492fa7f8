//! A session of a server, asked through its commands, with a worker of Python: what agents are promised, without the
//! socket by which they come.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cob_bridge::{Bridge, SessionRecord, StoreOptions, Write};
use cob_kernel::outlet::Outlet;
use cob_kernel::recovery::Past;
use cob_kernel::request::{
    Address, Asked, Canceled, ClientRequest, Command, Given, InputSenders, Phase, Refusal, Snapshot, Via,
    lanes,
};
use cob_kernel::server::{ServerOutlet, SessionStatus};
use cob_kernel::session::{Config, End, Session};
use cob_pool::{Program, Workers};
use cob_protocol::content::agent::{CloseMode, Tool, ToolFailure};
use cob_protocol::error::ErrorCode;
use cob_protocol::event::Event;
use cob_protocol::ids::{PromiseId, SessionId};
use cob_protocol::json::Json;
use cob_protocol::message::{Channel, Incoming};
use cob_protocol::promise::{Durability, Promise, State};
use cob_protocol::resources::Limits;
use cob_protocol::time::SystemClock;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

#[path = "hosted/checkpoints.rs"]
mod checkpoints;
#[path = "hosted/ends.rs"]
mod ends;
#[path = "hosted/pressure.rs"]
mod pressure;

const SESSION: SessionId = SessionId(1);

/// What an interpreter is started with.
fn python() -> Program {
    let found =
        std::process::Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
    let path = String::from_utf8(found.unwrap().stdout).unwrap();
    Program {
        path: path.trim().into(),
        arguments: vec!["-c".into(), cob_python::BOOTSTRAP.into()],
        environment: std::env::vars_os().collect(),
        directory: Some(std::env::temp_dir()),
        image: Some(cob_python::MODULE),
    }
}

struct Hosted {
    senders: InputSenders,
    bridge: Bridge,
    status: watch::Receiver<SessionStatus>,
    life: JoinHandle<End>,
    asked: u64,
    /// Dropped last.
    _folder: Option<Folder>,
}

/// Removed with everything in it.
struct Folder(std::path::PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Hosted {
    /// Over a store on disk, which forgets nothing of what is open.
    fn on_disk() -> Self {
        let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(uuid::Uuid::new_v4().to_string());
        let bridge = Bridge::open(&StoreOptions::new(&folder), Arc::new(SystemClock)).unwrap();
        let _folder = Some(Folder(folder));
        Self { _folder, ..Self::with(bridge, None) }
    }

    fn start() -> Self {
        Self::with(Bridge::in_memory(Arc::new(SystemClock)), None)
    }

    fn with(bridge: Bridge, past: Option<Past>) -> Self {
        Self::having(bridge, past, None)
    }

    fn having(bridge: Bridge, past: Option<Past>, idle_timeout: Option<Duration>) -> Self {
        Self::configured(bridge, past, |config| config.idle_timeout = idle_timeout)
    }

    fn configured(bridge: Bridge, past: Option<Past>, configure: impl FnOnce(&mut Config)) -> Self {
        let outlet = Arc::new(ServerOutlet::new(SESSION));
        let status = outlet.watch();
        let mut config = Config {
            id: SESSION,
            program: python(),
            options: Json::object(),
            limits: Limits::default(),
            interrupt_grace: None,
            umask: None,
            is_confined: false,
            workers: Workers::Cold,
            ports: None,
            durability: Durability::Process,
            is_hosted: true,
            idle_timeout: None,
            about: None,
            survival: None,
            past,
            checkpoints: cob_protocol::checkpoint::Policy::default(),
            seed: None,
            history: Vec::new(),
        };
        configure(&mut config);
        if config.past.is_none() {
            // A server records a session before it begins; what is submitted later comes behind that.
            let open = Write::OpenSession { session: SESSION, about: Json::object() };
            drop(bridge.submit(Durability::Process, vec![open]));
        }
        let (senders, inputs) = lanes();
        let life = tokio::spawn(Session::new(config, bridge.clone(), Outlet::Server(outlet), inputs).run());
        Self { senders, bridge, status, life, asked: 0, _folder: None }
    }

    async fn command(&self, command: Command) {
        self.senders.commands.send(command).await.unwrap();
    }

    async fn ask<T>(&self, command: impl FnOnce(Asked<T>) -> Command) -> Result<T, Refusal> {
        let (asked, answer) = oneshot::channel();
        self.command(command(asked)).await;
        answer.await.unwrap()
    }

    async fn look(&self) -> Snapshot {
        let (asked, answer) = oneshot::channel();
        self.command(Command::Look(asked)).await;
        answer.await.unwrap()
    }

    /// Asks for an execution; its promise, in a session where nobody else asks.
    async fn execute(&mut self, code: &str, options: Value) -> PromiseId {
        let key = self.submit(code, options).await;
        self.until(async |hosted| hosted.bridge.find(SESSION, "local", &key).await.unwrap().map(|p| p.id))
            .await
    }

    /// Asks for an execution, and lets nobody else do anything meanwhile; its key.
    async fn submit(&mut self, code: &str, options: Value) -> String {
        self.asked += 1;
        let key = format!("k{}", self.asked);
        let request = asked_for(&key, code, options);
        self.senders.shell.send(request).await.unwrap();
        key
    }

    async fn run(&mut self, code: &str) -> Promise {
        let id = self.execute(code, json!({})).await;
        self.bridge.wait(id).await.unwrap()
    }

    /// The value of an expression.
    async fn value(&mut self, expression: &str) -> String {
        let id = self.execute(expression, json!({})).await;
        let settled = self.bridge.wait(id).await.unwrap();
        let events = self.bridge.events(id, 1, 100, 1 << 20).await.unwrap();
        let result = events.iter().find_map(|known| match &*known.event {
            Event::Result(content) => Some(content.read::<Value>().unwrap()),
            _ => None,
        });
        let result = result.unwrap_or_else(|| panic!("{expression}: {settled:?}"));
        result["data"]["text/plain"].as_str().unwrap().to_owned()
    }

    /// Looks until something is there. Every look lets the session go on.
    async fn until<T>(&mut self, mut look: impl AsyncFnMut(&Self) -> Option<T>) -> T {
        loop {
            if let Some(found) = look(self).await {
                return found;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn phase(&mut self, phase: Phase) {
        self.status.wait_for(|status| status.state == phase).await.unwrap();
    }

    /// The call that the running code waits for.
    async fn call(&mut self) -> PromiseId {
        self.phase(Phase::Asking).await;
        self.look().await.asking.unwrap()
    }

    async fn close(self, mode: CloseMode) {
        self.ask(|asked| Command::Close(mode, asked)).await.unwrap();
        assert!(matches!(self.life.await.unwrap(), End::Shutdown));
    }
}

/// A request to run code.
fn asked_for(key: &str, code: &str, mut options: Value) -> ClientRequest {
    options["idempotency_key"] = key.into();
    let header = json!({ "msg_id": key, "msg_type": "execute_request", "session": "agent" });
    let header_json = Json::from(header);
    let content = json!({ "code": code, "allow_stdin": true, "stop_on_error": false });
    let message = Incoming {
        header: header_json.read().unwrap(),
        header_json,
        metadata: Json::from(json!({ "cob": options })),
        content: Bytes::from(content.to_string()),
        buffers: Vec::new(),
    };
    ClientRequest::of(agent(), "local".to_owned(), Channel::Shell, message)
}

fn agent() -> Address {
    Address { via: Via::Agents, identity: Bytes::from_static(b"peer") }
}

fn code_of(promise: &Promise) -> String {
    let value: Value = promise.value.as_ref().unwrap().read().unwrap();
    value["code"].as_str().unwrap_or_default().to_owned()
}

fn tool(name: &str) -> Tool {
    Tool { name: name.to_owned(), description: None, parameters: None }
}

fn number(value: u64) -> Json {
    Json::from(json!(value))
}

#[tokio::test]
async fn what_waits_is_cancelled_unrun_and_what_runs_is_interrupted() {
    let mut hosted = Hosted::start();
    let running = hosted.execute("x = 1\nimport cob\ncob.tools.go()", json!({})).await;
    hosted.call().await;
    let waiting = hosted.execute("x = 2", json!({})).await;
    hosted.until(async |hosted| (hosted.look().await.queue.len() == 1).then_some(())).await;
    let canceled = hosted.ask(|asked| Command::Cancel(waiting, asked)).await;
    assert_eq!(canceled, Ok(Canceled::Queued));
    let settled = hosted.bridge.promise(waiting).await.unwrap().unwrap();
    assert_eq!((settled.state, code_of(&settled).as_str()), (State::RejectedCanceled, "canceled"));
    assert_eq!(hosted.ask(|asked| Command::Cancel(running, asked)).await, Ok(Canceled::Running));
    assert_eq!(hosted.bridge.wait(running).await.unwrap().state, State::RejectedCanceled);
    assert_eq!(hosted.value("x").await, "1");
    for (id, code) in [
        (running, ErrorCode::AlreadySettled),
        (PromiseId::execution(SESSION, 99), ErrorCode::UnknownPromise),
        (running.with_call(1), ErrorCode::UnknownPromise),
    ] {
        assert_eq!(hosted.ask(|asked| Command::Cancel(id, asked)).await.unwrap_err().code, code, "{id}");
    }
    hosted.close(CloseMode::Now).await;
}

#[tokio::test]
async fn a_restart_settles_what_ran_and_waited_and_begins_with_nothing() {
    let mut hosted = Hosted::start();
    assert_eq!(hosted.run("x = 1").await.state, State::Resolved);
    let running = hosted.execute("while True: pass", json!({})).await;
    let waiting = hosted.execute("1", json!({})).await;
    hosted.phase(Phase::Busy).await;
    hosted.ask(Command::Restart).await.unwrap();
    for id in [running, waiting] {
        let settled = hosted.bridge.wait(id).await.unwrap();
        assert_eq!(
            (settled.state, code_of(&settled).as_str()),
            (State::RejectedCanceled, "restarted"),
            "{id}"
        );
    }
    assert_eq!(hosted.value("'x' in globals()").await, "False");
    hosted.close(CloseMode::Now).await;
}

#[tokio::test]
async fn a_drained_session_does_what_it_had_and_nothing_new() {
    let mut hosted = Hosted::start();
    let asking = hosted.execute("cob = __import__('cob'); cob.tools.go()", json!({})).await;
    let waiting = hosted.execute("2", json!({})).await;
    let call = hosted.call().await;
    let (asked, closed) = oneshot::channel();
    hosted.command(Command::Close(CloseMode::Drain, asked)).await;
    hosted.phase(Phase::Closing).await;
    let value = Given::Value(number(1));
    hosted.ask(|asked| Command::Answer(call, value, asked)).await.unwrap();
    closed.await.unwrap().unwrap();
    for id in [asking, waiting] {
        assert_eq!(hosted.bridge.promise(id).await.unwrap().unwrap().state, State::Resolved, "{id}");
    }
    assert!(hosted.bridge.sessions().await.unwrap()[0].closed_at.is_some());
    assert!(matches!(hosted.life.await.unwrap(), End::Shutdown));
}

#[tokio::test]
async fn higher_ones_go_before_lower_ones_and_output_is_narrowed() {
    let mut hosted = Hosted::start();
    hosted.execute("import cob; order = []; cob.tools.go()", json!({})).await;
    let call = hosted.call().await;
    let mut last = None;
    for (name, priority) in [("low", -1), ("first", 0), ("second", 0), ("high", 5)] {
        let code = format!("order.append('{name}'); print('x' * 10_000)");
        let options = json!({ "priority": priority, "output_limit": 100 });
        let id = hosted.execute(&code, options).await;
        last = last.or(Some(id));
    }
    hosted.until(async |hosted| (hosted.look().await.queue.len() == 4).then_some(())).await;
    hosted.ask(|asked| Command::Answer(call, Given::Value(number(1)), asked)).await.unwrap();
    let low = hosted.bridge.wait(last.unwrap()).await.unwrap();
    assert_eq!(low.tally.written - low.tally.dropped, 100);
    assert_eq!(hosted.value("order").await, "['high', 'first', 'second', 'low']");
    hosted.close(CloseMode::Now).await;
}

#[tokio::test]
async fn code_calls_tools_of_clients() {
    let mut hosted = Hosted::start();
    hosted.run("import cob").await;
    let code = "[cob.tools.add(a=1, b=[2]), dir(cob.tools)]";
    let id = hosted.execute(code, json!({ "traceparent": "00-1-2-3" })).await;
    let call = hosted.call().await;
    hosted.ask(|asked| Command::RegisterTools(agent(), vec![tool("add")], asked)).await.unwrap();
    let request: Value = hosted.bridge.request(call).await.unwrap().unwrap().read().unwrap();
    assert_eq!(request["arguments"], json!({ "name": "add", "arguments": { "a": 1, "b": [2] } }));
    let value = Given::Value(Json::from(json!({ "sum": 3 })));
    hosted.ask(|asked| Command::Answer(call, value, asked)).await.unwrap();
    assert_eq!(hosted.bridge.wait(id).await.unwrap().state, State::Resolved);
    let again = hosted.ask(|asked| Command::Answer(call, Given::Value(number(0)), asked)).await;
    assert_eq!(again.unwrap_err().code, ErrorCode::AlreadySettled);
    assert_eq!(hosted.value("Out[2]").await, "[{'sum': 3}, ['add', 'call']]");

    let traced = "t = cob.execution()['traceparent']";
    let id = hosted.execute(traced, json!({ "traceparent": "00-1-2-3" })).await;
    hosted.bridge.wait(id).await.unwrap();
    assert_eq!(hosted.value("t").await, "'00-1-2-3'");

    let failing =
        "try: cob.tools.add()\nexcept cob.ToolError as e: print(end=''); caught = e.ename, e.evalue";
    let id = hosted.execute(failing, json!({})).await;
    let call = hosted.call().await;
    let failure = ToolFailure { ename: "E".to_owned(), evalue: "v".to_owned() };
    hosted.ask(|asked| Command::Answer(call, Given::Failed(failure), asked)).await.unwrap();
    hosted.bridge.wait(id).await.unwrap();
    assert_eq!(hosted.bridge.promise(call).await.unwrap().unwrap().state, State::Rejected);
    assert_eq!(hosted.value("caught").await, "('E', 'v')");
    let refused = "try: cob.tools.add(x=object())\nexcept TypeError as e: caught = 'TypeError'";
    hosted.run(refused).await;
    assert_eq!(hosted.value("caught").await, "'TypeError'");
    hosted.close(CloseMode::Now).await;
}

#[tokio::test]
async fn a_tool_that_nobody_offers_is_unavailable_in_the_end() {
    let mut hosted = Hosted::start();
    let code = "import cob\ntry: cob.tools.call('x', {}, timeout=0)\nexcept cob.ToolUnavailable: r = 1";
    let id = hosted.execute(code, json!({})).await;
    let due = hosted.bridge.due().await;
    assert_eq!(due, id.with_call(1));
    hosted.command(Command::Overdue(due)).await;
    assert_eq!(hosted.bridge.wait(id).await.unwrap().state, State::Resolved);
    assert_eq!(hosted.bridge.promise(due).await.unwrap().unwrap().state, State::RejectedTimedOut);
    assert_eq!(hosted.value("r").await, "1");
    hosted.close(CloseMode::Now).await;
}

#[tokio::test]
async fn input_is_answered_by_promise_and_with_a_text() {
    let mut hosted = Hosted::start();
    let id = hosted.execute("name = input('Name? ')", json!({})).await;
    let call = hosted.call().await;
    let refused = hosted.ask(|asked| Command::Answer(call, Given::Value(number(1)), asked)).await;
    assert_eq!(refused.unwrap_err().code, ErrorCode::BadRequest);
    let text = Given::Value(Json::from(json!("Ada")));
    hosted.ask(|asked| Command::Answer(call, text, asked)).await.unwrap();
    assert_eq!(hosted.bridge.wait(id).await.unwrap().state, State::Resolved);
    assert_eq!(hosted.value("name").await, "'Ada'");
    hosted.close(CloseMode::Now).await;
}

#[tokio::test]
async fn a_deadline_that_is_routed_ends_what_runs() {
    let mut hosted = Hosted::start();
    hosted.run("import time").await;
    let id = hosted.execute("time.sleep(1000)", json!({ "deadline_ms": 1 })).await;
    let due = hosted.bridge.due().await;
    assert_eq!(due, id);
    hosted.bridge.attend(due);
    hosted.command(Command::Overdue(due)).await;
    assert_eq!(hosted.bridge.wait(id).await.unwrap().state, State::RejectedTimedOut);
    assert_eq!(hosted.value("1").await, "1");
    hosted.close(CloseMode::Now).await;
}

#[tokio::test]
async fn items_go_through_a_channel_both_ways_and_are_there_once() {
    let mut hosted = Hosted::start();
    let data = |number, data| move |asked| Command::ChannelData("c".to_owned(), number, data, asked);
    let open = |asked| Command::OpenChannel("c".to_owned(), asked);
    let state = hosted.ask(open).await.unwrap();
    assert_eq!((state.next, state.is_closed), (1, false));
    let code = "import cob\nc = cob.channel('c')\nfor item in c: c.send([item])\nc.close()";
    let id = hosted.execute(code, json!({})).await;
    for (number, sent) in [(Some(1), 7), (Some(1), 7), (None, 8)] {
        let expected = number.unwrap_or(2);
        assert_eq!(hosted.ask(data(number, Json::from(json!(sent)))).await, Ok(expected));
    }
    let other = hosted.ask(data(Some(1), number(0))).await;
    assert_eq!(other.unwrap_err().code, ErrorCode::AlreadySettled);
    assert_eq!(hosted.ask(data(Some(9), number(0))).await.unwrap_err().code, ErrorCode::BadRequest);
    hosted.ask(|asked| Command::CloseChannel("c".to_owned(), asked)).await.unwrap();
    assert_eq!(hosted.bridge.wait(id).await.unwrap().state, State::Resolved);
    let out = hosted.bridge.wait(state.from_code).await.unwrap();
    assert_eq!((out.state, out.last_event), (State::Resolved, 2));
    let events = hosted.bridge.events(state.from_code, 1, 10, 1 << 20).await.unwrap();
    let items: Vec<_> = events.iter().map(|known| known.event.clone()).collect();
    let item = |text: &str| Arc::new(Event::Data(Json::parse(text).unwrap()));
    assert_eq!(items, [item("[7]"), item("[8]")]);
    let closed = hosted.value("[type(e).__name__ for e in [__import__('cob').ChannelClosed()]]").await;
    assert_eq!(closed, "['ChannelClosed']");
    hosted.close(CloseMode::Now).await;
}

#[tokio::test]
async fn a_sender_waits_for_the_reader_and_an_unread_channel_is_busy() {
    let mut hosted = Hosted::on_disk();
    let code = "import cob\nc = cob.channel('c')\nfor i in range(20): c.send('x' * 1_000_000); sent = i + 1";
    let id = hosted.execute(code, json!({})).await;
    let open = |asked| Command::OpenChannel("c".to_owned(), asked);
    let from_code = hosted.ask(open).await.unwrap().from_code;
    let mut follower = hosted.bridge.follow(from_code, 1);
    let mut last = 0;
    while last < 17 {
        last = follower.next(100).await.unwrap().last().unwrap().number;
    }
    assert_eq!(last, 17);
    assert_eq!(hosted.look().await.running, Some(id));
    hosted.command(Command::ChannelGranted("c".to_owned(), 100)).await;
    assert_eq!(hosted.bridge.wait(id).await.unwrap().state, State::Resolved);

    let large = Json::from(json!("x".repeat(1_000_000)));
    let data = |asked| Command::ChannelData("c".to_owned(), None, large.clone(), asked);
    let mut taken = 0;
    let refusal = loop {
        match hosted.ask(data).await {
            Ok(_) => taken += 1,
            Err(refusal) => break refusal,
        }
    };
    assert_eq!((refusal.code, taken), (ErrorCode::Busy, 17));
    assert_eq!(hosted.value("sum(len(c.recv()) for i in range(17))").await, "17000000");
    assert!(hosted.ask(data).await.is_ok());
    let late = "try: c.recv(); c.recv(timeout=0)\nexcept TimeoutError: r = 1";
    hosted.run(late).await;
    assert_eq!(hosted.value("r").await, "1");
    hosted.close(CloseMode::Now).await;
}

#[tokio::test]
async fn an_item_whose_sending_was_interrupted_is_not_taken_for_the_next() {
    let mut hosted = Hosted::start();
    let code = "import cob\nc = cob.channel('c')\nfor i in range(20): c.send('x' * 1_000_000)";
    let id = hosted.execute(code, json!({})).await;
    let open = |asked| Command::OpenChannel("c".to_owned(), asked);
    let from_code = hosted.ask(open).await.unwrap().from_code;
    let mut follower = hosted.bridge.follow(from_code, 17);
    assert_eq!(follower.next(1).await.unwrap()[0].number, 17);
    hosted.command(Command::Interrupt).await;
    assert_eq!(hosted.bridge.wait(id).await.unwrap().state, State::RejectedCanceled);
    hosted.command(Command::ChannelGranted("c".to_owned(), 100)).await;
    hosted.run("c.send('after')").await;
    let after = follower.next(1).await.unwrap();
    assert_eq!(*after[0].event, Event::Data(Json::parse("\"after\"").unwrap()));
    hosted.close(CloseMode::Now).await;
}

#[tokio::test]
async fn the_namespace_is_told_without_running_anything_of_the_users() {
    let mut hosted = Hosted::start();
    let code = "class Meta(type):\n    def __eq__(c, o): raise SystemExit\n    __hash__ = None\n\
                class Evil(metaclass=Meta):\n    def __len__(self): raise SystemExit\n    __repr__ = __len__\n\
                e = Evil(); l = [1, 2]; s = 'secret'";
    assert_eq!(hosted.run(code).await.state, State::Resolved);
    let summary = hosted.until(async |hosted| hosted.ask(Command::Namespace).await.ok()).await;
    let summary: Vec<Value> = summary.read().unwrap();
    let named = |name: &str| summary.iter().find(|entry| entry["name"] == name).unwrap().clone();
    assert_eq!(named("e"), json!({ "name": "e", "type": "Evil" }));
    assert_eq!(named("l"), json!({ "name": "l", "type": "list", "len": 2 }));
    assert_eq!(named("s")["len"], 6);
    assert!(!format!("{summary:?}").contains("secret"));
    let running = hosted.execute("while True: pass", json!({})).await;
    hosted.phase(Phase::Busy).await;
    assert_eq!(hosted.ask(Command::Namespace).await.unwrap_err().code, ErrorCode::Busy);
    assert_eq!(hosted.look().await.running, Some(running));
    hosted.close(CloseMode::Now).await;
}

#[tokio::test]
async fn a_session_that_is_found_without_its_worker_sleeps_until_it_is_needed() {
    let bridge = Bridge::in_memory(Arc::new(SystemClock));
    let hosted = Hosted::with(bridge.clone(), None);
    // Its server goes away; the channel and its item stay.
    let data = |asked| Command::ChannelData("c".to_owned(), None, number(5), asked);
    assert_eq!(hosted.ask(data).await, Ok(1));
    hosted.life.abort();
    let _ = hosted.life.await;
    let record: SessionRecord = bridge.sessions().await.unwrap().remove(0);
    let past = Past::read(&bridge, record).await.unwrap();
    let mut hosted = Hosted::with(bridge, Some(past));
    hosted.phase(Phase::Dormant).await;
    let seen = hosted.look().await;
    assert_eq!((seen.channels, seen.worker.is_none()), (vec!["c".to_owned()], true));
    assert_eq!(hosted.ask(Command::Namespace).await.unwrap(), Json::array());
    let open = |asked| Command::OpenChannel("c".to_owned(), asked);
    assert_eq!(hosted.ask(open).await.unwrap().next, 2);
    assert_eq!(hosted.value("__import__('cob').channel('c').recv()").await, "5");
    hosted.close(CloseMode::Now).await;
}

#[tokio::test]
async fn closing_a_session_settles_everything() {
    let mut hosted = Hosted::start();
    let open = |asked| Command::OpenChannel("c".to_owned(), asked);
    let channel = hosted.ask(open).await.unwrap().from_code;
    let running = hosted.execute("while True: pass", json!({})).await;
    let waiting = hosted.execute("1", json!({})).await;
    hosted.phase(Phase::Busy).await;
    let bridge = hosted.bridge.clone();
    hosted.close(CloseMode::Now).await;
    assert_eq!(bridge.promise(running).await.unwrap().unwrap().state, State::RejectedCanceled);
    let unrun = bridge.promise(waiting).await.unwrap().unwrap();
    assert_eq!((unrun.state, code_of(&unrun).as_str()), (State::RejectedCanceled, "session_closed"));
    assert_eq!(bridge.promise(channel).await.unwrap().unwrap().state, State::Resolved);
    assert!(bridge.unsettled(SESSION).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_session_that_has_had_nothing_to_do_for_long_enough_ends() {
    let bridge = Bridge::in_memory(Arc::new(SystemClock));
    let mut hosted = Hosted::having(bridge.clone(), None, Some(Duration::from_millis(200)));
    // What runs is no idleness, however long it takes.
    let id = hosted.execute("import time; time.sleep(0.5)", json!({})).await;
    assert!(matches!(hosted.life.await.unwrap(), End::Shutdown));
    assert_eq!(bridge.promise(id).await.unwrap().unwrap().state, State::Resolved);
    assert!(bridge.sessions().await.unwrap()[0].closed_at.is_some());
}

#[tokio::test]
async fn what_cannot_be_done_in_a_session_is_refused_with_a_reason() {
    let hosted = Hosted::start();
    for name in ["", "a\n", &"x".repeat(248)] {
        let open = |asked| Command::OpenChannel(name.to_owned(), asked);
        assert_eq!(hosted.ask(open).await.unwrap_err().code, ErrorCode::BadRequest, "{name:?}");
    }
    let bad = vec![tool("not a name")];
    let register = |asked| Command::RegisterTools(agent(), bad, asked);
    assert_eq!(hosted.ask(register).await.unwrap_err().code, ErrorCode::BadRequest);
    let call = PromiseId::execution(SESSION, 1);
    let answer = |asked| Command::Answer(call, Given::Eof, asked);
    assert_eq!(hosted.ask(answer).await.unwrap_err().code, ErrorCode::UnknownPromise);
    let answer = |asked| Command::Answer(call.with_call(1), Given::Eof, asked);
    assert_eq!(hosted.ask(answer).await.unwrap_err().code, ErrorCode::UnknownPromise);
    hosted.close(CloseMode::Now).await;
}
