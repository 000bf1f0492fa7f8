//! Checkpoints in memory, with real interpreters: they outlive the worker, they give it back, they are ended by nothing
//! but their owner and want of memory, and nothing of them is left.

use std::collections::BTreeSet;
use std::path::PathBuf;

use bytes::Bytes;
use cob_pool::{
    Build, Exit, FreezeError, Frozen, Leased, Listener, Origin, Place, Pool, PoolConfig, Request, Saving,
    SharedPool, Thaw, Worker, WorkerEvent, Workers,
};
use cob_protocol::bundle::Tag;
use cob_protocol::checkpoint::Loaded;
use cob_protocol::frame::{Frame, Outcome};
use cob_protocol::limits::BUNDLE_PIECE_BYTES;
use cob_protocol::resources::Limits;
use cob_tests::{cgroups, process, within};
use rustix::process::Signal;

use crate::{ALONE, execute, request};

/// A session in Python.
pub(crate) fn python(limits: &str) -> Request {
    let path = std::env::var_os("COB_BARE").unwrap_or_else(|| "python3".into());
    let path = which(path.into());
    let program = cob_pool::Program {
        path,
        arguments: vec!["-c".into(), cob_python::BOOTSTRAP.into()],
        image: Some(cob_python::MODULE),
        environment: std::env::vars_os().collect(),
        directory: None,
    };
    Request { limits: Limits::parse(limits).unwrap(), ..request(program) }
}

fn which(path: PathBuf) -> PathBuf {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders).map(|folder| folder.join(&path)).find(|file| file.is_file());
    if path.components().count() > 1 { path } else { found.unwrap_or(path) }
}

/// Where workers come from, each in another way enclosed.
async fn sources() -> Vec<(&'static str, Workers)> {
    let pool = |cgroups| Pool::start(PoolConfig { spares: 1, cgroups, ..PoolConfig::default() });
    vec![
        ("cold", Workers::Cold),
        ("a pool", Workers::Pool(pool(true))),
        ("a pool without cgroups", Workers::Pool(pool(false))),
    ]
}

async fn close(workers: Workers) {
    if let Workers::Pool(pool) = workers {
        within("the end of the pool", pool.close()).await;
    }
    within("the end of all", cob_pool::cleared()).await;
}

/// A worker that was forked, if it comes from a pool.
async fn lease(workers: &Workers, request: &Request) -> Leased {
    loop {
        let leased = within("a worker", workers.lease(request)).await.unwrap();
        let is_right = leased.origin != Origin::Cold || matches!(workers, Workers::Cold);
        if is_right {
            return leased;
        }
        end(leased.worker).await;
    }
}

/// Waits while the worker goes on: it is its owner's task to have it read and write.
async fn beside<T>(worker: &mut Worker, what: &str, future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    within(what, async {
        loop {
            tokio::select! {
                done = &mut future => return done,
                event = worker.next() => match event {
                    WorkerEvent::Gone(exit) => unreachable!("the worker {exit}"),
                    WorkerEvent::Frame(..) | WorkerEvent::Output(..) => {}
                }
            }
        }
    })
    .await
}

async fn freeze(worker: &mut Worker) -> Frozen {
    let freezing = worker.freeze(false).unwrap();
    beside(worker, "a checkpoint", freezing.frozen()).await.unwrap()
}

async fn thaw(frozen: &Frozen, request: &Request, place: Place) -> Worker {
    let thaw = Thaw { hello: request.hello.clone(), limits: request.limits.clone(), place };
    within("a thawed worker", frozen.thaw(&thaw)).await.unwrap_or_else(|error| unreachable!("{error}")).worker
}

async fn run(worker: &mut Worker, code: &str) -> String {
    execute(worker, 1, code.to_owned()).await
}

async fn gone(worker: &mut Worker) -> Exit {
    loop {
        if let WorkerEvent::Gone(exit) = within("the end of a worker", worker.next()).await {
            return exit;
        }
    }
}

async fn end(mut worker: Worker) {
    worker.kill();
    gone(&mut worker).await;
}

/// Nothing of all this is left: neither processes, also none that have ended, nor groups, nor descriptors.
struct Nothing {
    descriptors: usize,
    zombies: BTreeSet<u32>,
}

