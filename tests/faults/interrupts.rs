//! An interrupt always gives back a usable session.

use cob_protocol::message::Channel;
use cob_tests::kernel::TestKernel;
use cob_tests::seed::Seed;
use serde_json::json;

/// Interrupts around the end of a cell; `COB_TEST_INTERRUPTS` asks for more.
const ROUNDS: u32 = 1_000;

#[tokio::test]
async fn w07_a_loop_is_interrupted_and_its_variables_survive() {
    let (_kernel, mut client) = TestKernel::with_client().await;
    client.run("kept = 1").await.ok();
    for code in [
        "print('on', flush=True)\nwhile True: pass",
        "print('on', flush=True)\nimport signal\nwhile True: signal.pause()",
        "import subprocess\nsubprocess.run(['sh', '-c', 'echo on; exec cat /dev/zero > /dev/null'])",
        "import asyncio\nprint('on', flush=True)\nawait asyncio.Event().wait()",
        "import threading\nprint('on', flush=True)\nthreading.Event().wait()",
    ] {
        let cell = client.execute(code).await;
        client.printed(&cell, "on\n").await;
        client.interrupt().await;
        client.finish(&cell).await.failed("KeyboardInterrupt");
    }
    assert_eq!(client.run("kept").await.ok().result(), "1");
}

#[tokio::test]
async fn w08_code_that_swallows_one_interrupt_gets_another() {
    const CODE: &str = "\
try:
    print('on', flush=True)
    while True: pass
except KeyboardInterrupt:
    print('swallowed', flush=True)
while True: pass";
    let (_kernel, mut client) = TestKernel::with_client().await;
    let cell = client.execute(CODE).await;
    client.printed(&cell, "on\n").await;
    client.interrupt().await;
    let run = client.finish(&cell).await.failed("KeyboardInterrupt");
    assert_eq!(run.stdout(), "on\nswallowed\n");
    assert_eq!(client.run("1 + 1").await.ok().result(), "2");
}

#[tokio::test]
async fn an_interrupt_ends_a_question_too() {
    let (_kernel, mut client) = TestKernel::with_client().await;
    let cell = client.send(Channel::Shell, "execute_request", json!({ "code": "input('?')" })).await;
    client.until(|seen| seen.msg_type == "input_request").await;
    client.interrupt().await;
    client.finish(&cell).await.failed("KeyboardInterrupt");
    assert_eq!(client.run("1 + 1").await.ok().result(), "2");
}

#[tokio::test]
async fn an_interrupt_at_any_moment_around_the_end_of_a_cell_hits_no_other() {
    let rounds =
        std::env::var("COB_TEST_INTERRUPTS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS);
    let (kernel, mut client) = TestKernel::with_client().await;
    let mut seed = Seed::new(7);
    let (mut hit, mut missed) = (0, 0);
    for _ in 0..rounds {
        let length = seed.below(60_000);
        let code = match seed.below(6) {
            0 => "1".to_owned(),
            1 => format!("import time; time.sleep({length} / 1e8)"),
            2 => "import asyncio; await asyncio.sleep(0)".to_owned(),
            3 => "print('text')".to_owned(),
            _ => format!("for _ in range({length}): pass"),
        };
        let cell = client.execute(&code).await;
        // The interrupt travels on another socket: sometimes it comes before the cell, sometimes after.
        for _ in 0..seed.below(20) {
            tokio::task::yield_now().await;
        }
        client.interrupt().await;
        let run = client.finish(&cell).await;
        match run.status() {
            "ok" => missed += 1,
            _ => {
                run.failed("KeyboardInterrupt");
                hit += 1;
            }
        }
        assert_eq!(client.run("1 + 1").await.ok().result(), "2");
    }
    assert_eq!(hit + missed, rounds);
    assert_eq!(kernel.log().iter().filter(|line| line.contains("worker ready")).count(), 1);
}
