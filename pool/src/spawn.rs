//! Starting a worker process: its descriptors, its process group, its lifeline.
#![allow(unsafe_code)]

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use cob_protocol::handshake::{FRAME_FD, IMAGE_FD, LIFELINE_FD, PAGE_FD};
use cob_protocol::limits::OUTPUT_PIPE_BYTES;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::open_files;
use crate::orphans::{self, Awaited};
use crate::tree::MARKER;

/// A worker program: what to start, and what it finds around it.
#[derive(Clone, Debug)]
pub struct Program {
    /// The executable.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Code that is handed to it as a file in memory (Python's extension module).
    pub image: Option<&'static [u8]>,
    /// Its environment, all of it: nothing of this process's own is passed on.
    pub environment: Vec<(OsString, OsString)>,
    /// Where it runs; this process's directory when absent.
    pub directory: Option<PathBuf>,
}

/// Where every process finds the program that it runs: that very file, also when it was replaced or removed meanwhile.
const OWN: &str = "/proc/self/exe";

impl Program {
    /// The program that this process runs, started once more. It is always the same build, and brings all that it needs:
    /// there is nothing to import in advance, and nothing of it lies in anybody's home.
    #[must_use]
    pub fn own(
        arguments: Vec<OsString>,
        environment: Vec<(OsString, OsString)>,
        directory: Option<PathBuf>,
    ) -> Self {
        Self { path: OWN.into(), arguments, image: None, environment, directory }
    }

    /// What people call it.
    #[must_use]
    pub fn name(&self) -> String {
        name(&self.path, &self.arguments)
    }
}

/// Whether that is the program of this process.
pub(crate) fn is_own(path: &Path) -> bool {
    path == Path::new(OWN)
}

/// The path of a program; of our own, what it was started as.
pub(crate) fn name(path: &Path, arguments: &[OsString]) -> String {
    match arguments.last() {
        Some(role) if is_own(path) => role.to_string_lossy().into_owned(),
        _ => path.display().to_string(),
    }
}

/// The host's ends of everything a worker is given.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) socket: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    pub(crate) page: OwnedFd,
    /// Closing it kills the worker: keep it as long as the worker shall live.
    pub(crate) lifeline: OwnedFd,
}

/// The worker's ends.
#[derive(Debug)]
pub(crate) struct WorkerEnds {
    pub(crate) socket: OwnedFd,
    pub(crate) page: OwnedFd,
    pub(crate) lifeline: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// Makes the transport of one worker.
pub(crate) fn transport() -> io::Result<(Ends, WorkerEnds)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let (stdout, stdout_writer) = output_pipe()?;
    let (stderr, stderr_writer) = output_pipe()?;
    let page = crate::page::create()?;
    let (lifeline_reader, lifeline) = pipe_with(PipeFlags::CLOEXEC)?;
    let worker = WorkerEnds {
        socket: theirs.into(),
        page: page.try_clone()?,
        lifeline: lifeline_reader,
        stdout: stdout_writer,
        stderr: stderr_writer,
    };
    Ok((Ends { socket: ours.into(), stdout, stderr, page, lifeline }, worker))
}

/// Starts `program` as a worker. What it starts in turn is known by `marker`.
pub(crate) fn spawn_worker(
    program: &Program,
    ends: WorkerEnds,
    marker: &str,
) -> io::Result<(Child, Awaited)> {
    let WorkerEnds { socket, page, lifeline, stdout, stderr } = ends;
    let places = [(socket, FRAME_FD), (page, PAGE_FD), (lifeline, LIFELINE_FD)];
    spawn(program, Some(marker), places, stdout, stderr)
}

/// Starts `program` as a zygote: the socket that it waits on carries packets, and it has no page.
pub(crate) fn spawn_zygote(
    program: &Program,
    control: OwnedFd,
    lifeline: OwnedFd,
    output: OwnedFd,
) -> io::Result<(Child, Awaited)> {
    let stderr = output.try_clone()?;
    spawn(program, None, [(control, FRAME_FD), (lifeline, LIFELINE_FD)], output, stderr)
}

