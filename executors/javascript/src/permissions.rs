//! What the code of this session may reach: folders. All that reads or writes files for it does so through here.
//!
//! A path is first made a real one, without links, which must lie in a permitted folder, itself a real one since the
//! session began. Then it is opened step by step from the root on, and no step follows a link: what somebody puts in
//! the way meanwhile leads nowhere.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use cob_protocol::json::Json;
use cob_protocol::limits::PATH_BYTES_MAX;
use cob_protocol::permissions::Permissions;
use deno_error::JsErrorBox;
use rustix::fs::{Mode, OFlags, openat};

thread_local! {
    static GRANTED: RefCell<Granted> = const { RefCell::new(Granted { read: Vec::new(), write: Vec::new() }) };
}

/// Real paths of folders.
struct Granted {
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
}

/// What is to be done with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    Import,
    Read,
    Write,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error(
        "{verb} {path} is not allowed in this session; a session that may is begun with --allow-{flag}=DIR \
         (cob exec, run, kernel, install), or with `permissions: {{\"{flag}\": [\"DIR\"]}}` in the environment of \
         session_open", verb = deed.verb(), path = path.display(), flag = deed.flag()
    )]
    Denied { deed: Deed, path: PathBuf },
    #[error("{verb} {path} failed: {error}", verb = deed.verb(), path = path.display())]
    Failed { deed: Deed, path: PathBuf, error: io::Error },
    #[error("{verb} {path} failed: it is no file", verb = deed.verb(), path = path.display())]
    NoFile { deed: Deed, path: PathBuf },
    #[error("{path} is too large to be read at once: it has more than {limit} bytes", path = path.display())]
    TooLarge { path: PathBuf, limit: usize },
}

impl Deed {
    const fn verb(self) -> &'static str {
        match self {
            Self::Import => "importing",
            Self::Read => "reading",
            Self::Write => "writing",
        }
    }

    const fn flag(self) -> &'static str {
        match self {
            Self::Import | Self::Read => "read",
            Self::Write => "write",
        }
    }
}

impl From<FileError> for JsErrorBox {
    fn from(error: FileError) -> Self {
        let class = match &error {
            FileError::Denied { .. } => "PermissionDenied",
            FileError::Failed { error, .. } if error.kind() == io::ErrorKind::NotFound => "NotFound",
            _ => "Error",
        };
        Self::new(class, error.to_string())
    }
}

/// From now on the code may do what `options` say, and nothing else.
///
/// # Errors
/// What is wrong with them, in a sentence.
pub(crate) fn grant(options: &Json) -> Result<(), String> {
    let permissions = Permissions::of_options(options).map_err(|error| error.to_string())?;
    let real = |folders: &[String]| -> Result<Vec<_>, String> {
        let real = |folder: &String| {
            std::path::absolute(folder)
                .and_then(|folder| real(&folder).map_err(|(_, error)| error))
                .map_err(|error| format!("`{folder}` cannot be permitted: {error}"))
        };
        folders.iter().map(real).collect()
    };
    let granted = Granted { read: real(&permissions.read)?, write: real(&permissions.write)? };
    GRANTED.set(granted);
    Ok(())
}

/// The content of a file, if it may be read and is no larger than `limit`; the file as well, to see how old it is.
///
/// # Errors
/// Why there is none.
pub(crate) fn read(deed: Deed, path: &Path, limit: usize) -> Result<(Vec<u8>, File), FileError> {
    let mut file = open(deed, path, OFlags::RDONLY)?;
    let failed = |error| FileError::Failed { deed, path: path.to_owned(), error };
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(FileError::NoFile { deed, path: path.to_owned() });
    }
    // It may grow meanwhile.
    let most = u64::try_from(limit).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    if metadata.len() <= most {
        (&mut file).take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    }
    if metadata.len() > most || bytes.len() > limit {
        return Err(FileError::TooLarge { path: path.to_owned(), limit });
    }
    Ok((bytes, file))
}

/// Puts `bytes` into a file, or at its end, if it may be written.
///
/// # Errors
/// Why not, or not all.
pub(crate) fn write(path: &Path, bytes: &[u8], append: bool) -> Result<(), FileError> {
    let deed = Deed::Write;
    let end = if append { OFlags::APPEND } else { OFlags::empty() };
    let mut file = open(deed, path, OFlags::WRONLY | OFlags::CREATE | end)?;
    let failed = |error| FileError::Failed { deed, path: path.to_owned(), error };
    // Only then it is emptied: a device might take that for a command.
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(FileError::NoFile { deed, path: path.to_owned() });
    }
    if !append {
        file.set_len(0).map_err(failed)?;
    }
    file.write_all(bytes).map_err(failed)
}

