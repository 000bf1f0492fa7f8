//! What a bundle is, then its blobs, out of records. Nothing that comes is trusted.

use std::io;
use std::os::fd::OwnedFd;

use cob_protocol::bundle::{Outline, RECORD_HEAD_BYTES, RecordHead, Tag};
use cob_protocol::limits::{BUNDLE_BLOBS_MAX, BUNDLE_PIECE_BYTES, OUTLINE_BYTES_MAX, READ_AHEAD_BYTES_MAX};

/// Reads a bundle: its outline, then blobs.
///
/// Everything here blocks without touching the interpreter, so it can be called while that is let go. When a signal
/// comes, a call ends with `Interrupted`: look at signals and call again, nothing is lost.
#[derive(Debug)]
pub struct BundleReader {
    descriptor: OwnedFd,
    head: [u8; RECORD_HEAD_BYTES],
    head_bytes: usize,
    /// The record that is being read; its length is what is left of it.
    record: Option<RecordHead>,
    /// Of the outline, or of a blob that is read as a whole.
    gathered: Vec<u8>,
    blobs: usize,
    /// The last piece was not full: no other may follow in its blob.
    is_short: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Outline,
    Between,
    Blob,
    End,
    /// Nothing that follows could be trusted.
    Spoilt,
}

impl BundleReader {
    /// Reads from a socket or pipe.
    #[must_use]
    pub fn new(descriptor: OwnedFd) -> Self {
        Self {
            descriptor,
            head: [0; RECORD_HEAD_BYTES],
            head_bytes: 0,
            record: None,
            gathered: Vec::new(),
            blobs: 0,
            is_short: false,
            state: State::Outline,
        }
    }

    /// What the bundle says of itself; asked for first, and once.
    ///
    /// # Errors
    /// When the host is gone, sends what is no bundle, or says why there is none; `Interrupted`.
    pub fn outline(&mut self) -> io::Result<Outline> {
        if self.state != State::Outline {
            return Err(self.spoilt("its outline was read before"));
        }
        while self.record()?.tag == Tag::Outline {
            if self.gathered.len() >= OUTLINE_BYTES_MAX {
                return Err(self.spoilt("its outline is too large"));
            }
            self.gather()?;
        }
        let text = std::mem::take(&mut self.gathered);
        let outline = serde_json::from_slice(&text)
            .map_err(|error| self.spoilt(&format!("its outline cannot be read: {error}")))?;
        self.state = State::Between;
        Ok(outline)
    }

    /// The next blob as a whole, in order; `None` after the last one.
    ///
    /// # Errors
    /// As above.
    pub fn blob(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.state != State::Blob && !self.next_blob()? {
            return Ok(None);
        }
        while self.is_more()? {
            self.gather()?;
        }
        Ok(Some(std::mem::take(&mut self.gathered)))
    }

    /// Goes on to the next blob, for [`BundleReader::read`]; whether there is one.
    ///
    /// # Errors
    /// As above; also when the blob before was not read to its end.
    pub fn next_blob(&mut self) -> io::Result<bool> {
        match self.state {
            State::Between => {}
            State::End => return Ok(false),
            State::Outline | State::Blob | State::Spoilt => {
                return Err(self.spoilt("what comes before a blob was not read to its end"));
            }
        }
        match self.record()?.tag {
            Tag::Piece | Tag::BlobEnd if self.blobs < BUNDLE_BLOBS_MAX => {
                self.blobs += 1;
                self.state = State::Blob;
                Ok(true)
            }
            Tag::Piece | Tag::BlobEnd => Err(self.spoilt("it has too many blobs")),
            Tag::End => {
                self.state = State::End;
                Ok(false)
            }
            Tag::Outline | Tag::Failed => Err(self.spoilt("an outline comes among its blobs")),
        }
    }

