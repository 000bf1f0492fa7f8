//! What a kernel records: who asks again gets the same answer, and who asks too late is told so.

use std::ffi::OsStr;
use std::path::Path;

use bytes::Bytes;
use cob_bridge::{Read, SqliteReader, StoreWatch};
use cob_clients::notebook::ConnectionFile;
use cob_clients::zmtp::SocketType;
use cob_protocol::ids::SessionId;
use cob_protocol::json::Json;
use cob_protocol::message::{Channel, Outgoing};
use cob_tests::client::TestClient;
use cob_tests::kernel::{GATE, Setup, TestKernel, command};
use cob_tests::raw::{Raw, signed_parts};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

const ONE_EFFECT: &str = "open('effects', 'a').write('x')";

pub(crate) fn on(store: &Path) -> Setup {
    Setup::new().argument("--store").argument(store)
}

pub(crate) fn store() -> (TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    (folder, store)
}

pub(crate) async fn killed(mut kernel: TestKernel) {
    kernel.signal(Signal::KILL);
    kernel.end().await;
}

/// A client that writes its messages by hand.
struct Peer<'a> {
    file: &'a ConnectionFile,
    shell: Raw,
    session: &'static str,
    sent: u32,
}

/// Metadata and content of a message, as they came.
type Answer = (Bytes, Bytes);

impl<'a> Peer<'a> {
    async fn of(kernel: &'a TestKernel, session: &'static str) -> Self {
        let file = &kernel.file;
        let shell = Raw::ready(file, file.shell_port, SocketType::Dealer).await;
        Self { file, shell, session, sent: 0 }
    }

    async fn send(&mut self, id: &str, kind: &str, options: Value, content: &str) {
        self.sent += 1;
        let header = json!({
            "msg_id": id, "msg_type": kind, "session": self.session, "username": "u",
            "date": format!("2030-01-01T00:00:{:02}Z", self.sent), "version": "5.5",
        });
        let metadata = json!({ "cob": options });
        let parts = [header.to_string(), "{}".into(), metadata.to_string(), content.to_owned()];
        self.shell.message(&signed_parts(self.file, parts.map(Bytes::from))).await;
    }

    async fn execute(&mut self, id: &str, options: Value, code: &str) {
        let content = json!({ "code": code, "allow_stdin": false }).to_string();
        self.send(id, "execute_request", options, &content).await;
    }

    async fn next(&mut self) -> Answer {
        let parts = self.shell.next_message().await.expect("a reply");
        (parts[4].clone(), parts[5].clone())
    }

    /// Waits until what was sent before is taken in.
    async fn taken_in(&mut self) {
        self.send("look", "kernel_info_request", json!({}), "{}").await;
        assert_eq!(read(&self.next().await.1)["implementation"], "cob");
    }
}

/// Waits until the promise of a request of the client `one` is in the store: what comes together with others is recorded
/// a moment after it was taken in.
fn recorded(store: &Path, msg_id: &str) {
    let mut watch = StoreWatch::new(store).unwrap();
    let mut reader = SqliteReader::open(store).unwrap();
    while reader.find(SessionId(1), "one", msg_id).unwrap().is_none() {
        watch.wait().unwrap();
    }
}

fn read(part: &Bytes) -> Value {
    serde_json::from_slice(part).unwrap()
}

fn effects(kernel: &TestKernel) -> usize {
    std::fs::read(kernel.folder().join("cwd/effects")).map_or(0, |effects| effects.len())
}

// --- The same question again ---------------------------------------------------------------------------------

#[tokio::test]
async fn a_retry_after_a_restart_gets_the_stored_reply_byte_for_byte() {
    let (_folder, store) = store();
    let first = on(&store).start().await;
    let mut peer = Peer::of(&first, "one").await;
    peer.execute("a", json!({}), &format!("{ONE_EFFECT}\n1 / 0")).await;
    let answer = peer.next().await;
    assert_eq!(read(&answer.1)["ename"], "ZeroDivisionError");
    assert_eq!(read(&answer.0)["cob"]["promise"], "s1.e1");
    assert_eq!(effects(&first), 1);
    killed(first).await;
    // Twice: what recovery itself records changes nothing.
    for _ in 0..2 {
        let again = on(&store).start().await;
        let mut peer = Peer::of(&again, "one").await;
        peer.execute("a", json!({}), &format!("{ONE_EFFECT}\n1 / 0")).await;
        assert_eq!(peer.next().await, answer);
        assert_eq!(effects(&again), 0);
        killed(again).await;
    }
}

