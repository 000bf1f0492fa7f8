//! Measures leases of warm workers and a thousand sessions in one process; `cargo xtask bench -- --stage pool` runs
//! it. The only argument is an interpreter that has numpy and pandas.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark that fails shall end")]

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cob_pool::usage::MemorySample;
use cob_pool::{
    Build, Lane, Leased, Listener, Origin, Pool, PoolConfig, Program, Request, SharedPool, WorkerEvent,
    Workers,
};
use cob_protocol::frame::{Execute, Frame};
use cob_protocol::handshake::{Hello, VERSIONS};
use cob_protocol::json::Json;
use cob_protocol::resources::Limits;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

const LEASES: usize = 1200;
const AT_ONCE: usize = 8;
const PAUSE: Duration = Duration::from_millis(10);
const SESSIONS: usize = 1000;
const IDLE: Duration = Duration::from_secs(10);
const MIB: f64 = (1 << 20) as f64;

fn main() {
    cob_pool::raise_open_files().unwrap();
    let python = std::env::args_os().nth(1).expect("an interpreter that has numpy and pandas");
    let request = request(python);
    println!("{:<44}{:>8}{:>8}{:>8}{:>8}  where from", "lease, ms", "p50", "p90", "p99", "max");
    on_one_thread(leases("in this process", &request, None));
    let folder = std::env::var_os("COB_RUNTIME_DIR").expect("COB_RUNTIME_DIR");
    on_one_thread(leases("over the socket", &request, Some(folder.as_ref())));
    on_one_thread(sessions(&request));
}

/// As cob does.
fn on_one_thread(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
}

fn request(python: OsString) -> Request {
    let program = Program {
        path: python.into(),
        arguments: vec!["-c".into(), cob_python::BOOTSTRAP.into()],
        image: Some(cob_python::MODULE),
        environment: std::env::vars_os().collect(),
        directory: None,
    };
    let hello = Hello {
        versions: VERSIONS,
        session: "benchmark".into(),
        options: Json::object(),
        umask: None,
        confined: false,
        survives: false,
        resumes: false,
    };
    Request { program, hello, limits: Limits::default() }
}

async fn warm_pool(request: &Request, spares: usize) -> Pool {
    let pool = Pool::start(config(spares));
    pool.warm(&request.program, cob_pool::Warmth::default()).await;
    until_warm(&pool, spares).await;
    pool
}

fn config(spares: usize) -> PoolConfig {
    PoolConfig { imports: vec!["numpy".into(), "pandas".into()], spares, ..PoolConfig::default() }
}

/// Nothing happens that could be waited for: it is the quiet that is measured.
async fn pause(time: Duration) {
    tokio::time::sleep_until((Instant::now() + time).into()).await;
}

async fn until_warm(pool: &Pool, spares: usize) {
    loop {
        let info = pool.info().await.unwrap();
        if info.environments.first().is_some_and(|environment| environment.warm >= spares) {
            return;
        }
        pause(Duration::from_millis(1)).await;
    }
}

/// A pool on a thread of its own, as another process would keep it, and how to reach it.
fn elsewhere(folder: &Path, request: &Request, spares: usize) -> (Pool, SharedPool) {
    let (sender, pool) = std::sync::mpsc::channel();
    let (path, request) = (folder.to_owned(), request.clone());
    std::thread::spawn(move || {
        on_one_thread(async move {
            let listener = Listener::bind(&path).unwrap();
            let pool = warm_pool(&request, spares).await;
            sender.send(pool.clone()).unwrap();
            listener
                .serve(
                    &pool,
                    &[Build { name: "benchmark".into(), image: Some(cob_python::MODULE) }],
                    &Limits::default(),
                )
                .await;
        });
    });
    (pool.recv().unwrap(), SharedPool::at(Listener::path_in(folder), "benchmark".into()))
}

