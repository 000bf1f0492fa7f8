//! What a server and its custodian say to each other: one packet holds one [`Asked`] or [`Replied`], a MessagePack map,
//! and descriptors beside it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use crate::limits::Kept;
use crate::processes::Process;

/// From a server.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Asked {
    /// Comes back with the answer: whoever gave up waiting is not answered in place of the next.
    pub(crate) number: u64,
    pub(crate) ask: Ask,
}

/// See [`Asked`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ask {
    /// The first packet of the server that started it.
    Begin {
        /// Where to listen for the next server.
        socket: Vec<u8>,
        /// How long to wait for it.
        grace_ms: u64,
    },
    /// Hold this worker. Descriptors: [`Belongings`].
    Deposit(Box<Held>),
    /// Drop what is held under this secret. Not answered.
    Release {
        /// See [`Reply::Deposited`].
        secret: String,
    },
    /// Give out what is held under this secret, and hold it on.
    Take {
        /// See [`Reply::Deposited`].
        secret: String,
    },
    /// The worker that was taken is about to be moved to another socket. Descriptors: that one.
    Move {
        /// Where it is, if the worker goes away from the newer of two.
        from_next: bool,
    },
}

/// From the custodian.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Replied {
    pub(crate) number: u64,
    pub(crate) reply: Reply,
}

/// See [`Replied`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    /// It is.
    Done,
    /// It is held.
    Deposited {
        /// Who knows it gets the worker: 32 bytes in hexadecimal digits.
        secret: String,
    },
    /// Descriptors: [`Belongings`].
    Taken {
        /// As it was deposited.
        held: Box<Held>,
        /// Attempts with a wrong secret so far.
        refused: u64,
    },
    /// Not done.
    Refused {
        /// One sentence.
        reason: String,
    },
}

/// What is known of a worker that is held.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Held {
    /// What it runs, for messages.
    pub(crate) program: String,
    pub(crate) process: Process,
    /// The value of the variable by which what it starts is known.
    pub(crate) marker: String,
    /// Its limits.
    pub(crate) kept: Kept,
    /// Which of the descriptors that need not be there are.
    pub(crate) extras: Extras,
    /// Whatever the server wants to know again.
    pub(crate) note: String,
}

/// See [`Belongings`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Extras {
    pub(crate) next: bool,
    pub(crate) status: bool,
    pub(crate) server: bool,
}

/// The descriptors of a worker.
#[derive(Clone, Debug)]
pub(crate) struct Belongings<F> {
    pub(crate) stdout: F,
    pub(crate) stderr: F,
    pub(crate) page: F,
    pub(crate) lifeline: F,
    pub(crate) pidfd: F,
    pub(crate) receipt_reader: F,
    pub(crate) receipt_writer: F,
    /// Where it listens.
    pub(crate) socket: F,
    /// Where it will, if it has been told.
    pub(crate) next: Option<F>,
    /// Where its zygote says what becomes of it.
    pub(crate) status: Option<F>,
    /// The connection to the server that it came from.
    pub(crate) server: Option<F>,
}

impl<F: AsFd> Belongings<F> {
    pub(crate) fn extras(&self) -> Extras {
        let Self { next, status, server, .. } = self;
        Extras { next: next.is_some(), status: status.is_some(), server: server.is_some() }
    }

    /// In the order in which they travel.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let Self { stdout, stderr, page, lifeline, pidfd, receipt_reader, receipt_writer, socket, .. } = self;
        let always = [stdout, stderr, page, lifeline, pidfd, receipt_reader, receipt_writer, socket];
        let sometimes = [&self.next, &self.status, &self.server].into_iter().flatten();
        always.into_iter().chain(sometimes).map(AsFd::as_fd).collect()
    }
}

impl Belongings<OwnedFd> {
    /// Those that came beside a packet, if they are the right number.
    pub(crate) fn of(descriptors: Vec<OwnedFd>, extras: Extras) -> Option<Self> {
        let mut all = descriptors.into_iter();
        let belongings = Self {
            stdout: all.next()?,
            stderr: all.next()?,
            page: all.next()?,
            lifeline: all.next()?,
            pidfd: all.next()?,
            receipt_reader: all.next()?,
            receipt_writer: all.next()?,
            socket: all.next()?,
            next: if extras.next { Some(all.next()?) } else { None },
            status: if extras.status { Some(all.next()?) } else { None },
            server: if extras.server { Some(all.next()?) } else { None },
        };
        all.next().is_none().then_some(belongings)
    }

    /// What tells its output pipes from all others.
    pub(crate) fn pipes(&self) -> Vec<u64> {
        let inode = |pipe| rustix::fs::fstat(pipe).map(|stat| stat.st_ino);
        [&self.stdout, &self.stderr].into_iter().filter_map(|pipe| inode(pipe).ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::share::encode;

    proptest! {
        #[test]
        fn no_packet_makes_either_side_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = rmp_serde::from_slice::<Asked>(&bytes);
            let _ = rmp_serde::from_slice::<Replied>(&bytes);
        }

        #[test]
        fn what_is_held_survives_the_way(
            program in any::<String>(), note in any::<String>(), next in any::<bool>(), pid in any::<u32>(),
            at in any::<prop::sample::Index>(), byte in any::<u8>()
        ) {
            let held = Held {
                program,
                process: Process { pid, started: 7 },
                marker: "m".to_owned(),
                kept: Kept::default(),
                extras: Extras { next, status: false, server: false },
                note,
            };
            let asked = Asked { number: 1, ask: Ask::Deposit(Box::new(held)) };
            let mut packet = encode(&asked).unwrap();
            let again: Asked = rmp_serde::from_slice(&packet).unwrap();
            prop_assert_eq!(encode(&again).unwrap(), packet.clone());
            let at = at.index(packet.len());
            packet[at] = byte;
            let _ = rmp_serde::from_slice::<Asked>(&packet);
        }
    }

    #[test]
    fn descriptors_that_are_too_few_or_too_many_are_none() {
        let some =
            |count: usize| (0..count).map(|_| rustix::pipe::pipe().unwrap().0).collect::<Vec<OwnedFd>>();
        let extras = Extras { next: true, status: false, server: false };
        assert!(Belongings::of(some(8), extras).is_none());
        assert!(Belongings::of(some(10), extras).is_none());
        let belongings = Belongings::of(some(9), extras).unwrap();
        assert_eq!((belongings.extras(), belongings.descriptors().len()), (extras, 9));
    }
}