#[tokio::test]
async fn what_ran_when_the_kernel_died_is_lost_with_it_and_every_retry_is_told_the_same() {
    let (_folder, store) = store();
    let first = on(&store).start().await;
    let mut peer = Peer::of(&first, "one").await;
    peer.execute("before", json!({}), "1").await;
    peer.next().await;
    let mut client = first.client().await;
    peer.execute("a", json!({}), &format!("print('runs', flush=True)\n{GATE}")).await;
    client.until(|seen| seen.text("text").contains("runs")).await;
    peer.execute("waits", json!({}), "print('never')").await;
    recorded(&store, "waits");
    killed(first).await;
    let mut told = None;
    for _ in 0..2 {
        let again = on(&store).start().await;
        let mut peer = Peer::of(&again, "one").await;
        peer.execute("a", json!({}), &format!("print('runs', flush=True)\n{GATE}")).await;
        let answer = peer.next().await;
        let (metadata, content) = (read(&answer.0), read(&answer.1));
        assert_eq!((&content["code"], &content["session_state"]), (&json!("execution_lost"), &json!("lost")));
        assert_eq!(metadata["cob"]["session_state"], "lost");
        assert_eq!(content["execution_count"], 2);
        assert_eq!(told.get_or_insert_with(|| answer.clone()), &answer);
        // The same client's next cell goes the way of all that wait behind an error.
        peer.execute("waits", json!({}), "print('never')").await;
        assert_eq!(read(&peer.next().await.1)["status"], "aborted");
        peer.execute("new", json!({}), "1").await;
        assert_eq!(read(&peer.next().await.1)["execution_count"], 3);
        killed(again).await;
    }
}

#[tokio::test]
async fn a_key_names_the_same_execution_for_every_client() {
    let kernel = TestKernel::start().await;
    let mut watcher = kernel.client().await;
    let code = format!("{ONE_EFFECT}\nprint('runs', flush=True)\n{GATE}");
    let mut first = Peer::of(&kernel, "one").await;
    first.execute("a", json!({ "idempotency_key": "k" }), &code).await;
    watcher.until(|seen| seen.text("text").contains("runs")).await;
    // Another client writes the same in another way.
    let mut second = Peer::of(&kernel, "two").await;
    let content = format!("{{ \"allow_stdin\" : false,\n \"code\": {} }}", json!(code));
    second.send("b", "execute_request", json!({ "idempotency_key": "k" }), &content).await;
    second.taken_in().await;
    let mut third = Peer::of(&kernel, "three").await;
    third.execute("c", json!({ "idempotency_key": "k" }), "'other code'").await;
    assert_eq!(read(&third.next().await.1)["code"], "key_reused");
    kernel.open_gate();
    let answer = first.next().await;
    assert_eq!(read(&answer.1)["status"], "ok");
    assert_eq!(second.next().await, answer);
    third.execute("d", json!({ "idempotency_key": "k" }), &code).await;
    assert_eq!(third.next().await, answer);
    // The key is no message id.
    first.execute("k", json!({}), "'k'").await;
    assert_eq!(read(&first.next().await.1)["status"], "ok");
    assert_eq!(effects(&kernel), 1);
    // Who only joined is busy and idle like everybody else.
    watcher.until(|seen| seen.parent == "b" && seen.text("execution_state") == "idle").await;
    watcher.until(|seen| seen.parent == "b" && seen.text("execution_state") == "busy").await;
}

#[tokio::test]
async fn what_an_error_aborted_is_answered_alike_for_ever() {
    let (_folder, store) = store();
    let first = on(&store).start().await;
    let mut watcher = first.client().await;
    let mut peer = Peer::of(&first, "one").await;
    peer.execute("a", json!({}), &format!("print('runs', flush=True)\n{GATE}\n1 / 0")).await;
    watcher.until(|seen| seen.text("text").contains("runs")).await;
    peer.execute("b", json!({}), ONE_EFFECT).await;
    recorded(&store, "b");
    first.open_gate();
    assert_eq!(read(&peer.next().await.1)["ename"], "ZeroDivisionError");
    let aborted = peer.next().await;
    assert_eq!(read(&aborted.1)["status"], "aborted");
    peer.execute("b", json!({}), ONE_EFFECT).await;
    assert_eq!(peer.next().await, aborted);
    assert_eq!(effects(&first), 0);
    killed(first).await;
    let second = on(&store).start().await;
    let mut peer = Peer::of(&second, "one").await;
    peer.execute("b", json!({}), ONE_EFFECT).await;
    assert_eq!(peer.next().await, aborted);
}