impl Nothing {
    async fn now() -> Self {
        // What is kept open for good once there was a worker is open by then.
        end(lease(&Workers::Cold, &python("")).await.worker).await;
        Self { descriptors: descriptors(), zombies: zombies() }
    }

    async fn is_left(&self) {
        // What was dropped is closed by tasks of its own, which get their turns here.
        let closed = async {
            while descriptors() > self.descriptors {
                tokio::task::yield_now().await;
            }
        };
        within("the end of what was dropped", closed).await;
        let left = cgroups::left(std::process::id(), false);
        assert!(left.is_empty(), "{left:?}");
        let zombies: Vec<_> = zombies().difference(&self.zombies).copied().collect();
        assert!(zombies.is_empty(), "{zombies:?}");
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Children of this process that have ended.
fn zombies() -> BTreeSet<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_ours = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect::<Vec<_>>();
        fields.first() == Some(&"Z") && fields.get(1) == Some(&std::process::id().to_string().as_str())
    };
    pids.filter(is_ours).collect()
}

#[tokio::test]
async fn a_worker_that_is_killed_comes_back_as_it_was_and_goes_on() {
    let _alone = ALONE.lock().await;
    let before = Nothing::now().await;
    for (place, workers) in sources().await {
        let session = python("");
        let mut first = lease(&workers, &session).await.worker;
        run(&mut first, "x = [1, 2]; import subprocess; p = None").await;
        let frozen = freeze(&mut first).await;
        assert_eq!(run(&mut first, "x.append(3); print(x)").await, "[1, 2, 3]\n", "{place}");
        // A child of the old worker goes with it, one of the new one does not.
        let child = "import subprocess; c = subprocess.Popen(['sleep', '1000'], start_new_session=True); print(c.pid)";
        let of_first: u32 = run(&mut first, child).await.trim().parse().unwrap();
        process::signal(first.pid(), Signal::KILL);
        let mut second = thaw(&frozen, &session, Place::Same).await;
        let of_second = run(&mut second, child).await;
        assert_eq!(gone(&mut first).await, Exit::Signal(9), "{place}");
        if !matches!(workers, Workers::Cold) {
            process::ended(of_first).await;
        }
        let code = "print(c.pid, c.poll()); c.kill(); c.wait(); x.append(4); print(x)";
        let expected = format!("{} None\n[1, 2, 4]\n", of_second.trim());
        assert_eq!(run(&mut second, code).await, expected, "{place}");
        assert!(!frozen.is_gone());
        assert!(within("its size", frozen.private_bytes()).await.unwrap() > 0);

        // Once more from the same checkpoint, and from one of the one that came of it.
        let again = freeze(&mut second).await;
        let mut third = thaw(&frozen, &session, Place::Same).await;
        assert_eq!(run(&mut third, "print(x)").await, "[1, 2]\n");
        drop(frozen);
        end(second).await;
        let mut fourth = thaw(&again, &session, Place::Same).await;
        assert_eq!(run(&mut fourth, "print(x)").await, "[1, 2, 4]\n");
        assert_eq!(run(&mut third, "x.append(5); print(x)").await, "[1, 2, 5]\n");
        end(third).await;
        assert_eq!(run(&mut fourth, "x.append(6); print(x)").await, "[1, 2, 4, 6]\n");
        end(fourth).await;
        let pid = again.pid();
        drop(again);
        process::ended(pid).await;
        process::signal(of_first, Signal::KILL);
        close(workers).await;
    }
    before.is_left().await;
}

/// A copy that says its first word only when the worker that forked it is gone.
const LATE: &str = "import os; x = [1, 2]; r, w = os.pipe()
def late():
    global w
    if w is not None:
        os.close(w)
        w = os.read(r, 1)
        w = None
os.register_at_fork(after_in_child=late)";

