//! Interrupts that a session survives (W07), recursion and heaps that end in an error of the user's (R07), and code that
//! keeps running between cells: each against a worker process of its own, which is this program, started once more.
#![allow(missing_docs, unreachable_pub, dead_code, clippy::unwrap_used, clippy::panic)]

#[path = "../cells/host.rs"]
mod host;

use bytes::Bytes;
use cob_protocol::frame::{DoneStatus, Envelope, Execute, Frame, StreamName};
use cob_protocol::json::Json;

use host::Host;

/// What runs until it is told to stop. Each prints `on` when it is on its way.
const ENDLESS: &[(&str, &str)] = &[
    ("a loop", "on(); while (true) {}"),
    ("a loop that catches", "on(); for (;;) { try { for (;;) {} } catch {} finally { for (;;) {} } }"),
    ("promises", "on(); const f = () => Promise.resolve().then(f); f()"),
    ("many promises", "on(); const g = () => Promise.resolve().then(g); for (let i = 0; i < 50; i++) g()"),
    ("await of what is there", "on(); for (;;) await null"),
    ("await of a timer", "on(); await new Promise((r) => setTimeout(r, 1e9))"),
    ("await while an interval runs", "setInterval(() => {}, 5); on(); await new Promise(() => {})"),
    ("a generator", "on(); const n = function* () { for (;;) yield 1 }; for (const x of n()) {}"),
    ("a getter", "on(); ({ get a() { for (;;) {} } }).a"),
    ("a trap of a proxy", "on(); new Proxy({}, { get() { for (;;) {} } }).a"),
    ("a regular expression", "on(); /(a+)+b/.test('a'.repeat(40))"),
    ("a comparison of sort", "on(); [3, 2, 1].sort(() => { for (;;) {} })"),
    ("a static block", "on(); class A { static { for (;;) {} } }"),
    (
        "WebAssembly",
        "const wasm = new Uint8Array([0,97,115,109,1,0,0,0,1,4,1,96,0,0,3,2,1,0,7,5,1,1,102,0,0,10,9,1,7,0,3,64,12,0,\
         11,11]); const { instance } = await WebAssembly.instantiate(wasm); on(); instance.exports.f()",
    ),
    ("a timer of the cell itself", "setTimeout(() => { on(); for (;;) {} }, 1); await new Promise(() => {})"),
    ("an inspection", "on(); ({ [Symbol.for('Deno.customInspect')]() { for (;;) {} } })"),
    ("a display", "on(); ({ [Symbol.for('Jupyter.display')]() { for (;;) {} } })"),
    (
        "a getter of what is thrown",
        "on(); throw Object.defineProperty(new Error(), 'message', { get() { for (;;) {} } })",
    ),
];

fn main() {
    if std::env::args_os().skip(1).eq(host::WORKER) {
        cob_javascript::main();
    }
    let filters: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let tests: &[(&str, fn())] = &[
        ("whatever_runs_is_stopped_and_the_session_goes_on", whatever_runs_is_stopped),
        ("two_hundred_interrupts_in_a_row", two_hundred_in_a_row),
        ("an_interrupt_before_the_cell_begins", before_it_begins),
        ("a_storm_between_cells_ends_and_is_told", a_storm_between_cells),
        ("a_timer_that_does_not_end_between_cells", a_loop_between_cells),
        ("a_cell_that_waits_behind_the_background_is_interrupted", a_cell_that_waits),
        ("a_busy_background_lets_questions_through", a_busy_background),
        ("timers_go_on_after_an_interrupt", timers_go_on),
        ("the_heap_can_be_used_again_and_again", the_heap_again_and_again),
        ("deep_recursion_is_an_error", deep_recursion),
        ("expressions_are_answered_as_values_are_shown", expressions),
    ];
    let is_wanted =
        |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    let wanted: Vec<_> = tests.iter().filter(|(name, _)| is_wanted(name)).collect();
    let mut failed = 0;
    // At once: each has a worker of its own, and some let theirs compute for many seconds.
    std::thread::scope(|scope| {
        let running: Vec<_> = wanted.iter().map(|(name, test)| (name, scope.spawn(test))).collect();
        for (name, test) in running {
            let is_ok = test.join().is_ok();
            failed += usize::from(!is_ok);
            println!("test {name} ... {}", if is_ok { "ok" } else { "FAILED" });
        }
    });
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {verdict}. {} passed; {failed} failed; 0 ignored", wanted.len() - failed);
    std::process::exit(i32::from(failed > 0));
}

