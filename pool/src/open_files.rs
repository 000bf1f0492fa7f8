//! How many descriptors this process may have. A host needs six for each worker that it holds; most systems give a
//! process 1,024 unless it asks for more.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

static BEFORE: OnceLock<Rlimit> = OnceLock::new();

/// Takes all that the system allows. Programs started from here on still get what this process was given: more than
/// 1,024 breaks programs that use `select`.
///
/// # Errors
/// When the system refuses; nothing was changed then.
pub fn raise_open_files() -> std::io::Result<()> {
    let before = *BEFORE.get_or_init(|| getrlimit(Resource::Nofile));
    Ok(setrlimit(Resource::Nofile, Rlimit { current: before.maximum, ..before })?)
}

/// What this process was given, if it has taken more.
pub(crate) fn before() -> Option<Rlimit> {
    BEFORE.get().copied()
}
