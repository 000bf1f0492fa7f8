//! The second recorder: a file to which user code appends the key of its execution, so that effects are counted by
//! somebody who is not cob.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

/// The log.
#[derive(Clone, Debug)]
pub struct Effects {
    path: PathBuf,
}

impl Effects {
    /// An empty log in `folder`.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        let path = folder.join("effects.log");
        OpenOptions::new().append(true).create_new(true).open(&path).expect("a new file");
        Self { path }
    }

    /// Python code, one line, that appends `key`: one `write(2)` on a descriptor of its own.
    #[must_use]
    pub fn python(&self, key: &str) -> String {
        format!("with open({:?}, 'ab', buffering=0) as log: log.write(b'{key}\\n')", self.path)
    }

    /// How often each key was appended.
    ///
    /// # Panics
    /// When the log is not what such code writes.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<String, usize> {
        let text = std::fs::read_to_string(&self.path).expect("the log");
        assert!(text.is_empty() || text.ends_with('\n'), "a line of the effect log is torn: {text:?}");
        let mut counts = BTreeMap::new();
        for key in text.lines() {
            *counts.entry(key.to_owned()).or_default() += 1;
        }
        counts
    }

    /// How often `key` was appended.
    ///
    /// # Panics
    /// As [`counts`](Self::counts).
    #[must_use]
    pub fn of(&self, key: &str) -> usize {
        self.counts().get(key).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn every_run_of_the_code_is_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let effects = Effects::new(folder.path());
        assert_eq!(effects.of("a"), 0);
        for key in ["a", "b", "a"] {
            let mut python = Command::new(crate::programs::python());
            assert!(python.arg("-c").arg(effects.python(key)).status().unwrap().success());
        }
        assert_eq!((effects.of("a"), effects.of("b"), effects.of("c")), (2, 1, 0));
    }
}