#[tokio::test]
async fn a_checkpoint_that_is_still_on_its_way_does_not_end_with_its_worker() {
    let _alone = ALONE.lock().await;
    let before = Nothing::now().await;
    for (place, workers) in sources().await {
        let session = python("");
        let mut first = lease(&workers, &session).await.worker;
        run(&mut first, LATE).await;
        let freezing = first.freeze(false).unwrap();
        first.send(&crate::cell(2), vec!["os._exit(7)".into()], cob_pool::Lane::Data).unwrap();
        assert_eq!(gone(&mut first).await, Exit::Status(7), "{place}");
        let frozen = within("a checkpoint", freezing.frozen()).await.unwrap();
        let mut second = thaw(&frozen, &session, Place::Same).await;
        assert_eq!(run(&mut second, "print(x)").await, "[1, 2]\n", "{place}");
        drop((first, frozen));
        end(second).await;
        close(workers).await;
    }
    before.is_left().await;
}

/// What somebody does who is asked for more than there is.
const FILL: &str = "import os; block = os.urandom(1 << 20) * 12; print(len(block) >> 20)";

#[tokio::test]
async fn when_memory_runs_out_checkpoints_go_before_the_live_worker_and_its_own_end_is_told_right() {
    let _alone = ALONE.lock().await;
    let session = python("memory=256M");
    let workers = Workers::Pool(Pool::start(PoolConfig { spares: 1, ..PoolConfig::default() }));
    let before = Nothing::now().await;
    let mut leased = lease(&workers, &session).await;
    if !leased.enforced.to_string().contains("cgroup") {
        return; // Without a group nobody counts them together.
    }
    let mut all = Vec::new();
    for _ in 0..50 {
        // Each of them holds what the next one has thrown away.
        assert_eq!(run(&mut leased.worker, FILL).await, "12\n");
        all.push(freeze(&mut leased.worker).await);
    }
    assert_eq!(run(&mut leased.worker, "print(len(block) >> 20)").await, "12\n", "the live worker is there");
    let gone = all.iter().filter(|frozen| frozen.is_gone()).count();
    assert!((30..50).contains(&gone), "{gone} are gone");
    // The newest one that is left is of use, and somebody else's end was not for want of memory.
    let newest = all.iter().rev().find(|frozen| !frozen.is_gone()).unwrap();
    process::signal(leased.worker.pid(), Signal::KILL);
    let mut next = thaw(newest, &session, Place::Same).await;
    assert_eq!(self::gone(&mut leased.worker).await, Exit::Signal(9));
    assert_eq!(run(&mut next, "print(len(block) >> 20)").await, "12\n");
    drop(all);
    // Alone it is told what it died of.
    let code = "import mmap\nall = []\nwhile True: all.append(os.urandom(1 << 20))";
    next.send(&crate::cell(2), vec![code.into()], cob_pool::Lane::Data).unwrap();
    let ended = loop {
        match within("its end", next.next()).await {
            WorkerEvent::Gone(exit) => break exit,
            WorkerEvent::Frame(Frame::Done(_), _) => {
                // Python was refused the memory; the system is to do it.
                let code =
                    "m = mmap.mmap(-1, 1 << 30)\nm.write(b'x' * (200 << 20))\nm.write(b'x' * (200 << 20))";
                next.send(&crate::cell(3), vec![code.into()], cob_pool::Lane::Data).unwrap();
            }
            WorkerEvent::Frame(..) | WorkerEvent::Output(..) => {}
        }
    };
    assert_eq!(ended, Exit::MemoryLimit(256 << 20));
    drop((leased, next));
    close(workers).await;
    before.is_left().await;
}

#[tokio::test]
async fn branches_live_on_when_the_session_that_they_came_from_is_closed() {
    let _alone = ALONE.lock().await;
    let before = Nothing::now().await;
    for (place, workers) in sources().await {
        let session = python("");
        let mut parent = lease(&workers, &session).await.worker;
        run(&mut parent, "import os; x = [1]").await;
        let frozen = freeze(&mut parent).await;
        let folder = tempfile::tempdir().unwrap();
        let mut program = session.program.clone();
        program.environment = vec![("BRANCH".into(), "yes".into())];
        program.directory = Some(folder.path().to_owned());
        let (other, limited) = (Place::Other(program), python("memory=512M"));
        let (one, two) = tokio::join!(thaw(&frozen, &session, other.clone()), thaw(&frozen, &limited, other));
        // At once: nobody has been told.
        drop(frozen);
        parent.kill();
        gone(&mut parent).await;
        drop(parent);
        for mut branch in [one, two] {
            let code = "x.append(2); print(x, os.environ['BRANCH'], 'PATH' in os.environ, os.getcwd()); import subprocess; \
                        p = subprocess.run(['echo', 'child']).returncode";
            let expected =
                format!("[1, 2] yes True {}\nchild\n", folder.path().canonicalize().unwrap().display());
            assert_eq!(run(&mut branch, code).await, expected, "{place}");
            end(branch).await;
        }
        close(workers).await;
    }
    before.is_left().await;
}

