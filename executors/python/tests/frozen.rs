//! Python sessions that are frozen, and what goes on from them.
#![cfg(not(feature = "module"))]
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod support;

use std::fs;

use bytes::Bytes;
use cob_protocol::checkpoint::Finding;
use cob_protocol::frame::{DoneStatus, Unfreeze};
use support::{Event, Host, Start, done, pythons, result, text, with_each};

#[track_caller]
fn value(host: &mut Host, code: &str) -> String {
    let events = host.run(code);
    result(&events).unwrap_or_else(|| panic!("no result of {code}: {events:#?}"))
}

/// Kinds of findings. The harness may have left pipes open to everybody.
fn kinds(findings: &[Finding], blocks: bool) -> Vec<&str> {
    let kinds =
        findings.iter().filter(|finding| finding.blocks == blocks).map(|finding| finding.kind.as_str());
    kinds.filter(|kind| *kind != "pipe").collect()
}

#[test]
fn every_worker_of_a_checkpoint_goes_on_from_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = fs::canonicalize(folder.path()).unwrap().display().to_string();
    with_each(|host| {
        host.run(&format!("import os; os.chdir({path:?}); os.environ['MARK'] = 'a'; x = [1]; y = x"));
        host.run("def f(): return x, os.getcwd(), os.environ['MARK']");
        let frozen = host.freeze(false).unwrap();
        assert_eq!(kinds(&frozen.findings, true), [""; 0]);
        assert_eq!(kinds(&frozen.findings, false), [""; 0], "{:?}", frozen.findings);
        host.run("x.append(2); os.chdir('/'); os.environ['MARK'] = 'b'; del f");
        let (mut one, mut other) = (frozen.thaw(), frozen.thaw());
        let before = format!("([1], '{path}', 'a')");
        assert_eq!(value(&mut one, "f()"), before);
        assert_eq!(value(&mut one, "x.append(3); y is x, y"), "(True, [1, 3])");
        assert_eq!(value(&mut other, "f()"), before);
        assert_eq!(value(host, "x, os.getcwd(), os.environ['MARK']"), "([1, 2], '/', 'b')");
        // It differs from its siblings where it must.
        let random = "import random, uuid; random.random(), uuid.uuid4()";
        assert_ne!(value(&mut one, random), value(&mut other, random));
        assert_ne!(value(&mut one, "os.getpid()"), value(&mut other, "os.getpid()"));
        assert_eq!(value(&mut one, "os.getpid() == __import__('threading').main_thread().native_id"), "True");
        for mut host in [one, other] {
            assert_eq!(text(&host.run("print('still here')")), "still here\n");
            assert!(host.shutdown().0.success());
        }
        host.send(Unfreeze {}, &[]);
        assert_eq!(value(host, "import gc; gc.get_freeze_count()"), "0");
    });
}

#[test]
fn nothing_of_the_workers_own_is_told_as_shared() {
    for python in pythons() {
        let mut host = Host::start_surviving(&Start { python: &python, ..Start::default() });
        // Also when its socket was replaced, and in a worker that came of a checkpoint.
        let old = host.take_over();
        host.until_attached();
        drop(old);
        let frozen = host.freeze(false).unwrap();
        assert_eq!(kinds(&frozen.findings, false), [""; 0], "{:?}", frozen.findings);
        let mut thawed = frozen.thaw();
        let again = thawed.freeze(false).unwrap();
        assert_eq!(kinds(&again.findings, false), [""; 0], "{:?}", again.findings);
    }
}

#[test]
fn a_branch_gets_its_own_variables_and_directory() {
    let folder = tempfile::tempdir().unwrap();
    let path = fs::canonicalize(folder.path()).unwrap().display().to_string();
    with_each(|host| {
        host.run("import os; os.environ['KEPT'] = 'kept'; os.environ['TMPDIR'] = '/tmp'");
        let frozen = host.freeze(false).unwrap();
        let surroundings = [Bytes::from("TMPDIR=/var/tmp\0NEW=1\0"), Bytes::from(path.clone())];
        let mut branch = frozen.thaw_in(&surroundings);
        let code = "[os.environ.get(name) for name in ('KEPT', 'TMPDIR', 'NEW')], os.getcwd()";
        assert_eq!(value(&mut branch, code), format!("(['kept', '/var/tmp', '1'], '{path}')"));
        let mut same = frozen.thaw_in(&[Bytes::from("NEW=2\0"), Bytes::new()]);
        let ours = value(host, "os.getcwd()");
        assert_eq!(value(&mut same, "os.environ['NEW'], os.getcwd()"), format!("('2', {ours})"));
    });
}

