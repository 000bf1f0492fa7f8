//! The pool by itself, with workers that have no language: what takes thousands of them, or looks at the whole
//! process. One test at a time.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "every line is a test or helps one")]

mod custody;
mod frozen;
mod load;
mod stalled;

use cob_pool::{Lane, Leased, Pool, Program, Request, Worker, WorkerEvent};
use cob_protocol::frame::{DoneStatus, Execute, Frame};
use cob_protocol::handshake::{Hello, VERSIONS};
use cob_protocol::json::Json;
use cob_protocol::resources::Limits;
use cob_tests::within;

/// Held by the test that runs.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn request(program: Program) -> Request {
    let hello = Hello {
        versions: VERSIONS,
        session: "s1".to_owned(),
        options: Json::object(),
        umask: None,
        confined: false,
        survives: false,
        resumes: false,
    };
    Request { program, hello, limits: Limits::default() }
}

/// The language that has nothing but numbers, with these variables.
fn counting(variables: &[(&str, &str)]) -> Request {
    let environment = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
    let path = env!("CARGO_BIN_EXE_scripted-zygote").into();
    request(Program { path, arguments: Vec::new(), image: None, environment, directory: None })
}

async fn lease(pool: &Pool, request: &Request) -> Leased {
    within("a worker", pool.lease(request)).await.unwrap_or_else(|error| unreachable!("{error}"))
}

fn cell(execution: u64) -> Frame {
    let execute = Execute {
        execution,
        count: 1,
        silent: false,
        store_history: true,
        allow_stdin: false,
        user_expressions: Json::object(),
        parent: Json::object(),
    };
    execute.into()
}

/// Runs one execution, and gives back what it printed.
async fn execute(worker: &mut Worker, execution: u64, code: String) -> String {
    worker.send(&cell(execution), vec![code.into()], Lane::Data).unwrap();
    let mut printed = String::new();
    loop {
        match within("an event", worker.next()).await {
            WorkerEvent::Output(_, bytes) => printed.push_str(&String::from_utf8_lossy(&bytes)),
            WorkerEvent::Frame(Frame::Done(done), _) => {
                assert_eq!((done.execution, done.status), (execution, DoneStatus::Ok));
                return printed;
            }
            WorkerEvent::Frame(frame, _) => unreachable!("{frame:?}"),
            WorkerEvent::Gone(exit) => unreachable!("the worker {exit}"),
        }
    }
}
