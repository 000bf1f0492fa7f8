//! The control socket: one packet, one order or report.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use cob_protocol::limits::ZYGOTE_PACKET_BYTES_MAX;
use cob_protocol::zygote::{Order, Report};
use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::output::write_last_words;
use crate::process::{EXIT_PROTOCOL, exit_now};

/// Room for more descriptors than any order has: one too many shall be seen and not be cut off.
const DESCRIPTORS_MAX: usize = 16;

/// The zygote's end of the control socket.
#[derive(Debug)]
pub struct Control {
    socket: OwnedFd,
}

/// What a packet brought.
#[derive(Debug)]
pub(super) enum Received {
    /// An order and its descriptors; `whole` is false when the system could not hand all of them over.
    Order { order: Order, descriptors: Vec<OwnedFd>, whole: bool },
    /// The host has closed its end.
    End,
}

impl Control {
    /// Speaks through `socket`, a socket of packets.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket }
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Waits for a packet. A host that talks nonsense ends the process.
    ///
    /// # Errors
    /// `EINTR` when a signal cut the wait short.
    pub(super) fn receive(&self) -> Result<Received, Errno> {
        let mut packet = vec![0; ZYGOTE_PACKET_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            &self.socket,
            &mut [IoSliceMut::new(&mut packet)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        );
        let message = match received {
            Ok(message) => message,
            Err(Errno::INTR) => return Err(Errno::INTR),
            // A connection that is reset is as gone as one that was closed.
            Err(_) => return Ok(Received::End),
        };
        let mut descriptors = Vec::new();
        for part in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = part {
                descriptors.extend(received);
            }
        }
        // No order is an empty packet, so this is the end and not one.
        if message.bytes == 0 {
            return Ok(Received::End);
        }
        if message.flags.contains(ReturnFlags::TRUNC) {
            nonsense("a packet is larger than any order");
        }
        let packet = packet.get(..message.bytes).unwrap_or_default();
        let order = Order::decode(packet).unwrap_or_else(|error| nonsense(&error.to_string()));
        Ok(Received::Order { order, descriptors, whole: !message.flags.contains(ReturnFlags::CTRUNC) })
    }

    /// Sends a report, `descriptor` beside it.
    ///
    /// # Errors
    /// When the host is gone.
    pub(crate) fn report(&self, report: &Report, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let packet = report.encode().map_err(io::Error::other)?;
        let descriptors = descriptor.as_slice();
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        loop {
            let flags = SendFlags::NOSIGNAL;
            match sendmsg(&self.socket, &[IoSlice::new(&packet)], &mut ancillary, flags) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The host breaks the contract: nothing that follows could be trusted.
pub(super) fn nonsense(reason: &str) -> ! {
    write_last_words(&format!("cob: the host sent a zygote what cannot be read: {reason}\n"));
    exit_now(EXIT_PROTOCOL)
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, send, socketpair};

    use super::*;

    #[test]
    fn orders_come_with_their_descriptors_and_the_end_is_told() {
        let (host, zygote) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let control = Control::new(zygote);
        let (reader, _writer) = std::io::pipe().unwrap();
        let fds = [reader.as_fd(), reader.as_fd()];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(2))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        let packet = Order::Fork { number: 7 }.encode().unwrap();
        sendmsg(&host, &[IoSlice::new(&packet)], &mut ancillary, SendFlags::empty()).unwrap();
        send(&host, &packet, SendFlags::empty()).unwrap();
        drop(host);
        for count in [2, 0] {
            match control.receive().unwrap() {
                Received::Order { order, descriptors, whole } => {
                    assert_eq!((order, descriptors.len(), whole), (Order::Fork { number: 7 }, count, true));
                }
                Received::End => unreachable!("two packets were sent"),
            }
        }
        assert!(matches!(control.receive().unwrap(), Received::End));
        assert!(control.report(&Report::ForkFailed { number: 1, reason: String::new() }, None).is_err());
    }
}