async fn leases(place: &str, request: &Request, folder: Option<&Path>) {
    let (pool, workers) = match folder {
        None => {
            let pool = warm_pool(request, AT_ONCE).await;
            (pool.clone(), Workers::Pool(pool))
        }
        Some(folder) => {
            let (pool, shared) = elsewhere(folder, request, AT_ONCE);
            (pool, Workers::Shared(shared))
        }
    };
    let mut took = Took::default();
    for _ in 0..LEASES {
        took.add(&timed(&workers, request).await);
        until_warm(&pool, AT_ONCE).await;
        // What is left of the last session goes away meanwhile.
        pause(PAUSE).await;
    }
    took.print(&format!("{place}, one after another"));

    let mut took = Took::default();
    for _ in 0..LEASES / AT_ONCE {
        let mut burst = JoinSet::new();
        for _ in 0..AT_ONCE {
            let (workers, request) = (workers.clone(), request.clone());
            burst.spawn(async move { timed(&workers, &request).await });
        }
        // Kept until all have one: the end of a worker shall not weigh on the start of another.
        for leased in burst.join_all().await {
            took.add(&leased);
        }
        until_warm(&pool, AT_ONCE).await;
        pause(PAUSE).await;
    }
    took.print(&format!("{place}, {AT_ONCE} at once"));

    let mut took = Took::default();
    let began = Instant::now();
    let mut askers = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (workers, request) = (workers.clone(), request.clone());
        askers.spawn(async move {
            let mut took = Took::default();
            for _ in 0..LEASES / AT_ONCE {
                took.add(&timed(&workers, &request).await);
            }
            took
        });
    }
    for one in askers.join_all().await {
        took.merge(one);
    }
    let rate = LEASES as f64 / began.elapsed().as_secs_f64();
    took.print(&format!("{place}, {AT_ONCE} without a pause, {rate:.0}/s"));
    pool.close().await;
}

async fn timed(workers: &Workers, request: &Request) -> (Duration, Leased) {
    let began = Instant::now();
    let leased = workers.lease(request).await.unwrap();
    (began.elapsed(), leased)
}

#[derive(Default)]
struct Took {
    times: Vec<Duration>,
    origins: [usize; 3],
}

impl Took {
    fn add(&mut self, (time, leased): &(Duration, Leased)) {
        self.times.push(*time);
        self.origins[match leased.origin {
            Origin::Warm => 0,
            Origin::Forked => 1,
            _ => 2,
        }] += 1;
    }

    fn merge(&mut self, other: Self) {
        self.times.extend(other.times);
        for (ours, theirs) in self.origins.iter_mut().zip(other.origins) {
            *ours += theirs;
        }
    }

    fn print(mut self, what: &str) {
        self.times.sort();
        let last = self.times.len() - 1;
        let at = |part: f64| self.times[(last as f64 * part) as usize].as_secs_f64() * 1e3;
        let [warm, forked, cold] = self.origins;
        println!(
            "{what:<44}{:8.2}{:8.2}{:8.2}{:8.2}  {warm} warm, {forked} forked, {cold} cold",
            at(0.5),
            at(0.9),
            at(0.99),
            at(1.0)
        );
    }
}

