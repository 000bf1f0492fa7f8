//! Checkpoints of a kernel whose workers come from `cob serve`: each of the two processes knows a part of what belongs to
//! the session, and nothing may be left of it, whichever of them ends first.

use std::collections::BTreeSet;

use cob_tests::client::TestClient;
use cob_tests::kernel::{Setup, TestKernel};
use cob_tests::server::{ServerSetup, TestServer};
use cob_tests::{cgroups, process};
use rustix::process::Signal;

/// A server, a kernel that has one of its workers, and who was there then.
struct Pair {
    server: TestServer,
    kernel: TestKernel,
    client: TestClient,
    before: BTreeSet<u32>,
    /// Groups of the server that has no kernel.
    groups: usize,
}

/// As the host is, and without cgroups if that can be had.
fn hosts() -> Vec<ServerSetup> {
    let Some(hidden) = cgroups::hidden() else {
        cgroups::skipped("cgroups cannot be hidden from a process");
        return vec![ServerSetup::new()];
    };
    vec![ServerSetup::new(), ServerSetup::new().launcher(hidden)]
}

impl Pair {
    async fn start(setup: ServerSetup) -> Self {
        let server = setup.start().await;
        server.settled().await;
        let groups = cgroups::of(server.pid()).len();
        let kernel = Setup::new().server(&server).argument("--checkpoints").argument("auto").start().await;
        assert_eq!(kernel.worker_from(0).await.1, "Warm");
        server.holds(2, 1).await;
        let before = server.processes().into_iter().collect();
        let client = kernel.client().await;
        Self { server, kernel, client, before, groups }
    }

    async fn run(&mut self, code: &str) -> String {
        let run = self.client.run(code).await.ok();
        run.stdout() + run.result()
    }

    /// Who has come since: checkpoints, and the worker that came of one.
    fn newcomers(&self) -> Vec<u32> {
        self.server.processes().into_iter().filter(|pid| !self.before.contains(pid)).collect()
    }

    async fn goes_back_and_on(&mut self) {
        let first = self.kernel.worker(0).await;
        self.run("import cob; x = 1").await;
        self.run("x = 2").await;
        self.run("cob.undo()").await;
        assert_eq!(self.run("x").await, "1");
        process::ended(first).await;
        self.run("cob.checkpoint('here'); x = 3").await;
        self.run("x = 4").await;
        self.run("cob.restore('here')").await;
        assert_eq!(self.run("x").await, "3");
    }

    async fn goes_back_when_it_crashes(&mut self) {
        self.client.run("x = 5; import os; os._exit(7)").await.failed("WorkerLost");
        assert_eq!(self.run("x").await, "3");
        // At once: the checkpoint is on its way still.
        self.client.run("import os; os._exit(7)").await.failed("WorkerLost");
        assert_eq!(self.run("x").await, "3");
    }

    /// What it started goes with it, and nothing else does.
    async fn goes_back_without_its_children(&mut self) {
        let code = "import os, subprocess; \
                    print(subprocess.Popen(['sleep', '1000000'], start_new_session=True).pid, flush=True); os._exit(7)";
        let run = self.client.run(code).await.failed("WorkerLost");
        let child = run.stdout().trim().parse().unwrap();
        assert_eq!(self.run("x").await, "3");
        process::ended(child).await;
    }

    async fn goes_back_when_it_is_stuck(&mut self) {
        let code = "import ctypes, signal; x = 6; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT]); \
                    print('on', flush=True); ctypes.PyDLL(None).sleep(1000)";
        let cell = self.client.execute(code).await;
        self.client.printed(&cell, "on\n").await;
        self.client.interrupt().await;
        self.client.finish(&cell).await.failed("InterruptedByForce");
        assert_eq!(self.run("x").await, "3");
    }
}

#[tokio::test]
async fn a_kernel_goes_back_with_workers_of_a_server_and_leaves_nothing_there() {
    for setup in hosts() {
        let mut pair = Pair::start(setup).await;
        pair.goes_back_and_on().await;
        pair.goes_back_when_it_crashes().await;
        pair.goes_back_without_its_children().await;
        pair.goes_back_when_it_is_stuck().await;
        let new = pair.newcomers();
        assert!(new.len() > 3, "{new:?}");
        let Pair { server, kernel, client, groups, .. } = pair;
        drop((client, kernel));
        server.settled().await;
        for pid in new {
            process::ended(pid).await;
        }
        assert_eq!(cgroups::of(server.pid()).len(), groups);
    }
}

#[tokio::test]
async fn a_kernel_that_is_killed_leaves_no_checkpoint_with_its_server() {
    for setup in hosts() {
        let mut pair = Pair::start(setup).await;
        pair.goes_back_and_on().await;
        let new = pair.newcomers();
        pair.kernel.signal(Signal::KILL);
        pair.kernel.end().await;
        for pid in new {
            process::ended(pid).await;
        }
        pair.server.settled().await;
    }
}

#[tokio::test]
async fn a_kernel_goes_back_when_its_server_is_gone() {
    for (setup, signal) in hosts().into_iter().zip([Signal::TERM, Signal::KILL]) {
        let mut pair = Pair::start(setup).await;
        pair.goes_back_and_on().await;
        pair.server.signal(signal);
        pair.server.end().await;
        pair.goes_back_when_it_crashes().await;
        pair.goes_back_without_its_children().await;
        pair.goes_back_when_it_is_stuck().await;
        pair.run("x = 7").await;
        pair.run("cob.undo()").await;
        assert_eq!(pair.run("x").await, "3");
        let new = pair.newcomers();
        drop((pair.client, pair.kernel));
        for pid in new {
            process::ended(pid).await;
        }
    }
}
