//! A directory of a group, and what is written into its files.

use std::fs;
use std::path::PathBuf;

use super::Version;
use super::group::CgroupError;

/// A directory in one of the hierarchies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) version: Version,
    pub(crate) directory: PathBuf,
}

impl Place {
    pub(crate) fn below(&self, name: &str) -> Self {
        Self { version: self.version, directory: self.directory.join(name) }
    }

    pub(super) fn write(&self, file: &str, value: impl ToString) -> Result<(), CgroupError> {
        let path = self.directory.join(file);
        fs::write(&path, value.to_string()).map_err(|source| CgroupError::File { path, source })
    }

    pub(super) fn read(&self, file: &str) -> Result<String, CgroupError> {
        let path = self.directory.join(file);
        fs::read_to_string(&path).map_err(|source| CgroupError::File { path, source })
    }

    pub(super) fn has(&self, file: &str) -> bool {
        self.directory.join(file).exists()
    }
}

/// Each directory once: in v2 both controllers have the same.
pub(super) fn distinct<'a>(memory: &'a Option<Place>, pids: &'a Option<Place>) -> Vec<&'a Place> {
    let mut places: Vec<&Place> = memory.iter().chain(pids).collect();
    places.dedup();
    places
}

pub(super) fn limit_memory(place: &Place, bytes: u64) -> Result<(), CgroupError> {
    match place.version {
        Version::V1 => {
            // Memory with swap may never be less than without: which one to write first depends on the direction.
            let swap = "memory.memsw.limit_in_bytes";
            let first = place.write("memory.limit_in_bytes", bytes);
            if place.has(swap) {
                place.write(swap, bytes)?;
            }
            if first.is_err() { place.write("memory.limit_in_bytes", bytes) } else { Ok(()) }
        }
        Version::V2 => {
            // Without swap there is no such file.
            if place.has("memory.swap.max") {
                place.write("memory.swap.max", 0)?;
            }
            place.write("memory.max", bytes)
        }
    }
}
