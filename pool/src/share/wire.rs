//! What a process that wants a warm worker and the one that keeps them say to each other. One packet holds one
//! [`Ask`] or [`Reply`], a MessagePack map. A connection carries one lease and lasts as long as it does.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use cob_protocol::resources::Limits;
use serde::{Deserialize, Serialize};

use crate::exit::Exit;
use crate::spawn::Program;

/// From the one who wants.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ask {
    /// A worker.
    Lease {
        /// Names the program that both were built from; workers of another one are of no use.
        build: String,
        /// What the worker's zygote runs.
        program: ProgramText,
        /// The limits of its session.
        limits: Limits,
    },
    /// A worker of the session has ended: did its limits have to do with it? Ends whatever it left behind, but for other
    /// workers of the session, and processes that are spared.
    Clear {
        /// Its process id.
        pid: u32,
        /// As it looks from outside.
        exit: Exit,
        /// Processor time that it had used, in milliseconds, if that is known.
        cpu_ms: Option<u64>,
    },
    /// Another worker of the session was forked off one of its checkpoints. Not answered.
    Join {
        /// Its process id.
        pid: u32,
        /// What its environment holds for its children to be known by.
        marker: String,
        /// The inodes of its output pipes.
        pipes: Vec<u64>,
    },
    /// This process, a checkpoint or a worker of another session, does not end with a worker of this one. Not answered.
    Spare {
        /// Its process id.
        pid: u32,
    },
    /// It has ended, or may. Not answered.
    Forget {
        /// Its process id.
        pid: u32,
        /// It ended and nobody wanted it to: if somebody was killed for memory, it was that one.
        is_lost: bool,
    },
    /// Process `owner` keeps the worker alive from now on, also when this process is gone. Not answered.
    Keep {
        /// Its process id.
        owner: u32,
    },
    /// What the pool holds and has done.
    Info,
}

/// From the one who keeps.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    /// A worker. Descriptors: frame socket, stdout, stderr, shared page, lifeline, pidfd, status pipe.
    Leased {
        /// Its process id.
        pid: u32,
        /// What its environment must hold for its children to be known by.
        marker: String,
        /// Whether it had been waiting.
        was_warm: bool,
        /// The limits of its session.
        limits: Limits,
        /// What enforces them: see [`crate::Leased`], as JSON.
        enforced: String,
    },
    /// None: start one yourself.
    Refused {
        /// One sentence.
        reason: String,
    },
    /// None: the operator allows less than was asked for.
    Forbidden {
        /// Which limit, and what is allowed.
        reason: String,
    },
    /// How a worker ended.
    Cleared {
        /// Its process id.
        pid: u32,
        /// After a look at its limits.
        exit: Exit,
    },
    /// The pool's `Info` as JSON.
    Info {
        /// The document.
        json: String,
    },
}

/// A program without its image, as far as it makes the environment of a zygote. Paths and variables need not be text.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ProgramText {
    path: Vec<u8>,
    arguments: Vec<Vec<u8>>,
    environment: Vec<(Vec<u8>, Vec<u8>)>,
}

impl ProgramText {
    pub(crate) fn of(program: &Program) -> Self {
        Self {
            path: program.path.as_os_str().as_bytes().to_vec(),
            arguments: program.arguments.iter().map(|argument| argument.as_bytes().to_vec()).collect(),
            environment: program
                .environment
                .iter()
                .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
                .collect(),
        }
    }

