//! How a worker starts, what it looks like from outside, and how it ends.
#![cfg(not(feature = "module"))]
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod support;

use std::fs;

use cob_protocol::frame::{DoneStatus, Frame, Ping, Pong};
use cob_protocol::handshake::VERSIONS;
use support::{Event, Host, Start, done, installed, pythons, result, text, with_each};

#[test]
fn a_worker_introduces_itself_and_computes() {
    with_each(|host| {
        let ready = host.ready.clone().unwrap();
        assert_eq!((ready.versions, ready.pid), (VERSIONS, host.child.id()));
        assert!(ready.language_info.as_str().contains("\"python\""), "{ready:?}");
        let events = host.run("1+1");
        assert_eq!(result(&events).as_deref(), Some("2"));
        assert_eq!(done(&events).status, DoneStatus::Ok);
    });
}

#[test]
fn an_interpreter_that_cannot_be_used_says_so_in_one_line() {
    for python in installed(&["2.7", "3.6", "3.7", "3.8", "3.9"]) {
        let mut host = Host::spawn(&Start { python: &python, ..Start::default() });
        let events = host.until(|event| *event == Event::End);
        let text = text(&events);
        assert!(text.contains("CPython 3.10 or newer is needed") && text.contains(&python), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert_eq!(host.child.wait().unwrap().code(), Some(78));
    }
}

#[test]
fn the_bootstrap_leaves_no_trace_in_the_users_namespace() {
    with_each(|host| {
        let events =
            host.run("import sys; sys.argv, sys.path[0], {'start', 'SOURCES', 'sources'} & set(globals())");
        assert_eq!(result(&events).as_deref(), Some("([''], '', set())"));
    });
}

#[test]
fn modules_of_the_working_folder_can_be_imported_but_do_not_disturb_the_start() {
    let folder = tempfile::tempdir().unwrap();
    for trap in ["traceback.py", "json.py", "ast.py", "selectors.py", "signal.py"] {
        fs::write(folder.path().join(trap), "raise RuntimeError('shadowed')").unwrap();
    }
    fs::write(folder.path().join("mine.py"), "answer = 42").unwrap();
    for python in pythons() {
        let mut host =
            Host::start(&Start { python: &python, folder: Some(folder.path()), ..Start::default() });
        assert_eq!(result(&host.run("import mine; mine.answer")).as_deref(), Some("42"), "{python}");
    }
}

#[test]
fn a_worker_has_one_thread_and_keeps_its_descriptors_out_of_the_way() {
    with_each(|host| {
        host.run("1+1");
        let process = format!("/proc/{}", host.child.id());
        assert_eq!(fs::read_dir(format!("{process}/task")).unwrap().count(), 1);
        // Others may be inherited from whoever runs the tests.
        let ours = |fd: i32| {
            let target = fs::read_link(format!("{process}/fd/{fd}")).unwrap_or_default();
            let target = target.to_string_lossy().into_owned();
            target.starts_with("socket:") || target.starts_with("/memfd:cob")
        };
        assert!((0..64).all(|fd| !ours(fd)));
        assert_eq!((64..70).filter(|fd| ours(*fd)).count(), 1, "only the socket; the page is mapped");
        let events = host.run(
            "import subprocess; print(subprocess.run(['ls', '-l', '/proc/self/fd'], close_fds=False, \
             capture_output=True, text=True).stdout)",
        );
        let text = text(&events);
        assert!(text.contains("0 -> /dev/null") && !text.contains("socket:"), "{text}");
        assert!(!text.contains("memfd") && !text.contains(" 66 ->") && !text.contains(" 67 ->"), "{text}");
    });
}

#[test]
fn a_ping_is_answered_while_nothing_runs() {
    with_each(|host| {
        host.send(Ping { number: 7 }, &[]);
        assert_eq!(host.event(), Event::Frame(Frame::Pong(Pong { number: 7 }), vec![]));
    });
}

#[test]
fn shutdown_runs_exit_hooks_and_loses_no_output() {
    for python in pythons() {
        let mut host = Host::start(&Start { python: &python, ..Start::default() });
        host.run("import atexit; atexit.register(print, 'bye')");
        let (status, events) = host.shutdown();
        assert_eq!(text(&events), "bye\n", "{python}");
        assert!(status.success(), "{status}");
    }
}

#[test]
fn a_worker_without_a_host_ends() {
    with_each(|host| {
        host.hang_up();
        assert_eq!(host.child.wait().unwrap().code(), Some(0));
    });
}

#[test]
fn a_worker_that_prints_without_a_host_ends() {
    with_each(|host| {
        let execution = host.execute("print('go')\nwhile True: print('x' * 1000)");
        host.until(|event| matches!(event, Event::Text(..)));
        assert_eq!(execution, 1);
        host.hang_up();
        assert_eq!(host.child.wait().unwrap().code(), Some(0));
    });
}

#[test]
fn the_python_half_can_be_read_from_a_folder_and_its_failure_is_told() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("__init__.py"), "").unwrap();
    fs::write(
        folder.path().join("engine.py"),
        "def start(options, in_folder):\n    raise RuntimeError('no way')\n",
    )
    .unwrap();
    for python in pythons() {
        let start = Start { python: &python, sources: Some(folder.path()), ..Start::default() };
        let mut host = Host::spawn(&start);
        host.hello();
        let text = text(&host.until(|event| *event == Event::End));
        assert!(text.contains("cannot be set up") && text.contains("no way"), "{text}");
        assert_eq!(host.child.wait().unwrap().code(), Some(78));
    }
}

#[test]
fn an_exception_of_the_engine_is_an_outcome_and_not_the_end() {
    const ENGINE: &str = "
def start(options, in_folder): return '{}', ''
def execute(code, *rest):
    if code == 'interrupt': raise KeyboardInterrupt
    if code == 'status': return 'fine', '{}', '[]'
    if code == 'json': return 'ok', '{', '[]'
    raise RuntimeError('a defect')
def complete(code, cursor): raise RuntimeError('another')
def shutdown(restart): raise RuntimeError('the last')
";
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("__init__.py"), "").unwrap();
    fs::write(folder.path().join("engine.py"), ENGINE).unwrap();
    for python in pythons() {
        let mut host =
            Host::start(&Start { python: &python, sources: Some(folder.path()), ..Start::default() });
        for (code, status, ename) in [
            ("x", DoneStatus::Error, "RuntimeError"),
            ("interrupt", DoneStatus::Interrupted, "KeyboardInterrupt"),
            ("status", DoneStatus::Error, "ValueError"),
            ("json", DoneStatus::Error, "ValueError"),
        ] {
            let events = host.run(code);
            assert_eq!(done(&events).status, status, "{code}");
            assert!(
                events
                    .iter()
                    .any(|event| matches!(event, Event::Frame(Frame::Error(e), _) if e.ename == ename)),
                "{events:?}"
            );
        }
        let (status, events) = host.shutdown();
        assert!(matches!(&events[0], Event::Frame(Frame::Log(log), _) if log.text.contains("the last")));
        assert!(status.success());
    }
}
