//! Packets with descriptors beside them, over a SEQPACKET socket: how host and zygote talk, and how a worker is
//! handed to another process.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair, sockopt,
};
use rustix::process::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::readiness::watch_for;
use crate::scratch;

/// Descriptors beside one packet.
const DESCRIPTORS_MAX: usize = 12;

/// One end of a connection of packets.
#[derive(Debug)]
pub(crate) struct Packets {
    socket: AsyncFd<OwnedFd>,
}

impl Packets {
    /// A connection: our end, and the other one for a child.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self::new(ours)?, theirs))
    }

    /// A connection that was made elsewhere.
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        Ok(Self { socket: watch_for(socket, interest)? })
    }

    /// The next packet; `None` once the other side is gone. Cancel-safe.
    ///
    /// # Errors
    /// When the socket fails, or a packet was cut because it was too large or brought too many descriptors.
    pub(crate) async fn receive(&self) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        Ok(self.receive_signed().await?.map(|Packet { bytes, descriptors, .. }| (bytes, descriptors)))
    }

    /// As [`Packets::receive`], with the sender, if [`Packets::signed`] was asked for.
    pub(crate) async fn receive_signed(&self) -> io::Result<Option<Packet>> {
        let packet = loop {
            let mut ready = self.socket.readable().await?;
            if let Ok(received) = ready.try_io(|fd| scratch::with(|scratch| receive_any(fd.as_fd(), scratch)))
            {
                break received?;
            }
        };
        Ok((!packet.bytes.is_empty()).then_some(packet))
    }

    /// From now on the system says with each packet who sent it.
    pub(crate) fn signed(self) -> io::Result<Self> {
        sockopt::set_socket_passcred(self.socket(), true)?;
        Ok(self)
    }

    /// The socket, to ask the system about the other side.
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }

    /// Sends a packet. Cancel-safe: it is sent whole or not at all.
    ///
    /// # Errors
    /// When the other side is gone.
    pub(crate) async fn send(&self, packet: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        loop {
            let mut ready = self.socket.writable().await?;
            if let Ok(sent) = ready.try_io(|fd| send(fd.as_fd(), packet, descriptors)) {
                return sent;
            }
        }
    }
}

/// Sends a packet without waiting.
///
/// # Errors
/// When the other side is gone, or has left too many unread.
pub(crate) fn send(socket: BorrowedFd<'_>, packet: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one packet"));
    }
    sendmsg(socket, &[IoSlice::new(packet)], &mut beside, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
    Ok(())
}

/// What came at once.
#[derive(Debug, Default)]
pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
    /// Who sent it, as the system says.
    pub(crate) sender: Option<Pid>,
}

/// The packet that is there now, and the descriptors beside it; an empty one at the end of the connection.
///
/// # Errors
/// As [`Packets::receive`], or when there is none.
pub(crate) fn receive(socket: BorrowedFd<'_>, scratch: &mut [u8]) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    receive_any(socket, scratch).map(|Packet { bytes, descriptors, .. }| (bytes, descriptors))
}

fn receive_any(socket: BorrowedFd<'_>, scratch: &mut [u8]) -> io::Result<Packet> {
    let mut space =
        [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX), ScmCredentials(1))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let received =
        match recvmsg(socket, &mut [IoSliceMut::new(scratch)], &mut beside, RecvFlags::CMSG_CLOEXEC) {
            // A connection that is reset is as gone as one that was closed.
            Err(rustix::io::Errno::CONNRESET) => return Ok(Packet::default()),
            received => received?,
        };
    let mut packet = Packet::default();
    for message in beside.drain() {
        match message {
            RecvAncillaryMessage::ScmRights(descriptors) => packet.descriptors.extend(descriptors),
            RecvAncillaryMessage::ScmCredentials(sender) => packet.sender = Some(sender.pid),
            _ => {}
        }
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a packet is larger than any that is sent here",
        ));
    }
    packet.bytes = scratch.get(..received.bytes).unwrap_or_default().to_vec();
    Ok(packet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::BYTES;

    #[tokio::test]
    async fn packets_keep_their_bounds_and_bring_descriptors() {
        let (ours, theirs) = Packets::pair().unwrap();
        let theirs = Packets::new(theirs).unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        theirs.send(b"one", &[writer.as_fd()]).await.unwrap();
        theirs.send(b"two", &[]).await.unwrap();
        drop((theirs, writer));
        let (packet, descriptors) = ours.receive().await.unwrap().unwrap();
        assert_eq!((&packet[..], descriptors.len()), (&b"one"[..], 1));
        rustix::io::write(&descriptors[0], b"through").unwrap();
        let mut text = [0; 16];
        assert_eq!(rustix::io::read(&reader, &mut text).unwrap(), 7);
        let (packet, descriptors) = ours.receive().await.unwrap().unwrap();
        assert_eq!((&packet[..], descriptors.len()), (&b"two"[..], 0));
        assert!(ours.receive().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_packet_that_does_not_fit_is_refused() {
        let (ours, theirs) = Packets::pair().unwrap();
        Packets::new(theirs).unwrap().send(&vec![0; BYTES + 1], &[]).await.unwrap();
        assert!(ours.receive().await.is_err());
    }
}
