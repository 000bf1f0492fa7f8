//! Real trees that do not want to end.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdout, Command, Stdio};

use super::*;
use crate::limits::{Cgroups, skipped};

/// A worker that runs Python code, its output, and what its tree is known by.
struct Adversary {
    child: Child,
    output: BufReader<ChildStdout>,
    tree: Tree,
}

impl Adversary {
    /// Starts `code`, and waits until it printed `ups` lines that say `up`.
    fn start(code: &str, ups: usize) -> Self {
        Self::start_in(code, ups, None)
    }

    fn start_in(code: &str, ups: usize, group: Option<&Cgroup>) -> Self {
        let marker = uuid();
        let code = format!("import os, signal, sys\ninput()\n{code}\nsignal.pause()");
        let mut command = Command::new("setsid");
        command.args(["python3", "-c", &code]).env(MARKER, &marker);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let pipe = child.stdout.take().unwrap();
        let inode = rustix::fs::fstat(pipe.as_fd()).unwrap().st_ino;
        let tree = Tree::of(child.id(), &marker, &[inode]).unwrap();
        if let Some(group) = group {
            group.add(child.id()).unwrap();
        }
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"\n").unwrap();
        let mut output = BufReader::new(pipe);
        for _ in 0..ups {
            let mut line = String::new();
            output.read_line(&mut line).unwrap();
            assert_eq!(line, "up\n");
        }
        Self { child, output, tree }
    }

    /// Kills the tree; afterwards nobody may be left. The end of the pipe shows it if one of them still had it.
    #[track_caller]
    fn end(mut self, group: Option<&Cgroup>, at_least: usize) {
        let killed = self.tree.kill_blocking(group).unwrap();
        assert!(killed >= at_least, "{killed}");
        let marker = &self.tree.marker;
        let left = Stat::all().into_iter().filter(|stat| {
            let environment = fs::read(format!("/proc/{}/environ", stat.process.pid)).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|entry| entry == marker)
        });
        assert_eq!(left.map(|stat| stat.process.pid).collect::<Vec<_>>(), Vec::<u32>::new());
        self.output.read_to_end(&mut Vec::new()).unwrap();
        self.child.wait().unwrap();
    }
}

/// What no other test of this run or another has.
fn uuid() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let me = Stat::of(std::process::id()).unwrap().process;
    format!("test-{}-{}-{}", me.pid, me.started, NEXT.fetch_add(1, Ordering::Relaxed))
}

const UP: &str = "os.write(1, b'up\\n')";

#[test]
fn children_that_ignore_signals_end_too() {
    let code = format!(
        "for s in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT): signal.signal(s, signal.SIG_IGN)\n\
         os.fork(); os.fork()\n{UP}"
    );
    Adversary::start(&code, 4).end(None, 4);
}

#[test]
fn daemons_that_left_session_and_parents_are_found_by_their_marker_or_their_pipe() {
    // The first lost its environment, the second its pipes, the third is stopped.
    let daemon = |last: &str| {
        format!(
            "if os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n    \
             if os.fork() == 0: {last}\n    os._exit(0)\n  os._exit(0)\nos.wait()\n"
        )
    };
    let code = [
        daemon("os.execve('/bin/sh', ['sh', '-c', 'echo up; while :; do read x < /dev/zero; done'], {})"),
        daemon(&format!("{UP}; os.closerange(0, 100); signal.pause()")),
        daemon(&format!("{UP}; os.kill(os.getpid(), signal.SIGSTOP)")),
    ];
    Adversary::start(&code.concat(), 3).end(None, 4);
}

#[test]
fn a_leader_that_is_dead_already_leaves_nobody_behind() {
    let code = format!("if os.fork() == 0:\n  os.setpgid(0, 0)\n  {UP}\n  signal.pause()\nos._exit(0)");
    let mut adversary = Adversary::start(&code, 1);
    adversary.child.wait().unwrap();
    adversary.end(None, 1);
}

/// Sixteen processes, each of which starts another one when its neighbour dies.
fn hydra() -> String {
    format!(
        "def head():\n  signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n  r, w = os.pipe()\n  \
         if os.fork() == 0:\n    os.close(w)\n    os.read(r, 1)\n    os.setsid()\n    body()\n  os.close(r)\n\
         def body():\n  head()\n  signal.pause()\n\
         for i in range(8):\n  if os.fork() == 0:\n    head()\n    {UP}\n    signal.pause()"
    )
}

#[test]
fn what_grows_again_when_it_is_cut_ends_too() {
    Adversary::start(&hydra(), 8).end(None, 17);
}

#[test]
fn a_group_holds_those_whom_nothing_else_betrays() {
    let cgroups = Cgroups::detect();
    let Ok(group) = cgroups.create() else {
        skipped(&format!("no cgroups here: {:?}", cgroups.processes()));
        return;
    };
    Adversary::start_in(&hydra(), 8, Some(&group)).end(Some(&group), 17);
    let group = cgroups.create().unwrap();
    let vanish = format!(
        "import select\n\
         if os.fork() == 0:\n  os.setsid()\n  between = os.pidfd_open(os.getpid())\n  \
         if os.fork() == 0:\n    select.select([between], [], [])\n    {UP}\n    \
         os.execve('/bin/sh', ['sh', '-c', 'exec >&- <&- 2>&-; while :; do read x < /dev/zero; done'], {{}})\n  \
         os._exit(0)"
    );
    let adversary = Adversary::start_in(&vanish, 1, Some(&group));
    assert_eq!(group.processes().len(), 2);
    adversary.end(Some(&group), 2);
    assert_eq!(group.processes(), Vec::<u32>::new());
}

#[test]
fn processes_of_others_are_left_alone() {
    let mut neighbour = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let adversary = Adversary::start(&format!("if os.fork() == 0:\n  {UP}\n  signal.pause()"), 1);
    adversary.end(None, 2);
    assert!(neighbour.try_wait().unwrap().is_none());
    drop(neighbour.stdin.take());
    neighbour.wait().unwrap();
}

/// A server and a kernel that were started by the same shell: what the kernel reads its worker by is no mark of one.
#[test]
fn whoever_reads_the_output_of_a_worker_is_not_one_of_its_tree() {
    let adversary = Adversary::start("", 0);
    let pipe = adversary.output.get_ref().as_fd().try_clone_to_owned().unwrap();
    let reader =
        Command::new("sh").args(["-c", "exec cat <&0 3<&0"]).stdin(pipe).stdout(Stdio::piped()).spawn();
    let mut reader = reader.unwrap();
    adversary.end(None, 1);
    // It reads to the end, and is killed by nobody.
    assert!(reader.wait().unwrap().success());
}

#[test]
fn a_tree_that_is_gone_can_be_ended_again() {
    let mut adversary = Adversary::start(&format!("os.fork()\n{UP}"), 2);
    assert_eq!(adversary.tree.kill_blocking(None).unwrap(), 2);
    assert_eq!(adversary.tree.kill_blocking(None).unwrap(), 0, "nobody is left");
    adversary.child.wait().unwrap();
    assert!(Tree::of(u32::MAX, "", &[]).is_none());
}
