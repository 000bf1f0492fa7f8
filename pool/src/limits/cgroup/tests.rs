//! Groups on this host where it allows them, and on a made-up host for the kind it does not have.

use std::process::{Child, Command, Stdio};

use super::*;
use crate::limits::skipped;
use cob_protocol::resources::Limits;

/// This host's groups, or nothing with the reason in the output of the test.
fn ours() -> Option<Cgroups> {
    let cgroups = Cgroups::detect();
    match (cgroups.memory(), cgroups.processes()) {
        (Ok(_), Ok(_)) => Some(cgroups),
        (memory, pids) => {
            skipped(&format!("no cgroups for us: memory {memory:?}, processes {pids:?}"));
            None
        }
    }
}

/// A process that lives until its standard input is closed, and does what `code` says once a line comes in.
fn shell(code: &str) -> Child {
    let script = format!("read line; {code}");
    let mut command = Command::new("sh");
    command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().unwrap()
}

fn go(child: &mut Child) {
    use std::io::Write;
    child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
}

#[test]
fn memory_is_limited_and_its_end_is_counted() {
    let Some(cgroups) = ours() else { return };
    let group = cgroups.create().unwrap();
    let mut child = shell("x=x; while :; do x=$x$x; done");
    group.add(child.id()).unwrap();
    assert_eq!(group.processes(), [child.id()]);
    group.limit(&Limits::parse("memory=64M").unwrap()).unwrap();
    group.limit(&Limits::parse("memory=32M").unwrap()).unwrap();
    assert_eq!(group.oom_kills(), 0);
    go(&mut child);
    let status = child.wait().unwrap();
    assert!(!status.success());
    assert_eq!(group.oom_kills(), 1, "{status:?}");
    group.remove().unwrap();
}

#[test]
fn a_limit_can_be_raised_again() {
    let Some(cgroups) = ours() else { return };
    let group = cgroups.create().unwrap();
    for memory in ["memory=64M", "memory=128M", "memory=32M"] {
        group.limit(&Limits::parse(memory).unwrap()).unwrap();
    }
    assert_eq!(group.memory_bytes().map(|bytes| bytes < 32 << 20), Some(true));
}

#[test]
fn the_number_of_processes_is_limited() {
    let Some(cgroups) = ours() else { return };
    let group = cgroups.create().unwrap();
    let mut child = shell("for i in 1 2 3 4 5 6 7 8; do cat <&0 & done; wait");
    group.add(child.id()).unwrap();
    group.limit(&Limits::parse("processes=4").unwrap()).unwrap();
    go(&mut child);
    // The shell ends when it cannot fork; what it started lives on.
    child.wait().unwrap();
    assert!(group.processes().len() <= 4);
    group.kill().unwrap();
    group.remove().unwrap();
}

#[test]
fn everybody_in_a_group_can_be_killed_also_daemons() {
    let Some(cgroups) = ours() else { return };
    let group = cgroups.create().unwrap();
    let mut child = shell("trap '' TERM HUP; (setsid sh -c 'echo up; exec cat <&3' 3<&0 &); echo up; cat");
    group.add(child.id()).unwrap();
    go(&mut child);
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    assert!(lines.next().is_some() && lines.next().is_some(), "both are there");
    assert!(group.kill().unwrap() >= 2);
    assert_eq!(group.processes(), Vec::<u32>::new());
    child.wait().unwrap();
    let directory = cgroups.memory.as_ref().unwrap().below(group.name()).directory;
    assert!(directory.exists());
    drop(group);
    assert!(!directory.exists(), "an empty group goes with its owner");
}

