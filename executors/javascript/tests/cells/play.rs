//! Plays a case against a worker, and compares.

use std::collections::VecDeque;
use std::fmt::Write as _;

use bytes::Bytes;
use cob_protocol::frame::{
    Answer, Call, Display, DoneStatus, Envelope, Failure, Frame, MimeEncoding, Outcome, StreamName,
};
use cob_protocol::json::Json;

use crate::case::{Case, Cell};
use crate::host::Host;

/// Plays it.
///
/// # Errors
/// What came instead of what was expected.
pub fn play(case: &Case) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in &case.files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let options = match &case.permissions {
        Some(permissions) => {
            let here = serde_json::to_string(folder.path()).unwrap();
            Json::parse(format!("{{\"permissions\":{}}}", permissions.replace("\".\"", &here))).unwrap()
        }
        None => Json::object(),
    };
    let mut host = Host::start(folder.path(), options);
    for cell in &case.cells {
        let shown = run(&mut host, cell).map_err(|why| format!("line {}: {why}", cell.line))?;
        compare(cell, shown)?;
    }
    Ok(())
}

/// What a cell has shown: kind (as behind a fence) and text, in the order in which it came, streams last.
type Shown = Vec<(String, String)>;

fn run(host: &mut Host, cell: &Cell) -> Result<Shown, String> {
    let execution = host.execute(&cell.code);
    let mut answers: VecDeque<_> = cell.answers.iter().collect();
    let mut shown = Shown::new();
    let [mut out, mut err] = [const { String::new() }; 2];
    if answers.front().is_some_and(|(kind, _)| kind == "interrupt now") {
        // It says that it runs by printing something.
        host.await_stdout(1)?;
        host.interrupt(execution);
    }
    loop {
        let Envelope { frame, payloads, .. } = host.next()?;
        match frame {
            Frame::Done(done) if done.execution == execution => {
                let is_told = shown.iter().any(|(kind, _)| kind == "error");
                if (done.status == DoneStatus::Ok) == is_told {
                    return Err(format!("it ended as {:?}, and {shown:?} was shown", done.status));
                }
                break;
            }
            Frame::Call(call) => answer(host, &call, answers.pop_front(), &mut shown),
            Frame::Stream(stream) => {
                let text = String::from_utf8_lossy(&payloads[0]).into_owned();
                match stream.name {
                    StreamName::Stdout => out += &text,
                    StreamName::Stderr => err += &text,
                }
            }
            Frame::Log(log) => shown.push(("log".to_owned(), format!("{}: {}", log.level, log.text))),
            frame => shown.extend(shown_by(frame, &payloads)),
        }
    }
    let printed = host.printed();
    for (kind, text) in [("stdout", printed[0].clone() + &out), ("stderr", printed[1].clone() + &err)] {
        if !text.is_empty() {
            shown.push((kind.to_owned(), text));
        }
    }
    late(host, cell, &mut shown)?;
    Ok(shown)
}

/// What is printed after the end, if something is to be.
fn late(host: &mut Host, cell: &Cell, shown: &mut Shown) -> Result<(), String> {
    for (kind, text) in &cell.expected {
        let stream = match kind.as_str() {
            "late-stdout" => StreamName::Stdout,
            "late-stderr" => StreamName::Stderr,
            _ => continue,
        };
        let mut came = String::new();
        while came.lines().count() < text.lines().count() {
            let Envelope { frame, payloads, .. } =
                host.next().map_err(|why| format!("{why}; late came {came:?}"))?;
            match frame {
                Frame::Stream(late) if late.name == stream => came += &String::from_utf8_lossy(&payloads[0]),
                other => return Err(format!("late came {other:?}")),
            }
        }
        shown.push((kind.clone(), came));
    }
    Ok(())
}

fn answer(host: &mut Host, call: &Call, answer: Option<&(String, String)>, shown: &mut Shown) {
    shown.push(("call".to_owned(), format!("{} {}", call.kind, call.arguments.as_str())));
    let outcome = match answer.map(|(kind, text)| (kind.as_str(), text)) {
        Some(("answer", json)) => Outcome::Value(Json::parse(json.clone()).unwrap()),
        Some(("eof", why)) => Outcome::Eof(why.clone()),
        Some(("declined", why)) => Outcome::Declined(why.clone()),
        Some(("interrupt", _)) => return host.interrupt(call.execution),
        _ => Outcome::Declined("nobody answers here".to_owned()),
    };
    host.send(Answer { request: call.request, outcome }, &[]);
}

