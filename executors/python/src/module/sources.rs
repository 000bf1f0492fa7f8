//! Imports the package `cob` from the sources inside this module.

use std::ffi::CString;
use std::fs;
use std::path::PathBuf;

use pyo3::exceptions::PyImportError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::code::PyCodeInput;
use pyo3::types::{PyCode, PyCodeMethods, PyDict, PyModule};

/// Module, file, whether it is a package, text.
static SOURCES: &[(&str, &str, bool, &str)] = include!(concat!(env!("OUT_DIR"), "/sources.rs"));

/// Finder and loader of the package.
#[pyclass(frozen, module = "_cob")]
struct Sources {
    /// Where to read the files instead of taking the embedded ones: for the development of the package.
    folder: Option<PathBuf>,
}

struct Source {
    file: String,
    is_package: bool,
    text: String,
}

/// Puts the finder before all others.
pub(super) fn install(py: Python<'_>, folder: Option<PathBuf>) -> PyResult<()> {
    let finders = py.import(intern!(py, "sys"))?.getattr(intern!(py, "meta_path"))?;
    finders.call_method1(intern!(py, "insert"), (0, Sources { folder }))?;
    Ok(())
}

impl Sources {
    fn find(&self, name: &str) -> PyResult<Option<Source>> {
        if name != "cob" && !name.starts_with("cob.") {
            return Ok(None);
        }
        let Some(folder) = &self.folder else {
            let found = SOURCES.iter().find(|(module, ..)| *module == name);
            return Ok(found.map(|(_, file, is_package, text)| Source {
                file: (*file).to_owned(),
                is_package: *is_package,
                text: (*text).to_owned(),
            }));
        };
        let path = name.split('.').skip(1).fold(folder.clone(), |path, part| path.join(part));
        for (file, is_package) in [(path.join("__init__.py"), true), (path.with_extension("py"), false)] {
            if file.is_file() {
                let text = fs::read_to_string(&file)?;
                return Ok(Some(Source { file: file.display().to_string(), is_package, text }));
            }
        }
        Ok(None)
    }

    fn get(&self, name: &str) -> PyResult<Source> {
        self.find(name)?.ok_or_else(|| PyImportError::new_err(format!("no module named {name:?}")))
    }
}

#[pymethods]
impl Sources {
    #[pyo3(signature = (name, path = None, target = None))]
    fn find_spec<'py>(
        slf: &Bound<'py, Self>,
        name: &str,
        path: Option<&Bound<'py, PyAny>>,
        target: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let _ = (path, target);
        let Some(source) = slf.get().find(name)? else { return Ok(None) };
        let py = slf.py();
        let options = PyDict::new(py);
        options.set_item("origin", source.file)?;
        options.set_item("is_package", source.is_package)?;
        let spec = py
            .import(intern!(py, "_frozen_importlib"))?
            .getattr(intern!(py, "ModuleSpec"))?
            .call((name, slf), Some(&options))?;
        spec.setattr(intern!(py, "has_location"), true)?;
        Ok(Some(spec))
    }

    fn create_module(&self, spec: &Bound<'_, PyAny>) -> Option<Py<PyAny>> {
        let _ = spec; // as usual
        None
    }

    fn exec_module(&self, module: &Bound<'_, PyModule>) -> PyResult<()> {
        let name = module.name()?;
        let code = self.get_code(module.py(), name.to_str()?)?;
        code.run(Some(&module.dict()), None).map(drop)
    }

    fn get_code<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyCode>> {
        let source = self.get(name)?;
        let (text, file) = (CString::new(source.text)?, CString::new(source.file)?);
        PyCode::compile(py, &text, &file, PyCodeInput::File)
    }

    fn get_source(&self, name: &str) -> PyResult<String> {
        Ok(self.get(name)?.text)
    }

    fn get_filename(&self, name: &str) -> PyResult<String> {
        Ok(self.get(name)?.file)
    }

    fn is_package(&self, name: &str) -> PyResult<bool> {
        Ok(self.get(name)?.is_package)
    }
}
