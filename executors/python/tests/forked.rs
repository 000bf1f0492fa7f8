//! Sessions that were forked off a zygote: nobody inside shall see a difference to one that was started.
//!
//! With `COB_TEST_IMPORTS` all other tests of this folder run in such sessions as well.
#![cfg(not(feature = "module"))]
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::BTreeSet;
use std::fs;

use cob_protocol::frame::DoneStatus;
use cob_protocol::handshake::LIFELINE_FD;
use support::zygote::{Zygote, surroundings};
use support::{Event, Host, Start, done, pythons, read_text, result, text};

#[track_caller]
fn with_each(imports: &[&str], test: impl Fn(&mut Zygote)) {
    for python in pythons() {
        eprintln!("with {python}");
        test(&mut Zygote::start(&Start { python: &python, ..Start::default() }, imports));
    }
}

#[track_caller]
fn value(host: &mut Host, code: &str) -> String {
    let events = host.run(code);
    result(&events).unwrap_or_else(|| panic!("no result of {code}: {events:#?}"))
}

#[test]
fn two_sessions_share_nothing_that_they_could_notice() {
    with_each(&["random", "uuid", "multiprocessing", "numpy"], |zygote| {
        let (mut one, mut other) = (zygote.session(), zygote.session());
        one.run("mark = 1; import json; json.mark = 1; import os; os.environ['MARK'] = '1'");
        let code =
            "'mark' in globals(), hasattr(__import__('json'), 'mark'), __import__('os').getenv('MARK')";
        assert_eq!(value(&mut other, code), "(False, False, None)");
        for code in [
            "__import__('random').random()",
            "__import__('uuid').uuid4()",
            "__import__('tempfile').mktemp()",
            "bytes(__import__('multiprocessing').current_process().authkey)",
            "try: import numpy.random\nexcept ImportError: numpy = None\n\
             numpy.random.rand() if numpy else id(object)  # without numpy there is nothing to see",
        ] {
            let (left, right) = (value(&mut one, code), value(&mut other, code));
            assert!(left != right || code.starts_with("try:") && !left.contains('.'), "{code}: {left}");
        }
    });
}

#[test]
fn hello_says_where_the_session_is() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("mine.py"), "answer = 42").unwrap();
    let path = fs::canonicalize(folder.path()).unwrap().display().to_string();
    with_each(&["time", "json"], |zygote| {
        let variables = ["MARK=a=b", "TZ=Asia/Kolkata", "PATH=/usr/bin:/bin"];
        let mut host = zygote.session_in(&variables, &path, Some(0o027));
        assert_eq!(value(&mut host, "import mine; mine.answer"), "42");
        assert_eq!(value(&mut host, "import os; os.getcwd(), _dh"), format!("('{path}', ['{path}'])"));
        let names = "{'HOME', 'MARK', 'TERM', 'TZ'} & set(os.environ), os.environ['MARK']";
        assert!(value(&mut host, names).ends_with("'a=b')"));
        assert_eq!(value(&mut host, "'HOME' in os.environ, 'TERM' in os.environ"), "(False, True)");
        assert_eq!(value(&mut host, "import time; time.tzname[0], time.timezone"), "('IST', -19800)");
        assert_eq!(value(&mut host, "oct(os.umask(0))"), "'0o27'");
        // What C code and programs see.
        let events = host.run("os.system('echo $MARK; pwd; echo ${HOME-none}')");
        assert_eq!(text(&events), format!("a=b\n{path}\nnone\n"));
    });
}

#[test]
fn a_folder_that_cannot_be_entered_is_the_end() {
    with_each(&[], |zygote| {
        let mut host = zygote.fork();
        host.hello_with(&surroundings(&["A=1"], "/no/such/folder"), None);
        let words = text(&host.until(|event| *event == Event::End));
        assert!(words.contains("/no/such/folder") && words.lines().count() == 1, "{words}");
        assert_eq!(host.child.wait().unwrap().code(), Some(78));
    });
}

#[test]
fn what_an_import_set_in_the_environment_stays_unless_the_session_sets_it() {
    let folder = tempfile::tempdir().unwrap();
    let module = "import os\nos.environ['OURS'] = '1'\nos.environ.setdefault('THEIRS', '1')";
    fs::write(folder.path().join("ours.py"), module).unwrap();
    for python in pythons() {
        let start = Start { python: &python, modules: Some(folder.path()), ..Start::default() };
        let mut zygote = Zygote::start(&start, &["ours"]);
        let mut host = zygote.session_in(&["THEIRS=2"], "/", None);
        let code = "import os; os.environ['OURS'], os.environ['THEIRS'], os.getenv('PYTHONPATH')";
        assert_eq!(value(&mut host, code), "('1', '2', None)");
    }
}