/// Binary parts are not recorded: what needs them is given up, and nothing else is.
#[tokio::test]
async fn a_comm_message_with_binary_parts_that_waited_is_given_up_and_the_cells_around_it_are_not() {
    let (_folder, store) = store();
    let mut first = on(&store).argument("--grace").argument("30").start().await;
    let mut watcher = first.client().await;
    let mut peer = Peer::of(&first, "one").await;
    let waits = format!("print('runs', flush=True)\n{GATE}\nprint('its own')");
    peer.execute("a", json!({}), &waits).await;
    watcher.until(|seen| seen.text("text").contains("runs")).await;
    let header = json!({ "msg_id": "c", "msg_type": "comm_msg", "session": "one" });
    let content = json!({ "comm_id": "x", "data": {} });
    let mut parts = signed_parts(
        peer.file,
        [header.to_string(), "{}".into(), "{}".into(), content.to_string()].map(Bytes::from),
    );
    parts.push(Bytes::from_static(&[0, 1, 2]));
    peer.shell.message(&parts).await;
    peer.execute("b", json!({}), "'after it'").await;
    recorded(&store, "b");
    first.signal(Signal::KILL);
    first.end().await;
    let second = on(&store).argument("--grace").argument("30").start().await;
    let mut watcher = second.client().await;
    let mut peer = Peer::of(&second, "one").await;
    peer.execute("a", json!({}), &waits).await;
    peer.execute("b", json!({}), "'after it'").await;
    first.open_gate();
    let (metadata, content) = peer.next().await;
    assert_eq!(
        (&read(&metadata)["cob"]["promise"], &read(&content)["status"]),
        (&json!("s1.e1"), &json!("ok"))
    );
    watcher.until(|seen| seen.parent == "a" && seen.text("text") == "its own\n").await;
    let (metadata, content) = peer.next().await;
    assert_eq!(
        (&read(&metadata)["cob"]["promise"], &read(&content)["status"]),
        (&json!("s1.e3"), &json!("ok"))
    );
}

#[tokio::test]
async fn options_that_do_not_exist_are_refused_and_nothing_runs() {
    let kernel = TestKernel::start().await;
    let mut peer = Peer::of(&kernel, "one").await;
    for options in [json!({ "deadline": 5 }), json!({ "durability": "paper" }), json!([])] {
        peer.execute("a", options, ONE_EFFECT).await;
        assert_eq!(read(&peer.next().await.1)["code"], "bad_request");
    }
    assert_eq!(effects(&kernel), 0);
}

// --- Deadlines -----------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_deadline_ends_what_waits_and_what_runs() {
    let kernel = TestKernel::start().await;
    let mut watcher = kernel.client().await;
    let mut busy = Peer::of(&kernel, "busy").await;
    busy.execute("a", json!({}), &format!("x = 1\nprint('runs', flush=True)\n{GATE}")).await;
    watcher.until(|seen| seen.text("text").contains("runs")).await;
    let mut peer = Peer::of(&kernel, "one").await;
    peer.execute("waits", json!({ "deadline_ms": 1 }), ONE_EFFECT).await;
    let (metadata, content) = peer.next().await;
    assert_eq!(read(&content)["code"], "deadline_passed");
    assert_eq!(read(&content)["session_state"], "kept");
    kernel.open_gate();
    busy.next().await;
    // The stored answer, whenever the retry comes.
    peer.execute("waits", json!({ "deadline_ms": 1 }), ONE_EFFECT).await;
    assert_eq!(peer.next().await, (metadata, content));
    assert_eq!(effects(&kernel), 0);
    peer.execute("runs", json!({ "deadline_ms": 50 }), "while True: pass").await;
    let (metadata, content) = peer.next().await;
    assert_eq!(
        (&read(&content)["code"], &read(&content)["session_state"]),
        (&json!("deadline_passed"), &json!("kept"))
    );
    assert_eq!(read(&metadata)["cob"]["state"], "rejected_timedout");
    assert_eq!(watcher.run("x").await.ok().result(), "1");
}

