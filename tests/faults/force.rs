//! W08: what does not end when it is asked to is ended by force, and the reply says what that cost.

use std::process::Command;

use cob_protocol::message::Channel;
use cob_tests::client::{Run, TestClient};
use cob_tests::kernel::{GATE, Setup, TestKernel};
use cob_tests::process;
use rustix::process::Signal;
use serde_json::json;

/// Reacts to no interrupt. (Around a bare `while True: pass` CPython 3.11 does not see the handler.)
const DEAF: &str = "\
import signal
print('on', flush=True)
while True:
    try: signal.pause()
    except KeyboardInterrupt: pass";

/// Runs in C and looks at no signal.
const IN_C: &str = "print('on', flush=True)\nsum(iter(int, 1))";

/// A kernel that loses patience soon.
async fn impatient(grace: &str) -> (TestKernel, TestClient) {
    let kernel = Setup::new().argument("--interrupt-grace").argument(grace).start().await;
    let client = kernel.client().await;
    (kernel, client)
}

/// A cell that has printed `on` and runs.
async fn begin(client: &mut TestClient, code: &str) -> String {
    let cell = client.execute(code).await;
    client.printed(&cell, "on\n").await;
    cell
}

#[track_caller]
fn ended_by_force(run: Run) -> Run {
    let run = run.failed("InterruptedByForce");
    assert_eq!((run.code(), run.session_state()), ("interrupted_by_force", "lost"), "{:#}", run.reply);
    let shown = run.broadcasts.iter().rfind(|seen| seen.msg_type == "error");
    assert_eq!(shown.map(|seen| seen.text("evalue")), Some(run.evalue()));
    run
}

/// How many workers there were.
fn workers(kernel: &TestKernel) -> usize {
    kernel.log().iter().filter(|line| line.contains("worker ready")).count()
}

#[tokio::test]
async fn w08_code_that_does_not_react_is_killed_and_the_reply_says_so() {
    for code in [DEAF, IN_C] {
        let (kernel, mut client) = impatient("0.3").await;
        client.run("kept = 1").await.ok();
        let cell = begin(&mut client, code).await;
        client.interrupt().await;
        let run = ended_by_force(client.finish(&cell).await);
        assert_eq!(run.stdout(), "on\n");
        assert_eq!(
            run.evalue(),
            "the code did not react to two interrupts within 300 ms; its worker was killed, the variables are \
             lost; 3 bytes of its output are kept"
        );
        process::ended(kernel.worker(0).await).await;
        let next = client.run("1 + 1").await.ok();
        assert_eq!((next.result(), next.count()), ("2", run.count() + 1));
        client.run("kept").await.failed("NameError");
    }
}

#[tokio::test]
async fn w08_by_default_the_grace_is_two_seconds() {
    let (_kernel, mut client) = TestKernel::with_client().await;
    let cell = begin(&mut client, IN_C).await;
    client.interrupt().await;
    let run = ended_by_force(client.finish(&cell).await);
    assert!(run.evalue().contains("within 2 s"), "{}", run.evalue());
}

#[tokio::test]
async fn w08_all_that_was_printed_before_the_end_by_force_is_kept() {
    const CODE: &str = "\
import os
number = 0
while True:
    try:
        while True:
            os.write(1, b'%d\\n' % number)
            number += 1
            if number == 100: os.write(2, b'on')
            if number == 200000: sum(iter(int, 1))
    except KeyboardInterrupt: pass";
    let (_kernel, mut client) = impatient("0.3").await;
    let cell = client.execute(CODE).await;
    client.until(|seen| seen.text("name") == "stderr").await;
    client.interrupt().await;
    let run = ended_by_force(client.finish(&cell).await);
    let stdout = run.stdout();
    let lines = stdout.lines().count();
    // An interrupt between a write and its count repeats a line; nothing is left out.
    let mut expected = 0;
    for line in stdout.lines() {
        let number: usize = line.parse().unwrap();
        assert!(number == expected || number + 1 == expected, "line {number} after {expected} of {lines}");
        expected = number + 1;
    }
    let kept = format!("; {} bytes of its output are kept", run.stdout().len() + run.stream("stderr").len());
    assert!(run.evalue().ends_with(&kept), "{}", run.evalue());
}

/// Its end waits for the look at what it said, and that for room; the subscriber is cut off in time.
#[tokio::test]
async fn w08_code_that_floods_a_subscriber_who_reads_nothing_is_killed_too() {
    const CODE: &str = "\
print('on', flush=True)
def flood():
    while True: print('x' * 70)
while True:
    try: flood()
    except KeyboardInterrupt: pass";
    let (_kernel, mut client) = impatient("0.3").await;
    let cell = begin(&mut client, CODE).await;
    client.send(Channel::Control, "interrupt_request", json!({})).await;
    let reply = client.next_on(Channel::Shell).await.clone();
    assert_eq!((reply.parent.as_str(), reply.text("code")), (cell.as_str(), "interrupted_by_force"));
}

#[tokio::test]
async fn w08_impatience_does_not_restart_the_clock() {
    let (_kernel, mut client) = impatient("0.3").await;
    // Code that takes signals could be hit between its handlers by so many of them.
    let cell = begin(&mut client, IN_C).await;
    // Each is answered before the next is sent: they go on for as long as it takes.
    loop {
        client.interrupt().await;
        let has_ended =
            client.seen().iter().any(|seen| seen.parent == cell && seen.msg_type == "execute_reply");
        if has_ended {
            break;
        }
    }
    let run = ended_by_force(client.finish(&cell).await);
    assert!(run.evalue().contains(" interrupts within 300 ms"), "{}", run.evalue());
    assert_eq!(client.run("1 + 1").await.ok().result(), "2");
}