#[tokio::test]
async fn a_checkpoint_is_refused_with_its_reasons_unless_it_is_forced() {
    let _alone = ALONE.lock().await;
    let mut worker = lease(&Workers::Cold, &python("")).await.worker;
    let code = "import threading; e = threading.Event(); t = threading.Thread(target=e.wait, daemon=True); t.start()";
    run(&mut worker, code).await;
    let freezing = worker.freeze(false).unwrap();
    let Err(FreezeError::Refused(findings)) = beside(&mut worker, "a no", freezing.frozen()).await else {
        unreachable!("it has a thread")
    };
    assert!(findings.iter().any(|finding| finding.kind == "thread" && finding.blocks), "{findings:?}");
    let freezing = worker.freeze(true).unwrap();
    let frozen = beside(&mut worker, "a checkpoint", freezing.frozen()).await.unwrap();
    assert!(frozen.findings().iter().any(|finding| finding.kind == "thread"), "{:?}", frozen.findings());
    // A worker that ends meanwhile makes none.
    let freezing = worker.freeze(true).unwrap();
    worker.kill();
    gone(&mut worker).await;
    if let Ok(last) = within("an answer", freezing.frozen()).await {
        assert_ne!(last.pid(), frozen.pid());
    }
    process::signal(frozen.pid(), Signal::KILL);
    within("its end", frozen.gone()).await;
    let thaw = Thaw { hello: python("").hello, limits: Limits::default(), place: Place::Same };
    let error = within("a no", frozen.thaw(&thaw)).await.unwrap_err();
    assert!(error.to_string().contains("is gone"), "{error}");
    assert!(within("a no", frozen.save()).await.is_err());
}

#[tokio::test]
async fn a_session_that_another_process_looks_after_has_checkpoints_as_well() {
    let _alone = ALONE.lock().await;
    let before = Nothing::now().await;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("runtime");
    let pool = Pool::start(PoolConfig { spares: 1, ..PoolConfig::default() });
    let session = python("memory=1G");
    // Until it has a zygote.
    end(lease(&Workers::Pool(pool.clone()), &session).await.worker).await;
    let listener = Listener::bind(&folder).unwrap();
    let serving = tokio::spawn({
        let pool = pool.clone();
        async move {
            listener
                .serve(
                    &pool,
                    &[Build { name: "test".into(), image: Some(cob_python::MODULE) }],
                    &Limits::default(),
                )
                .await
        }
    });
    let shared = Workers::Shared(SharedPool::at(Listener::path_in(&folder), "test".to_owned()));
    let mut first = lease(&shared, &session).await.worker;
    run(&mut first, "import os, subprocess; x = [1]").await;
    let frozen = freeze(&mut first).await;
    let child = "c = subprocess.Popen(['sleep', '1000'], start_new_session=True); print(c.pid)";
    let of_first: u32 = run(&mut first, child).await.trim().parse().unwrap();
    let branch = thaw(&frozen, &python(""), Place::Other(session.program.clone())).await;
    process::signal(first.pid(), Signal::KILL);
    let mut second = thaw(&frozen, &session, Place::Same).await;
    let of_second: u32 = run(&mut second, child).await.trim().parse().unwrap();
    assert_eq!(gone(&mut first).await, Exit::Signal(9));
    process::ended(of_first).await;
    drop(first);
    assert_eq!(run(&mut second, "x.append(2); print(x, c.poll())").await, "[1, 2] None\n");
    assert!(!frozen.is_gone());
    // The second end is cleared up after as well.
    end(second).await;
    process::ended(of_second).await;
    let mut third = thaw(&frozen, &session, Place::Same).await;
    let pid = frozen.pid();
    drop(frozen);
    process::ended(pid).await;
    assert_eq!(run(&mut third, "x.append(3); print(x)").await, "[1, 3]\n");
    end(third).await;
    let mut branch = branch;
    assert_eq!(run(&mut branch, "x.append(4); print(x)").await, "[1, 4]\n");
    end(branch).await;
    serving.abort();
    drop(serving.await);
    close(Workers::Pool(pool)).await;
    before.is_left().await;
}

