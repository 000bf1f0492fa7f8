//! The writer of a worker's socket: two lanes, bounded, never blocking.
//!
//! Control frames overtake data at frame boundaries. A frame gets its number when it takes its place on the
//! wire, so numbers always rise there. A descriptor travels beside the first byte of its frame, once.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use bytes::{Buf, Bytes};
use cob_protocol::codec::{CodecError, encode, stamp};
use cob_protocol::frame::Frame;
use cob_protocol::limits::{BESIDE_MAX, WORKER_QUEUE_BYTES_MAX};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use thiserror::Error;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;

/// Which queue a frame waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Answers, pings, shutdown.
    Control,
    /// Requests.
    Data,
}

/// A frame that was not taken.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SendError {
    /// It cannot be put on the wire.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Too much waits already.
    #[error("more than {WORKER_QUEUE_BYTES_MAX} bytes or {BESIDE_MAX} descriptors wait for the worker")]
    Full,
}

/// A frame that has no number yet.
#[derive(Debug)]
struct Waiting {
    head: Bytes,
    payloads: Vec<Bytes>,
    beside: Option<OwnedFd>,
}

/// Bytes on their way.
#[derive(Debug)]
struct Piece {
    bytes: Bytes,
    /// Goes with the first of them; dropped once it is sent.
    beside: Option<OwnedFd>,
}

/// Pieces of one write at most; more would not fit into one `writev`.
const PIECES_MAX: usize = 64;

/// Writes frames to a socket.
#[derive(Debug)]
pub struct FrameWriter {
    socket: OwnedWriteHalf,
    control: VecDeque<Waiting>,
    data: VecDeque<Waiting>,
    /// What has its number and is on its way.
    wire: VecDeque<Piece>,
    queued_bytes: usize,
    sequence: u64,
    acknowledged: u64,
    /// Whether nobody is known to be at the other end yet.
    is_held: bool,
}

impl FrameWriter {
    /// Wraps the writing half of a socket.
    #[must_use]
    pub fn new(socket: OwnedWriteHalf) -> Self {
        Self {
            socket,
            control: VecDeque::new(),
            data: VecDeque::new(),
            wire: VecDeque::new(),
            queued_bytes: 0,
            sequence: 0,
            acknowledged: 0,
            is_held: false,
        }
    }

    /// One that keeps everything until [`FrameWriter::go_on`].
    pub(crate) fn held(socket: OwnedWriteHalf) -> Self {
        Self { is_held: true, ..Self::new(socket) }
    }

    /// The worker listens, and has had frames up to `sequence` from somebody before us.
    pub(crate) fn go_on(&mut self, sequence: u64) {
        self.sequence = sequence;
        self.is_held = false;
    }

    pub(crate) fn socket(&self) -> &UnixStream {
        self.socket.as_ref()
    }

    /// Puts a frame into its lane; [`FrameWriter::flush`] sends it.
    ///
    /// # Errors
    /// [`SendError`]: the frame is too large, or too much waits already.
    pub fn push(&mut self, frame: &Frame, payloads: Vec<Bytes>, lane: Lane) -> Result<(), SendError> {
        self.queue(frame, payloads, lane, None)
    }

    /// As [`FrameWriter::push`], with a descriptor beside the frame.
    ///
    /// # Errors
    /// As there; the descriptor is closed.
    pub fn push_beside(&mut self, frame: &Frame, beside: OwnedFd, lane: Lane) -> Result<(), SendError> {
        let waiting = self.control.iter().chain(&self.data).filter(|frame| frame.beside.is_some()).count();
        if waiting >= BESIDE_MAX {
            return Err(SendError::Full);
        }
        self.queue(frame, Vec::new(), lane, Some(beside))
    }

    fn queue(
        &mut self,
        frame: &Frame,
        payloads: Vec<Bytes>,
        lane: Lane,
        beside: Option<OwnedFd>,
    ) -> Result<(), SendError> {
        let head = encode(frame, &payloads, 0, 0)?;
        let bytes = head.len() + payloads.iter().map(Bytes::len).sum::<usize>();
        if self.queued_bytes + bytes > WORKER_QUEUE_BYTES_MAX {
            return Err(SendError::Full);
        }
        self.queued_bytes += bytes;
        let waiting = Waiting { head, payloads, beside };
        match lane {
            Lane::Control => self.control.push_back(waiting),
            Lane::Data => self.data.push_back(waiting),
        }
        Ok(())
    }

