//! The custodian: a process with one thread and one loop, which only waits.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cob_protocol::limits::{CUSTODY_HANDOVER_MS_MAX, CUSTODY_STRANGERS_MAX, GRACE_S_MAX};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::net::{SocketFlags, accept_with, sockopt};
use rustix::process::geteuid;

use super::address::listen_at;
use super::vault::{Claim, ConnectionId, DepositId, Vault};
use super::wire::{Ask, Asked, Replied, Reply};
use crate::open_files::raise_open_files;
use crate::packets::{receive, send};
use crate::scratch;
use crate::share::encode;

/// Runs the custodian whose server is at the other end of descriptor 0. Comes back when nobody needs it any more.
#[must_use]
pub fn custodian_main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the custodian ends");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let terminate = signals()?;
    // With fewer it holds fewer workers.
    let _ = raise_open_files();
    rustix::process::umask(Mode::from_raw_mode(0o177));
    let server = io::stdin().as_fd().try_clone_to_owned()?;
    let Some((path, grace, number)) = begin(server.as_fd())? else { return Ok(()) };
    let listener = match listen_at(&path) {
        Ok(listener) => listener,
        Err(error) => {
            let reply = Reply::Refused { reason: format!("cannot listen at {}: {error}", path.display()) };
            return answer(server.as_fd(), number, reply, &[]);
        }
    };
    let _socket = Socket(path);
    answer(server.as_fd(), number, Reply::Done, &[])?;
    // Nothing but our own copy keeps the connection open.
    rustix::stdio::dup2_stdin(rustix::fs::open("/dev/null", rustix::fs::OFlags::RDONLY, Mode::empty())?)?;
    Custodian::new(listener, terminate, server, grace)?.run()
}

/// Removed with the custodian.
struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Waits for the first packet; nothing when the server is gone before it.
fn begin(server: BorrowedFd<'_>) -> io::Result<Option<(PathBuf, Duration, u64)>> {
    rustix::io::ioctl_fionbio(server, false)?;
    let (packet, _) = scratch::with(|scratch| receive(server, scratch))?;
    rustix::io::ioctl_fionbio(server, true)?;
    if packet.is_empty() {
        return Ok(None);
    }
    let asked: Asked = rmp_serde::from_slice(&packet).map_err(io::Error::other)?;
    let Ask::Begin { socket, grace_ms } = asked.ask else {
        return Err(io::Error::other("the first packet does not begin anything"));
    };
    let grace = Duration::from_millis(grace_ms).min(Duration::from_secs(GRACE_S_MAX));
    Ok(Some((PathBuf::from(OsString::from_vec(socket)), grace, asked.number)))
}

