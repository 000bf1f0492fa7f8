//! Sessions that are frozen, and what comes of them. The language is made up; its state is one number.
//!
//! A worker that is forked must be a process with one thread, so there is no harness: this program runs its tests one
//! after the other, or, started by itself, is a worker.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic)]

mod bundles;
mod counter;
mod host;

use std::fs;
use std::os::fd::AsFd;

use cob_protocol::checkpoint::Finding;
use cob_protocol::frame::{Frame, Freeze, Outcome, Unfreeze};
use cob_protocol::handshake::Hello;
use cob_protocol::limits::FROZEN_OOM_SCORE;
use cob_protocol::zygote::{Order, Status};
use rustix::process::{Signal, kill_process};

use host::{Checkpoint, Host};

const TESTS: &[(&str, fn())] = &[
    ("every_worker_of_a_checkpoint_has_its_state", every_worker_of_a_checkpoint_has_its_state),
    ("output_and_frames_go_to_the_new_host_only", output_and_frames_go_to_the_new_host_only),
    (
        "what_waits_behind_the_order_is_for_the_live_worker",
        what_waits_behind_the_order_is_for_the_live_worker,
    ),
    ("a_redirected_stream_stays_where_it_was", a_redirected_stream_stays_where_it_was),
    ("a_thread_is_in_the_way_unless_forced", a_thread_is_in_the_way_unless_forced),
    ("a_child_is_in_the_way_unless_it_is_a_helper", a_child_is_in_the_way_unless_it_is_a_helper),
    ("a_checkpoint_is_nobodys_child", a_checkpoint_is_nobodys_child),
    ("what_is_frozen_ends_with_its_host_or_when_told", what_is_frozen_ends_with_its_host_or_when_told),
    ("a_thawed_worker_can_be_frozen_and_survives", a_thawed_worker_can_be_frozen_and_survives),
    ("what_confines_a_session_is_told_again", what_confines_a_session_is_told_again),
    ("an_order_without_its_socket_does_no_harm", an_order_without_its_socket_does_no_harm),
    ("a_signal_does_not_change_what_is_frozen", a_signal_does_not_change_what_is_frozen),
    ("a_bundle_is_written_and_read", bundles::a_bundle_is_written_and_read),
    ("a_session_that_cannot_be_saved_says_why", bundles::a_session_that_cannot_be_saved_says_why),
    ("what_is_no_bundle_is_declined", bundles::what_is_no_bundle_is_declined),
    ("a_load_can_be_interrupted", bundles::a_load_can_be_interrupted),
];

fn main() {
    if std::env::var_os(host::BE_A_WORKER).is_some() {
        counter::main();
    }
    let filters: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for (name, test) in TESTS {
        if filters.is_empty() || filters.iter().any(|filter| name.contains(filter)) {
            test();
            eprintln!("test {name} ... ok");
        }
    }
}

fn blocking(findings: &[Finding]) -> Vec<&str> {
    findings.iter().filter(|finding| finding.blocks).map(|finding| finding.kind.as_str()).collect()
}

fn every_worker_of_a_checkpoint_has_its_state() {
    let mut live = Host::start();
    assert_eq!(live.run("add 1"), "1");
    let frozen = live.freeze(false).unwrap();
    assert_eq!(blocking(&frozen.findings), [""; 0]);
    assert_eq!(live.run("add 10"), "11", "it goes on");
    let (mut one, mut other) = (frozen.thaw(), frozen.thaw());
    assert_eq!(one.run("add 100"), "101");
    assert_eq!(other.run("add 1000"), "1001");
    assert_eq!(live.run("add 10"), "21");
    assert_eq!(frozen.thaw().run("add 0"), "1", "however often");
    live.send(Unfreeze {}, &[]);
    assert_eq!(live.run("add 0"), "22", "the language was told, and counts it");
    for host in [live, one, other] {
        host.shut_down();
    }
}

fn output_and_frames_go_to_the_new_host_only() {
    let mut live = Host::start();
    let frozen = live.freeze(false).unwrap();
    let mut thawed = frozen.thaw();
    assert_eq!(thawed.run("raw here"), "here");
    assert_eq!(live.unread(), [0, 0], "nothing of it came here");
    live.run("add 1");
    assert_eq!(thawed.unread(), [0, 0]);
    // The first frames of both are numbered from 1, which the host has checked; so are places.
    assert_eq!(live.run("raw there"), "there");
}

fn what_waits_behind_the_order_is_for_the_live_worker() {
    let mut live = Host::start();
    let control = live.order_freeze(false);
    let execution = live.execute("add 1");
    let frozen = Checkpoint::receive(control).unwrap();
    let mut thawed = frozen.thaw();
    assert_eq!(live.until_done(execution), "1");
    assert_eq!(thawed.run("add 0"), "0");
}

fn a_redirected_stream_stays_where_it_was() {
    let path = std::env::temp_dir().join(format!("cob-frozen-{}", std::process::id()));
    let mut live = Host::start();
    // What stood for the pipe stands for it still, under whatever number.
    live.run(&format!("redirect {}", path.display()));
    let frozen = live.freeze(false).unwrap();
    let mut thawed = frozen.thaw();
    assert_eq!(thawed.run("raw file"), "");
    // The checkpoint itself printed there as well: it is the user's file.
    assert!(fs::read_to_string(&path).unwrap().ends_with("file"));
    assert_eq!(thawed.run("restore"), "");
    assert_eq!(thawed.run("raw pipe"), "pipe");
    assert_eq!(live.unread(), [0, 0]);
    fs::remove_file(path).unwrap();
}