#[tokio::test]
async fn w08_with_a_grace_of_0_nothing_is_killed() {
    const CODE: &str = "\
import signal
signals = 0
def count(*_):
    global signals
    signals += 1
    print(signals, flush=True)
signal.signal(signal.SIGINT, count)
print('on', flush=True)
while signals < 4: signal.pause()";
    let (kernel, mut client) = impatient("0").await;
    let cell = begin(&mut client, CODE).await;
    client.interrupt().await;
    // The second comes by itself.
    client.printed(&cell, "2\n").await;
    client.interrupt().await;
    client.finish(&cell).await.ok();
    assert_eq!(client.run("signals").await.ok().result(), "4");
    assert_eq!(workers(&kernel), 1);
}

#[tokio::test]
async fn w08_the_c_function_that_returns_for_a_signal_is_interrupted() {
    const CODE: &str = "\
import ctypes
libc = ctypes.CDLL(None)
print('on', flush=True)
libc.pause()
while True: pass";
    let (kernel, mut client) = impatient("20").await;
    let cell = begin(&mut client, CODE).await;
    client.interrupt().await;
    client.finish(&cell).await.failed("KeyboardInterrupt");
    assert_eq!(client.run("1 + 1").await.ok().result(), "2");
    assert_eq!(workers(&kernel), 1);
}

#[tokio::test]
async fn w08_the_child_of_an_interrupted_cell_is_gone_too() {
    const CODE: &str = "\
import subprocess
child = subprocess.Popen(['sleep', '1000'])
print(child.pid, flush=True)
print('on', flush=True)
child.wait()";
    let (_kernel, mut client) = TestKernel::with_client().await;
    let cell = begin(&mut client, CODE).await;
    client.interrupt().await;
    let run = client.finish(&cell).await.failed("KeyboardInterrupt");
    process::ended(run.stdout().lines().next().unwrap().parse().unwrap()).await;
}

#[tokio::test]
async fn w08_the_children_of_code_that_is_killed_are_killed_too() {
    let code = format!("import subprocess\nprint(subprocess.Popen(['sleep', '1000']).pid)\n{DEAF}");
    let (_kernel, mut client) = impatient("0.2").await;
    let cell = begin(&mut client, &code).await;
    client.interrupt().await;
    let run = ended_by_force(client.finish(&cell).await);
    process::ended(run.stdout().lines().next().unwrap().parse().unwrap()).await;
}

#[tokio::test]
async fn w08_a_completion_that_never_ends_gives_the_session_back() {
    const SLOW: &str = "\
class Slow:
    def __dir__(self):
        print('on', flush=True)
        while True:
            HOW
slow = Slow()";
    let request = json!({ "code": "slow.", "cursor_pos": 5 });
    // One that can be interrupted, and one that has to be killed.
    for (how, lost) in
        [("pass", false), ("\n            try: sum(iter(int, 1))\n            except: pass", true)]
    {
        let (kernel, mut client) = impatient("0.5").await;
        client.run(&SLOW.replace("HOW", how)).await.ok();
        let question = client.send(Channel::Shell, "complete_request", request.clone()).await;
        client.until(|seen| seen.text("text").contains("on\n")).await;
        client.interrupt().await;
        let answer = client.finish(&question).await;
        assert_eq!(client.run("1 + 1").await.ok().result(), "2");
        if lost {
            assert_eq!((answer.code(), answer.session_state()), ("interrupted_by_force", "lost"));
            assert_ne!(kernel.worker(1).await, kernel.worker(0).await);
        } else {
            assert_eq!(workers(&kernel), 1, "{:#}", answer.reply);
        }
    }
}

/// The kernel condemned the worker for it: an interrupt gave the first question up, and nobody had told it.
#[tokio::test]
async fn an_interrupted_question_may_be_asked_again() {
    const CODE: &str = "\
while True:
    try:
        answer = input('?')
        break
    except KeyboardInterrupt: pass
print(answer)";
    let (kernel, mut client) = impatient("0.2").await;
    let cell = client.send(Channel::Shell, "execute_request", json!({ "code": CODE })).await;
    for asked in 1..=3 {
        let mut questions = 0;
        client
            .until(|seen| {
                questions += usize::from(seen.msg_type == "input_request");
                questions == asked
            })
            .await;
        if asked < 3 {
            client.interrupt().await;
        }
    }
    client.send(Channel::Stdin, "input_reply", json!({ "value": "text" })).await;
    assert_eq!(client.finish(&cell).await.ok().stdout(), "text\n");
    assert_eq!(workers(&kernel), 1);
}

/// The kernel is stopped while its patience runs out and the code ends: what it finds when it wakes is an end.
#[tokio::test]
async fn w08_an_end_that_has_arrived_wins_over_the_kill() {
    let code = format!(
        "\
import signal
signals = 0
def count(*_):
    global signals
    signals += 1
    print(signals, flush=True)
signal.signal(signal.SIGINT, count)
print('on', flush=True)
{GATE}"
    );
    let (mut kernel, mut client) = impatient("2").await;
    let cell = begin(&mut client, &code).await;
    client.interrupt().await;
    client.printed(&cell, "2\n").await;
    // The kill is due in a second.
    kernel.signal(Signal::STOP);
    kernel.open_gate();
    // The event that is waited for is that this much time has passed.
    assert!(Command::new("sleep").arg("1.2").status().unwrap().success());
    kernel.signal(Signal::CONT);
    client.finish(&cell).await.ok();
    assert_eq!(client.run("signals").await.ok().result(), "2");
    assert_eq!(workers(&kernel), 1);
}
