//! What an execution may take: time, output, disk. At the limit it ends with a code, and the session goes on.

use std::process::Command;

use cob_protocol::message::Channel;
use cob_tests::client::TestClient;
use cob_tests::kernel::{GATE, Setup, TestKernel};
use rustix::process::Signal;
use serde_json::json;

async fn limited(limits: &str) -> (TestKernel, TestClient) {
    let setup =
        Setup::new().argument("--limits").argument(limits).argument("--interrupt-grace").argument("0.3");
    let kernel = setup.start().await;
    let client = kernel.client().await;
    (kernel, client)
}

fn workers(kernel: &TestKernel) -> usize {
    kernel.log().iter().filter(|line| line.contains("worker ready")).count()
}

#[tokio::test]
async fn at_its_time_limit_code_is_interrupted_and_its_variables_are_kept() {
    let (kernel, mut client) = limited("time=1s").await;
    client.run("kept = 1").await.ok();
    for code in
        ["while True: pass", "import time\ntime.sleep(1000)", "try:\n    while True: pass\nexcept: pass"]
    {
        let run = client.run(code).await.failed("TimeLimit");
        assert_eq!((run.code(), run.session_state()), ("time_limit", "kept"), "{:#}", run.reply);
        assert_eq!(
            run.evalue(),
            "the code took longer than its limit of 1 s and ended after an interrupt; the variables are kept"
        );
    }
    assert_eq!(client.run("kept").await.ok().result(), "1");
    assert_eq!(workers(&kernel), 1);
}

#[tokio::test]
async fn at_its_time_limit_code_that_does_not_react_is_killed() {
    let (_kernel, mut client) = limited("time=1s").await;
    let run = client.run("print('text')\nsum(iter(int, 1))").await.failed("TimeLimit");
    assert_eq!((run.code(), run.session_state()), ("time_limit", "lost"), "{:#}", run.reply);
    assert_eq!(
        run.evalue(),
        "the code took longer than its limit of 1 s and did not react to two interrupts within 300 ms; its \
         worker was killed, the variables are lost; 5 bytes of its output are kept"
    );
    assert_eq!(client.run("1 + 1").await.ok().result(), "2");
}

#[tokio::test]
async fn the_time_a_person_takes_to_answer_is_not_the_codes() {
    let (_kernel, mut client) = limited("time=1s").await;
    let cell = client.send(Channel::Shell, "execute_request", json!({ "code": "print(input('?'))" })).await;
    client.until(|seen| seen.msg_type == "input_request").await;
    // A person who thinks for longer than the limit.
    assert!(Command::new("sleep").arg("1.2").status().unwrap().success());
    client.send(Channel::Stdin, "input_reply", json!({ "value": "text" })).await;
    assert_eq!(client.finish(&cell).await.ok().stdout(), "text\n");
}

/// The kernel is stopped while the time runs out; the code had ended before.
#[tokio::test]
async fn code_that_ended_in_time_did_so_however_late_the_kernel_sees_it() {
    let (mut kernel, mut client) = limited("time=1s").await;
    let cell = client.execute(&format!("print('on', flush=True)\n{GATE}")).await;
    client.printed(&cell, "on\n").await;
    kernel.signal(Signal::STOP);
    kernel.open_gate();
    assert!(Command::new("sleep").arg("1.2").status().unwrap().success());
    kernel.signal(Signal::CONT);
    client.finish(&cell).await.ok();
}

#[tokio::test]
async fn a_lower_limit_of_output_is_counted_to_the_byte_too() {
    let (_kernel, mut client) = limited("output=128K").await;
    let run = client.run("import os\nfor _ in range(1000): os.write(1, b'x' * 999 + b'\\n')").await.ok();
    assert_eq!(run.stdout().len(), 128 << 10);
    let stderr = run.stream("stderr");
    assert!(stderr.contains("[output limit of 128 KiB reached"), "{stderr}");
    assert!(stderr.contains("1000000 bytes written, 131072 kept, 868928 dropped"), "{stderr}");
    assert_eq!(client.run("print('x' * 99_999)").await.ok().stdout().len(), 100_000);
}

#[tokio::test]
async fn over_its_disk_limit_every_execution_says_so_until_there_is_room() {
    let (kernel, mut client) = limited("disk=1M").await;
    client.run("import os; kept = os.getpid()").await.ok();
    let fill = "os.mkdir('a')\nwith open('a/b', 'wb') as file: file.write(b'x' * (2 << 20))";
    for (code, said) in [(fill, "holds 2"), ("1 + 1", "holds 2"), ("nothing", "failed with NameError")] {
        let run = client.run(code).await.failed("DiskLimit");
        assert_eq!((run.code(), run.session_state()), ("disk_limit", "kept"), "{:#}", run.reply);
        assert!(
            run.evalue().contains(said) && run.evalue().contains("its limit is 1 MiB"),
            "{}",
            run.evalue()
        );
    }
    client.run("os.remove('a/b')").await.ok();
    assert_eq!(client.run("kept == os.getpid()").await.ok().result(), "True");
    assert_eq!(workers(&kernel), 1);
}

/// Links lead elsewhere, holes take no room, a file with two names is there once; what nobody can read may be large.
#[tokio::test]
async fn the_disk_limit_counts_what_is_there() {
    const HARMLESS: &str = "\
import os
os.symlink('/', 'root')
with open('sparse', 'wb') as file: file.truncate(1 << 30)
with open('one', 'wb') as file: file.write(b'x' * (600 << 10))
os.link('one', 'two')";
    let (_kernel, mut client) = limited("disk=1M").await;
    client.run(HARMLESS).await.ok();
    const DEEP: &str = "\
for _ in range(50):
    os.mkdir('d' * 100)
    os.chdir('d' * 100)";
    let run = client.run(DEEP).await.failed("DiskLimit");
    assert!(run.evalue().contains("cannot be measured"), "{}", run.evalue());
}
