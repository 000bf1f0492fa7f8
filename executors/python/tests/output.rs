//! What code shows, in which order, and what cannot be shown.
#![cfg(not(feature = "module"))]
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod support;

use cob_protocol::frame::{DoneStatus, Frame, StreamName};
use support::{Event, Host, done, result, text, with_each};

/// Everything shown, one string per event that belongs to `execution`.
fn shown(events: &[Event]) -> String {
    let mut all = String::new();
    for event in events {
        match event {
            Event::Text(_, bytes) => all.push_str(&String::from_utf8_lossy(bytes)),
            Event::Frame(Frame::Display(_), payloads) => all.push_str(&String::from_utf8_lossy(&payloads[0])),
            _ => {}
        }
    }
    all
}

#[test]
fn a_hundred_thousand_outputs_of_four_kinds_keep_their_order() {
    const CODE: &str = "
import os, sys, _cob
for i in range(0, 100_000, 4):
    os.write(1, b'%d\\n' % i)
    print(i + 1)
    print(i + 2, file=sys.stderr)
    _cob.display([('text/plain', 't', f'{i + 3}\\n')], '{}', '{}', False)
";
    with_each(|host| {
        let events = host.run(CODE);
        let all = shown(&events);
        let numbers: Vec<u32> = all.lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(numbers.len(), 100_000);
        assert!(numbers.iter().copied().eq(0..100_000), "out of order");
    });
}

#[test]
fn alternating_streams_keep_their_order() {
    with_each(|host| {
        let events = host.run(
            "import sys\nfor i in range(20_000): print(i, file=(sys.stdout, sys.stderr)[i * 7 % 3 % 2])",
        );
        let numbers: Vec<u32> = text(&events).lines().map(|line| line.parse().unwrap()).collect();
        assert!(numbers.into_iter().eq(0..20_000), "out of order");
    });
}

#[test]
fn children_and_c_code_write_in_order_and_before_the_end() {
    const CODE: &str = "
import ctypes, os, subprocess
print('python')
os.system('echo shell')
print('again')
subprocess.run(['echo', 'child'])
ctypes.CDLL(None).printf(b'c code\\n')
";
    with_each(|host| {
        let events = host.run(CODE);
        assert_eq!(text(&events), "python\nshell\nagain\nchild\nc code\n");
        assert_eq!(done(&events).at.stdout, text(&events).len() as u64);
    });
}

#[test]
fn text_that_is_no_unicode_and_text_larger_than_the_pipe_arrive() {
    with_each(|host| {
        let events = host.run("print('a\\udc80é\\U0001f600\\0b')");
        assert_eq!(text(&events), "a\\udc80é\u{1f600}\0b\n");
        let events = host.run("import sys; sys.stdout.write('é' * 4_000_000)");
        assert_eq!(text(&events).len(), 8_000_000);
        assert_eq!(result(&events).as_deref(), Some("4000000"));
    });
}

#[test]
fn two_threads_do_not_mix_their_large_writes() {
    const CODE: &str = "
import sys, threading
def work(letter):
    for _ in range(3): sys.stdout.write(letter * 3_000_000)
threads = [threading.Thread(target=work, args=(letter,)) for letter in 'ab']
for thread in threads: thread.start()
for thread in threads: thread.join()
";
    with_each(|host| {
        let text = text(&host.run(CODE));
        assert_eq!(text.len(), 18_000_000);
        let bytes = text.as_bytes();
        assert!(
            (0..6).all(|i| bytes[i * 3_000_000..][..3_000_000].iter().all(|b| *b == bytes[i * 3_000_000]))
        );
    });
}

#[test]
fn frames_of_many_threads_stay_whole() {
    const CODE: &str = "
import threading, _cob
def work(letter):
    for _ in range(20): _cob.display([('text/plain', 't', letter * 300_000)], '{}', '{}', False)
threads = [threading.Thread(target=work, args=(letter,)) for letter in 'abcd']
for thread in threads: thread.start()
for thread in threads: thread.join()
";
    with_each(|host| {
        let events = host.run(CODE);
        let payloads = events.iter().filter_map(|event| match event {
            Event::Frame(Frame::Display(_), payloads) => Some(&payloads[0]),
            _ => None,
        });
        let mut count = 0;
        for payload in payloads {
            assert!(payload.len() == 300_000 && payload.iter().all(|b| *b == payload[0]));
            count += 1;
        }
        assert_eq!(count, 80);
    });
}

