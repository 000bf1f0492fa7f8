//! W18 and X01, as far as an ordinary process goes: a session finds nothing of another one, nor of the server.

use std::path::PathBuf;

use cob_tests::client::TestClient;
use cob_tests::kernel::{Setup, TestKernel};
use cob_tests::server::{ServerSetup, TestServer};
use rustix::process::Signal;

/// Looks for anything that begins like a canary: in the variables, in all memory of the process, in the folders that
/// it can guess. Written so that it does not find itself.
const LOOK: &str = "\
import gc, os, re, tempfile
canary = re.compile(b'cob-canar[y]-of-[a-z]+')
found = []
for what in ('environ', 'cmdline', 'mountinfo'):
    found += [(what, hit) for hit in canary.findall(open(f'/proc/self/{what}', 'rb').read())]
found += [('os.environ', name) for name, value in os.environ.items() if canary.search(f'{name}={value}'.encode())]
for folder in ('.', tempfile.gettempdir(), os.environ.get('HOME', '.'), '/dev/shm'):
    found += [(folder, name) for name in os.listdir(folder) if canary.search(name.encode())]
with open('/proc/self/maps') as maps, open('/proc/self/mem', 'rb', 0) as memory:
    for line in maps:
        start, end = (int(number, 16) for number in line.split()[0].split('-'))
        if line.split()[1][0] == 'r' and '[v' not in line:
            memory.seek(start)
            try:
                found += [(line, hit) for hit in canary.findall(memory.read(end - start))]
            except OSError:
                pass
found";

/// What a session knows of where it runs.
const PLACE: &str = "\
import os, tempfile
mask = os.umask(0); os.umask(mask)
print(os.getcwd(), os.environ['HOME'], tempfile.gettempdir(), oct(mask), sep='\\n')";

async fn looks(client: &mut TestClient) -> String {
    client.run(LOOK).await.ok().result().to_owned()
}

#[tokio::test]
async fn w18_nothing_of_the_server_or_of_another_session_is_visible_in_a_warm_worker() {
    let server = ServerSetup::new()
        .own_env("COB_CANARY", "cob-canary-of-server")
        .own_env("COB_CANARY_TOO", "cob-canary-of-server")
        .start()
        .await;
    let one = Setup::new().server(&server).env("CANARY", "cob-canary-of-one").start().await;
    let mut of_one = one.client().await;
    of_one.run("import os; kept = 'cob-canary-of-' + 'memory'; open(kept, 'w').close()").await.ok();
    // It is seen where it is.
    let seen = looks(&mut of_one).await;
    for place in ["os.environ", "[heap]", "cob-canary-of-memory"] {
        assert!(seen.contains(place), "{place}: {seen}");
    }
    assert!(!seen.contains("of-server"), "{seen}");
    // In a worker that was warm before and in one that was forked since, while the first session lives and after.
    let mut pids = vec![one.worker(0).await];
    for nth in 0..4 {
        if nth == 3 {
            of_one.run("import os; os.remove(kept)").await.ok();
        }
        let other = server.kernel().await;
        let (pid, origin) = other.worker_from(0).await;
        assert_eq!(origin, "Warm");
        assert!(!pids.contains(&pid), "worker {pid} was given twice");
        pids.push(pid);
        let mut client = other.client().await;
        assert_eq!(looks(&mut client).await, "[]");
        server.holds(2, 2).await;
    }
}

async fn place(kernel: &TestKernel, client: &mut TestClient) -> [PathBuf; 3] {
    let place = client.run(PLACE).await.ok().stdout();
    let lines: Vec<_> = place.lines().collect();
    let [cwd, home, tmp, mask] = lines.as_slice() else { unreachable!("{place}") };
    assert_eq!(*mask, "0o77");
    assert_eq!(cwd, home);
    let sessions = kernel.runtime().join("sessions");
    let folders = [cwd, home, tmp].map(PathBuf::from);
    assert!(folders.iter().all(|folder| folder.starts_with(&sessions)), "{place}");
    folders
}

#[tokio::test]
async fn an_isolated_session_has_only_what_was_listed_and_a_folder_that_goes_with_it() {
    for server in [None, Some(TestServer::start().await)] {
        let setup = || {
            let setup = server.as_ref().map_or_else(Setup::new, |server| Setup::new().server(server));
            let setup = setup.env("SECRET", "cob-canary-of-kernel").env("WANTED", "from outside");
            setup
                .argument("--isolated")
                .argument("--env")
                .argument("WANTED")
                .argument("--env")
                .argument("GIVEN=a=b")
        };
        let mut kernel = setup().start().await;
        let mut client = kernel.client().await;
        let names =
            client.run("import os; print(*sorted(n for n in os.environ if n[:3] != 'LC_'))").await.ok();
        // The last six are cob's own.
        let allowed = "GIVEN HOME LANG LANGUAGE LOGNAME PATH SHELL TMPDIR TZ USER VIRTUAL_ENV WANTED \
            CLICOLOR COB_WORKER GIT_PAGER PAGER PYTHONNOUSERSITE TERM";
        for name in names.stdout().split_whitespace() {
            assert!(allowed.split_whitespace().any(|allowed| allowed == name), "{name}");
        }
        let values = client.run("os.environ['WANTED'], os.environ['GIVEN']").await.ok();
        assert_eq!(values.result(), "('from outside', 'a=b')");
        assert_eq!(looks(&mut client).await, "[]");
        let folders = place(&kernel, &mut client).await;
        client.run("import tempfile; open('file', 'w').close(); kept = tempfile.mkdtemp(); os.mkdir('d'); os.chmod('d', 0)").await.ok();

        // Two at a time have nothing in common.
        let other = setup().runtime(&kernel).start().await;
        let mut its_client = other.client().await;
        let others = place(&other, &mut its_client).await;
        assert!(folders.iter().all(|folder| folder.exists() && !others.contains(folder)));
        drop((its_client, other));
        assert!(others.iter().all(|folder| !folder.exists()));
        assert!(folders.iter().all(|folder| folder.exists()));

        // A worker that replaces another one is in the same place.
        client.run("os._exit(1)").await.lost("");
        assert_eq!(place(&kernel, &mut client).await, folders);

        // Killed, it leaves its folder to whoever comes next.
        kernel.signal(Signal::KILL);
        kernel.end().await;
        let next = setup().runtime(&kernel).start().await;
        assert!(folders.iter().all(|folder| !folder.exists()));
        drop(next);
        drop((client, kernel));
    }
}

/// Each had a home of its own, so each had an environment of its own: none was ever warm, and each left a zygote.
#[tokio::test]
async fn an_isolated_session_gets_a_warm_worker_too() {
    let server = ServerSetup::new().cold().launch();
    let setup = Setup::new().server(&server).argument("--isolated");
    drop(setup.start().await);
    server.settled().await;
    for _ in 0..3 {
        let kernel = setup.start().await;
        assert_eq!(kernel.worker_from(0).await.1, "Warm");
        let mut client = kernel.client().await;
        place(&kernel, &mut client).await;
        assert_eq!(client.run("import sys; 'colorsys' in sys.modules").await.ok().result(), "True");
        drop((client, kernel));
        server.settled().await;
    }
    assert_eq!(server.info()["environments"].as_array().map(Vec::len), Some(1));
}
