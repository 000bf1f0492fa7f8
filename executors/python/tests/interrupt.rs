//! Interrupts and questions.
#![cfg(not(feature = "module"))]
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod support;

use cob_protocol::frame::{Complete, DoneStatus, Frame, Outcome, Ping, Pong, Shutdown};
use cob_protocol::json::Json;
use support::{Event, Host, done, result, text, with_each};

/// Starts code and waits until it says something.
fn start(host: &mut Host, code: &str) -> u64 {
    let execution = host.execute(&format!("print('go')\n{code}"));
    host.until(|event| matches!(event, Event::Text(_, text) if text.ends_with(b"\n")));
    execution
}

/// Starts code that asks, and waits for its question.
fn ask(host: &mut Host) -> (u64, u64) {
    let execution = host.execute("answer = input('? ')\nanswer");
    let events = host.until(|event| matches!(event, Event::Frame(Frame::Call(_), _)));
    let Some(Event::Frame(Frame::Call(call), _)) = events.last() else { panic!("{events:?}") };
    assert_eq!((call.execution, call.kind.as_str()), (execution, "input"));
    (execution, call.request)
}

fn works_on(host: &mut Host) {
    assert_eq!(result(&host.run("6 * 7")).as_deref(), Some("42"));
}

fn value(text: &str) -> Outcome {
    Outcome::Value(Json::of(&text).unwrap())
}

#[test]
fn running_code_is_interrupted_whatever_it_waits_for() {
    const WAITS: &[&str] = &[
        "while True: pass",
        "import time; time.sleep(1000)",
        "import threading; threading.Event().wait()",
        "import os; r, w = os.pipe(); os.read(r, 1)",
        "print('x' * (8 << 20))",
    ];
    with_each(|host| {
        for code in WAITS {
            let execution = start(host, code);
            host.interrupt(execution);
            let events = host.until_done(execution);
            assert_eq!(done(&events).status, DoneStatus::Interrupted, "{code}");
            works_on(host);
        }
    });
}

#[test]
fn a_question_can_be_interrupted_and_its_late_answer_hurts_nobody() {
    with_each(|host| {
        let (execution, request) = ask(host);
        host.interrupt(execution);
        assert_eq!(done(&host.until_done(execution)).status, DoneStatus::Interrupted);
        host.answer(request, value("too late"));
        works_on(host);
    });
}

#[test]
fn an_interrupt_for_another_execution_is_dropped() {
    with_each(|host| {
        works_on(host);
        let (execution, request) = ask(host);
        host.interrupt(execution - 1);
        host.interrupt(execution + 1000);
        host.answer(request, value("unharmed"));
        assert_eq!(result(&host.until_done(execution)).as_deref(), Some("'unharmed'"));
    });
}

#[test]
fn an_interrupt_while_nothing_runs_is_swallowed() {
    with_each(|host| {
        let execution = host.execute("1");
        host.until_done(execution);
        for target in [execution, 0, 99] {
            host.interrupt(target);
            works_on(host);
        }
    });
}

#[test]
fn code_that_was_interrupted_before_it_began_does_not_run() {
    with_each(|host| {
        host.page().aim_interrupt(1);
        let events = host.run("print('ran')");
        assert_eq!(done(&events).status, DoneStatus::Interrupted);
        assert_eq!(text(&events), "");
        works_on(host);
    });
}

#[test]
fn the_gate_survives_libraries_that_replace_the_handler() {
    with_each(|host| {
        host.run("import asyncio; asyncio.run(asyncio.sleep(0))");
        host.run("import signal; signal.signal(signal.SIGINT, signal.default_int_handler)");
        let (execution, request) = ask(host);
        host.interrupt(execution + 1000);
        host.answer(request, value("unharmed"));
        assert_eq!(result(&host.until_done(execution)).as_deref(), Some("'unharmed'"));
        let execution = start(host, "while True: pass");
        host.interrupt(execution);
        assert_eq!(done(&host.until_done(execution)).status, DoneStatus::Interrupted);
    });
}

#[test]
fn code_can_signal_itself() {
    with_each(|host| {
        let events = host.run("import signal\ntry: signal.raise_signal(signal.SIGINT)\nexcept KeyboardInterrupt: print('caught')");
        assert_eq!(text(&events), "caught\n");
    });
}

#[test]
fn a_question_gets_each_kind_of_answer() {
    with_each(|host| {
        for (outcome, expected) in [
            (value("Ada"), "'Ada'"),
            (Outcome::Eof("closed".to_owned()), "EOFError"),
            (Outcome::Declined("no".to_owned()), "EOFError"),
            (Outcome::TimedOut("late".to_owned()), "EOFError"),
        ] {
            let execution =
                host.execute("try: answer = input()\nexcept EOFError as e: answer = EOFError\nanswer.__name__ if isinstance(answer, type) else answer");
            let events = host.until(|event| matches!(event, Event::Frame(Frame::Call(_), _)));
            let Some(Event::Frame(Frame::Call(call), _)) = events.last() else { panic!("{events:?}") };
            host.answer(call.request, outcome);
            let got = result(&host.until_done(execution)).unwrap();
            assert_eq!(got.trim_matches('\''), expected.trim_matches('\''));
        }
    });
}

#[test]
fn while_a_question_waits_pings_are_answered_and_requests_keep_their_order() {
    with_each(|host| {
        let (execution, request) = ask(host);
        let next = host.execute("answer + '!'");
        host.send(Complete { request: 5, cursor: 4 }, &["answ".into()]);
        host.send(Ping { number: 3 }, &[]);
        assert_eq!(host.event(), Event::Frame(Frame::Pong(Pong { number: 3 }), vec![]));
        host.answer(request, value("Ada"));
        assert_eq!(result(&host.until_done(execution)).as_deref(), Some("'Ada'"));
        assert_eq!(result(&host.until_done(next)).as_deref(), Some("'Ada!'"));
        let events = host.until(|event| matches!(event, Event::Frame(Frame::Answer(_), _)));
        assert!(matches!(events.last(), Some(Event::Frame(Frame::Answer(answer), _)) if answer.request == 5));
    });
}

#[test]
fn a_shutdown_ends_a_question_with_the_end_of_input() {
    with_each(|host| {
        let (execution, _) = ask(host);
        host.send(Shutdown { restart: false }, &[]);
        assert_eq!(done(&host.until_done(execution)).status, DoneStatus::Error);
        host.until(|event| *event == Event::End);
        assert!(host.child.wait().unwrap().success());
    });
}