#[test]
fn an_output_too_large_for_a_frame_is_an_error_that_names_size_and_cap() {
    with_each(|host| {
        let events =
            host.run("import _cob; _cob.display([('image/png', 'b', bytes(40 << 20))], '{}', '{}', False)");
        let error = events.iter().find_map(|event| match event {
            Event::Frame(Frame::Error(failure), _) => Some(failure.clone()),
            _ => None,
        });
        let error = error.unwrap();
        assert_eq!(error.ename, "ValueError");
        assert!(error.evalue.contains("41943") && error.evalue.contains("33554432"), "{}", error.evalue);
        assert_eq!(result(&host.run("'still ' + 'here'")).as_deref(), Some("'still here'"));
    });
}

#[test]
fn an_error_too_large_for_a_frame_is_cut() {
    with_each(|host| {
        let events = host.run("import _cob; _cob.error('E', 'é' * 3_000_000, ['line\\n'] * 900_000)");
        let Some(Event::Frame(Frame::Error(failure), _)) = events.first() else { panic!("{:?}", events[0]) };
        assert!(failure.evalue.ends_with("bytes are left out]") && failure.traceback.len() == 9);
        assert_eq!(done(&events).status, DoneStatus::Ok);
    });
}

#[test]
fn broken_json_is_refused_where_it_is_made() {
    with_each(|host| {
        let events = host.run("import _cob\ntry: _cob.display([('a/b', 'j', '{')], '{}', '{}')\nexcept ValueError as e: print(e)");
        assert!(text(&events).starts_with("not JSON"), "{events:?}");
    });
}

#[test]
fn late_text_names_the_execution_it_belongs_to() {
    const START: &str = "
import contextvars, threading
go, said = threading.Event(), threading.Event()
def work():
    go.wait(); print('late'); said.set()
threading.Thread(target=contextvars.copy_context().run, args=(work,)).start()
";
    with_each(|host| {
        let first = host.execute(START);
        host.until_done(first);
        let events = host.run("print('now'); go.set(); said.wait(); print('then')");
        let streams: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                Event::Frame(Frame::Stream(stream), payloads) => {
                    Some((stream.execution, stream.name, payloads[0].to_vec()))
                }
                _ => None,
            })
            .collect();
        let late: Vec<u8> = streams.iter().flat_map(|(_, _, text)| text.clone()).collect();
        assert_eq!(late, b"late\n");
        assert!(
            streams.iter().all(|(execution, name, _)| (*execution, *name) == (first, StreamName::Stdout))
        );
        assert_eq!(text(&events), "now\nthen\n");
    });
}

#[test]
fn a_forked_child_prints_like_any_process_and_sends_nothing() {
    const CODE: &str = "
import os, sys, _cob
print('before')
child = os.fork()
if child == 0:
    print('in the child', _cob.is_child())
    _cob.display([('text/plain', 't', 'shown by the child')], '{}', '{}', False)
    try: input()
    except EOFError: print('no input')
    print('err', file=sys.stderr)
else:
    os.waitpid(child, 0)
    print('after', _cob.is_child())
";
    with_each(|host| {
        let events = host.run(CODE);
        let out: Vec<u8> = events
            .iter()
            .filter_map(|event| match event {
                Event::Text(StreamName::Stdout, bytes) => Some(bytes.clone()),
                _ => None,
            })
            .flatten()
            .collect();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "before\nin the child True\nshown by the child\nno input\nafter False\n"
        );
        assert_eq!(done(&events).status, DoneStatus::Ok);
        works_on(host);
    });
}

#[test]
fn multiprocessing_works() {
    const CODE: &str = "
import multiprocessing
with multiprocessing.get_context('fork').Pool(2) as pool: print(pool.map(abs, [-1, -2, -3]))
";
    with_each(|host| {
        assert_eq!(text(&host.run(CODE)), "[1, 2, 3]\n");
        works_on(host);
    });
}

fn works_on(host: &mut Host) {
    assert_eq!(result(&host.run("6 * 7")).as_deref(), Some("42"));
}