fn shown_by(frame: Frame, payloads: &[Bytes]) -> Shown {
    match frame {
        Frame::Result(result) => representations("result", &result.display, payloads),
        Frame::Display(display) => representations("display", &display, payloads),
        Frame::UpdateDisplay(update) => representations("update", &update.0, payloads),
        Frame::ClearOutput(clear) => {
            vec![("clear".to_owned(), if clear.wait { "wait" } else { "now" }.to_owned())]
        }
        Frame::Error(Failure { ename, evalue, traceback, .. }) => {
            vec![(
                "error".to_owned(),
                format!("{ename}: {evalue}\n{}", without_colours(&traceback.join("\n"))),
            )]
        }
        Frame::Comm(comm) => vec![("comm".to_owned(), format!("{:?} {}", comm.action, comm.data.as_str()))],
        _ => Shown::new(),
    }
}

/// Each representation of a bundle; `result` alone is its plain text.
fn representations(kind: &str, display: &Display, payloads: &[Bytes]) -> Shown {
    let representation = |(mime, payload): (&cob_protocol::frame::Mime, &Bytes)| {
        let text = match mime.encoding {
            MimeEncoding::Binary => format!("<{} bytes>", payload.len()),
            _ => String::from_utf8_lossy(payload).into_owned(),
        };
        let is_plain_result = kind == "result" && mime.mime == "text/plain";
        (if is_plain_result { kind.to_owned() } else { format!("{kind} {}", mime.mime) }, text)
    };
    display.data.iter().zip(payloads).map(representation).collect()
}

fn compare(cell: &Cell, shown: Shown) -> Result<(), String> {
    let mut left = shown.clone();
    let mut missing = String::new();
    for (kind, text) in &cell.expected {
        let found = left.iter().position(|(shown, _)| shown == kind);
        let matches =
            |at: usize| if kind == "error" { is_told(text, &left[at].1) } else { is_like(text, &left[at].1) };
        match found {
            Some(at) if matches(at) => drop(left.remove(at)),
            _ => write!(missing, "expected {kind}:\n{text}\n").unwrap(),
        }
    }
    // Who expects the error, or one representation, need not list all others.
    let is_extra = |kind: &str| {
        cell.expected
            .iter()
            .any(|(known, _)| known.split(' ').next() == kind.split(' ').next() && kind.contains(' '))
    };
    let unexpected: Vec<_> = left.iter().filter(|(kind, _)| kind != "call" && !is_extra(kind)).collect();
    if missing.is_empty() && unexpected.is_empty() {
        return Ok(());
    }
    let came: String = shown.iter().map(|(kind, text)| format!("{kind}:\n{text}\n")).collect();
    Err(format!("line {}: {}\n{missing}what came:\n{came}", cell.line, cell.code))
}

/// The first line as it stands, the others somewhere behind it, in order.
fn is_told(expected: &str, error: &str) -> bool {
    let mut lines = error.lines();
    let mut expected = expected.lines();
    lines.next() == expected.next() && expected.all(|wanted| lines.any(|line| line.contains(wanted.trim())))
}

/// Line for line; `…` stands for any lines, and at the end of a line for the rest of it.
fn is_like(expected: &str, text: &str) -> bool {
    let text: Vec<_> = text.strip_suffix('\n').unwrap_or(text).split('\n').collect();
    let expected: Vec<_> = expected.split('\n').collect();
    lines_are_like(&expected, &text)
}

fn lines_are_like(expected: &[&str], text: &[&str]) -> bool {
    match (expected, text) {
        ([], []) => true,
        (["…", rest @ ..], _) => (0..=text.len()).any(|at| lines_are_like(rest, &text[at..])),
        ([wanted, expected @ ..], [line, text @ ..]) => {
            let is_same = match wanted.strip_suffix('…') {
                Some(start) => line.starts_with(start),
                None => wanted == line,
            };
            is_same && lines_are_like(expected, text)
        }
        _ => false,
    }
}

fn without_colours(text: &str) -> String {
    let mut parts = text.split('\u{1b}');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(part.split_once('m').map_or(part, |(_, rest)| rest));
    }
    plain
}
