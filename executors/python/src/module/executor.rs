//! Python as an executor: hands requests to `cob.engine`.
//!
//! An exception that comes out of the engine is a defect of ours: it is told as the request's own error and in a
//! log line, and the worker goes on.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use cob_protocol::checkpoint::Finding;
use cob_protocol::frame::{
    Comm, CommAction, Complete, DoneStatus, Execute, ExecutionNumber, Failure, Inspect, IsComplete, Outcome,
};
use cob_protocol::handshake::Hello;
use cob_protocol::json::Json;
use cob_worker::bundle::{BundleReader, BundleWriter};
use cob_worker::rehearsal;
use cob_worker::{Executor, Finished, Introduction, Surroundings, Worker};
use pyo3::exceptions::{PyKeyboardInterrupt, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyModule, PyString, PyTuple};

use super::frames::send_failure;
use super::gil::Gil;
use super::streams::to_utf8;
use super::{bundle, origin, zygote};

static IDLE_HOOK: Mutex<Option<Py<PyAny>>> = Mutex::new(None);

/// Names the function that waits until the frame socket can be read, in place of the worker; `None`: nobody.
#[pyfunction]
pub(super) fn set_idle_hook(hook: Option<Py<PyAny>>) {
    let before = std::mem::replace(&mut *IDLE_HOOK.lock().unwrap_or_else(PoisonError::into_inner), hook);
    // Dropped only now: it may run code of the user.
    drop(before);
}

pub(super) struct PythonExecutor<'py> {
    py: Python<'py>,
    worker: &'static Worker,
    engine: Option<Bound<'py, PyModule>>,
    in_folder: bool,
}

impl<'py> PythonExecutor<'py> {
    pub(super) fn new(py: Python<'py>, worker: &'static Worker, in_folder: bool) -> Self {
        Self { py, worker, engine: None, in_folder }
    }

    fn try_start(&mut self, hello: &Hello, surroundings: &Surroundings) -> PyResult<Introduction> {
        if let Some(variables) = &surroundings.variables {
            zygote::replace_environment(self.py, variables)?;
        }
        let engine = self.py.import("cob.engine")?;
        let (language_info, banner): (String, String) =
            engine.call_method1("start", (hello.options.as_str(), self.in_folder))?.extract()?;
        self.engine = Some(engine);
        Ok(Introduction { language_info: json(language_info)?, banner })
    }

    /// In a worker that was just forked: makes it differ from others, and ready to answer at once.
    ///
    /// # Errors
    /// One line that says why it must not be used.
    pub(super) fn warm_up(&self) -> Result<(), String> {
        rehearsal::hello();
        let rehearsed = zygote::warm_up(self.py)
            .and_then(|(info, banner)| Ok(Introduction { language_info: json(info)?, banner }));
        rehearsed
            .map(rehearsal::ready)
            .map_err(|error| format!("a forked worker cannot be set up: {}", self.traceback(&error).concat()))
    }

    fn try_resume(&self, surroundings: &Surroundings) -> PyResult<Introduction> {
        let variables = surroundings.variables.as_deref();
        let variables = variables.map(|variables| zygote::dictionary(self.py, variables)).transpose()?;
        let (language_info, banner): (String, String) =
            self.freezing()?.call_method1("resume", (variables,))?.extract()?;
        Ok(Introduction { language_info: json(language_info)?, banner })
    }

