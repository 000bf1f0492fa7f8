//! Workers from `cob serve`: they come warm, and are in nothing else different from those that were started.

use cob_protocol::message::Channel;
use cob_tests::client::TestClient;
use cob_tests::kernel::Setup;
use cob_tests::process;
use cob_tests::server::{ServerSetup, TestServer};
use rustix::process::Signal;
use serde_json::json;

/// What a session can see of itself, but for ids and for what stems from being forked.
const SELF: &str = "\
import json, os, resource, signal, stat, sys
print(json.dumps(dict(
    argv=sys.argv, path=sys.path, flags=list(sys.flags), executable=sys.executable, prefix=sys.prefix,
    encodings=[sys.stdin.encoding, sys.stdout.encoding, sys.getfilesystemencoding()],
    buffering=[sys.stdout.line_buffering, sys.stdout.isatty()],
    cwd=os.getcwd(), environment=dict(os.environ), umask=os.umask(0o22), nice=os.nice(0),
    leads=[os.getpid() == os.getpgid(0), os.getpid() == os.getsid(0)],
    limits={name: resource.getrlimit(value) for name, value in vars(resource).items() if name.startswith('RLIMIT_')},
    handlers=[str(signal.getsignal(n)) for n in range(1, 32) if n not in (9, 19) and n != signal.SIGINT],
    blocked=sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))),
    streams=[stat.S_IFMT(os.fstat(fd).st_mode) for fd in (0, 1, 2)],
    mine=sorted(name for name in vars(sys.modules['__main__']) if not name.startswith('_')),
    recursion=sys.getrecursionlimit(), switch=sys.getswitchinterval(),
    threads=len(os.listdir('/proc/self/task')), open=len(os.listdir('/proc/self/fd')),
), sort_keys=True, indent=1))";

#[tokio::test]
async fn a_kernel_gets_a_warm_worker_with_the_imports_of_the_server() {
    let server = TestServer::start().await;
    assert_eq!(server.info()["environments"][0]["imports"]["imported"], json!(["colorsys"]));
    let kernel = server.kernel().await;
    assert_eq!(kernel.worker_from(0).await.1, "Warm");
    let mut client = kernel.client().await;
    assert_eq!(client.run("import sys; 'colorsys' in sys.modules").await.ok().result(), "True");
    server.holds(2, 1).await;
    let info = server.info();
    assert_eq!(info["counters"]["leased_warm"], 1, "{info:#}");
    assert_eq!(info["environments"][0]["leased"], 1, "{info:#}");
    drop((client, kernel));
    server.settled().await;
}

#[tokio::test]
async fn a_warm_worker_sees_of_itself_what_a_cold_one_does() {
    let server = TestServer::start().await;
    let mut seen = Vec::new();
    for (argument, origin) in [(None, "Warm"), (Some("--cold"), "Cold")] {
        let mut setup = Setup::new().server(&server).env("OF_THIS_KERNEL", "yes");
        if let Some(argument) = argument {
            setup = setup.argument(argument);
        }
        let kernel = setup.start().await;
        assert_eq!(kernel.worker_from(0).await.1, origin);
        let mut client = kernel.client().await;
        let stdout = client.run(SELF).await.ok().stdout();
        let folder = kernel.folder().to_string_lossy().into_owned();
        assert!(stdout.contains("\"OF_THIS_KERNEL\": \"yes\""), "{stdout}");
        assert!(stdout.contains(&format!("\"cwd\": \"{folder}/cwd\"")), "{stdout}");
        let lines = stdout.replace(&folder, "FOLDER");
        seen.push(
            lines
                .lines()
                .filter(|line| !line.contains("COB_TEST_MARK") && !line.contains("COB_WORKER"))
                .collect::<Vec<_>>()
                .join("\n"),
        );
    }
    assert_eq!(seen[0], seen[1]);
}

async fn displays_questions_and_children(client: &mut TestClient) {
    let run = client.run("display({'text/plain': 'shown'}, raw=True)\n6 * 7").await.ok();
    assert_eq!(run.result(), "42");
    assert!(run.broadcasts.iter().any(|seen| seen.content["data"]["text/plain"] == "shown"));
    let asks = json!({ "code": "input('who? ')", "allow_stdin": true });
    let cell = client.send(Channel::Shell, "execute_request", asks).await;
    let question = client.until(|seen| seen.msg_type == "input_request" && seen.parent == cell).await;
    assert_eq!(question.text("prompt"), "who? ");
    client.send(Channel::Stdin, "input_reply", json!({ "value": "me" })).await;
    assert_eq!(client.finish(&cell).await.ok().result(), "'me'");
    for (code, stdout) in [
        (
            "import os, sys\nsys.stdout.flush()\nif os.fork() == 0:\n    os.write(1, b'child\\n'); os._exit(0)\nos.wait(); print('parent')",
            "child\nparent\n",
        ),
        ("import subprocess; subprocess.run(['echo', 'from outside'])", "from outside\n"),
        ("import asyncio\nasync def f(): await asyncio.sleep(0); print('awaited')\nawait f()", "awaited\n"),
        (
            "import threading; t = threading.Thread(target=print, args=('thread',)); t.start(); t.join()",
            "thread\n",
        ),
        ("import sys; print('out'); print('err', file=sys.stderr)", "out\n"),
    ] {
        assert_eq!(client.run(code).await.ok().stdout(), stdout, "{code}");
    }
    client.run("1 / 0").await.failed("ZeroDivisionError");
}

