//! A host of zygotes.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, ExitStatus};

use bytes::Bytes;
use cob_protocol::handshake::{FRAME_FD, LIFELINE_FD, VERSIONS};
use cob_protocol::limits::ZYGOTE_PACKET_BYTES_MAX;
use cob_protocol::zygote::{Order, Prepare, Prepared, Report};
use rustix::cmsg_space;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process_group};

use super::process::Forked;
use super::{Host, Process, Start, command};

pub struct Zygote {
    pub child: Child,
    pub python: String,
    control: Option<OwnedFd>,
    /// Of the zygote itself.
    _lifeline: OwnedFd,
    output: File,
    forks: u64,
}

impl Zygote {
    /// Starts one; it waits for its first order.
    pub fn spawn(start: &Start<'_>) -> Self {
        let (control, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let (lifeline_end, lifeline) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let (output, stdout) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let mut command = command(start, &[(&theirs, FRAME_FD), (&lifeline_end, LIFELINE_FD)]);
        command.stdout(stdout.try_clone().unwrap()).stderr(stdout);
        let child = command.spawn().unwrap();
        let python = start.python.to_owned();
        Self { child, python, control: Some(control), _lifeline: lifeline, output: output.into(), forks: 0 }
    }

    /// Starts one and lets it import.
    #[track_caller]
    pub fn start(start: &Start<'_>, imports: &[&str]) -> Self {
        Self::prepared(start, imports).0
    }

    #[track_caller]
    pub fn prepared(start: &Start<'_>, imports: &[&str]) -> (Self, Prepared) {
        let mut zygote = Self::spawn(start);
        match zygote.prepare(imports).pop() {
            Some(Report::Prepared(prepared)) => (zygote, prepared),
            other => panic!("{other:?}; the zygote said: {}", zygote.last_words()),
        }
    }

    /// What it reports until it is ready or at its end.
    pub fn prepare(&mut self, imports: &[&str]) -> Vec<Report> {
        let imports = imports.iter().map(|&module| module.to_owned()).collect();
        self.order(&Order::Prepare(Prepare { versions: VERSIONS, imports }), &[]);
        let mut reports = Vec::new();
        while let Some((report, _)) = self.report() {
            let is_last = matches!(report, Report::Prepared(_) | Report::Unfit { .. });
            reports.push(report);
            if is_last {
                break;
            }
        }
        reports
    }

    pub fn order(&self, order: &Order, descriptors: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(8))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(descriptors)));
        }
        let packet = order.encode().unwrap();
        let control = self.control.as_ref().unwrap();
        sendmsg(control, &[IoSlice::new(&packet)], &mut ancillary, SendFlags::NOSIGNAL).unwrap();
    }

    /// The next report, or `None` at the end.
    pub fn report(&self) -> Option<(Report, Option<OwnedFd>)> {
        let mut packet = vec![0; ZYGOTE_PACKET_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let control = self.control.as_ref().unwrap();
        let slices = &mut [IoSliceMut::new(&mut packet)];
        let count = recvmsg(control, slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC).map_or(0, |m| m.bytes);
        let descriptor = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        (count > 0).then(|| (Report::decode(&packet[..count]).unwrap(), descriptor))
    }

    /// Forks a worker; it waits for `hello`.
    #[track_caller]
    pub fn fork(&mut self) -> Host {
        self.forks += 1;
        let number = self.forks;
        Host::connect(|theirs| {
            let (lifeline_end, lifeline) = pipe_with(PipeFlags::CLOEXEC).unwrap();
            let (status, status_end) = pipe_with(PipeFlags::CLOEXEC).unwrap();
            let descriptors =
                [&theirs.socket, &theirs.page, &lifeline_end, &theirs.stdout, &theirs.stderr, &status_end];
            self.order(&Order::Fork { number }, &descriptors.map(AsFd::as_fd));
            match self.report() {
                Some((Report::Forked { number: forked, pid }, Some(pidfd))) => {
                    assert_eq!(forked, number);
                    let lifeline = Some(lifeline);
                    Process::Forked(Forked { pid, pidfd, status: status.into(), lifeline })
                }
                other => panic!("{other:?}"),
            }
        })
    }

    /// Forks a worker and shakes hands.
    #[track_caller]
    pub fn session(&mut self) -> Host {
        let mut host = self.fork();
        host.hello();
        host.until_ready();
        host
    }

    /// Forks a worker and tells it where it is.
    #[track_caller]
    pub fn session_in(&mut self, environment: &[&str], directory: &str, umask: Option<u32>) -> Host {
        let mut host = self.fork();
        host.hello_with(&surroundings(environment, directory), umask);
        host.until_ready();
        host
    }

    /// It shall fork no more.
    pub fn close(&mut self) {
        self.control = None;
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// What it printed; ends when nobody can print any more.
    pub fn last_words(&mut self) -> String {
        let mut text = String::new();
        self.output.read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Payloads of `hello`.
pub fn surroundings(environment: &[&str], directory: &str) -> [Bytes; 2] {
    let block: String = environment.iter().map(|variable| format!("{variable}\0")).collect();
    [Bytes::from(block), Bytes::copy_from_slice(directory.as_bytes())]
}
