//! A worker whose language is made up: the main loop needs nothing of Python.
//!
//! One test only: a worker owns its process (handler of SIGINT, fork hook, shared page).
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::thread;

use bytes::Bytes;
use cob_protocol::codec::{FrameDecoder, encode};
use cob_protocol::frame::{
    Answer, Comm, Complete, Done, DoneStatus, Execute, Frame, Inspect, IsComplete, Log, Outcome, Pong,
    Shutdown, is_repeatable,
};
use cob_protocol::handshake::{Hello, VERSIONS};
use cob_protocol::json::Json;
use cob_protocol::page::PAGE_BYTES;
use cob_worker::descriptors::Descriptors;
use cob_worker::run::{Ending, run};
use cob_worker::{Executor, Finished, Interpreter, Introduction, Surroundings, Worker};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

/// A language without an interpreter to hold.
struct Nothing;

impl Interpreter for Nothing {
    type Interrupt = std::convert::Infallible;

    fn unlocked<T: Send>(&self, wait: impl FnOnce() -> T + Send) -> T {
        wait()
    }

    fn signals(&self) -> Result<(), Self::Interrupt> {
        Ok(())
    }
}

/// Code is a question to the host; the answer decides how it ends.
struct Asking<'a>(&'a Worker);

impl Executor for Asking<'_> {
    const NAME: &'static str = "asking 1";

    fn start(&mut self, _: &Hello, _: &Surroundings) -> Result<Introduction, String> {
        Ok(Introduction { language_info: Json::object(), banner: "asks".to_owned() })
    }

    fn execute(&mut self, _: &Execute, code: &str) -> Finished {
        let arguments = Json::of(&code).unwrap();
        let kind = if code == "again" { "channel_recv" } else { "input" };
        match self.0.call(&Nothing, kind.to_owned(), arguments).unwrap() {
            Outcome::Value(_) => DoneStatus::Ok.into(),
            _ => DoneStatus::Error.into(),
        }
    }

    fn comm(&mut self, _: &Comm, buffers: &[Bytes]) -> DoneStatus {
        if buffers.is_empty() { DoneStatus::Error } else { DoneStatus::Ok }
    }

    fn complete(&mut self, _: &Complete, code: &str) -> Outcome {
        Outcome::Value(Json::of(&code.len()).unwrap())
    }

    fn inspect(&mut self, _: &Inspect, _: &str) -> Outcome {
        // Larger than any frame.
        Outcome::Value(Json::of(&"x".repeat(40 << 20)).unwrap())
    }

    fn is_complete(&mut self, _: &IsComplete, _: &str) -> Outcome {
        Outcome::Declined("no".to_owned())
    }

    fn shutdown(&mut self, _: bool) {}
}

/// The host's end.
struct Host {
    socket: UnixStream,
    decoder: FrameDecoder,
    sequence: u64,
}

impl Host {
    fn send(&mut self, frame: impl Into<Frame>, payloads: &[Bytes]) {
        self.sequence += 1;
        self.socket.write_all(&encode(&frame.into(), payloads, self.sequence, 0).unwrap()).unwrap();
        payloads.iter().for_each(|payload| self.socket.write_all(payload).unwrap());
    }

    fn receive(&mut self) -> Frame {
        loop {
            if let Some(envelope) = self.decoder.next_frame().unwrap() {
                return envelope.frame;
            }
            let mut scratch = [0; 4096];
            let count = std::io::Read::read(&mut self.socket, &mut scratch).unwrap();
            assert!(count > 0, "the worker hung up");
            self.decoder.push(&scratch[..count]);
        }
    }

    fn execute(&mut self, execution: u64) {
        self.run(execution, "why?");
    }

    fn run(&mut self, execution: u64, code: &'static str) {
        let execute = Execute {
            execution,
            count: 1,
            silent: false,
            store_history: true,
            allow_stdin: true,
            user_expressions: Json::object(),
            parent: Json::object(),
        };
        self.send(execute, &[code.into()]);
    }