#[tokio::test]
async fn a_warm_worker_does_what_a_cold_one_does() {
    let server = TestServer::start().await;
    let kernel = server.kernel().await;
    let mut client = kernel.client().await;
    displays_questions_and_children(&mut client).await;
    for code in [
        "while True: pass",
        "import time; time.sleep(1e6)",
        "import subprocess; subprocess.run(['sleep', '1000000'])",
    ] {
        let cell = client.execute(&format!("kept = 1\nprint('on', flush=True)\n{code}")).await;
        client.printed(&cell, "on\n").await;
        client.interrupt().await;
        client.finish(&cell).await.failed("KeyboardInterrupt");
    }
    assert_eq!(client.run("kept").await.ok().result(), "1");
    assert_eq!(kernel.worker_from(0).await.1, "Warm");
    assert_eq!(kernel.log().iter().filter(|line| line.contains("worker ready")).count(), 1);
}

#[tokio::test]
async fn workers_are_random_each_in_its_own_way() {
    let server = TestServer::start().await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let kernel = server.kernel().await;
        assert_eq!(kernel.worker_from(0).await.1, "Warm");
        let mut client = kernel.client().await;
        let code = "import os, random, tempfile, uuid\n(random.random(), uuid.uuid4(), next(tempfile._get_candidate_names()))";
        let run = client.run(code).await.ok();
        assert!(seen.insert(run.result().to_owned()), "{}", run.result());
    }
}

#[tokio::test]
async fn an_environment_that_nobody_announced_becomes_warm_when_it_is_used() {
    let server = ServerSetup::new().cold().launch();
    let kernel = server.kernel().await;
    assert_eq!(kernel.worker_from(0).await.1, "Cold");
    server.settled().await;
    assert_eq!(server.kernel().await.worker_from(0).await.1, "Warm");
    // Another one again: something that an interpreter reads when it starts is different.
    let other = Setup::new().server(&server).env("PYTHONHASHSEED", "0").start().await;
    assert_eq!(other.worker_from(0).await.1, "Cold");
    let mut client = other.client().await;
    assert_eq!(client.run("import sys; sys.flags.hash_randomization").await.ok().result(), "0");
}

#[tokio::test]
async fn without_a_server_and_with_the_flag_workers_start_cold() {
    let mut server = TestServer::start().await;
    let cold = Setup::new().server(&server).argument("--cold").start().await;
    assert_eq!(cold.worker_from(0).await.1, "Cold");
    drop(cold);
    server.signal(Signal::TERM);
    assert_eq!(server.end().await.code(), Some(0));
    assert_eq!(server.kernel().await.worker_from(0).await.1, "Cold");
}

#[tokio::test]
async fn a_run_is_served_warm_too() {
    let server = TestServer::start().await;
    let python = server.python().to_str().unwrap();
    let run = ["run", "--python", python, "-c", "import sys; print('colorsys' in sys.modules, sys.argv)"];
    let output = server.output(&run);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "True ['-c']\n");
    assert_eq!(output.status.code(), Some(0));
    let fails = server.output(&["run", "--python", python, "-c", "raise SystemExit(1)"]);
    assert_eq!(fails.status.code(), Some(1));
    server.settled().await;
    assert_eq!(server.info()["counters"]["leased_warm"], 2);
}

#[tokio::test]
async fn a_lost_worker_is_replaced_by_a_warm_one_and_the_server_is_as_before() {
    let server = TestServer::start().await;
    let descriptors = server.descriptors();
    let kernel = server.kernel().await;
    let mut client = kernel.client().await;
    let own = kernel.own_descriptors();
    for nth in 0..4 {
        let (worker, origin) = kernel.worker_from(nth).await;
        assert_eq!(origin, "Warm");
        server.holds(2, 1).await;
        process::signal(worker, Signal::KILL);
        kernel.worker(nth + 1).await;
        assert_eq!(client.run("1 + 1").await.ok().result(), "2");
    }
    assert_eq!(kernel.own_descriptors(), own);
    drop((client, kernel));
    server.settled().await;
    server.is_as_before(&descriptors);
}

/// Only where `COB_RICH` names a Python that has it.
#[tokio::test]
async fn numpy_comes_imported_is_random_in_each_session_and_may_use_threads() {
    let Some(python) = std::env::var_os("COB_RICH") else { return };
    let server = ServerSetup::new().python(python).imports("numpy,pandas").start().await;
    assert_eq!(server.info()["environments"][0]["imports"]["imported"], json!(["numpy", "pandas"]));
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..2 {
        let kernel = server.kernel().await;
        assert_eq!(kernel.worker_from(0).await.1, "Warm");
        let mut client = kernel.client().await;
        let run = client
            .run("import sys; there = 'pandas' in sys.modules\nimport numpy as np\nthere, np.random.random()")
            .await
            .ok();
        assert!(run.result().starts_with("(True, ") && seen.insert(run.result().to_owned()), "{seen:?}");
        let threads = "m = np.ones((600, 600)); float((m @ m).sum())";
        assert_eq!(client.run(threads).await.ok().result(), "216000000.0");
    }
}
