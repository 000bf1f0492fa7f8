//! Is a worker alive, stopped or gone? Three signals, none of which is a guess: its pidfd says that it ended, its
//! parent says that it was stopped or goes on, and how it ended. (The end of its socket, the third, is the
//! transport's to see.) A worker that is busy in C code is simply alive.
//!
//! The parent is this process or a zygote, which writes down what it sees ([`Status`]).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::Child;
use std::time::Duration;

use cob_protocol::limits::{LAST_WORDS_MS_MAX, STALLED_MS};
use cob_protocol::zygote::Status;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use crate::exit::Exit;
use crate::limits::cpu_ms;
use crate::orphans::Awaited;
use crate::readiness::watch;
use crate::signals::{reaped_exit, signal_group, unreaped_exit};

/// A deadline that is seen this much too late: we were stopped ourselves, and judge nobody by it.
const LATE: Duration = Duration::from_secs(1);

/// A process of ours, not watched yet.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    pub(crate) parent: Parent,
}

/// Who learns from the system what becomes of a process.
#[derive(Debug)]
pub(crate) enum Parent {
    /// This process.
    Us(Child, Awaited),
    /// A zygote, which writes [`Status`] records into a pipe.
    Zygote(OwnedFd),
    /// Nobody of ours: a server that is gone was.
    Stranger,
}

impl Process {
    /// A child of this process.
    pub(crate) fn ours((mut child, awaited): (Child, Awaited)) -> io::Result<Self> {
        let pid = Pid::from_child(&child);
        match pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Ok(pidfd) => Ok(Self { pid, pidfd, parent: Parent::Us(child, awaited) }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error.into())
            }
        }
    }
}

/// A process that is watched.
#[derive(Debug)]
pub(crate) struct Life {
    pid: Pid,
    pidfd: AsyncFd<OwnedFd>,
    parent: Watched,
    stage: Stage,
    /// The signal that stopped it, and when it will be judged.
    stopped: Option<(i32, Instant)>,
    /// The signal that had stopped it for too long.
    stalled: Option<i32>,
    /// Processor time that it had used by its end, in milliseconds.
    cpu_ms: Option<u64>,
    _awaited: Awaited,
}

#[derive(Debug)]
enum Watched {
    Us {
        child: Child,
        changes: Signals,
    },
    Zygote(AsyncFd<OwnedFd>),
    /// Who reaps it says nothing: a zygote that went away before it could, or a stranger. The system may.
    Silent,
}

#[derive(Debug)]
enum Stage {
    Alive,
    /// It has ended; its parent is about to say how, but is not waited for longer than this.
    Ended(Instant),
    Known(Exit),
}

impl Life {
    pub(crate) fn watch(process: Process) -> io::Result<Self> {
        let Process { pid, pidfd, parent } = process;
        // Also of one that is somebody else's child: he may go away before it, and then it is given to us.
        let awaited = || Awaited::new(pid.as_raw_pid().unsigned_abs());
        let (parent, awaited) = match parent {
            Parent::Us(child, awaited) => {
                (Watched::Us { child, changes: signal(SignalKind::child())? }, awaited)
            }
            Parent::Zygote(status) => (Watched::Zygote(watch(status)?), awaited()),
            Parent::Stranger => (Watched::Silent, awaited()),
        };
        let pidfd = watch(pidfd)?;
        Ok(Self {
            pid,
            pidfd,
            parent,
            stage: Stage::Alive,
            stopped: None,
            stalled: None,
            cpu_ms: None,
            _awaited: awaited,
        })
    }

    /// One that is known to have ended: how is still to be told.
    pub(crate) fn watch_gone(process: Process) -> io::Result<Self> {
        let told_by = Instant::now() + Duration::from_millis(LAST_WORDS_MS_MAX);
        let mut life = Self::watch(process)?;
        life.stage = Stage::Ended(told_by);
        Ok(life)
    }

