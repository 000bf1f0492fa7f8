//! The host of one worker: starts it, sends frames, takes frames and output.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cob_protocol::codec::{FrameDecoder, encode};
use cob_protocol::frame::{Envelope, Execute, Frame};
use cob_protocol::handshake::{FRAME_FD, Hello, PAGE_FD, VERSIONS};
use cob_protocol::json::Json;
use cob_protocol::page::{PAGE_BYTES, PAGE_WORDS, Page};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, OFlags, fcntl_setfl, ftruncate, memfd_create};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process};

/// With these arguments this program is a worker.
pub const WORKER: [&str; 2] = ["worker", "javascript"];

/// What has not come by then does not come.
const PATIENCE: Duration = Duration::from_secs(60);

/// See the module.
pub struct Host {
    child: Child,
    page: Page<'static>,
    socket: OwnedFd,
    /// stdout and stderr, and what came out of them.
    pipes: [(OwnedFd, Vec<u8>); 2],
    decoder: FrameDecoder,
    sequence: u64,
    executions: u64,
    seen: VecDeque<Envelope>,
}

impl Host {
    /// Starts a worker in `folder`, and shakes hands.
    pub fn start(folder: &Path, options: Json) -> Self {
        let (socket, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        let memory = memfd_create("cob-page", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&memory, PAGE_BYTES as u64).unwrap();
        let page = map(&memory);
        let pipes = [(); 2].map(|()| pipe_with(PipeFlags::CLOEXEC).unwrap());
        let [(out, stdout), (err, stderr)] = pipes;
        let child = spawn(folder, &[(&theirs, FRAME_FD), (&memory, PAGE_FD)], stdout, stderr);
        for fd in [&out, &err, &socket] {
            fcntl_setfl(fd, OFlags::NONBLOCK).unwrap();
        }
        let pipes = [(out, Vec::new()), (err, Vec::new())];
        let decoder = FrameDecoder::new();
        let mut host =
            Self { child, page, socket, pipes, decoder, sequence: 0, executions: 0, seen: VecDeque::new() };
        let hello = Hello {
            versions: VERSIONS,
            session: "test".to_owned(),
            options,
            umask: None,
            confined: false,
            survives: false,
            resumes: false,
        };
        host.send(hello, &[]);
        host.decoder.handshake_done();
        while !matches!(host.next().unwrap_or_else(|why| panic!("{why}")).frame, Frame::Ready(_)) {}
        host
    }

    /// Sends code; its number.
    pub fn execute(&mut self, code: &str) -> u64 {
        self.executions += 1;
        let execution = self.executions;
        let execute = Execute {
            execution,
            count: execution as u32,
            silent: false,
            store_history: true,
            allow_stdin: true,
            user_expressions: Json::object(),
            parent: Json::object(),
        };
        self.send(execute, &[Bytes::copy_from_slice(code.as_bytes())]);
        execution
    }

    /// Stops an execution.
    pub fn interrupt(&self, execution: u64) {
        self.page.aim_interrupt(execution);
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
    }

    /// Sends a frame.
    pub fn send(&mut self, frame: impl Into<Frame>, payloads: &[Bytes]) {
        self.sequence += 1;
        let mut bytes = encode(&frame.into(), payloads, self.sequence, 0).unwrap().to_vec();
        payloads.iter().for_each(|payload| bytes.extend_from_slice(payload));
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            match send(&self.socket, rest, SendFlags::NOSIGNAL) {
                Ok(count) => rest = &rest[count..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => drop(poll(&mut [PollFd::new(&self.socket, PollFlags::OUT)], None)),
                Err(error) => panic!("send: {error}"),
            }
        }
    }

    /// The next frame.
    pub fn next(&mut self) -> Result<Envelope, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(envelope) = self.seen.pop_front() {
                return Ok(envelope);
            }
            self.wait(deadline, "no frame comes")?;
            self.drain();
            self.receive()?;
        }
    }

    /// Reads until `stdout` holds at least that much.
    pub fn await_stdout(&mut self, bytes: usize) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        while self.pipes[0].1.len() < bytes && self.seen.is_empty() {
            self.wait(deadline, "no output comes")?;
            self.drain();
            self.receive()?;
        }
        Ok(())
    }

    /// What was printed since this was called last.
    pub fn printed(&mut self) -> [String; 2] {
        self.drain();
        self.pipes.each_mut().map(|(_, bytes)| String::from_utf8_lossy(&std::mem::take(bytes)).into_owned())
    }

    fn wait(&mut self, deadline: Instant, what: &str) -> Result<(), String> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let [(out, _), (err, _)] = &self.pipes;
        let mut fds = [out, err, &self.socket].map(|fd| PollFd::new(fd, PollFlags::IN));
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => {
                let printed = self.printed();
                Err(format!("{what} within {PATIENCE:?}; printed: {printed:?}"))
            }
            _ => Ok(()),
        }
    }

    fn drain(&mut self) {
        let mut scratch = [0; 1 << 16];
        for (fd, bytes) in &mut self.pipes {
            while let Ok(count @ 1..) = rustix::io::read(&*fd, &mut scratch) {
                bytes.extend_from_slice(&scratch[..count]);
            }
        }
    }

    fn receive(&mut self) -> Result<(), String> {
        let mut scratch = [0; 1 << 16];
        match rustix::io::read(&self.socket, &mut scratch) {
            Ok(0) | Err(Errno::CONNRESET) => {
                let status = self.child.wait().unwrap();
                return Err(format!("the worker ended ({status}); it said: {:?}", self.printed()));
            }
            Ok(count) => self.decoder.push(&scratch[..count]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(format!("receive: {error}")),
        }
        while let Some(envelope) = self.decoder.next_frame().map_err(|error| error.to_string())? {
            self.seen.push_back(envelope);
        }
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(folder: &Path, places: &[(&OwnedFd, i32)], stdout: OwnedFd, stderr: OwnedFd) -> Child {
    let passed: Vec<_> =
        places.iter().map(|(fd, place)| (fcntl_dupfd_cloexec(fd, 64).unwrap(), *place)).collect();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(WORKER).current_dir(folder).process_group(0);
    command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
    // SAFETY: only async-signal-safe calls between fork and exec.
    unsafe {
        command.pre_exec(move || {
            for (from, to) in &passed {
                if libc::dup2(from.as_raw_fd(), *to) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    command.spawn().unwrap()
}

fn map(memory: &OwnedFd) -> Page<'static> {
    let map = memmap2::MmapOptions::new().len(PAGE_BYTES).map_raw(memory).unwrap();
    let words = map.as_mut_ptr().cast::<[AtomicU64; PAGE_WORDS]>();
    std::mem::forget(map);
    // SAFETY: as large as the words, aligned to a page, shared, and never unmapped.
    Page::new(unsafe { &*words })
}
