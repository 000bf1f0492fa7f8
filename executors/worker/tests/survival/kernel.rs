//! The other side: kernels that die and come back, and what they have recorded.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem::{MaybeUninit, forget};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::thread;

use bytes::Bytes;
use cob_protocol::codec::{FrameDecoder, encode};
use cob_protocol::frame::{Answer, Attached, Done, Envelope, Execute, Frame, Outcome, Shutdown};
use cob_protocol::handshake::{Hello, VERSIONS};
use cob_protocol::json::Json;
use cob_protocol::page::{PAGE_BYTES, PAGE_WORDS, Page, epoch_byte};
use cob_worker::descriptors::Descriptors;
use cob_worker::run::Ending;
use memmap2::MmapOptions;
use rustix::cmsg_space;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    recv, send, sendmsg, socketpair,
};
use rustix::thread::futex;

use crate::language::{Running, start};

/// The ends of both pipes are held for life.
const PIPES: usize = 2;

/// A kernel, and what outlives it: its record, and what its custodian holds.
pub struct Kernel {
    pub page: Page<'static>,
    pub worker: Option<Running>,
    socket: OwnedFd,
    /// What the custodian holds: without it a worker would end when its kernel dies, and the whole process with it.
    held: Vec<OwnedFd>,
    decoder: FrameDecoder,
    sequence: u64,
    /// The introduction on this socket; the first one of all has none.
    pub attached: Option<Attached>,
    is_first: bool,
    /// Number of the last frame that came over this socket.
    received: u64,
    /// What came and is not recorded.
    pub seen: VecDeque<Envelope>,
    pub record: Vec<Envelope>,
    pub recorded: u64,
}

impl Kernel {
    /// A worker that keeps at most `bytes_max`, greeted; it has introduced itself.
    pub fn start(bytes_max: usize) -> Self {
        Self::start_after(bytes_max, |_| {})
    }

    /// The same, but `happened` before the worker looked at its greeting.
    pub fn start_after(bytes_max: usize, happened: impl FnOnce(&mut Self)) -> Self {
        let memory = memfd_create("page", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&memory, PAGE_BYTES as u64).unwrap();
        let page = map(&memory);
        let mut held = Vec::new();
        let [stdout, stderr] = [(); 2].map(|()| {
            let (end, pipe) = std::io::pipe().unwrap();
            held.push(end.into());
            OwnedFd::from(pipe)
        });
        let (socket, theirs) = pair();
        let descriptors = Descriptors { socket: theirs, page: memory, stdout, stderr };
        let mut kernel = Self {
            page,
            worker: None,
            socket,
            held,
            decoder: FrameDecoder::new(),
            sequence: 0,
            attached: None,
            is_first: true,
            received: 0,
            seen: VecDeque::new(),
            record: Vec::new(),
            recorded: 0,
        };
        kernel.decoder.handshake_done();
        kernel.send(
            Hello {
                versions: VERSIONS,
                session: "s".to_owned(),
                options: Json::object(),
                umask: None,
                confined: false,
                survives: true,
                resumes: false,
            },
            &[],
        );
        happened(&mut kernel);
        kernel.worker = Some(start(descriptors, bytes_max));
        if kernel.is_first {
            assert!(matches!(kernel.next(), Frame::Parked(_)));
        } else {
            kernel.recorded = 1; // it is not kept, so it is lost
        }
        assert!(matches!(kernel.next(), Frame::Ready(_)));
        kernel
    }

    pub fn send(&mut self, frame: impl Into<Frame>, payloads: &[Bytes]) {
        let whole = self.bytes(frame, payloads);
        self.send_bytes(&whole);
    }

    /// Sends the first bytes of a frame only.
    pub fn send_half(&mut self, frame: impl Into<Frame>, payloads: &[Bytes]) {
        let whole = self.bytes(frame, payloads);
        self.send_bytes(&whole[..whole.len() / 2]);
    }

    fn bytes(&mut self, frame: impl Into<Frame>, payloads: &[Bytes]) -> Vec<u8> {
        self.sequence += 1;
        let head = encode(&frame.into(), payloads, self.sequence, self.recorded).unwrap();
        [&[head], payloads].concat().concat()
    }

