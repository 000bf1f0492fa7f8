//! A host that freezes sessions and thaws them.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bytes::Bytes;
use cob_protocol::checkpoint::Finding;
use cob_protocol::codec::encode;
use cob_protocol::frame::{Frame, Freeze};
use cob_protocol::handshake::Hello;
use cob_protocol::limits::ZYGOTE_PACKET_BYTES_MAX;
use cob_protocol::zygote::{Order, Report};
use rustix::cmsg_space;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::pipe::{PipeFlags, pipe_with};

use super::process::Forked;
use super::{Host, Process};

/// A session at one moment.
#[derive(Debug)]
pub struct Checkpoint {
    control: OwnedFd,
    pub pid: u32,
    pub findings: Vec<Finding>,
}

impl Host {
    /// Sends a frame and a descriptor beside it.
    pub fn send_beside(&mut self, frame: impl Into<Frame>, descriptor: BorrowedFd<'_>) {
        self.sequence += 1;
        let bytes = encode(&frame.into(), &[], self.sequence, self.received).unwrap();
        send_packet(&self.socket, &bytes, &[descriptor]);
    }

    /// A checkpoint, or why there is none.
    pub fn freeze(&mut self, force: bool) -> Result<Checkpoint, Vec<Finding>> {
        let (control, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        self.send_beside(Freeze { force }, theirs.as_fd());
        drop(theirs);
        match report(&control) {
            Some((Report::Frozen { pid, findings }, Some(_))) => Ok(Checkpoint { control, pid, findings }),
            Some((Report::Refused { findings }, None)) => Err(findings),
            other => panic!("{other:?}"),
        }
    }
}

impl Checkpoint {
    /// A worker that goes on from here.
    #[track_caller]
    pub fn thaw(&self) -> Host {
        self.thaw_in(&[])
    }

    /// The same, with payloads of `hello`.
    #[track_caller]
    pub fn thaw_in(&self, surroundings: &[Bytes]) -> Host {
        let mut host = self.fork();
        host.greet(Hello { resumes: true, ..Host::greeting() }, surroundings);
        host.until_ready();
        host
    }

    fn fork(&self) -> Host {
        Host::connect(|theirs| {
            let (lifeline_end, lifeline) = pipe_with(PipeFlags::CLOEXEC).unwrap();
            let (status, status_end) = pipe_with(PipeFlags::CLOEXEC).unwrap();
            let descriptors =
                [&theirs.socket, &theirs.page, &lifeline_end, &theirs.stdout, &theirs.stderr, &status_end];
            let order = Order::Fork { number: 7 }.encode().unwrap();
            send_packet(&self.control, &order, &descriptors.map(AsFd::as_fd));
            match report(&self.control) {
                Some((Report::Forked { number: 7, pid }, Some(pidfd))) => {
                    let lifeline = Some(lifeline);
                    Process::Forked(Forked { pid, pidfd, status: status.into(), lifeline })
                }
                other => panic!("{other:?}"),
            }
        })
    }
}

fn send_packet(socket: &OwnedFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(8))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(descriptors)));
    let sent = sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL).unwrap();
    assert_eq!(sent, bytes.len());
}

fn report(control: &OwnedFd) -> Option<(Report, Option<OwnedFd>)> {
    let mut packet = vec![0; ZYGOTE_PACKET_BYTES_MAX];
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
