//! The event-driven reader of a worker's socket.
//!
//! **Invariant:** exactly one task owns it. It holds every byte it has taken from the socket, so a future of
//! [`FrameReader::next`] may be dropped at any time without losing one.

use std::io;

use cob_protocol::codec::{CodecError, FrameDecoder};
use cob_protocol::frame::Envelope;
use rustix::net::RecvFlags;
use thiserror::Error;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;

use crate::scratch;

/// Reads whole frames from a socket.
#[derive(Debug)]
pub struct FrameReader {
    socket: OwnedReadHalf,
    decoder: FrameDecoder,
    ended: bool,
}

/// What one look at the socket brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    /// Bytes came; there may be more.
    Some,
    /// Nothing there now.
    Dry,
    /// The other side has closed.
    Ended,
}

/// A transport that is of no more use.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The worker does not keep to the protocol.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// It sends a frame at a time that is not for it.
    #[error("{0}")]
    Order(&'static str),
    /// The socket failed.
    #[error("the worker's socket failed: {0}")]
    Io(#[from] io::Error),
}

impl FrameReader {
    /// Wraps the reading half of a socket.
    #[must_use]
    pub fn new(socket: OwnedReadHalf) -> Self {
        Self { socket, decoder: FrameDecoder::new(), ended: false }
    }

    /// From now on frames of every size in the table are accepted.
    pub fn handshake_done(&mut self) {
        self.decoder.handshake_done();
    }

    /// The next frame; `None` once the other side has closed.
    ///
    /// Cancel-safe: it awaits readiness only.
    ///
    /// # Errors
    /// When the worker breaks the protocol or the socket fails.
    pub async fn next(&mut self) -> Result<Option<Envelope>, ReadError> {
        loop {
            if let Some(envelope) = self.decoder.next_frame()? {
                return Ok(Some(envelope));
            }
            match self.fill()? {
                Fill::Ended => return Ok(None),
                Fill::Dry => self.readable().await?,
                Fill::Some => {}
            }
        }
    }

    /// A frame that has already been read.
    pub(crate) fn decoded(&mut self) -> Result<Option<Envelope>, ReadError> {
        Ok(self.decoder.next_frame()?)
    }

    /// Waits until a look may bring something. Never returns once the other side has closed.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        if self.ended {
            std::future::pending::<()>().await;
        }
        self.socket.readable().await
    }

    /// Looks once, without waiting.
    pub(crate) fn fill(&mut self) -> Result<Fill, ReadError> {
        if self.ended {
            return Ok(Fill::Ended);
        }
        let received = scratch::with(|scratch| -> io::Result<usize> {
            let count = receive(self.socket.as_ref(), scratch)?;
            self.decoder.push(&scratch[..count]);
            Ok(count)
        });
        match received {
            Ok(0) => {
                self.ended = true;
                Ok(Fill::Ended)
            }
            Ok(_) => Ok(Fill::Some),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Fill::Dry),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                self.ended = true;
                Ok(Fill::Ended)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Receives what is there *now*.
///
/// The event loop's own `try_read` says "nothing" as long as it has not been told of new bytes, which may lie in
/// the socket already; the order of frames and output rests on knowing that the socket is empty.
fn receive(socket: &UnixStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut receive = || -> io::Result<usize> {
        let (_, received) = rustix::net::recv(socket, &mut *buffer, RecvFlags::DONTWAIT)?;
        Ok(received)
    };
    match receive() {
        // Readiness that was used up is taken back, by a second look that the event loop knows of.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.try_io(Interest::READABLE, receive),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use cob_protocol::codec::encode;
    use cob_protocol::frame::{Frame, Ping};
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    use super::*;

    fn ping(number: u64) -> Bytes {
        encode(&Frame::from(Ping { number }), &[], number, 0).unwrap()
    }

    fn pair() -> (UnixStream, FrameReader) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (read, write) = ours.into_split();
        // The writing half is not used here; forgetting it keeps the socket open in both directions.
        write.forget();
        (theirs, FrameReader::new(read))
    }

    #[tokio::test]
    async fn a_dropped_future_loses_no_byte() {
        let (mut worker, mut reader) = pair();
        let bytes = ping(1);
        for byte in &bytes[..bytes.len() - 1] {
            worker.write_all(&[*byte]).await.unwrap();
            // The future gets as far as it can and is dropped in the middle of the frame.
            tokio::select! {
                biased;
                _ = reader.next() => panic!("the frame is not whole yet"),
                () = tokio::task::yield_now() => {}
            }
        }
        worker.write_all(&bytes[bytes.len() - 1..]).await.unwrap();
        assert_eq!(reader.next().await.unwrap().unwrap().sequence, 1);
    }

    #[tokio::test]
    async fn what_lies_in_the_socket_is_seen_before_the_event_loop_tells_of_it() {
        let (worker, mut reader) = pair();
        // Neither write nor look passes through the event loop, as when another process writes.
        for number in 1..=3 {
            rustix::io::write(&worker, &ping(number)).unwrap();
            assert_eq!(reader.fill().unwrap(), Fill::Some);
            assert_eq!(reader.decoded().unwrap().unwrap().sequence, number);
            assert_eq!(reader.fill().unwrap(), Fill::Dry);
        }
    }

    #[tokio::test]
    async fn frames_before_the_end_are_delivered_then_none() {
        let (mut worker, mut reader) = pair();
        for number in 1..=3 {
            worker.write_all(&ping(number)).await.unwrap();
        }
        drop(worker);
        for number in 1..=3 {
            assert_eq!(reader.next().await.unwrap().unwrap().sequence, number);
        }
        assert!(reader.next().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_worker_that_talks_nonsense_is_an_error() {
        let (mut worker, mut reader) = pair();
        worker.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        drop(worker);
        assert!(matches!(reader.next().await, Err(ReadError::Codec(_)) | Ok(None)));
    }
}
