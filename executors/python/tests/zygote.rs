//! A zygote: how it gets ready, and what becomes known of its workers.
#![cfg(not(feature = "module"))]
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod support;

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use cob_protocol::frame::DoneStatus;
use cob_protocol::handshake::VERSIONS;
use cob_protocol::zygote::{Order, Report, Status};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use support::zygote::Zygote;
use support::{Event, Host, Start, done, pythons, result, text};

#[track_caller]
fn with_each(imports: &[&str], test: impl Fn(&mut Zygote)) {
    for python in pythons() {
        eprintln!("with {python}");
        test(&mut Zygote::start(&Start { python: &python, ..Start::default() }, imports));
    }
}

/// Zygotes that can import a module of our own.
#[track_caller]
fn with_module(text: &str, test: impl Fn(&Start<'_>)) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("ours.py"), text).unwrap();
    for python in pythons() {
        eprintln!("with {python}");
        test(&Start { python: &python, modules: Some(folder.path()), ..Start::default() });
    }
}

fn importing(module: &str) -> Report {
    Report::Importing { module: module.to_owned() }
}

/// Starts code and waits until it says something.
fn begin(host: &mut Host, code: &str) -> String {
    host.execute(code);
    text(&host.until(|event| matches!(event, Event::Text(_, text) if text.ends_with(b"\n"))))
}

fn await_death(pidfd: impl AsFd) {
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None).unwrap();
}

#[test]
fn a_forked_worker_is_a_session_with_its_output_in_order() {
    with_each(&["json"], |zygote| {
        let mut host = zygote.session();
        let ready = host.ready.clone().unwrap();
        assert_eq!((ready.versions, ready.pid), (VERSIONS, host.child.id()));
        let code = "import os, sys\nprint('a'); os.write(1, b'b\\n'); sys.stdout.write('c\\n'); 6 * 7";
        let events = host.run(code);
        assert_eq!(text(&events), "a\nb\nc\n");
        assert_eq!(result(&events).as_deref(), Some("42"));
        assert_eq!(done(&events).status, DoneStatus::Ok);
        let (status, _) = host.shutdown();
        assert!(status.success(), "{status}");
    });
}

#[test]
fn a_module_that_cannot_be_imported_is_named_and_left_out() {
    with_module("raise SystemExit('not\\ntoday')", |start| {
        let imports = ["json", "no_such_module", "ours", "random"];
        let (mut zygote, prepared) = Zygote::prepared(start, &imports);
        assert_eq!(prepared.imported, ["json", "random"]);
        let missing: Vec<_> =
            prepared.missing.iter().map(|m| (m.module.as_str(), m.reason.as_str())).collect();
        let no_module = "ModuleNotFoundError: No module named 'no_such_module'";
        assert_eq!(missing, [("no_such_module", no_module), ("ours", "SystemExit: not today")]);
        assert!(prepared.executor.starts_with("cob-python "), "{}", prepared.executor);
        assert_eq!(result(&zygote.session().run("6 * 7")).as_deref(), Some("42"));
    });
}