#[tokio::test]
async fn code_that_resists_its_own_deadline_does_not_hold_up_that_of_others() {
    let kernel = TestKernel::start().await;
    let mut watcher = kernel.client().await;
    let mut busy = Peer::of(&kernel, "busy").await;
    watcher.run("import time").await.ok();
    // Long enough for the code to have begun.
    let code = "while True:\n    try:\n        while True: time.sleep(9)\n    \
                except KeyboardInterrupt: print('resists', flush=True)";
    busy.execute("a", json!({ "deadline_ms": 300 }), code).await;
    watcher.until(|seen| seen.text("text").contains("resists")).await;
    let mut peer = Peer::of(&kernel, "one").await;
    peer.execute("b", json!({ "deadline_ms": 1 }), ONE_EFFECT).await;
    assert_eq!(read(&peer.next().await.1)["code"], "deadline_passed");
    let is_over = watcher.seen().iter().any(|seen| seen.parent == "a" && seen.msg_type == "error");
    assert!(!is_over);
    // It is ended by force in the end.
    let content = read(&busy.next().await.1);
    assert_eq!((&content["code"], &content["session_state"]), (&json!("deadline_passed"), &json!("lost")));
    assert_eq!(effects(&kernel), 0);
}

#[tokio::test]
async fn a_deadline_ends_code_that_asks() {
    let (_kernel, mut client) = TestKernel::with_client().await;
    let mut peer = Peer::of(&_kernel, "one").await;
    let content = json!({ "code": "input('? ')", "allow_stdin": true }).to_string();
    peer.send("a", "execute_request", json!({ "deadline_ms": 50 }), &content).await;
    assert_eq!(read(&peer.next().await.1)["code"], "deadline_passed");
    assert_eq!(client.run("1").await.ok().result(), "1");
}

// --- Questions -----------------------------------------------------------------------------------------------

async fn asked(client: &mut TestClient, code: &str) -> String {
    let cell = client.send(Channel::Shell, "execute_request", json!({ "code": code })).await;
    client.until(|seen| seen.parent == cell && seen.msg_type == "input_request").await;
    cell
}

#[tokio::test]
async fn a_question_can_be_declined_and_can_go_unanswered() {
    let (_kernel, mut client) = TestKernel::with_client().await;
    let cell = asked(&mut client, "input('? ')").await;
    client.send(Channel::Stdin, "input_reply", json!({ "declined": "not today" })).await;
    let run = client.finish(&cell).await.failed("InputDeclined");
    assert_eq!(run.evalue(), "not today");
    let cell = asked(&mut client, "import cob\ncob.input('? ', timeout=0.01)").await;
    client.finish(&cell).await.failed("InputTimeout");
    // An answer that comes too late is nobody's.
    client.send(Channel::Stdin, "input_reply", json!({ "value": "late" })).await;
    let cell = asked(&mut client, "input('? ')").await;
    client.send(Channel::Stdin, "input_reply", json!({ "value": "other", "promise": "s1.e1.c1" })).await;
    client.send(Channel::Stdin, "input_reply", json!({ "value": "mine", "promise": "s1.e3.c1" })).await;
    assert_eq!(client.finish(&cell).await.ok().result(), "'mine'");
}

/// Sends code under a key.
async fn send_keyed(client: &mut TestClient, key: &str, code: &str) -> String {
    let metadata = Json::from(json!({ "cob": { "idempotency_key": key } }));
    let message = Outgoing::new("execute_request", Json::object(), json!({ "code": code }).into());
    client.connection().send(Channel::Shell, Outgoing { metadata, ..message }).await.unwrap()
}

