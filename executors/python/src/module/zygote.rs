//! Python as a zygote: hands imports to `cob.zygote`, and forks.

use std::os::fd::OwnedFd;

use bytes::Bytes;
use cob_worker::Executor;
use cob_worker::descriptors::Descriptors;
use cob_worker::run::Ending;
use cob_worker::zygote::{Control, Importer, park, prepare};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyModule};

use super::executor::PythonExecutor;
use super::gil::Gil;

/// Gets ready and forks; returns in every worker, with its descriptors.
///
/// # Errors
/// How the process must end when nothing can be forked.
pub(super) fn serve(py: Python<'_>, control: OwnedFd) -> Result<Descriptors, Ending> {
    let unusable = |error: PyErr| Ending::Unusable(format!("the zygote cannot be set up: {error}"));
    let control = Control::new(control);
    let mut modules = Modules::load(py).map_err(unusable)?;
    prepare(&control, &Gil(py), &mut modules)?;
    drop(modules);
    Ok(park(control, &Gil(py)))
}

struct Modules<'py>(Bound<'py, PyModule>);

impl<'py> Modules<'py> {
    fn load(py: Python<'py>) -> PyResult<Self> {
        let module = half(py)?;
        module.call_method0("load")?;
        Ok(Self(module))
    }
}

impl Importer for Modules<'_> {
    const NAME: &'static str = <PythonExecutor<'static> as Executor>::NAME;

    fn import(&mut self, module: &str) -> Result<(), String> {
        // An error is one that comes out of ours, since all of the module's own are caught there.
        let failure = self.0.call_method1("import_module", (module,)).and_then(|reason| reason.extract());
        match failure {
            Ok(None) => Ok(()),
            Ok(Some(reason)) => Err(reason),
            Err(error) => Err(error.to_string()),
        }
    }

    fn settle(&mut self) -> Result<(), String> {
        self.0.call_method0("settle").map(drop).map_err(|error| error.to_string())
    }
}

/// What a worker that was just forked does before it is asked for anything: a start and a cell on trial. Language
/// info and banner, as of a start.
pub(super) fn warm_up(py: Python<'_>) -> PyResult<(String, String)> {
    half(py)?.call_method0("warm_up")?.extract()
}

/// Replaces the environment, as Python and as C see it.
pub(super) fn replace_environment(py: Python<'_>, variables: &[(Bytes, Bytes)]) -> PyResult<()> {
    half(py)?.call_method1("replace_environment", (dictionary(py, variables)?,)).map(drop)
}

/// Names and values, as bytes.
pub(super) fn dictionary<'py>(py: Python<'py>, variables: &[(Bytes, Bytes)]) -> PyResult<Bound<'py, PyDict>> {
    let dictionary = PyDict::new(py);
    for (name, value) in variables {
        dictionary.set_item(PyBytes::new(py, name), PyBytes::new(py, value))?;
    }
    Ok(dictionary)
}

fn half(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    py.import("cob.zygote")
}