    fn send_bytes(&self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = &bytes[send(&self.socket, bytes, SendFlags::NOSIGNAL).unwrap()..];
        }
    }

    pub fn execute(&mut self, execution: u64, code: &str) {
        self.send(request(execution), &[Bytes::copy_from_slice(code.as_bytes())]);
    }

    pub fn answer(&mut self, request: u64) {
        self.send(Answer { request, outcome: Outcome::Value(Json::object()) }, &[]);
    }

    /// Reads at most so many bytes, and at least one.
    pub fn read(&mut self, bytes_max: usize) {
        let mut scratch = vec![0; bytes_max];
        let (count, _) = recv(&self.socket, &mut scratch[..], RecvFlags::empty()).unwrap();
        assert!(count > 0, "the worker hung up");
        self.decoder.push(&scratch[..count]);
        while let Some(envelope) = self.decoder.next_frame().unwrap() {
            self.take(envelope);
        }
    }

    fn take(&mut self, envelope: Envelope) {
        if let Frame::Attached(attached) = envelope.frame {
            assert_eq!((envelope.sequence, self.received), (0, 0), "an introduction comes first");
            assert!(!self.is_first && self.attached.is_none(), "and once");
            self.attached = Some(attached);
            return;
        }
        assert!(self.is_first || self.attached.is_some(), "an introduction comes first");
        assert!(envelope.acknowledged <= self.sequence, "a number of another kernel");
        match self.received {
            0 => assert!(envelope.sequence <= self.recorded + 1, "something is missing"),
            last => assert_eq!(envelope.sequence, last + 1, "one after the other"),
        }
        self.received = envelope.sequence;
        if envelope.sequence > self.recorded {
            self.seen.push_back(envelope);
        }
    }

    /// The next frame that is not recorded; it is, then.
    pub fn next(&mut self) -> Frame {
        while self.seen.is_empty() {
            self.read(1 << 16);
        }
        self.record(1);
        self.record.last().unwrap().frame.clone()
    }

    /// Records what was seen first.
    pub fn record(&mut self, count: usize) {
        for envelope in self.seen.drain(..count) {
            assert_eq!(envelope.sequence, self.recorded + 1, "nothing is recorded twice or left out");
            self.recorded = envelope.sequence;
            self.record.push(envelope);
        }
    }

    /// Says what is recorded.
    pub fn acknowledge(&self) {
        if self.page.acknowledge(self.recorded) {
            wake(self.page);
        }
    }

    /// Dies, and comes back knowing only what was recorded.
    pub fn take_over(&mut self) {
        self.announce();
        self.send_socket();
    }

    /// Comes back, and dies before the new socket is sent.
    pub fn announce(&self) -> u8 {
        let epoch = self.page.replace_socket();
        wake(self.page);
        epoch_byte(epoch)
    }

    /// Sends a new socket over the one that this kernel has, which its custodian goes on holding.
    pub fn send_socket(&mut self) {
        let (socket, theirs) = pair();
        self.send_descriptors(&[theirs.as_fd()]);
        self.go_on_with(socket);
    }

    /// Like [`Kernel::send_socket`] by a kernel that dies before it tells its custodian.
    pub fn send_socket_and_die(&mut self) {
        let (socket, theirs) = pair();
        self.send_descriptors(&[theirs.as_fd()]);
        self.held.push(socket);
    }

    pub fn send_descriptors(&self, descriptors: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(4))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(descriptors)));
        let byte = [epoch_byte(self.page.epoch())];
        sendmsg(&self.socket, &[IoSlice::new(&byte)], &mut ancillary, SendFlags::NOSIGNAL).unwrap();
    }

    fn go_on_with(&mut self, socket: OwnedFd) {
        self.held.push(std::mem::replace(&mut self.socket, socket));
        self.decoder = FrameDecoder::new();
        self.decoder.handshake_done();
        (self.sequence, self.received) = (0, 0);
        (self.attached, self.is_first) = (None, false);
        self.seen.clear();
    }

    pub fn until_attached(&mut self) -> Attached {
        while self.attached.is_none() {
            self.read(1 << 16);
        }
        // The custodian lets go of what was replaced.
        self.held.truncate(PIPES);
        self.attached.clone().unwrap()
    }

    /// Reads up to the end of `execution`; how many displays came before.
    pub fn until_done(&mut self, execution: u64) -> usize {
        let mut shown = 0;
        loop {
            match self.next() {
                Frame::Done(Done { execution: done, .. }) => {
                    assert_eq!(done, execution);
                    return shown;
                }
                Frame::Display(_) => shown += 1,
                other => panic!("{other:?}"),
            }
        }
    }

    /// Ends the worker in order; what it ran.
    pub fn shut_down(mut self) -> Vec<u64> {
        self.send(Shutdown { restart: false }, &[]);
        let worker = self.worker.take().unwrap();
        assert_eq!(worker.thread.join().unwrap(), Ending::Shutdown);
        let ran = worker.ran.lock().unwrap();
        ran.clone()
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        if thread::panicking() {
            // A worker that is left alone would end the process as if all were well.
            forget(self.socket.try_clone().unwrap());
            self.held.drain(..).for_each(forget);
        }
    }
}

/// A request to run code.
pub fn request(execution: u64) -> Execute {
    Execute {
        execution,
        count: 1,
        silent: false,
        store_history: true,
        allow_stdin: true,
        user_expressions: Json::object(),
        parent: Json::object(),
    }
}

fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap()
}

fn map(memory: &OwnedFd) -> Page<'static> {
    let mapping =
        Box::leak(Box::new(MmapOptions::new().len(PAGE_BYTES).map_raw(memory.as_raw_fd()).unwrap()));
    // SAFETY: page-aligned, PAGE_BYTES long, never unmapped, only accessed through atomics.
    Page::new(unsafe { &*mapping.as_mut_ptr().cast::<[AtomicU64; PAGE_WORDS]>() })
}

/// Wakes who waits on the bell.
pub fn wake(page: Page<'_>) {
    let half = std::ptr::from_ref(page.bell_word()).cast::<AtomicU32>();
    let half = if cfg!(target_endian = "big") { half.wrapping_add(1) } else { half };
    // SAFETY: a half of a word that lives as long as the page.
    let bell = unsafe { &*half };
    futex::wake(bell, futex::Flags::empty(), i32::MAX as u32).unwrap();
}