#[tokio::test]
async fn questions_go_on_after_a_restart_and_answers_are_not_forgotten() {
    let (_folder, store) = store();
    let mut first = on(&store).argument("--grace").argument("30").start().await;
    let mut client = first.client().await;
    let code =
        format!("a = input('a ')\nprint('runs', flush=True)\n{GATE}\nb = input('b ')\n[a, b, input('c ')]");
    send_keyed(&mut client, "k", &code).await;
    client.until(|seen| seen.text("prompt") == "a ").await;
    client.send(Channel::Stdin, "input_reply", json!({ "value": "1" })).await;
    client.until(|seen| seen.text("text").contains("runs")).await;
    first.signal(Signal::KILL);
    first.end().await;
    let mut second = on(&store).argument("--grace").argument("30").start().await;
    let mut client = second.client().await;
    // It comes back, and is asked when the code asks.
    let cell = send_keyed(&mut client, "k", &code).await;
    client.ask(Channel::Shell, "kernel_info_request").await.ok();
    first.open_gate();
    client.until(|seen| seen.text("prompt") == "b ").await;
    second.signal(Signal::KILL);
    second.end().await;
    drop(client);
    let third = on(&store).argument("--grace").argument("30").start().await;
    let mut client = third.client().await;
    // Whoever comes back is asked what is open.
    let again = send_keyed(&mut client, "k", &code).await;
    assert_ne!(again, cell);
    client.until(|seen| seen.text("prompt") == "b ").await;
    client.send(Channel::Stdin, "input_reply", json!({ "value": "2" })).await;
    client.until(|seen| seen.text("prompt") == "c ").await;
    client.send(Channel::Stdin, "input_reply", json!({ "value": "3" })).await;
    let run = client.finish(&again).await.ok();
    assert_eq!(run.count(), 1);
    client.until(|seen| seen.msg_type == "execute_result").await;
    let shown = client.seen().iter().find(|seen| seen.msg_type == "execute_result").unwrap();
    assert_eq!(shown.content["data"]["text/plain"], "['1', '2', '3']");
    assert_eq!(client.run("a").await.ok().result(), "'1'");
    drop((client, third));
}

// --- The store -----------------------------------------------------------------------------------------------

#[tokio::test]
async fn what_is_ephemeral_is_written_nowhere() {
    let kernel = Setup::new().argument("--ephemeral").start().await;
    let mut peer = Peer::of(&kernel, "one").await;
    peer.execute("a", json!({}), "1").await;
    let answer = peer.next().await;
    assert_eq!(read(&answer.0)["cob"]["durability"], "none");
    peer.execute("a", json!({}), "1").await;
    assert_eq!(peer.next().await, answer);
    assert!(!kernel.folder().join("home/.local").exists());
    let usual = TestKernel::start().await;
    assert!(usual.folder().join("home/.local/state/cob/kernels").exists());
}

#[tokio::test]
async fn everybody_is_told_how_safe_a_record_is() {
    let kernel = TestKernel::start().await;
    let mut watcher = Raw::subscriber(&kernel.file).await;
    assert_eq!(watcher.next_message().await.unwrap()[0], "");
    let mut peer = Peer::of(&kernel, "one").await;
    for (options, durability) in [
        (json!({}), "process"),
        (json!({ "durability": "power" }), "power"),
        (json!({ "durability": "none" }), "none"),
    ] {
        peer.execute(durability, options.clone(), "1").await;
        let input = loop {
            let parts = watcher.next_message().await.unwrap();
            if parts[0] == "execute_input" {
                break read(&parts[5]);
            }
        };
        let answer = peer.next().await;
        let metadata = read(&answer.0);
        assert_eq!(input["cob"]["durability"], durability);
        assert_eq!(input["cob"]["promise"], metadata["cob"]["promise"]);
        assert_eq!(metadata["cob"]["durability"], durability);
        peer.execute(durability, options, "1").await;
        assert_eq!(peer.next().await, answer);
    }
}

#[tokio::test]
async fn the_last_reply_names_the_head_of_the_audit_trail() {
    let (folder, store) = store();
    let kernel = on(&store).start().await;
    let mut peer = Peer::of(&kernel, "one").await;
    for id in ["a", "b"] {
        peer.execute(id, json!({}), "1").await;
    }
    peer.next().await;
    let head = read(&peer.next().await.0)["cob"]["audit"].as_str().unwrap().to_owned();
    killed(kernel).await;
    for name in ["cwd", "tmp", "home"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    let arguments = ["audit", "verify", "--store"].map(OsStr::new);
    let arguments = [arguments.as_slice(), &[store.as_os_str()]].concat();
    let output = command(&arguments, folder.path()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("whole"), "{text}");
    assert!(text.trim_end().ends_with(&head), "{text} {head}");
}
