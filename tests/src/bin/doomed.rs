//! A server that is killed. In the folder that is its first argument it keeps what it knows: `log` is what it recorded,
//! `custody` is where its worker is. With an empty folder it starts a worker, else it takes the last one's over.
//!
//! The second argument says what the worker is told (when there is none yet), the third where the server kills itself:
//! `never`, `begun` (there is a custodian, and no worker), `taken` (the worker is in its hands, and not deposited again),
//! `deposited` (it is, and nobody knows), `waits` (for somebody else to do it), or an event and a moment: `7.given`,
//! `7.logged`, `7.recorded`, or a time in microseconds after which it strikes wherever it is: `after.1500`. The fourth is
//! the grace in milliseconds. `COB_TEST_LIMITS` holds the limits of the session, `COB_TEST_POOL` names the socket of
//! the pool that its worker comes from (`own`: one of its own), `COB_TEST_WORKER` the program of one that is started.
//! With `COB_TEST_THAWED` the worker is one that goes on from a checkpoint, which is `kept` or `dropped`.
#![allow(clippy::unwrap_used, reason = "it is a test")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cob_pool::{
    Custodian, Deposit, Frozen, Lane, Origin, Place, Pool, PoolConfig, Program, Request, SharedPool, Thaw,
    Worker, WorkerEvent, Workers, take_over,
};
use cob_protocol::frame::{Execute, Frame, StreamName};
use cob_protocol::handshake::{Hello, VERSIONS};
use cob_protocol::json::Json;
use cob_protocol::resources::Limits;
use cob_tests::custody::{Entry, entries, mend, progress};
use cob_tests::process;
use rustix::event::{Timespec, poll};
use rustix::process::{Signal, getpid, kill_process};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, order, doom, grace_ms] = &arguments[..] else { unreachable!("{arguments:?}") };
    if let Some(micros) = doom.strip_prefix("after.") {
        let micros: i64 = micros.parse().unwrap();
        std::thread::spawn(move || {
            let after = Timespec { tv_sec: micros / 1_000_000, tv_nsec: micros % 1_000_000 * 1000 };
            poll(&mut [], Some(&after)).unwrap();
            kill_process(getpid(), Signal::KILL).unwrap();
        });
    }
    let grace = Duration::from_millis(grace_ms.parse().unwrap());
    Server { folder: folder.into(), doom: doom.clone() }.run(order, grace).await;
}

struct Server {
    folder: PathBuf,
    doom: String,
}

fn program(name: &str) -> Program {
    let path = std::env::current_exe().unwrap().with_file_name(name);
    Program { path, arguments: Vec::new(), image: None, environment: Vec::new(), directory: None }
}

/// A worker in the place of `first`, and the checkpoint that it goes on from.
async fn thawed(mut first: Worker, request: &Request) -> (Worker, Frozen) {
    let freezing = first.freeze(false).unwrap();
    let mut frozen = std::pin::pin!(freezing.frozen());
    let frozen = loop {
        tokio::select! {
            frozen = &mut frozen => break frozen.unwrap(),
            _ = first.next() => {}
        }
    };
    // The end of one overlaps with the start of the other.
    first.kill();
    let thaw = Thaw { hello: request.hello.clone(), limits: request.limits.clone(), place: Place::Same };
    let worker = frozen.thaw(&thaw).await.unwrap().worker;
    while !matches!(first.next().await, WorkerEvent::Gone(_)) {}
    (worker, frozen)
}

impl Server {
    /// The place where it may be meant to die.
    fn at(&self, place: &str) {
        if self.doom == place {
            kill_process(getpid(), Signal::KILL).unwrap();
        }
    }

    async fn run(&self, order: &str, grace: Duration) {
        mend(&self.folder).unwrap();
        let custody = self.folder.join("custody");
        let (mut worker, custodian) = match fs::read_to_string(&custody) {
            Err(_) => self.start(order, grace).await,
            Ok(text) => {
                let (socket, secret) = text.split_once('\n').unwrap();
                let recorded = progress(&entries(&self.folder));
                let taken = take_over((Path::new(socket), secret), recorded).await.unwrap();
                assert_eq!(taken.note, "a note");
                self.at("taken");
                let deposit = taken.custodian.deposit(&taken.worker, "a note").await.unwrap();
                self.at("deposited");
                self.remember(&deposit);
                taken.custodian.release(secret);
                (taken.worker, taken.custodian)
            }
        };
        // Whoever started it may want to know.
        let parent = process::parent(worker.pid()).unwrap_or(0);
        println!("{} {} {parent}", worker.pid(), custodian.pid());
        self.serve(&mut worker).await;
        drop((worker, custodian));
        cob_pool::cleared().await;
    }

