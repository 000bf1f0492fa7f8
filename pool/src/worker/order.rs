//! What the worker did, in the order it did it: its frames, and what it wrote before each of them.

use bytes::Bytes;
use cob_protocol::frame::{Frame, Position, StreamName};
use cob_protocol::limits::DISPLAY_FRAME_BYTES_MAX;

use super::{Worker, WorkerEvent};
use crate::drain::Drain;
use crate::frame_reader::{Fill, ReadError};

/// Bytes of frames taken from the socket ahead of their turn.
const FRAMES_AHEAD_BYTES: usize = DISPLAY_FRAME_BYTES_MAX;

/// Output that stands before a frame.
enum Before {
    Output(WorkerEvent),
    /// There is none.
    Nothing,
    /// It cannot be looked at before something is recorded.
    OutOfReach,
}

/// What a look without waiting brought.
pub(super) enum Taken {
    Event(WorkerEvent),
    /// Something more was read, and has to be looked at.
    Again,
    Nothing,
}

impl Worker {
    /// What can be given out without waiting.
    pub(super) fn take(&mut self) -> Result<Taken, ReadError> {
        while let Some(front) = self.frames.front() {
            if let Some(at) = front.frame.position() {
                match self.take_output_before(at)? {
                    Before::Output(output) => return Ok(Taken::Event(output)),
                    Before::OutOfReach => return Ok(Taken::Nothing),
                    Before::Nothing => {}
                }
            }
            let Some(envelope) = self.frames.pop_front() else { break };
            self.given_frames = self.given_frames.max(envelope.sequence);
            if self.survival.is_none() {
                self.writer.acknowledge(envelope.sequence);
            }
            if let Frame::Mark(mark) = envelope.frame {
                self.leading = mark.next;
                self.leading_read = false;
                continue;
            }
            if envelope.frame.position().is_some() {
                self.leading = StreamName::Stdout;
                self.leading_read = false;
            }
            return Ok(Taken::Event(WorkerEvent::Frame(envelope.frame, envelope.payloads)));
        }
        self.take_output()
    }

    /// The two pipes, the one that is written now first.
    fn drains(&mut self) -> [&mut Drain; 2] {
        match self.leading {
            StreamName::Stdout => [&mut self.stdout, &mut self.stderr],
            StreamName::Stderr => [&mut self.stderr, &mut self.stdout],
        }
    }

    /// Output that stands before a frame and has not been given out.
    fn take_output_before(&mut self, at: Position) -> Result<Before, ReadError> {
        let (leading, page) = (self.leading, self.page.get());
        let [first, second] = match leading {
            StreamName::Stdout => [(&mut self.stdout, at.stdout), (&mut self.stderr, at.stderr)],
            StreamName::Stderr => [(&mut self.stderr, at.stderr), (&mut self.stdout, at.stdout)],
        };
        for (drain, position) in [first, second] {
            let missing = position.saturating_sub(drain.emitted());
            if missing > 0 && !drain.is_holding() {
                // The bytes are there, unless the worker lies about its position; then nothing is owed.
                drain.read(page, usize::try_from(missing).unwrap_or(usize::MAX))?;
                if drain.is_starved() {
                    return Ok(Before::OutOfReach);
                }
            }
            if missing > 0
                && let Some(bytes) = drain.pop(missing)
            {
                return Ok(Before::Output(WorkerEvent::Output(drain.stream(), bytes)));
            }
        }
        Ok(Before::Nothing)
    }

    /// Output that no frame stands before: only when none can still be in the socket.
    fn take_output(&mut self) -> Result<Taken, ReadError> {
        if !self.socket_dry || self.held_until().is_some() {
            return Ok(Taken::Nothing);
        }
        let is_leading_read = self.leading_read;
        let [first, second] = self.drains();
        if let Some(bytes) = first.pop(u64::MAX) {
            return Ok(Taken::Event(WorkerEvent::Output(first.stream(), bytes)));
        }
        if is_leading_read && let Some(bytes) = second.pop(u64::MAX) {
            return Ok(Taken::Event(WorkerEvent::Output(second.stream(), bytes)));
        }
        if !second.is_holding() {
            return Ok(Taken::Nothing);
        }
        // What was written to the leading stream before the bytes that we hold lies in its pipe by now, and the
        // frames before that in the socket.
        self.leading_read = true;
        let page = self.page.get();
        match self.leading {
            StreamName::Stdout => self.stdout.read(page, usize::MAX)?,
            StreamName::Stderr => self.stderr.read(page, usize::MAX)?,
        };
        self.take_frames()?;
        Ok(Taken::Again)
    }

    /// Takes frames until the socket is empty, or enough of them wait.
    pub(super) fn take_frames(&mut self) -> Result<(), ReadError> {
        self.socket_dry = false;
        let mut bytes = 0;
        loop {
            while let Some(envelope) = self.reader.decoded()? {
                bytes += envelope.payloads.iter().map(Bytes::len).sum::<usize>();
                if let Some(envelope) = self.welcome(envelope)? {
                    self.frames.push_back(envelope);
                }
            }
            if bytes > FRAMES_AHEAD_BYTES || self.frames.len() > 1024 {
                return Ok(());
            }
            match self.reader.fill()? {
                Fill::Some => {}
                Fill::Dry => break,
                Fill::Ended => {
                    // Nobody is left to talk to; if the process is not on its way out already, end it.
                    self.life.kill();
                    break;
                }
            }
        }
        self.socket_dry = true;
        Ok(())
    }
}
