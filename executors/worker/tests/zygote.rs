//! Getting ready to be forked needs nothing of Python either.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::thread;

use cob_protocol::handshake::{VERSIONS, VersionRange};
use cob_protocol::zygote::{Order, Prepare, Report};
use cob_worker::Interpreter;
use cob_worker::run::Ending;
use cob_worker::zygote::{Control, Importer, prepare};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};

/// A language without an interpreter to hold, and without modules.
struct Nothing;

impl Interpreter for Nothing {
    type Interrupt = Infallible;

    fn unlocked<T: Send>(&self, wait: impl FnOnce() -> T + Send) -> T {
        wait()
    }

    fn signals(&self) -> Result<(), Infallible> {
        Ok(())
    }
}

impl Importer for Nothing {
    const NAME: &'static str = "nothing 1";

    fn import(&mut self, module: &str) -> Result<(), String> {
        Err(format!("there is no {module}"))
    }

    fn settle(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// How getting ready ended, and the last report.
fn prepare_with(versions: VersionRange) -> (Ending, Report) {
    let (host, zygote) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let order = Order::Prepare(Prepare { versions, imports: vec!["anything".to_owned()] });
    send(&host, &order.encode().unwrap(), SendFlags::empty()).unwrap();
    let ending = prepare(&Control::new(zygote), &Nothing, &mut Nothing).unwrap_err();
    (ending, report(&host))
}

fn report(host: &OwnedFd) -> Report {
    let mut packet = [0; 4096];
    let (count, _) = recv(host, &mut packet[..], RecvFlags::empty()).unwrap();
    Report::decode(&packet[..count]).unwrap()
}

#[test]
fn a_process_with_a_second_thread_is_unfit() {
    // The harness of this test has a thread for each test, and this makes sure of it.
    let (_stop, stopped) = std::sync::mpsc::channel::<()>();
    thread::spawn(move || stopped.recv());
    match prepare_with(VERSIONS) {
        (Ending::Unusable(told), Report::Unfit { module: None, reason }) => {
            assert!(told.contains(&reason) && reason.contains("more than one thread"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_host_of_another_version_is_told_so() {
    let newer = VersionRange { min: VERSIONS.max + 1, max: VERSIONS.max + 1 };
    match prepare_with(newer) {
        (Ending::Unusable(_), Report::Unfit { module: None, reason }) => {
            assert!(reason.contains("upgrade"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}
