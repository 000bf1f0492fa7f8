//! What a server that is killed writes down (`src/bin/doomed.rs`), and the one who looks at it reads.

use std::fs;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use cob_pool::Progress;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, connect as connect_to, sendmsg, socket_with,
};

/// Something that was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Bytes of stdout.
    Output(Vec<u8>),
    /// Number of a frame, and what it names.
    Frame(u64, u64),
    /// The worker has come to a new server.
    Attached,
    /// The execution has ended.
    Done,
    /// The worker has, so.
    Gone(String),
}

impl Entry {
    /// In the log.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let (head, body) = match self {
            Self::Output(bytes) => (format!("output {}\n", bytes.len()), &bytes[..]),
            Self::Frame(number, name) => (format!("frame {number} {name}\n"), &[][..]),
            Self::Attached => ("attached\n".to_owned(), &[][..]),
            Self::Done => ("done\n".to_owned(), &[][..]),
            Self::Gone(exit) => (format!("gone {exit}\n"), &[][..]),
        };
        [head.as_bytes(), body].concat()
    }
}

/// The log in `folder`.
///
/// # Panics
/// When it is no log.
#[must_use]
pub fn entries(folder: &Path) -> Vec<Entry> {
    parse(&fs::read(folder.join("log")).unwrap_or_default()).0
}

/// Cuts off the last entry of the log in `folder` if its server was killed while it wrote it: that is not recorded.
///
/// # Errors
/// When the log cannot be written.
pub fn mend(folder: &Path) -> io::Result<()> {
    let path = folder.join("log");
    let Ok(log) = fs::read(&path) else { return Ok(()) };
    fs::OpenOptions::new().write(true).open(path)?.set_len(parse(&log).1 as u64)
}

/// Whole entries, and how many bytes they take.
fn parse(log: &[u8]) -> (Vec<Entry>, usize) {
    let (mut rest, mut entries) = (log, Vec::new());
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = String::from_utf8_lossy(&rest[..end]).into_owned();
        let mut after = &rest[end + 1..];
        let (kind, text) = line.split_once(' ').unwrap_or((&line, ""));
        let number = |text: &str| text.parse::<u64>().expect("a number");
        entries.push(match kind {
            "output" => {
                let length = usize::try_from(number(text)).expect("a length");
                let Some((bytes, more)) = after.split_at_checked(length) else { break };
                after = more;
                Entry::Output(bytes.to_vec())
            }
            "frame" => {
                let (frame, name) = text.split_once(' ').expect("two numbers");
                Entry::Frame(number(frame), number(name))
            }
            "attached" => Entry::Attached,
            "done" => Entry::Done,
            "gone" => Entry::Gone(text.to_owned()),
            other => unreachable!("no entry `{other}`"),
        });
        rest = after;
    }
    (entries, log.len() - rest.len())
}

/// How far the worker is recorded.
#[must_use]
pub fn progress(entries: &[Entry]) -> Progress {
    entries.iter().fold(Progress::default(), |progress, entry| match entry {
        Entry::Output(bytes) => Progress { stdout: progress.stdout + bytes.len() as u64, ..progress },
        Entry::Frame(number, _) => Progress { frames: *number, ..progress },
        Entry::Attached | Entry::Done | Entry::Gone(_) => progress,
    })
}

/// A connection to a custodian, of somebody who is no server.
///
/// # Panics
/// When nobody listens.
#[must_use]
pub fn connect(path: &Path) -> OwnedFd {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
    let socket = socket.expect("a socket");
    connect_to(&socket, &SocketAddrUnix::new(path).expect("a short name")).expect("somebody who listens");
    socket
}

/// Sends a packet with descriptors.
///
/// # Errors
/// When nobody is there any more.
pub fn send(socket: &OwnedFd, packet: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    beside.push(SendAncillaryMessage::ScmRights(descriptors));
    sendmsg(socket, &[IoSlice::new(packet)], &mut beside, SendFlags::NOSIGNAL)?;
    Ok(())
}
