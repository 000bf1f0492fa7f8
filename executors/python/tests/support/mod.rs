//! A tiny blocking host: starts a worker by the contract, sends frames, brings text and frames in order.
#![allow(unsafe_code)]
#![allow(dead_code, unused_imports, unreachable_pub, missing_docs, clippy::unwrap_used, clippy::panic)]

pub mod events;
pub mod frozen;
pub mod process;
pub mod start;
pub mod takeover;
pub mod zygote;

use std::cell::Cell;
use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::ExitStatus;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use cob_protocol::codec::{FrameDecoder, encode};
use cob_protocol::frame::{
    Answer, Attached, Comm, Envelope, Execute, ExecutionNumber, Frame, Outcome, Position, Shutdown,
    StreamName,
};
use cob_protocol::handshake::{FRAME_FD, Hello, PAGE_FD, Ready, VERSIONS};
use cob_protocol::json::Json;
use cob_protocol::limits::{INTERRUPT_AGAIN_MS, OUTPUT_PIPE_BYTES};
use cob_protocol::page::{PAGE_BYTES, PAGE_WORDS, Page};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, OFlags, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::process::{Signal, kill_process_group};

pub use events::*;
pub use process::Process;
pub use start::*;

/// What a worker shows, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Bytes of a pipe.
    Text(StreamName, Vec<u8>),
    /// A frame and its payloads.
    Frame(Frame, Vec<Bytes>),
    /// The socket was closed.
    End,
}

pub struct Host {
    /// Ends with its worker, if that is the only one it has.
    zygote: Option<Box<zygote::Zygote>>,
    pub child: Process,
    pub ready: Option<Ready>,
    page: Page<'static>,
    socket: OwnedFd,
    pipes: [Pipe; 2],
    decoder: FrameDecoder,
    frames: VecDeque<Envelope>,
    events: VecDeque<Event>,
    sequence: u64,
    received: u64,
    executions: ExecutionNumber,
    scratch: Vec<u8>,
    ended: bool,
    is_interrupting: Cell<bool>,
    /// What the worker said first after its socket was replaced.
    pub attached: Option<Attached>,
}

struct Pipe {
    name: StreamName,
    end: OwnedFd,
    /// Read and not shown yet.
    unseen: VecDeque<u8>,
    shown: u64,
    scratch: Vec<u8>,
}

/// The worker's ends of what connects it with its host.
pub struct Theirs {
    pub socket: OwnedFd,
    pub page: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

impl Host {
    /// Starts a worker; it says nothing yet.
    pub fn spawn(start: &Start<'_>) -> Self {
        Self::connect(|theirs| {
            let mut command = command(start, &[(&theirs.socket, FRAME_FD), (&theirs.page, PAGE_FD)]);
            command.stdout(theirs.stdout).stderr(theirs.stderr);
            Process::Started(command.spawn().unwrap())
        })
    }

    /// Gives a worker its ends.
    pub fn connect(worker: impl FnOnce(Theirs) -> Process) -> Self {
        let (socket, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        let memory = memfd_create("cob-page", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&memory, PAGE_BYTES as u64).unwrap();
        let page = map(&memory);
        let (out, stdout) = pipe();
        let (err, stderr) = pipe();
        let pipes = [Pipe::new(StreamName::Stdout, out), Pipe::new(StreamName::Stderr, err)];
        Self {
            child: worker(Theirs { socket: theirs, page: memory, stdout, stderr }),
            zygote: None,
            ready: None,
            page,
            socket,
            pipes,
            decoder: FrameDecoder::new(),
            frames: VecDeque::new(),
            events: VecDeque::new(),
            sequence: 0,
            received: 0,
            executions: 0,
            is_interrupting: Cell::new(false),
            attached: None,
            scratch: vec![0; 1 << 16],
            ended: false,
        }
    }

    /// Starts a worker and shakes hands. With modules named in `COB_TEST_IMPORTS` (separated by commas) it is forked
    /// off a zygote that has imported them. No test sees a difference, but that asyncio brings a socket of its own.
    pub fn start(start: &Start<'_>) -> Self {
        let imports = std::env::var("COB_TEST_IMPORTS").ok().filter(|_| start.sources.is_none());
        let mut host = match imports {
            None => Self::spawn(start),
            Some(names) => {
                let mut zygote = zygote::Zygote::start(start, &names.split(',').collect::<Vec<_>>());
                let mut host = zygote.fork();
                host.zygote = Some(Box::new(zygote));
                host
            }
        };
        host.hello();
        host.until_ready();
        host
    }

    pub fn until_ready(&mut self) {
        let mut seen = String::new();
        loop {
            match self.event() {
                Event::Frame(Frame::Ready(ready), _) => {
                    self.ready = Some(ready);
                    return;
                }
                Event::Text(_, text) => seen.push_str(&String::from_utf8_lossy(&text)),
                other => panic!("{other:?} instead of ready; the worker said:\n{seen}"),
            }
        }
    }

    pub fn hello(&mut self) {
        self.hello_with(&[], None);
    }

    pub fn hello_with(&mut self, payloads: &[Bytes], umask: Option<u32>) {
        self.greet(Hello { umask, ..Self::greeting() }, payloads);
    }

    pub fn greeting() -> Hello {
        Hello {
            versions: VERSIONS,
            session: "test".to_owned(),
            options: Json::object(),
            umask: None,
            confined: false,
            survives: false,
            resumes: false,
        }
    }

    pub fn greet(&mut self, hello: Hello, payloads: &[Bytes]) {
        self.send(hello, payloads);
        self.decoder.handshake_done();
    }

    /// Closes everything the worker could talk to.
    pub fn hang_up(&mut self) {
        let null = || File::open("/dev/null").unwrap().into();
        self.socket = null();
        for pipe in &mut self.pipes {
            pipe.end = null();
        }
    }

    pub fn page(&self) -> Page<'static> {
        self.page
    }