/// A session.
struct Session(Host, String);

/// How a cell ended.
#[derive(Debug)]
struct Ended {
    status: DoneStatus,
    /// `ename: evalue`
    error: String,
    result: String,
    late: String,
}

impl Session {
    fn new() -> Self {
        let mut session = Self(Host::start(&std::env::temp_dir(), Json::object()), String::new());
        assert_eq!(session.run("var kept = 41; function on() { console.log('on') }").status, DoneStatus::Ok);
        session
    }

    fn run(&mut self, code: &str) -> Ended {
        self.1 = code.to_owned();
        let execution = self.0.execute(code);
        self.end(execution)
    }

    #[track_caller]
    fn end(&mut self, execution: u64) -> Ended {
        let (mut error, mut result, mut late) = (String::new(), String::new(), String::new());
        loop {
            let Envelope { frame, payloads, .. } =
                self.0.next().unwrap_or_else(|why| panic!("{}: {why}", self.1));
            match frame {
                Frame::Error(failure) => error = format!("{}: {}", failure.ename, failure.evalue),
                Frame::Result(_) => result = String::from_utf8_lossy(&payloads[0]).into_owned(),
                Frame::Stream(stream) if stream.name == StreamName::Stderr => {
                    late += &format!("{}: {}", stream.execution, String::from_utf8_lossy(&payloads[0]));
                }
                Frame::Done(done) if done.execution == execution => {
                    return Ended { status: done.status, error, result, late };
                }
                _ => {}
            }
        }
    }

    /// Starts what does not end, and stops it.
    #[track_caller]
    fn stop(&mut self, what: &str, code: &str) {
        self.1 = code.to_owned();
        let execution = self.0.execute(code);
        self.0.await_stdout(1).unwrap_or_else(|why| panic!("{what}: {why}"));
        self.0.interrupt(execution);
        let ended = self.end(execution);
        self.0.printed();
        assert_eq!(ended.status, DoneStatus::Interrupted, "{what}: {ended:?}");
        assert!(ended.error.starts_with("KeyboardInterrupt: "), "{what}: {ended:?}");
    }

    #[track_caller]
    fn is_usable(&mut self, what: &str) {
        let ended = self.run("kept + 1");
        assert_eq!((ended.status, ended.result.as_str()), (DoneStatus::Ok, "42"), "after {what}: {ended:?}");
    }
}

fn whatever_runs_is_stopped() {
    let mut session = Session::new();
    for (what, code) in ENDLESS {
        session.stop(what, code);
        session.is_usable(what);
    }
}

fn two_hundred_in_a_row() {
    let mut session = Session::new();
    for round in 0..200 {
        let (what, code) = ENDLESS[[0, 2, 4, 5][round % 4]];
        session.stop(what, code);
    }
    session.is_usable("200 interrupts");
}

fn before_it_begins() {
    let mut session = Session::new();
    let first = session.0.execute("on(); while (true) {}");
    session.0.await_stdout(1).unwrap();
    let second = session.0.execute("kept = 0");
    // Aimed at what only waits, it must not stop what runs.
    session.0.interrupt(second);
    session.0.interrupt(first);
    assert_eq!(session.end(first).status, DoneStatus::Interrupted);
    let waited = session.end(second);
    // Whether it was stopped depends on whom the second signal found; what it says is true either way.
    let kept = session.run("kept").result;
    assert_eq!(kept, if waited.status == DoneStatus::Ok { "0" } else { "41" });
}

