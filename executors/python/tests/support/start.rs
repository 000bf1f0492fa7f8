//! How a worker or a zygote is started, and with which interpreters.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use cob_protocol::handshake::IMAGE_FD;
use cob_python::{BOOTSTRAP, MODULE};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::fcntl_dupfd_cloexec;

use super::Host;

/// How a worker is started.
#[derive(Default)]
pub struct Start<'a> {
    pub python: &'a str,
    /// Read the Python half from here instead of taking the embedded one.
    pub sources: Option<&'a Path>,
    pub folder: Option<&'a Path>,
    /// Where modules are looked for besides.
    pub modules: Option<&'a Path>,
}

/// An interpreter with the bootstrap; descriptors are put in their places.
pub fn command(start: &Start<'_>, places: &[(&OwnedFd, i32)]) -> Command {
    let mut passed = vec![(fcntl_dupfd_cloexec(image(), 64).unwrap(), IMAGE_FD)];
    passed.extend(places.iter().map(|(fd, place)| (fcntl_dupfd_cloexec(fd, 64).unwrap(), *place)));
    let mut command = Command::new(start.python);
    command.arg("-c").arg(bootstrap(start.sources)).process_group(0).stdin(Stdio::null());
    if let Some(folder) = start.folder {
        command.current_dir(folder);
    }
    if let Some(modules) = start.modules {
        command.env("PYTHONPATH", modules);
    }
    // SAFETY: only async-signal-safe calls between fork and exec.
    unsafe {
        command.pre_exec(move || {
            for (from, to) in &passed {
                if libc::dup2(from.as_raw_fd(), *to) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            libc::signal(libc::SIGINT, libc::SIG_DFL);
            Ok(())
        });
    }
    command
}

/// The bootstrap text, with another place for the Python half if one is named.
pub fn bootstrap(sources: Option<&Path>) -> String {
    match sources {
        None => BOOTSTRAP.to_owned(),
        Some(folder) => {
            let folder = std::path::absolute(folder).unwrap();
            BOOTSTRAP.replacen("SOURCES = None", &format!("SOURCES = {folder:?}"), 1)
        }
    }
}

/// One image serves all workers.
fn image() -> BorrowedFd<'static> {
    static IMAGE: OnceLock<File> = OnceLock::new();
    let image = IMAGE.get_or_init(|| {
        let mut file = File::from(memfd_create("cob-python", MemfdFlags::CLOEXEC).unwrap());
        file.write_all(MODULE).unwrap();
        file
    });
    image.as_fd()
}

/// The interpreters to test with: those named in `COB_TEST_PYTHONS` (separated by colons), or what is installed.
pub fn pythons() -> Vec<String> {
    if let Ok(named) = std::env::var("COB_TEST_PYTHONS") {
        return named.split(':').map(str::to_owned).collect();
    }
    let mut found = installed(&["3.10", "3.11", "3.12", "3.13"]);
    found.push("/usr/bin/python3".to_owned());
    found.retain(|python| Path::new(python).exists());
    assert!(!found.is_empty(), "no Python from 3.10 on; name one in COB_TEST_PYTHONS");
    found
}

/// The interpreters of pyenv with one of these versions.
pub fn installed(versions: &[&str]) -> Vec<String> {
    let home = std::env::var("HOME").unwrap_or_default();
    let Ok(folder) = std::fs::read_dir(format!("{home}/.pyenv/versions")) else { return Vec::new() };
    let names = folder.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<_> = names
        .filter(|name| versions.iter().any(|version| name.starts_with(&format!("{version}."))))
        .collect();
    names.sort();
    names.into_iter().map(|name| format!("{home}/.pyenv/versions/{name}/bin/python")).collect()
}

/// Runs a test in a fresh worker of every interpreter.
#[track_caller]
pub fn with_each(test: impl Fn(&mut Host)) {
    for python in pythons() {
        eprintln!("with {python}");
        test(&mut Host::start(&Start { python: &python, ..Start::default() }));
    }
}
