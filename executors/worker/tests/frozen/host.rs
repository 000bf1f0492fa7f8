//! The host: starts workers, freezes and thaws them, and reads what they say.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use cob_protocol::checkpoint::Finding;
use cob_protocol::codec::{FrameDecoder, encode};
use cob_protocol::frame::{Answer, Done, Execute, Frame, Freeze, Load, Outcome, Shutdown, StreamName};
use cob_protocol::handshake::{FRAME_FD, Hello, LIFELINE_FD, PAGE_FD, Ready, VERSIONS};
use cob_protocol::json::Json;
use cob_protocol::page::{PAGE_BYTES, PAGE_WORDS, Page, epoch_byte};
use cob_protocol::zygote::{Order, Report, Status};
use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::{fcntl_dupfd_cloexec, ioctl_fionread};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg, sendmsg, socketpair,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;

/// What makes this program a worker.
pub const BE_A_WORKER: &str = "COB_TEST_BE_A_WORKER";

pub struct Host {
    process: Process,
    page: Page<'static>,
    socket: OwnedFd,
    /// Standard output and error, and how much of each was read.
    pipes: [(OwnedFd, u64); 2],
    decoder: FrameDecoder,
    sequence: u64,
    received: u64,
    executions: u64,
    ready: Option<Ready>,
    lifeline: Option<OwnedFd>,
}

enum Process {
    Started(Child),
    Thawed { pid: u32, status: File },
}

/// The worker's ends, in the order of a fork.
struct Theirs([OwnedFd; 5]);

/// A session at one moment.
#[derive(Debug)]
pub struct Checkpoint {
    control: OwnedFd,
    pidfd: OwnedFd,
    pub pid: u32,
    pub findings: Vec<Finding>,
}

/// One whose control socket is closed.
pub struct Closed(OwnedFd);

pub fn greeting() -> Hello {
    Hello {
        versions: VERSIONS,
        session: "s".to_owned(),
        options: Json::object(),
        umask: None,
        confined: false,
        survives: false,
        resumes: false,
    }
}

impl Host {
    pub fn start() -> Self {
        Self::start_with(|hello| hello)
    }

    pub fn start_with(change: impl FnOnce(Hello) -> Hello) -> Self {
        let mut host = Self::connect(|Theirs(ends)| {
            let [socket, page, lifeline, stdout, stderr] = ends;
            let image: OwnedFd = File::open("/dev/null").unwrap().into();
            let places = [(image, 3), (socket, FRAME_FD), (page, PAGE_FD), (lifeline, LIFELINE_FD)]
                .map(|(fd, place)| (fcntl_dupfd_cloexec(fd, 64).unwrap(), place));
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.env(BE_A_WORKER, "1").process_group(0).stdin(Stdio::null()).stdout(stdout).stderr(stderr);
            // SAFETY: only async-signal-safe calls between fork and exec.
            unsafe {
                command.pre_exec(move || {
                    for (fd, place) in &places {
                        libc::dup2(fd.as_raw_fd(), *place);
                    }
                    libc::fcntl(LIFELINE_FD, libc::F_SETOWN, libc::getpid());
                    libc::fcntl(LIFELINE_FD, 10, libc::SIGKILL);
                    libc::fcntl(LIFELINE_FD, libc::F_SETFL, libc::O_ASYNC | libc::O_NONBLOCK);
                    Ok(())
                });
            }
            Process::Started(command.spawn().unwrap())
        });
        host.greet(change(greeting()));
        host.until_ready();
        host
    }

    fn connect(worker: impl FnOnce(Theirs) -> Process) -> Self {
        let (socket, theirs) = pair(SocketType::STREAM);
        let memory = memfd_create("cob-page", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&memory, PAGE_BYTES as u64).unwrap();
        let mapping = memmap2::MmapOptions::new().len(PAGE_BYTES).map_raw(memory.as_raw_fd()).unwrap();
        let mapping = Box::leak(Box::new(mapping));
        // SAFETY: page-aligned, PAGE_BYTES long, never unmapped, only accessed through atomics.
        let page = Page::new(unsafe { &*mapping.as_mut_ptr().cast::<[AtomicU64; PAGE_WORDS]>() });
        let (lifeline_end, lifeline) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let [(out, stdout), (err, stderr)] = [(); 2].map(|()| pipe_with(PipeFlags::CLOEXEC).unwrap());
        Self {
            process: worker(Theirs([theirs, memory, lifeline_end, stdout, stderr])),
            page,
            socket,
            pipes: [(out, 0), (err, 0)],
            decoder: FrameDecoder::new(),
            sequence: 0,
            received: 0,
            executions: 0,
            ready: None,
            lifeline: Some(lifeline),
        }
    }

    pub fn greet(&mut self, hello: Hello) {
        self.send(hello, &[]);
        self.decoder.handshake_done();
    }

    fn until_ready(&mut self) {
        assert!(matches!(self.receive(), Frame::Parked(_)));
        match self.receive() {
            Frame::Ready(ready) => self.ready = Some(ready),
            other => panic!("{other:?}"),
        }
    }