#[test]
fn what_dead_servers_left_is_swept_unless_somebody_owns_it() {
    let Some(cgroups) = ours() else { return };
    // A server that has ended: its id exists no more, or belongs to somebody who started at another time.
    let mut server = Command::new("true").spawn().unwrap();
    let started = Stat::of(server.id()).unwrap().process.started;
    server.wait().unwrap();
    let dead = |number: u32| {
        let name = format!("{PREFIX}{}-{started}-{number}", server.id());
        let place = |parent: &Parent| Some(parent.as_ref().unwrap().below(&name));
        Cgroup::make(name.clone(), place(&cgroups.memory), place(&cgroups.pids)).unwrap()
    };
    let (abandoned, owned, live) = (dead(0), dead(1), cgroups.create().unwrap());
    let mut owner = shell("");
    owned.lend_to(owner.id()).unwrap();
    let mut children = [shell(""), shell(""), shell("")];
    for (group, child) in [&abandoned, &owned, &live].into_iter().zip(&children) {
        group.add(child.id()).unwrap();
    }
    // A server whose own place in one of the hierarchies is elsewhere sees the groups in the other one only.
    let elsewhere = || Err("elsewhere".to_owned());
    let (memory, pids, stem) = (cgroups.memory.clone(), cgroups.pids.clone(), cgroups.stem.clone());
    for half in [
        Cgroups { memory: elsewhere(), pids, stem: stem.clone() },
        Cgroups { memory, pids: elsewhere(), stem },
    ] {
        assert_eq!(half.sweep_if(|name| name == owned.name()), 0);
    }
    let mine = |name: &str| [&abandoned, &owned, &live].iter().any(|group| group.name() == name);
    assert_eq!(cgroups.sweep_if(mine), 1);
    assert!(children[0].wait().is_ok_and(|status| !status.success()));
    assert!(children[1].try_wait().unwrap().is_none() && children[2].try_wait().unwrap().is_none());
    assert!(!cgroups.memory.as_ref().unwrap().below(abandoned.name()).directory.exists());
    // A server that ends in order forgets nothing of whom somebody else has.
    drop(owned);
    let owned = dead_again(&cgroups, &format!("{PREFIX}{}-{started}-1", server.id()));
    assert!(owned.is_lent());
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert!(!owned.is_lent());
    assert_eq!(cgroups.sweep_if(|name| name == owned.name()), 1);
    assert!(!cgroups.memory.as_ref().unwrap().below(owned.name()).directory.exists());
    children[1].wait().unwrap();
    live.kill().unwrap();
    children[2].wait().unwrap();
}

/// A group that exists already.
fn dead_again(cgroups: &Cgroups, name: &str) -> Cgroup {
    let place = |parent: &Parent| Some(parent.as_ref().unwrap().below(name));
    Cgroup::found(name.to_owned(), place(&cgroups.memory), place(&cgroups.pids))
}

#[test]
fn only_groups_of_dead_servers_are_abandoned() {
    let me = Stat::of(std::process::id()).unwrap().process;
    assert!(!is_abandoned(&format!("cob-{}-{}-3", me.pid, me.started)));
    assert!(is_abandoned(&format!("cob-{}-{}-3", me.pid, me.started + 1)), "the id was given again");
    for other in ["cob-host", "cob-1-2", "cob-1-2-3-4", "cob-a-b-c", "system.slice", "cob-99999999999-1-1x"] {
        assert!(!is_abandoned(other), "{other}");
    }
}

/// A host with the unified hierarchy only, made of plain files.
struct MadeUp(tempfile::TempDir);

impl MadeUp {
    fn new(controllers: &str) -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(host.group()).unwrap();
        let mount = "1 2 0:3 / /cgroup rw - cgroup2 cgroup2 rw\n";
        fs::write(host.0.path().join("mountinfo"), mount).unwrap();
        fs::write(host.0.path().join("cgroup"), "0::/user/me\n").unwrap();
        fs::write(host.group().join("cgroup.controllers"), controllers).unwrap();
        fs::write(host.group().join("cgroup.type"), "domain\n").unwrap();
        host
    }

    fn group(&self) -> PathBuf {
        self.0.path().join("cgroup-root/cgroup/user/me")
    }

    fn detect(&self) -> Cgroups {
        let root = self.0.path().join("cgroup-root");
        Cgroups::detect_on(&Host { process: self.0.path().to_owned(), root })
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.group().join(file)).unwrap_or_default()
    }
}

