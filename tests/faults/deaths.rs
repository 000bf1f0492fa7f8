//! W: the worker dies or misbehaves. What it wrote is kept, the reply says what happened, the session goes on.

use cob_protocol::message::Channel;
use cob_tests::client::TestClient;
use cob_tests::kernel::TestKernel;
use cob_tests::process;
use rustix::process::Signal;

/// The session serves again, in a fresh namespace, and counts on from `count`.
async fn goes_on(kernel: &TestKernel, client: &mut TestClient, count: u64) {
    let states = ["restarting", "starting"];
    client.until(|seen| seen.parent.is_empty() && seen.text("execution_state") == "restarting").await;
    let next = client.run("'kept' in globals()").await.ok();
    assert_eq!((next.result(), next.count()), ("False", count + 1));
    let seen = client.own_states();
    assert!(seen.ends_with(&states), "{seen:?}");
    assert!(kernel.worker(1).await > 0);
}

#[tokio::test]
async fn w01_a_worker_killed_mid_output_keeps_its_output_and_is_replaced() {
    // It tells how much it has written through a file that outlives it.
    const CODE: &str = "\
import mmap, os
with open('tally', 'wb') as file: file.write(bytes(8))
tally = mmap.mmap(os.open('tally', os.O_RDWR), 8)
number = written = 0
while True:
    written += os.write(1, b'%d\\n' % number)
    tally[:] = written.to_bytes(8, 'little')
    number += 1";
    let (kernel, mut client) = TestKernel::with_client().await;
    client.run("kept = 1").await.ok();
    let descriptors = kernel.own_descriptors();
    let worker = kernel.worker(0).await;
    let cell = client.execute(CODE).await;
    client.printed(&cell, "\n1000\n").await;
    process::signal(worker, Signal::KILL);
    let run = client.finish(&cell).await.lost("was killed by signal 9 (SIGKILL)");

    let stdout = run.stdout();
    let tally = std::fs::read(kernel.folder().join("cwd/tally")).unwrap();
    let tally = u64::from_le_bytes(tally.try_into().unwrap());
    // Between a write and its entry in the tally there is one line at most.
    let beyond = stdout.len() as u64 - tally;
    assert!(beyond <= 12, "{beyond} bytes more than the tally says");
    let expected: String = (0..stdout.lines().count()).map(|number| format!("{number}\n")).collect();
    assert_eq!(stdout, expected);
    assert!(
        run.evalue().contains(&format!("{} bytes of its output are kept", stdout.len())),
        "{}",
        run.evalue()
    );
    goes_on(&kernel, &mut client, run.count()).await;
    assert_eq!(kernel.own_descriptors(), descriptors);
}

#[tokio::test]
async fn w02_a_cell_that_exits_the_process_is_never_ok() {
    for print in ["print('text')", "print('text', flush=True)", "import os; os.write(1, b'text\\n')"] {
        let (kernel, mut client) = TestKernel::with_client().await;
        let run = client.run(&format!("kept = 1\n{print}\nimport os; os._exit(0)")).await;
        let run = run.lost("exited with status 0 before finishing");
        assert_eq!(run.stdout(), "text\n");
        goes_on(&kernel, &mut client, run.count()).await;
    }
}

#[tokio::test]
async fn w04_a_crash_is_named_and_leaves_no_core_file() {
    for (code, signal) in [
        ("import ctypes; ctypes.string_at(0)", "signal 11 (SIGSEGV)"),
        ("import os; os.abort()", "signal 6 (SIGABRT)"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGBUS)", "signal 7 (SIGBUS)"),
    ] {
        let (kernel, mut client) = TestKernel::with_client().await;
        let run = client.run(code).await.lost(signal);
        goes_on(&kernel, &mut client, run.count()).await;
        assert_eq!(std::fs::read_dir(kernel.folder().join("cwd")).unwrap().count(), 0);
        let limits = client.run("import resource; resource.getrlimit(resource.RLIMIT_CORE)").await.ok();
        assert_eq!(limits.result(), "(0, 0)");
    }
}

