//! Which modules were loaded, from which state of their files, and who imports them.
//!
//! The engine keeps a module for ever under its URL. So a module whose file has changed since goes on under another
//! one: with its version as the fragment, which means nothing else in the URL of a file. All that import it, and those
//! that import them, do the same; all others stay what they are, with their state. Only cells cause that: what a module
//! imports does not change under its feet. What was bound to the old one stays bound to it.

use std::collections::{HashMap, HashSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use deno_core::ModuleSpecifier;

use super::specifier;

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    file: (u64, u64),
    bytes: u64,
    modified: (i64, i64),
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            file: (metadata.dev(), metadata.ino()),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }

    fn now(url: &ModuleSpecifier) -> Option<Self> {
        let path = specifier::path(url).ok()?;
        Some(Self::of(&path.metadata().ok()?))
    }
}

#[derive(Debug, Default)]
struct Known {
    version: u32,
    /// Of what is loaded, if it lies in a file and was not found to be old.
    stamp: Option<Stamp>,
    importers: HashSet<ModuleSpecifier>,
}

/// See the module. URLs are without versions.
#[derive(Debug, Default)]
pub(super) struct Graph {
    modules: HashMap<ModuleSpecifier, Known>,
}

impl Graph {
    /// Whether it was loaded.
    pub(super) fn knows(&self, url: &ModuleSpecifier) -> bool {
        self.modules.contains_key(url)
    }

    /// Its content was read, as it was in this state.
    pub(super) fn loaded(&mut self, url: ModuleSpecifier, stamp: Option<Stamp>) {
        self.modules.entry(url).or_default().stamp = stamp;
    }

    /// The URL under which `url` is imported, by a module or else by a cell.
    pub(super) fn imported(
        &mut self,
        url: ModuleSpecifier,
        importer: Option<ModuleSpecifier>,
    ) -> ModuleSpecifier {
        match importer {
            None => self.refresh(),
            Some(importer) => {
                self.modules.entry(url.clone()).or_default().importers.insert(importer);
            }
        }
        let version = self.modules.get(&url).map_or(0, |known| known.version);
        let mut url = url;
        if version > 0 {
            url.set_fragment(Some(&version.to_string()));
        }
        url
    }

    /// Gives a new version to all that is not as its files are.
    fn refresh(&mut self) {
        let is_old = |(url, known): &(&ModuleSpecifier, &Known)| {
            known.stamp.is_some_and(|stamp| Stamp::now(url) != Some(stamp))
        };
        let mut waiting: Vec<_> = self.modules.iter().filter(is_old).map(|(url, _)| url.clone()).collect();
        let mut old = HashSet::new();
        while let Some(url) = waiting.pop() {
            let Some(known) = self.modules.get_mut(&url) else { continue };
            if old.insert(url) {
                known.version = known.version.saturating_add(1);
                known.stamp = None;
                waiting.extend(known.importers.iter().cloned());
            }
        }
        // What the new ones import is not known yet.
        for known in self.modules.values_mut() {
            known.importers.retain(|importer| !old.contains(importer));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// What a cell is given that imports a file.
    fn cell(graph: &mut Graph, file: &Path) -> u32 {
        let url = graph.imported(ModuleSpecifier::from_file_path(file).unwrap(), None);
        url.fragment().map_or(0, |version| version.parse().unwrap())
    }

    fn load(graph: &mut Graph, file: &Path, imports: &[&Path]) {
        let url = ModuleSpecifier::from_file_path(file).unwrap();
        graph.loaded(url.clone(), Stamp::now(&url));
        for import in imports {
            graph.imported(ModuleSpecifier::from_file_path(import).unwrap(), Some(url.clone()));
        }
    }

    #[test]
    fn who_imports_what_has_changed_is_loaded_again_and_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let [top, middle, leaf, other] =
            ["top", "middle", "leaf", "other"].map(|name| folder.path().join(name));
        for file in [&top, &middle, &leaf, &other] {
            std::fs::write(file, "1").unwrap();
        }
        let mut graph = Graph::default();
        load(&mut graph, &top, &[&middle, &other]);
        load(&mut graph, &middle, &[&leaf, &top]);
        load(&mut graph, &leaf, &[]);
        load(&mut graph, &other, &[]);
        assert_eq!(cell(&mut graph, &top), 0);
        std::fs::write(&leaf, "22").unwrap();
        let versions = |graph: &mut Graph| [&top, &middle, &leaf, &other].map(|file| cell(graph, file));
        assert_eq!(versions(&mut graph), [1, 1, 1, 0]);
        // Asked again, nothing else has changed.
        assert_eq!(versions(&mut graph), [1, 1, 1, 0]);
        // The new one imports nothing.
        load(&mut graph, &top, &[]);
        load(&mut graph, &middle, &[&leaf]);
        load(&mut graph, &leaf, &[]);
        std::fs::remove_file(&leaf).unwrap();
        assert_eq!(versions(&mut graph), [1, 2, 2, 0]);
    }
}