#[test]
fn in_the_unified_hierarchy_the_server_moves_into_a_leaf_and_divides_its_group() {
    let host = MadeUp::new("cpu memory pids\n");
    let cgroups = host.detect();
    assert_eq!((cgroups.memory(), cgroups.processes()), (Ok(Version::V2), Ok(Version::V2)));
    assert_eq!(host.read("cob-host/cgroup.procs"), std::process::id().to_string());
    assert_eq!(host.read("cgroup.subtree_control"), "+memory +pids");

    let group = cgroups.create().unwrap();
    let directory = host.group().join(group.name());
    fs::write(directory.join("memory.swap.max"), "max").unwrap();
    group.add(77).unwrap();
    group.limit(&Limits::parse("memory=1G,processes=9").unwrap()).unwrap();
    let written = |file: &str| fs::read_to_string(directory.join(file)).unwrap();
    assert_eq!(written("cgroup.procs"), "77");
    assert_eq!((written("memory.max"), written("memory.swap.max")), ("1073741824".into(), "0".into()));
    assert_eq!((written("memory.oom.group"), written("pids.max")), ("1".into(), "9".into()));
    fs::write(directory.join("memory.events"), "low 0\noom 4\noom_kill 3\noom_group_kill 1\n").unwrap();
    fs::write(directory.join("memory.current"), "4096\n").unwrap();
    assert_eq!((group.oom_kills(), group.memory_bytes()), (3, Some(4096)));
    fs::write(directory.join("cgroup.kill"), "").unwrap();
    group.kill_at_once();
    assert_eq!(written("cgroup.kill"), "1");
    assert_eq!(written("pids.max"), "9", "a group that is killed in one step needs no other means");
}

#[test]
fn what_the_host_does_not_delegate_is_said() {
    let host = MadeUp::new("cpu\n");
    let why = host.detect().memory().unwrap_err().to_owned();
    assert!(why.contains("has neither the memory nor the pids controller"), "{why}");
    let cgroups = MadeUp::new("pids\n").detect();
    assert_eq!(cgroups.processes(), Ok(Version::V2));
    assert!(cgroups.memory().unwrap_err().contains("has no memory controller"));
    let nowhere = Host { process: "/nonexistent".into(), root: "/".into() };
    let why = Cgroups::detect_on(&nowhere).memory().unwrap_err().to_owned();
    assert!(why.contains("no cgroup hierarchy is mounted"), "{why}");
    assert!(matches!(Cgroups::none("as a test").create(), Err(CgroupError::NotAvailable(_))));
}

#[test]
fn a_server_that_is_in_the_leaf_already_uses_the_group_above() {
    let host = MadeUp::new("memory pids\n");
    host.detect();
    fs::write(host.0.path().join("cgroup"), "0::/user/me/cob-host\n").unwrap();
    fs::write(host.group().join("cgroup.subtree_control"), "memory pids\n").unwrap();
    let group = host.detect().create().unwrap();
    assert!(host.group().join(group.name()).is_dir());
    assert_eq!(host.read("cgroup.subtree_control"), "memory pids\n", "nothing was missing");
}

#[test]
fn as_long_as_there_is_a_checkpoint_the_system_chooses_who_goes() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place { version: Version::V2, directory: folder.path().to_owned() };
    let group = Cgroup::found("cob-1-1-1".to_owned(), Some(place), None);
    group.limit_memory(1 << 30).unwrap();
    let is_whole = || fs::read_to_string(folder.path().join("memory.oom.group")).unwrap();
    assert_eq!(is_whole(), "1");
    for _ in 0..2000 {
        let last = group.with_checkpoint();
        let goes = std::thread::spawn(move || drop(last));
        let next = group.with_checkpoint();
        goes.join().unwrap();
        assert_eq!(is_whole(), "0");
        drop(next);
        assert_eq!(is_whole(), "1");
    }
}
