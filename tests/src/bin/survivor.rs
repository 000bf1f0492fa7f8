//! A worker that outlives its server, as far as it takes to test who takes it over. Without a language: an `execute`
//! holds one order.
//!
//! | order | what it does |
//! |---|---|
//! | `count N` | writes the numbers from 1 to N, a line each; after every 100th a display that names it |
//! | `blast N` | writes `N` MiB, each at once |
//! | `child` | starts a process in a session of its own, prints its id, and goes on |
//! | `linger` | writes a line and then does nothing, for ever |
//! | `devour N` | waits for the next server, and uses `N` MiB of memory |
//! | `exit N` | writes a line and exits |
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use cob_protocol::codec::{FrameDecoder, encode};
use cob_protocol::frame::{Attached, Display, Done, DoneStatus, Frame, Parked, Position, StreamName};
use cob_protocol::handshake::{FRAME_FD, PAGE_FD, Ready, VERSIONS};
use cob_protocol::json::Json;
use cob_protocol::page::{PAGE_BYTES, PAGE_WORDS, Page, epoch_of_byte};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

struct Worker {
    socket: OwnedFd,
    page: Page<'static>,
    epoch: u64,
    decoder: FrameDecoder,
    received: u64,
    execution: u64,
    sequence: u64,
    /// Sent, and not known to be recorded.
    kept: Vec<(u64, Bytes)>,
}

fn main() {
    // SAFETY: a worker owns these descriptors from its start, and nothing else here uses them.
    let (socket, page) = unsafe { (OwnedFd::from_raw_fd(FRAME_FD), OwnedFd::from_raw_fd(PAGE_FD)) };
    // SAFETY: a new mapping that is never taken back, used only through atomics.
    let words = unsafe {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        let map = mmap(std::ptr::null_mut(), PAGE_BYTES, protection, flags, &page, 0).expect("a page");
        &*map.cast::<[AtomicU64; PAGE_WORDS]>()
    };
    let mut worker = Worker {
        socket,
        page: Page::new(words),
        epoch: 0,
        decoder: FrameDecoder::of_worker(),
        received: 0,
        execution: 0,
        sequence: 0,
        kept: Vec::new(),
    };
    worker.send(Parked {});
    while let Some((frame, payloads)) = worker.next() {
        match frame {
            Frame::Hello(_) => worker.ready(),
            Frame::Execute(execute) => {
                worker.execution = execute.execution;
                let order = payloads.first().map(|order| String::from_utf8_lossy(order).into_owned());
                worker.follow(&order.unwrap_or_default());
                worker.done();
            }
            _ => {}
        }
    }
}

impl Worker {
    #[expect(clippy::zombie_processes, reason = "who ends it is what is tested")]
    fn follow(&mut self, order: &str) {
        let (verb, argument) = order.split_once(' ').unwrap_or((order, ""));
        let number: u64 = argument.parse().unwrap_or(0);
        let mut out = io::stdout();
        match verb {
            "count" => {
                for n in 1..=number {
                    self.wait_for_room();
                    out.write_all(format!("{n}\n").as_bytes()).expect("an open pipe");
                    if n % 100 == 0 {
                        self.display(n);
                    }
                }
            }
            "child" => {
                let mut setsid = std::process::Command::new("setsid");
                let child = setsid.args(["sleep", "1000"]).spawn().expect("setsid");
                writeln!(out, "{}", child.id()).expect("an open pipe");
            }
            "blast" => {
                let text = vec![b'x'; 1 << 20];
                (0..number).for_each(|_| out.write_all(&text).expect("an open pipe"));
            }
            "devour" => {
                writeln!(out, "hungry").expect("an open pipe");
                self.fetch();
                let megabytes = usize::try_from(number).unwrap_or(0);
                let eaten = vec![1_u8; megabytes << 20];
                std::hint::black_box(eaten);
            }
            "linger" => {
                writeln!(out, "last words").expect("an open pipe");
                loop {
                    std::thread::park();
                }
            }
            "exit" => {
                writeln!(out, "last words").expect("an open pipe");
                std::process::exit(i32::try_from(number).unwrap_or(1));
            }
            other => unreachable!("no order `{other}`"),
        }
    }