    fn freezing(&self) -> PyResult<Bound<'py, PyModule>> {
        self.py.import("cob.freezing")
    }

    /// Tells a part of the life of a checkpoint that it has come.
    fn tell_freezing(&self, what: &'static str) {
        if let Err(error) = self.freezing().and_then(|module| module.call_method0(what)) {
            self.log(what, &error);
        }
    }

    fn try_before_freeze(&self) -> PyResult<Vec<Finding>> {
        let found = self.freezing()?.call_method0("before_freeze")?;
        let found = found.extract::<Vec<(String, String, bool)>>()?;
        Ok(found.into_iter().map(|(kind, text, blocks)| Finding { kind, text, blocks }).collect())
    }

    fn engine(&self) -> PyResult<&Bound<'py, PyModule>> {
        self.engine.as_ref().ok_or_else(|| PyValueError::new_err("the engine was not started"))
    }

    fn try_execute(&self, request: &Execute, code: &str) -> PyResult<Finished> {
        let py = self.py;
        let arguments = (
            code,
            request.count,
            request.silent,
            request.store_history,
            request.allow_stdin,
            request.user_expressions.as_str(),
        );
        let ended = self.engine()?.call_method1(intern!(py, "execute"), arguments)?;
        let ended = ended.cast::<PyTuple>()?;
        let user_expressions: String = ended.get_item(1)?.extract()?;
        let payload: String = ended.get_item(2)?.extract()?;
        Ok(Finished {
            status: status(&ended.get_item(0)?)?,
            user_expressions: json(user_expressions)?,
            payload: json(payload)?,
        })
    }

    fn try_comm(&self, comm: &Comm, buffers: &[Bytes]) -> PyResult<DoneStatus> {
        let py = self.py;
        let action = match comm.action {
            CommAction::Open => "open",
            CommAction::Msg => "msg",
            CommAction::Close => "close",
        };
        let buffers: Vec<_> = buffers.iter().map(|buffer| PyBytes::new(py, buffer)).collect();
        let arguments = (
            action,
            &comm.comm_id,
            comm.target_name.as_deref(),
            comm.target_module.as_deref(),
            comm.data.as_str(),
            comm.metadata.as_str(),
            buffers,
        );
        status(&self.engine()?.call_method1(intern!(py, "comm"), arguments)?)
    }

    /// Runs code of an execution, whose number everything it starts inherits.
    fn run<T>(
        &self,
        execution: ExecutionNumber,
        code: impl FnOnce(&Self) -> PyResult<T>,
    ) -> Result<T, DoneStatus> {
        let result = origin::enter(self.py, execution).and_then(|()| code(self));
        let left = origin::enter(self.py, 0);
        match (result, left) {
            (Err(error), _) => Err(self.slipped_out(execution, &error)),
            (Ok(value), Ok(())) => Ok(value),
            // An interrupt that came when all was over.
            (Ok(value), Err(error)) => {
                self.log("the origin could not be reset", &error);
                Ok(value)
            }
        }
    }

    /// Tells an exception that the engine should have told.
    fn slipped_out(&self, execution: ExecutionNumber, error: &PyErr) -> DoneStatus {
        let interrupted = error.is_instance_of::<PyKeyboardInterrupt>(self.py);
        let (ename, evalue) = self.describe(error);
        let traceback = if interrupted { vec![ename.clone()] } else { self.traceback(error) };
        let failure = Failure { execution, ename, evalue, traceback, at: Default::default() };
        // It can only fail by another interrupt; the outcome itself is told in any case.
        let _ = send_failure(self.py, failure);
        if interrupted {
            return DoneStatus::Interrupted;
        }
        self.log("an exception came out of the engine", error);
        DoneStatus::Error
    }

    fn ask(&self, question: &str, ask: impl FnOnce(&Bound<'py, PyModule>) -> PyResult<String>) -> Outcome {
        match self.engine().and_then(ask).and_then(json) {
            Ok(reply) => Outcome::Value(reply),
            Err(error) => {
                self.log(question, &error);
                Outcome::Declined(self.describe(&error).1)
            }
        }
    }

    fn log(&self, what: &str, error: &PyErr) {
        self.worker.log(&Gil(self.py), "error", &format!("{what}: {}", self.traceback(error).concat()));
    }

    fn describe(&self, error: &PyErr) -> (String, String) {
        let name = error.get_type(self.py).name().map_or_else(|_| "Exception".to_owned(), |n| n.to_string());
        let text = error.value(self.py).str().and_then(|text| Ok(to_utf8(&text)?.into_owned()));
        (name, text.unwrap_or_default())
    }

    fn traceback(&self, error: &PyErr) -> Vec<String> {
        let formatted = self.py.import("traceback").and_then(|module| {
            let lines = module.call_method1("format_exception", (error.value(self.py),))?;
            let lines = lines.extract::<Vec<Bound<'_, PyString>>>()?;
            lines.iter().map(|line| Ok(to_utf8(line)?.into_owned())).collect()
        });
        formatted.unwrap_or_else(|_: PyErr| vec![self.describe(error).1])
    }
}

