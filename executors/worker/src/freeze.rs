//! Going on as two: the worker as it was, and a copy that waits and is a checkpoint.
//!
//! The copy is forked away and gives up all it has of its host. From then on it is to the host what a
//! [zygote](crate::zygote) is, and whatever it forks is connected anew, and goes on at the very place where the worker
//! was when it was asked for the checkpoint. So the copy itself never changes.
//!
//! **Invariant:** until it is a worker, everything of cob is inert in a forked process, whatever hooks of the user run in
//! it: it sends nothing, and prints only to what code has put in the place of the session's output.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use cob_protocol::checkpoint::Finding;
use cob_protocol::limits::FROZEN_OOM_SCORE;
use cob_protocol::zygote::Report;
use rustix::process::{PidfdFlags, getpid, pidfd_open, setsid};

use crate::bundle::BundleWriter;
use crate::executor::{Executor, Interpreter};
use crate::findings::{self, fitting};
use crate::process::{self, EXIT_QUIETLY, EXIT_UNUSABLE, exit_now};
use crate::reseat::{Nothing, Seats};
use crate::run::{Ending, Session};
use crate::zygote::{Control, Errand, Pen, hang_on, park_frozen};

/// How likely this process is to be ended when memory runs out.
const OOM_SCORE: &str = "/proc/self/oom_score_adj";

impl<I: Interpreter, E: Executor> Session<'_, I, E> {
    /// Makes a checkpoint, or says why there is none. Returns in the worker, and in every worker that comes of the
    /// checkpoint, where the handshake may end it.
    pub(crate) fn freeze(&mut self, force: bool) -> Option<Ending> {
        let Some(control) = self.worker.inbox().beside.take_control() else {
            self.worker.log(
                self.interpreter,
                "warn",
                "a checkpoint was asked for, and no socket came with it",
            );
            return None;
        };
        let control = Control::new(control);
        let findings = fitting(self.look_around(&control));
        if !force && findings.iter().any(|finding| finding.blocks) {
            return self.refused(&control, findings);
        }
        self.interpreter.unlocked(process::flush_c_stdio);
        let forked = Nothing::open().and_then(|nothing| Ok((self.interpreter.fork_away()?, nothing)));
        match forked {
            Ok((true, nothing)) => self.be_frozen(control, &nothing, findings),
            Ok((false, _)) => None,
            Err(error) => self.refused(&control, vec![failed(&error)]),
        }
    }

    /// What is in the way of a checkpoint, and what it will not hold. Of what the language tells it knows more.
    fn look_around(&mut self, control: &Control) -> Vec<Finding> {
        let mut found = self.executor.before_freeze();
        let is_told = |found: &[Finding], kind: &str| found.iter().any(|finding| finding.kind == kind);
        if !is_told(&found, "thread")
            && let Err(text) = self.stubborn.look(self.interpreter)
        {
            found.push(Finding { kind: "thread".to_owned(), text, blocks: true });
        }
        let children = findings::children(&self.executor.helpers());
        let shared = self.worker.shared_with_a_copy(control, &self.executor.renewed());
        for finding in children.into_iter().chain(shared).chain(findings::alarm()) {
            if !is_told(&found, &finding.kind) {
                found.push(finding);
            }
        }
        found
    }

    /// The host may be gone, which will be noticed elsewhere.
    fn refused(&self, control: &Control, findings: Vec<Finding>) -> Option<Ending> {
        let _ = control.report(&Report::Refused { findings }, None);
        None
    }

    /// In the copy.
    fn be_frozen(&mut self, control: Control, nothing: &Nothing, findings: Vec<Finding>) -> Option<Ending> {
        let oom_score = fs::read_to_string(OOM_SCORE);
        let (seats, pidfd) = self.settle(nothing).unwrap_or_else(|error| {
            let _ = self.refused(&control, vec![failed(&error)]);
            exit_now(EXIT_UNUSABLE)
        });
        let worker = self.worker;
        let report = Report::Frozen { pid: std::process::id(), findings };
        let pen = park_frozen(control, &report, pidfd, self.interpreter, |errand| {
            // Its own session and group, as a worker that was started has: an interrupt reaches its children.
            setsid()?;
            if let Ok(score) = &oom_score {
                // Only who may raise it for good can be refused to lower it again, and it is better than no worker.
                let _ = fs::write(OOM_SCORE, score);
            }
            match errand {
                Errand::Work(transport) => worker.join_host(&seats, transport).map(|()| None),
                Errand::Save(pen) => hang_on::lifeline_of(&pen).map(|()| Some(pen)),
            }
        });
        match pen {
            Some(pen) => self.save(pen),
            None => {
                process::become_worker();
                self.resume()
            }
        }
    }

    /// In the copy: it has nothing of the worker any more, and is the first to go when memory runs out.
    fn settle(&mut self, nothing: &Nothing) -> io::Result<(Seats, OwnedFd)> {
        setsid()?;
        let seats = self.worker.leave_host(nothing)?;
        // Without it, it is only ended no sooner than the live worker.
        let _ = fs::write(OOM_SCORE, FROZEN_OOM_SCORE.to_string());
        self.executor.frozen();
        Ok((seats, pidfd_open(getpid(), PidfdFlags::empty())?))
    }

    /// In a process that was forked to write down what the session holds.
    fn save(&mut self, pen: Pen) -> ! {
        let mut bundle = BundleWriter::new(pen.bundle);
        match self.executor.save(&mut bundle) {
            Ok(()) => exit_now(EXIT_QUIETLY),
            Err(reason) => {
                // If the host does not hear it, it sees that the end is missing.
                let _ = bundle.fail(&reason);
                exit_now(EXIT_UNUSABLE)
            }
        }
    }
}

fn failed(error: &io::Error) -> Finding {
    let text = format!("the process cannot be forked: {error}");
    Finding { kind: "system".to_owned(), text, blocks: true }
}