#[test]
fn a_module_that_starts_a_thread_makes_the_zygote_unfit() {
    let module = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()";
    with_module(module, |start| {
        let mut zygote = Zygote::spawn(start);
        let reports = zygote.prepare(&["json", "ours", "random"]);
        assert_eq!(reports[..2], [importing("json"), importing("ours")]);
        match &reports[2..] {
            [Report::Unfit { module: Some(module), reason }] => {
                assert!(module == "ours" && reason.contains("thread"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(zygote.wait().code(), Some(78));
        assert!(zygote.last_words().contains("ours"));
    });
}

#[test]
fn a_module_that_forks_makes_no_second_zygote() {
    with_module("import os, sys\nif os.fork(): os.wait(); sys.exit('the parent')", |start| {
        let (mut zygote, prepared) = Zygote::prepared(start, &["ours"]);
        assert_eq!(prepared.missing[0].reason, "SystemExit: the parent");
        assert_eq!(result(&zygote.session().run("6 * 7")).as_deref(), Some("42"));
    });
}

#[test]
fn a_thread_that_a_module_has_joined_does_no_harm() {
    let module =
        "import threading\nfor _ in range(20):\n    t = threading.Thread(target=int); t.start(); t.join()";
    with_module(module, |start| {
        assert_eq!(Zygote::prepared(start, &["ours"]).1.imported, ["ours"]);
    });
}

#[test]
fn the_last_module_named_is_to_blame_for_the_death_of_a_zygote() {
    with_module("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", |start| {
        let mut zygote = Zygote::spawn(start);
        assert_eq!(zygote.prepare(&["json", "ours", "random"]), [importing("json"), importing("ours")]);
        assert_eq!(zygote.wait().signal(), Some(Signal::SEGV.as_raw()));
    });
}

#[test]
fn what_a_module_prints_is_the_zygotes_own_and_its_streams_are_the_sessions() {
    let module = "import sys\nprint('at import')\nsys.stderr.write('too\\n')\nstream = sys.stdout";
    with_module(module, |start| {
        let (mut zygote, prepared) = Zygote::prepared(start, &["ours"]);
        assert_eq!(prepared.imported, ["ours"], "{:?}", prepared.missing);
        assert_eq!(text(&zygote.session().run("import ours; _ = ours.stream.write('later')")), "later");
        zygote.close();
        assert!(zygote.wait().success());
        assert_eq!(zygote.last_words(), "at import\ntoo\n");
    });
}

#[test]
fn stops_and_ends_of_a_worker_are_told() {
    with_each(&[], |zygote| {
        let mut host = zygote.session();
        kill_process(host.child.pid(), Signal::STOP).unwrap();
        assert_eq!(host.child.forked().status(), Some(Status::Stopped(Signal::STOP.as_raw())));
        kill_process(host.child.pid(), Signal::CONT).unwrap();
        assert_eq!(host.child.forked().status(), Some(Status::Continued));
        host.execute("import os; os._exit(3)");
        assert!(matches!(host.child.forked().status(), Some(Status::Used(_))));
        assert_eq!(host.child.forked().status(), Some(Status::Exited(3)));
        assert_eq!(host.child.forked().status(), None);
        let mut host = zygote.session();
        kill_process(host.child.pid(), Signal::KILL).unwrap();
        assert!(matches!(host.child.forked().status(), Some(Status::Used(_))));
        assert_eq!(host.child.forked().status(), Some(Status::Killed(9)));
        assert_eq!(host.child.forked().status(), None);
    });
}

#[test]
fn a_reader_of_statuses_that_sleeps_harms_nobody() {
    with_each(&[], |zygote| {
        let mut host = zygote.session();
        // The smallest pipe there is, so that it is full soon.
        rustix::pipe::fcntl_setpipe_size(&host.child.forked().status, 1).unwrap();
        for _ in 0..600 {
            // Each change has to be seen before the next one, or the system would report one of them only.
            kill_process(host.child.pid(), Signal::STOP).unwrap();
            await_state(&host, 'T');
            kill_process(host.child.pid(), Signal::CONT).unwrap();
            await_state(&host, 'S');
        }
        assert_eq!(result(&host.run("6 * 7")).as_deref(), Some("42"));
        assert_eq!(result(&zygote.session().run("6 * 7")).as_deref(), Some("42"));
    });
}

fn await_state(host: &Host, state: char) {
    let path = format!("/proc/{}/stat", host.child.id());
    let has_state = || fs::read_to_string(&path).unwrap().contains(&format!(") {state} "));
    while !has_state() {
        std::thread::yield_now();
    }
}

#[test]
fn what_a_dead_worker_leaves_behind_goes_with_it() {
    with_each(&[], |zygote| {
        let mut host = zygote.session();
        let code = "import subprocess\nprint(subprocess.Popen(['sleep', '1000']).pid)";
        let pid: i32 = begin(&mut host, code).trim().parse().unwrap();
        let left_behind = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
        kill_process(host.child.pid(), Signal::KILL).unwrap();
        await_death(left_behind);
        assert_eq!(host.child.wait().unwrap().signal(), Some(9));
    });
}

#[test]
fn a_worker_whose_lifeline_is_cut_dies_whatever_it_does() {
    with_each(&[], |zygote| {
        let mut busy = zygote.session();
        begin(&mut busy, "print('go')\nwhile True: pass");
        let mut parked = zygote.fork();
        for host in [&mut busy, &mut parked] {
            host.child.forked().lifeline = None;
            assert_eq!(host.child.wait().unwrap().signal(), Some(9));
            await_death(&host.child.forked().pidfd);
        }
        assert_eq!(result(&zygote.session().run("6 * 7")).as_deref(), Some("42"));
    });
}

#[test]
fn a_zygote_without_a_host_leaves_after_its_last_worker() {
    with_each(&[], |zygote| {
        let mut host = zygote.session();
        zygote.close();
        assert_eq!(result(&host.run("6 * 7")).as_deref(), Some("42"));
        assert!(zygote.child.try_wait().unwrap().is_none());
        assert!(host.shutdown().0.success());
        assert!(zygote.wait().success());
        assert_eq!(zygote.last_words(), "");
    });
    with_each(&[], |zygote| {
        zygote.close();
        assert!(zygote.wait().success());
    });
}

#[test]
fn a_host_that_breaks_the_contract_ends_the_zygote() {
    let end = Path::new("/dev/null");
    with_each(&[], |zygote| {
        let null = fs::File::open(end).unwrap();
        zygote.order(&Order::Fork { number: 1 }, &[null.as_fd(), null.as_fd()]);
        assert_eq!(zygote.report().map(|(report, _)| report), None);
        assert_eq!(zygote.wait().code(), Some(76));
        assert!(zygote.last_words().contains("2 descriptors"));
    });
    for python in pythons() {
        let mut zygote = Zygote::spawn(&Start { python: &python, ..Start::default() });
        zygote.order(&Order::Fork { number: 1 }, &[]);
        assert_eq!(zygote.wait().code(), Some(76));
    }
}
