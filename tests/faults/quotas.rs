//! The limits that the system keeps for each process: processor time, descriptors, sizes of files; and that every
//! limit leaves room for a session at the least that may be asked for.

use cob_protocol::resources::{Amount, Limit};
use cob_tests::cgroups;
use cob_tests::client::{Run, TestClient};
use cob_tests::kernel::{Setup, TestKernel};
use cob_tests::server::TestServer;

async fn limited(limits: &str) -> (TestKernel, TestClient) {
    let kernel = Setup::new().limits(limits).start().await;
    let client = kernel.client().await;
    (kernel, client)
}

#[track_caller]
fn cpu_limit(run: Run) {
    let run = run.failed("CpuLimit");
    assert_eq!((run.code(), run.session_state()), ("cpu_limit", "lost"), "{:#}", run.reply);
    let said = "the worker was killed at the limit of its session, 1 s of processor time";
    assert!(run.evalue().starts_with(said), "{}", run.evalue());
}

/// Ignores the signal that says that its time is used up.
const STUBBORN: &str = "\
import signal
signal.signal(signal.SIGXCPU, signal.SIG_IGN)
while True: pass";

#[tokio::test]
async fn processor_time_that_is_used_up_ends_the_worker_and_the_next_has_its_own() {
    let (_kernel, mut client) = limited("cpu=1s").await;
    cpu_limit(client.run("while True: pass").await);
    assert_eq!(client.run("1 + 1").await.ok().result(), "2");
    cpu_limit(client.run(STUBBORN).await);
    assert_eq!(client.run("1 + 1").await.ok().result(), "2");
}

/// A worker that waited for its session has used some time before that.
#[tokio::test]
async fn processor_time_is_counted_from_the_lease_and_named_by_the_server() {
    let server = TestServer::start().await;
    let kernel = Setup::new().server(&server).limits("cpu=1s").start().await;
    assert_eq!(kernel.worker_from(0).await.1, "Warm");
    let mut client = kernel.client().await;
    cpu_limit(client.run(STUBBORN).await);
    assert_eq!(client.run("1 + 1").await.ok().result(), "2");
}

/// Each child has as much as the worker; the code sees how it ended.
#[tokio::test]
async fn children_have_the_limits_of_the_worker() {
    const CODE: &str = "\
import subprocess, sys
def child(code):
    done = subprocess.run([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return done.returncode, done.stdout.strip(), done.stderr.strip().split('\\n')[-1]
print(child('while True: pass')[0])
print(child('import os\\nwhile True: os.dup(0)')[2])
print(child('open(\"f\", \"wb\").write(bytes(1 << 20))')[2])
print(child('bytearray(4 << 30)')[2])";
    let (_kernel, mut client) = limited("cpu=1s,open_files=64,file=64K,memory=64M").await;
    let stdout = client.run(CODE).await.ok().stdout();
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(
        lines,
        [
            "-24",
            "OSError: [Errno 24] Too many open files",
            "OSError: [Errno 27] File too large",
            "MemoryError"
        ]
    );
}

#[tokio::test]
async fn descriptors_that_cannot_be_had_are_an_error_of_the_code() {
    const CODE: &str = "\
import os
kept = []
while True: kept.append(os.dup(0))";
    let (_kernel, mut client) = limited("open_files=64").await;
    let run = client.run(CODE).await.failed("OSError");
    assert_eq!(run.evalue(), "[Errno 24] Too many open files");
    // Also while there is none left.
    assert_eq!(client.run("print('text')\nlen(kept) > 40").await.ok().result(), "True");
    client.run("1 / 0").await.failed("ZeroDivisionError");
    client.run("import colorsys").await.failed("OSError");
    client.run("for n in kept: os.close(n)\nimport colorsys").await.ok();
}

#[tokio::test]
async fn a_file_that_would_be_too_large_is_an_error_of_the_code() {
    const CODE: &str = "\
import os
with open('f', 'wb', buffering=0) as file:
    while True: file.write(bytes(1000))";
    let (kernel, mut client) = limited("file=64K").await;
    let run = client.run(CODE).await.failed("OSError");
    assert_eq!(run.evalue(), "[Errno 27] File too large");
    assert_eq!(std::fs::metadata(kernel.folder().join("cwd/f")).unwrap().len(), 64 << 10);
    // What is printed goes through pipes, which have no size.
    assert_eq!(client.run("print('x' * (1 << 20))").await.ok().stdout().len(), (1 << 20) + 1);
    client.run("import signal; signal.signal(signal.SIGXFSZ, signal.SIG_DFL)").await.ok();
    client.run("open('f', 'ab').write(bytes(1000))").await.lost("signal 25 (SIGXFSZ)");
}

/// What the table allows must be enough for a session, cold and warm.
#[tokio::test]
async fn the_least_of_every_limit_is_enough_for_a_session() {
    const CELL: &str = "\
import json
def f(n): return json.dumps([n])
print(f(1))
f(2)";
    let server = TestServer::start().await;
    for &limit in Limit::ALL {
        // The time of an execution may be too short for anything.
        if limit == Limit::Time {
            continue;
        }
        let limits = format!("{}={}", limit.name(), Amount { unit: limit.unit(), value: limit.least() });
        for setup in [Setup::new(), Setup::new().server(&server)] {
            let kernel = setup.limits(&limits).start().await;
            let mut client = kernel.client().await;
            let run = client.run(CELL).await;
            assert_eq!((run.status(), run.result()), ("ok", "'[2]'"), "{limits}: {:#}", run.reply);
            client.run("1 / 0").await.failed("ZeroDivisionError");
            assert_eq!(client.run("1 + 1").await.ok().result(), "2", "{limits}");
        }
    }
}

#[tokio::test]
async fn r07_recursion_without_a_guard_ends_the_code_or_its_worker_within_the_limit() {
    let (kernel, mut client) = limited("memory=128M,time=20s").await;
    if !cgroups::holds(&mut client, "memory").await {
        return;
    }
    client.run("def f(): f()\nf()").await.failed("RecursionError");
    for code in [
        "import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()",
        "import sys\nsys.setrecursionlimit(10**9)\nclass C:\n    def __repr__(self): return repr(self)\nrepr(C())",
        "import sys\nsys.setrecursionlimit(10**9)\nx = []\nfor _ in range(10**6): x = [x]\nrepr(x)",
    ] {
        let run = client.run(code).await;
        let ends = ["RecursionError", "MemoryError", "MemoryLimit", "WorkerLost"];
        assert!(ends.contains(&run.ename()), "{:#}", run.reply);
        assert_eq!(client.run("1 + 1").await.ok().result(), "2");
    }
    drop((client, kernel));
}
