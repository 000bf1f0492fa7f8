//! Workers whose server is killed and comes back: nothing is lost, nothing comes twice, and the code notices nothing.
#![allow(missing_docs, unreachable_pub, dead_code, clippy::unwrap_used, clippy::panic)]

mod kernel;
mod language;
mod random;

use std::io::Read;
use std::os::fd::AsFd;

use cob_protocol::frame::{Attached, DoneStatus, Frame};
use cob_protocol::limits::UNACKNOWLEDGED_BYTES_MAX;

use kernel::{Kernel, request};

const ROOM: usize = UNACKNOWLEDGED_BYTES_MAX;

/// The places of all displays that are recorded.
fn places(kernel: &Kernel) -> Vec<u64> {
    let displays = kernel.record.iter().filter(|envelope| matches!(envelope.frame, Frame::Display(_)));
    displays.map(|envelope| envelope.frame.position().unwrap().stdout).collect()
}

#[test]
fn an_idle_worker_is_taken_over() {
    let mut kernel = Kernel::start(ROOM);
    kernel.take_over();
    assert_eq!(kernel.until_attached(), Attached { received: 1, execution: 0, call: None });
    kernel.execute(1, "show 3 10");
    assert_eq!(kernel.until_done(1), 3);
    assert_eq!(kernel.shut_down(), [1]);
}

#[test]
fn a_worker_whose_kernel_dies_right_after_its_greeting_is_taken_over() {
    let mut kernel = Kernel::start_after(ROOM, |kernel| {
        kernel.execute(1, "show 1 1");
        kernel.take_over();
    });
    assert_eq!(kernel.until_attached(), Attached { received: 1, execution: 0, call: None });
    kernel.execute(1, "show 3 10");
    assert_eq!(kernel.until_done(1), 3);
    assert_eq!(kernel.shut_down(), [1]);
}

#[test]
fn code_goes_on_and_the_next_kernel_gets_what_the_last_one_did_not_record() {
    let mut kernel = Kernel::start(ROOM);
    kernel.execute(1, "show 3 10\npause\nshow 3 10");
    while kernel.seen.len() < 3 {
        kernel.read(1 << 16);
    }
    kernel.record(1);
    kernel.acknowledge();
    kernel.take_over();
    kernel.worker.as_ref().unwrap().go_on.send(()).unwrap();
    assert_eq!(kernel.until_attached(), Attached { received: 2, execution: 1, call: None });
    assert_eq!(kernel.until_done(1), 5);
    assert_eq!(places(&kernel), [1, 2, 3, 4, 5, 6], "as when they were sent first");
    kernel.shut_down();
}

#[test]
fn a_question_survives_and_gets_its_answer_from_the_next_kernel() {
    let mut kernel = Kernel::start(ROOM);
    kernel.execute(1, "ask\nshow 1 1");
    assert!(matches!(kernel.next(), Frame::Call(call) if call.request == 1));
    kernel.execute(2, "ask");
    kernel.take_over();
    // The second request was taken off the wire or not: either is told.
    let attached = kernel.until_attached();
    assert_eq!(attached.call, Some(1));
    if attached.execution == 1 {
        kernel.execute(2, "ask");
    }
    kernel.answer(1);
    assert_eq!(kernel.until_done(1), 1);
    assert!(matches!(kernel.next(), Frame::Call(call) if call.request == 2));
    kernel.take_over();
    kernel.take_over();
    assert_eq!(kernel.until_attached().call, Some(2));
    kernel.answer(2);
    kernel.until_done(2);
    kernel.take_over();
    assert_eq!(kernel.until_attached().call, None);
    assert_eq!(kernel.shut_down(), [1, 2]);
}

#[test]
fn a_worker_that_blocks_on_a_full_socket_finds_the_next_one() {
    let mut kernel = Kernel::start(ROOM);
    kernel.execute(1, "show 40 100000");
    for turn in 0..5 {
        // This lies in the socket unread, for nobody is there to read it.
        kernel.execute(2, "show 1 1");
        // A part of a frame, so that its rest was blocked.
        kernel.read(70_000);
        kernel.record(kernel.seen.len());
        kernel.take_over();
        assert_eq!(kernel.until_attached().execution, 1, "in turn {turn}");
    }
    let before = places(&kernel).len();
    assert_eq!(kernel.until_done(1) + before, 40);
    assert_eq!(places(&kernel), (1..=40).collect::<Vec<_>>());
    kernel.execute(2, "show 1 1");
    kernel.until_done(2);
    assert_eq!(kernel.shut_down(), [1, 2]);
}

#[test]
fn threads_that_write_at_once_find_the_next_socket_together() {
    let mut kernel = Kernel::start(ROOM);
    kernel.execute(1, "threads 20 50000");
    for _ in 0..5 {
        kernel.read(70_000);
        kernel.record(kernel.seen.len());
        kernel.take_over();
    }
    let before = places(&kernel).len();
    assert_eq!(kernel.until_done(1) + before, 60);
    kernel.shut_down();
}

