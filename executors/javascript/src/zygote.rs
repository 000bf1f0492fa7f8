//! A runtime that waits to be forked. There is nothing to import in advance: what a session needs is in the snapshot.

use std::os::fd::OwnedFd;

use cob_worker::Executor;
use cob_worker::descriptors::Descriptors;
use cob_worker::run::Ending;
use cob_worker::zygote::{Control, Importer, park, prepare};

use crate::engine::Engine;
use crate::errors::Stop;
use crate::executor::JavaScript;
use crate::here::Here;
use crate::transform;

/// Gets ready and forks; returns in every worker, with its descriptors.
///
/// # Errors
/// How the process must end when nothing can be forked.
pub(crate) fn serve(control: OwnedFd, engine: &mut Engine) -> Result<Descriptors, Ending> {
    let control = Control::new(control);
    prepare(&control, &Here, &mut Runtime(engine))?;
    Ok(park(control, &Here))
}

/// What cells do first of all.
const REHEARSAL: &str = "[1, 'a', { b: null }].map((x) => `${x}`)";

/// Does what a cell does, and leaves no trace, nor is anything sent: what runs for the first time takes its time, and
/// the pages that it writes to are those that every worker writes to.
pub(crate) fn rehearse(engine: &mut Engine) {
    // If it does not succeed, the first cell will say why.
    let _ = try_rehearse(engine);
}

fn try_rehearse(engine: &mut Engine) -> Result<(), Stop> {
    let code = transform::cell(REHEARSAL).map_err(|error| Stop::Failed(error.message))?.code;
    let value = engine.run("file:///rehearsal.ts", &code)?;
    engine.call("display.rehearse", &[value])?;
    engine.turn()
}

struct Runtime<'a>(&'a mut Engine);

impl Importer for Runtime<'_> {
    const NAME: &'static str = JavaScript::NAME;

    fn import(&mut self, module: &str) -> Result<(), String> {
        Err(format!("{module}: modules of JavaScript are not imported in advance"))
    }

    fn settle(&mut self) -> Result<(), String> {
        rehearse(self.0);
        self.0.collect();
        Ok(())
    }
}