/// Opens a folder to see what is in it, if its files may be read.
///
/// # Errors
/// Why not.
pub(crate) fn open_folder(path: &Path) -> Result<File, FileError> {
    open(Deed::Read, path, OFlags::RDONLY | OFlags::DIRECTORY)
}

fn open(deed: Deed, path: &Path, flags: OFlags) -> Result<File, FileError> {
    let failed = |error| FileError::Failed { deed, path: path.to_owned(), error };
    let found = real(&std::path::absolute(path).map_err(failed)?);
    let is_granted = GRANTED.with_borrow(|granted| {
        let folders = if deed == Deed::Write { &granted.write } else { &granted.read };
        let (Ok(real) | Err((real, _))) = &found;
        folders.iter().any(|folder| real.starts_with(folder))
    });
    if !is_granted {
        return Err(FileError::Denied { deed, path: path.to_owned() });
    }
    let real = found.map_err(|(_, error)| failed(error))?;
    open_without_links(&real, flags).map_err(failed)
}

/// Where a whole path leads, which may end in names of what is not there.
///
/// # Errors
/// Where what stands before a `..` would be, which cannot be entered, and why: only who may look there may know.
fn real(path: &Path) -> Result<PathBuf, (PathBuf, io::Error)> {
    if path.as_os_str().len() > PATH_BYTES_MAX {
        return Err((PathBuf::new(), io::ErrorKind::InvalidFilename.into()));
    }
    let mut wanted = path;
    let mut there = wanted;
    let mut blocked = None;
    loop {
        let error = match there.canonicalize() {
            Ok(mut real) => {
                real.extend(wanted.strip_prefix(there).into_iter().flatten());
                return match blocked {
                    None => Ok(real),
                    Some(error) => Err((real, error)),
                };
            }
            Err(error) => error,
        };
        let is_name = matches!(there.components().next_back(), Some(Component::Normal(_)));
        let Some(above) = there.parent() else { return Err((PathBuf::new(), error)) };
        if !is_name {
            wanted = above;
            blocked = Some(error);
        }
        there = above;
    }
}

