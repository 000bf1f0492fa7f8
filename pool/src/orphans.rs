//! Processes that lost their parent and were given to this one: a checkpoint is nobody's child, and what a session
//! starts may leave its parents. Where nobody else takes note of their end, they would stay behind for ever.
//!
//! The system gives them to this process once it has asked for that ([`adopt_orphans`]). They are reaped when one has
//! ended, but for those that somebody here waits for ([`Awaited`]): whoever starts a process says so before it can end.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::io;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use rustix::process::{getpid, set_child_subreaper};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

/// Those whose end somebody waits for, and how many wait. Nobody is started or reaped meanwhile.
static AWAITED: LazyLock<Mutex<HashMap<u32, usize>>> = LazyLock::new(Mutex::default);
/// One of them is not awaited any more.
static LET_GO: Notify = Notify::const_new();

fn awaited() -> MutexGuard<'static, HashMap<u32, usize>> {
    AWAITED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The end of a process, which nobody else learns as long as this lives.
#[derive(Debug)]
pub(crate) struct Awaited(u32);

impl Awaited {
    pub(crate) fn new(pid: u32) -> Self {
        Self::among(&mut awaited(), pid)
    }

    fn among(all: &mut HashMap<u32, usize>, pid: u32) -> Self {
        *all.entry(pid).or_default() += 1;
        Self(pid)
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        let mut all = awaited();
        if let Some(count) = all.get_mut(&self.0) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.0);
            }
        }
        drop(all);
        LET_GO.notify_one();
    }
}

/// Starts a process whose end is awaited.
pub(crate) fn start(command: &mut Command) -> io::Result<(Child, Awaited)> {
    let mut all = awaited();
    let child = command.spawn()?;
    let awaited = Awaited::among(&mut all, child.id());
    Ok((child, awaited))
}

/// Runs a program to its end, in a process that adopts orphans or may do so.
///
/// # Errors
/// When it cannot be started, or not be read.
pub fn output_of(command: &mut Command) -> io::Result<Output> {
    let (child, _awaited) =
        start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    child.wait_with_output()
}

/// Has processes below this one that lose their parent be given to this one, and takes note of their end. From now on
/// whoever starts a process here does it by this crate; another one may not learn how it ended.
///
/// # Errors
/// When the system refuses; then somebody else is given them, as before.
pub fn adopt_orphans() -> io::Result<()> {
    let mut ended = signal(SignalKind::child())?;
    set_child_subreaper(Some(getpid()))?;
    tokio::spawn(async move {
        loop {
            reap();
            tokio::select! {
                news = ended.recv() => if news.is_none() { return },
                () = LET_GO.notified() => {}
            }
        }
    });
    Ok(())
}

/// Reaps whoever has ended, up to one that somebody waits for: when that one is let go, the next are looked at.
fn reap() {
    let all = awaited();
    while let Some(pid) = ended(libc::P_ALL, 0, libc::WNOWAIT) {
        if all.contains_key(&pid) {
            return;
        }
        tracing::trace!(pid, "an orphan has ended");
        if ended(libc::P_PID, pid, 0).is_none() {
            return;
        }
    }
}

/// A child that has ended.
fn ended(which: libc::idtype_t, pid: u32, how: libc::c_int) -> Option<u32> {
    // SAFETY: a structure that may be all zeroes, and that the call fills in.
    let (outcome, info) = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        (libc::waitid(which, pid, &raw mut info, libc::WEXITED | libc::WNOHANG | how), info)
    };
    // SAFETY: filled in for a child, or still zero, which is nobody.
    let pid = unsafe { info.si_pid() };
    u32::try_from(pid).ok().filter(|pid| outcome == 0 && *pid != 0)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::fd::OwnedFd;

    use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

    use super::*;
    use crate::readiness::watch;

    /// Orphans are those of a whole process, so a process of its own is looked at.
    #[test]
    fn orphans_are_reaped_and_children_are_not() {
        let test = "orphans::tests::in_a_process_of_its_own";
        let mut command = Command::new(std::env::current_exe().unwrap());
        let output = command.args(["--exact", test, "--ignored", "--nocapture"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }

    async fn end_of(pidfd: &tokio::io::unix::AsyncFd<OwnedFd>) {
        pidfd.readable().await.unwrap().retain_ready();
    }

    #[tokio::test]
    #[ignore = "run by the test above, since nobody else may have children beside it"]
    async fn in_a_process_of_its_own() {
        adopt_orphans().unwrap();
        // A child that has ended, and is not asked for yet.
        let (mut first, awaited) = start(Command::new("sh").args(["-c", "exit 7"])).unwrap();
        let pidfd = pidfd_open(Pid::from_child(&first), PidfdFlags::NONBLOCK).unwrap();
        let its_end = watch(pidfd).unwrap();
        end_of(&its_end).await;
        // A parent that leaves an orphan, which ends when it is told to.
        let script = "sh -c 'echo $$; exec cat >/dev/null' <&3 & exit 3";
        let (reader, writer) = std::io::pipe().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec 3<&0; {script}")]).stdin(reader).stdout(Stdio::piped());
        let (mut parent, parent_awaited) = start(&mut command).unwrap();
        drop(command);
        let mut text = String::new();
        BufReader::new(parent.stdout.take().unwrap()).read_line(&mut text).unwrap();
        let orphan = Pid::from_raw(text.trim().parse().unwrap()).unwrap();
        let orphans_end = watch(pidfd_open(orphan, PidfdFlags::NONBLOCK).unwrap()).unwrap();
        assert_eq!(parent.wait().unwrap().code(), Some(3));
        drop((writer, parent_awaited));
        end_of(&orphans_end).await;
        assert_eq!(first.wait().unwrap().code(), Some(7), "whoever waits for a child learns how it ended");
        drop(awaited);
        // Reaped: the system does not know it as a child of ours any more.
        let is_child = || {
            waitid(WaitId::Pid(orphan), WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT)
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), async {
            while is_child().is_ok() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        let output = output_of(Command::new("sh").args(["-c", "echo x; exit 5"])).unwrap();
        assert_eq!((output.stdout.as_slice(), output.status.code()), (&b"x\n"[..], Some(5)));
    }
}