    /// Until the pipe takes a line. Meanwhile another server may come, and shall not wait for that: what it must know
    /// first may stand before what fills the pipe.
    fn wait_for_room(&mut self) {
        loop {
            if self.epoch != self.page.epoch() {
                self.fetch();
            }
            let out = io::stdout();
            let mut fds = [PollFd::new(&out, PollFlags::OUT), PollFd::new(&self.socket, PollFlags::IN)];
            poll(&mut fds, None).expect("open descriptors");
            if fds[0].revents().contains(PollFlags::OUT) {
                return;
            }
        }
    }

    fn next(&mut self) -> Option<(Frame, Vec<Bytes>)> {
        loop {
            if let Some(envelope) = self.decoder.next_frame().expect("the kernel speaks the protocol") {
                self.received = envelope.sequence;
                self.decoder.handshake_done();
                return Some((envelope.frame, envelope.payloads));
            }
            match self.receive() {
                Received::Bytes(bytes) => self.decoder.push(&bytes),
                Received::Socket(socket, byte) => self.move_to(socket, byte),
                Received::End => return None,
            }
        }
    }

    fn receive(&self) -> Received {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let mut buffer = [0; 4096];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(&self.socket, &mut [IoSliceMut::new(&mut buffer)], &mut beside, flags);
        let Ok(received) = received else { return Received::End };
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(mut rights) = message
                && let Some(socket) = rights.next()
            {
                return Received::Socket(socket, buffer[received.bytes.saturating_sub(1)]);
            }
        }
        if received.bytes == 0 { Received::End } else { Received::Bytes(buffer[..received.bytes].to_vec()) }
    }

    /// There is another server, and its socket is on its way.
    fn fetch(&mut self) {
        loop {
            match self.receive() {
                Received::Bytes(_) => {}
                Received::Socket(socket, byte) => return self.move_to(socket, byte),
                Received::End => std::process::exit(3),
            }
        }
    }

    fn move_to(&mut self, socket: OwnedFd, byte: u8) {
        self.socket = socket;
        self.epoch = epoch_of_byte(byte, self.epoch, self.page.epoch());
        self.decoder.reset();
        let attached = Attached { received: self.received, execution: self.execution, call: None };
        let mut bytes = encode(&attached.into(), &[], 0, 0).expect("a small frame").to_vec();
        let acknowledged = self.page.acknowledged();
        self.kept.retain(|(sequence, _)| *sequence > acknowledged);
        self.kept.iter().for_each(|(_, frame)| bytes.extend_from_slice(frame));
        self.write(&bytes);
    }

    fn send(&mut self, frame: impl Into<Frame>) {
        while self.epoch != self.page.epoch() {
            self.fetch();
        }
        self.sequence += 1;
        self.page.set_sent(self.sequence);
        let bytes = encode(&frame.into(), &[], self.sequence, self.received).expect("a small frame");
        self.kept.push((self.sequence, bytes.clone()));
        self.write(&bytes);
    }

    fn write(&self, bytes: &[u8]) {
        let copy = self.socket.as_fd().try_clone_to_owned().expect("a descriptor");
        // The kernel may have hung up; then another one comes, or this process ends.
        let _ = File::from(copy).write_all(bytes);
    }

    fn ready(&mut self) {
        self.send(Ready {
            versions: VERSIONS,
            executor: "survivor".to_owned(),
            pid: std::process::id(),
            language_info: Json::object(),
            banner: String::new(),
            confinement: Vec::new(),
        });
    }

    fn display(&mut self, execution: u64) {
        let at = self.position();
        let (metadata, transient) = (Json::object(), Json::object());
        self.send(Display { execution, data: Vec::new(), metadata, transient, at });
    }

    fn done(&mut self) {
        let (user_expressions, payload, at) = (Json::object(), Json::array(), self.position());
        let execution = self.execution;
        self.send(Done { execution, status: DoneStatus::Ok, user_expressions, payload, at });
    }

    fn position(&self) -> Position {
        let unread = |pipe: OwnedFd| rustix::io::ioctl_fionread(pipe).unwrap_or(0);
        let own = |pipe: std::os::fd::BorrowedFd<'_>| pipe.try_clone_to_owned().expect("a descriptor");
        Position {
            stdout: self.page.written(StreamName::Stdout, || unread(own(io::stdout().as_fd()))),
            stderr: self.page.written(StreamName::Stderr, || unread(own(io::stderr().as_fd()))),
        }
    }
}

enum Received {
    Bytes(Vec<u8>),
    Socket(OwnedFd, u8),
    End,
}