    /// Frames up to this number are done with; the next frame tells the worker.
    pub fn acknowledge(&mut self, sequence: u64) {
        self.acknowledged = sequence;
    }

    /// Whether something waits.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        !(self.is_held || self.wire.is_empty() && self.control.is_empty() && self.data.is_empty())
    }

    /// Writes what the socket takes, without waiting.
    ///
    /// # Errors
    /// When the socket failed; the worker is gone then, and its end will be noticed elsewhere.
    pub fn flush(&mut self) -> io::Result<()> {
        loop {
            if self.is_held || self.wire.is_empty() && !self.stage() {
                return Ok(());
            }
            match self.write() {
                Ok(count) => self.consume(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => {
                    self.give_up();
                    return Err(error);
                }
            }
        }
    }

    /// Writes what stands in front: a frame with its descriptor by itself, others together.
    fn write(&self) -> io::Result<usize> {
        if let Some(Piece { bytes, beside: Some(beside) }) = self.wire.front() {
            let socket = self.socket();
            return socket.try_io(Interest::WRITABLE, || send_beside(socket, bytes, beside));
        }
        let plain = self.wire.iter().take_while(|piece| piece.beside.is_none()).take(PIECES_MAX);
        let pieces: Vec<IoSlice<'_>> = plain.map(|piece| IoSlice::new(&piece.bytes)).collect();
        self.socket.try_write_vectored(&pieces)
    }

    /// Nobody will read it. (A broken socket is always writable: waiting for it would never end, and nothing else would
    /// get its turn.)
    pub(crate) fn give_up(&mut self) {
        self.wire.clear();
        self.control.clear();
        self.data.clear();
        self.queued_bytes = 0;
    }

    /// Waits until the socket takes more, if something waits; for ever otherwise. Cancel-safe.
    pub async fn writable(&self) -> io::Result<()> {
        if !self.has_pending() {
            std::future::pending::<()>().await;
        }
        self.socket.writable().await
    }

    /// Takes the next frame onto the wire.
    fn stage(&mut self) -> bool {
        let Some(waiting) = self.control.pop_front().or_else(|| self.data.pop_front()) else {
            return false;
        };
        let Waiting { head, payloads, beside } = waiting;
        self.sequence += 1;
        self.wire.push_back(Piece { bytes: stamp(head, self.sequence, self.acknowledged), beside });
        let payloads = payloads.into_iter().filter(|payload| !payload.is_empty());
        self.wire.extend(payloads.map(|bytes| Piece { bytes, beside: None }));
        true
    }

    fn consume(&mut self, mut count: usize) {
        self.queued_bytes = self.queued_bytes.saturating_sub(count);
        while let Some(front) = self.wire.front_mut() {
            let step = front.bytes.len().min(count);
            front.bytes.advance(step);
            count -= step;
            if step > 0 {
                front.beside = None;
            }
            if !front.bytes.is_empty() {
                break;
            }
            self.wire.pop_front();
        }
    }
}

