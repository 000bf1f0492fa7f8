//! A worker as a process, whoever is its parent.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};

use cob_protocol::zygote::Status;
use rustix::process::{Pid, Signal, kill_process_group};

pub enum Process {
    /// Our own child.
    Started(Child),
    /// A zygote's.
    Forked(Forked),
}

pub struct Forked {
    pub pid: u32,
    pub pidfd: OwnedFd,
    /// What its parent tells about it.
    pub status: File,
    /// `None` when it was cut.
    pub lifeline: Option<OwnedFd>,
}

impl Process {
    pub fn id(&self) -> u32 {
        match self {
            Self::Started(child) => child.id(),
            Self::Forked(forked) => forked.pid,
        }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.id() as i32).unwrap()
    }

    pub fn forked(&mut self) -> &mut Forked {
        match self {
            Self::Started(_) => panic!("not forked"),
            Self::Forked(forked) => forked,
        }
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        let Self::Forked(forked) = self else {
            let Self::Started(child) = self else { unreachable!() };
            return child.wait();
        };
        loop {
            match forked.status() {
                Some(Status::Exited(code)) => return Ok(ExitStatus::from_raw(code << 8)),
                Some(Status::Killed(signal)) => return Ok(ExitStatus::from_raw(signal)),
                Some(_) => {}
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    pub fn end(&mut self) {
        match self {
            Self::Started(child) => {
                let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
                let _ = child.wait();
            }
            Self::Forked(forked) => forked.lifeline = None,
        }
    }
}

impl Forked {
    /// The next record, or `None` when the pipe was closed.
    pub fn status(&mut self) -> Option<Status> {
        let mut record = [0; Status::BYTES];
        match self.status.read_exact(&mut record) {
            Ok(()) => Some(Status::from_bytes(record).expect("a status")),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
                None
            }
        }
    }
}