/// Opens a real path. `O_NONBLOCK`: who opens a pipe does not wait for its other end.
fn open_without_links(real: &Path, flags: OFlags) -> io::Result<File> {
    let through = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let last = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let names: Vec<_> = real.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    let mut folder = rustix::fs::open("/", through, Mode::empty())?;
    let Some((name, folders)) = names.split_last() else {
        return Ok(rustix::fs::open("/", last, Mode::empty())?.into());
    };
    for name in folders {
        folder = openat(&folder, name.as_os_str(), through, Mode::empty())?;
    }
    Ok(openat(&folder, name.as_os_str(), last, Mode::from_raw_mode(0o666))?.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn permit(read: &[&Path], write: &[&Path]) {
        let permissions = serde_json::json!({ "permissions": { "read": read, "write": write } });
        grant(&Json::of(&permissions).unwrap()).unwrap();
    }

    fn text(path: &Path) -> Result<String, FileError> {
        read(Deed::Read, path, 100).map(|(bytes, _)| String::from_utf8(bytes).unwrap())
    }

    /// `in` and `out` side by side, with `a.txt` in both, and links from the one to the other.
    fn folders() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let [inside, outside] = ["in", "out"].map(|name| folder.path().join(name));
        for folder in [&inside, &outside] {
            std::fs::create_dir(folder).unwrap();
            std::fs::write(folder.join("a.txt"), folder.file_name().unwrap().as_encoded_bytes()).unwrap();
        }
        symlink(&outside, inside.join("link")).unwrap();
        symlink(outside.join("a.txt"), inside.join("file")).unwrap();
        symlink(outside.join("new"), inside.join("nowhere")).unwrap();
        symlink("a.txt", inside.join("same")).unwrap();
        symlink(&inside, outside.join("back")).unwrap();
        (folder, inside, outside)
    }

    #[test]
    fn only_what_lies_in_a_permitted_folder_is_read() {
        let (folder, inside, outside) = folders();
        assert!(matches!(text(&inside.join("a.txt")), Err(FileError::Denied { .. })));
        permit(&[&inside], &[]);
        for path in [
            inside.join("a.txt"),
            inside.join("same"),
            outside.join("back/a.txt"),
            inside.join("../in/a.txt"),
        ] {
            assert_eq!(text(&path).unwrap(), "in", "{}", path.display());
        }
        let sibling = folder.path().join("in-and-more");
        std::fs::write(&sibling, "").unwrap();
        for path in [
            outside.join("a.txt"),
            inside.join("link/a.txt"),
            inside.join("file"),
            inside.join("../out/a.txt"),
            inside.join("link/none"),
            sibling,
            folder.path().to_owned(),
            "/".into(),
            "/proc/self/environ".into(),
        ] {
            assert!(matches!(text(&path), Err(FileError::Denied { .. })), "{}", path.display());
        }
        assert!(matches!(text(&inside.join("none/../../out/a.txt")), Err(FileError::Failed { .. })));
    }

    #[test]
    fn whether_something_lies_outside_is_not_told() {
        let (_folder, inside, outside) = folders();
        permit(&[&inside], &[]);
        for path in ["", "a.txt", "a.txt/..", "none", "none/..", "none/../none/../.."] {
            let told = text(&outside.join(path));
            assert!(matches!(told, Err(FileError::Denied { .. })), "{path}: {told:?}");
        }
        for path in ["../in/none/..", "../in/none/../../out/none/.."] {
            assert!(matches!(text(&outside.join(path)), Err(FileError::Failed { .. })), "{path}");
        }
        assert!(matches!(text(&outside.join("x/".repeat(1 << 20))), Err(FileError::Denied { .. })));
    }

    #[test]
    fn a_link_that_leads_to_what_is_not_there_is_not_followed_to_make_it() {
        let (_folder, inside, outside) = folders();
        permit(&[], &[&inside]);
        write(&inside.join("b.txt"), b"new", false).unwrap();
        write(&inside.join("b.txt"), b"er", true).unwrap();
        assert_eq!(std::fs::read_to_string(inside.join("b.txt")).unwrap(), "newer");
        assert!(write(&inside.join("nowhere"), b"x", false).is_err());
        assert!(!outside.join("new").exists());
        for path in [inside.join("file"), inside.join("link/new"), outside.join("a.txt")] {
            assert!(matches!(write(&path, b"x", false), Err(FileError::Denied { .. })), "{}", path.display());
        }
        assert_eq!(std::fs::read_to_string(outside.join("a.txt")).unwrap(), "out");
        assert!(matches!(text(&inside.join("b.txt")), Err(FileError::Denied { .. })));
    }

    #[test]
    fn a_permitted_folder_that_is_replaced_by_a_link_leads_nowhere() {
        let (folder, inside, outside) = folders();
        let later = folder.path().join("later");
        permit(&[&inside, &later], &[]);
        std::fs::rename(&inside, folder.path().join("old")).unwrap();
        symlink(&outside, &inside).unwrap();
        symlink(&outside, &later).unwrap();
        for path in [inside.join("a.txt"), later.join("a.txt")] {
            assert!(matches!(text(&path), Err(FileError::Denied { .. })), "{}", path.display());
        }
        std::fs::remove_file(&later).unwrap();
        std::fs::create_dir(&later).unwrap();
        std::fs::write(later.join("a.txt"), "later").unwrap();
        assert_eq!(text(&later.join("a.txt")).unwrap(), "later");
    }

    #[test]
    fn what_is_opened_follows_no_link_that_came_after_the_check() {
        let (_folder, inside, _outside) = folders();
        for path in [inside.join("link/a.txt"), inside.join("file")] {
            assert!(open_without_links(&path, OFlags::RDONLY).is_err(), "{}", path.display());
        }
        assert!(open_without_links(&inside.canonicalize().unwrap().join("a.txt"), OFlags::RDONLY).is_ok());
        assert!(open_without_links(Path::new("/"), OFlags::RDONLY).is_ok());
    }

    #[test]
    fn only_files_of_a_bounded_size_are_read_and_nobody_waits_for_a_pipe() {
        let (_folder, inside, _outside) = folders();
        permit(&[&inside], &[&inside]);
        std::fs::write(inside.join("large"), [b'x'; 101]).unwrap();
        assert!(matches!(text(&inside.join("large")), Err(FileError::TooLarge { .. })));
        assert!(matches!(text(&inside), Err(FileError::NoFile { .. })));
        let pipe = inside.join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(matches!(text(&pipe), Err(FileError::NoFile { .. })));
        assert!(write(&pipe, b"x", false).is_err());
    }

    #[test]
    fn permissions_that_are_none_are_refused() {
        let why = grant(&Json::parse("{\"permissions\":{\"net\":[]}}").unwrap()).unwrap_err();
        assert!(why.contains("net"), "{why}");
        assert!(grant(&Json::parse("{\"argv\":[\"x\"]}").unwrap()).is_ok());
    }
}
