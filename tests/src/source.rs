//! The sources of cob as text, for tests of the sources themselves.

use std::fs;
use std::path::{Path, PathBuf};

/// The root of the repository.
#[must_use]
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// A source file.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its path from the root, with slashes.
    pub path: String,
    /// What is in it.
    pub text: String,
}

impl Source {
    /// Whether it is part of the product rather than of a test, an example or a build.
    #[must_use]
    pub fn is_product(&self) -> bool {
        let parts: Vec<_> = self.path.split('/').collect();
        let outside = ["tests", "tests.rs", "examples", "benches", "build.rs"];
        !parts.iter().any(|part| outside.contains(part) || part.ends_with("_tests.rs"))
    }

    /// The text without the unit tests, which stand at the end of a file, and without comments.
    #[must_use]
    pub fn code(&self) -> String {
        let product = self.text.split("\n#[cfg(test)]").next().unwrap_or_default();
        product.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
    }
}

/// Every Rust file of the repository.
///
/// # Panics
/// When the sources cannot be read.
#[must_use]
pub fn rust_files() -> Vec<Source> {
    let root = root();
    let mut found = Vec::new();
    collect(&root, &root, &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 100, "only {} Rust files in {}", found.len(), root.display());
    found
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).expect("a readable folder").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" && name != "node_modules" {
                collect(root, &path, found);
            }
        } else if name.ends_with(".rs") {
            let text = fs::read_to_string(&path).expect("a readable file");
            let path = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            found.push(Source { path, text });
        }
    }
}