/// The records of a bundle.
async fn records(saving: &mut Saving) -> Result<Vec<(Tag, Bytes)>, FreezeError> {
    let mut records = Vec::new();
    while let Some(record) = within("a record", saving.next()).await? {
        records.push(record);
    }
    Ok(records)
}

#[tokio::test]
async fn a_bundle_comes_out_of_a_checkpoint_and_goes_into_another_worker() {
    let _alone = ALONE.lock().await;
    let before = Nothing::now().await;
    let session = crate::counting(&[]);
    let mut worker = within("a worker", Workers::Cold.lease(&session)).await.unwrap().worker;
    run(&mut worker, "first").await;
    let frozen = freeze(&mut worker).await;
    let records = records(&mut within("a saver", frozen.save()).await.unwrap()).await.unwrap();
    let tags: Vec<_> = records.iter().map(|(tag, bytes)| (*tag, bytes.len())).collect();
    let (full, rest) = (BUNDLE_PIECE_BYTES, 5);
    let outline = tags[tags.len() - 2];
    assert_eq!(tags[..4], [(Tag::Piece, full), (Tag::Piece, full), (Tag::Piece, rest), (Tag::BlobEnd, 0)]);
    assert_eq!((outline.0, tags.last()), (Tag::Outline, Some(&(Tag::End, 0))));

    // One that nobody reads ends when it is not wanted any more.
    let idle = within("a saver", frozen.save()).await.unwrap();
    drop(idle);
    drop(frozen);
    end(worker).await;

    let mut other = within("a worker", Workers::Cold.lease(&session)).await.unwrap().worker;
    let mut loading = other.load(7, false).unwrap();
    let send = async {
        let (outlines, blobs): (Vec<_>, Vec<_>) =
            records.into_iter().partition(|(tag, _)| *tag == Tag::Outline);
        for (tag, bytes) in outlines.into_iter().chain(blobs) {
            loading.send(tag, &bytes).await.unwrap();
        }
    };
    beside(&mut other, "the bundle's end", send).await;
    drop(loading);
    let answer = answer(&mut other).await;
    let Outcome::Value(loaded) = &answer else { unreachable!("{answer:?}") };
    assert_eq!(loaded.read::<Loaded>().unwrap().restored, [format!("{} bytes", 2 * full + rest)]);

    // The way is cut: it says so.
    drop(other.load(8, false).unwrap());
    assert!(matches!(self::answer(&mut other).await, Outcome::Declined(_)));
    end(other).await;
    close(Workers::Cold).await;
    before.is_left().await;
}

async fn answer(worker: &mut Worker) -> Outcome {
    loop {
        match within("an answer", worker.next()).await {
            WorkerEvent::Frame(Frame::Answer(answer), _) => return answer.outcome,
            WorkerEvent::Gone(exit) => unreachable!("the worker {exit}"),
            WorkerEvent::Frame(..) | WorkerEvent::Output(..) => {}
        }
    }
}

#[tokio::test]
async fn a_bundle_that_is_not_written_to_its_end_says_why() {
    let _alone = ALONE.lock().await;
    for (how, why) in [("fails", "it has no numbers"), ("dies", "was killed by signal 9 (SIGKILL)")] {
        let session = crate::counting(&[("SAVING", how)]);
        let mut worker = within("a worker", Workers::Cold.lease(&session)).await.unwrap().worker;
        let frozen = freeze(&mut worker).await;
        let error = records(&mut within("a saver", frozen.save()).await.unwrap()).await.unwrap_err();
        assert!(error.to_string().contains(why), "{how}: {error}");
        assert!(!frozen.is_gone(), "it is as it was");
        end(worker).await;
    }
}