    /// The same process for somebody else to watch, who from now on is the only one to end it.
    ///
    /// # Errors
    /// When the system has no more descriptors, or it is a child of this process.
    pub(crate) fn hand_over(&mut self) -> io::Result<Process> {
        let status = match &self.parent {
            Watched::Zygote(status) => status.get_ref().try_clone()?,
            // The end of a pipe is what tells the next one that nobody will say.
            Watched::Silent => pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?.0,
            Watched::Us { .. } => {
                let reason = "a child of this process stays with it";
                return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
            }
        };
        let parent = Parent::Zygote(status);
        let process = Process { pid: self.pid, pidfd: self.pidfd.get_ref().try_clone()?, parent };
        self.stage = Stage::Known(Exit::Unknown);
        Ok(process)
    }

    /// The process itself, and the pipe its zygote writes into, for somebody who keeps both.
    pub(crate) fn descriptors(&self) -> (BorrowedFd<'_>, Option<BorrowedFd<'_>>) {
        let status = match &self.parent {
            Watched::Zygote(status) => Some(status.get_ref().as_fd()),
            Watched::Us { .. } | Watched::Silent => None,
        };
        (self.pidfd.get_ref().as_fd(), status)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_pid().unsigned_abs()
    }

    /// How it ended, once that is known.
    pub(crate) fn ended(&self) -> Option<Exit> {
        match &self.stage {
            Stage::Known(exit) => Some(exit.clone()),
            Stage::Alive | Stage::Ended(_) => None,
        }
    }

    /// Whether it has ended, at this moment: what is known may be older.
    pub(crate) fn is_over(&self) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(self.pidfd.as_fd(), PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
    }

    /// Processor time that it had used by its end, in milliseconds, if that is known.
    pub(crate) fn cpu_ms(&self) -> Option<u64> {
        self.cpu_ms
    }

    /// Waits until there may be something new to know, and looks. Cancel-safe.
    pub(crate) async fn changed(&mut self) -> io::Result<()> {
        let deadline = match (&self.stage, self.stopped) {
            (Stage::Known(_), _) => return std::future::pending().await,
            (Stage::Ended(at), _) => Some(*at),
            (Stage::Alive, stopped) => stopped.map(|(_, at)| at),
        };
        let is_alive = matches!(self.stage, Stage::Alive);
        // When it is reaped, its descriptor says once more that something is new.
        let is_reaped_elsewhere = matches!(self.parent, Watched::Silent);
        tokio::select! {
            biased;
            ended = self.pidfd.readable(), if is_alive || is_reaped_elsewhere => {
                let mut ended = ended?;
                let is_reaped = ended.ready().is_read_closed();
                ended.clear_ready();
                if !is_alive {
                    self.look()?;
                    if is_reaped {
                        // The system does not know any more either.
                        self.know(Exit::Unknown);
                    }
                    return Ok(());
                }
                let patience = Duration::from_millis(LAST_WORDS_MS_MAX);
                self.stage = Stage::Ended(Instant::now() + patience);
            }
            news = self.parent.news() => news?,
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {}
        }
        self.look()
    }

    fn look(&mut self) -> io::Result<()> {
        while let Some(status) = self.parent.next_status(&self.pidfd)? {
            match status {
                Status::Stopped(signal) => {
                    let judged = Instant::now() + Duration::from_millis(STALLED_MS);
                    self.stopped.get_or_insert((signal, judged));
                }
                Status::Continued => self.stopped = None,
                Status::Used(milliseconds) => self.cpu_ms = u64::try_from(milliseconds).ok(),
                Status::Exited(status) => self.know(Exit::Status(status)),
                Status::Killed(signal) => self.know(Exit::Signal(signal)),
            }
        }
        let now = Instant::now();
        match self.stage {
            Stage::Ended(patience) => {
                if let Watched::Us { child, .. } = &mut self.parent {
                    // What outlived the leader of the group goes with it. While the leader is a zombie its id
                    // cannot belong to anyone else.
                    signal_group(&self.pidfd, self.pid, Signal::KILL);
                    self.cpu_ms = cpu_ms(child.id());
                    if let Some(status) = child.try_wait()? {
                        self.know(exit_of(status));
                    }
                } else if let Some(exit) =
                    adopted_exit(self.pidfd.as_fd()).or_else(|| reaped_exit(self.pidfd.as_fd()))
                {
                    self.know(exit);
                } else if let Watched::Silent = self.parent
                    && let Some((exit, cpu)) = unreaped_exit(self.pidfd.as_fd(), self.pid())
                {
                    self.cpu_ms = cpu;
                    self.know(exit);
                }
                // Somebody else (a debugger) may hold on to it, or its parent is gone.
                if let Stage::Ended(_) = self.stage
                    && now >= patience
                {
                    self.know(Exit::Unknown);
                }
            }
            Stage::Alive => self.judge(now),
            Stage::Known(_) => {}
        }
        Ok(())
    }

