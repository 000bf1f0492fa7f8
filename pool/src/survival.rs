//! What the handle on a worker needs besides, when the worker survives this process: what a custodian is given, and how
//! a worker that was taken over moves to its new socket.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cob_protocol::limits::ATTACH_MS_MAX;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::time::Instant;

use crate::custody::Custodian;
use crate::scratch;
use crate::staging::Receipt;

/// See the module.
#[derive(Debug)]
pub(crate) struct Survival {
    /// The value of the variable by which what it starts is known.
    pub(crate) marker: String,
    pub(crate) page: OwnedFd,
    pub(crate) receipt: Arc<Receipt>,
    /// Number of the last frame that is recorded.
    pub(crate) recorded: u64,
    /// Who holds its descriptors, and under which secret.
    deposits: Mutex<Vec<(Custodian, String)>>,
    /// Until its worker has come to the new socket.
    pub(crate) moving: Option<Moving>,
    /// Frames that the worker sent before stand in front of output: until they come, or this time has.
    held_until: Option<Instant>,
}

impl Survival {
    pub(crate) fn new(marker: String, page: OwnedFd, receipt: Receipt) -> Self {
        Self {
            marker,
            page,
            receipt: Arc::new(receipt),
            recorded: 0,
            deposits: Mutex::default(),
            moving: None,
            held_until: None,
        }
    }

    /// One whose worker is asked to move, of which frames up to `recorded` are recorded.
    pub(crate) fn moving(mut self, recorded: u64, moving: Moving) -> Self {
        self.held_until = Some(Instant::now() + Duration::from_millis(ATTACH_MS_MAX));
        self.recorded = recorded;
        self.moving = Some(moving);
        self
    }

    /// Until when output waits for frames in front of it, where the worker has sent frames up to `sent` and those up to
    /// `seen` have come. A worker that is in the middle of something else for long does not hold up what it prints.
    pub(crate) fn holds_until(&mut self, sent: u64, seen: u64) -> Option<Instant> {
        let until = self.held_until?;
        let has_come = sent <= seen.max(self.recorded);
        if until <= Instant::now() || has_come && self.moving.is_none() {
            self.held_until = None;
        }
        self.held_until.filter(|_| !has_come)
    }

    /// `custodian` holds the worker under `secret`.
    pub(crate) fn deposited(&self, custodian: Custodian, secret: String) {
        self.deposits.lock().unwrap_or_else(PoisonError::into_inner).push((custodian, secret));
    }
}

impl Drop for Survival {
    fn drop(&mut self) {
        // Given up in order, the worker ends: nobody shall have it after us.
        for (custodian, secret) in self.deposits.get_mut().unwrap_or_else(PoisonError::into_inner) {
            custodian.release(secret);
        }
    }
}

/// A worker on its way from one socket to the next.
#[derive(Debug)]
pub(crate) struct Moving {
    /// Where it may still be, the newest last. What it writes there is thrown away: it comes again.
    old: Vec<UnixStream>,
    /// Its end of the new socket, until it is sent.
    theirs: Option<OwnedFd>,
    byte: u8,
}

impl Moving {
    /// `theirs` is sent over the last of `old`, beside `byte`.
    pub(crate) fn new(old: Vec<UnixStream>, theirs: OwnedFd, byte: u8) -> Self {
        Self { old, theirs: Some(theirs), byte }
    }

    /// The worker is at the new socket. Part of it may still wait at an old one, which a custodian keeps open: it has
    /// to be told that nothing will ever come there.
    pub(crate) fn arrived(self) {
        for old in &self.old {
            let _ = rustix::net::shutdown(old, rustix::net::Shutdown::Both);
        }
    }

    /// The sockets it may be found at, without the new one.
    pub(crate) fn newest(&self) -> Option<&UnixStream> {
        self.old.last()
    }

    /// Does what can be done once something can. Never returns when nothing will be. Cancel-safe.
    pub(crate) async fn turn(&mut self) {
        let newest = self.old.len().wrapping_sub(1);
        let interest = |index| match (index == newest, &self.theirs) {
            (true, Some(_)) => Interest::READABLE | Interest::WRITABLE,
            _ => Interest::READABLE,
        };
        match &self.old[..] {
            [] => return std::future::pending().await,
            [only] => drop(only.ready(interest(0)).await),
            [first, second, ..] => tokio::select! {
                _ = first.ready(interest(0)) => {}
                _ = second.ready(interest(1)) => {}
            },
        }
        if let (Some(newest), Some(theirs)) = (self.old.last(), &self.theirs) {
            let sent = newest.try_io(Interest::WRITABLE, || send(newest, self.byte, theirs));
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Nobody is there any more: with its end of the new socket dropped, that is seen.
                Ok(()) | Err(_) => self.theirs = None,
            }
        }
        self.old.retain(drained);
        if self.old.is_empty() {
            self.theirs = None;
        }
    }
}

/// Throws away what can be read now; `false` when nothing will ever be.
fn drained(socket: &UnixStream) -> bool {
    let read = scratch::with(|scratch| socket.try_read(scratch));
    match read {
        Ok(count) => count > 0,
        Err(error) => matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
    }
}

fn send(socket: &UnixStream, byte: u8, descriptor: &OwnedFd) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    let rights = [descriptor.as_fd()];
    beside.push(SendAncillaryMessage::ScmRights(&rights));
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(socket.as_fd(), &[IoSlice::new(&[byte])], &mut beside, flags)?;
    Ok(())
}
