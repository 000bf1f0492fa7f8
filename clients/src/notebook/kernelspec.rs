//! Kernelspecs: where Jupyter looks for them, and how ours are written, listed and removed.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// `kernel.json`. (jupyter_client documentation, "Kernel specs".)
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KernelSpec {
    /// The command; `{connection_file}` is replaced by the client.
    pub argv: Vec<String>,
    /// What people see.
    pub display_name: String,
    /// Of the code.
    pub language: String,
    /// How a client interrupts: `message` for ours, because a message is answered and a signal is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interrupt_mode: Option<String>,
    /// Newest protocol version that the kernel speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_protocol_version: Option<String>,
    /// Set for the kernel.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// For front ends.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

/// A kernelspec that is installed.
#[derive(Clone, Debug)]
pub struct Installed {
    /// Its name: that of its folder.
    pub name: String,
    /// Its folder.
    pub directory: PathBuf,
    /// What it says.
    pub spec: KernelSpec,
}

/// Why a kernelspec was not written, found or removed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SpecError {
    /// Jupyter would not find it under this name.
    #[error("`{0}` is no name for a kernelspec: use letters, digits, `-`, `.` and `_`")]
    Name(String),
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No such kernelspec.
    #[error("no kernelspec `{name}` in {}", searched.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
        /// Where it was looked for.
        searched: Vec<PathBuf>,
    },
    /// It exists, but cob did not write it.
    #[error("the kernelspec `{name}` in {} does not run cob; remove it with `jupyter kernelspec remove`", directory.display())]
    Foreign {
        /// Its name.
        name: String,
        /// Its folder.
        directory: PathBuf,
    },
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SpecError {
    let path = path.to_owned();
    move |source| SpecError::Io { action, path, source }
}

/// Jupyter's data folder of this user.
#[must_use]
pub fn user_data_dir() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("JUPYTER_DATA_DIR").filter(|p| !p.is_empty()) {
        return Some(path.into());
    }
    let home = || std::env::var_os("HOME").map(PathBuf::from);
    let data = std::env::var_os("XDG_DATA_HOME").filter(|p| !p.is_empty()).map(PathBuf::from);
    data.or_else(|| home().map(|home| home.join(".local/share"))).map(|data| data.join("jupyter"))
}

/// The data folder below a prefix.
#[must_use]
pub fn prefix_data_dir(prefix: &Path) -> PathBuf {
    prefix.join("share/jupyter")
}

/// Where Jupyter looks, first place first.
#[must_use]
pub fn search_path() -> Vec<PathBuf> {
    let listed = std::env::var_os("JUPYTER_PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> =
        std::env::split_paths(&listed).filter(|p| !p.as_os_str().is_empty()).collect();
    places.extend(user_data_dir());
    places.extend(std::env::var_os("VIRTUAL_ENV").map(|prefix| prefix_data_dir(Path::new(&prefix))));
    places.extend(["/usr/local/share/jupyter", "/usr/share/jupyter"].map(PathBuf::from));
    places.into_iter().map(|place| place.join("kernels")).collect()
}

/// Writes `spec` as `name` below a data folder; an earlier one of that name is replaced.
///
/// # Errors
/// [`SpecError::Name`] or [`SpecError::Io`].
pub fn install(data_dir: &Path, name: &str, spec: &KernelSpec) -> Result<PathBuf, SpecError> {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if name.is_empty() || !name.chars().all(is_legal) || name.chars().all(|c| c == '.') {
        return Err(SpecError::Name(name.to_owned()));
    }
    // Jupyter looks names up in lower case.
    let directory = data_dir.join("kernels").join(name.to_ascii_lowercase());
    std::fs::create_dir_all(&directory).map_err(failed("create", &directory))?;
    let path = directory.join("kernel.json");
    let text = serde_json::to_string_pretty(spec).map_err(|e| SpecError::Io {
        action: "write",
        path: path.clone(),
        source: e.into(),
    })?;
    // A front end may read it at any time: it sees the old one or the new one.
    let draft = directory.join(".kernel.json.new");
    std::fs::write(&draft, text + "\n").map_err(failed("write", &draft))?;
    std::fs::rename(&draft, &path).map_err(failed("write", &path))?;
    Ok(directory)
}

/// The kernelspecs in these `kernels` folders that can be read, first place first.
#[must_use]
pub fn list(places: &[PathBuf]) -> Vec<Installed> {
    let mut found: Vec<Installed> = places
        .iter()
        .filter_map(|place| std::fs::read_dir(place).ok())
        .flatten()
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let text = std::fs::read(entry.path().join("kernel.json")).ok()?;
            let spec = serde_json::from_slice(&text).ok()?;
            let name = entry.file_name().into_string().ok()?;
            Some(Installed { name, directory: entry.path(), spec })
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// The kernelspec of that name.
///
/// # Errors
/// [`SpecError::Unknown`] with the places that were searched.
pub fn find(places: &[PathBuf], name: &str) -> Result<Installed, SpecError> {
    let wanted = name.to_ascii_lowercase();
    let searched = || places.to_vec();
    places
        .iter()
        .find_map(|place| list(std::slice::from_ref(place)).into_iter().find(|spec| spec.name == wanted))
        .ok_or_else(|| SpecError::Unknown { name: name.to_owned(), searched: searched() })
}

/// Removes a kernelspec that cob wrote.
///
/// # Errors
/// [`SpecError::Unknown`], [`SpecError::Foreign`] or [`SpecError::Io`].
pub fn remove(places: &[PathBuf], name: &str) -> Result<PathBuf, SpecError> {
    let Installed { name, directory, spec } = find(places, name)?;
    if !spec.is_ours() {
        return Err(SpecError::Foreign { name, directory });
    }
    std::fs::remove_dir_all(&directory).map_err(failed("remove", &directory))?;
    Ok(directory)
}

impl KernelSpec {
    /// Whether it runs cob.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.metadata.contains_key("cob")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(ours: bool) -> KernelSpec {
        let mut metadata = serde_json::Map::new();
        if ours {
            metadata.insert("cob".into(), serde_json::json!({ "version": "0" }));
        }
        KernelSpec {
            argv: vec!["cob".into()],
            display_name: "Python".into(),
            language: "python".into(),
            interrupt_mode: Some("message".into()),
            kernel_protocol_version: None,
            env: BTreeMap::new(),
            metadata,
        }
    }

    #[test]
    fn what_is_installed_is_listed_found_and_removed() {
        let data = tempfile::tempdir().unwrap();
        let places = [data.path().join("kernels")];
        install(data.path(), "Cob-3.11", &spec(true)).unwrap();
        install(data.path(), "cob-3.11", &spec(true)).unwrap();
        assert_eq!(list(&places).len(), 1);
        assert_eq!(find(&places, "COB-3.11").unwrap().name, "cob-3.11");
        remove(&places, "cob-3.11").unwrap();
        assert!(matches!(remove(&places, "cob-3.11"), Err(SpecError::Unknown { .. })));
    }

    #[test]
    fn names_that_leave_the_folder_and_kernels_of_others_are_left_alone() {
        let data = tempfile::tempdir().unwrap();
        for name in ["", "..", "a/b", "a b"] {
            assert!(matches!(install(data.path(), name, &spec(true)), Err(SpecError::Name(_))), "{name}");
        }
        install(data.path(), "python3", &spec(false)).unwrap();
        let places = [data.path().join("kernels")];
        assert!(matches!(remove(&places, "python3"), Err(SpecError::Foreign { .. })));
        assert_eq!(list(&places).len(), 1);
    }
}