/// A thousand sessions that one process holds and waits for, all from one zygote.
async fn sessions(request: &Request) {
    let pool = warm_pool(request, 2).await;
    let (ours, descriptors) = (memory(std::process::id()), descriptors());
    let began = Instant::now();
    let mut opened = Vec::new();
    while opened.len() < SESSIONS {
        opened.push(pool.lease(request).await.unwrap());
    }
    let took = began.elapsed();
    let pids: Vec<u32> = opened.iter().map(|leased| leased.worker.pid()).collect();
    println!("{SESSIONS} sessions with numpy and pandas, in one process");
    println!(
        "  opened in {:.1} s, {:.1} ms each",
        took.as_secs_f64(),
        took.as_secs_f64() * 1e3 / SESSIONS as f64
    );
    show("after their start", &pids, ours, descriptors);

    // Each is waited for by a task, as in a server.
    let (sender, mut ended) = mpsc::channel(SESSIONS);
    let (asks, _) = tokio::sync::broadcast::channel::<Bytes>(1);
    for leased in opened {
        tokio::spawn(session(leased, asks.subscribe(), sender.clone()));
    }
    pause(Duration::from_secs(1)).await;
    let all = || std::iter::once(std::process::id()).chain(pids.iter().copied()).chain(zygotes());
    let before = (cpu_ms(std::process::id()), all().map(cpu_ms).sum::<f64>());
    pause(IDLE).await;
    let after = (cpu_ms(std::process::id()), all().map(cpu_ms).sum::<f64>());
    println!(
        "  idle for {} s: {:.0} ms of CPU, {:.0} ms of them by this process",
        IDLE.as_secs(),
        after.1 - before.1,
        after.0 - before.0
    );
    for code in ["1+1", "import pandas as pd; df = pd.DataFrame({'a': range(1000)}); df.a.sum()"] {
        let began = Instant::now();
        assert_eq!(asks.send(Bytes::from_static(code.as_bytes())).unwrap(), SESSIONS);
        for _ in 0..SESSIONS {
            ended.recv().await.unwrap();
        }
        println!("  `{code}` in all at once: {:.2} s", began.elapsed().as_secs_f64());
        show("after it", &pids, ours, descriptors);
    }
    pool.close().await;
}

/// Runs what all sessions are asked to run, and reports each end.
async fn session(
    leased: Leased,
    mut asked: tokio::sync::broadcast::Receiver<Bytes>,
    ended: mpsc::Sender<()>,
) {
    let mut worker = leased.worker;
    let mut execution = 0;
    loop {
        tokio::select! {
            code = asked.recv() => {
                let Ok(code) = code else { return };
                execution += 1;
                let execute = Execute {
                    execution,
                    count: 1,
                    silent: false,
                    store_history: true,
                    allow_stdin: false,
                    user_expressions: Json::object(),
                    parent: Json::object(),
                };
                worker.send(&Frame::from(execute), vec![code], Lane::Data).unwrap();
            }
            event = worker.next() => match event {
                WorkerEvent::Frame(Frame::Done(_), _) => ended.send(()).await.unwrap(),
                // The next question finds one receiver fewer.
                WorkerEvent::Gone(_) => return,
                WorkerEvent::Frame(..) | WorkerEvent::Output(..) => {}
            }
        }
    }
}

fn show(when: &str, pids: &[u32], before: MemorySample, descriptors_before: usize) {
    let workers: Vec<MemorySample> = pids.iter().map(|pid| memory(*pid)).collect();
    let mean = |of: fn(&MemorySample) -> u64| workers.iter().map(of).sum::<u64>() as f64 / pids.len() as f64;
    let ours = memory(std::process::id());
    let all = mean(|it| it.proportional_bytes) * pids.len() as f64 + ours.proportional_bytes as f64;
    println!(
        "  {when}: a worker {:.2} MB proportional, {:.2} MB private; this process {:.0} KiB a session, {:.1} \
         descriptors a session; all together {:.0} MB",
        mean(|it| it.proportional_bytes) / MIB,
        mean(|it| it.private_bytes) / MIB,
        (ours.private_bytes as f64 - before.private_bytes as f64) / 1024.0 / pids.len() as f64,
        (descriptors() - descriptors_before) as f64 / pids.len() as f64,
        all / MIB
    );
}

fn memory(pid: u32) -> MemorySample {
    MemorySample::take(pid).unwrap()
}

/// Of the main thread, which is the only one.
fn cpu_ms(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    stat.split_ascii_whitespace().next().unwrap().parse::<f64>().unwrap() / 1e6
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The children of this process.
fn zygotes() -> Vec<u32> {
    let pid = std::process::id();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.split_ascii_whitespace().map(|child| child.parse().unwrap()).collect()
}
