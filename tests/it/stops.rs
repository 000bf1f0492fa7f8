//! W07, R07: what a session survives, be it in JavaScript, and what is said where it does not.

use cob_tests::client::TestClient;
use cob_tests::kernel::{Setup, TestKernel};

async fn started(setup: Setup) -> (TestKernel, TestClient) {
    let kernel = setup.start().await;
    let mut client = kernel.client().await;
    client.run("kept = 41").await.ok();
    (kernel, client)
}

fn speaking(language: &str) -> Setup {
    if language == "python" { Setup::new() } else { Setup::new().language(language) }
}

async fn is_kept(client: &mut TestClient) {
    assert_eq!(client.run("kept + 1").await.ok().result(), "42");
}

/// Code that goes on after its cell, prints `on` and does not end.
const BACKGROUND: &[(&str, &str)] = &[
    ("javascript", "setTimeout(() => { console.log('on'); for (;;) {} }, 1); 0"),
    (
        "javascript",
        "setTimeout(() => { console.log('on'); const f = () => { Promise.resolve().then(f) }; f() }, 1); 0",
    ),
    (
        "python",
        "import asyncio\nasync def busy():\n    await asyncio.sleep(0.001)\n    print('on', flush=True)\n    \
         while True: pass\ntask = asyncio.create_task(busy())",
    ),
    (
        "python",
        "import asyncio\ndef busy():\n    print('on', flush=True)\n    while True: pass\n\
         timer = asyncio.get_event_loop().call_later(0.001, busy)",
    ),
];

#[tokio::test]
async fn w07_a_cell_that_waits_behind_the_background_is_interrupted_and_nothing_is_lost() {
    for language in ["javascript", "python"] {
        let (_kernel, mut client) = started(speaking(language)).await;
        for (_, code) in BACKGROUND.iter().filter(|(of, _)| *of == language) {
            client.run(code).await.ok();
            client.until(|seen| seen.msg_type == "stream" && seen.text("text").starts_with("on")).await;
            let waiting = client.execute("kept = 0").await;
            // The interrupt travels on another socket: from here on there is something to interrupt.
            client.until(|seen| seen.msg_type == "execute_input" && seen.parent == waiting).await;
            client.interrupt().await;
            client.finish(&waiting).await.failed("KeyboardInterrupt");
            is_kept(&mut client).await;
        }
    }
}

#[tokio::test]
async fn w07_whatever_goes_on_in_javascript_is_interrupted() {
    let (_kernel, mut client) = started(speaking("javascript")).await;
    for code in [
        "console.log('on'); while (1) {}",
        "console.log('on'); setInterval(() => {}, 1000); await new Promise(() => {})",
        "console.log('on'); const f = () => Promise.resolve().then(f); await f()",
        "const { port1, port2 } = new MessageChannel(); port1.onmessage = () => port2.postMessage(0); \
         port2.postMessage(0); console.log('on'); await new Promise(() => {})",
    ] {
        let cell = client.execute(code).await;
        client.printed(&cell, "on\n").await;
        client.interrupt().await;
        client.finish(&cell).await.failed("KeyboardInterrupt");
        is_kept(&mut client).await;
    }
}

#[tokio::test]
async fn r07_recursion_and_large_values_are_errors_in_javascript() {
    let (_kernel, mut client) = started(speaking("javascript")).await;
    for code in [
        "(function f() { f() })()",
        "const o = {}; Object.defineProperty(o, 'a', { get() { return this.a }, enumerable: true }); JSON.stringify(o)",
        "JSON.parse('['.repeat(1e7))",
        "new Proxy({}, { get(_, key, self) { return self[key] } }).a",
        "new ArrayBuffer(2_000_000_000)",
    ] {
        let run = client.run(code).await;
        assert_eq!(run.status(), "error", "{code}");
        assert!(["RangeError", "SyntaxError"].contains(&run.ename()), "{code}: {}", run.ename());
        is_kept(&mut client).await;
    }
    client.run(&"[".repeat(100_000)).await.failed("SyntaxError");
    is_kept(&mut client).await;
}

#[tokio::test]
async fn w07_what_cannot_be_interrupted_costs_the_worker_and_that_is_said() {
    let (_kernel, mut client) =
        started(speaking("javascript").argument("--interrupt-grace").argument("0.3")).await;
    let code = "console.log('on'); Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)";
    let cell = client.execute(code).await;
    client.printed(&cell, "on\n").await;
    client.interrupt().await;
    let run = client.finish(&cell).await.failed("InterruptedByForce");
    assert_eq!((run.code(), run.session_state()), ("interrupted_by_force", "lost"), "{:#}", run.reply);
    assert_eq!(client.run("typeof kept").await.ok().result(), "\"undefined\"");
}
