//! The way in: frames from the host, one at a time, and those that must wait their turn.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use bytes::Bytes;
use cob_protocol::codec::{CodecError, FrameDecoder};
use cob_protocol::frame::{Answer, Comm, Envelope, Execute, ExecutionNumber, Frame, RequestNumber};
use cob_protocol::limits::{READ_AHEAD_BYTES_MAX, SESSION_QUEUE_BYTES_MAX, SESSION_QUEUE_MAX};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::RecvFlags;

use crate::beside::Beside;
use crate::link::Link;
use crate::takeover::{Replacement, Reserve, receive};

/// The reading half of the frame socket.
#[derive(Debug)]
pub struct Inbox {
    pub(crate) link: Arc<Link>,
    pub(crate) decoder: FrameDecoder,
    pub(crate) scratch: Box<[u8]>,
    /// Frames that came while running code waited for an answer.
    queue: VecDeque<Envelope>,
    queued_bytes: usize,
    /// Whether `hello` was taken off the wire. Until then nobody knows if the socket may be replaced.
    pub(crate) is_greeted: bool,
    /// The latest request for code that was taken off the wire, be it that it only waits.
    pub(crate) execution: ExecutionNumber,
    /// The question of running code that has no answer yet.
    pub(crate) awaited: Option<RequestNumber>,
    /// What has come to take the place of the socket and does not yet stand there.
    pub(crate) replacement: Option<Replacement>,
    /// Whatever comes before a replacement is thrown away.
    pub(crate) is_discarding: bool,
    pub(crate) reserve: Reserve,
    /// What came beside frames that were not served yet.
    pub(crate) beside: Beside,
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// More bytes.
    Some,
    /// Nothing yet.
    Nothing,
    /// The host is gone.
    End,
    /// Another host, and its socket.
    Replaced,
}

impl Inbox {
    /// Reads from the socket of `link`.
    pub(crate) fn new(link: Arc<Link>) -> Self {
        Self {
            link,
            decoder: FrameDecoder::of_worker(),
            scratch: vec![0; READ_AHEAD_BYTES_MAX].into_boxed_slice(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            is_greeted: false,
            execution: 0,
            awaited: None,
            replacement: None,
            is_discarding: false,
            reserve: Reserve::none(),
            beside: Beside::default(),
        }
    }

    /// Forgets all that ever came: this process is no longer the one that it came to.
    pub(crate) fn renew(&mut self) {
        self.decoder = FrameDecoder::of_worker();
        self.queue = VecDeque::new();
        self.queued_bytes = 0;
        (self.is_greeted, self.is_discarding) = (false, false);
        (self.execution, self.awaited, self.replacement) = (0, None, None);
        self.reserve = Reserve::none();
        self.beside.clear();
    }

    /// Whether a descriptor is kept here.
    pub(crate) fn owns(&self, number: RawFd) -> bool {
        self.reserve.is(number) || self.beside.iter().any(|descriptor| descriptor.as_raw_fd() == number)
    }

    /// From now on frames may be as large as the table allows.
    pub fn handshake_done(&mut self) {
        self.decoder.handshake_done();
    }

    /// The next frame to serve, if there is a whole one.
    ///
    /// # Errors
    /// The host does not speak the protocol.
    pub fn take(&mut self) -> Result<Option<Envelope>, CodecError> {
        if let Some(envelope) = self.queue.pop_front() {
            self.queued_bytes -= weight(&envelope);
            return Ok(Some(envelope));
        }
        self.next_arrived()
    }

    /// The next frame off the wire, past those that wait.
    ///
    /// # Errors
    /// The host does not speak the protocol.
    pub fn next_arrived(&mut self) -> Result<Option<Envelope>, CodecError> {
        let next = self.decoder.next_frame()?;
        if let Some(envelope) = &next {
            self.link.set_received(envelope.sequence);
            self.note(&envelope.frame);
        }
        Ok(next)
    }

    /// Remembers what another host would have to know.
    fn note(&mut self, frame: &Frame) {
        match frame {
            Frame::Hello(_) => self.is_greeted = true,
            Frame::Execute(Execute { execution, .. }) | Frame::Comm(Comm { execution, .. }) => {
                self.execution = self.execution.max(*execution);
            }
            Frame::Answer(Answer { request, .. }) if self.awaited == Some(*request) => self.awaited = None,
            _ => {}
        }
    }

    /// Which question of running code waits for its answer.
    pub(crate) fn await_answer(&mut self, request: Option<RequestNumber>) {
        self.awaited = request;
    }

    /// Lets a frame wait for [`Inbox::take`].
    ///
    /// # Errors
    /// The frame itself, when too many wait: it must be refused.
    pub fn put_back(&mut self, envelope: Envelope) -> Result<(), Box<Envelope>> {
        let bytes = self.queued_bytes + weight(&envelope);
        if self.queue.len() >= SESSION_QUEUE_MAX || bytes > SESSION_QUEUE_BYTES_MAX {
            return Err(Box::new(envelope));
        }
        self.queued_bytes = bytes;
        self.queue.push_back(envelope);
        Ok(())
    }

    /// Lets a request to end overtake all that waits.
    pub fn put_first(&mut self, envelope: Envelope) {
        self.queued_bytes += weight(&envelope);
        self.queue.push_front(envelope);
    }

    /// Whether the host asked to end and that was put aside.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        matches!(self.queue.front(), Some(Envelope { frame: Frame::Shutdown(_), .. }))
    }

