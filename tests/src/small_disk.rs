//! A disk of a few megabytes that can be filled and freed while a kernel runs on it.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fs::{FallocateFlags, fallocate, fstatvfs};
use rustix::process::geteuid;

/// A small disk, for whatever is [launched](SmallDisk::launcher) on it.
///
/// It is a mount in a namespace of its own: gone with the last process in it.
#[derive(Debug)]
pub struct SmallDisk {
    holder: Child,
    place: PathBuf,
}

impl SmallDisk {
    /// One of so many bytes at `place`, a folder; `None` when the system does not allow it.
    #[must_use]
    pub fn mount(place: &Path, bytes: usize) -> Option<Self> {
        let is_root = geteuid().is_root();
        let namespaces = if is_root { "-m" } else { "-Urm" };
        let script = "mount -t tmpfs -o size=$1 tmpfs \"$0\" && echo mounted && exec cat";
        let mut command = Command::new("unshare");
        command.args([namespaces, "--propagation", "private", "sh", "-c", script]);
        command.arg(place).arg(bytes.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = command.stderr(Stdio::null()).spawn().ok()?;
        let mut said = [0; 8];
        let is_mounted = holder.stdout.as_mut().is_some_and(|out| out.read_exact(&mut said).is_ok());
        let disk = Self { holder, place: place.to_owned() };
        is_mounted.then_some(disk)
    }

    /// What starts a program in the namespace, in its present working directory.
    #[must_use]
    pub fn launcher(&self) -> Vec<OsString> {
        let target = self.holder.id().to_string();
        let user: &[&str] = if geteuid().is_root() { &[] } else { &["-U", "--preserve-credentials"] };
        // Entering leads to the root folder.
        let script = "cd \"$PWD_BEFORE\" && unset PWD_BEFORE && exec \"$@\"";
        let mut launcher: Vec<OsString> =
            ["sh", "-c", "PWD_BEFORE=$PWD exec nsenter \"$@\"", "sh", "-t", &target, "-m"]
                .map(Into::into)
                .into();
        launcher.extend(user.iter().map(Into::into));
        launcher.extend(["--", "sh", "-c", script, "sh"].map(OsString::from));
        launcher
    }

    /// The same folder, seen from outside.
    #[must_use]
    pub fn outside(&self) -> PathBuf {
        let inside = self.place.strip_prefix("/").unwrap_or(&self.place);
        PathBuf::from(format!("/proc/{}/root", self.holder.id())).join(inside)
    }

    /// Leaves no room but `bytes`.
    ///
    /// # Panics
    /// When the disk cannot be reached.
    pub fn fill(&self, bytes: u64) {
        let filler = self.outside().join("filler");
        let file = File::create(filler).expect("a file on the small disk");
        let free = fstatvfs(&file).expect("a file system");
        let room = free.f_bavail * free.f_frsize;
        fallocate(&file, FallocateFlags::empty(), 0, room.saturating_sub(bytes).max(1))
            .expect("room that is there");
    }

    /// Makes room again.
    ///
    /// # Panics
    /// When it was not filled.
    pub fn free(&self) {
        std::fs::remove_file(self.outside().join("filler")).expect("a filler");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Ours, and it does nothing but wait.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_disk_is_seen_by_whoever_is_launched_on_it_and_by_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("small");
        std::fs::create_dir(&place).unwrap();
        let Some(disk) = SmallDisk::mount(&place, 1 << 20) else {
            return crate::cgroups::skipped("this host lets nobody mount a tmpfs");
        };
        let write = |text: &str| {
            let [program, arguments @ ..] = &disk.launcher()[..] else { unreachable!() };
            let mut command = Command::new(program);
            command.args(arguments).args(["sh", "-c", "printf %s \"$1\" > small/file", "sh", text]);
            command.current_dir(folder.path()).stderr(Stdio::null()).status().unwrap().success()
        };
        assert!(write("seen"));
        assert_eq!(std::fs::read_to_string(disk.outside().join("file")).unwrap(), "seen");
        assert!(!place.join("file").exists());
        disk.fill(0);
        assert!(!write(&"x".repeat(8192)));
        disk.free();
        assert!(write(&"x".repeat(8192)));
    }
}
