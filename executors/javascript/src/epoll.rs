//! The descriptors of an event loop, made anew in a process that was forked.
//!
//! A forked process has the timers and tasks of its parent in its memory, and they shall go on in it. What it must not
//! keep is the parent's `epoll`, which both would change and read: so an own one, and an own descriptor for what wakes
//! it, are put in their places, under the same numbers. The event loop itself does not notice.
#![allow(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::event::{EventfdFlags, epoll, eventfd};

const SELECTOR: &str = "anon_inode:[eventpoll]";
const WAKER: &str = "anon_inode:[eventfd]";
/// Followed by its number.
const SOCKET: &str = "socket:[";

/// What an event loop was made of.
#[derive(Debug)]
pub(crate) struct Descriptors {
    /// Several numbers of one `epoll`.
    selectors: Vec<RawFd>,
    wakers: Vec<RawFd>,
    /// Over which signals would be told. Nobody asked for any, so that copies may well have the same ones.
    sockets: Vec<RawFd>,
    /// What is watched as long as the loop exists.
    watched: Vec<Watched>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Watched {
    fd: RawFd,
    events: u32,
    data: u64,
}

impl Descriptors {
    /// Makes an event loop, and sees what it is made of. No other thread may open descriptors meanwhile.
    ///
    /// # Errors
    /// The system's reason.
    pub(crate) fn of<T>(make: impl FnOnce() -> io::Result<T>) -> io::Result<(T, Self)> {
        let before = [open(SELECTOR)?, open(WAKER)?, open(SOCKET)?];
        let made = make()?;
        let [selectors, wakers, sockets] = [SELECTOR, WAKER, SOCKET].map(open);
        let is_new = |now: BTreeSet<RawFd>, before| now.difference(before).copied().collect::<Vec<_>>();
        let [selectors_before, wakers_before, sockets_before] = &before;
        let selectors = is_new(selectors?, selectors_before);
        let wakers = is_new(wakers?, wakers_before);
        let sockets = is_new(sockets?, sockets_before);
        let selector = selectors.first().ok_or_else(|| io::Error::other("it has no epoll"))?;
        let watched = fs::read_to_string(format!("/proc/self/fdinfo/{selector}"))?;
        let watched = watched.lines().filter_map(watched_by).collect();
        Ok((made, Self { selectors, wakers, sockets, watched }))
    }

    /// The numbers of all of them.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = RawFd> {
        let watched = self.watched.iter().map(|watched| watched.fd);
        [&self.selectors, &self.wakers, &self.sockets].into_iter().flatten().copied().chain(watched)
    }

    /// In a process that was just forked.
    ///
    /// # Errors
    /// The system's reason; the loop cannot be used.
    pub(crate) fn renew(&self) -> io::Result<()> {
        for waker in &self.wakers {
            take_place(&eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?, *waker)?;
        }
        let own = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for Watched { fd, events, data } in &self.watched {
            // SAFETY: it is one of the loop's own, which lives as long as the process.
            let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(*fd) };
            epoll::add(
                &own,
                fd,
                epoll::EventData::new_u64(*data),
                epoll::EventFlags::from_bits_retain(*events),
            )?;
        }
        self.selectors.iter().try_for_each(|selector| take_place(&own, *selector))
    }
}

/// Puts a descriptor where another one is, which is closed.
///
/// # Errors
/// The system's reason.
pub(crate) fn take_place(new: &OwnedFd, place: RawFd) -> io::Result<()> {
    // SAFETY: whoever owns that number owns the new descriptor from now on, which is of the same kind.
    let number = unsafe { libc::dup3(new.as_raw_fd(), place, libc::O_CLOEXEC) };
    if number < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The descriptors of a kind, which is what the links to them begin with.
fn open(kind: &str) -> io::Result<BTreeSet<RawFd>> {
    let entries = fs::read_dir("/proc/self/fd")?.collect::<io::Result<Vec<_>>>()?;
    let all = entries.iter().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(all.filter(|fd| is_kind(*fd, kind)).collect())
}

fn is_kind(fd: RawFd, kind: &str) -> bool {
    // What cannot be read is the descriptor that the list was read from.
    let link = fs::read_link(format!("/proc/self/fd/{fd}"));
    link.is_ok_and(|link| link.to_str().is_some_and(|link| link.starts_with(kind)))
}

/// `tfd:        5 events: 8000201d data:                0  pos:0 …`
fn watched_by(line: &str) -> Option<Watched> {
    let mut words = line.split_ascii_whitespace();
    let mut after = |key: &str| if words.next()? == key { words.next() } else { None };
    let fd = after("tfd:")?.parse().ok()?;
    let events = u32::from_str_radix(after("events:")?, 16).ok()?;
    let data = u64::from_str_radix(after("data:")?, 16).ok()?;
    Some(Watched { fd, events, data })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_watched_can_be_read() {
        let line = "tfd:        5 events: 8000201d data:     7f00aa0  pos:0 ino:1 sdev:e";
        assert_eq!(watched_by(line), Some(Watched { fd: 5, events: 0x8000_201d, data: 0x7f0_0aa0 }));
        assert_eq!(watched_by("pos:\t0"), None);
    }
}