    pub(crate) fn program(self, image: Option<&'static [u8]>) -> Program {
        let text = OsString::from_vec;
        Program {
            path: PathBuf::from(text(self.path)),
            arguments: self.arguments.into_iter().map(text).collect(),
            image,
            environment: self
                .environment
                .into_iter()
                .map(|(name, value)| (text(name), text(value)))
                .collect(),
            directory: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::DeserializeOwned;

    use super::*;
    use crate::share::client::encode;

    /// Written again it is the same, byte for byte.
    fn survives<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<(), TestCaseError> {
        if let Ok(message) = rmp_serde::from_slice::<T>(bytes) {
            let written = packet(&message);
            let again: T = rmp_serde::from_slice(&written).unwrap();
            prop_assert_eq!(packet(&again), written);
        }
        Ok(())
    }

    fn exits() -> impl Strategy<Value = Exit> {
        prop_oneof![
            any::<i32>().prop_map(Exit::Status),
            any::<i32>().prop_map(Exit::Signal),
            any::<u64>().prop_map(Exit::MemoryLimit),
            any::<u64>().prop_map(Exit::CpuLimit),
            Just(Exit::Unknown),
            any::<String>().prop_map(Exit::Violation),
        ]
    }

    fn texts() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 0..20)
    }

    fn programs() -> impl Strategy<Value = ProgramText> {
        let lists = proptest::collection::vec(texts(), 0..4);
        let pairs = proptest::collection::vec((texts(), texts()), 0..4);
        (texts(), lists, pairs).prop_map(|(path, arguments, environment)| ProgramText {
            path,
            arguments,
            environment,
        })
    }

    fn packet(message: &impl Serialize) -> Vec<u8> {
        encode(message).unwrap()
    }

    fn packets() -> impl Strategy<Value = Vec<u8>> {
        let limits = proptest::option::of(16u64 << 20..1 << 50);
        let leases = (any::<String>(), programs(), limits).prop_map(|(build, program, memory_bytes)| {
            let limits = Limits { memory_bytes, ..Limits::default() };
            packet(&Ask::Lease { build, program, limits })
        });
        prop_oneof![
            leases,
            (any::<u32>(), exits(), any::<Option<u64>>())
                .prop_map(|(pid, exit, cpu_ms)| packet(&Ask::Clear { pid, exit, cpu_ms })),
            (any::<u32>(), any::<String>(), proptest::collection::vec(any::<u64>(), 0..3))
                .prop_map(|(pid, marker, pipes)| packet(&Ask::Join { pid, marker, pipes })),
            any::<u32>().prop_map(|pid| packet(&Ask::Spare { pid })),
            (any::<u32>(), any::<bool>()).prop_map(|(pid, is_lost)| packet(&Ask::Forget { pid, is_lost })),
            Just(packet(&Ask::Info)),
            any::<u32>().prop_map(|owner| packet(&Ask::Keep { owner })),
            (any::<u32>(), exits()).prop_map(|(pid, exit)| packet(&Reply::Cleared { pid, exit })),
            any::<String>().prop_map(|reason| packet(&Reply::Forbidden { reason })),
            (any::<u32>(), any::<String>(), any::<bool>()).prop_map(|(pid, text, was_warm)| {
                let (marker, enforced) = (text.clone(), text);
                packet(&Reply::Leased { pid, marker, was_warm, limits: Limits::default(), enforced })
            }),
        ]
    }

    proptest! {
        #[test]
        fn messages_survive_the_way(packet in packets()) {
            prop_assert!(
                rmp_serde::from_slice::<Ask>(&packet).is_ok() || rmp_serde::from_slice::<Reply>(&packet).is_ok()
            );
            survives::<Ask>(&packet)?;
            survives::<Reply>(&packet)?;
        }

        #[test]
        fn no_packet_makes_either_side_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            survives::<Ask>(&bytes)?;
            survives::<Reply>(&bytes)?;
        }

        #[test]
        fn no_accident_to_a_packet_makes_either_side_panic(
            mut packet in packets(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()
        ) {
            let at = at.index(packet.len());
            if cut { packet.truncate(at) } else { packet[at] = byte }
            survives::<Ask>(&packet)?;
            survives::<Reply>(&packet)?;
        }

        #[test]
        fn a_program_is_the_same_on_the_other_side(program in programs()) {
            let same = ProgramText::of(&ProgramText {
                path: program.path.clone(),
                arguments: program.arguments.clone(),
                environment: program.environment.clone(),
            }.program(None));
            prop_assert_eq!(packet(&same), packet(&program));
        }
    }
}
