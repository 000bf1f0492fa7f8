//! Starting a worker process: its descriptors, its process group, its lifeline.
#![allow(unsafe_code)]

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use cob_protocol::handshake::{FRAME_FD, IMAGE_FD, LIFELINE_FD, PAGE_FD};
use cob_protocol::limits::OUTPUT_PIPE_BYTES;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use tokio::net::UnixStream;

use crate::page::SharedPage;

/// A worker program: what to start, and how.
#[derive(Clone, Debug)]
pub struct Program {
    /// The executable.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Code that is handed to it as a file in memory (Python's extension module).
    pub image: Option<&'static [u8]>,
    /// Variables set on top of this process's environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Where it runs; this process's directory when absent.
    pub directory: Option<PathBuf>,
}

/// Everything the host keeps of a worker that was just started.
pub(crate) struct Spawned {
    pub(crate) child: Child,
    pub(crate) socket: UnixStream,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    pub(crate) page: SharedPage,
    /// Closing it kills the worker: keep it as long as the worker shall live.
    pub(crate) lifeline: OwnedFd,
}

/// Descriptors are moved above this number before they are put in their places, so that none overwrites another.
const SPARE_FD_MIN: RawFd = 64;

pub(crate) fn spawn(program: &Program) -> io::Result<Spawned> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let (stdout, stdout_writer) = output_pipe()?;
    let (stderr, stderr_writer) = output_pipe()?;
    let (page, page_fd) = SharedPage::create()?;
    let (lifeline_reader, lifeline) = pipe_with(PipeFlags::CLOEXEC)?;

    let mut places =
        vec![(lift(theirs)?, FRAME_FD), (lift(page_fd)?, PAGE_FD), (lift(lifeline_reader)?, LIFELINE_FD)];
    if let Some(image) = program.image {
        places.push((lift(image_file(image)?)?, IMAGE_FD));
    }
    let moves: Vec<(RawFd, RawFd)> = places.iter().map(|(fd, place)| (fd.as_raw_fd(), *place)).collect();

    let mut command = Command::new(&program.path);
    command
        .args(&program.arguments)
        .envs(program.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(stdout_writer)
        .stderr(stderr_writer);
    if let Some(directory) = &program.directory {
        command.current_dir(directory);
    }
    // SAFETY: between fork and exec only async-signal-safe calls are made, on memory allocated before.
    unsafe { command.pre_exec(move || prepare(&moves)) };
    let child = command.spawn()?;
    Ok(Spawned { child, socket: UnixStream::from_std(ours)?, stdout, stderr, page, lifeline })
}

/// Runs in the child before exec.
fn prepare(moves: &[(RawFd, RawFd)]) -> io::Result<()> {
    // SAFETY: plain system calls on descriptors this process owns; all are async-signal-safe.
    unsafe {
        // Its own session and group: signals of a terminal do not reach it, and an interrupt reaches its children.
        check(libc::setsid())?;
        for (fd, place) in moves {
            check(libc::dup2(*fd, *place))?;
        }
        // What the front end left open is none of the worker's business. Linux before 5.11 cannot do it; then what
        // was not marked to be closed stays open.
        let first = libc::c_uint::try_from(LIFELINE_FD + 1).unwrap_or(libc::c_uint::MAX);
        let close_on_exec = libc::c_int::try_from(libc::CLOSE_RANGE_CLOEXEC).unwrap_or_default();
        libc::close_range(first, libc::c_uint::MAX, close_on_exec);
        // An ignored SIGINT would be inherited, and Python would never install its handler.
        if libc::signal(libc::SIGINT, libc::SIG_DFL) == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
        let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        check(libc::setrlimit(libc::RLIMIT_CORE, &raw const no_core))?;
        // The system signals the owner when the last writer closes, whatever the worker is busy with.
        check(libc::fcntl(LIFELINE_FD, libc::F_SETOWN, libc::getpid()))?;
        check(libc::fcntl(LIFELINE_FD, F_SETSIG, libc::SIGKILL))?;
        check(libc::fcntl(LIFELINE_FD, libc::F_SETFL, libc::O_ASYNC | libc::O_NONBLOCK))?;
    }
    Ok(())
}

/// `F_SETSIG` of Linux, which libc does not name for every target.
const F_SETSIG: libc::c_int = 10;

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn lift(fd: impl Into<OwnedFd>) -> io::Result<OwnedFd> {
    Ok(fcntl_dupfd_cloexec(fd.into(), SPARE_FD_MIN)?)
}

/// A pipe whose reading end does not block and whose writing end does.
fn output_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    // Unprivileged users may have used up their share of pipe memory; a smaller pipe is only slower.
    let _ = fcntl_setpipe_size(&reader, OUTPUT_PIPE_BYTES);
    rustix::io::ioctl_fionbio(&reader, true)?;
    Ok((reader, writer))
}

/// The image as a sealed file in memory.
fn image_file(image: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 do not know EXEC, newer ones may insist on it.
    let fd =
        memfd_create("cob-image", flags | MemfdFlags::EXEC).or_else(|_| memfd_create("cob-image", flags))?;
    let mut file = std::fs::File::from(fd);
    file.write_all(image)?;
    let fd = OwnedFd::from(file);
    fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)?;
    Ok(fd)
}
