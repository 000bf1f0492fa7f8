//! A worker that follows a script instead of running code: `COB_TEST_SCRIPT` holds its verbs, separated by `;`
//! (`PYTHONSCRIPT` does too: zygotes get that as well).
//!
//! | verb | what it does |
//! |---|---|
//! | `ready` | introduces itself |
//! | `await` | waits for the next `execute` frame, which the verbs after it are about |
//! | `print TEXT` | writes a line to stdout |
//! | `complain TEXT` | writes a line to stderr |
//! | `done [AHEAD]` | ends the execution, and says it stands `AHEAD` bytes of stdout after where it does |
//! | `forge` | ends an execution that does not run |
//! | `result` | shows a result for an execution that does not run |
//! | `answer` | answers a question that nobody asked |
//! | `hello` | sends a frame that only the kernel may send |
//! | `display` | shows something with more types than payloads |
//! | `garbage` | writes bytes that are no frame |
//! | `oversized` | claims a frame of 1 GiB |
//! | `empty` | claims a frame of no bytes |
//! | `unknown N` | sends `N` frames of a kind that does not exist |
//! | `half` | sends the first half of a frame |
//! | `close` | closes the socket |
//! | `mute` | closes stdout and stderr |
//! | `linger` | does nothing, for ever |
//! | `exit N` | exits |
//!
//! After the last verb it waits for the next request to end, as an honest worker would. Whatever goes wrong here
//! is a panic, which the kernel reports as a lost worker.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::FromRawFd;

use bytes::Bytes;
use cob_protocol::codec::{FrameDecoder, encode};
use cob_protocol::frame::{
    Answer, Display, Done, DoneStatus, Frame, Mime, MimeEncoding, Outcome, Position, ResultValue,
};
use cob_protocol::handshake::{FRAME_FD, Hello, Ready, VERSIONS};
use cob_protocol::json::Json;

struct Worker {
    socket: Option<File>,
    decoder: FrameDecoder,
    execution: u64,
    sequence: u64,
    printed: u64,
}

fn main() {
    // SAFETY: a worker owns this descriptor from its start, and nothing else here uses it.
    let socket = unsafe { File::from_raw_fd(FRAME_FD) };
    let mut decoder = FrameDecoder::new();
    decoder.handshake_done();
    let mut worker = Worker { socket: Some(socket), decoder, execution: 0, sequence: 0, printed: 0 };
    let variables = ["COB_TEST_SCRIPT", "PYTHONSCRIPT"].into_iter();
    let script = variables.filter_map(|name| std::env::var(name).ok()).next().unwrap_or_default();
    for step in script.split(';') {
        let (verb, argument) = step.trim().split_once(' ').unwrap_or((step.trim(), ""));
        worker.follow(verb, argument);
    }
    while worker.next_execution() {
        worker.done(worker.execution, 0);
    }
}

impl Worker {
    fn follow(&mut self, verb: &str, argument: &str) {
        let number = argument.parse().unwrap_or(0);
        match verb {
            "" => {}
            "ready" => self.ready(),
            "await" => assert!(self.next_execution(), "the kernel is gone"),
            "print" => {
                self.printed += argument.len() as u64 + 1;
                println!("{argument}");
            }
            "complain" => eprintln!("{argument}"),
            "done" => self.done(self.execution, number),
            "forge" => self.done(self.execution + 1000, 0),
            "result" => {
                self.send(ResultValue { count: 1, display: self.display(self.execution + 1000, 1) }, b"1");
            }
            "display" => self.send(self.display(self.execution, 2), b"1"),
            "answer" => self.send(Answer { request: 9, outcome: Outcome::Value(Json::object()) }, b""),
            "hello" => {
                self.send(
                    Hello {
                        versions: VERSIONS,
                        session: String::new(),
                        options: Json::object(),
                        umask: None,
                        confined: false,
                        survives: false,
                        resumes: false,
                    },
                    b"",
                );
            }
            "garbage" => self.write(&[0xa5; 4096]),
            "oversized" => self.write(&[&(1_u32 << 30).to_be_bytes()[..], &[20, 0]].concat()),
            "empty" => self.write(&[0, 0, 0, 0, 20, 0]),
            "unknown" => (0..number).for_each(|_| self.write(&[0, 0, 0, 2, 250, 0])),
            "half" => self.write(&[0, 0, 0, 100, 20, 0, 0, 0]),
            "close" => drop(self.socket.take()),
            // SAFETY: nothing prints after it.
            "mute" => unsafe { drop((File::from_raw_fd(1), File::from_raw_fd(2))) },
            "linger" => loop {
                std::thread::park();
            },
            "exit" => std::process::exit(i32::try_from(number).unwrap_or(1)),
            other => unreachable!("no verb `{other}`"),
        }
    }

    /// `false` once the kernel has closed the socket.
    fn next_execution(&mut self) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match self.decoder.next_frame().expect("the kernel speaks the protocol").map(|e| e.frame) {
                Some(Frame::Execute(execute)) => {
                    self.execution = execute.execution;
                    return true;
                }
                Some(Frame::Shutdown(_)) => return false,
                Some(_) => continue,
                None => {}
            }
            let Some(socket) = &mut self.socket else { return false };
            match socket.read(&mut buffer) {
                Ok(0) | Err(_) => return false,
                Ok(count) => self.decoder.push(buffer.get(..count).unwrap_or_default()),
            }
        }
    }

    fn ready(&mut self) {
        let ready = Ready {
            versions: VERSIONS,
            executor: "scripted".to_owned(),
            pid: std::process::id(),
            language_info: Json::object(),
            banner: String::new(),
            confinement: Vec::new(),
        };
        self.send(ready, b"");
    }

    fn done(&mut self, execution: u64, ahead: u64) {
        let done = Done {
            execution,
            status: DoneStatus::Ok,
            user_expressions: Json::object(),
            payload: Json::array(),
            at: self.position(ahead),
        };
        self.send(done, b"");
    }

    fn display(&self, execution: u64, types: usize) -> Display {
        let mime = Mime { mime: "text/plain".to_owned(), encoding: MimeEncoding::Text };
        Display {
            execution,
            data: vec![mime; types],
            metadata: Json::object(),
            transient: Json::object(),
            at: self.position(0),
        }
    }

    fn position(&self, ahead: u64) -> Position {
        Position { stdout: self.printed + ahead, stderr: 0 }
    }

    fn send(&mut self, frame: impl Into<Frame>, payload: &'static [u8]) {
        self.sequence += 1;
        let payloads: Vec<Bytes> =
            if payload.is_empty() { vec![] } else { vec![Bytes::from_static(payload)] };
        let head = encode(&frame.into(), &payloads, self.sequence, 0).expect("a small frame");
        self.write(&[&head[..], payload].concat());
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(socket) = &mut self.socket {
            // The kernel may have hung up; then it is about to end this process.
            let _ = socket.write_all(bytes);
        }
    }
}
