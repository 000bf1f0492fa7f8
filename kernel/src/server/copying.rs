//! A copy of a folder whose owner may be changing it meanwhile, and may mean no good.
//!
//! **Invariant:** nothing outside of the folder is read, whatever links are put there at whatever moment: every step is
//! taken from an open folder, and through no link.

use std::fs::{File, FileTimes};
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use cob_protocol::limits::{BRANCH_DEPTH_MAX, BRANCH_FILES_MAX};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// What may still be copied.
struct Budget {
    bytes: u64,
    entries: usize,
}

/// Copies everything in `from` into `to`, which is there: at most so many bytes. Links stay as they are; what is neither
/// file, folder nor link is left out, and so is what goes away meanwhile.
///
/// # Errors
/// What went wrong first. Part of it may be there then.
pub(crate) fn copy_folder(from: &Path, to: &Path, bytes_max: u64) -> io::Result<()> {
    let (from, to) = (open_folder(CWD, from)?, open_folder(CWD, to)?);
    copy_entries(&from, &to, 0, &mut Budget { bytes: bytes_max, entries: BRANCH_FILES_MAX })
}

fn open_folder(at: impl AsFd, name: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

fn copy_entries(from: &OwnedFd, to: &OwnedFd, depth: usize, budget: &mut Budget) -> io::Result<()> {
    if depth > BRANCH_DEPTH_MAX {
        return Err(io::Error::other(format!(
            "its folders lie deeper than {BRANCH_DEPTH_MAX} in each other"
        )));
    }
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let more = budget.entries.checked_sub(1);
        budget.entries =
            more.ok_or_else(|| io::Error::other(format!("there are more than {BRANCH_FILES_MAX} files")))?;
        match copy_entry(from, to, name, depth, budget) {
            // It was removed, or became something else.
            Err(error) if is_change(&error) => {}
            copied => copied?,
        }
    }
    Ok(())
}

fn is_change(error: &io::Error) -> bool {
    [Errno::NOENT, Errno::LOOP, Errno::NOTDIR, Errno::NXIO]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn copy_entry(
    from: &OwnedFd,
    to: &OwnedFd,
    name: &std::ffi::CStr,
    depth: usize,
    budget: &mut Budget,
) -> io::Result<()> {
    let found = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(found.st_mode) {
        FileType::Directory => {
            let inner = open_folder(from, name)?;
            rustix::fs::mkdirat(to, name, Mode::RWXU)?;
            let copy = open_folder(to, name)?;
            copy_entries(&inner, &copy, depth + 1, budget)?;
            // Only now: it may be one that nothing can be put into.
            rustix::fs::fchmod(&copy, mode(&found))?;
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(&target, to, name)?;
        }
        FileType::RegularFile => copy_file(from, to, name, budget)?,
        _ => {}
    }
    Ok(())
}

fn copy_file(from: &OwnedFd, to: &OwnedFd, name: &std::ffi::CStr, budget: &mut Budget) -> io::Result<()> {
    // Should a pipe stand there by now, nobody waits for its other end.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let source = rustix::fs::openat(from, name, flags, Mode::empty())?;
    let found = rustix::fs::fstat(&source)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return Ok(());
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut copy = File::from(rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?);
    let source = File::from(source);
    let modified = source.metadata()?.modified()?;
    // The system copies, and where the file system can share blocks, it does.
    let copied = io::copy(&mut source.take(budget.bytes.saturating_add(1)), &mut copy)?;
    budget.bytes =
        budget.bytes.checked_sub(copied).ok_or_else(|| io::Error::from(io::ErrorKind::QuotaExceeded))?;
    copy.set_times(FileTimes::new().set_modified(modified))?;
    rustix::fs::fchmod(&copy, mode(&found))?;
    Ok(())
}

/// Who may do what with it; nothing of it runs as somebody else.
fn mode(found: &Stat) -> Mode {
    Mode::from_raw_mode(found.st_mode) & (Mode::RWXU | Mode::RWXG | Mode::RWXO)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn files_folders_and_links_come_along_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        fs::create_dir_all(from.join("a/b")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(root.path().join("secret"), "secret").unwrap();
        fs::write(from.join("a/b/tool"), "#!").unwrap();
        fs::set_permissions(from.join("a/b/tool"), Permissions::from_mode(0o750)).unwrap();
        fs::set_permissions(from.join("a"), Permissions::from_mode(0o500)).unwrap();
        symlink(root.path(), from.join("up")).unwrap();
        symlink("nowhere", from.join("broken")).unwrap();
        let _socket = UnixListener::bind(from.join("socket")).unwrap();
        rustix::fs::mknodat(CWD, from.join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        copy_folder(&from, &to, 1 << 20).unwrap();
        let mode = |path: &str| fs::metadata(to.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("a/b/tool"), mode("a")), (0o750, 0o500));
        assert_eq!(fs::read_to_string(to.join("a/b/tool")).unwrap(), "#!");
        let modified = |path: &Path| fs::metadata(path.join("a/b/tool")).unwrap().modified().unwrap();
        assert_eq!(modified(&from), modified(&to));
        assert_eq!(fs::read_link(to.join("up")).unwrap(), root.path());
        assert_eq!(fs::read_link(to.join("broken")).unwrap(), Path::new("nowhere"));
        let mut names: Vec<_> = fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["a", "broken", "up"]);
        // So that what is temporary can be removed.
        for folder in [&from, &to] {
            fs::set_permissions(folder.join("a"), Permissions::from_mode(0o700)).unwrap();
        }
    }

    #[test]
    fn no_more_is_copied_than_may_be() {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        for folder in [&from, &to] {
            fs::create_dir(folder).unwrap();
        }
        fs::write(from.join("one"), [0; 600]).unwrap();
        copy_folder(&from, &to, 600).unwrap();
        fs::write(from.join("two"), [0; 600]).unwrap();
        let to = root.path().join("again");
        fs::create_dir(&to).unwrap();
        assert_eq!(copy_folder(&from, &to, 1000).unwrap_err().kind(), io::ErrorKind::QuotaExceeded);
    }

    #[test]
    fn a_link_in_place_of_the_folder_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("to")).unwrap();
        symlink("/", root.path().join("from")).unwrap();
        assert!(copy_folder(&root.path().join("from"), &root.path().join("to"), 1 << 20).is_err());
    }
}