/// Ignores what a terminal sends; what is left comes as something to read.
fn signals() -> io::Result<OwnedFd> {
    // SAFETY: plain system calls; the set is initialised before it is used, and the new descriptor is ours.
    unsafe {
        for signal in [libc::SIGINT, libc::SIGHUP, libc::SIGPIPE, libc::SIGQUIT] {
            libc::signal(signal, libc::SIG_IGN);
        }
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        match libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

/// Who is at the other end.
struct Connection {
    socket: OwnedFd,
    /// It started us, or knew a secret.
    is_server: bool,
}

/// A server that wants a worker which another one seems to have.
struct Waiting {
    connection: ConnectionId,
    number: u64,
    secret: String,
    until: Instant,
}

struct Custodian {
    events: OwnedFd,
    listener: OwnedFd,
    _terminate: OwnedFd,
    connections: HashMap<ConnectionId, Connection>,
    next: ConnectionId,
    vault: Vault,
    waiting: Vec<Waiting>,
    grace: Duration,
    /// There is no server; by then there must be one.
    until: Option<Instant>,
    /// Secrets that were wrong.
    refused: u64,
}

/// What an event is about, as a number.
const LISTENER: u64 = 0;
const TERMINATE: u64 = 1;
const CONNECTION: u64 = 2;
const WORKER: u64 = 3;
const KINDS: u64 = 4;

impl Custodian {
    fn new(listener: OwnedFd, terminate: OwnedFd, server: OwnedFd, grace: Duration) -> io::Result<Self> {
        let events = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&events, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        epoll::add(&events, &terminate, EventData::new_u64(TERMINATE), EventFlags::IN)?;
        let mut custodian = Self {
            events,
            listener,
            _terminate: terminate,
            connections: HashMap::new(),
            next: 0,
            vault: Vault::new(),
            waiting: Vec::new(),
            grace,
            until: None,
            refused: 0,
        };
        custodian.connect(server, true)?;
        Ok(custodian)
    }

    fn run(mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(16);
        loop {
            let now = Instant::now();
            let deadlines = self.waiting.iter().map(|waiting| waiting.until).chain(self.until);
            let timeout = deadlines.min().map(|until| until.saturating_duration_since(now));
            let timeout = timeout.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
            events.clear();
            match epoll::wait(&self.events, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                match (event.data.u64() % KINDS, event.data.u64() / KINDS) {
                    (LISTENER, _) => self.accept(),
                    (TERMINATE, _) => {
                        self.terminated();
                        return Ok(());
                    }
                    (CONNECTION, id) => self.hear(id),
                    (_, id) => self.vault.ended(id),
                }
            }
            self.settle_waiting();
            let has_server = self.connections.values().any(|connection| connection.is_server);
            if has_server {
                self.until = None;
            } else {
                self.vault.drop_spent();
                if self.vault.is_empty() {
                    return Ok(());
                }
                let until = *self.until.get_or_insert_with(|| Instant::now() + self.grace);
                if Instant::now() >= until {
                    tracing::warn!("no server came; what it left ends");
                    self.vault.end();
                    return Ok(());
                }
            }
        }
    }

    /// A server that is alive sees to its workers itself.
    fn terminated(&mut self) {
        if !self.connections.values().any(|connection| connection.is_server) {
            self.vault.end();
        }
    }

    fn connect(&mut self, socket: OwnedFd, is_server: bool) -> io::Result<()> {
        let id = self.next;
        self.next += 1;
        let data = EventData::new_u64(CONNECTION + KINDS * id);
        epoll::add(&self.events, &socket, data, EventFlags::IN)?;
        self.connections.insert(id, Connection { socket, is_server });
        Ok(())
    }

    fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Ok(socket) = accept_with(&self.listener, flags) else { return self.make_room() };
        if sockopt::socket_peercred(&socket).is_ok_and(|peer| peer.uid == geteuid()) {
            // One that cannot be watched is closed.
            let _ = self.connect(socket, false);
        }
        let strangers = self.connections.values().filter(|connection| !connection.is_server);
        if strangers.count() > CUSTODY_STRANGERS_MAX {
            self.make_room();
        }
    }

    /// Closes the connection that has been silent for longest: the next one may know a secret.
    fn make_room(&mut self) {
        let strangers = self.connections.iter().filter(|(_, connection)| !connection.is_server);
        if let Some(oldest) = strangers.map(|(id, _)| *id).min() {
            self.close(oldest);
        }
    }

    fn close(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.remove(&id) {
            // Closed anyway in a moment.
            let _ = epoll::delete(&self.events, &connection.socket);
        }
        self.waiting.retain(|waiting| waiting.connection != id);
        self.vault.forget(id);
    }

    /// The next packet of a connection.
    fn hear(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(&id) else { return };
        let (socket, is_server) = (connection.socket.as_fd(), connection.is_server);
        let (packet, descriptors) = match scratch::with(|scratch| receive(socket, scratch)) {
            Ok((packet, _)) if packet.is_empty() => return self.close(id),
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            // A server that sends too much is refused and no worse off; it waits for an answer in vain.
            Err(_) if is_server => return,
            Err(_) => return self.close(id),
        };
        let Ok(Asked { number, ask }) = rmp_serde::from_slice(&packet) else {
            if !is_server {
                self.refused += 1;
                self.close(id);
            }
            return;
        };
        let reply = match ask {
            Ask::Take { secret } => return self.give(id, number, secret, None),
            _ if !is_server => {
                self.refused += 1;
                return self.close(id);
            }
            Ask::Begin { .. } => Reply::Refused { reason: "it has begun already".to_owned() },
            Ask::Release { secret } => return self.vault.release(&secret),
            Ask::Deposit(held) => match self.vault.deposit(*held, descriptors) {
                Ok((secret, worker)) => {
                    self.watch(worker);
                    Reply::Deposited { secret }
                }
                Err(reason) => Reply::Refused { reason },
            },
            Ask::Move { from_next } => {
                let socket = descriptors.into_iter().next();
                match socket.is_some_and(|socket| self.vault.move_to(id, from_next, socket)) {
                    true => Reply::Done,
                    false => Reply::Refused { reason: "nothing was taken to be moved".to_owned() },
                }
            }
        };
        self.tell(id, number, reply);
    }

    fn watch(&mut self, worker: DepositId) {
        let Some(pidfd) = self.vault.pidfd(worker) else { return };
        let data = EventData::new_u64(WORKER + KINDS * worker);
        // Once: an end does not end. Of one that cannot be watched the descriptors are held for longer.
        let _ = epoll::add(&self.events, pidfd, data, EventFlags::IN | EventFlags::ONESHOT);
    }

    /// Gives out a worker, refuses it, or waits for the end of the one who has it.
    fn give(&mut self, id: ConnectionId, number: u64, secret: String, until: Option<Instant>) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        match self.vault.take(&secret, id) {
            Claim::Granted(held, belongings) => {
                let descriptors = belongings.descriptors();
                let reply = Reply::Taken { held, refused: self.refused };
                connection.is_server = true;
                if answer(connection.socket.as_fd(), number, reply, &descriptors).is_err() {
                    self.close(id);
                }
            }
            Claim::Taken => {
                let patience = Duration::from_millis(CUSTODY_HANDOVER_MS_MAX);
                let until = until.unwrap_or_else(|| Instant::now() + patience);
                if Instant::now() >= until {
                    let reason = "another server has the worker".to_owned();
                    self.tell(id, number, Reply::Refused { reason });
                } else {
                    self.waiting.push(Waiting { connection: id, number, secret, until });
                }
            }
            Claim::Unknown => {
                self.refused += 1;
                self.close(id);
            }
        }
    }

    fn settle_waiting(&mut self) {
        for Waiting { connection, number, secret, until } in std::mem::take(&mut self.waiting) {
            self.give(connection, number, secret, Some(until));
        }
    }

    fn tell(&self, id: ConnectionId, number: u64, reply: Reply) {
        if let Some(connection) = self.connections.get(&id) {
            // A server that does not read its answers gets no more of them.
            let _ = answer(connection.socket.as_fd(), number, reply, &[]);
        }
    }
}

fn answer(
    socket: BorrowedFd<'_>,
    number: u64,
    reply: Reply,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    send(socket, &encode(&Replied { number, reply })?, descriptors)
}

/// Whether nobody is at the other end of a socket.
pub(super) fn is_hung_up(socket: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(socket, PollFlags::empty())];
    let ready = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    ready.is_ok() && fds[0].revents().contains(PollFlags::HUP)
}