    /// Reads what has come, without waiting.
    pub fn fill(&mut self) -> Filled {
        self.read(RecvFlags::DONTWAIT).unwrap_or(Filled::Nothing)
    }

    /// Waits until something comes. For a host that nobody replaces: the inbox stays locked meanwhile.
    ///
    /// # Errors
    /// `Interrupted` when a signal cut the wait short.
    pub fn fill_waiting(&mut self) -> io::Result<Filled> {
        match self.read(RecvFlags::empty())? {
            Filled::Nothing if !self.link.wait_for(PollFlags::IN) => Err(Errno::INTR.into()),
            filled => Ok(filled),
        }
    }

    fn read(&mut self, flags: RecvFlags) -> Result<Filled, Errno> {
        if self.link.survives() || !self.is_greeted {
            return self.read_or_replace();
        }
        match receive(self.link.socket(), &mut self.scratch, flags, &mut self.beside) {
            Ok((0, _)) => Ok(Filled::End),
            // Whoever sends another socket takes the session for one that outlives its server; it is closed.
            Ok((count, _)) => {
                self.decoder.push(self.scratch.get(..count).unwrap_or_default());
                Ok(Filled::Some)
            }
            Err(Errno::AGAIN) => Ok(Filled::Nothing),
            Err(Errno::INTR) => Err(Errno::INTR),
            // A connection that is reset is as gone as one that was closed.
            Err(_) => Ok(Filled::End),
        }
    }
}

/// What a waiting frame costs: its payloads; headers are small.
fn weight(envelope: &Envelope) -> usize {
    envelope.payloads.iter().map(Bytes::len).sum()
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::sync::atomic::AtomicU64;

    use cob_protocol::codec::encode;
    use cob_protocol::frame::{Ping, Shutdown};
    use cob_protocol::page::{PAGE_WORDS, Page};
    use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};

    use super::*;

    static WORDS: [AtomicU64; PAGE_WORDS] = [const { AtomicU64::new(0) }; PAGE_WORDS];

    fn pair() -> (OwnedFd, Inbox) {
        let (host, worker) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        (host, Inbox::new(Arc::new(Link::new(worker, Page::new(&WORDS)))))
    }

    fn ping(number: u64) -> Frame {
        Frame::Ping(Ping { number })
    }

    #[test]
    fn frames_come_whole_however_they_arrive() {
        let (host, mut inbox) = pair();
        for byte in encode(&ping(7), &[], 1, 0).unwrap() {
            assert!(inbox.take().unwrap().is_none());
            send(&host, &[byte], SendFlags::empty()).unwrap();
            assert_eq!(inbox.fill_waiting().unwrap(), Filled::Some);
        }
        assert_eq!(inbox.take().unwrap().unwrap().frame, ping(7));
        drop(host);
        assert_eq!(inbox.fill_waiting().unwrap(), Filled::End);
    }

    #[test]
    fn the_end_overtakes_what_waits_and_nothing_is_lost() {
        let (_host, mut inbox) = pair();
        let envelope = |frame| Envelope { sequence: 1, acknowledged: 0, frame, payloads: Vec::new() };
        inbox.put_back(envelope(ping(1))).unwrap();
        assert!(!inbox.is_ending());
        inbox.put_first(envelope(Frame::Shutdown(Shutdown { restart: false })));
        assert!(inbox.is_ending());
        assert!(matches!(inbox.take().unwrap().unwrap().frame, Frame::Shutdown(_)));
        assert_eq!(inbox.take().unwrap().unwrap().frame, ping(1));
    }

    #[test]
    fn what_waits_is_bounded() {
        let (_host, mut inbox) = pair();
        let envelope = Envelope {
            sequence: 1,
            acknowledged: 0,
            frame: ping(1),
            payloads: vec![Bytes::from(vec![0; SESSION_QUEUE_BYTES_MAX / 2])],
        };
        inbox.put_back(envelope.clone()).unwrap();
        inbox.put_back(envelope.clone()).unwrap();
        inbox.put_back(envelope).unwrap_err();
    }
}
