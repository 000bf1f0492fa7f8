//! Code that waits at the bound of what is kept can be interrupted.
//!
//! One test only: a signal says who waits on the bell by way of the one page that a process has.
#![allow(unsafe_code)]
#![allow(missing_docs, unreachable_pub, dead_code, clippy::unwrap_used, clippy::panic)]

#[path = "survival/kernel.rs"]
mod kernel;
#[path = "survival/language.rs"]
mod language;

use cob_protocol::frame::{DoneStatus, Frame};
use kernel::Kernel;

#[test]
fn code_that_waits_for_room_is_interrupted_and_goes_on_being_of_use() {
    // Four displays have room, and an end, but no fifth.
    let mut kernel = Kernel::start(9_400);
    kernel.acknowledge();
    for execution in 1..50 {
        kernel.execute(execution, "show 9 2000");
        for _ in 0..4 {
            assert!(matches!(kernel.next(), Frame::Display(_)));
        }
        // Before the wait or in it: either way it is heard, for there will be no room.
        interrupt(&kernel);
        match kernel.next() {
            Frame::Done(done) => {
                assert_eq!((done.execution, done.status), (execution, DoneStatus::Interrupted))
            }
            other => panic!("{other:?}"),
        }
        if execution % 3 == 0 {
            kernel.take_over();
            kernel.until_attached();
        }
        kernel.acknowledge();
    }
    kernel.shut_down();
}

fn interrupt(kernel: &Kernel) {
    let id = kernel.worker.as_ref().unwrap().id.as_raw_nonzero().get();
    let process = rustix::process::getpid().as_raw_nonzero().get();
    // SAFETY: takes integers only; the thread lives as long as the kernel here.
    assert_eq!(unsafe { libc::syscall(libc::SYS_tgkill, process, id, libc::SIGINT) }, 0);
}
