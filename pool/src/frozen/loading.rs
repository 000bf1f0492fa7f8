//! The way of a bundle into a worker.

use std::io;

use cob_protocol::bundle::{RecordHead, Tag};
use cob_protocol::frame::{Load, RequestNumber};
use cob_protocol::limits::BUNDLE_PIECE_BYTES;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;

use super::freezing::send_failed;
use super::saving::bundle_pipe;
use crate::worker::Worker;

/// The way of a bundle into a worker. Dropped before its end, the worker sees that the rest is missing.
#[derive(Debug)]
pub struct Loading {
    pipe: pipe::Sender,
    /// A record was begun and not ended: nothing that follows would be understood.
    is_broken: bool,
}

impl Worker {
    /// Has the worker take in a bundle, which the caller writes. Its end comes as an answer to `request`. What is
    /// written goes on its way while [`Worker::next`] is waited for.
    ///
    /// # Errors
    /// When there are no more descriptors, or too much waits for the worker.
    pub fn load(&mut self, request: RequestNumber, force: bool) -> io::Result<Loading> {
        let (reader, writer) = bundle_pipe()?;
        let pipe = pipe::Sender::from_owned_fd(writer)?;
        self.send_beside(&Load { request, force }.into(), reader).map_err(send_failed)?;
        Ok(Loading { pipe, is_broken: false })
    }
}

impl Loading {
    /// Sends a record; waits while the worker does not read. Not cancel-safe: a record of which a part was sent ends the
    /// bundle.
    ///
    /// # Errors
    /// When the worker does not want more: its answer says why.
    pub async fn send(&mut self, tag: Tag, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() > BUNDLE_PIECE_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a record of a bundle is too long"));
        }
        if std::mem::replace(&mut self.is_broken, true) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.pipe.write_all(&RecordHead { tag, bytes: bytes.len() }.to_bytes()).await?;
        self.pipe.write_all(bytes).await?;
        self.is_broken = false;
        Ok(())
    }
}
