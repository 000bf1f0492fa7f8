//! Waiting to be forked, and forking.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use cob_protocol::zygote::{Order, Report};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, getrlimit, pidfd_open, setrlimit};

use super::control::{Control, Received, nonsense};
use super::newborn::{Birth, Transport};
use super::signals::Signals;
use super::wards::{Wards, disown};
use crate::descriptors::Descriptors;
use crate::executor::Interpreter;
use crate::output::write_last_words;
use crate::process::{EXIT_QUIETLY, EXIT_UNUSABLE, exit_now};

/// Forks on request. Returns in every forked process, with the descriptors of its worker, and never in the one that
/// called it: that ends when the host has closed `control` and the last worker is gone.
#[must_use]
pub fn park<I: Interpreter>(control: Control, interpreter: &I) -> Descriptors {
    let mut parked = Parked::new(control).unwrap_or_else(|error| give_up("the zygote cannot wait", &error));
    loop {
        match parked.wait(interpreter) {
            Wake::Children => parked.look(),
            Wake::Order { number, birth } => {
                if let Some(transport) = parked.fork(interpreter, number, birth) {
                    return parked.into_worker(transport);
                }
            }
            Wake::ControlClosed => parked.control = None,
            Wake::Nothing => drop(interpreter.signals()),
        }
        if parked.control.is_none() && parked.wards.is_empty() {
            exit_now(EXIT_QUIETLY);
        }
    }
}

struct Parked {
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
    ControlClosed,
    /// A signal came.
    Nothing,
}

impl Parked {
    fn new(control: Control) -> io::Result<Self> {
        let open_files = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: open_files.maximum, ..open_files };
        // Without it there is room for fewer workers, which is told when it is reached.
        let _ = setrlimit(Resource::Nofile, raised);
        Ok(Self { control: Some(control), signals: Signals::take()?, wards: Wards::default(), open_files })
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
            (Ok([_, true]), Some(control)) => receive(control),
            _ => Wake::Nothing,
        }
    }

    fn look(&mut self) {
        self.signals.clear();
        self.wards.look();
    }

    /// What the worker was given, in the worker.
    fn fork<I: Interpreter>(
        &mut self,
        interpreter: &I,
        number: u64,
        birth: io::Result<Birth>,
    ) -> Option<Transport> {
        let forked = birth.and_then(|birth| Ok((interpreter.fork()?, birth)));
        let report = match forked {
            Ok((None, birth)) => return Some(birth.transport),
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
    fn into_worker(self, transport: Transport) -> Descriptors {
        let Self { control, signals, wards, open_files } = self;
        drop((control, wards));
        let settled = signals.give_back().and_then(|()| {
            let descriptors = transport.settle()?;
            setrlimit(Resource::Nofile, open_files)?;
            Ok(descriptors)
        });
        settled.unwrap_or_else(|error| give_up("the forked worker cannot be set up", &error))
    }
}

fn receive(control: &Control) -> Wake {
    match control.receive() {
        Ok(Received::End) => Wake::ControlClosed,
        Ok(Received::Order { order: Order::Fork { number }, whole: false, .. }) => {
            Wake::Order { number, birth: Err(io::Error::other("not all descriptors could be received")) }
        }
        Ok(Received::Order { order: Order::Fork { number }, descriptors, .. }) => {
            let birth = Birth::of(descriptors)
                .unwrap_or_else(|count| nonsense(&format!("{count} descriptors came with an order to fork")));
            Wake::Order { number, birth }
        }
        Ok(Received::Order { order: Order::Prepare(_), .. }) => nonsense("a second order to prepare"),
        Err(_) => Wake::Nothing,
    }
}

fn give_up(what: &str, error: &io::Error) -> ! {
    write_last_words(&format!("cob: {what}: {error}\n"));
    exit_now(EXIT_UNUSABLE)
}