#[test]
fn output_goes_where_it_went_for_the_new_host() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().display().to_string();
    with_each(|host| {
        file.as_file().set_len(0).unwrap();
        host.run(&format!(
            "import os; saved = os.dup(1); os.dup2(os.open({path:?}, os.O_WRONLY | os.O_APPEND), 1)"
        ));
        let frozen = host.freeze(false).unwrap();
        let mut thawed = frozen.thaw();
        assert_eq!(text(&thawed.run("os.system('echo into the file'); None")), "");
        assert_eq!(fs::read_to_string(&path).unwrap(), "into the file\n");
        // What was put aside is the new host's, as is what a child prints now.
        assert_eq!(
            text(
                &thawed.run("os.write(saved, b'aside\\n'); os.dup2(saved, 1); os.system('echo back'); None")
            ),
            "aside\nback\n"
        );
        assert_eq!(text(&host.run("os.write(saved, b'aside\\n'); None")), "aside\n");
    });
}

#[test]
fn tasks_and_signal_handlers_go_on_in_every_worker() {
    with_each(|host| {
        host.run(
            "import asyncio, os, signal\nticks = 0; seen = []\n\
             async def tick():\n    global ticks\n    while True:\n        await asyncio.sleep(0.001); ticks += 1\n\
             task = asyncio.create_task(tick())\n\
             signal.signal(signal.SIGUSR1, lambda *_: seen.append(os.getpid()))\n\
             asyncio.get_event_loop().add_signal_handler(signal.SIGUSR2, lambda: seen.append('loop'))",
        );
        let frozen = host.freeze(false).unwrap();
        assert_eq!(kinds(&frozen.findings, true), [""; 0]);
        assert_eq!(kinds(&frozen.findings, false), ["task"], "{:?}", frozen.findings);
        host.run("signal.alarm(1000)");
        assert_eq!(kinds(&host.freeze(false).unwrap().findings, false), ["task", "alarm"]);
        let mut thawed = frozen.thaw();
        for host in [&mut thawed, host] {
            assert_eq!(
                value(
                    host,
                    "before = ticks\nwhile ticks < before + 5: await asyncio.sleep(0.001)\nticks >= 5"
                ),
                "True"
            );
            assert_eq!(value(host, "os.kill(os.getpid(), signal.SIGUSR1); seen == [os.getpid()]"), "True");
            let code = "os.kill(os.getpid(), signal.SIGUSR2)\nwhile 'loop' not in seen: await asyncio.sleep(0.001)\nseen[1:]";
            assert_eq!(value(host, code), "['loop']");
            assert_eq!(value(host, "task.cancel()"), "True");
        }
        // An interrupt reaches the one it is for.
        let execution = thawed.execute("print('on')\nimport time; time.sleep(1000)");
        thawed.until(|event| matches!(event, Event::Text(..)));
        thawed.interrupt(execution);
        let events = thawed.until_done(execution);
        assert_eq!(done(&events).status, DoneStatus::Interrupted);
        assert_eq!(value(host, "1 + 1"), "2");
    });
}

#[test]
fn a_forked_child_of_a_thawed_worker_is_inert() {
    with_each(|host| {
        let frozen = host.freeze(false).unwrap();
        let mut thawed = frozen.thaw();
        let code = "import os\npid = os.fork()\nif not pid: print('child'); display(1); os._exit(7)\n\
                    os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])";
        let events = thawed.run(code);
        assert_eq!((text(&events).as_str(), result(&events).as_deref()), ("child\n1\n", Some("7")));
        assert_eq!(value(&mut thawed, "_cob.is_child() if (_cob := __import__('_cob')) else 0"), "False");
    });
}

#[test]
fn threads_and_children_are_in_the_way_unless_forced() {
    with_each(|host| {
        host.run(
            "import threading; stop = threading.Event(); t = threading.Thread(target=stop.wait); t.start()",
        );
        assert_eq!(kinds(&host.freeze(false).unwrap_err(), true), ["thread"]);
        let forced = host.freeze(true).unwrap();
        assert_eq!(value(&mut forced.thaw(), "t.is_alive(), 6 * 7"), "(False, 42)");
        host.run("stop.set(); t.join()");
        host.run("import subprocess; p = subprocess.Popen(['cat'], stdin=subprocess.PIPE)");
        assert_eq!(kinds(&host.freeze(false).unwrap_err(), true), ["child"]);
        host.run("p.communicate()");
        let frozen = host.freeze(false).unwrap();
        assert_eq!(
            value(host, "import os\ntry: os.wait()\nexcept ChildProcessError: r = 'nobody'\nr"),
            "'nobody'"
        );
        assert_eq!(value(&mut frozen.thaw(), "p.returncode"), "0");
    });
}

#[test]
fn hooks_of_a_fork_run_once_and_reach_no_host() {
    with_each(|host| {
        host.run(
            "import os; calls = []\n\
             os.register_at_fork(before=lambda: (calls.append('b'), display(1)), after_in_parent=lambda: calls.append('p'),\n\
             after_in_child=lambda: (calls.append('c'), display(2)))",
        );
        let frozen = host.freeze(false).unwrap();
        assert_eq!(value(host, "''.join(calls)"), "'bp'");
        assert_eq!(value(&mut frozen.thaw(), "''.join(calls)"), "'bcbc'");
        assert_eq!(value(&mut frozen.thaw(), "''.join(calls)"), "'bcbpbc'", "the second one of the same");
    });
}
