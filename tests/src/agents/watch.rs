//! Waiting for a file without looking at it again and again.

use std::mem::MaybeUninit;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Looks whenever something happens in the folder of `path`, until that is what is looked for; `None` when the process
/// ends before, or nothing happens for too long. Blocks.
///
/// # Panics
/// When the folder cannot be watched.
pub(super) fn until<T>(path: &Path, pid: u32, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let folder = path.parent().expect("a folder");
    let events = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).expect("inotify");
    let flags = WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE;
    inotify::add_watch(&events, folder, flags).expect("a folder to watch");
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return look() };
    let patience = Timespec { tv_sec: crate::PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
    loop {
        // What happened before the watch is seen in the first look.
        if let Some(found) = look() {
            return Some(found);
        }
        let mut ready = [PollFd::new(&events, PollFlags::IN), PollFd::new(&process, PollFlags::IN)];
        let count = poll(&mut ready, Some(&patience)).unwrap_or(1);
        let [_, process] = &ready;
        if count == 0 || !process.revents().is_empty() {
            return look();
        }
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&events, &mut buffer);
        while reader.next().is_ok() {}
    }
}
