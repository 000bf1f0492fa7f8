//! Waiting to be forked, and forking.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use cob_protocol::zygote::{Order, Report};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, getrlimit, pidfd_open, setrlimit};

use super::control::{Control, Received, nonsense};
use super::newborn::{Birth, Errand};
use super::signals::Signals;
use super::wards::{Wards, disown};
use crate::descriptors::Descriptors;
use crate::executor::Interpreter;
use crate::process::{EXIT_QUIETLY, exit_now, give_up};

/// Forks on request. Returns in every forked process, with the descriptors of its worker, and never in the one that
/// called it: that ends when the host has closed `control` and the last worker is gone.
#[must_use]
pub fn park<I: Interpreter>(control: Control, interpreter: &I) -> Descriptors {
    let parked = Parked::new(Kind::Zygote, control);
    wait_as(parked, interpreter, |errand| match errand {
        Errand::Work(transport) => transport.settle(),
        Errand::Save(_) => Err(io::ErrorKind::Unsupported.into()), // was refused as nonsense
    })
}

/// The same in a process that is a checkpoint. It hears of no signal, can be told to end, and returns in forked
/// processes also when they shall save. What they are given is put in place by `settle`. It is what `report` tells of
/// first, `pidfd` beside that.
pub(crate) fn park_frozen<I: Interpreter, T>(
    control: Control,
    report: &Report,
    pidfd: OwnedFd,
    interpreter: &I,
    settle: impl FnOnce(Errand) -> io::Result<T>,
) -> T {
    let parked = Parked::new(Kind::Frozen, control).map(|mut parked| {
        parked.report(report, Some(pidfd));
        parked
    });
    wait_as(parked, interpreter, settle)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Zygote,
    Frozen,
}

fn wait_as<I: Interpreter, T>(
    parked: io::Result<Parked>,
    interpreter: &I,
    settle: impl FnOnce(Errand) -> io::Result<T>,
) -> T {
    let mut parked = parked.unwrap_or_else(|error| give_up(&format!("the zygote cannot wait: {error}")));
    loop {
        if parked.control.is_none() && parked.wards.is_empty() {
            exit_now(EXIT_QUIETLY);
        }
        match parked.wait(interpreter) {
            Wake::Children => parked.look(),
            Wake::Order { number, birth } => {
                if let Some(errand) = parked.fork(interpreter, number, birth) {
                    return parked.leave(|| settle(errand)).unwrap_or_else(|error| {
                        give_up(&format!("the forked worker cannot be set up: {error}"))
                    });
                }
            }
            Wake::Drop => exit_now(EXIT_QUIETLY),
            Wake::ControlClosed => parked.control = None,
            Wake::Nothing => drop(interpreter.signals()),
        }
    }
}

struct Parked {
    kind: Kind,
    /// `None` once the host has closed its end.
    control: Option<Control>,
    signals: Signals,
    wards: Wards,
    /// What a worker may open; a zygote itself takes all it can get, one descriptor for every worker.
    open_files: Rlimit,
}

enum Wake {
    Children,
    Order {
        number: u64,
        birth: io::Result<Birth>,
    },
    /// End at once.
    Drop,
    ControlClosed,
    /// A signal came.
    Nothing,
}

impl Parked {
    fn new(kind: Kind, control: Control) -> io::Result<Self> {
        let open_files = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: open_files.maximum, ..open_files };
        // Without it there is room for fewer workers, which is told when it is reached.
        let _ = setrlimit(Resource::Nofile, raised);
        let signals = Signals::take(kind == Kind::Frozen)?;
        Ok(Self { kind, control: Some(control), signals, wards: Wards::default(), open_files })
    }

    fn wait<I: Interpreter>(&self, interpreter: &I) -> Wake {
        let ready = interpreter.unlocked(|| {
            let signals = self.signals.fd();
            let control = self.control.as_ref().map_or(signals, Control::socket);
            let mut fds = [signals, control].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
            poll(&mut fds, None).map(|_| fds.map(|fd| !fd.revents().is_empty()))
        });
        match (ready, &self.control) {
            // Children first: what became of a worker is told before new ones are made.
            (Ok([true, _]), _) => Wake::Children,
            (Ok([_, true]), Some(control)) => self.receive(control),
            _ => Wake::Nothing,
        }
    }

    fn look(&mut self) {
        self.signals.clear();
        self.wards.look();
    }

    /// What the forked process was given, in that process.
    fn fork<I: Interpreter>(
        &mut self,
        interpreter: &I,
        number: u64,
        birth: io::Result<Birth>,
    ) -> Option<Errand> {
        let forked = birth.and_then(|birth| Ok((interpreter.fork()?, birth)));
        let report = match forked {
            Ok((None, birth)) => return Some(birth.errand),
            Ok((Some(pid), birth)) => self.adopt(pid, birth).map(|pidfd| (pid, pidfd)),
            Err(error) => Err(error),
        };
        match report {
            Ok((pid, pidfd)) => {
                let pid = pid.as_raw_nonzero().get().unsigned_abs();
                self.report(&Report::Forked { number, pid }, Some(pidfd));
            }
            Err(error) => self.report(&Report::ForkFailed { number, reason: error.to_string() }, None),
        }
        None
    }

    fn adopt(&mut self, pid: Pid, birth: Birth) -> io::Result<OwnedFd> {
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => {
                self.wards.add(pid, birth.status);
                Ok(pidfd)
            }
            Err(error) => {
                disown(pid);
                Err(error.into())
            }
        }
    }

    fn report(&mut self, report: &Report, descriptor: Option<OwnedFd>) {
        let descriptor = descriptor.as_ref().map(AsFd::as_fd);
        let sent = self.control.as_ref().map(|control| control.report(report, descriptor));
        if matches!(sent, Some(Err(_))) {
            self.control = None; // the host is gone; its workers are still looked after
        }
    }

    /// In a forked process: nothing of the zygote is left.
    fn leave<T>(self, settle: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let Self { control, signals, wards, open_files, .. } = self;
        drop((control, wards));
        signals.give_back()?;
        let settled = settle()?;
        setrlimit(Resource::Nofile, open_files)?;
        Ok(settled)
    }

    fn receive(&self, control: &Control) -> Wake {
        match control.receive() {
            Ok(Received::End) => Wake::ControlClosed,
            Ok(Received::Order { order, descriptors, whole }) => self.understand(order, descriptors, whole),
            Err(_) => Wake::Nothing,
        }
    }

    fn understand(&self, order: Order, descriptors: Vec<OwnedFd>, whole: bool) -> Wake {
        let is_frozen = self.kind == Kind::Frozen;
        let (number, birth): (_, fn(_) -> _) = match order {
            Order::Fork { number } => (number, Birth::of),
            Order::Save { number } if is_frozen => (number, Birth::of_saver),
            Order::Drop if is_frozen => return Wake::Drop,
            Order::Prepare(_) => nonsense("a second order to prepare"),
            Order::Save { .. } | Order::Drop => nonsense("this is no checkpoint"),
        };
        if !whole {
            let error = io::Error::other("not all descriptors could be received");
            return Wake::Order { number, birth: Err(error) };
        }
        let birth = birth(descriptors)
            .unwrap_or_else(|count| nonsense(&format!("{count} descriptors came with an order to fork")));
        Wake::Order { number, birth }
    }
}