fn send_beside(socket: &UnixStream, bytes: &[u8], beside: &OwnedFd) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let rights = [beside.as_fd()];
    ancillary.push(SendAncillaryMessage::ScmRights(&rights));
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    Ok(sendmsg(socket.as_fd(), &[IoSlice::new(bytes)], &mut ancillary, flags)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FrameReader;
    use cob_protocol::frame::{Envelope, Execute, Freeze, Kind, Ping};
    use cob_protocol::json::Json;
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    use std::io::IoSliceMut;

    fn execute(execution: u64) -> Frame {
        Execute {
            execution,
            count: 1,
            silent: false,
            store_history: true,
            allow_stdin: true,
            user_expressions: Json::object(),
            parent: Json::object(),
        }
        .into()
    }

    async fn receive(reader: &mut FrameReader, writer: &mut FrameWriter) -> Envelope {
        loop {
            writer.flush().unwrap();
            tokio::select! {
                envelope = reader.next() => return envelope.unwrap().unwrap(),
                ready = writer.writable() => ready.unwrap(),
            }
        }
    }

    #[tokio::test]
    async fn control_overtakes_data_at_frame_boundaries_and_numbers_rise() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut writer = FrameWriter::new(ours.into_split().1);
        let mut reader = FrameReader::new(theirs.into_split().0);
        reader.handshake_done();
        let code = Bytes::from(vec![b'x'; 1 << 20]);
        for n in 1..=2 {
            writer.push(&execute(n), vec![code.clone()], Lane::Data).unwrap();
        }
        writer.flush().unwrap(); // the first frame is now cut in the middle
        writer.push(&Ping { number: 9 }.into(), vec![], Lane::Control).unwrap();
        let mut kinds = Vec::new();
        for expected in 1..=3 {
            let envelope = receive(&mut reader, &mut writer).await;
            assert_eq!(envelope.sequence, expected);
            assert!(envelope.payloads.iter().all(|p| *p == code));
            kinds.push(envelope.frame.kind());
        }
        assert_eq!(kinds, [Kind::Execute, Kind::Ping, Kind::Execute]);
    }

    /// What one look at the socket brings, and the descriptors beside it.
    fn look(socket: &UnixStream) -> (usize, Vec<OwnedFd>) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [0; 1 << 16];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut beside, flags).unwrap();
        let rights = beside.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        (received.bytes, rights.flatten().collect())
    }

    #[tokio::test]
    async fn a_descriptor_goes_with_its_frame_once_and_is_closed() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut writer = FrameWriter::new(ours.into_split().1);
        let (reader, pipe) = rustix::pipe::pipe().unwrap();
        let ping = |number| Frame::from(Ping { number });
        writer.push(&ping(1), vec![], Lane::Data).unwrap();
        writer.push_beside(&Freeze { force: false }.into(), pipe, Lane::Data).unwrap();
        writer.push(&ping(2), vec![], Lane::Data).unwrap();
        writer.flush().unwrap();
        theirs.readable().await.unwrap();
        // The system brings no bytes together that were sent with a descriptor and without.
        let mut looks = Vec::new();
        while looks.iter().map(|(_, descriptors)| descriptors).sum::<usize>() == 0 {
            let (bytes, descriptors) = look(&theirs);
            looks.push((bytes, descriptors.len()));
            for descriptor in descriptors {
                rustix::io::write(&descriptor, b"x").unwrap();
            }
        }
        assert_eq!(looks.iter().map(|(_, descriptors)| descriptors).sum::<usize>(), 1, "{looks:?}");
        let mut bytes = [0; 4];
        assert_eq!(rustix::io::read(&reader, &mut bytes).unwrap(), 1);
        assert_eq!(rustix::io::read(&reader, &mut bytes).unwrap(), 0, "nobody has it any more");
        let waits = |writer: &mut FrameWriter| {
            let beside = rustix::pipe::pipe().unwrap().1;
            writer.push_beside(&Freeze { force: false }.into(), beside, Lane::Data)
        };
        for _ in 0..BESIDE_MAX {
            waits(&mut writer).unwrap();
        }
        assert!(matches!(waits(&mut writer), Err(SendError::Full)));
    }

    #[tokio::test]
    async fn a_broken_socket_has_nothing_to_wait_for() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut writer = FrameWriter::new(ours.into_split().1);
        drop(theirs);
        writer.push(&execute(1), vec![], Lane::Data).unwrap();
        assert!(writer.flush().is_err());
        assert!(!writer.has_pending());
    }

    #[tokio::test]
    async fn what_waits_is_bounded() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut writer = FrameWriter::new(ours.into_split().1);
        let code = Bytes::from(vec![b'x'; 30 << 20]);
        assert!(writer.push(&execute(1), vec![code.clone()], Lane::Data).is_ok());
        assert!(writer.push(&execute(2), vec![code.clone()], Lane::Data).is_ok());
        assert!(matches!(writer.push(&execute(3), vec![code], Lane::Data), Err(SendError::Full)));
    }
}
