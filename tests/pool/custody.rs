//! Workers that outlive their server: real custodians, servers that are killed, and a worker that moves from one to the
//! next. `src/bin/doomed.rs` is the server.

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cob_pool::limits::Cgroups;
use cob_pool::{
    Build, Custodian, CustodyError, Exit, Lane, Listener, Pool, PoolConfig, Program, Progress, Taken, Worker,
    WorkerEvent, take_over,
};
use cob_protocol::frame::{Execute, Frame, StreamName};
use cob_protocol::json::Json;
use cob_protocol::resources::Limits;
use cob_tests::custody::{Entry, entries, progress};
use cob_tests::{cgroups, process, within};
use rustix::process::Signal;
use tempfile::TempDir;

const LONG: &str = "60000";

/// A server that was started, its worker and its custodian.
struct Server {
    child: Child,
    worker: u32,
    custodian: u32,
    /// The worker's parent.
    parent: u32,
}

impl Server {
    fn start(folder: &Path, order: &str, doom: &str, grace_ms: &str) -> Self {
        Self::start_with(folder, order, doom, grace_ms, &[])
    }

    fn start_with(
        folder: &Path,
        order: &str,
        doom: &str,
        grace_ms: &str,
        variables: &[(&str, &str)],
    ) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_doomed"));
        command.envs(variables.iter().copied());
        command.arg(folder).args([order, doom, grace_ms]).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let mut numbers = line.split_whitespace().map(|number| number.parse().unwrap_or(0));
        let (worker, custodian) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        Self { child, worker, custodian, parent: numbers.next().unwrap_or(0) }
    }

    fn end(mut self) -> Option<i32> {
        std::os::unix::process::ExitStatusExt::signal(&self.child.wait().unwrap())
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// What is written in the folder about where the worker is.
fn custody(folder: &Path) -> (String, String) {
    let text = std::fs::read_to_string(folder.join("custody")).unwrap();
    let (socket, secret) = text.split_once('\n').unwrap();
    (socket.to_owned(), secret.to_owned())
}

async fn fetch(folder: &Path) -> Result<Taken, CustodyError> {
    let (socket, secret) = custody(folder);
    let recorded = progress(&entries(folder));
    within("a worker", take_over((Path::new(&socket), &secret), recorded)).await
}

/// Every number once and in order, and after each hundredth, at once, the display that names it.
fn check_count(folder: &Path, last: u64) {
    let (mut text, mut displays) = (Vec::new(), 0);
    for entry in entries(folder) {
        match entry {
            Entry::Output(bytes) => text.extend(bytes),
            Entry::Frame(_, 0) | Entry::Attached | Entry::Done => {}
            Entry::Frame(_, name) => {
                displays += 1;
                assert_eq!(name, displays * 100);
                let text = String::from_utf8_lossy(&text);
                assert!(
                    text.ends_with(&format!("\n{name}\n")),
                    "{name} stands after {:?}",
                    text.lines().last()
                );
            }
            Entry::Gone(exit) => unreachable!("the worker {exit}"),
        }
    }
    assert_eq!(displays, last / 100);
    let wanted: String = (1..=last).map(|n| format!("{n}\n")).collect();
    assert!(String::from_utf8(text).unwrap() == wanted, "other numbers than 1 to {last}");
}

#[tokio::test]
async fn servers_that_are_killed_at_every_moment_lose_nothing() {
    let folder = folder();
    let mut moments = Vec::new();
    for event in [1, 2, 3, 5] {
        moments.extend(["given", "logged", "recorded"].map(|moment| format!("{event}.{moment}")));
    }
    let taking = ["taken", "deposited"].map(str::to_owned);
    let dooms = moments.iter().chain(&taking).chain(&moments).cycle();
    let mut servers = 0;
    // More is printed than the pipe holds, and more often killed than there are moments.
    for doom in dooms {
        servers += 1;
        let doom = if servers > 60 { "never" } else { doom };
        let server = Server::start(folder.path(), "count 200000", doom, LONG);
        server.end();
        if entries(folder.path()).last() == Some(&Entry::Done) {
            break;
        }
    }
    assert!(servers > 20, "only {servers} servers");
    check_count(folder.path(), 200_000);
}

/// The same, but each dies wherever it is.
#[tokio::test]
async fn servers_that_are_killed_at_any_moment_lose_nothing() {
    let folder = folder();
    for nth in 1.. {
        let doom = if nth > 40 { "never".to_owned() } else { format!("after.{}", 5000 + nth * 997) };
        // One that dies before it has written down where its worker is leaves it to the custodian.
        Server::start(folder.path(), "count 300000", &doom, "10000").end();
        if entries(folder.path()).last() == Some(&Entry::Done) {
            break;
        }
        if !folder.path().join("custody").exists() {
            std::fs::remove_file(folder.path().join("log")).unwrap_or_default();
        }
    }
    check_count(folder.path(), 300_000);
}

/// The worker that every language is built on.
#[tokio::test]
async fn a_real_worker_goes_from_server_to_server() {
    for moment in ["1.given", "1.logged", "1.recorded", "2.given"] {
        let folder = folder();
        let dooms = [moment, "taken", "1.given", "deposited", "2.given", "1.logged", "never"];
        for doom in dooms {
            let variables = [("COB_TEST_WORKER", "scripted-zygote")];
            Server::start_with(folder.path(), "cell", doom, LONG, &variables).end();
            if entries(folder.path()).last() == Some(&Entry::Done) {
                break;
            }
        }
        let entries = entries(folder.path());
        let printed = entries.iter().filter_map(|entry| match entry {
            Entry::Output(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        });
        assert_eq!(printed.collect::<String>(), "1 cell\n", "{entries:?}");
        assert_eq!(entries.last(), Some(&Entry::Done), "{entries:?}");
    }
}

/// A worker that is busy elsewhere has sent frames which nobody has seen: what it printed after them waits for them.
#[tokio::test]
async fn output_waits_for_the_frames_in_front_of_it() {
    let folder = folder();
    let server = Server::start(folder.path(), "count 50000", "1.given", LONG);
    let worker = server.worker;
    assert_eq!(server.end(), Some(9));
    process::signal(worker, Signal::STOP);
    let mut taken = fetch(folder.path()).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(100), taken.worker.next()).await;
    assert!(early.is_err(), "it has overtaken them");
    process::signal(worker, Signal::CONT);
    let event = within("an event", taken.worker.next()).await;
    assert!(matches!(event, WorkerEvent::Frame(Frame::Attached(_), _)), "{event:?}");
}

/// Its cgroup belongs to nobody who is alive but the custodian, and is neither swept away nor forgotten.
#[tokio::test]
async fn limits_hold_on_and_are_still_known() {
    let folder = folder();
    let limits = [("COB_TEST_LIMITS", "memory=64M")];
    let server = Server::start_with(folder.path(), "devour 128", "1.logged", LONG, &limits);
    let (worker, dead) = (server.worker, server.child.id());
    assert_eq!(server.end(), Some(9));
    if cgroups::of(dead).is_empty() {
        return cgroups::skipped("no cgroup for a worker");
    }
    tokio::task::spawn_blocking(|| Cgroups::detect().sweep()).await.unwrap();
    assert!(process::parent(worker).is_some(), "it was swept away");
    let mut taken = fetch(folder.path()).await.unwrap();
    let exit = loop {
        if let WorkerEvent::Gone(exit) = within("an event", taken.worker.next()).await {
            break exit;
        }
    };
    assert_eq!(exit, Exit::MemoryLimit(64 << 20));
    drop(taken);
    within("the end of the group", cob_pool::cleared()).await;
    assert_eq!(cgroups::of(dead), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn a_secret_is_good_for_one_server_and_no_other_is_good_at_all() {
    let folder = folder();
    let server = Server::start(folder.path(), "count 300000", "3.given", LONG);
    let (worker, custodian) = (server.worker, server.custodian);
    assert_eq!(server.end(), Some(9));
    let (socket, secret) = custody(folder.path());
    for wrong in ["", "0", &"0".repeat(64), &secret.to_uppercase(), &secret[1..]] {
        let refused = take_over((Path::new(&socket), wrong), Progress::default()).await;
        assert!(matches!(refused, Err(CustodyError::WrongSecret)), "{refused:?}");
    }
    let mut taken = fetch(folder.path()).await.unwrap();
    assert_eq!((taken.worker.pid(), taken.custodian.pid()), (worker, custodian));
    let refused = fetch(folder.path()).await;
    assert!(matches!(refused, Err(CustodyError::Refused { .. })), "{refused:?}");
    // Deposited again it has another secret, and the one that was used is worth nothing once it is released.
    let deposit = taken.custodian.deposit(&taken.worker, "again").await.unwrap();
    assert_ne!(deposit.secret, secret);
    taken.custodian.release(&secret);
    let refused = fetch(folder.path()).await;
    assert!(matches!(refused, Err(CustodyError::WrongSecret)), "{refused:?}");
    // It still speaks to the one who has it.
    let mut has_attached = false;
    while !has_attached {
        let event = within("an event", taken.worker.next()).await;
        taken.worker.record(taken.worker.given());
        has_attached = matches!(event, WorkerEvent::Frame(Frame::Attached(_), _));
    }
    // In order it ends, and with it everything.
    drop(taken);
    process::ended(worker).await;
    process::ended(custodian).await;
}

#[tokio::test]
async fn of_two_servers_one_gets_the_worker() {
    let folder = folder();
    let server = Server::start(folder.path(), "count 300000", "3.given", LONG);
    assert_eq!(server.end(), Some(9));
    let (one, other) = tokio::join!(fetch(folder.path()), fetch(folder.path()));
    assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
}

#[tokio::test]
async fn after_the_grace_nothing_is_left() {
    let folder = folder();
    // The server is killed when it knows the id of the process that the worker has started.
    let server = Server::start(folder.path(), "child", "1.logged", "300");
    let (worker, custodian) = (server.worker, server.custodian);
    assert_eq!(server.end(), Some(9));
    let child = entries(folder.path()).into_iter().find_map(|entry| match entry {
        Entry::Output(bytes) => String::from_utf8_lossy(&bytes).trim().parse::<u32>().ok(),
        _ => None,
    });
    let child = child.unwrap();
    assert!([worker, child, custodian].iter().all(|pid| process::parent(*pid).is_some()));
    let killed = Instant::now();
    for pid in [worker, child, custodian] {
        process::ended(pid).await;
    }
    let took = killed.elapsed();
    assert!(took < Duration::from_millis(2300), "{took:?}");
    assert!(took > Duration::from_millis(250), "{took:?}");
    assert!(
        std::fs::read_dir(folder.path())
            .unwrap()
            .all(|entry| { !entry.unwrap().file_name().to_string_lossy().starts_with("custodian") })
    );
}

#[tokio::test]
async fn a_custodian_without_a_worker_ends_with_its_server() {
    let folder = folder();
    let server = Server::start(folder.path(), "linger", "begun", LONG);
    let custodian = server.custodian;
    assert_eq!(server.end(), Some(9));
    process::ended(custodian).await;
}

#[tokio::test]
async fn what_a_worker_printed_before_it_ended_waits_for_the_next_server() {
    let folder = folder();
    // The server is killed at its first event, so nothing that the worker prints is recorded.
    let server = Server::start(folder.path(), "exit 7", "1.given", LONG);
    let (worker, custodian) = (server.worker, server.custodian);
    assert_eq!(server.end(), Some(9));
    process::ended(worker).await;
    let mut taken = fetch(folder.path()).await.unwrap();
    let WorkerEvent::Output(StreamName::Stdout, bytes) = taken.worker.next().await else {
        unreachable!("it printed something")
    };
    assert_eq!(&bytes[..], b"last words\n");
    let WorkerEvent::Gone(exit) = within("its end", taken.worker.next()).await else {
        unreachable!("it has ended")
    };
    assert_eq!(exit, Exit::Status(7));
    taken.worker.record(taken.worker.given());
    drop(taken);
    process::ended(custodian).await;
}

#[tokio::test]
async fn garbage_harms_nobody() {
    let folder = folder();
    let server = Server::start(folder.path(), "count 300000", "3.given", LONG);
    let custodian = server.custodian;
    assert_eq!(server.end(), Some(9));
    let (socket, _) = custody(folder.path());
    let mut packets = vec![vec![0; 70_000], vec![0xff; 100], b"GET / HTTP/1.1".to_vec(), vec![]];
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..200 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        packets.push(seed.to_le_bytes().repeat(usize::try_from(seed >> 58).unwrap_or(0)));
    }
    let mut silent = Vec::new();
    for packet in packets {
        let peer = cob_tests::custody::connect(Path::new(&socket));
        // Some say something, some bring descriptors of their own, some say nothing and stay.
        let _ = cob_tests::custody::send(&peer, &packet, &[peer.as_fd(), std::io::stdin().as_fd()]);
        silent.push(cob_tests::custody::connect(Path::new(&socket)));
    }
    assert!(process::parent(custodian).is_some());
    let taken = fetch(folder.path()).await.unwrap();
    assert_eq!(taken.note, "a note");
}

fn program(path: &str) -> Program {
    let (arguments, environment) = (Vec::new(), Vec::new());
    Program { path: path.into(), arguments, image: None, environment, directory: None }
}

async fn custodian(folder: &Path) -> Custodian {
    let program = program(env!("CARGO_BIN_EXE_custodian"));
    Custodian::start(&program, folder, Duration::from_secs(60)).await.unwrap()
}

async fn survivor(survives: bool) -> Worker {
    let mut session = crate::request(program(env!("CARGO_BIN_EXE_survivor")));
    session.hello.survives = survives;
    let mut worker = Worker::start(&session.program, session.hello).unwrap();
    within("a worker", worker.ready()).await.unwrap();
    worker
}

#[tokio::test]
async fn a_custodian_that_is_told_to_end_ends_what_has_no_server() {
    let folder = folder();
    let server = Server::start(folder.path(), "count 300000", "3.given", LONG);
    let (worker, custodian) = (server.worker, server.custodian);
    // For a terminal it is not there.
    process::signal(custodian, Signal::INT);
    process::signal(custodian, Signal::HUP);
    assert_eq!(server.end(), Some(9));
    assert!(process::parent(custodian).is_some());
    process::signal(custodian, Signal::TERM);
    process::ended(worker).await;
    process::ended(custodian).await;
}

/// `cob serve` looks after the worker's cgroup and its end; it must not think that the session is over.
#[tokio::test]
async fn a_worker_of_another_process_survives_too() {
    let _alone = crate::ALONE.lock().await;
    let runtime = folder();
    let pool = Pool::start(PoolConfig { spares: 1, ..PoolConfig::default() });
    // Until there is a zygote, workers are started by those who need one.
    let mut first = crate::lease(&pool, &crate::counting(&[])).await;
    while process::parent(first.worker.pid()) == Some(std::process::id()) {
        first = crate::lease(&pool, &crate::counting(&[])).await;
    }
    let runtime = runtime.path().join("private");
    let listener = Listener::bind(&runtime).unwrap();
    let serving = pool.clone();
    let served = tokio::spawn(async move {
        listener.serve(&serving, &[Build { name: "build".into(), image: None }], &Limits::default()).await
    });
    let path = Listener::path_in(&runtime).display().to_string();
    let mut taken = loop {
        let folder = folder();
        let (place, path) = (folder.path().to_owned(), path.clone());
        let killed = tokio::task::spawn_blocking(move || {
            let server = Server::start_with(&place, "cell", "1.logged", LONG, &[("COB_TEST_POOL", &path)]);
            (server.worker, server.end())
        });
        let (worker, end) = killed.await.unwrap();
        assert_eq!(end, Some(9));
        // Whoever asks the pool comes after the end of that connection, if it had ended.
        pool.info().await.unwrap();
        let taken = fetch(folder.path()).await.unwrap();
        assert_eq!(taken.worker.pid(), worker);
        let zygote = process::parent(worker).unwrap();
        if process::parent(zygote) == Some(std::process::id()) {
            break taken;
        }
        // What was warm had been started, not forked, and could not change hands: the server started one itself.
    };
    taken.worker.kill();
    let exit = loop {
        if let WorkerEvent::Gone(exit) = within("an event", taken.worker.next()).await {
            break exit;
        }
    };
    assert_eq!(exit, Exit::Signal(9));
    drop((taken, first));
    served.abort();
    within("the end of the pool", pool.close()).await;
}

/// The zygote that forked it ends with the server; the worker has another parent then, which reaps it.
#[tokio::test]
async fn a_worker_that_the_server_itself_had_forked_outlives_its_zygote() {
    let _alone = crate::ALONE.lock().await;
    let (runtime, folder) = (folder(), folder());
    let place = folder.path().to_owned();
    let killed = tokio::task::spawn_blocking(move || {
        let variables = [("COB_TEST_POOL", "own"), ("COB_TEST_LIMITS", "processes=50")];
        let server = Server::start_with(&place, "cell", "1.logged", LONG, &variables);
        assert!(server.parent != 0 && server.parent != server.child.id(), "it was forked");
        (server.worker, server.parent, server.end())
    });
    let (worker, zygote, end) = killed.await.unwrap();
    assert_eq!(end, Some(9));
    process::ended(zygote).await;
    // The next server sweeps first.
    let listener = Listener::bind(&runtime.path().join("private")).unwrap();
    listener.sweep().await;
    let mut taken = fetch(folder.path()).await.unwrap();
    assert_eq!(taken.worker.pid(), worker);
    loop {
        match within("an event", taken.worker.next()).await {
            WorkerEvent::Frame(Frame::Done(_), _) => break,
            WorkerEvent::Gone(exit) => unreachable!("the worker {exit}"),
            _ => {}
        }
    }
    let printed = crate::execute(&mut taken.worker, 2, "again".to_owned()).await;
    assert_eq!(printed, "1 again\n");
    taken.worker.kill();
    loop {
        if let WorkerEvent::Gone(exit) = within("an event", taken.worker.next()).await {
            // Whoever reaped it may have been faster.
            assert!(matches!(exit, Exit::Signal(9) | Exit::Unknown), "{exit:?}");
            break;
        }
    }
    drop(taken);
    process::ended(worker).await;
}

/// It goes with its worker, of which it is the parent, whoever the server is.
#[tokio::test]
async fn a_worker_that_came_of_a_checkpoint_goes_from_server_to_server() {
    let _alone = crate::ALONE.lock().await;
    let sources = [("COB_TEST_WORKER", "scripted-zygote"), ("COB_TEST_POOL", "own")];
    for (source, how) in sources.iter().flat_map(|source| [(*source, "kept"), (*source, "dropped")]) {
        let folder = folder();
        let place = folder.path().to_owned();
        let killed = tokio::task::spawn_blocking(move || {
            let variables = [source, ("COB_TEST_THAWED", how), ("COB_TEST_LIMITS", "processes=50")];
            let server = Server::start_with(&place, "cell", "1.logged", LONG, &variables);
            let pids = [server.worker, server.custodian, server.parent];
            (pids, server.child.id(), server.end())
        });
        let ([worker, custodian, parent], dead, end) = killed.await.unwrap();
        assert_eq!(end, Some(9));
        assert_eq!(process::parent(worker), Some(parent), "{source:?} {how}");
        tokio::task::spawn_blocking(|| Cgroups::detect().sweep()).await.unwrap();
        let mut taken = fetch(folder.path()).await.unwrap();
        assert_eq!(taken.worker.pid(), worker);
        while !matches!(within("an event", taken.worker.next()).await, WorkerEvent::Frame(Frame::Done(_), _))
        {
        }
        let printed = crate::execute(&mut taken.worker, 2, "again".to_owned()).await;
        assert!(printed.ends_with(" again\n"), "{printed:?} {source:?} {how}");
        taken.worker.kill();
        while !matches!(within("an event", taken.worker.next()).await, WorkerEvent::Gone(_)) {}
        drop(taken);
        // What is no checkpoint any more had another parent.
        for pid in [worker, custodian].into_iter().chain((how == "kept").then_some(parent)) {
            process::ended(pid).await;
        }
        within("the end of the group", cob_pool::cleared()).await;
        assert_eq!(cgroups::of(dead), Vec::<std::path::PathBuf>::new());
    }
}

/// Not a test: what staging costs. `cargo test -p cob-tests --test pool figures -- --ignored --nocapture`
#[tokio::test]
#[ignore = "it measures"]
async fn figures() {
    for order in ["blast 64", "count 200000"] {
        for survives in [false, true] {
            let mut worker = survivor(survives).await;
            let began = Instant::now();
            let execute = Execute {
                execution: 1,
                count: 1,
                silent: false,
                store_history: true,
                allow_stdin: false,
                user_expressions: Json::object(),
                parent: Json::object(),
            };
            worker.send(&execute.into(), vec![order.into()], Lane::Data).unwrap();
            let (mut bytes, mut events) = (0, 0);
            loop {
                events += 1;
                match worker.next().await {
                    WorkerEvent::Output(_, text) => bytes += text.len(),
                    WorkerEvent::Frame(Frame::Done(_), _) => break,
                    WorkerEvent::Frame(..) => {}
                    WorkerEvent::Gone(exit) => unreachable!("{exit}"),
                }
                worker.record(worker.given());
            }
            let took = began.elapsed();
            println!("{order}, survives {survives}: {bytes} bytes, {events} events in {took:?}");
        }
    }
    let folder = folder();
    let began = Instant::now();
    let first = custodian(folder.path()).await;
    println!("a custodian in {:?}", began.elapsed());
    let workers = [survivor(true).await, survivor(true).await, survivor(true).await];
    for worker in &workers {
        let began = Instant::now();
        first.deposit(worker, "note").await.unwrap();
        println!("a deposit in {:?}", began.elapsed());
    }
    let sample = cob_pool::usage::MemorySample::take(first.pid()).unwrap();
    println!("the custodian uses {sample:?}, {} descriptors", process::descriptors(first.pid()).len());
    drop((workers, first));
    for _ in 0..5 {
        let folder = self::folder();
        Server::start(folder.path(), "count 100", "3.given", LONG).end();
        let began = Instant::now();
        let mut taken = fetch(folder.path()).await.unwrap();
        let took = began.elapsed();
        let event = taken.worker.next().await;
        println!("taken over in {took:?}, {event:?} after {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_custodian_that_is_killed_is_replaced() {
    let folder = folder();
    let first = custodian(folder.path()).await;
    let mut worker = survivor(true).await;
    let lost = first.deposit(&worker, "first").await.unwrap();
    process::signal(first.pid(), Signal::KILL);
    within("the end of the custodian", first.lost()).await;
    assert!(matches!(first.deposit(&worker, "late").await, Err(CustodyError::Lost(_))));
    let second = custodian(folder.path()).await;
    assert!(!first.socket().exists() && second.socket().exists());
    let deposit = second.deposit(&worker, "second").await.unwrap();
    let absent = take_over((&lost.socket, &lost.secret), Progress::default()).await;
    assert!(matches!(absent, Err(CustodyError::Absent { .. })), "{absent:?}");
    // The worker has noticed nothing.
    assert_eq!(crate::execute(&mut worker, 1, "count 3".to_owned()).await, "1\n2\n3\n");
    let pids = [worker.pid(), second.pid()];
    drop((worker, first));
    second.release(&deposit.secret);
    drop(second);
    for pid in pids {
        process::ended(pid).await;
    }
}