/// Sockets, pipes and the like that a process has open.
fn open(pid: u32) -> BTreeSet<String> {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let targets = links.filter_map(|link| fs::read_link(link.ok()?.path()).ok());
    targets.map(|target| target.display().to_string()).filter(|name| name.contains(":[")).collect()
}

fn numbers(host: &Host) -> BTreeSet<i32> {
    let fds = fs::read_dir(format!("/proc/{}/fd", host.child.id())).unwrap();
    fds.map(|fd| fd.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
}

#[test]
fn a_worker_holds_no_descriptor_of_its_zygote_or_of_another_worker() {
    with_each(&["json"], |zygote| {
        let (one, mut other, third) = (zygote.session(), zygote.session(), zygote.session());
        let inside = "import os; print(*(os.readlink('/proc/self/fd/' + fd) for fd in os.listdir('/proc/self/fd') \
                      if os.path.exists('/proc/self/fd/' + fd)))";
        let inside = text(&other.run(inside));
        // The harness, too, may have left something open to everybody.
        let own = open(std::process::id());
        let each = [zygote.child.id(), one.child.id(), other.child.id(), third.child.id()].map(open);
        for (index, left) in each.iter().enumerate() {
            assert!(left.len() >= 4, "{left:?}");
            for right in &each[index + 1..] {
                let shared: Vec<_> = left.intersection(right).filter(|name| !own.contains(*name)).collect();
                assert!(shared.is_empty(), "{shared:?}");
            }
        }
        assert!(!inside.contains("signalfd"), "{inside}");
        // The lifeline comes on top, which our other hosts do not have.
        let mut started = Host::spawn(&Start { python: &zygote.python, ..Start::default() });
        started.hello();
        started.until_ready();
        let mut expected = numbers(&started);
        expected.insert(LIFELINE_FD);
        assert_eq!(numbers(&one), expected);
    });
}

/// What can be asked about a session, whoever made it.
const PROBES: &[&str] = &[
    "import sys, os, signal, threading, gc, warnings, resource, builtins, json, asyncio",
    "sys.argv, sys.path, sorted(globals()), __name__",
    "sorted(name for name in dir(builtins) if not name.startswith('_'))",
    "sys.stdout, sys.stderr, sys.stdin, sys.__stdout__ is sys.stdout, sys.displayhook, sys.excepthook",
    "print.__module__, input.__module__, [f.__name__ if isinstance(f, type) else type(f).__name__ for f in sys.meta_path]",
    "signal.pthread_sigmask(signal.SIG_BLOCK, []), signal.sigpending()",
    "[(n, signal.getsignal(n)) for n in sorted(signal.valid_signals())]",
    "open('/proc/self/status').read().split('SigQ')[1].split('CapInh')[0].split('\\n', 1)[1]",
    "resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_CORE)[0]",
    "os.getpgid(0) == os.getpid(), os.umask(0o22), os.getcwd()",
    "gc.isenabled(), gc.get_threshold(), threading.active_count(), threading.current_thread().name",
    "warnings.filters, sys.flags, sys.getrecursionlimit(), sys.gettrace(), sys.getprofile()",
    "threading.get_native_id() == os.getpid(), threading.main_thread().native_id == os.getpid()",
    // Before any of the threads that are started below: one that was joined may be listed for a moment.
    "os.listdir('/proc/self/task').__len__()",
    "In[1:2], Out.keys(), _i, len(_dh), asyncio.get_event_loop_policy().__class__.__name__",
    "asyncio.get_event_loop().is_running(), await asyncio.sleep(0, 'awaited')",
    "task = asyncio.create_task(asyncio.sleep(0, 5)); await task",
    "asyncio.run(asyncio.sleep(0, 6)), os.environ['TERM'], os.environ['PAGER']",
    "1 / 0",
    "import json; json.loads('{')",
    "__import__('subprocess').run(['echo', 'x'], capture_output=True).stdout",
    "p = await asyncio.create_subprocess_exec('sh', '-c', 'exit 3'); await p.wait()",
    "import multiprocessing as m; p = m.get_context('fork').Process(target=print, args=('child',)); p.start(); p.join(); p.exitcode",
    "pid = os.fork()\nif pid == 0: print('in the child', __import__('_cob').is_child(), flush=True)\nelse: print(os.waitpid(pid, 0)[1])",
    "t = threading.Thread(target=print, args=('thread',)); t.start(); t.join()",
    "warnings.warn('careful')",
    "%%capture words\nprint(1)",
    "words.stdout",
    "%pwd",
    "get_ipython()",
];

/// Only what two runs of the same session have in common.
fn stable(text: &str) -> String {
    let mut stable = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("0x") {
        stable.push_str(&rest[..at + 2]);
        rest = rest[at + 2..].trim_start_matches(|c: char| c.is_ascii_hexdigit());
    }
    stable + rest
}

#[test]
fn a_forked_session_answers_as_a_started_one() {
    let modules =
        ["asyncio", "json", "threading", "multiprocessing", "concurrent.futures.thread", "linecache"];
    for python in pythons() {
        let start = Start { python: &python, ..Start::default() };
        let mut started = Host::spawn(&start);
        started.hello();
        started.until_ready();
        let mut zygote = Zygote::start(&start, &modules);
        let mut forked = zygote.session();
        let names = modules.join(", ");
        started.run(&format!(
            "import {names}; del asyncio, json, threading, multiprocessing, concurrent, linecache"
        ));
        forked.run(&format!(
            "import {names}; del asyncio, json, threading, multiprocessing, concurrent, linecache"
        ));
        for probe in PROBES {
            let [left, right] = [&mut started, &mut forked].map(|host| {
                let events = host.run(probe);
                let error = events.iter().find_map(|event| match event {
                    Event::Frame(cob_protocol::frame::Frame::Error(error), _) => {
                        Some(error.traceback.join("\n"))
                    }
                    _ => None,
                });
                let shown = format!("{:?}\n{}\n{:?}", result(&events), text(&events), error);
                stable(&shown.replace(&host.child.id().to_string(), "PID"))
            });
            assert_eq!(left, right, "{python}: {probe}");
        }
    }
}

#[test]
fn forked_code_can_be_interrupted() {
    with_each(&["asyncio", "subprocess"], |zygote| {
        let mut host = zygote.session();
        for code in [
            "print('go')\nwhile True: pass",
            "import time; print('go'); time.sleep(1000)",
            "import asyncio; print('go'); await asyncio.sleep(1000)",
            "import subprocess; print('go'); subprocess.run(['sleep', '1000'])",
        ] {
            let execution = host.execute(code);
            host.until(|event| matches!(event, Event::Text(_, text) if text.ends_with(b"\n")));
            host.interrupt(execution);
            assert_eq!(done(&host.until_done(execution)).status, DoneStatus::Interrupted, "{code}");
            assert_eq!(value(&mut host, "6 * 7"), "42");
        }
    });
}

#[test]
fn the_fifty_first_session_is_as_clean_as_the_first() {
    with_each(&["json"], |zygote| {
        let probe = "import os, sys, gc; sorted(globals()), len(sys.modules), gc.get_count()[2], \
                     len(os.listdir('/proc/self/fd')), sorted(os.environ), len(open('/proc/self/maps').readlines())";
        let first = value(&mut zygote.session(), probe);
        let mut crowd: Vec<_> = (0..50).map(|_| zygote.fork()).collect();
        assert_eq!(value(&mut zygote.session(), probe), first);
        let mut last = crowd.pop().unwrap();
        last.hello();
        last.until_ready();
        assert_eq!(value(&mut last, probe), first);
        let status = read_text(&format!("/proc/{}/status", zygote.child.id()));
        assert!(status.contains("Threads:\t1\n"), "{status}");
    });
}

#[test]
fn matplotlib_and_ipython_of_a_zygote_are_those_of_a_notebook() {
    for python in pythons() {
        let start = Start { python: &python, ..Start::default() };
        let imports = ["matplotlib", "matplotlib.pyplot", "IPython", "numpy", "pandas"];
        let (mut zygote, prepared) = Zygote::prepared(&start, &imports);
        if !prepared.missing.is_empty() {
            continue; // a bare interpreter
        }
        let mut host = zygote.session();
        let shows = |host: &mut Host, code: &str, mime: &str| {
            let events = host.run(code);
            let shown = events.iter().any(|event| match event {
                Event::Frame(frame, _) => format!("{frame:?}").contains(mime),
                _ => false,
            });
            assert!(shown, "{code}: {events:?}");
        };
        shows(&mut host, "import matplotlib.pyplot as plt; _ = plt.plot([1, 2])", "image/png");
        shows(&mut host, "import pandas as pd; pd.DataFrame({'a': [1]})", "text/html");
        assert_eq!(
            value(&mut host, "get_ipython().__class__.__name__, __IPYTHON__"),
            "('ZMQInteractiveShell', True)"
        );
        assert_eq!(text(&host.run("%pwd\n!echo shell")).lines().last(), Some("shell"));
        let mut agg = zygote.session_in(&["MPLBACKEND=svg", "HOME=/nowhere"], "/", None);
        assert_eq!(value(&mut agg, "import matplotlib; matplotlib.get_backend()"), "'svg'");
    }
}
