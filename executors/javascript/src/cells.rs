//! Runs cells: transforms their source, waits for what they await, shows what they come to.

mod expressions;

use cob_protocol::frame::{DoneStatus, Execute, ExecutionNumber, Failure};
use cob_worker::{Finished, Worker};
use deno_core::v8;

use crate::engine::Engine;
use crate::errors::{Stop, Told, tell_uncaught};
use crate::here::Here;
use crate::ops;
use crate::transform::{self, Cell, SyntaxError};

/// Runs a cell.
pub(crate) fn execute(engine: &mut Engine, worker: &Worker, request: &Execute, code: &str) -> Finished {
    ops::call::allow_input(request.allow_stdin);
    let status = guarded(engine, worker, request.execution, |engine| cell(engine, request, code));
    let mut finished = Finished::from(status);
    if status == DoneStatus::Ok && !expressions::is_empty(&request.user_expressions) {
        finished.user_expressions = expressions::evaluate(engine, request);
    }
    finished
}

/// Runs code of the user as `execution`. Whatever stops it is told to the host, and so is what nobody caught.
pub(crate) fn guarded(
    engine: &mut Engine,
    worker: &Worker,
    execution: ExecutionNumber,
    run: impl FnOnce(&mut Engine) -> Result<(), Stop>,
) -> DoneStatus {
    engine.belongs_to(execution);
    let outcome = run(engine);
    let mut uncaught = engine.uncaught_of(execution).into_iter();
    let outcome = match outcome {
        // What it has left behind uncaught is its error, as where a program would end with it.
        Ok(()) => uncaught.next().map_or(Ok(()), |error| Err(Stop::Thrown(error.error))),
        stopped => stopped,
    };
    for error in uncaught {
        tell_uncaught(engine, error);
    }
    let status = match outcome {
        Ok(()) => DoneStatus::Ok,
        Err(stop) => tell(engine, worker, execution, stop),
    };
    engine.belongs_to(0);
    status
}

fn cell(engine: &mut Engine, request: &Execute, code: &str) -> Result<(), Stop> {
    let name = engine.sources.name_cell(request.count);
    let value = script(engine, &name, code, transform::cell)?;
    if request.silent || engine.is_undefined(&value) {
        return Ok(());
    }
    if request.store_history {
        engine.call("errors.remember", std::slice::from_ref(&value))?;
    }
    let count = engine.number(f64::from(request.count));
    let shown = engine.call("display.result", &[value, count])?;
    engine.settled(shown).map(drop)
}

/// Runs the script that `make` makes of a text, to the end of what it awaits; its value.
fn script(
    engine: &mut Engine,
    name: &str,
    text: &str,
    make: fn(&str) -> Result<Cell, SyntaxError>,
) -> Result<v8::Global<v8::Value>, Stop> {
    engine.keep_source(name, text);
    let cell = make(text).map_err(Stop::NoCode)?;
    if let Some(map) = cell.source_map {
        engine.modules.keep_map(name, map);
    }
    let value = engine.run(name, &cell.code)?;
    if cell.is_async { engine.settled(value) } else { Ok(value) }
}

fn tell(engine: &mut Engine, worker: &Worker, execution: ExecutionNumber, stop: Stop) -> DoneStatus {
    let Told { name, value, traceback } = engine.tell(stop);
    // An interrupt may also have come while the error was described.
    let status = if name == "KeyboardInterrupt" { DoneStatus::Interrupted } else { DoneStatus::Error };
    let failure = Failure { execution, ename: name, evalue: value, traceback, at: Default::default() };
    let _ = worker.tell(&Here, failure, &[]);
    status
}