#[tokio::test]
async fn w06_code_that_holds_the_interpreter_is_neither_stalled_nor_in_the_way_of_control() {
    let (kernel, mut client) = TestKernel::with_client().await;
    let cell = client.execute("print('on', flush=True)\nsum(iter(int, 1))").await;
    client.printed(&cell, "on\n").await;
    for _ in 0..10 {
        client.ask(Channel::Control, "kernel_info_request").await.ok();
    }
    assert!(client.own_states().iter().all(|state| *state != "restarting"));
    process::signal(kernel.worker(0).await, Signal::KILL);
    client.finish(&cell).await.lost("SIGKILL");
}

#[tokio::test]
async fn w10_code_that_closes_its_stdout_harms_only_itself() {
    let (kernel, mut client) = TestKernel::with_client().await;
    client.run("import os; kept = os.getpid()").await.ok();
    let run = client.run("os.close(1)\nos.write(1, b'text')").await;
    assert_eq!((run.ename(), run.code()), ("OSError", ""), "{}", run.reply);
    assert_eq!(client.run("kept == os.getpid()").await.ok().result(), "True");
    assert_eq!(kernel.log().iter().filter(|line| line.contains("worker ready")).count(), 1);
}

#[tokio::test]
async fn w12_a_worker_that_forks_and_exits_is_gone_and_its_child_too() {
    const CODE: &str = "\
import os, signal
child = os.fork()
if child == 0:
    while True: signal.pause()
print(child, flush=True)
os._exit(0)";
    let (kernel, mut client) = TestKernel::with_client().await;
    let run = client.run(CODE).await.lost("exited with status 0");
    process::ended(run.stdout().trim().parse().unwrap()).await;
    goes_on(&kernel, &mut client, run.count()).await;
}

#[tokio::test]
async fn w14_garbage_on_the_workers_own_socket_is_a_protocol_violation() {
    const CODE: &str = "\
import os, stat
kept = 1
print('text', flush=True)
for fd in os.listdir('/proc/self/fd'):
    try:
        if stat.S_ISSOCK(os.fstat(int(fd)).st_mode):
            os.write(int(fd), b'\\xa5' * 4096)
    except OSError:
        pass
while True: pass";
    let (kernel, mut client) = TestKernel::with_client().await;
    let run = client.run(CODE).await.lost("protocol violation");
    assert_eq!(run.stdout(), "text\n");
    goes_on(&kernel, &mut client, run.count()).await;
}

#[tokio::test]
async fn w18_a_worker_holds_nothing_but_its_own_transport() {
    const CODE: &str = "\
import fcntl, os, socket
found = []
for fd in map(int, os.listdir('/proc/self/fd')):
    try:
        what = os.readlink(f'/proc/self/fd/{fd}')
    except OSError:
        continue
    cloexec = bool(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC)
    listens = False
    if what.startswith('socket:'):
        with socket.socket(fileno=os.dup(fd)) as one:
            listens = bool(one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    found.append((fd, what.split('[')[0], cloexec, listens))
for fd, what, cloexec, listens in found:
    public = fd < 3
    # The lifeline keeps its number, so that the system knows whom to tell.
    assert public != cloexec and (public or fd >= 64 or fd == 6) and not listens, found
assert sum(what == 'socket:' for _, what, _, _ in found) == 1, found
for secret in ('environ', 'cmdline'):
    assert b'the key of a test' not in open(f'/proc/self/{secret}', 'rb').read()";
    let (_kernel, mut client) = TestKernel::with_client().await;
    client.run(CODE).await.ok();
}

#[tokio::test]
async fn workers_may_be_lost_while_idle_and_again_and_again() {
    let (kernel, mut client) = TestKernel::with_client().await;
    let descriptors = kernel.own_descriptors();
    for nth in 0..5 {
        process::signal(kernel.worker(nth).await, Signal::KILL);
        kernel.worker(nth + 1).await;
        assert_eq!(client.run("1 + 1").await.ok().result(), "2");
    }
    assert_eq!(kernel.own_descriptors(), descriptors);
}

#[tokio::test]
async fn what_is_queued_behind_a_lost_worker_is_aborted() {
    let (kernel, mut client) = TestKernel::with_client().await;
    let cell = client.execute("print('on', flush=True)\nwhile True: pass").await;
    client.printed(&cell, "on\n").await;
    let queued = client.execute("1").await;
    client.ask(Channel::Shell, "kernel_info_request").await.ok();
    process::signal(kernel.worker(0).await, Signal::KILL);
    client.finish(&cell).await.lost("SIGKILL");
    assert_eq!(client.finish(&queued).await.status(), "aborted");
}