    pub fn send(&mut self, frame: impl Into<Frame>, payloads: &[Bytes]) {
        self.sequence += 1;
        let mut bytes = encode(&frame.into(), payloads, self.sequence, self.received).unwrap().to_vec();
        for payload in payloads {
            bytes.extend_from_slice(payload);
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            match send(&self.socket, rest, SendFlags::NOSIGNAL) {
                Ok(count) => rest = &rest[count..],
                Err(Errno::INTR) => {}
                Err(error) => panic!("send: {error}"),
            }
        }
    }

    /// Sends code; returns its number.
    pub fn execute(&mut self, code: &str) -> ExecutionNumber {
        self.execute_with(code, |_| {})
    }

    pub fn execute_with(&mut self, code: &str, change: impl FnOnce(&mut Execute)) -> ExecutionNumber {
        self.executions += 1;
        self.is_interrupting.set(false);
        let execution = self.executions;
        let mut execute = Execute {
            execution,
            count: execution as u32,
            silent: false,
            store_history: true,
            allow_stdin: true,
            user_expressions: Json::object(),
            parent: Json::parse(format!("{{\"msg_id\":\"m{execution}\"}}")).unwrap(),
        };
        change(&mut execute);
        self.send(execute, &[Bytes::copy_from_slice(code.as_bytes())]);
        execution
    }

    /// A number for a request that is not code.
    pub fn next_execution(&mut self) -> ExecutionNumber {
        self.executions += 1;
        self.executions
    }

    /// Runs code to its end; everything it showed, `Done` last.
    pub fn run(&mut self, code: &str) -> Vec<Event> {
        let execution = self.execute(code);
        self.until_done(execution)
    }

    pub fn until_done(&mut self, execution: ExecutionNumber) -> Vec<Event> {
        self.until(|event| matches!(event, Event::Frame(Frame::Done(done), _) if done.execution == execution))
    }

    /// Everything up to the event that `is_last` recognises.
    #[track_caller]
    pub fn until(&mut self, is_last: impl Fn(&Event) -> bool) -> Vec<Event> {
        let mut seen = Vec::new();
        loop {
            let event = self.event();
            let end = event == Event::End;
            seen.push(event);
            if is_last(seen.last().unwrap()) {
                return seen;
            }
            assert!(!end, "the worker ended; before: {seen:#?}");
        }
    }

    pub fn answer(&mut self, request: u64, outcome: Outcome) {
        self.send(Answer { request, outcome }, &[]);
    }

    pub fn comm(&mut self, comm: Comm, buffers: &[Bytes]) {
        self.send(comm, buffers);
    }

    /// Aims an interrupt at `execution` and sends the signal, and again as the kernel does if nothing comes of it: a
    /// signal between Python's last look for one and the start of a wait is not seen by that wait.
    pub fn interrupt(&self, execution: ExecutionNumber) {
        self.page.aim_interrupt(execution);
        self.is_interrupting.set(true);
        self.signal();
    }

    pub fn signal(&self) {
        kill_process_group(self.child.pid(), Signal::INT).unwrap();
    }

    /// Asks the worker to end and waits for it; what it still showed.
    pub fn shutdown(mut self) -> (ExitStatus, Vec<Event>) {
        self.send(Shutdown { restart: false }, &[]);
        let events = self.until(|event| *event == Event::End);
        (self.child.wait().unwrap(), events)
    }