fn a_thread_is_in_the_way_unless_forced() {
    let mut live = Host::start();
    live.run("thread");
    let findings = live.freeze(false).unwrap_err();
    assert_eq!(blocking(&findings), ["thread"]);
    assert_eq!(live.run("add 5"), "5", "nothing else has happened");
    let frozen = live.freeze(true).unwrap();
    assert_eq!(blocking(&frozen.findings), ["thread"]);
    assert_eq!(frozen.thaw().run("add 1"), "6");
}

fn a_child_is_in_the_way_unless_it_is_a_helper() {
    let mut live = Host::start();
    live.run("child");
    let findings = live.freeze(false).unwrap_err();
    assert_eq!(blocking(&findings), ["child"]);
    assert!(findings[0].text.contains("cat ("), "{}", findings[0].text);
    live.run("helper");
    assert_eq!(blocking(&live.freeze(false).unwrap().findings), [""; 0]);
    live.run("reap");
    assert_eq!(live.freeze(false).unwrap().thaw().run("add 1"), "1");
}

fn a_checkpoint_is_nobodys_child() {
    let mut live = Host::start();
    live.run("watch");
    let frozen = live.freeze(false).unwrap();
    assert_eq!(live.run("wait"), "no child, 0 signals");
    // Also for a process that looks after orphans.
    live.run("adopt");
    let other = live.freeze(false).unwrap();
    assert_eq!(live.run("wait"), "no child, 0 signals");
    // A child that ended before is still told of.
    live.run("child");
    live.run("end");
    assert_eq!(live.run("wait"), "a child, 1 signals");
    let last = live.freeze(false).unwrap();
    assert!(live.run("wait").starts_with("a child, "), "perhaps it is told of once more");
    for checkpoint in [frozen, other, last] {
        assert_eq!(checkpoint.thaw().run("wait"), "no child, 0 signals");
    }
}

fn what_is_frozen_ends_with_its_host_or_when_told() {
    let mut live = Host::start();
    let alone = live.freeze(false).unwrap();
    let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", alone.pid)).unwrap();
    assert_eq!(score.trim(), FROZEN_OOM_SCORE.to_string());
    alone.close().until_gone();

    let parent = live.freeze(false).unwrap();
    let mut thawed = parent.thaw();
    let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", thawed.pid())).unwrap();
    let ours = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    assert_eq!(score, ours, "a worker is as likely to be ended as ever");
    let pidfd = parent.close();
    assert_eq!(thawed.run("add 1"), "1");
    assert!(!pidfd.is_gone(), "it tells how its worker ends");
    assert_eq!(thawed.shut_down(), Status::Exited(0));
    pidfd.until_gone();

    let dropped = live.freeze(false).unwrap();
    let mut thawed = dropped.thaw();
    dropped.order(&Order::Drop, &[]);
    dropped.close().until_gone();
    assert_eq!(thawed.run("add 1"), "1", "it lives on");
    assert_eq!(live.run("add 1"), "1");
    thawed.cut();
    assert!(thawed.is_at_end(), "but not without a host");
}

fn a_thawed_worker_can_be_frozen_and_survives() {
    let mut live = Host::start();
    live.run("add 1");
    let first = live.freeze(false).unwrap();
    let mut thawed = first.thaw_with(|hello| Hello { survives: true, ..hello });
    assert_eq!(thawed.run("add 1"), "2");
    let second = thawed.freeze(false).unwrap();
    let old = thawed.take_over();
    assert_eq!(thawed.run("add 1"), "3");
    drop((old, live, first));
    let mut third = second.thaw();
    assert_eq!(third.run("add 5"), "7");
    assert_eq!(thawed.run("add 1"), "4");
}

fn what_confines_a_session_is_told_again() {
    let mut live = Host::start_with(|hello| Hello { confined: true, ..hello });
    let told = live.ready().confinement.clone();
    assert!(!told.is_empty());
    let frozen = live.freeze(false).unwrap();
    let thawed = frozen.thaw_with(|hello| Hello { confined: true, ..hello });
    assert_eq!(thawed.ready().confinement, told);
    assert_eq!(thawed.ready().pid, thawed.pid());
    assert_eq!(thawed.ready().banner, "resumed");
    let mut refused = frozen.fork();
    refused.greet(Hello { resumes: false, ..host::greeting() });
    assert!(refused.last_words().contains("for a new one"));
}

fn an_order_without_its_socket_does_no_harm() {
    let mut live = Host::start();
    live.send(Freeze { force: false }, &[]);
    assert!(matches!(live.receive(), Frame::Log(log) if log.text.contains("no socket")));
    assert!(matches!(live.load_without_stream(), Outcome::Declined(reason) if reason.contains("no bundle")));
    // What comes beside other frames does not pile up.
    let (reader, _writer) = std::io::pipe().unwrap();
    let before = live.descriptors();
    for _ in 0..40 {
        live.send_beside(cob_protocol::frame::Ping { number: 1 }, reader.as_fd());
        assert!(matches!(live.receive(), Frame::Pong(_)));
    }
    assert!(live.descriptors() < before + 10);
    assert_eq!(live.freeze(false).unwrap().thaw().run("add 1"), "1");
}

fn a_signal_does_not_change_what_is_frozen() {
    let mut live = Host::start();
    let frozen = live.freeze(false).unwrap();
    for signal in [Signal::INT, Signal::TERM, Signal::URG] {
        kill_process(frozen.process(), signal).unwrap();
    }
    assert_eq!(frozen.thaw().run("add 1"), "1");
}
