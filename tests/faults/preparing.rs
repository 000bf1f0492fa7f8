//! What a zygote may meet while it gets ready: interpreters that are none, modules that are broken. Whatever can be
//! left out is left out, with its reason, and kernels start.

use std::path::Path;

use cob_tests::kernel::Setup;
use cob_tests::process;
use cob_tests::server::{ServerSetup, TestServer};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

/// A folder with a module of this text.
fn module(name: &str, text: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(format!("{name}.py")), text).unwrap();
    folder
}

/// A server that was to import these modules, one of them from this folder.
fn server(modules: &TempDir, imports: &str) -> ServerSetup {
    ServerSetup::new()
        .imports(imports)
        .spares(1)
        .env("PYTHONPATH", modules.path())
        .env("PYTHONDONTWRITEBYTECODE", "1")
}

/// The reason why `module` is not imported, from the list `list`.
#[track_caller]
fn reason(info: &Value, list: &str, module: &str) -> String {
    let problems = info["environments"][0]["imports"][list].as_array().unwrap();
    let problem = problems.iter().find(|problem| problem["module"] == module);
    problem.unwrap_or_else(|| unreachable!("{module} is not {list}: {info:#}"))["reason"]
        .as_str()
        .unwrap()
        .to_owned()
}

async fn starts_warm(server: &TestServer, imported: &str) {
    let kernel = server.kernel().await;
    assert_eq!(kernel.worker_from(0).await.1, "Warm");
    let mut client = kernel.client().await;
    assert_eq!(client.run(&format!("import sys; {imported:?} in sys.modules")).await.ok().result(), "True");
}

#[tokio::test]
async fn a_module_that_is_missing_or_raises_is_listed_with_its_reason() {
    for (text, said) in [
        ("raise RuntimeError('not today')", "not today"),
        ("import nothing_of_this_name", "nothing_of_this_name"),
        ("raise SystemExit(3)", "SystemExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("def broken(:", "SyntaxError"),
        ("raise RuntimeError('x' * 1000000)", "RuntimeError"),
        ("raise RuntimeError('\\ud800 \\0')", "Error"),
    ] {
        let modules = module("fragile", text);
        let server = server(&modules, "fragile,absent.entirely,colorsys").start().await;
        let info = server.info();
        assert!(reason(&info, "missing", "fragile").contains(said), "{text}: {info:#}");
        assert!(reason(&info, "missing", "absent.entirely").contains("absent"), "{info:#}");
        starts_warm(&server, "colorsys").await;
    }
}

#[tokio::test]
async fn a_module_that_makes_forking_impossible_is_left_out_with_its_reason() {
    for (text, said) in [
        ("import os; os.abort()", "SIGABRT"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
        ("import os; os._exit(0)", "exited with status 0"),
        ("import os; os.write(2, b'out of licenses'); os._exit(9)", "out of licenses"),
        ("import os; os.closerange(3, 1000); os.abort()", "SIGABRT"),
        (
            "import threading, time; threading.Thread(target=time.sleep, args=(1e6,), daemon=True).start()",
            "thread",
        ),
    ] {
        let modules = module("numpy", text);
        let server = server(&modules, "numpy,colorsys").start().await;
        let info = server.info();
        assert!(reason(&info, "left_out", "numpy").contains(said), "{text}: {info:#}");
        let shown = server.output(&["info"]);
        assert!(String::from_utf8_lossy(&shown.stdout).contains("without  numpy: "), "{shown:?}");
        starts_warm(&server, "colorsys").await;
    }
}

#[tokio::test]
async fn a_module_that_is_only_ill_mannered_harms_no_session() {
    const TEXT: &str = "\
import atexit, os, signal, subprocess, sys
print('x' * 3_000_000)
sys.stderr.write('y' * 3_000_000)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD, signal.SIGTERM])
os.umask(0)
os.chdir('/tmp')
subprocess.run(['true'])
atexit.register(print, 'buffered at exit')
sys.stdout.write('left in the buffer')
sys.stdin.close()";
    let modules = module("rude", TEXT);
    let server = server(&modules, "rude").start().await;
    assert_eq!(server.info()["environments"][0]["imports"]["imported"][0], "rude");
    let kernel = server.kernel().await;
    assert_eq!(kernel.worker_from(0).await.1, "Warm");
    let mut client = kernel.client().await;
    assert_eq!(client.run("print('mine')").await.ok().stdout(), "mine\n");
    let cwd = format!("{:?}", kernel.folder().join("cwd").to_string_lossy()).replace('"', "'");
    assert_eq!(client.run("import os; os.getcwd()").await.ok().result(), cwd);
    let cell = client.execute("print('on', flush=True)\nwhile True: pass").await;
    client.printed(&cell, "on\n").await;
    client.interrupt().await;
    client.finish(&cell).await.failed("KeyboardInterrupt");
    client.run("os._exit(5)").await.lost("exited with status 5");
    kernel.worker(1).await;
}

#[tokio::test]
async fn an_interpreter_that_is_none_is_said_to_be_so_and_costs_nobody_else() {
    let mut server = ServerSetup::new().python("/bin/true").launch();
    let lost = server.log_line("zygote lost", 0).await.unwrap();
    assert!(lost.contains("`/bin/true` exited with status 0"), "{lost}");
    let info = server.info();
    let zygote = &info["environments"][0]["zygote"];
    assert_eq!(zygote["state"], "lost", "{info:#}");
    assert!(zygote["reason"].as_str().unwrap().contains("`/bin/true` exited with status 0"), "{info:#}");
    // Other interpreters are none of its business.
    let setup = Setup::new().server(&server).worker(cob_tests::programs::python());
    assert_eq!(setup.start().await.worker_from(0).await.1, "Cold");
    server.signal(Signal::TERM);
    assert_eq!(server.end().await.code(), Some(0));
}

#[tokio::test]
async fn a_server_may_be_ended_at_any_moment_of_getting_ready() {
    let modules = module("slow", "import sys, time\nprint('importing')\nwhile True: time.sleep(1)");
    let mut server = server(&modules, "slow").launch();
    // Before or in the middle of the import: both must do.
    for signal in [Signal::TERM, Signal::KILL] {
        let ready = server.output(&["info"]);
        assert!(ready.status.code().is_some());
        server.signal(signal);
        server.end().await;
        for pid in server.processes() {
            process::ended(pid).await;
        }
        if signal == Signal::TERM {
            server.launch_again();
        }
    }
}

#[tokio::test]
async fn a_broken_interpreter_fails_every_kernel_in_its_own_words_and_never_stampedes() {
    let worker = Path::new(env!("CARGO_BIN_EXE_scripted-worker"));
    // Told in a variable that zygotes get as well.
    let server = ServerSetup::new()
        .python(worker)
        .env("PYTHONSCRIPT", "complain no such module: encodings;exit 3")
        .cold()
        .launch();
    let mut kernels: Vec<_> = (0..12).map(|_| Setup::new().server(&server).launch()).collect();
    for kernel in &mut kernels {
        assert_eq!(kernel.end().await.code(), Some(1));
        assert!(kernel.log_line("no such module: encodings", 0).await.is_some(), "{:?}", kernel.log());
        assert!(kernel.log_line("exited with status 3", 0).await.is_some(), "{:?}", kernel.log());
    }
    let lost = server.log().iter().filter(|line| line.contains("zygote lost")).count();
    assert!((1..=4).contains(&lost), "{lost} zygotes were started for 12 kernels");
}
