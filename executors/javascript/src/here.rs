//! This thread, which holds the runtime: it waits, and it forks.

use std::io;

use cob_worker::Interpreter;
use cob_worker::fork::fork_away;
use cob_worker::process::{self, Pid};

use crate::{interrupt, random, reactor};

/// A wait was given up because the code was told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Here;

impl Interpreter for Here {
    type Interrupt = Interrupted;

    fn unlocked<T: Send>(&self, wait: impl FnOnce() -> T + Send) -> T {
        wait()
    }

    fn signals(&self) -> Result<(), Interrupted> {
        if interrupt::take() { Err(Interrupted) } else { Ok(()) }
    }

    fn fork(&self) -> io::Result<Option<Pid>> {
        refuse_with_threads()?;
        let forked = process::fork()?;
        if forked.is_none() {
            renew();
        }
        Ok(forked)
    }

    fn fork_away(&self) -> io::Result<bool> {
        refuse_with_threads()?;
        let is_copy = fork_away()?;
        if is_copy {
            renew();
        }
        Ok(is_copy)
    }
}

/// # Errors
/// With V8: what one of its threads has locked would stay locked.
fn refuse_with_threads() -> io::Result<()> {
    match cfg!(feature = "v8") {
        true => Err(io::Error::other("the engine V8 has threads and cannot be forked")),
        false => Ok(()),
    }
}

/// In a process that was just forked.
fn renew() {
    reactor::renew();
    random::renew();
}
