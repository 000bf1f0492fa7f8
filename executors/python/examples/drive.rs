//! Runs the cells of a file in a worker and prints every frame and every piece of text:
//! `cargo run -p cob-python --example drive -- PYTHON FILE.py [--sources FOLDER]`
//!
//! Cells are separated by lines that begin with `# %%`. A word after it says what is done with the cell:
//! `complete`, `inspect`, `is_complete` (the cursor stands at its end), or `interrupt` (it is run, and
//! interrupted when it shows something). `--sources executors/python/cob` reads the Python half from the folder,
//! so that a change of it needs no build. Questions of the code are answered from standard input.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

#[cfg(not(feature = "module"))]
#[path = "../tests/support/mod.rs"]
mod support;

#[cfg(feature = "module")]
fn main() {}

#[cfg(not(feature = "module"))]
fn main() {
    drive::main();
}

#[cfg(not(feature = "module"))]
mod drive {
    use std::path::PathBuf;
    use std::time::Instant;

    use bytes::Bytes;
    use cob_protocol::frame::{Call, Complete, Frame, Inspect, IsComplete, Outcome};
    use cob_protocol::json::Json;

    use crate::support::{Event, Host, Start};

    pub(crate) fn main() {
        let mut arguments: Vec<String> = std::env::args().skip(1).collect();
        let sources = arguments.iter().position(|argument| argument == "--sources").map(|at| {
            let folder = PathBuf::from(arguments.remove(at + 1));
            arguments.remove(at);
            folder
        });
        let [python, file] = &arguments[..] else {
            eprintln!("drive PYTHON FILE.py [--sources FOLDER]");
            std::process::exit(2);
        };
        let text = std::fs::read_to_string(file).unwrap();
        let began = Instant::now();
        let mut host = Host::start(&Start { python, sources: sources.as_deref(), ..Start::default() });
        println!("ready after {:?}: {:?}", began.elapsed(), host.ready);
        for (kind, code) in cells(&text) {
            println!("--- {kind} {code:?}");
            let began = Instant::now();
            cell(&mut host, &kind, &code);
            println!("    {:?}", began.elapsed());
        }
        println!("--- shutdown");
        let (status, events) = host.shutdown();
        events.iter().for_each(print);
        println!("{status}");
    }

    fn cells(text: &str) -> Vec<(String, String)> {
        let mut cells = vec![(String::new(), String::new())];
        for line in text.split_inclusive('\n') {
            match line.strip_prefix("# %%") {
                Some(kind) => cells.push((kind.trim().to_owned(), String::new())),
                None => cells.last_mut().unwrap().1.push_str(line),
            }
        }
        cells.retain(|(_, code)| !code.trim().is_empty());
        cells
    }

    fn cell(host: &mut Host, kind: &str, code: &str) {
        let code = code.trim_end();
        let cursor = code.chars().count();
        let request = 1;
        let payload = [Bytes::copy_from_slice(code.as_bytes())];
        match kind {
            "complete" => host.send(Complete { request, cursor }, &payload),
            "inspect" => host.send(Inspect { request, cursor, detail: 0 }, &payload),
            "is_complete" => host.send(IsComplete { request }, &payload),
            _ => {
                let execution = host.execute(code);
                let mut interrupt = kind == "interrupt";
                loop {
                    let event = host.event();
                    print(&event);
                    match event {
                        Event::Frame(Frame::Done(done), _) if done.execution == execution => return,
                        Event::Frame(Frame::Call(call), _) if !interrupt => answer(host, &call),
                        Event::End => std::process::exit(1),
                        _ => {}
                    }
                    if std::mem::take(&mut interrupt) {
                        host.interrupt(execution);
                    }
                }
            }
        }
        loop {
            let event = host.event();
            print(&event);
            if matches!(event, Event::Frame(Frame::Answer(_), _) | Event::End) {
                return;
            }
        }
    }

    fn answer(host: &mut Host, call: &Call) {
        let mut line = String::new();
        let outcome = match std::io::stdin().read_line(&mut line) {
            Ok(0) | Err(_) => Outcome::Eof("the end of standard input".to_owned()),
            Ok(_) => Outcome::Value(Json::of(&line.trim_end_matches('\n')).unwrap()),
        };
        host.answer(call.request, outcome);
    }

    fn print(event: &Event) {
        match event {
            Event::Text(name, bytes) => println!("{}: {:?}", name.as_str(), String::from_utf8_lossy(bytes)),
            Event::Frame(frame, payloads) => {
                println!("{frame:?}");
                for payload in payloads {
                    let text = String::from_utf8_lossy(payload);
                    let short: String = text.chars().take(2000).collect();
                    println!("    {short:?}");
                }
            }
            Event::End => println!("(end of the socket)"),
        }
    }
}