/// Starts a custodian, whose server is at the other end of `socket`. It keeps nothing else of this process: neither its
/// terminal, nor its directory, nor the pipes whose end somebody waits for.
pub(crate) fn spawn_custodian(program: &Program, socket: OwnedFd) -> io::Result<(Child, Awaited)> {
    let mut command = Command::new(&program.path);
    command
        .args(&program.arguments)
        .env_clear()
        .envs(program.environment.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .stdin(socket)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // SAFETY: between fork and exec only async-signal-safe calls are made.
    unsafe {
        command.pre_exec(|| {
            check(libc::setsid())?;
            close_from(3);
            Ok(())
        });
    }
    orphans::start(&mut command)
}

/// Descriptors are moved above this number before they are put in their places, so that none overwrites another.
const SPARE_FD_MIN: RawFd = 64;

fn spawn<const N: usize>(
    program: &Program,
    marker: Option<&str>,
    places: [(OwnedFd, RawFd); N],
    stdout: OwnedFd,
    stderr: OwnedFd,
) -> io::Result<(Child, Awaited)> {
    let mut lifted = Vec::with_capacity(N + 1);
    for (fd, place) in places {
        lifted.push((lift(fd)?, place));
    }
    if let Some(image) = program.image {
        lifted.push((lift(image_file(image)?)?, IMAGE_FD));
    }
    let moves: Vec<(RawFd, RawFd)> = lifted.iter().map(|(fd, place)| (fd.as_raw_fd(), *place)).collect();

    let mut command = Command::new(&program.path);
    command
        .args(&program.arguments)
        .env_clear()
        .envs(program.environment.iter().map(|(name, value)| (name, value)))
        .envs(marker.map(|marker| (MARKER, marker)))
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr);
    if let Some(directory) = &program.directory {
        command.current_dir(directory);
    }
    if is_own(&program.path) {
        // Its path says nothing to whoever looks at the processes of this host.
        command.arg0("cob");
    }
    let open_files = open_files::before();
    // SAFETY: between fork and exec only async-signal-safe calls are made, on memory allocated before.
    unsafe { command.pre_exec(move || prepare(&moves, open_files)) };
    orphans::start(&mut command)
}

/// Runs in the child before exec.
fn prepare(moves: &[(RawFd, RawFd)], open_files: Option<Rlimit>) -> io::Result<()> {
    if let Some(open_files) = open_files {
        setrlimit(Resource::Nofile, open_files)?;
    }
    // SAFETY: plain system calls on descriptors this process owns; all are async-signal-safe.
    unsafe {
        // Its own session and group: signals of a terminal do not reach it, and an interrupt reaches its children.
        check(libc::setsid())?;
        for (fd, place) in moves {
            check(libc::dup2(*fd, *place))?;
        }
        // What the front end left open is none of the worker's business.
        close_from(LIFELINE_FD + 1);
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

/// Has descriptors from `first` on closed when the program starts. Linux before 5.11 cannot do it; then what was not
/// marked to be closed stays open.
fn close_from(first: RawFd) {
    let first = libc::c_uint::try_from(first).unwrap_or(libc::c_uint::MAX);
    let close_on_exec = libc::c_int::try_from(libc::CLOSE_RANGE_CLOEXEC).unwrap_or_default();
    // SAFETY: a plain system call; nothing is closed here and now.
    unsafe { libc::close_range(first, libc::c_uint::MAX, close_on_exec) };
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
pub(crate) fn output_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    // Unprivileged users may have used up their share of pipe memory; a smaller pipe is only slower.
    let _ = fcntl_setpipe_size(&reader, OUTPUT_PIPE_BYTES);
    rustix::io::ioctl_fionbio(&reader, true)?;
    Ok((reader, writer))
}

/// The image as a sealed file in memory: one for all workers, whose pages are shared.
fn image_file(image: &'static [u8]) -> io::Result<OwnedFd> {
    static FILES: Mutex<Vec<(&'static [u8], OwnedFd)>> = Mutex::new(Vec::new());
    let mut files = FILES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, fd)) = files.iter().find(|(known, _)| std::ptr::eq(*known, image)) {
        return fd.try_clone();
    }
    let fd = sealed_file(image)?;
    let clone = fd.try_clone()?;
    files.push((image, fd));
    Ok(clone)
}

fn sealed_file(image: &[u8]) -> io::Result<OwnedFd> {
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