#[test]
fn a_thread_finds_the_next_socket_for_an_idle_worker_and_one_that_asks() {
    // The threads send while the main thread waits for them: it does not read.
    let mut kernel = Kernel::start(10_000);
    let code = "threads 5 1000\nask\nthreads 5 1000";
    kernel.execute(1, code);
    kernel.take_over();
    if kernel.until_attached().execution == 0 {
        kernel.execute(1, code);
    }
    let mut frames = 0;
    loop {
        frames += 1;
        match kernel.next() {
            Frame::Call(call) => kernel.answer(call.request),
            Frame::Done(_) => break,
            _ => {}
        }
        kernel.acknowledge();
        if frames % 7 == 0 {
            kernel.take_over();
            if let Some(call) = kernel.until_attached().call {
                kernel.answer(call);
            }
        }
    }
    assert_eq!(places(&kernel).len(), 30);
    kernel.shut_down();
}

#[test]
fn what_is_kept_is_bounded_and_code_waits_for_the_record() {
    let mut kernel = Kernel::start(10_000);
    kernel.acknowledge();
    kernel.execute(1, "show 20 2000");
    let (mut attached, mut turns) = (0, 0);
    while places(&kernel).len() < 20 {
        let kept = 4.min(20 - places(&kernel).len());
        while kernel.seen.len() < kept {
            kernel.read(1 << 16);
        }
        let shown = kernel.seen.iter().filter(|seen| matches!(seen.frame, Frame::Display(_))).count();
        assert_eq!(shown, kept, "one more had no room");
        turns += 1;
        if turns % 2 == 0 {
            // It waits on the bell.
            kernel.take_over();
            kernel.until_attached();
            attached += 1;
            continue;
        }
        kernel.record(kept);
        kernel.acknowledge();
    }
    assert_eq!(attached, 4);
    kernel.until_done(1);
    assert_eq!(places(&kernel), (1..=20).collect::<Vec<_>>());
    kernel.shut_down();
}

#[test]
fn a_frame_larger_than_all_that_may_be_kept_is_sent_alone() {
    let mut kernel = Kernel::start(1000);
    kernel.acknowledge();
    kernel.execute(1, "show 2 300000");
    for _ in 0..2 {
        while kernel.seen.is_empty() {
            kernel.read(1 << 16);
        }
        kernel.take_over();
        assert!(matches!(kernel.next(), Frame::Display(_)));
        kernel.acknowledge();
    }
    kernel.until_done(1);
    kernel.shut_down();
}

#[test]
fn a_kernel_that_dies_while_it_takes_over_is_followed_by_the_next() {
    let mut kernel = Kernel::start(ROOM);
    kernel.execute(1, "show 2 10\npause\nshow 2 10");
    while kernel.seen.len() < 2 {
        kernel.read(1 << 16);
    }
    // Killed before it sent a socket; then afterwards, before anybody knew of it; then afterwards, when it was known.
    kernel.announce();
    kernel.announce();
    kernel.send_socket_and_die();
    kernel.take_over();
    kernel.take_over();
    kernel.announce();
    kernel.worker.as_ref().unwrap().go_on.send(()).unwrap();
    kernel.send_socket();
    assert_eq!(kernel.until_attached().execution, 1);
    assert_eq!(kernel.until_done(1), 4);
    assert_eq!(places(&kernel), [1, 2, 3, 4]);
    kernel.shut_down();
}

#[test]
fn half_a_frame_of_a_dead_kernel_is_forgotten() {
    let mut kernel = Kernel::start(ROOM);
    kernel.send_half(request(1), &["show 1 1".into()]);
    kernel.take_over();
    assert_eq!(kernel.until_attached(), Attached { received: 1, execution: 0, call: None });
    kernel.execute(1, "show 1 1");
    kernel.until_done(1);
    // Also while running code waits for an answer and reads meanwhile.
    kernel.execute(2, "ask");
    assert!(matches!(kernel.next(), Frame::Call(_)));
    kernel.send_half(request(3), &["show 1 1".into()]);
    kernel.take_over();
    assert_eq!(kernel.until_attached(), Attached { received: 2, execution: 2, call: Some(1) });
    kernel.answer(1);
    kernel.until_done(2);
    assert_eq!(kernel.shut_down(), [1, 2]);
}

#[test]
fn only_a_stream_socket_takes_the_place_of_one() {
    let mut kernel = Kernel::start(ROOM);
    let (mut reader, writer) = std::io::pipe().unwrap();
    kernel.announce();
    kernel.send_descriptors(&[writer.as_fd(), writer.as_fd()]);
    drop(writer);
    kernel.execute(1, "show 1 1");
    kernel.send_socket();
    // The byte that it came with is not the beginning of a frame.
    assert_eq!(kernel.until_attached().execution, 0);
    assert_eq!(reader.read(&mut [0]).unwrap(), 0, "closed");
    kernel.execute(1, "show 1 1");
    kernel.until_done(1);
    kernel.shut_down();
}

#[test]
fn a_worker_that_keeps_nothing_is_not_asked_for_anything() {
    let mut kernel = Kernel::start(0);
    // With no room at all, each frame waits for the one before.
    for execution in 1..10 {
        kernel.acknowledge();
        kernel.execute(execution, "show 1 1");
        assert!(matches!(kernel.next(), Frame::Display(_)));
        kernel.acknowledge();
        assert!(matches!(kernel.next(), Frame::Done(done) if done.status == DoneStatus::Ok));
    }
    kernel.shut_down();
}