    async fn start(&self, order: &str, grace: Duration) -> (Worker, Custodian) {
        let custodian = Custodian::start(&program("custodian"), &self.folder, grace).await.unwrap();
        if self.doom == "begun" {
            println!("0 {}", custodian.pid());
        }
        self.at("begun");
        let hello = Hello {
            versions: VERSIONS,
            session: "s1".to_owned(),
            options: Json::object(),
            umask: None,
            confined: false,
            survives: true,
            resumes: false,
        };
        let limits = std::env::var("COB_TEST_LIMITS").unwrap_or_default().parse::<Limits>().unwrap();
        let (workers, program) = match std::env::var_os("COB_TEST_POOL") {
            None => {
                let name = std::env::var("COB_TEST_WORKER").unwrap_or_else(|_| "survivor".to_owned());
                (Workers::Cold, program(&name))
            }
            Some(own) if own == "own" => {
                let pool = Pool::start(PoolConfig { spares: 1, ..PoolConfig::default() });
                (Workers::Pool(pool), program("scripted-zygote"))
            }
            Some(path) => {
                let pool = SharedPool::at(path.into(), "build".to_owned());
                (Workers::Shared(pool), program("scripted-zygote"))
            }
        };
        let request = Request { program, hello, limits };
        let mut leased = workers.lease(&request).await.unwrap();
        // Until there is a zygote, a pool starts workers.
        while matches!(workers, Workers::Pool(_)) && leased.origin == Origin::Cold {
            leased = workers.lease(&request).await.unwrap();
        }
        let mut worker = leased.worker;
        if let Ok(how) = std::env::var("COB_TEST_THAWED") {
            let (thawed, frozen) = thawed(worker, &request).await;
            worker = thawed;
            match &how[..] {
                // For as long as the server lives.
                "kept" => std::mem::forget(frozen),
                _ => {
                    let pid = frozen.pid();
                    drop(frozen);
                    process::ended(pid).await;
                }
            }
        }
        worker.record(worker.given());
        self.log(&Entry::Frame(worker.given().frames, 0));
        let deposit = custodian.deposit(&worker, "a note").await.unwrap();
        self.remember(&deposit);
        let execute = Execute {
            execution: 1,
            count: 1,
            silent: false,
            store_history: true,
            allow_stdin: false,
            user_expressions: Json::object(),
            parent: Json::object(),
        };
        worker.send(&execute.into(), vec![order.to_owned().into()], Lane::Data).unwrap();
        (worker, custodian)
    }

    async fn serve(&self, worker: &mut Worker) {
        for event in 1.. {
            let entry = match worker.next().await {
                WorkerEvent::Output(StreamName::Stdout, bytes) => Entry::Output(bytes.to_vec()),
                WorkerEvent::Output(StreamName::Stderr, bytes) => unreachable!("{bytes:?}"),
                WorkerEvent::Frame(Frame::Attached(_), _) => Entry::Attached,
                WorkerEvent::Frame(Frame::Display(display), _) => {
                    Entry::Frame(worker.given().frames, display.execution)
                }
                WorkerEvent::Frame(Frame::Done(_), _) => Entry::Done,
                WorkerEvent::Frame(frame, _) => unreachable!("{frame:?}"),
                WorkerEvent::Gone(exit) => Entry::Gone(exit.to_string()),
            };
            self.at(&format!("{event}.given"));
            let is_last = matches!(entry, Entry::Done | Entry::Gone(_));
            self.log(&entry);
            self.at(&format!("{event}.logged"));
            worker.record(worker.given());
            self.at(&format!("{event}.recorded"));
            if is_last {
                return;
            }
        }
    }

    fn log(&self, entry: &Entry) {
        let log = self.folder.join("log");
        let mut log = fs::OpenOptions::new().append(true).create(true).open(log).unwrap();
        log.write_all(&entry.bytes()).unwrap();
    }

    fn remember(&self, deposit: &Deposit) {
        let (new, place) = (self.folder.join("custody.new"), self.folder.join("custody"));
        fs::write(&new, format!("{}\n{}", deposit.socket.display(), deposit.secret)).unwrap();
        fs::rename(new, place).unwrap();
    }
}