fn a_storm_between_cells() {
    let mut session = Session::new();
    // Without a result: promises that wait for each other would use up the heap first.
    let code = "setTimeout(() => { on(); const f = () => { Promise.resolve().then(f) }; f() }, 1); 0";
    assert_eq!(session.run(code).result, "0");
    session.is_stopped_between_cells("a storm");
}

fn a_loop_between_cells() {
    let mut session = Session::new();
    assert_eq!(session.run("setTimeout(() => { on(); for (;;) {} }, 1); 0").result, "0");
    session.is_stopped_between_cells("a loop");
}

impl Session {
    /// Nobody interrupts it, and yet the next cell runs.
    #[track_caller]
    fn is_stopped_between_cells(&mut self, what: &str) {
        self.await_late_on();
        let ended = self.run("kept + 1");
        assert_eq!(ended.result, "42", "{what}: {ended:?}");
        assert!(
            ended.late.starts_with("2: Uncaught Error: code that ran on between cells"),
            "{what}: {ended:?}"
        );
        self.is_usable(what);
    }

    fn await_late_on(&mut self) {
        loop {
            let Envelope { frame, payloads, .. } = self.0.next().unwrap();
            if matches!(frame, Frame::Stream(_)) && payloads[0].starts_with(b"on") {
                return;
            }
        }
    }
}

/// What keeps a worker from reading the next cell, and would run until the runtime loses patience.
const IN_THE_WAY: &[(&str, &str)] = &[
    ("a loop in a timer", "setTimeout(() => { on(); for (;;) {} }, 1); 0"),
    (
        "a storm of promises",
        "setTimeout(() => { on(); const f = () => { Promise.resolve().then(f) }; f() }, 1); 0",
    ),
    (
        "a loop after an await",
        "(async () => { await new Promise((r) => setTimeout(r, 1)); on(); for (;;) {} })(); 0",
    ),
];

fn a_cell_that_waits() {
    let mut session = Session::new();
    for (what, code) in IN_THE_WAY {
        assert_eq!(session.run(code).result, "0", "{what}");
        session.await_late_on();
        let execution = session.0.execute("kept = 0");
        session.0.interrupt(execution);
        let ended = session.end(execution);
        assert_eq!(ended.status, DoneStatus::Interrupted, "{what}: {ended:?}");
        assert!(ended.error.starts_with("KeyboardInterrupt: "), "{what}: {ended:?}");
        // Nobody else has stopped what was in the way.
        assert_eq!(ended.late, "", "{what}");
        session.is_usable(what);
    }
}

/// What begins its next turn in each, so that there is always something to do; and how many of them may come between two
/// requests: a channel hands out as many messages at once as the event loop lets it.
const BUSY: &[(&str, u32)] = &[
    ("setInterval(() => { const end = Date.now() + 10; while (Date.now() < end); turns++ }, 1)", 4),
    (
        "const { port1, port2 } = new MessageChannel(); port2.postMessage(0); \
         port1.onmessage = () => { const end = Date.now() + 2; while (Date.now() < end); turns++; port2.postMessage(0) }",
        300,
    ),
];

fn a_busy_background() {
    for (background, turns_max) in BUSY {
        let mut session = Session::new();
        session.run(&format!("var turns = 0; {background}; 0"));
        let mut before = 0;
        for _ in 0..10 {
            let ended = session.run("turns");
            // Nobody had to stop it.
            assert_eq!(ended.late, "", "{background}");
            let turns: u32 = ended.result.parse().unwrap();
            assert!(turns - before <= *turns_max, "{background}: {before} {turns}");
            before = turns;
        }
        assert!(before > 0, "{background}");
    }
}

