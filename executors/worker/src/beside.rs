//! Descriptors that came beside frames, and wait until those are served.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use cob_protocol::limits::BESIDE_MAX;
use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;

/// In the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Beside(VecDeque<OwnedFd>);

impl Beside {
    /// Lets it wait. When too many do the oldest is closed, and whoever holds the other end sees that.
    pub(crate) fn keep(&mut self, descriptor: OwnedFd) {
        if self.0.len() >= BESIDE_MAX {
            self.0.pop_front();
        }
        self.0.push_back(descriptor);
    }

    /// What came with `freeze`: a socket of packets.
    pub(crate) fn take_control(&mut self) -> Option<OwnedFd> {
        self.take(is_of_packets)
    }

    /// What came with `load`: anything else.
    pub(crate) fn take_stream(&mut self) -> Option<OwnedFd> {
        self.take(|descriptor| !is_of_packets(descriptor))
    }

    /// The frames that they belong to will not come.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &OwnedFd> {
        self.0.iter()
    }

    fn take(&mut self, fits: impl Fn(&OwnedFd) -> bool) -> Option<OwnedFd> {
        let at = self.0.iter().position(fits)?;
        self.0.remove(at)
    }
}

fn is_of_packets(descriptor: &OwnedFd) -> bool {
    socket_type(descriptor).is_ok_and(|kind| kind == SocketType::SEQPACKET)
}