    fn know(&mut self, exit: Exit) {
        if let Stage::Known(_) = self.stage {
            return;
        }
        self.stage = Stage::Known(match self.stalled {
            Some(signal) => Exit::Stalled(signal),
            None => exit,
        });
    }

    /// Ends a worker that has been stopped for too long.
    fn judge(&mut self, now: Instant) {
        let Some((signal, at)) = self.stopped else { return };
        if now < at {
            return;
        }
        if now > at + LATE {
            self.stopped = Some((signal, now + Duration::from_millis(STALLED_MS)));
            return;
        }
        self.stopped = None;
        self.stalled = Some(signal);
        self.kill();
    }

    /// Signals its process group.
    pub(crate) fn signal_group(&self, signal: Signal) {
        if let Stage::Alive = self.stage {
            signal_group(&self.pidfd, self.pid, signal);
        }
    }

    /// Kills it and its group.
    pub(crate) fn kill(&self) {
        self.signal_group(Signal::KILL);
        if let Stage::Alive = self.stage {
            // The group signal does nothing before the child has made its group. It fails when it is gone already.
            let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.kill();
            if let Watched::Us { child, .. } = &mut self.parent {
                let _ = child.wait();
            }
        }
    }
}

impl Watched {
    /// Waits until the parent may have something to say. Cancel-safe.
    async fn news(&mut self) -> io::Result<()> {
        match self {
            Self::Us { changes, .. } => {
                changes.recv().await;
                Ok(())
            }
            Self::Zygote(status) => status.readable().await.map(|mut ready| ready.retain_ready()),
            Self::Silent => std::future::pending().await,
        }
    }

    /// The next thing that happened. (How a child of ours ended is not among them: it is reaped elsewhere.)
    fn next_status(&mut self, pidfd: &AsyncFd<OwnedFd>) -> io::Result<Option<Status>> {
        let status = match self {
            Self::Us { .. } => return Ok(child_status(pidfd)),
            Self::Zygote(status) => status,
            Self::Silent => return Ok(None),
        };
        let mut record = [0; Status::BYTES];
        let read = status.try_io(Interest::READABLE, |fd| Ok(rustix::io::read(fd, &mut record)?));
        match read {
            // Records are written whole, so they are read whole.
            Ok(Status::BYTES) => Ok(Status::from_bytes(record)),
            Ok(_) => {
                *self = Self::Silent;
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn child_status(pidfd: &AsyncFd<OwnedFd>) -> Option<Status> {
    let what = WaitIdOptions::STOPPED | WaitIdOptions::CONTINUED | WaitIdOptions::NOHANG;
    // It fails when the child is a zombie, which the pidfd tells.
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), what).ok().flatten()?;
    status.stopping_signal().map(Status::Stopped).or(status.continued().then_some(Status::Continued))
}

/// How a process ended that lost its parent and was given to this one, which reaps it so.
fn adopted_exit(pidfd: BorrowedFd<'_>) -> Option<Exit> {
    // It fails when the process is somebody else's child.
    let status =
        waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED | WaitIdOptions::NOHANG).ok().flatten()?;
    let ended = status.exit_status().map(Exit::Status);
    ended.or_else(|| status.terminating_signal().map(Exit::Signal))
}

fn exit_of(status: std::process::ExitStatus) -> Exit {
    match status.code() {
        Some(code) => Exit::Status(code),
        None => Exit::Signal(status.signal().unwrap_or_default()),
    }
}