    pub fn ready(&self) -> &Ready {
        self.ready.as_ref().unwrap()
    }

    pub fn pid(&self) -> u32 {
        match &self.process {
            Process::Started(child) => child.id(),
            Process::Thawed { pid, .. } => *pid,
        }
    }

    /// How many it has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    pub fn page(&self) -> Page<'static> {
        self.page
    }

    pub fn send(&mut self, frame: impl Into<Frame>, payloads: &[Bytes]) {
        self.send_with(frame.into(), payloads, &[]);
    }

    pub fn send_beside(&mut self, frame: impl Into<Frame>, descriptor: BorrowedFd<'_>) {
        self.send_with(frame.into(), &[], &[descriptor]);
    }

    fn send_with(&mut self, frame: Frame, payloads: &[Bytes], descriptors: &[BorrowedFd<'_>]) {
        self.sequence += 1;
        let mut bytes = encode(&frame, payloads, self.sequence, 0).unwrap().to_vec();
        payloads.iter().for_each(|payload| bytes.extend_from_slice(payload));
        send_all(&self.socket, &bytes, descriptors);
    }

    pub fn receive(&mut self) -> Frame {
        loop {
            if let Some(envelope) = self.decoder.next_frame().unwrap() {
                if matches!(envelope.frame, Frame::Attached(_)) {
                    continue;
                }
                assert_eq!(envelope.sequence, self.received + 1, "without a gap: {envelope:?}");
                self.received = envelope.sequence;
                return envelope.frame;
            }
            let mut scratch = [0; 1 << 16];
            let (count, _) = recv(&self.socket, &mut scratch[..], RecvFlags::empty()).unwrap();
            assert!(count > 0, "the worker hung up: {}", self.text(1, u64::MAX));
            self.decoder.push(&scratch[..count]);
        }
    }

    /// Runs code to its end; what it printed.
    pub fn run(&mut self, code: &str) -> String {
        let execution = self.execute(code);
        self.until_done(execution)
    }

    pub fn execute(&mut self, code: &str) -> u64 {
        self.executions += 1;
        let execute = Execute {
            execution: self.executions,
            count: 1,
            silent: false,
            store_history: true,
            allow_stdin: true,
            user_expressions: Json::object(),
            parent: Json::object(),
        };
        self.send(execute, &[Bytes::copy_from_slice(code.as_bytes())]);
        self.executions
    }

    pub fn until_done(&mut self, expected: u64) -> String {
        match self.receive() {
            Frame::Done(Done { execution, at, .. }) => {
                assert_eq!(execution, expected);
                self.text(0, at.stdout)
            }
            other => panic!("{other:?}"),
        }
    }

    /// Reads a pipe up to a place.
    fn text(&mut self, stream: usize, until: u64) -> String {
        let name = [StreamName::Stdout, StreamName::Stderr][stream];
        let (pipe, shown) = &mut self.pipes[stream];
        let mut text = Vec::new();
        while *shown < until {
            let mut scratch = vec![0; 4096.min((until - *shown) as usize)];
            let read = self.page.consume(name, || rustix::io::read(&*pipe, &mut scratch[..])).unwrap();
            if read == 0 {
                break;
            }
            *shown += read as u64;
            text.extend_from_slice(&scratch[..read]);
        }
        String::from_utf8(text).unwrap()
    }

    /// What lies in the pipes.
    pub fn unread(&self) -> [u64; 2] {
        [0, 1].map(|stream: usize| ioctl_fionread(&self.pipes[stream].0).unwrap())
    }

    /// What a worker that ends has to say.
    pub fn last_words(mut self) -> String {
        self.text(1, u64::MAX)
    }

    pub fn order_freeze(&mut self, force: bool) -> OwnedFd {
        let (control, theirs) = pair(SocketType::SEQPACKET);
        self.send_beside(Freeze { force }, theirs.as_fd());
        control
    }

    pub fn freeze(&mut self, force: bool) -> Result<Checkpoint, Vec<Finding>> {
        Checkpoint::receive(self.order_freeze(force))
    }

    /// Orders a load; the bundle is to be written to what is returned.
    pub fn load(&mut self, request: u64) -> OwnedFd {
        let (stream, bundle) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        self.send_beside(Load { request, force: false }, stream.as_fd());
        bundle
    }

    pub fn load_without_stream(&mut self) -> Outcome {
        self.send(Load { request: 1, force: false }, &[]);
        self.answer(1)
    }

    pub fn answer(&mut self, expected: u64) -> Outcome {
        match self.receive() {
            Frame::Answer(Answer { request, outcome }) if request == expected => outcome,
            other => panic!("{other:?}"),
        }
    }

    /// Comes back as another host. The old socket is for the test to hold.
    pub fn take_over(&mut self) -> OwnedFd {
        let byte = epoch_byte(self.page.replace_socket());
        let (socket, theirs) = pair(SocketType::STREAM);
        send_all(&self.socket, &[byte], &[theirs.as_fd()]);
        self.decoder = FrameDecoder::new();
        self.decoder.handshake_done();
        self.sequence = 0;
        let old = std::mem::replace(&mut self.socket, socket);
        rustix::net::shutdown(&old, rustix::net::Shutdown::Both).unwrap();
        // Nothing was recorded, so all of it comes once more, but for what was sent before the session was known to
        // outlive its host.
        self.received = 1;
        for _ in 0..self.executions + 1 {
            self.receive();
        }
        old
    }

    pub fn shut_down(mut self) -> Status {
        self.send(Shutdown { restart: false }, &[]);
        match &mut self.process {
            Process::Started(child) => Status::Exited(child.wait().unwrap().code().unwrap()),
            Process::Thawed { status, .. } => ended(status),
        }
    }

    /// The host is gone, as far as this worker can see.
    pub fn cut(&mut self) {
        self.lifeline = None;
    }

    /// Whether something came within a moment.
    pub fn is_readable_soon(&self) -> bool {
        let moment = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&moment)).unwrap() > 0
    }

    pub fn is_at_end(&self) -> bool {
        matches!(recv(&self.socket, &mut [0; 64][..], RecvFlags::empty()), Ok((0, _)) | Err(_))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.lifeline = None;
        if let Process::Started(child) = &mut self.process {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The last record of a status.
pub fn ended(status: &mut File) -> Status {
    let mut record = [0; Status::BYTES];
    loop {
        status.read_exact(&mut record).unwrap();
        let status = Status::from_bytes(record).unwrap();
        if matches!(status, Status::Exited(_) | Status::Killed(_)) {
            return status;
        }
    }
}

impl Checkpoint {
    pub fn receive(control: OwnedFd) -> Result<Self, Vec<Finding>> {
        match report(&control) {
            Some((Report::Frozen { pid, findings }, Some(pidfd))) => {
                Ok(Self { control, pidfd, pid, findings })
            }
            Some((Report::Refused { findings }, None)) => {
                assert!(report(&control).is_none(), "nothing follows");
                Err(findings)
            }
            other => panic!("{other:?}"),
        }
    }

    pub fn thaw(&self) -> Host {
        self.thaw_with(|hello| hello)
    }

    pub fn thaw_with(&self, change: impl FnOnce(Hello) -> Hello) -> Host {
        let mut host = self.fork();
        host.greet(change(Hello { resumes: true, ..greeting() }));
        host.until_ready();
        host
    }

    pub fn fork(&self) -> Host {
        Host::connect(|Theirs(ends)| {
            let (status, status_end) = pipe_with(PipeFlags::CLOEXEC).unwrap();
            let mut all: Vec<_> = ends.iter().map(AsFd::as_fd).collect();
            all.push(status_end.as_fd());
            let pid = self.forked(&Order::Fork { number: 7 }, &all);
            Process::Thawed { pid, status: status.into() }
        })
    }

    /// Has it write a bundle; what comes out, its status and its lifeline.
    pub fn save(&self) -> (OwnedFd, File, OwnedFd) {
        let (stream, bundle) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let (lifeline_end, lifeline) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let (status, status_end) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        self.forked(&Order::Save { number: 7 }, &[&bundle, &lifeline_end, &status_end].map(AsFd::as_fd));
        (stream, status.into(), lifeline)
    }

    fn forked(&self, order: &Order, descriptors: &[BorrowedFd<'_>]) -> u32 {
        self.order(order, descriptors);
        match report(&self.control) {
            Some((Report::Forked { number: 7, pid }, Some(_))) => pid,
            other => panic!("{other:?}"),
        }
    }

    pub fn order(&self, order: &Order, descriptors: &[BorrowedFd<'_>]) {
        send_all(&self.control, &order.encode().unwrap(), descriptors);
    }

    pub fn process(&self) -> Pid {
        Pid::from_raw(self.pid as i32).unwrap()
    }

    pub fn close(self) -> Closed {
        Closed(self.pidfd)
    }
}

impl Closed {
    pub fn until_gone(&self) {
        poll(&mut [PollFd::new(&self.0, PollFlags::IN)], None).unwrap();
    }

    pub fn is_gone(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&now)).unwrap() > 0
    }
}

fn pair(kind: SocketType) -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap()
}

fn send_all(socket: &OwnedFd, mut bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(8))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(descriptors)));
    }
    while !bytes.is_empty() {
        let sent = sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL).unwrap();
        bytes = &bytes[sent..];
        ancillary.clear();
    }
}

fn report(control: &OwnedFd) -> Option<(Report, Option<OwnedFd>)> {
    let mut packet = vec![0; 1 << 16];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let slices = &mut [IoSliceMut::new(&mut packet)];
    let count = recvmsg(control, slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC).map_or(0, |m| m.bytes);
    let descriptor = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    (count > 0).then(|| (Report::decode(&packet[..count]).unwrap(), descriptor))
}