impl Executor for PythonExecutor<'_> {
    const NAME: &'static str = concat!("cob-python ", env!("CARGO_PKG_VERSION"));

    fn start(&mut self, hello: &Hello, surroundings: &Surroundings) -> Result<Introduction, String> {
        self.try_start(hello, surroundings).map_err(|error| {
            format!("the Python session cannot be set up: {}", self.traceback(&error).concat())
        })
    }

    fn execute(&mut self, request: &Execute, code: &str) -> Finished {
        self.run(request.execution, |this| this.try_execute(request, code)).unwrap_or_else(Finished::from)
    }

    fn comm(&mut self, comm: &Comm, buffers: &[Bytes]) -> DoneStatus {
        self.run(comm.execution, |this| this.try_comm(comm, buffers)).unwrap_or_else(|status| status)
    }

    fn complete(&mut self, request: &Complete, code: &str) -> Outcome {
        self.ask("complete", |engine| engine.call_method1("complete", (code, request.cursor))?.extract())
    }

    fn inspect(&mut self, request: &Inspect, code: &str) -> Outcome {
        self.ask("inspect", |engine| {
            engine.call_method1("inspect", (code, request.cursor, request.detail))?.extract()
        })
    }

    fn is_complete(&mut self, _: &IsComplete, code: &str) -> Outcome {
        self.ask("is_complete", |engine| engine.call_method1("is_complete", (code,))?.extract())
    }

    fn namespace(&mut self) -> Outcome {
        self.ask("namespace", |engine| engine.call_method0("summary")?.extract())
    }

    fn before_freeze(&mut self) -> Vec<Finding> {
        self.try_before_freeze().unwrap_or_else(|error| {
            self.log("before_freeze", &error);
            let text = format!("the session cannot get ready: {}", self.describe(&error).1);
            vec![Finding { kind: "language".to_owned(), text, blocks: true }]
        })
    }

    fn helpers(&mut self) -> Vec<u32> {
        let helpers = self.freezing().and_then(|module| module.call_method0("helpers")?.extract());
        helpers.unwrap_or_else(|error| {
            self.log("helpers", &error);
            Vec::new()
        })
    }

    fn frozen(&mut self) {
        self.tell_freezing("frozen");
    }

    fn unfreeze(&mut self) {
        self.tell_freezing("unfreeze");
    }

    fn resume(&mut self, _: &Hello, surroundings: &Surroundings) -> Result<Introduction, String> {
        self.try_resume(surroundings)
            .map_err(|error| format!("the Python session cannot go on: {}", self.traceback(&error).concat()))
    }

    fn save(&mut self, writer: &mut BundleWriter) -> Result<(), String> {
        bundle::save(self.py, writer)
            .map_err(|error| format!("the session cannot be saved: {}", self.traceback(&error).concat()))
    }

    fn load(&mut self, reader: &mut BundleReader, force: bool) -> Outcome {
        bundle::load(self.py, reader, force).unwrap_or_else(|error| {
            if !error.is_instance_of::<PyKeyboardInterrupt>(self.py) {
                self.log("load", &error);
            }
            let (ename, evalue) = self.describe(&error);
            let evalue = format!("the bundle was taken in only in part: {evalue}");
            Outcome::Failed { ename, evalue }
        })
    }

    fn shutdown(&mut self, restart: bool) {
        let result = self.engine().and_then(|engine| engine.call_method1("shutdown", (restart,)));
        if let Err(error) = result {
            self.log("shutdown", &error);
        }
    }

    fn idle(&mut self, socket: BorrowedFd<'_>) -> bool {
        let hook = {
            let hook = IDLE_HOOK.lock().unwrap_or_else(PoisonError::into_inner);
            hook.as_ref().map(|hook| hook.clone_ref(self.py))
        };
        let Some(hook) = hook else { return false };
        match hook.call1(self.py, (socket.as_raw_fd(),)) {
            Ok(_) => true,
            // Nothing runs that it could be meant for.
            Err(error) if error.is_instance_of::<PyKeyboardInterrupt>(self.py) => true,
            Err(error) => {
                self.log("the idle hook failed", &error);
                false
            }
        }
    }
}

fn status(value: &Bound<'_, PyAny>) -> PyResult<DoneStatus> {
    match value.cast::<PyString>()?.to_str()? {
        "ok" => Ok(DoneStatus::Ok),
        "error" => Ok(DoneStatus::Error),
        "interrupted" => Ok(DoneStatus::Interrupted),
        other => Err(PyValueError::new_err(format!("no such status: {other:?}"))),
    }
}

fn json(text: String) -> PyResult<Json> {
    Json::parse(text).map_err(|error| PyValueError::new_err(format!("not JSON: {error}")))
}
