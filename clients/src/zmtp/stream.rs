//! One connected byte stream, TCP or Unix, as a half that reads and a half that writes.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Poll, ready};

use cob_protocol::limits::READ_AHEAD_BYTES_MAX;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::{TcpStream, UnixStream, tcp, unix};

thread_local! {
    /// What a read fills. One per thread rather than one per peer: a decoder takes the bytes before any await.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_AHEAD_BYTES_MAX]);
}

/// A connection that was accepted.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Ipc(UnixStream),
}

impl Stream {
    /// The user of the process at the other end.
    pub(super) fn user(&self) -> io::Result<u32> {
        match self {
            Stream::Tcp(_) => {
                Err(io::Error::new(io::ErrorKind::Unsupported, "TCP does not say whose process it is"))
            }
            Stream::Ipc(stream) => Ok(stream.peer_cred()?.uid()),
        }
    }

    pub(super) fn split(self) -> (ReadHalf, WriteHalf) {
        match self {
            Stream::Tcp(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Tcp(read), WriteHalf::Tcp(write))
            }
            Stream::Ipc(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Ipc(read), WriteHalf::Ipc(write))
            }
        }
    }
}

/// The half that one task reads.
#[derive(Debug)]
pub(super) enum ReadHalf {
    Tcp(tcp::OwnedReadHalf),
    Ipc(unix::OwnedReadHalf),
}

impl ReadHalf {
    /// Waits for bytes and hands them to `sink`, which must not read itself; `false` at the end of the stream.
    /// Cancel-safe. `poll_read` rather than `try_read`, because it knows that a short read has emptied the
    /// socket and saves the call that would only say so.
    pub(super) async fn read(&mut self, mut sink: impl FnMut(&[u8])) -> io::Result<bool> {
        poll_fn(|context| {
            SCRATCH.with_borrow_mut(|scratch| {
                let mut buffer = ReadBuf::new(scratch);
                ready!(match self {
                    ReadHalf::Tcp(half) => Pin::new(half).poll_read(context, &mut buffer),
                    ReadHalf::Ipc(half) => Pin::new(half).poll_read(context, &mut buffer),
                })?;
                sink(buffer.filled());
                Poll::Ready(Ok(!buffer.filled().is_empty()))
            })
        })
        .await
    }
}

/// The half that whoever flushes writes to.
#[derive(Debug)]
pub(super) enum WriteHalf {
    Tcp(tcp::OwnedWriteHalf),
    Ipc(unix::OwnedWriteHalf),
}

impl WriteHalf {
    pub(super) fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            WriteHalf::Tcp(half) => half.try_write_vectored(slices),
            WriteHalf::Ipc(half) => half.try_write_vectored(slices),
        }
    }

    pub(super) async fn writable(&self) -> io::Result<()> {
        match self {
            WriteHalf::Tcp(half) => half.writable().await,
            WriteHalf::Ipc(half) => half.writable().await,
        }
    }

    /// Writes all of it; for the few bytes before a peer has a queue. Not cancel-safe.
    pub(super) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.writable().await?;
            match self.try_write_vectored(&[IoSlice::new(bytes)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
