//! A host that dies and comes back.
#![allow(unsafe_code)]

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::AtomicU32;

use cob_protocol::codec::FrameDecoder;
use cob_protocol::frame::Attached;
use cob_protocol::handshake::Hello;
use cob_protocol::page::{Page, epoch_byte};
use rustix::cmsg_space;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg,
    socketpair,
};
use rustix::thread::futex;

use super::{Host, Start};

impl Host {
    /// Starts a worker whose session outlives its host.
    pub fn start_surviving(start: &Start<'_>) -> Self {
        let mut host = Self::spawn(start);
        host.greet(Hello { survives: true, ..Self::greeting() }, &[]);
        host.until_ready();
        host
    }

    /// Comes back as another host that knows what this one has seen. The old socket is for the test to hold.
    #[must_use]
    pub fn take_over(&mut self) -> OwnedFd {
        let epoch = self.page.replace_socket();
        wake(self.page);
        let (socket, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        let descriptors = [theirs.as_fd()];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
        let byte = [epoch_byte(epoch)];
        sendmsg(&self.socket, &[IoSlice::new(&byte)], &mut ancillary, SendFlags::NOSIGNAL).unwrap();
        self.decoder = FrameDecoder::new();
        self.decoder.handshake_done();
        self.sequence = 0;
        self.attached = None;
        std::mem::replace(&mut self.socket, socket)
    }

    /// Waits until the worker has said what it has.
    pub fn until_attached(&mut self) -> Attached {
        loop {
            if let Some(attached) = &self.attached {
                return attached.clone();
            }
            self.look();
        }
    }

    /// Says that everything that was seen is recorded.
    pub fn acknowledge(&self) {
        if self.page.acknowledge(self.received) {
            wake(self.page);
        }
    }
}

fn wake(page: Page<'_>) {
    let half = std::ptr::from_ref(page.bell_word()).cast::<AtomicU32>();
    let half = if cfg!(target_endian = "big") { half.wrapping_add(1) } else { half };
    // SAFETY: a half of a word that is mapped for good.
    let bell = unsafe { &*half };
    futex::wake(bell, futex::Flags::empty(), i32::MAX as u32).unwrap();
}