    fn expect_done(&mut self, expected: u64) {
        match self.receive() {
            Frame::Done(Done { execution, status: DoneStatus::Ok, .. }) => assert_eq!(execution, expected),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_main_loop_serves_any_language() {
    let (socket, theirs) = UnixStream::pair().unwrap();
    let page = memfd_create("page", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&page, PAGE_BYTES as u64).unwrap();
    let (_, stdout) = std::io::pipe().unwrap();
    let (_, stderr) = std::io::pipe().unwrap();
    let descriptors =
        Descriptors { socket: theirs.into(), page, stdout: stdout.into(), stderr: stderr.into() };
    let host = thread::spawn(move || converse(Host { socket, decoder: FrameDecoder::new(), sequence: 0 }));
    let worker = Worker::new(descriptors, || {}).unwrap();
    assert_eq!(run(&worker, &Nothing, &mut Asking(&worker)), Ending::Shutdown);
    host.join().unwrap();
}

fn converse(mut host: Host) {
    host.send(
        Hello {
            versions: VERSIONS,
            session: "s".to_owned(),
            options: Json::object(),
            umask: None,
            confined: false,
            survives: false,
            resumes: false,
        },
        &[],
    );
    host.decoder.handshake_done();
    assert!(matches!(host.receive(), Frame::Parked(_)), "it said that it waits before it was greeted");
    assert!(matches!(host.receive(), Frame::Ready(ready) if ready.executor == "asking 1"));

    // A question is served in the middle of everything else, which then comes in order.
    host.execute(1);
    assert!(matches!(host.receive(), Frame::Call(call) if (call.request, call.execution) == (1, 1)));
    host.execute(2);
    host.send(Answer { request: 99, outcome: Outcome::Eof("not yours".to_owned()) }, &[]);
    host.send(Answer { request: 1, outcome: Outcome::Value(Json::object()) }, &[]);
    host.expect_done(1);
    assert!(matches!(host.receive(), Frame::Call(call) if (call.request, call.execution) == (2, 2)));
    host.send(Answer { request: 2, outcome: Outcome::Value(Json::object()) }, &[]);
    host.expect_done(2);

    // A question that may be asked twice is, of a host that does not know it. Its numbers are of another kind.
    host.run(3, "again");
    let mut numbers = Vec::new();
    for outcome in [Outcome::Again, Outcome::Again, Outcome::Value(Json::object())] {
        let Frame::Call(call) = host.receive() else { panic!("no call") };
        assert!(is_repeatable(call.request) && call.kind == "channel_recv");
        numbers.push(call.request);
        host.send(Answer { request: call.request, outcome }, &[]);
    }
    host.expect_done(3);
    numbers.dedup();
    assert_eq!(numbers.len(), 3);

    // Questions of the host; one whose answer is too large is declined.
    host.send(Complete { request: 7, cursor: 0 }, &["abc".into()]);
    let outcome = Outcome::Value(Json::of(&3).unwrap());
    assert_eq!(host.receive(), Frame::Answer(Answer { request: 7, outcome }));
    host.send(Inspect { request: 8, cursor: 0, detail: 0 }, &[]);
    let declined = |frame, request| match frame {
        Frame::Answer(Answer { request: number, outcome: Outcome::Declined(reason) }) => {
            assert_eq!(number, request);
            reason
        }
        other => panic!("{other:?}"),
    };
    assert!(declined(host.receive(), 8).contains("frame_too_large"));
    host.send(IsComplete { request: 9 }, &[]);
    assert_eq!(declined(host.receive(), 9), "no");

    // What is not for a worker is reported and does no harm.
    host.send(Pong { number: 1 }, &[]);
    assert!(matches!(host.receive(), Frame::Log(Log { level, .. }) if level == "warn"));
    host.send(Shutdown { restart: false }, &[]);
}
