//! What is different for a worker that survives this process: what is recorded leaves its pipes, and is forgotten by it;
//! it is handed to a custodian; and it may have come from one.

use std::os::fd::{AsFd, OwnedFd};

use cob_protocol::frame::{Envelope, Frame, Kind};
use cob_protocol::limits::CUSTODY_NOTE_BYTES_MAX;
use tokio::time::{Instant, sleep_until};

use super::{Ending, Worker};
use crate::custody::{Belongings, Custodian, CustodyError, Held, Progress};
use crate::enclosure::Enclosure;
use crate::frame_reader::ReadError;
use crate::processes::Stat;
use crate::survival::Survival;

impl Worker {
    /// Everything given out by [`Worker::next`] so far: number of the last frame, bytes of both streams.
    #[must_use]
    pub fn given(&self) -> Progress {
        let (stdout, stderr) = (self.stdout.emitted(), self.stderr.emitted());
        Progress { frames: self.given_frames, stdout, stderr }
    }

    /// All of that up to `progress` is recorded. A worker that survives this process forgets these frames, and these
    /// bytes leave its pipes; of others nothing is to be done.
    pub fn record(&mut self, progress: Progress) {
        let Some(survival) = &mut self.survival else { return };
        let frames = progress.frames.min(self.given_frames);
        if frames > survival.recorded {
            survival.recorded = frames;
            self.writer.acknowledge(frames);
            if self.page.get().acknowledge(frames) {
                self.page.wake();
            }
        }
        let page = self.page.get();
        let recorded = self.stdout.record(page, progress.stdout);
        if let Err(error) = recorded.and_then(|()| self.stderr.record(page, progress.stderr)) {
            self.give_up(&error.into());
        }
    }

    /// What a custodian is given.
    pub(crate) fn custody(&self, note: &str) -> Result<(Held, Vec<OwnedFd>), CustodyError> {
        debug_assert!(note.len() <= CUSTODY_NOTE_BYTES_MAX);
        let survival = self.survival.as_ref().ok_or(CustodyError::Mortal)?;
        let process = Stat::of(self.pid()).ok_or(CustodyError::Ended)?.process;
        let (Some(stdout), Some(stderr)) = (self.stdout.pipe(), self.stderr.pipe()) else {
            return Err(CustodyError::Ended);
        };
        let (pidfd, status) = self.life.descriptors();
        let ours = self.writer.socket().as_fd();
        // While it moves it may be found at the old socket, and else at ours.
        let before = survival.moving.as_ref().and_then(|moving| moving.newest()).map(AsFd::as_fd);
        let server = match &self.enclosure {
            Enclosure::Elsewhere(elsewhere) => Some(elsewhere.connection()),
            Enclosure::Open | Enclosure::Local(_) => None,
        };
        let belongings = Belongings {
            stdout,
            stderr,
            page: survival.page.as_fd(),
            lifeline: self.lifeline.as_fd(),
            pidfd,
            receipt_reader: survival.receipt.reader.as_fd(),
            receipt_writer: survival.receipt.writer.as_fd(),
            socket: before.unwrap_or(ours),
            next: before.map(|_| ours),
            status,
            server,
        };
        let held = Held {
            program: self.program.clone(),
            process,
            marker: survival.marker.clone(),
            kept: self.enclosure.keep(),
            extras: belongings.extras(),
            note: note.to_owned(),
        };
        let duplicates = belongings.descriptors().into_iter().map(|fd| fd.try_clone_to_owned());
        Ok((held, duplicates.collect::<Result<_, _>>().map_err(CustodyError::Worker)?))
    }

    /// Writes down that process `owner` keeps it alive.
    pub(crate) fn lend_to(&self, owner: u32) {
        self.enclosure.lend_to(owner);
    }

    /// `custodian` holds it under `secret`.
    pub(crate) fn deposited(&self, custodian: Custodian, secret: String) {
        if let Some(survival) = &self.survival {
            survival.deposited(custodian, secret);
        }
    }

    /// Until when output waits for frames that were sent before.
    pub(super) fn held_until(&mut self) -> Option<Instant> {
        let survival = self.survival.as_mut()?;
        let sent = self.page.get().sent();
        let is_alive = matches!(self.ending, Ending::Alive);
        survival.holds_until(sent, self.came_frames).filter(|_| is_alive)
    }

    /// A frame that came: nothing when the store has it.
    pub(super) fn welcome(&mut self, envelope: Envelope) -> Result<Option<Envelope>, ReadError> {
        let kind = envelope.frame.kind();
        let moving = self.survival.as_mut().and_then(|survival| survival.moving.take());
        match (&envelope.frame, moving) {
            (Frame::Attached(attached), Some(moving)) => {
                moving.arrived();
                self.writer.go_on(attached.received);
                return Ok(Some(envelope));
            }
            (_, Some(_)) => return Err(ReadError::Order("a frame on a new socket before `attached`")),
            (_, None) if kind == Kind::Attached => {
                return Err(ReadError::Order("`attached` without a new socket"));
            }
            (_, None) => {}
        }
        self.came_frames = self.came_frames.max(envelope.sequence);
        let recorded = self.survival.as_ref().map_or(0, |survival| survival.recorded);
        Ok((recorded == 0 || envelope.sequence > recorded).then_some(envelope))
    }
}

/// Goes on with the move of a worker to its new socket, if it is on its way.
pub(super) async fn turn(survival: &mut Option<Survival>) {
    match survival.as_mut().and_then(|survival| survival.moving.as_mut()) {
        Some(moving) => moving.turn().await,
        None => std::future::pending().await,
    }
}

/// Waits for this moment; for ever without one.
pub(super) async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
