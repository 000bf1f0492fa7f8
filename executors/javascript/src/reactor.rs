//! What timers and waits run on: a tokio runtime of this thread. A forked process goes on with it, on descriptors of its
//! own: timers, tasks and operations that were under way are under way in both processes.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::pin::pin;
use std::task::Poll;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Builder, EnterGuard, Runtime};

use crate::epoll::Descriptors;
use crate::here::Interrupted;
use crate::interrupt::{self, Bell};

struct Reactor {
    runtime: Runtime,
    descriptors: Descriptors,
    bell: Bell,
}

thread_local! {
    static REACTOR: RefCell<Option<&'static Reactor>> = const { RefCell::new(None) };
}

/// Makes the first one.
///
/// # Errors
/// When the system refuses a descriptor.
pub(crate) fn set_up() -> io::Result<()> {
    let (runtime, descriptors) = Descriptors::of(|| Builder::new_current_thread().enable_all().build())?;
    let reactor = Reactor { runtime, descriptors, bell: Bell::new()? };
    // Never dropped: code may run until the process ends.
    REACTOR.set(Some(Box::leak(Box::new(reactor))));
    Ok(())
}

/// In a process that was just forked.
pub(crate) fn renew() {
    let Some(reactor) = REACTOR.with_borrow(|reactor| *reactor) else { return };
    if let Err(error) = reactor.descriptors.renew().and_then(|()| reactor.bell.renew()) {
        cob_worker::process::give_up(&format!("no event loop in a forked process: {error}"));
    }
}

/// The descriptors that [`renew`] makes anew.
pub(crate) fn descriptors() -> Vec<RawFd> {
    let Reactor { descriptors, bell, .. } = reactor();
    descriptors.numbers().chain([bell.as_raw_fd()]).collect()
}

fn reactor() -> &'static Reactor {
    REACTOR.with_borrow(|reactor| *reactor).expect("set up by the engine")
}

/// Code that runs while this lives can make timers.
pub(crate) fn enter() -> EnterGuard<'static> {
    reactor().runtime.enter()
}

/// Runs code that can make timers, as one turn: messages that are answered with messages are handed out for a while
/// only, and then wait for the next one.
pub(crate) fn run<T>(work: impl FnOnce() -> T) -> T {
    reactor().runtime.block_on(async { work() })
}

/// Waits for `future`, unless the code is told to stop.
///
/// # Errors
/// [`Interrupted`]; it still has to be [taken](interrupt::take).
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Interrupted> {
    let Reactor { runtime, bell, .. } = reactor();
    bell.clear();
    if interrupt::is_asked() {
        return Err(Interrupted);
    }
    runtime.block_on(async {
        // SAFETY: the bell is never closed, nor put elsewhere.
        let bell = unsafe { AsyncFd::register_with_interest(bell.as_fd(), Interest::READABLE) };
        let bell = bell.expect("a descriptor of ours");
        let mut future = pin!(future);
        poll_fn(|cx| {
            if let Poll::Ready(_rung) = bell.poll_read_ready(cx)
                && interrupt::is_asked()
            {
                return Poll::Ready(Err(Interrupted));
            }
            future.as_mut().poll(cx).map(Ok)
        })
        .await
    })
}

/// Waits until `socket` can be read. Must be awaited inside of [`block_on`].
pub(crate) async fn readable(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the socket is borrowed for as long, and only this thread puts another one in its place.
    let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE)? };
    socket.readable().await.map(drop)
}

/// Whether it can be read right now.
pub(crate) fn is_readable(socket: BorrowedFd<'_>) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::from_borrowed_fd(socket, PollFlags::IN)], Some(&now)).is_ok_and(|count| count > 0)
}