    /// Reads some bytes of the present blob; 0 at its end.
    ///
    /// # Errors
    /// As above.
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() || !self.is_more()? {
            return Ok(0);
        }
        let count = into.len().min(self.left());
        self.receive(into.get_mut(..count).unwrap_or_default())
    }

    /// Whether bytes of the present blob are to come.
    fn is_more(&mut self) -> io::Result<bool> {
        if self.state != State::Blob {
            return Ok(false);
        }
        match self.record()?.tag {
            Tag::Piece => Ok(true),
            Tag::BlobEnd => {
                self.record = None;
                self.state = State::Between;
                Ok(false)
            }
            Tag::Outline | Tag::End | Tag::Failed => Err(self.spoilt("one of its blobs has no end")),
        }
    }

    /// Adds some bytes of the present record to what is gathered.
    fn gather(&mut self) -> io::Result<()> {
        let before = self.gathered.len();
        let mut gathered = std::mem::take(&mut self.gathered);
        gathered.resize(before + self.left().min(READ_AHEAD_BYTES_MAX), 0);
        let received = self.receive(gathered.get_mut(before..).unwrap_or_default());
        gathered.truncate(before + received.as_ref().map_or(0, |count| *count));
        self.gathered = gathered;
        received.map(drop)
    }

    fn left(&self) -> usize {
        self.record.map_or(0, |record| record.bytes)
    }

    /// Reads bytes of the present record.
    fn receive(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.receive_raw(into)?;
        self.record = self.record.and_then(|RecordHead { tag, bytes }| {
            let bytes = bytes.saturating_sub(count);
            (bytes > 0).then_some(RecordHead { tag, bytes })
        });
        Ok(count)
    }

    fn receive_raw(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match rustix::io::read(&self.descriptor, into)? {
            0 => {
                let text = "the rest of the bundle is missing: whoever sent it is gone";
                Err(self.over(io::ErrorKind::UnexpectedEof, text))
            }
            count => Ok(count),
        }
    }

    /// The record that comes next, or the rest of the one that was begun.
    fn record(&mut self) -> io::Result<RecordHead> {
        if let Some(record) = self.record {
            return Ok(record);
        }
        if self.state == State::Spoilt {
            return Err(self.spoilt("it has failed before"));
        }
        while self.head_bytes < RECORD_HEAD_BYTES {
            let mut head = self.head;
            let count = self.receive_raw(head.get_mut(self.head_bytes..).unwrap_or_default())?;
            self.head = head;
            self.head_bytes += count;
        }
        self.head_bytes = 0;
        let record = RecordHead::from_bytes(self.head).map_err(|error| self.spoilt(&error.to_string()))?;
        self.check(record)?;
        self.record = Some(record);
        if record.tag == Tag::Failed { Err(self.failed()?) } else { Ok(record) }
    }

    fn check(&mut self, record: RecordHead) -> io::Result<()> {
        let is_empty = record.bytes == 0;
        let (is_allowed, is_short) = match record.tag {
            Tag::Piece => (!is_empty && !self.is_short, record.bytes < BUNDLE_PIECE_BYTES),
            Tag::Outline => (!is_empty, false),
            Tag::BlobEnd | Tag::End => (is_empty, false),
            Tag::Failed => (true, false),
        };
        self.is_short = is_short;
        if is_allowed { Ok(()) } else { Err(self.spoilt("one of its records has a wrong length")) }
    }

    /// Why the host gives up.
    fn failed(&mut self) -> io::Result<io::Error> {
        let mut reason = vec![0; self.left()];
        let mut length = 0;
        while self.record.is_some_and(|record| record.bytes > 0) {
            match self.receive(reason.get_mut(length..).unwrap_or_default()) {
                Ok(count) => length += count,
                // Short, and nothing follows: nobody waits long for it.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.over(io::ErrorKind::Other, &String::from_utf8_lossy(&reason)))
    }

    fn spoilt(&mut self, what: &str) -> io::Error {
        self.over(io::ErrorKind::InvalidData, &format!("this is no bundle: {what}"))
    }

    fn over(&mut self, kind: io::ErrorKind, text: &str) -> io::Error {
        self.state = State::Spoilt;
        self.record = None;
        io::Error::new(kind, text)
    }
}
