//! Getting ready: imports, and after each the question whether the process may still be forked.

use cob_protocol::handshake::VERSIONS;
use cob_protocol::limits::{IMPORTS_MAX, ZYGOTE_PACKET_BYTES_MAX};
use cob_protocol::zygote::{Missing, Order, Prepare, Prepared, Report};
use rustix::io::Errno;
use rustix::process::getpid;

use super::control::{Control, Received, nonsense};
use super::{heap, threads};
use crate::executor::Interpreter;
use crate::process::{self, EXIT_QUIETLY, exit_now};
use crate::run::Ending;

/// A reason is cut here, so that all of them fit into one packet.
const REASON_BYTES_MAX: usize = ZYGOTE_PACKET_BYTES_MAX / IMPORTS_MAX / 2;

/// A language that can import in advance.
pub trait Importer {
    /// Name and version of the executor, for logs.
    const NAME: &'static str;

    /// Imports a module.
    ///
    /// # Errors
    /// The language's own words, for a module that cannot be imported.
    fn import(&mut self, module: &str) -> Result<(), String>;

    /// All is imported: whatever makes a fork cheaper is done now.
    ///
    /// # Errors
    /// One line that says why nothing can be forked.
    fn settle(&mut self) -> Result<(), String>;
}

/// Waits for the host's first order and carries it out.
///
/// # Errors
/// How the process must end: nobody is there, or it must not be forked, which was reported.
pub fn prepare<I: Interpreter, M: Importer>(
    control: &Control,
    interpreter: &I,
    importer: &mut M,
) -> Result<(), Ending> {
    let order = wait_for_order(control, interpreter)?;
    let mut preparing =
        Preparing { control, interpreter, importer, imported: Vec::new(), missing: Vec::new() };
    let done = preparing.carry_out(&order);
    let Preparing { imported, missing, .. } = preparing;
    let report = match &done {
        Ok(()) => {
            let executor = M::NAME.to_owned();
            Report::Prepared(Prepared { versions: VERSIONS, executor, imported, missing })
        }
        Err(Trouble::Unfit { module, reason }) => {
            Report::Unfit { module: module.clone(), reason: reason.clone() }
        }
        Err(Trouble::HostGone) => return Err(Ending::HostGone),
    };
    control.report(&report, None).map_err(|_| Ending::HostGone)?;
    done.map_err(|trouble| match trouble {
        Trouble::Unfit { module: Some(module), reason } => {
            Ending::Unusable(format!("no session can be forked after the import of {module}: {reason}"))
        }
        Trouble::Unfit { module: None, reason } => Ending::Unusable(reason),
        Trouble::HostGone => Ending::HostGone,
    })
}

fn wait_for_order<I: Interpreter>(control: &Control, interpreter: &I) -> Result<Prepare, Ending> {
    loop {
        match interpreter.unlocked(|| control.receive()) {
            Ok(Received::Order { order: Order::Prepare(prepare), .. }) => return Ok(prepare),
            Ok(Received::Order { .. }) => nonsense("the first order is not `prepare`"),
            Ok(Received::End) => return Err(Ending::HostGone),
            Err(Errno::INTR) => drop(interpreter.signals()),
            Err(_) => {}
        }
    }
}

enum Trouble {
    Unfit { module: Option<String>, reason: String },
    HostGone,
}

struct Preparing<'a, I, M> {
    control: &'a Control,
    interpreter: &'a I,
    importer: &'a mut M,
    imported: Vec<String>,
    missing: Vec<Missing>,
}

impl<I: Interpreter, M: Importer> Preparing<'_, I, M> {
    fn carry_out(&mut self, order: &Prepare) -> Result<(), Trouble> {
        let unfit = |reason| Trouble::Unfit { module: None, reason };
        VERSIONS.agree(order.versions).map_err(|error| unfit(error.to_string()))?;
        self.stay_fit(None)?;
        let ours = getpid();
        for module in &order.imports {
            let importing = Report::Importing { module: module.clone() };
            self.control.report(&importing, None).map_err(|_| Trouble::HostGone)?;
            let imported = self.importer.import(module);
            if getpid() != ours {
                exit_now(EXIT_QUIETLY); // the module forked, and this is its child
            }
            match imported {
                Ok(()) => self.imported.push(module.clone()),
                Err(reason) => {
                    let reason = one_line(&reason);
                    self.missing.push(Missing { module: module.clone(), reason });
                }
            }
            self.stay_fit(Some(module))?;
        }
        self.importer.settle().map_err(unfit)?;
        heap::fill_holes();
        // Once in any case: what a fork sets off is set off here, and not in the first worker.
        threads::trial_fork(self.interpreter).map_err(unfit)?;
        process::flush_c_stdio(); // what lies in a buffer would be written by every worker
        Ok(())
    }

    fn stay_fit(&self, module: Option<&String>) -> Result<(), Trouble> {
        // If the threads cannot be counted, the trial says so.
        if threads::count().is_ok_and(|count| count == 1) {
            return Ok(());
        }
        threads::trial_fork(self.interpreter)
            .map_err(|reason| Trouble::Unfit { module: module.cloned(), reason })
    }
}

fn one_line(reason: &str) -> String {
    let mut line: String = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    let end = (0..=REASON_BYTES_MAX.min(line.len())).rev().find(|at| line.is_char_boundary(*at));
    line.truncate(end.unwrap_or(0));
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_short_line() {
        assert_eq!(one_line("no module\n  named x\n"), "no module named x");
        assert_eq!(one_line(&"é".repeat(9000)).len(), REASON_BYTES_MAX);
    }
}
