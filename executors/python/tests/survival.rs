//! A session whose server dies and comes back: Python notices nothing.
#![cfg(not(feature = "module"))]
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod support;

use cob_protocol::frame::{Attached, DoneStatus, Frame, Outcome};
use cob_protocol::json::Json;
use support::{Event, Host, Start, done, pythons, result, text};

fn with_each_surviving(test: impl Fn(Host)) {
    for python in pythons() {
        eprintln!("-- {python}");
        test(Host::start_surviving(&Start { python: &python, ..Start::default() }));
    }
}

fn works_on(host: &mut Host) {
    assert_eq!(result(&host.run("6 * 7")).as_deref(), Some("42"));
}

/// Numbers that were displayed.
fn displayed(events: &[Event]) -> Vec<u64> {
    let texts = events.iter().filter_map(|event| match event {
        Event::Frame(Frame::Display(display), payloads) => {
            let plain = display.data.iter().position(|mime| mime.mime == "text/plain").unwrap();
            Some(String::from_utf8_lossy(&payloads[plain]).parse().unwrap())
        }
        _ => None,
    });
    texts.collect()
}

#[test]
fn an_idle_session_goes_over_to_the_next_host_also_from_its_event_loop() {
    with_each_surviving(|mut host| {
        let _first = host.take_over();
        assert_eq!(host.until_attached(), Attached { received: 1, execution: 0, call: None });
        works_on(&mut host);
        // From here on the loop waits for the socket, and a task of an earlier cell goes on in it.
        host.run("import asyncio, os\nr, w = os.pipe()\nloop = asyncio.get_event_loop()");
        host.run(
            "loop.add_reader(r, lambda: (os.read(r, 1), display(len(os.listdir('/proc/self/fd')) > 0)))",
        );
        for _ in 0..3 {
            let _old = host.take_over();
            host.until_attached();
            let execution = host.execute("os.write(w, b'x')");
            host.until_done(execution);
            let late = host.until(|event| matches!(event, Event::Frame(Frame::Display(_), _)));
            assert_eq!(text(&late), "");
            works_on(&mut host);
        }
    });
}

#[test]
fn a_question_gets_its_answer_from_the_next_host() {
    with_each_surviving(|mut host| {
        let execution = host.execute("answer = input('? ')\nanswer");
        let events = host.until(|event| matches!(event, Event::Frame(Frame::Call(_), _)));
        let Some(Event::Frame(Frame::Call(call), _)) = events.last() else { panic!("{events:?}") };
        let mut olds = Vec::new();
        for _ in 0..3 {
            olds.push(host.take_over());
            let attached = host.until_attached();
            assert_eq!((attached.execution, attached.call), (execution, Some(call.request)));
        }
        host.answer(call.request, Outcome::Value(Json::of(&"fine").unwrap()));
        let events = host.until_done(execution);
        assert_eq!(result(&events).as_deref(), Some("'fine'"));
    });
}

#[test]
fn code_that_shows_and_prints_goes_on_while_hosts_change() {
    with_each_surviving(|mut host| {
        let execution = host.execute("for i in range(3000):\n    display(i)\n    print(i)");
        let (mut seen, mut olds) = (Vec::new(), Vec::new());
        while seen.len() < 2000 {
            seen.push(host.event());
            if seen.len() % 200 == 0 {
                // What was read and not looked at is seen as recorded, by this host.
                olds.push(host.take_over());
                host.until_attached();
                host.acknowledge();
            }
        }
        seen.extend(host.until_done(execution));
        assert_eq!(done(&seen).status, DoneStatus::Ok);
        assert_eq!(displayed(&seen), (0..3000).collect::<Vec<_>>());
        assert_eq!(text(&seen), (0..3000).map(|i| format!("{i}\n")).collect::<String>());
    });
}

#[test]
fn a_thread_that_shows_while_the_main_one_sleeps_finds_the_next_host() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
    let code = format!(
        "import threading\ndef show():\n    for i, line in enumerate(open({fifo:?})): display(i)\n\
         thread = threading.Thread(target=show)\nthread.start()\nprint('ready')\nthread.join()"
    );
    with_each_surviving(|mut host| {
        let execution = host.execute(&code);
        host.until(|event| matches!(event, Event::Text(_, text) if text.ends_with(b"ready\n")));
        let _old = host.take_over();
        std::fs::write(&fifo, "one\ntwo\nthree\n").unwrap();
        let events = host.until_done(execution);
        assert_eq!(displayed(&events), [0, 1, 2]);
        assert_eq!(host.until_attached().execution, execution);
    });
}

#[test]
fn a_thread_floods_an_idle_session_while_hosts_change() {
    const CODE: &str = "import threading
def show():
    for i in range(3000): display(i)
threading.Thread(target=show).start()";
    with_each_surviving(|mut host| {
        for imports in ["", "import asyncio"] {
            host.run(imports);
            let execution = host.execute(CODE);
            let mut seen = host.until_done(execution);
            while displayed(&seen).len() < 3000 {
                seen.push(host.event());
                if seen.len() % 500 == 0 {
                    let old = host.take_over();
                    host.until_attached();
                    // The thread may have found the new socket: closing the old one wakes the main thread.
                    drop(old);
                    host.acknowledge();
                }
            }
            assert_eq!(displayed(&seen), (0..3000).collect::<Vec<_>>());
            works_on(&mut host);
        }
    });
}

#[test]
fn a_new_socket_comes_in_even_if_code_has_used_up_all_descriptors() {
    const CODE: &str = "import os, resource
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
fds = []
try:
    while True: fds.append(os.dup(0))
except OSError: pass
len(fds) > 50";
    with_each_surviving(|mut host| {
        for _ in 0..3 {
            assert_eq!(result(&host.run(CODE)).as_deref(), Some("True"));
            let _old = host.take_over();
            host.until_attached();
            host.run("for fd in fds: os.close(fd)");
        }
    });
}

#[test]
fn a_session_whose_server_and_custodian_are_gone_ends_quietly() {
    const CODES: &[&str] = &[
        "print('ready')",
        "import asyncio\nprint('ready')",
        "print('ready')\ninput()",
        "print('ready')\nwhile True: display('x' * 10000)",
    ];
    for code in CODES {
        with_each_surviving(|mut host| {
            host.execute(code);
            host.until(|event| matches!(event, Event::Text(_, text) if text.starts_with(b"ready")));
            let old = host.take_over();
            host.until_attached();
            drop(old);
            host.hang_up();
            assert_eq!(host.child.wait().unwrap().code(), Some(0), "{code}");
        });
    }
}