fn timers_go_on() {
    let mut session = Session::new();
    session.run("var ticks = 0; setInterval(() => { ticks += 1 }, 2); 0");
    session.stop("a timer", "setTimeout(() => { on(); for (;;) {} }, 1); await new Promise(() => {})");
    let ended = session.run(
        "const before = ticks; while (ticks < before + 3) await new Promise((r) => setTimeout(r, 2)); 1",
    );
    assert_eq!(ended.result, "1", "{ended:?}");
}

fn the_heap_again_and_again() {
    let mut session = Session::new();
    for round in 0..3 {
        let ended = session.run("{ const hog = []; for (;;) hog.push(new Array(500).fill(0.5)) }");
        assert!(ended.error.starts_with("RangeError: out of memory"), "{round}: {ended:?}");
        session.is_usable("a heap that was full");
    }
    assert_eq!(session.run("new ArrayBuffer(600_000_000).byteLength").result, "600000000");
}

fn deep_recursion() {
    let mut session = Session::new();
    for code in [
        "(function f() { return f() + 1 })()",
        "({ get a() { return this.a } }).a",
        "const p = new Proxy({}, { get(t, k, r) { return r[k] } }); p.x",
        "const o = { toString() { return `${this}` } }; `${o}`",
        "const o2 = { valueOf() { return +this } }; +o2",
        "class A { constructor() { new A() } } new A()",
        "[1].forEach(function f() { [1].forEach(f) })",
        "'a'.replace(/a/, function f() { return 'a'.replace(/a/, f) })",
        "JSON.parse('[1]', function f() { return JSON.parse('[1]', f) })",
        "const e = (n) => eval('e(n + 1)'); e(0)",
        "function* g() { yield* g() } [...g()]",
        "let n = []; for (let i = 0; i < 1e6; i++) n = [n]; n.flat(Infinity)",
    ] {
        let ended = session.run(code);
        assert!(ended.error.starts_with("RangeError: Maximum call stack"), "{code}: {ended:?}");
        session.is_usable(code);
    }
}

fn expressions() {
    let mut session = Session::new();
    let wanted = serde_json::json!({
        "plain": "[1, 'a']",
        "rich": "cob.html`<b>${kept}</b>`",
        "bytes": "new Uint8Array([137, 80, 78, 71, 13, 10, 26, 10, 0])",
        "later": "await Promise.resolve({ a: 1 })",
        "wrong": "{ a: kept.b.c }",
    });
    let execute = Execute {
        execution: 1000,
        count: 1000,
        silent: false,
        store_history: true,
        allow_stdin: false,
        user_expressions: Json::of(&wanted).unwrap(),
        parent: Json::object(),
    };
    session.0.send(execute, &[Bytes::from_static(b"0")]);
    let answers = loop {
        if let Frame::Done(done) = session.0.next().unwrap().frame
            && done.execution == 1000
        {
            break serde_json::from_str::<serde_json::Value>(done.user_expressions.as_str()).unwrap();
        }
    };
    let data = |name: &str| {
        assert_eq!(answers[name]["status"], "ok", "{answers:#}");
        assert_eq!(answers[name]["metadata"], serde_json::json!({}));
        answers[name]["data"].clone()
    };
    assert_eq!(data("plain"), serde_json::json!({ "text/plain": "[ 1, \"a\" ]" }));
    assert_eq!(data("later"), serde_json::json!({ "text/plain": "{ a: 1 }" }));
    let html = "<b>41</b>";
    assert_eq!(data("rich"), serde_json::json!({ "text/html": html, "text/plain": html }));
    assert_eq!(data("bytes"), serde_json::json!({ "image/png": "iVBORw0KGgoA" }));
    let wrong = &answers["wrong"];
    assert_eq!((&wrong["status"], &wrong["ename"]), (&"error".into(), &"TypeError".into()), "{answers:#}");
    // The place is that of the text that was asked.
    assert!(wrong["traceback"].to_string().contains("<expression>:1:13"), "{wrong:#}");
}
