//! JavaScript as an executor: hands each request to the module that serves it.

use std::os::fd::{BorrowedFd, RawFd};

use bytes::Bytes;
use cob_protocol::checkpoint::Finding;
use cob_protocol::frame::{Comm, Complete, DoneStatus, Execute, Inspect, IsComplete, Outcome};
use cob_protocol::handshake::Hello;
use cob_protocol::json::Json;
use cob_worker::bundle::{BundleReader, BundleWriter};
use cob_worker::rehearsal;
use cob_worker::{Executor, Finished, Introduction, Surroundings, Worker};

use crate::engine::{self, Engine};
use crate::errors;
use crate::transform::{Completeness, completeness};
use crate::{
    bundle, cells, comm, complete, freezing, inspect, namespace, ops, permissions, reactor, worker, zygote,
};

/// The version of the language: what both engines have, give or take a few proposals.
const ECMASCRIPT: &str = "ES2025";

/// See the module.
pub(crate) struct JavaScript {
    engine: Engine,
    worker: &'static Worker,
}

impl JavaScript {
    pub(crate) fn new(engine: Engine, worker: &'static Worker) -> Self {
        Self { engine, worker }
    }

    /// In a worker that was just forked: does once what a start and a cell do, so that it is ready to answer at once.
    ///
    /// # Errors
    /// One line that says why it must not be used.
    pub(crate) fn warm_up(&mut self) -> Result<(), String> {
        rehearsal::hello();
        zygote::rehearse(&mut self.engine);
        introduction().map(rehearsal::ready)
    }

    /// What `hello` asks for: in a new worker, and in one that goes on from a checkpoint.
    fn arrive(&mut self, hello: &Hello, surroundings: &Surroundings) -> Result<(), String> {
        if let Some(variables) = &surroundings.variables {
            worker::set_environment(variables, hello.resumes);
        }
        permissions::grant(&hello.options)?;
        ops::machine::set_arguments(&hello.options);
        self.engine.modules.set_folder(&hello.options);
        self.engine.limit_heap();
        Ok(())
    }
}

fn introduction() -> Result<Introduction, String> {
    let (engine, version) = (engine::NAME, engine::version());
    let language_info = serde_json::json!({
        "name": "typescript",
        "version": ECMASCRIPT,
        "mimetype": "text/x.typescript",
        "file_extension": ".ts",
        "codemirror_mode": "typescript",
        "pygments_lexer": "typescript",
        "nbconvert_exporter": "script",
        "engine": {"name": engine, "version": version},
    });
    let language_info = Json::of(&language_info).map_err(|error| error.to_string())?;
    let banner =
        format!("JavaScript and TypeScript, on {engine} {version} (cob {})", env!("CARGO_PKG_VERSION"));
    Ok(Introduction { language_info, banner })
}

impl Executor for JavaScript {
    const NAME: &'static str = concat!("cob-javascript ", env!("CARGO_PKG_VERSION"));

    fn start(&mut self, hello: &Hello, surroundings: &Surroundings) -> Result<Introduction, String> {
        self.arrive(hello, surroundings)?;
        if let Err(stop) = self.engine.begin() {
            return Err(self.engine.tell(stop).traceback.join("\n"));
        }
        introduction()
    }

    fn execute(&mut self, request: &Execute, code: &str) -> Finished {
        let finished = cells::execute(&mut self.engine, self.worker, request, code);
        bundle::note(&mut self.engine, code);
        finished
    }

    fn comm(&mut self, comm: &Comm, buffers: &[Bytes]) -> DoneStatus {
        comm::deliver(&mut self.engine, self.worker, comm, buffers)
    }

    fn complete(&mut self, request: &Complete, code: &str) -> Outcome {
        complete::reply(&mut self.engine, code, request.cursor)
    }

    fn inspect(&mut self, request: &Inspect, code: &str) -> Outcome {
        inspect::reply(&mut self.engine, code, request.cursor, request.detail)
    }

    fn namespace(&mut self) -> Outcome {
        namespace::summary(&mut self.engine)
    }

    fn is_complete(&mut self, _request: &IsComplete, code: &str) -> Outcome {
        let reply = match completeness(code) {
            Completeness::Complete => serde_json::json!({"status": "complete"}),
            Completeness::Incomplete { indent } => {
                serde_json::json!({"status": "incomplete", "indent": indent})
            }
            Completeness::Invalid => serde_json::json!({"status": "invalid"}),
        };
        Json::of(&reply).map_or_else(|error| Outcome::Declined(error.to_string()), Outcome::Value)
    }

    fn before_freeze(&mut self) -> Vec<Finding> {
        freezing::look(&self.engine)
    }

    fn renewed(&self) -> Vec<RawFd> {
        reactor::descriptors()
    }

    fn resume(&mut self, hello: &Hello, surroundings: &Surroundings) -> Result<Introduction, String> {
        self.arrive(hello, surroundings)?;
        if let Err(stop) = self.engine.call("host.renew", &[]) {
            return Err(self.engine.tell(stop).traceback.join("\n"));
        }
        introduction()
    }

    fn save(&mut self, writer: &mut BundleWriter) -> Result<(), String> {
        bundle::save(&mut self.engine, writer)
    }

    fn load(&mut self, reader: &mut BundleReader, force: bool) -> Outcome {
        bundle::load(&mut self.engine, reader, force)
    }

    fn shutdown(&mut self, _restart: bool) {}

    fn idle(&mut self, socket: BorrowedFd<'_>) -> bool {
        match self.engine.idle(socket) {
            None => false,
            Some(Ok(())) => true,
            Some(Err(stop)) => {
                errors::tell_stopped(&mut self.engine, stop);
                true
            }
        }
    }
}