    /// The next thing the worker shows.
    pub fn event(&mut self) -> Event {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            if self.ended {
                return Event::End;
            }
            self.look();
        }
    }

    /// Waits for something, and takes it in.
    fn look(&mut self) {
        self.wait();
        for pipe in &mut self.pipes {
            pipe.read(self.page, usize::MAX);
        }
        // After the pipes: a mark is sent before the text that follows it is written.
        self.receive();
        self.order();
    }

    fn wait(&self) {
        let [out, err] = &self.pipes;
        let mut fds = [&self.socket, &out.end, &err.end].map(|fd| PollFd::new(fd, PollFlags::IN));
        let again = Timespec { tv_sec: INTERRUPT_AGAIN_MS as i64 / 1000, tv_nsec: 0 };
        match poll(&mut fds, self.is_interrupting.get().then_some(&again)) {
            Ok(0) => self.signal(),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
    }

    fn receive(&mut self) {
        loop {
            match recv(&self.socket, &mut self.scratch[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) | Err(Errno::CONNRESET) => {
                    self.ended = true;
                    break;
                }
                Ok((count, _)) => self.decoder.push(&self.scratch[..count]),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => panic!("recv: {error}"),
            }
        }
        while let Some(envelope) = self.decoder.next_frame().expect("a frame") {
            if let Frame::Attached(attached) = envelope.frame {
                assert_eq!(envelope.sequence, 0);
                self.attached = Some(attached);
                continue;
            }
            if self.attached.is_some() && envelope.sequence <= self.received {
                continue; // it came over the socket before
            }
            assert_eq!(envelope.sequence, self.received + 1, "frames are numbered without a gap");
            self.received = envelope.sequence;
            // That it waits to be greeted is for a host which keeps it waiting.
            if !matches!(envelope.frame, Frame::Parked(_)) {
                self.frames.push_back(envelope);
            }
        }
    }

    /// Makes events of what came: text up to the place of a frame, the frame, and so on; then what is left.
    fn order(&mut self) {
        while let Some(Envelope { frame, payloads, .. }) = self.frames.pop_front() {
            if let Some(Position { stdout, stderr }) = frame.position() {
                for (pipe, until) in self.pipes.iter_mut().zip([stdout, stderr]) {
                    // Exactly up to there: what follows may belong behind a frame that has yet to be read.
                    while let missing = pipe.missing(until)
                        && missing > 0
                    {
                        assert!(pipe.read(self.page, missing) > 0, "a place beyond what was written");
                    }
                    pipe.show(until, &mut self.events);
                }
            }
            self.events.push_back(Event::Frame(frame, payloads));
        }
        for pipe in &mut self.pipes {
            if self.ended {
                while pipe.read(self.page, usize::MAX) > 0 {}
            }
            pipe.show(u64::MAX, &mut self.events);
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.child.end();
    }
}

impl Pipe {
    fn new(name: StreamName, end: OwnedFd) -> Self {
        Self { name, end, unseen: VecDeque::new(), shown: 0, scratch: vec![0; 1 << 16] }
    }

    fn missing(&self, until: u64) -> usize {
        until.saturating_sub(self.shown + self.unseen.len() as u64) as usize
    }

    fn read(&mut self, page: Page<'_>, bytes_max: usize) -> usize {
        let bytes_max = bytes_max.min(self.scratch.len());
        let scratch = &mut self.scratch[..bytes_max];
        let count = page.consume(self.name, || rustix::io::read(&self.end, &mut *scratch)).unwrap_or(0);
        self.unseen.extend(&self.scratch[..count]);
        count
    }

    fn show(&mut self, until: u64, events: &mut VecDeque<Event>) {
        let count = until.saturating_sub(self.shown).min(self.unseen.len() as u64) as usize;
        if count > 0 {
            self.shown += count as u64;
            events.push_back(Event::Text(self.name, self.unseen.drain(..count).collect()));
        }
    }
}

pub fn pipe() -> (OwnedFd, OwnedFd) {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    fcntl_setpipe_size(&read, OUTPUT_PIPE_BYTES).unwrap();
    rustix::fs::fcntl_setfl(&read, OFlags::NONBLOCK).unwrap();
    (read, write)
}

fn map(memory: &OwnedFd) -> Page<'static> {
    let mapping = memmap2::MmapOptions::new().len(PAGE_BYTES).map_raw(memory.as_raw_fd()).unwrap();
    let mapping = Box::leak(Box::new(mapping));
    // SAFETY: page-aligned, PAGE_BYTES long, never unmapped, only accessed through atomics.
    Page::new(unsafe { &*mapping.as_mut_ptr().cast::<[AtomicU64; PAGE_WORDS]>() })
}
